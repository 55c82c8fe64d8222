//! Totals and history of a run, as data without wording. Memory is limited, however long the run is.

mod health;
mod history;
mod names;
mod rollout;
mod summary;

use std::sync::{Arc, Mutex, MutexGuard};

use runtime::unpoisoned::unpoisoned;
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

/// Receives the calls of a run as they end, to print, count or store them.
pub(crate) trait Observer: Sync {
    /// The lookup of a round has ended.
    fn lookup(&self, _lookup: &Lookup) {}

    /// A call has ended.
    fn call(&self, report: &Report);

    /// Every call of the round has ended.
    fn round_ended(&self) {}
}

/// Totals and history of the calls of one target.
#[derive(Debug)]
pub(crate) struct Stats {
    target: Arc<Target>,
    state: Mutex<State>,
    /// Notifies watchers that a round has ended.
    changed: Arc<watch::Sender<()>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) summary: Summary,
    pub(crate) history: History,
}

impl Stats {
    /// Starts counting the calls of one target out of `targets`; with `rollout`, detects a rollout as well.
    /// `changed` is shared by all targets, and notified when a round of any of them ends.
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

    /// The target whose calls are counted.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The totals so far.
    pub(crate) fn summary(&self) -> Summary {
        self.state().summary.clone()
    }

    /// Whether a rollout has been detected; false if detection is disabled.
    pub(crate) fn is_rollout_seen(&self) -> bool {
        self.state().summary.rollout().is_some_and(Rollout::is_seen)
    }

    /// The totals and the history. A poisoned lock is ignored: a thread that panicked has left at most one call half
    /// recorded.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
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
