//! TCP retransmissions during a round, from the counters of the pod's network namespace.
//!
//! Reading the counters costs about as much as a call. So they are read before a round, and again only after
//! a call that may have had retransmissions; and a reading is shared by all rounds that begin or end within
//! [`MAX_AGE`] after it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtime::tcp_counters::TcpCounters;
use runtime::unpoisoned::unpoisoned;
use tokio::time::Instant;

use crate::report::{Phase, Report, Retransmissions};

/// A TCP handshake that took this long or longer may have lost a SYN. The first SYN is retransmitted after one
/// second (RFC 6298); this threshold is well below that.
const SLOW_CONNECT: Duration = Duration::from_millis(200);

/// A call that took this long or longer may have lost other segments.
const SLOW_CALL: Duration = Duration::from_secs(1);

/// How long a reading is reused.
const MAX_AGE: Duration = Duration::from_millis(100);

/// Number of rounds in this process that have begun.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Number of rounds in this process that have ended.
static ENDED: AtomicU64 = AtomicU64::new(0);

/// The last reading of this process.
static LAST: Mutex<Option<Reading>> = Mutex::new(None);

/// A reading of the counters.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    /// Number of rounds that had begun by then.
    begun: u64,
    counters: TcpCounters,
}

impl Reading {
    /// The last reading, if it is not older than [`MAX_AGE`], or else a new one; `None` if the system has no
    /// such counters.
    fn fresh() -> Option<Self> {
        let mut last = unpoisoned(LAST.lock());
        let fresh = last.filter(|reading| reading.at.elapsed() < MAX_AGE);
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

/// Watches the counters from the start of a round to its end.
#[derive(Debug)]
pub(super) struct RetransmissionWatch {
    before: Option<Reading>,
    calls: u64,
    /// The number of this round, if no other one was running when it began, or had begun since `before` was
    /// read.
    alone: Option<u64>,
}

impl RetransmissionWatch {
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

    /// The retransmissions since the start of the round; `None` if there were none, or the call was too fast to have
    /// had any. To be called once for each call that ends.
    pub(super) fn after_call(&mut self, report: &Report) -> Option<Retransmissions> {
        self.calls += 1;
        let took = |phase, slow| report.timings[phase].is_some_and(|took| took >= slow);
        let may_have_some =
            !report.is_ok() || took(Phase::Connect, SLOW_CONNECT) || took(Phase::Total, SLOW_CALL);
        if !may_have_some {
            return None;
        }
        let since = Reading::fresh()?.counters.since(&self.before?.counters);
        let syns = since.syn_retransmits.unwrap_or_default();
        // The counter of all retransmissions includes those of SYNs.
        let segments = since.retransmits.unwrap_or_default().saturating_sub(syns);
        let is_alone = self.calls == 1 && self.alone == Some(BEGUN.load(Ordering::Relaxed));
        (syns + segments > 0).then_some(Retransmissions {
            syns,
            segments,
            is_shared: !is_alone,
        })
    }
}

impl Drop for RetransmissionWatch {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Ordering::Relaxed);
    }
}
