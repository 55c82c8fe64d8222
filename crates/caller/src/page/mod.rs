//! The live page of a running caller, on the admin port:
//!
//! - `GET /` -- the page: one file, which asks nobody but this caller for anything.
//! - `GET /status.json` -- the same data, once; [`status`] says what is in it. With several targets that is an
//!   overview ([`overview`]), and `?target=LABEL` asks for one of them.
//! - `GET /events` -- the same data as server-sent events, whenever a round of calls has ended; `?target=LABEL`
//!   as well.
//! - `GET /mesh` -- the page of the mesh, `GET /mesh/matrix.json` -- its data, and `GET /mesh.json` -- what this
//!   caller knows of it ([`crate::mesh`]); 404 where no target is sampled.
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

/// What the page shows.
#[derive(Debug)]
pub(crate) struct Page {
    /// The pod that calls, where that is known.
    name: Option<String>,
    /// From the start of a call to the start of the next.
    interval: Duration,
    /// Another with every start: numbers of calls are to be compared within one start only.
    instance: String,
    started: SystemTime,
    /// What is known of each target.
    stats: Vec<Arc<Stats>>,
    /// Whether there is a page of the mesh as well.
    has_mesh: bool,
    /// Tells that a round of one of them has ended.
    changed: Arc<watch::Sender<()>>,
}

impl Page {
    /// A page of a run that begins now.
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
    fn is_of_several(&self) -> bool {
        self.stats.len() > 1
    }
}
