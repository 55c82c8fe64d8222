//! The live page of a running caller, on the admin port:
//!
//! - `GET /` -- the page, a single file that loads everything from this caller.
//! - `GET /status.json` -- the data of the page, once; [`status`] documents its members. With several targets
//!   it is an overview ([`overview`]), and `?target=LABEL` selects one of them.
//! - `GET /events` -- the same data as server-sent events, one after each round of calls; also with
//!   `?target=LABEL`.
//! - `GET /mesh` -- the page of the mesh; `GET /mesh/matrix.json` -- its data; and `GET /mesh.json` -- this caller's
//!   own row of it ([`crate::mesh`]). They respond with 404 if no target is sampled.
//! - the routes of [`runtime::admin`].

mod events;
mod mesh;
mod overview;
mod routes;
mod status;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

pub(crate) use self::mesh::MeshPage;
pub(crate) use self::routes::Routes;
use crate::stats::Stats;

/// The data of the page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Name of this pod, if it is known.
    name: Option<String>,
    /// Interval between the starts of two calls.
    interval: Duration,
    /// Random id of this process: numbers of calls can be compared only within one process.
    instance: String,
    started: SystemTime,
    /// Totals and history of each target.
    stats: Vec<Arc<Stats>>,
    /// Whether there is also a page of the mesh.
    has_mesh: bool,
    /// Notifies that a round of any target has ended.
    changed: Arc<watch::Sender<()>>,
}

impl Page {
    /// Creates the page of a run that starts now.
    pub(crate) fn new(
        name: Option<String>,
        interval: Duration,
        stats: Vec<Arc<Stats>>,
        has_mesh: bool,
        changed: Arc<watch::Sender<()>>,
    ) -> Self {
        Self {
            name,
            interval,
            instance: format!("{:016x}", rand::random::<u64>()),
            started: SystemTime::now(),
            stats,
            has_mesh,
            changed,
        }
    }

    /// Whether there are several targets.
    fn has_several_targets(&self) -> bool {
        self.stats.len() > 1
    }
}
