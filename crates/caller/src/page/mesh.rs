//! What the pages of a mesh show: this caller's own row, and the matrix of all rows, which is collected when somebody
//! asks for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::cached::Cached;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::dns::Resolver;
use crate::mesh::collect::Collector;
use crate::mesh::node::Node;
use crate::mesh::report::MeshReport;
use crate::mesh::row::Row;
use crate::target::Target;
use crate::views;

/// How long a matrix is shared. A neighbour that asks all the time makes one collection in so long, and no more.
const MAX_AGE: Duration = Duration::from_secs(5);

/// A caller's view of the mesh that it is part of.
#[derive(Debug)]
pub(crate) struct MeshPage {
    targets: Vec<(String, Arc<Node>)>,
    collector: Collector,
    interval: Duration,
    /// The pod that this is, where that is known.
    name: Option<String>,
    row: Cached<Bytes>,
    matrix: Mutex<Option<(Instant, Bytes)>>,
}

impl MeshPage {
    /// The view of the targets that are sampled. `port` is that of all callers' rows.
    pub(crate) fn new(
        sampled: Vec<(Arc<Target>, Arc<Node>)>,
        resolver: Resolver,
        port: u16,
        interval: Duration,
        name: Option<String>,
    ) -> Self {
        let targets = sampled.iter().map(|(target, _)| Arc::clone(target));
        Self {
            collector: Collector {
                targets: targets.collect(),
                resolver,
                port,
            },
            targets: sampled
                .into_iter()
                .map(|(target, node)| (target.label().to_owned(), node))
                .collect(),
            interval,
            name,
            row: Cached::default(),
            matrix: Mutex::new(None),
        }
    }

    /// This caller's own row, as JSON.
    pub(super) fn row(&self) -> Bytes {
        self.row
            .get(|| Row::of(&self.targets, self.interval).to_json().into())
    }

    /// The matrix of all rows, as JSON. Those who ask while it is collected wait for the same one, and it goes on if
    /// they do not: whoever asks and hangs up does not make another one begin.
    pub(super) async fn matrix(self: Arc<Self>) -> Bytes {
        let collected = tokio::spawn(async move {
            let mut last = self.matrix.lock().await;
            if let Some((made, matrix)) = &*last
                && made.elapsed() < MAX_AGE
            {
                return matrix.clone();
            }
            let report = MeshReport::new(self.collector.collect().await);
            let labels = self.collector.labels();
            let json = views::mesh::to_json(&report, &labels, self.name.as_deref());
            let matrix = Bytes::from(json);
            *last = Some((Instant::now(), matrix.clone()));
            matrix
        });
        match collected.await {
            Ok(matrix) => matrix,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
