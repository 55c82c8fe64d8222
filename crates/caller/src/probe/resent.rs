//! What TCP had to send again while a round was under way, from the counters of the pod's network namespace.
//!
//! A reading costs about as much as a call. So there is one before a round, and another only after a call for which
//! it may say something, and each serves whatever begins or ends within [`FRESH`] after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runtime::tcp_counters::TcpCounters;
use tokio::time::Instant;

use crate::report::{Phase, Report, Resent};

/// A connection that took longer may have lost a SYN: the first is sent again after a second.
const SLOW_CONNECT: Duration = Duration::from_millis(200);

/// A call that took longer may have lost other segments.
const SLOW_CALL: Duration = Duration::from_secs(1);

/// A reading is used so long.
const FRESH: Duration = Duration::from_millis(100);

/// Rounds of this process that have begun, and those that have ended.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// The last reading of this process.
static LAST: Mutex<Option<Reading>> = Mutex::new(None);

/// A reading of the counters.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    /// Rounds that had begun by then.
    begun: u64,
    counters: TcpCounters,
}

impl Reading {
    /// The last one, if it is fresh, or a new one. `None` where the system does not tell.
    fn fresh() -> Option<Self> {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = last.filter(|reading| reading.at.elapsed() < FRESH);
        *last = match fresh {
            Some(reading) => Some(reading),
            None => TcpCounters::read().map(|counters| Self {
                at: Instant::now(),
                begun: BEGUN.load(Ordering::Relaxed),
                counters,
            }),
        };
        *last
    }
}

/// Looks at the counters, from the start of a round to its end.
#[derive(Debug)]
pub(super) struct ResentWatch {
    before: Option<Reading>,
    calls: u64,
    /// The number of this round, if no other was under way when it began, nor since `before` was read.
    alone: Option<u64>,
}

impl ResentWatch {
    /// Reads the counters before a round.
    pub(super) fn start() -> Self {
        let before = Reading::fresh();
        let number = BEGUN.fetch_add(1, Ordering::Relaxed) + 1;
        let is_alone = ENDED.load(Ordering::Relaxed) == number - 1
            && before.is_some_and(|before| before.begun == number - 1);
        Self {
            before,
            calls: 0,
            alone: is_alone.then_some(number),
        }
    }

    /// What has been sent again since the start, if it may have been for this call and is something.
    pub(super) fn look(&mut self, report: &Report) -> Option<Resent> {
        self.calls += 1;
        let took = |phase, slow| report.timings[phase].is_some_and(|took| took >= slow);
        let may_say_something =
            !report.is_ok() || took(Phase::Connect, SLOW_CONNECT) || took(Phase::Total, SLOW_CALL);
        if !may_say_something {
            return None;
        }
        let since = Reading::fresh()?.counters.since(&self.before?.counters);
        let syns = since.syn_retransmits.unwrap_or_default();
        // Those of SYNs are among the others.
        let segments = since.retransmits.unwrap_or_default().saturating_sub(syns);
        let is_alone = self.calls == 1 && self.alone == Some(BEGUN.load(Ordering::Relaxed));
        (syns + segments > 0).then_some(Resent {
            syns,
            segments,
            is_shared: !is_alone,
        })
    }
}

impl Drop for ResentWatch {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Ordering::Relaxed);
    }
}
