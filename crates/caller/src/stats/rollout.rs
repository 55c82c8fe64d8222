//! `--until-replaced`: whether the pods that answered at first have been replaced by others.
//!
//! The first calls are the baseline: at least 30 of them, over at least 3 s, and none of the last 15 met a
//! pod for the first time. (Fewer would take the second of two old pods for a new one.) From then on, 30
//! successes in a row from pods that are not of the baseline are the proof.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::report::Report;

/// Calls of a baseline, at least.
const BASELINE_CALLS: u64 = 30;

/// Length of a baseline, at least.
const BASELINE_TIME: Duration = Duration::from_secs(3);

/// The last calls of a baseline, in which no pod is new.
const BASELINE_KNOWN: u64 = 15;

/// Successes in a row, without one of an old pod, that are steady.
const STEADY: u64 = 30;

/// Pods that are told apart, of each sort. Bounds memory whatever answers say.
const MAX_PODS: usize = 100;

/// The pods that answered, old and new.
#[derive(Clone, Debug)]
pub struct Rollout {
    start: Instant,
    calls: u64,
    /// The baseline is complete.
    is_watching: bool,
    /// The call that met a pod for the first time, of the baseline.
    last_met: u64,
    old: BTreeMap<String, Answered>,
    new: BTreeMap<String, Answered>,
    in_a_row: u64,
    /// Answers that did not say which pod they are from.
    nameless: u64,
}

/// When a pod answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Its first answer.
    pub first: SystemTime,
    /// Its last answer.
    pub last: SystemTime,
    /// The number of the call that it answered last.
    call: u64,
}

/// Why a rollout was not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSeen {
    /// The run ended before there was a baseline.
    NoBaseline,
    /// No answer says which pod it is from.
    Nameless,
    /// No pod is new, and all old ones answer still.
    NotBegun,
    /// No pod is new, and some of the baseline no longer answer: the baseline has pods of both sorts.
    BegunBefore {
        /// Pods of the baseline that answer still.
        staying: Vec<String>,
        /// Pods of the baseline that no longer answer.
        gone: Vec<String>,
    },
    /// Some pods are new, and these old ones answer still.
    OldAnswer(Vec<String>),
    /// Only new pods answer, but there were not enough successes in a row.
    NotSteady,
}

impl Rollout {
    /// Starts with the baseline.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            calls: 0,
            is_watching: false,
            last_met: 0,
            old: BTreeMap::new(),
            new: BTreeMap::new(),
            in_a_row: 0,
            nameless: 0,
        }
    }

    /// Takes in a call that has just ended.
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
        let is_known = self.calls >= self.last_met + BASELINE_KNOWN;
        if !self.is_watching
            && self.calls >= BASELINE_CALLS
            && self.start.elapsed() >= BASELINE_TIME
            && !self.old.is_empty()
            && is_known
        {
            self.is_watching = true;
        }
    }

    fn answered(&mut self, pod: &str, is_ok: bool) {
        let now = SystemTime::now();
        let call = self.calls;
        let is_old = !self.is_watching || self.old.contains_key(pod);
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
            self.last_met = call;
        }
    }

    /// Whether every pod of the baseline has been replaced.
    pub fn is_seen(&self) -> bool {
        self.in_a_row >= STEADY
    }

    /// Why that has not been seen; `None`: it has.
    pub fn not_seen(&self) -> Option<NotSeen> {
        if self.is_seen() {
            return None;
        }
        // Every pod that is there has its turn within so many calls, or nearly so.
        let is_there = |answered: &Answered| answered.call + STEADY > self.calls;
        let of_old = |wanted: bool| {
            let old = self.old.iter();
            let found = old.filter(|(_, answered)| is_there(answered) == wanted);
            found.map(|(pod, _)| pod.clone()).collect::<Vec<_>>()
        };
        let (staying, gone) = (of_old(true), of_old(false));
        Some(match () {
            () if self.old.is_empty() && self.nameless > 0 => NotSeen::Nameless,
            () if !self.is_watching => NotSeen::NoBaseline,
            () if self.new.is_empty() && gone.is_empty() => NotSeen::NotBegun,
            () if self.new.is_empty() => NotSeen::BegunBefore { staying, gone },
            () if !staying.is_empty() => NotSeen::OldAnswer(staying),
            () => NotSeen::NotSteady,
        })
    }

    /// The pods of the baseline, and when they answered.
    pub fn old(&self) -> impl Iterator<Item = (&str, &Answered)> {
        self.old
            .iter()
            .map(|(pod, answered)| (pod.as_str(), answered))
    }

    /// The pods that came after the baseline, and when they answered.
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
    async fn a_rollout_is_seen_once_only_others_answer_steadily() {
        let mut rollout = Rollout::new();
        calls(&mut rollout, 40, &["a", "b"]).await;
        calls(&mut rollout, 11, &["a", "c"]).await;
        calls(&mut rollout, 29, &["c", "d"]).await;
        assert!(!rollout.is_seen());
        calls(&mut rollout, 1, &["d"]).await;
        assert_eq!(rollout.not_seen(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_pod_or_a_failure_starts_the_row_anew() {
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
    async fn a_pod_met_late_in_the_baseline_is_an_old_one() {
        let mut rollout = Rollout::new();
        calls(&mut rollout, 29, &["a"]).await;
        calls(&mut rollout, 1, &["b"]).await;
        calls(&mut rollout, 100, &["a", "b"]).await;
        assert_eq!(rollout.not_seen(), Some(NotSeen::NotBegun));
        assert_eq!(rollout.old().count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_in_its_place_is_told_apart() {
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
