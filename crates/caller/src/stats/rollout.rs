//! `--until-replaced`: detects that all pods that responded at first have been replaced by others.
//!
//! The first calls are the baseline: at least 30 calls, over at least 3 s, of which the last 15 had no
//! response from a pod that had not responded before. (With fewer calls, the second of two old pods could be
//! taken for a new one.) After that, 30 successes in a row from pods that are not in the baseline prove the
//! rollout.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::report::Report;

/// Minimum number of calls in the baseline.
const BASELINE_CALLS: u64 = 30;

/// Minimum duration of the baseline.
const BASELINE_TIME: Duration = Duration::from_secs(3);

/// Number of calls at the end of the baseline that must not have a response from a new pod.
const BASELINE_QUIET_CALLS: u64 = 15;

/// Number of successes in a row from new pods that prove a rollout.
const STEADY_CALLS: u64 = 30;

/// Maximum number of distinct pods, old ones and new ones each. It limits memory, whatever responses contain.
const MAX_PODS: usize = 100;

/// The pods that responded, old and new.
#[derive(Clone, Debug)]
pub struct Rollout {
    start: Instant,
    calls: u64,
    /// Whether the baseline is complete.
    is_baseline_complete: bool,
    /// Number of the last call that had a response from a pod that had not responded before.
    last_new_pod: u64,
    old: BTreeMap<String, Answered>,
    new: BTreeMap<String, Answered>,
    in_a_row: u64,
    /// Number of responses that do not name their pod.
    nameless: u64,
}

/// The first and the last response of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Time of its first response.
    pub first: SystemTime,
    /// Time of its last response.
    pub last: SystemTime,
    /// Number of the last call that it responded to.
    call: u64,
}

/// Why a rollout was not detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSeen {
    /// The run ended before the baseline was complete.
    NoBaseline,
    /// No response names its pod.
    Nameless,
    /// There is no new pod, and all old ones still respond.
    NotBegun,
    /// There is no new pod, and some pods of the baseline no longer respond: the baseline contained both old
    /// and new pods.
    BegunBefore {
        /// Pods of the baseline that still respond.
        staying: Vec<String>,
        /// Pods of the baseline that no longer respond.
        gone: Vec<String>,
    },
    /// There are new pods, but these old ones still respond.
    OldAnswer(Vec<String>),
    /// Only new pods respond, but there were not enough successes in a row.
    NotSteady,
}

impl Rollout {
    /// Starts with the baseline.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            calls: 0,
            is_baseline_complete: false,
            last_new_pod: 0,
            old: BTreeMap::new(),
            new: BTreeMap::new(),
            in_a_row: 0,
            nameless: 0,
        }
    }

    /// Records a call that has just ended.
    pub(crate) fn record(&mut self, report: &Report) {
        self.calls += 1;
        let pod = report.response().map(|response| response.pod.as_deref());
        match pod {
            Some(Some(pod)) => self.answered(pod, report.is_ok()),
            Some(None) => {
                self.nameless += 1;
                self.in_a_row = 0;
            }
            None => self.in_a_row = 0,
        }
        let is_quiet = self.calls >= self.last_new_pod + BASELINE_QUIET_CALLS;
        if !self.is_baseline_complete
            && self.calls >= BASELINE_CALLS
            && self.start.elapsed() >= BASELINE_TIME
            && !self.old.is_empty()
            && is_quiet
        {
            self.is_baseline_complete = true;
        }
    }

    fn answered(&mut self, pod: &str, is_ok: bool) {
        let now = SystemTime::now();
        let call = self.calls;
        let is_old = !self.is_baseline_complete || self.old.contains_key(pod);
        self.in_a_row = match is_old || !is_ok {
            true => 0,
            false => self.in_a_row + 1,
        };
        let pods = if is_old { &mut self.old } else { &mut self.new };
        if let Some(answered) = pods.get_mut(pod) {
            (answered.last, answered.call) = (now, call);
        } else if pods.len() < MAX_PODS {
            let answered = Answered {
                first: now,
                last: now,
                call,
            };
            pods.insert(pod.to_owned(), answered);
            self.last_new_pod = call;
        }
    }

    /// Whether every pod of the baseline has been replaced.
    pub fn is_seen(&self) -> bool {
        self.in_a_row >= STEADY_CALLS
    }

    /// Why the rollout has not been detected; `None` if it has.
    pub fn not_seen(&self) -> Option<NotSeen> {
        if self.is_seen() {
            return None;
        }
        // Each pod that still exists is almost certain to respond at least once within this many calls.
        let is_there = |answered: &Answered| answered.call + STEADY_CALLS > self.calls;
        let of_old = |wanted: bool| {
            let old = self.old.iter();
            let found = old.filter(|(_, answered)| is_there(answered) == wanted);
            found.map(|(pod, _)| pod.clone()).collect::<Vec<_>>()
        };
        let (staying, gone) = (of_old(true), of_old(false));
        Some(match () {
            () if self.old.is_empty() && self.nameless > 0 => NotSeen::Nameless,
            () if !self.is_baseline_complete => NotSeen::NoBaseline,
            () if self.new.is_empty() && gone.is_empty() => NotSeen::NotBegun,
            () if self.new.is_empty() => NotSeen::BegunBefore { staying, gone },
            () if !staying.is_empty() => NotSeen::OldAnswer(staying),
            () => NotSeen::NotSteady,
        })
    }

    /// The pods of the baseline, and when they responded.
    pub fn old(&self) -> impl Iterator<Item = (&str, &Answered)> {
        self.old
            .iter()
            .map(|(pod, answered)| (pod.as_str(), answered))
    }

    /// The pods that are not in the baseline, and when they responded.
    pub fn new_pods(&self) -> impl Iterator<Item = (&str, &Answered)> {
        self.new
            .iter()
            .map(|(pod, answered)| (pod.as_str(), answered))
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::time::advance;

    use super::*;
    use crate::failure::{Cause, Failure, FailureKind, Stage};
    use crate::report::{Outcome, Response};

    fn report(pod: Option<&str>, is_ok: bool) -> Report {
        let mut response = Response::of_status(StatusCode::OK);
        response.pod = pod.map(str::to_owned);
        let (kind, cause) = (FailureKind::HttpStatus, Cause::Status);
        let failure = Failure::new(Stage::Http, kind, cause, Duration::ZERO);
        Report::of_outcome(match is_ok {
            true => Outcome::Answered(response),
            false => Outcome::Failed(failure, Some(response)),
        })
    }

    /// Calls every 100 ms, answered by these pods in turn.
    async fn calls(rollout: &mut Rollout, count: usize, pods: &[&str]) {
        for pod in pods.iter().cycle().take(count) {
            rollout.record(&report(Some(pod), true));
            advance(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rollout_is_seen_after_thirty_successes_in_a_row_from_new_pods() {
        let mut rollout = Rollout::new();
        calls(&mut rollout, 40, &["a", "b"]).await;
        calls(&mut rollout, 11, &["a", "c"]).await;
        calls(&mut rollout, 29, &["c", "d"]).await;
        assert!(!rollout.is_seen());
        calls(&mut rollout, 1, &["d"]).await;
        assert_eq!(rollout.not_seen(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_pod_or_a_failure_restarts_the_count_of_successes() {
        let mut rollout = Rollout::new();
        calls(&mut rollout, 40, &["a"]).await;
        calls(&mut rollout, 29, &["c"]).await;
        rollout.record(&report(Some("c"), false));
        calls(&mut rollout, 29, &["c"]).await;
        assert!(!rollout.is_seen());
        calls(&mut rollout, 1, &["a"]).await;
        calls(&mut rollout, 29, &["c"]).await;
        assert!(!rollout.is_seen());
        calls(&mut rollout, 1, &["c"]).await;
        assert!(rollout.is_seen());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_first_responds_late_in_the_baseline_is_old() {
        let mut rollout = Rollout::new();
        calls(&mut rollout, 29, &["a"]).await;
        calls(&mut rollout, 1, &["b"]).await;
        calls(&mut rollout, 100, &["a", "b"]).await;
        assert_eq!(rollout.not_seen(), Some(NotSeen::NotBegun));
        assert_eq!(rollout.old().count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn each_reason_for_a_missing_rollout_is_reported() {
        let mut rollout = Rollout::new();
        calls(&mut rollout, 20, &["a"]).await;
        assert_eq!(rollout.not_seen(), Some(NotSeen::NoBaseline));
        calls(&mut rollout, 40, &["a", "b"]).await;
        assert_eq!(rollout.not_seen(), Some(NotSeen::NotBegun));
        let mut begun = rollout.clone();
        calls(&mut begun, 40, &["b"]).await;
        let before = NotSeen::BegunBefore {
            staying: vec!["b".to_owned()],
            gone: vec!["a".to_owned()],
        };
        assert_eq!(begun.not_seen(), Some(before));
        calls(&mut rollout, 40, &["a", "c"]).await;
        let answers = NotSeen::OldAnswer(vec!["a".to_owned()]);
        assert_eq!(rollout.not_seen(), Some(answers));

        let mut nameless = Rollout::new();
        for _ in 0..100 {
            nameless.record(&report(None, true));
        }
        assert_eq!(nameless.not_seen(), Some(NotSeen::Nameless));
    }
}
