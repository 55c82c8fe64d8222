//! The most recent calls in brief, the most recent failures in full, and the health that follows from them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::SystemTime;

use http::StatusCode;

use super::health::{EndedRound, Health, Unexpected};
use crate::failure::FailureKind;
use crate::report::{Report, Retransmissions, Timings};

/// Maximum number of calls kept for one target: those of an hour at the default interval.
const MAX_CALLS: usize = 360;

/// Maximum number of failures kept for one target.
const MAX_FAILURES: usize = 20;

/// Maximum number of calls kept for all targets together, except that each target may have [`MIN_CALLS`].
const MAX_CALLS_IN_ALL: usize = 6000;

/// Number of calls that are kept for each target, however many targets there are.
const MIN_CALLS: usize = 60;

/// Maximum number of failures kept for all targets together, except that each target may have [`MIN_FAILURES`].
const MAX_FAILURES_IN_ALL: usize = 500;

/// Number of failures that are kept for each target, however many targets there are.
const MIN_FAILURES: usize = 5;

/// Recent calls and failures of one target, the newest last.
#[derive(Debug)]
pub(crate) struct History {
    max_calls: usize,
    max_failures: usize,
    /// Number of calls so far. The number of a call is the count before it.
    pub(crate) count: u64,
    pub(crate) calls: VecDeque<Call>,
    /// Calls whose result was not as expected, with their numbers.
    pub(crate) failures: VecDeque<(u64, Report)>,
    /// A call of the last round: the first that was not as expected, or else the last one.
    pub(crate) last: Option<Report>,
    /// The health, from the rounds that have ended.
    pub(crate) health: Health,
    /// When a call last had the expected result.
    pub(crate) last_success: Option<SystemTime>,
    /// The round that is running, once a call of it has ended.
    round: Option<Round>,
}

/// A call, in brief.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) started: SystemTime,
    pub(crate) is_as_expected: bool,
    pub(crate) failure: Option<FailureKind>,
    /// The status of the response, if one was received.
    pub(crate) status: Option<StatusCode>,
    /// The name of the pod that responded, or its address, if there was a response.
    pub(crate) backend: Option<String>,
    /// The address of the connection, if one was attempted.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) timings: Timings,
    /// TCP retransmissions during the call.
    pub(crate) retransmissions: Option<Retransmissions>,
}

#[derive(Debug)]
struct Round {
    so_far: EndedRound,
    last: Report,
}

impl History {
    /// An empty history for one target out of `targets`.
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

    /// Records a call; `backend` is the name of the pod that responded, or its address.
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
            retransmissions: report.retransmissions,
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

    /// Ends the round, after all of its calls have been recorded.
    pub(crate) fn end_round(&mut self) {
        if let Some(Round { so_far, last }) = self.round.take() {
            self.health.record(so_far, Unexpected::of(&last).as_ref());
            self.last = Some(last);
        }
    }

    /// The calls of the rounds that [`Health`] considers, the newest first, as far as they are kept.
    pub(crate) fn recent_calls(&self) -> impl Iterator<Item = &Call> {
        let running = self.round.as_ref().map_or(0, |round| round.so_far.calls);
        let (recent, _) = self.health.recent();
        self.calls.iter().rev().skip(running).take(recent)
    }

    /// The calls from number `from` on, as far as they are kept, and the number of the first of them.
    pub(crate) fn calls_from(&self, from: u64) -> (u64, impl Iterator<Item = &Call>) {
        let oldest = self.count - self.calls.len() as u64;
        let first = from.clamp(oldest, self.count);
        let skipped = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        (first, self.calls.iter().skip(skipped))
    }
}
