//! Totals over the calls of a run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use super::Rollout;
use super::names::{Bounded, Names, OTHER};
use crate::expectation::Expectation;
use crate::failure::FailureKind;
use crate::report::{Phase, Report};
use crate::target::Target;

/// Largest duration in the histograms, in microseconds. Durations are recorded with two significant digits.
const MAX_MICROS: u64 = 600_000_000;

/// Numbers of responses from one backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backend {
    /// Number of responses, whether the calls succeeded or failed.
    pub answered: u64,
    /// Number of calls that failed although they had a response.
    pub failed: u64,
}

/// Totals of the calls of one target.
#[derive(Clone, Debug)]
pub struct Summary {
    target: Arc<Target>,
    expectation: Expectation,
    unexpected: u64,
    start: Instant,
    calls: u64,
    failed: BTreeMap<FailureKind, u64>,
    last_success: Instant,
    longest_gap: Duration,
    names: Names,
    backends: BTreeMap<String, Backend>,
    rollout: Option<Rollout>,
    phases: [Histogram<u32>; Phase::ALL.len()],
}

impl Summary {
    /// Starts counting now. `names` limits the number of distinct backends.
    pub(crate) fn new(target: Arc<Target>, expectation: Expectation, names: Names) -> Self {
        let now = Instant::now();
        let histogram = || {
            let histogram = Histogram::new_with_bounds(1, MAX_MICROS, 2);
            histogram.expect("the bounds are constant and valid")
        };
        Self {
            target,
            expectation,
            unexpected: 0,
            start: now,
            calls: 0,
            failed: BTreeMap::new(),
            last_success: now,
            longest_gap: Duration::ZERO,
            names,
            backends: BTreeMap::new(),
            rollout: None,
            phases: Phase::ALL.map(|_| histogram()),
        }
    }

    /// Counts a call that has just ended. Returns the name of the backend that its response was counted for.
    pub(crate) fn record(&mut self, report: &Report) -> Option<String> {
        self.calls += 1;
        self.unexpected += u64::from(!report.is_as_expected());
        match report.kind() {
            Some(kind) => *self.failed.entry(kind).or_default() += 1,
            None => {
                let gap = self.last_success.elapsed();
                self.longest_gap = self.longest_gap.max(gap);
                self.last_success = Instant::now();
            }
        }
        for (histogram, (_, duration)) in self.phases.iter_mut().zip(report.timings.iter()) {
            if let Some(duration) = duration {
                let micros = u64::try_from(duration.as_micros()).unwrap_or(MAX_MICROS);
                histogram.saturating_record(micros);
            }
        }
        if let Some(rollout) = &mut self.rollout {
            rollout.record(report);
        }
        let bounded = self.names.bounded(report.backend()?);
        let Bounded { name, forgotten } = bounded;
        if let Some(Backend { answered, failed }) =
            forgotten.and_then(|name| self.backends.remove(&name))
        {
            let other = self.backends.entry(OTHER.to_owned()).or_default();
            other.answered += answered;
            other.failed += failed;
        }
        let backend = self.backends.entry(name.clone()).or_default();
        backend.answered += 1;
        backend.failed += u64::from(!report.is_ok());
        Some(name)
    }

    /// Enables the detection of a rollout.
    pub(crate) fn with_rollout(mut self) -> Self {
        self.rollout = Some(Rollout::new());
        self
    }

    /// The rollout, if its detection is enabled.
    pub fn rollout(&self) -> Option<&Rollout> {
        self.rollout.as_ref()
    }

    /// The target whose calls are counted.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The expected result of the target's calls.
    pub fn expectation(&self) -> Expectation {
        self.expectation
    }

    /// Number of calls whose result was not as expected.
    pub fn unexpected(&self) -> u64 {
        self.unexpected
    }

    /// Time since counting started, which is just before the first call.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Number of calls that failed.
    pub fn failed(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Number of calls that have ended.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// The longest time without a successful call, including the time before the first one and that since the
    /// last one.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap.max(self.last_success.elapsed())
    }

    /// Number of failed calls by kind of failure.
    pub fn failed_by_kind(&self) -> impl Iterator<Item = (FailureKind, u64)> {
        self.failed.iter().map(|(kind, count)| (*kind, *count))
    }

    /// Responses by backend; those beyond the limit on names are counted as `other`.
    pub fn backends(&self) -> impl Iterator<Item = (&str, Backend)> {
        let backends = self.backends.iter();
        backends.map(|(name, backend)| (name.as_str(), *backend))
    }

    /// The median, the 99th percentile and the maximum of each phase; `None` for a phase that no call has
    /// reached.
    pub fn quantiles(&self) -> impl Iterator<Item = (Phase, Option<[Duration; 3]>)> {
        Phase::ALL
            .into_iter()
            .zip(&self.phases)
            .map(|(phase, histogram)| {
                let micros = [
                    histogram.value_at_quantile(0.5),
                    histogram.value_at_quantile(0.99),
                    histogram.max(),
                ];
                let reached = !histogram.is_empty();
                (phase, reached.then(|| micros.map(Duration::from_micros)))
            })
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::time::advance;

    use super::*;
    use crate::report::{Outcome, Response};

    #[tokio::test(start_paused = true)]
    async fn responses_of_a_pod_that_is_long_gone_are_counted_as_other() {
        let target = Arc::new("backend".parse().expect("a target"));
        let mut summary = Summary::new(target, Expectation::Ok, Names::for_one_of(1));
        let mut answer = |pod: String| {
            let mut response = Response::of_status(StatusCode::OK);
            response.pod = Some(pod);
            summary.record(&Report::of_outcome(Outcome::Answered(response)));
        };
        for number in 0..100 {
            answer(format!("old-{number:02}"));
        }
        advance(Duration::from_secs(3600)).await;
        for pod in ["new-1", "new-1", "new-2"] {
            answer(pod.to_owned());
        }
        let backends: BTreeMap<_, _> = summary.backends().collect();
        let answered = |name| backends.get(name).map(|backend| backend.answered);
        assert_eq!((answered("new-1"), answered("new-2")), (Some(2), Some(1)));
        assert_eq!((answered("other"), answered("old-00")), (Some(2), None));
        assert_eq!(answered("old-99"), Some(1));
    }
}
