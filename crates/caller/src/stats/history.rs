//! The last calls, in brief; the last failures, in full; and since when it has been so.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::failure::FailureKind;
use crate::report::{Report, Timings};

/// Calls that are remembered: those of an hour at the default interval.
const MAX_CALLS: usize = 360;

/// Failures that are remembered.
const MAX_FAILURES: usize = 20;

/// The newest of each are last.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Calls so far; each has the number of those before it.
    pub(crate) count: u64,
    pub(crate) calls: VecDeque<Call>,
    pub(crate) failures: VecDeque<(u64, Report)>,
    /// Of the last round, a call that failed, or else the last one.
    pub(crate) last: Option<Report>,
    /// `None` before the first round has ended.
    pub(crate) verdict: Option<Verdict>,
    /// When a call last succeeded.
    pub(crate) last_success: Option<Timestamp>,
    /// The round that has not ended yet.
    round: Option<Round>,
}

/// A call, in brief.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) started: Timestamp,
    pub(crate) failure: Option<FailureKind>,
    pub(crate) backend: Option<String>,
    pub(crate) timings: Timings,
}

/// How it is now, and the start of the first round since which it has been so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) ok: bool,
    pub(crate) since: Timestamp,
}

#[derive(Debug)]
struct Round {
    started: Timestamp,
    ok: bool,
    last: Report,
}

impl History {
    /// Remembers a call; `backend` is the name of who answered.
    pub(crate) fn record(&mut self, report: &Report, backend: Option<String>) {
        if self.calls.len() == MAX_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(Call {
            started: report.started,
            failure: report.kind(),
            backend,
            timings: report.timings,
        });
        if report.is_ok() {
            self.last_success = Some(Timestamp::now());
        } else {
            if self.failures.len() == MAX_FAILURES {
                self.failures.pop_front();
            }
            self.failures.push_back((self.count, report.clone()));
        }
        self.count += 1;

        if self.round.as_ref().is_none_or(|round| round.ok) {
            // The calls of a round have one start.
            self.round = Some(Round {
                started: report.started,
                ok: report.is_ok(),
                last: report.clone(),
            });
        }
    }

    /// All calls of the round have been recorded.
    pub(crate) fn end_round(&mut self) {
        let Some(Round { started, ok, last }) = self.round.take() else {
            return;
        };
        self.last = Some(last);
        if self.verdict.is_none_or(|verdict| verdict.ok != ok) {
            let since = started;
            self.verdict = Some(Verdict { ok, since });
        }
    }

    /// The calls from number `from` on, as far as they are remembered, and the number of the first.
    pub(crate) fn calls_from(&self, from: u64) -> (u64, impl Iterator<Item = &Call>) {
        let oldest = self.count - self.calls.len() as u64;
        let first = from.clamp(oldest, self.count);
        let skipped = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        (first, self.calls.iter().skip(skipped))
    }
}
