//! Totals and history of a run, without a word of how they are shown. Memory is bounded, however long
//! the run is.

mod health;
mod history;
mod names;
mod rollout;
mod summary;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub(crate) use self::health::{Period, Unexpected};
pub(crate) use self::history::{Call, History};
pub(crate) use self::names::Names;
pub use self::rollout::{Answered, NotSeen, Rollout};
pub use self::summary::{Backend, Summary};
use crate::dns::Lookup;
use crate::expectation::Expectation;
use crate::report::Report;
use crate::target::Target;

/// Follows the calls of a run as they end: the printer, the metrics, the totals.
pub(crate) trait Observer: Sync {
    /// The lookup of a round has ended.
    fn lookup(&self, _lookup: &Lookup) {}

    /// A call has ended.
    fn call(&self, report: &Report);

    /// Every call of the round has ended.
    fn round_ended(&self) {}
}

/// What is known of a run so far.
#[derive(Debug)]
pub(crate) struct Stats {
    target: Arc<Target>,
    state: Mutex<State>,
    /// Tells that a round has ended.
    changed: Arc<watch::Sender<()>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) summary: Summary,
    pub(crate) history: History,
}

impl Stats {
    /// Starts counting the calls of one of so many targets now; looks for a rollout as well, if that is asked
    /// for. `changed` tells of every target's rounds.
    pub(crate) fn new(
        (target, expectation): (Arc<Target>, Expectation),
        targets: usize,
        rollout: bool,
        changed: Arc<watch::Sender<()>>,
    ) -> Self {
        let summary = Summary::new(Arc::clone(&target), expectation, Names::for_one_of(targets));
        let state = State {
            summary: match rollout {
                true => summary.with_rollout(),
                false => summary,
            },
            history: History::for_one_of(targets),
        };
        Self {
            target,
            state: Mutex::new(state),
            changed,
        }
    }

    /// What is called.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The totals, so far.
    pub(crate) fn summary(&self) -> Summary {
        self.state().summary.clone()
    }

    /// Whether a rollout that was looked for has been seen.
    pub(crate) fn is_rollout_seen(&self) -> bool {
        self.state().summary.rollout().is_some_and(Rollout::is_seen)
    }

    /// A thread that panicked while it held the lock has left at worst half a record.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Stats {
    fn call(&self, report: &Report) {
        let State { summary, history } = &mut *self.state();
        let backend = summary.record(report);
        history.record(report, backend);
    }

    fn round_ended(&self) {
        self.state().history.end_round();
        self.changed.send_replace(());
    }
}
