//! The live page of a running caller, on the admin port:
//!
//! - `GET /` -- the page: one file, which asks nobody but this caller for anything.
//! - `GET /status.json` -- the same data, once; [`status`] says what is in it.
//! - `GET /events` -- the same data as server-sent events, whenever a round of calls has ended.
//! - the routes of [`runtime::admin`].

mod events;
mod routes;
mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

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
    started: Timestamp,
    stats: Arc<Stats>,
}

impl Page {
    /// A page of a run that begins now.
    pub(crate) fn new(name: Option<String>, interval: Duration, stats: Arc<Stats>) -> Self {
        Self {
            name,
            interval,
            instance: format!("{:016x}", rand::random::<u64>()),
            started: Timestamp::now(),
            stats,
        }
    }
}
