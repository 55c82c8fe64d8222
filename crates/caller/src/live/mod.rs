//! What a browser is shown of a caller while it runs, on the admin port:
//!
//! - `GET /` -- the live page: one file, which asks nobody but this caller for anything.
//! - `GET /status.json` -- the same data, once; [`status`] says what is in it.
//! - `GET /events` -- the same data as server-sent events, whenever a call has ended.
//! - the routes of [`runtime::admin`].

mod events;
mod history;
mod routes;
mod status;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use self::history::History;
pub(crate) use self::routes::Routes;
use crate::probe::Host;
use crate::report::Report;
use crate::summary::Summary;

/// What a running caller has seen so far. Memory is bounded, however long it runs.
#[derive(Debug)]
pub(crate) struct Live {
    about: About,
    state: Mutex<State>,
    /// Tells that a round of calls has ended.
    changed: watch::Sender<()>,
}

/// What does not change.
#[derive(Debug)]
pub(crate) struct About {
    /// The pod that calls, where that is known.
    pub(crate) name: Option<String>,
    /// What is called, and its host.
    pub(crate) url: String,
    pub(crate) host: Host,
    /// From the start of a call to the start of the next.
    pub(crate) interval: Duration,
}

#[derive(Debug)]
struct State {
    /// Another with every start: numbers of calls are to be compared within one start only.
    instance: String,
    started: Timestamp,
    summary: Summary,
    history: History,
}

impl Live {
    pub(crate) fn new(about: About) -> Self {
        let state = State {
            instance: format!("{:016x}", rand::random::<u64>()),
            started: Timestamp::now(),
            summary: Summary::new(about.url.clone()),
            history: History::default(),
        };
        Self {
            about,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.about.url
    }

    /// Takes in a call that has just ended. Gives the name that its answer was counted under.
    pub(crate) fn record(&self, report: &Report) -> Option<String> {
        let mut state = self.state();
        let backend = state.summary.record(report);
        state.history.record(report, backend.clone());
        backend
    }

    /// A round of calls, one or one for each address, has ended.
    pub(crate) fn end_round(&self) {
        self.state().history.end_round();
        self.changed.send_replace(());
    }

    /// What all calls came to.
    pub(crate) fn summary(&self) -> Summary {
        self.state().summary.clone()
    }

    /// A thread that panicked while it held the lock has left at worst half a record.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
