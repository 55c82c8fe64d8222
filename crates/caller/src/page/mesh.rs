//! The data of the mesh's pages: this caller's own row, and the matrix of all rows, which is collected on
//! request.

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

/// How long a collected matrix is reused. However many requests there are, the rows are collected at most
/// once in this time.
const MAX_AGE: Duration = Duration::from_secs(5);

/// The data of the mesh's pages, for a caller that is part of the mesh.
#[derive(Debug)]
pub(crate) struct MeshPage {
    targets: Vec<(String, Arc<Node>)>,
    collector: Collector,
    interval: Duration,
    /// Name of this pod, if it is known.
    name: Option<String>,
    row: Cached<Bytes>,
    matrix: Mutex<Option<(Instant, Bytes)>>,
}

impl MeshPage {
    /// Creates the data for the sampled targets. `port` is the port at which all callers serve their rows.
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

    /// The matrix of all rows, as JSON. Requests that arrive while it is being collected wait for the same
    /// collection. It continues if they are cancelled, so that a client that repeatedly requests it and
    /// disconnects does not start further collections.
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
