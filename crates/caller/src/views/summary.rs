//! The summary of a run, as ping says it when it is interrupted; or as a JSON object.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use runtime::escape::Escaped;
use serde::Serialize;

use super::json::{millis, time, write_json};
use crate::millis::Millis;
use crate::report::Phase;
use crate::stats::{Answered, Backend, Rollout, Summary};
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
        for (name, Backend { answered, failed }) in summary.backends() {
            write!(
                f,
                "answered by: {name} {answered} ({:.1}%)",
                share(answered)
            )?;
            if failed > 0 {
                write!(f, ", {failed} failed")?;
            }
            writeln!(f)?;
        }
        if let Some(rollout) = summary.rollout() {
            write!(f, "{}", RolloutLines(rollout))?;
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

/// The pods before and after, and whether the ones have replaced the others.
struct RolloutLines<'a>(&'a Rollout);

impl fmt::Display for RolloutLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rollout = self.0;
        let old = rollout.old().map(|pod| ("old", pod));
        let new = rollout.new_pods().map(|pod| ("new", pod));
        for (sort, (pod, Answered { first, last, .. })) in old.chain(new) {
            let pod = Escaped::new(pod.as_bytes());
            let (first, last) = (first.strftime("%H:%M:%S"), last.strftime("%H:%M:%S"));
            writeln!(f, "{sort} pod: {pod}, answered from {first} to {last} UTC")?;
        }
        match rollout.not_seen() {
            None => writeln!(f, "replaced: yes, no old pod answers any more"),
            Some(why) => writeln!(f, "replaced: not seen, {}", verdict::not_replaced(&why)),
        }
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
    let counts = |count: fn(Backend) -> u64| {
        let counts = summary
            .backends()
            .map(|(name, backend)| (name, count(backend)));
        counts.filter(|(_, count)| *count > 0).collect()
    };
    Json {
        url: summary.target().as_str(),
        calls: summary.calls(),
        ok: summary.calls() - summary.failed(),
        failed: summary.failed(),
        failed_by_kind: failed.map(|(kind, count)| (kind.label(), count)).collect(),
        elapsed_ms: millis(summary.elapsed()),
        longest_gap_ms: millis(summary.longest_gap()),
        answered_by: counts(|backend| backend.answered),
        failed_by_backend: counts(|backend| backend.failed),
        rollout: summary.rollout().map(rollout),
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
    failed_by_backend: BTreeMap<&'a str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<RolloutView<'a>>,
    phases_ms: BTreeMap<&'static str, Quantiles>,
}

#[derive(Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    max: f64,
}

#[derive(Serialize)]
struct RolloutView<'a> {
    replaced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    old_pods: BTreeMap<&'a str, [String; 2]>,
    new_pods: BTreeMap<&'a str, [String; 2]>,
}

fn rollout(rollout: &Rollout) -> RolloutView<'_> {
    let times = |(pod, answered): (_, &Answered)| (pod, [answered.first, answered.last].map(time));
    let why = rollout.not_seen();
    RolloutView {
        replaced: why.is_none(),
        why: why.as_ref().map(verdict::not_replaced),
        old_pods: rollout.old().map(times).collect(),
        new_pods: rollout.new_pods().map(times).collect(),
    }
}
