//! The summary of a run, as ping says it when it is interrupted; or as a JSON object.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::json::{millis, write_json};
use super::text::Millis;
use crate::report::Phase;
use crate::stats::Summary;
use crate::verdict;

/// Displays a summary as text, each line ended.
#[derive(Debug)]
pub struct TextSummary<'a>(
    /// What to show.
    pub &'a Summary,
);

impl fmt::Display for TextSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = self.0;
        let (calls, failed) = (summary.calls(), summary.failed());
        let share = |count: u64| count as f64 * 100.0 / calls.max(1) as f64;
        writeln!(f, "--- {} call statistics ---", summary.target())?;
        writeln!(
            f,
            "{calls} calls, {ok} ok, {failed} failed ({percent:.1}%), in {elapsed:.1?}",
            ok = calls - failed,
            percent = share(failed),
            elapsed = summary.elapsed(),
        )?;
        for (kind, count) in summary.failed_by_kind() {
            writeln!(f, "failed: {count} {kind} ({})", verdict::words(kind))?;
        }
        let gap = summary.longest_gap();
        writeln!(f, "longest gap without a success: {gap:.1?}")?;
        for (backend, count) in summary.backends() {
            writeln!(f, "answered by: {backend} {count} ({:.1}%)", share(count))?;
        }
        writeln!(f, "{:<12}{:>10}{:>10}{:>10}", "phase", "p50", "p99", "max")?;
        for (phase, quantiles) in summary.quantiles() {
            let [p50, p99, max] = match quantiles {
                Some(durations) => durations.map(|duration| Millis(Some(duration))),
                None => [const { Millis(None) }; 3],
            };
            writeln!(f, "{:<12}{p50:>10}{p99:>10}{max:>10}", phase.label())?;
        }
        Ok(())
    }
}

/// Displays a summary as a JSON object, without a newline.
#[derive(Debug)]
pub struct JsonSummary<'a>(
    /// What to show.
    pub &'a Summary,
);

impl fmt::Display for JsonSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = json(self.0);
        write_json(f, &Outer { summary })
    }
}

/// A summary as it stands in JSON.
pub(crate) fn json(summary: &Summary) -> impl Serialize {
    let quantiles = |(phase, quantiles): (Phase, Option<[Duration; 3]>)| {
        let [p50, p99, max] = quantiles?.map(millis);
        Some((phase.label(), Quantiles { p50, p99, max }))
    };
    let failed = summary.failed_by_kind();
    Json {
        url: summary.target().as_str(),
        calls: summary.calls(),
        ok: summary.calls() - summary.failed(),
        failed: summary.failed(),
        failed_by_kind: failed.map(|(kind, count)| (kind.label(), count)).collect(),
        elapsed_ms: millis(summary.elapsed()),
        longest_gap_ms: millis(summary.longest_gap()),
        answered_by: summary.backends().collect(),
        phases_ms: summary.quantiles().filter_map(quantiles).collect(),
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
