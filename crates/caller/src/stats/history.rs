//! The last calls, in brief; the last failures, in full; and how it goes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::SystemTime;

use http::StatusCode;

use super::health::{EndedRound, Health, Unexpected};
use crate::failure::FailureKind;
use crate::report::{Report, Resent, Timings};

/// Calls of a target that are remembered: those of an hour at the default interval.
const MAX_CALLS: usize = 360;

/// Failures of a target that are remembered.
const MAX_FAILURES: usize = 20;

/// Calls and failures that are remembered in all where there are many targets, but for the least of each.
const MAX_CALLS_IN_ALL: usize = 6000;
const MIN_CALLS: usize = 60;
const MAX_FAILURES_IN_ALL: usize = 500;
const MIN_FAILURES: usize = 5;

/// The newest of each are last.
#[derive(Debug)]
pub(crate) struct History {
    max_calls: usize,
    max_failures: usize,
    /// Calls so far; each has the number of those before it.
    pub(crate) count: u64,
    pub(crate) calls: VecDeque<Call>,
    /// Calls that did not come to what was expected.
    pub(crate) failures: VecDeque<(u64, Report)>,
    /// Of the last round, a call that was not as expected, or else the last one.
    pub(crate) last: Option<Report>,
    /// What the rounds that have ended say.
    pub(crate) health: Health,
    /// When a call last came to what was expected.
    pub(crate) last_success: Option<SystemTime>,
    /// The round that has not ended yet.
    round: Option<Round>,
}

/// A call, in brief.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) started: SystemTime,
    pub(crate) is_as_expected: bool,
    pub(crate) failure: Option<FailureKind>,
    /// The status of the response, if one came.
    pub(crate) status: Option<StatusCode>,
    /// The name of who answered, if somebody did.
    pub(crate) backend: Option<String>,
    /// What was connected to, if it came to that.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) timings: Timings,
    /// What TCP had to send again meanwhile.
    pub(crate) resent: Option<Resent>,
}

#[derive(Debug)]
struct Round {
    so_far: EndedRound,
    last: Report,
}

impl History {
    /// Of one of so many targets.
    pub(crate) fn for_one_of(targets: usize) -> Self {
        let share = |in_all: usize, least, most| (in_all / targets.max(1)).clamp(least, most);
        Self {
            max_calls: share(MAX_CALLS_IN_ALL, MIN_CALLS, MAX_CALLS),
            max_failures: share(MAX_FAILURES_IN_ALL, MIN_FAILURES, MAX_FAILURES),
            count: 0,
            calls: VecDeque::new(),
            failures: VecDeque::new(),
            last: None,
            health: Health::default(),
            last_success: None,
            round: None,
        }
    }

    /// Remembers a call; `backend` is the name of who answered.
    pub(crate) fn record(&mut self, report: &Report, backend: Option<String>) {
        if self.calls.len() == self.max_calls {
            self.calls.pop_front();
        }
        self.calls.push_back(Call {
            started: report.started,
            is_as_expected: report.is_as_expected(),
            failure: report.kind(),
            status: report.response().map(|response| response.status),
            backend,
            address: report.address,
            timings: report.timings,
            resent: report.resent,
        });
        let is_as_expected = report.is_as_expected();
        if is_as_expected {
            self.last_success = Some(SystemTime::now());
        } else {
            if self.failures.len() == self.max_failures {
                self.failures.pop_front();
            }
            self.failures.push_back((self.count, report.clone()));
        }
        self.count += 1;

        let failed = usize::from(!is_as_expected);
        match &mut self.round {
            Some(Round { so_far, last }) => {
                if so_far.failed == 0 {
                    *last = report.clone();
                }
                so_far.calls += 1;
                so_far.failed += failed;
            }
            None => {
                self.round = Some(Round {
                    so_far: EndedRound {
                        started: report.started,
                        calls: 1,
                        failed,
                    },
                    last: report.clone(),
                });
            }
        }
    }

    /// All calls of the round have been recorded.
    pub(crate) fn end_round(&mut self) {
        if let Some(Round { so_far, last }) = self.round.take() {
            self.health.record(so_far, Unexpected::of(&last).as_ref());
            self.last = Some(last);
        }
    }

    /// The calls of the rounds that [`Health`] judges by, as far as they are remembered.
    pub(crate) fn recent_calls(&self) -> impl Iterator<Item = &Call> {
        let under_way = self.round.as_ref().map_or(0, |round| round.so_far.calls);
        let (recent, _) = self.health.recent();
        self.calls.iter().rev().skip(under_way).take(recent)
    }

    /// The calls from number `from` on, as far as they are remembered, and the number of the first.
    pub(crate) fn calls_from(&self, from: u64) -> (u64, impl Iterator<Item = &Call>) {
        let oldest = self.count - self.calls.len() as u64;
        let first = from.clamp(oldest, self.count);
        let skipped = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        (first, self.calls.iter().skip(skipped))
    }
}
