//! What many calls came to, as ping says it when it is interrupted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use crate::failure::FailureKind as Kind;
use crate::json;
use crate::report::{Phases, Report};
use crate::text::Millis;

/// Backends told apart; those that come after share one line. Bounds memory whatever they say.
const MAX_BACKENDS: usize = 100;

/// The name of those that come after.
const OTHER: &str = "other";

/// Durations are kept in microseconds, to two significant digits, up to this.
const MAX_MICROS: u64 = 600_000_000;

/// The count of calls so far.
#[derive(Clone, Debug)]
pub struct Summary {
    target: String,
    start: Instant,
    calls: u64,
    failed: BTreeMap<Kind, u64>,
    last_success: Instant,
    longest_gap: Duration,
    backends: BTreeMap<String, u64>,
    other_backends: u64,
    phases: [(&'static str, Histogram<u32>); 4],
}

impl Summary {
    /// Starts counting now. `target` is what is called.
    pub fn new(target: String) -> Self {
        let phase = |(name, _)| {
            let histogram = Histogram::new_with_bounds(1, MAX_MICROS, 2);
            (name, histogram.expect("the bounds are constant and valid"))
        };
        let now = Instant::now();
        Self {
            target,
            start: now,
            calls: 0,
            failed: BTreeMap::new(),
            last_success: now,
            longest_gap: Duration::ZERO,
            backends: BTreeMap::new(),
            other_backends: 0,
            phases: Phases::default().named().map(phase),
        }
    }

    /// Counts a call that has just ended. Gives the name that its answer was counted under.
    pub fn record(&mut self, report: &Report) -> Option<String> {
        self.calls += 1;
        match &report.failure {
            Some(failure) => *self.failed.entry(failure.kind).or_default() += 1,
            None => {
                let gap = self.last_success.elapsed();
                self.longest_gap = self.longest_gap.max(gap);
                self.last_success = Instant::now();
            }
        }
        for ((_, histogram), (_, phase)) in self.phases.iter_mut().zip(report.phases.named()) {
            if let Some(duration) = phase {
                let micros = u64::try_from(duration.as_micros()).unwrap_or(MAX_MICROS);
                histogram.saturating_record(micros);
            }
        }
        self.record_backend(report.backend()?)
    }

    fn record_backend(&mut self, backend: String) -> Option<String> {
        if self.backends.len() < MAX_BACKENDS || self.backends.contains_key(&backend) {
            *self.backends.entry(backend.clone()).or_default() += 1;
            Some(backend)
        } else {
            self.other_backends += 1;
            Some(OTHER.to_owned())
        }
    }

    /// Calls that failed.
    pub fn failed(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Calls in all.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// The longest time without a success, counting from the start and up to now.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap.max(self.last_success.elapsed())
    }

    /// Calls by who answered them; those beyond the bound as `other`.
    fn backends(&self) -> impl Iterator<Item = (&str, u64)> {
        let other = (self.other_backends > 0).then_some((OTHER, self.other_backends));
        let known = self.backends.iter();
        known
            .map(|(name, count)| (name.as_str(), *count))
            .chain(other)
    }

    /// The median, the 99th percentile and the maximum of each phase that was reached.
    fn quantiles(&self) -> impl Iterator<Item = (&'static str, Option<[Duration; 3]>)> {
        self.phases.iter().map(|(name, histogram)| {
            let micros = [
                histogram.value_at_quantile(0.5),
                histogram.value_at_quantile(0.99),
                histogram.max(),
            ];
            let reached = !histogram.is_empty();
            (*name, reached.then(|| micros.map(Duration::from_micros)))
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, calls, .. } = self;
        let failed = self.failed();
        let share = |count: u64| count as f64 * 100.0 / (*calls).max(1) as f64;
        writeln!(f, "--- {target} call statistics ---")?;
        writeln!(
            f,
            "{calls} calls, {ok} ok, {failed} failed ({percent:.1}%), in {elapsed:.1?}",
            ok = calls - failed,
            percent = share(failed),
            elapsed = self.start.elapsed(),
        )?;
        for (kind, count) in &self.failed {
            writeln!(
                f,
                "failed: {count} {} ({})",
                kind.label(),
                crate::verdict::words(*kind)
            )?;
        }
        writeln!(
            f,
            "longest gap without a success: {:.1?}",
            self.longest_gap()
        )?;
        for (backend, count) in self.backends() {
            writeln!(f, "answered by: {backend} {count} ({:.1}%)", share(count))?;
        }
        writeln!(f, "{:<12}{:>10}{:>10}{:>10}", "phase", "p50", "p99", "max")?;
        for (name, quantiles) in self.quantiles() {
            let [p50, p99, max] = match quantiles {
                Some(durations) => durations.map(|duration| Millis(Some(duration))),
                None => [const { Millis(None) }; 3],
            };
            writeln!(f, "{name:<12}{p50:>10}{p99:>10}{max:>10}")?;
        }
        Ok(())
    }
}

/// Displays a summary as a JSON object, without a newline.
#[derive(Debug)]
pub struct JsonSummary<'a>(pub &'a Summary);

impl fmt::Display for JsonSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = self.0.json();
        json::write_json(f, &Outer { summary })
    }
}

impl Summary {
    /// The summary as it stands in JSON.
    pub(crate) fn json(&self) -> impl Serialize {
        let quantiles = |(name, quantiles): (_, Option<[Duration; 3]>)| {
            let [p50, p99, max] = quantiles?.map(json::millis);
            Some((name, Quantiles { p50, p99, max }))
        };
        let failed = self.failed.iter();
        Json {
            url: &self.target,
            calls: self.calls,
            ok: self.calls - self.failed(),
            failed: self.failed(),
            failed_by_kind: failed.map(|(kind, count)| (kind.label(), *count)).collect(),
            elapsed_ms: json::millis(self.start.elapsed()),
            longest_gap_ms: json::millis(self.longest_gap()),
            answered_by: self.backends().collect(),
            phases_ms: self.quantiles().filter_map(quantiles).collect(),
        }
    }
}

#[derive(Serialize)]
struct Outer<T> {
    summary: T,
}

#[derive(Serialize)]
struct Json<'a> {
    url: &'a str,
    calls: u64,
    ok: u64,
    failed: u64,
    failed_by_kind: BTreeMap<&'static str, u64>,
    elapsed_ms: f64,
    longest_gap_ms: f64,
    answered_by: BTreeMap<&'a str, u64>,
    phases_ms: BTreeMap<&'static str, Quantiles>,
}

#[derive(Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    max: f64,
}
