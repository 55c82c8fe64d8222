//! What TCP had to send again while a round was under way, from the counters of the pod's network namespace.
//!
//! A reading costs nearly half of what a call does, so there is one before a round, and another only after a call
//! for which it may say something; those of many addresses share one for a while.

use std::sync::atomic::{AtomicU64, Ordering};
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

/// Looks at the counters, from the start of a round to its end.
#[derive(Debug)]
pub(super) struct ResentWatch {
    before: Option<TcpCounters>,
    last: Option<(Instant, TcpCounters)>,
    calls: u64,
    /// The number of this round, if no other was under way when it began.
    alone: Option<u64>,
}

impl ResentWatch {
    /// Reads the counters before a round.
    pub(super) fn start() -> Self {
        let number = BEGUN.fetch_add(1, Ordering::Relaxed) + 1;
        let others = number - 1 - ENDED.load(Ordering::Relaxed).min(number - 1);
        Self {
            before: TcpCounters::read(),
            last: None,
            calls: 0,
            alone: (others == 0).then_some(number),
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
        let before = self.before?;
        let now = match self.last {
            Some((at, counters)) if at.elapsed() < FRESH => counters,
            _ => {
                let counters = TcpCounters::read()?;
                self.last = Some((Instant::now(), counters));
                counters
            }
        };
        let since = now.since(&before);
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
