//! The summary at the end of a run: as text, in the manner of ping(8), or as a JSON object.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use runtime::escape::Escaped;
use serde::Serialize;

use super::json::{self, millis, write_json};
use crate::clock;
use crate::expectation::Expectation;
use crate::millis::Millis;
use crate::report::Phase;
use crate::stats::{Answered, Backend, Rollout, Summary};
use crate::verdict;

/// Displays a summary as text; every line ends with a newline.
#[derive(Debug)]
pub(crate) struct TextSummary<'a>(
    /// The summary of a target.
    pub &'a Summary,
);

impl fmt::Display for TextSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = self.0;
        let (calls, failed) = (summary.calls(), summary.failed());
        let share = |count: u64| count as f64 * 100.0 / calls.max(1) as f64;
        let label = Escaped::new(summary.target().label().as_bytes());
        writeln!(f, "--- {label} call statistics ---")?;
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
        let expectation = summary.expectation();
        if expectation != Expectation::Ok {
            let as_expected = calls - summary.unexpected();
            writeln!(f, "expected {expectation}: {as_expected} of {calls} calls")?;
        } else {
            let gap = summary.longest_gap();
            writeln!(f, "longest gap without a success: {gap:.1?}")?;
        }
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
            if !Phase::of(summary.target().scheme).contains(&phase) {
                continue;
            }
            let [p50, p99, max] = match quantiles {
                Some(durations) => durations.map(|duration| Millis(Some(duration))),
                None => [const { Millis(None) }; 3],
            };
            writeln!(f, "{:<12}{p50:>10}{p99:>10}{max:>10}", phase.label())?;
        }
        Ok(())
    }
}

/// Displays the total over several targets; every line ends with a newline.
#[derive(Debug)]
pub(crate) struct Total<'a>(
    /// The summaries of the targets.
    pub &'a [Summary],
);

impl Total<'_> {
    fn sum(&self, count: fn(&Summary) -> u64) -> u64 {
        self.0.iter().map(count).sum()
    }

    /// The targets for which not every call was as expected.
    fn unexpected(&self) -> impl Iterator<Item = &Summary> {
        self.0.iter().filter(|summary| summary.unexpected() > 0)
    }

    /// The total as a JSON object on one line, which ends with a newline.
    pub(super) fn to_json(&self) -> String {
        let total = JsonTotal {
            targets: self.0.len(),
            calls: self.sum(Summary::calls),
            failed: self.sum(Summary::failed),
            unexpected: self.sum(Summary::unexpected),
            not_as_expected: self.unexpected().map(|s| s.target().label()).collect(),
        };
        format!("{}\n", json::to_json(&OuterTotal { total }))
    }
}

impl fmt::Display for Total<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (targets, calls) = (self.0.len(), self.sum(Summary::calls));
        writeln!(f, "--- {targets} targets ---")?;
        let failed = self.sum(Summary::failed);
        writeln!(f, "{calls} calls, {} ok, {failed} failed", calls - failed)?;
        let met = targets - self.unexpected().count();
        writeln!(f, "as expected throughout: {met} of {targets} targets")?;
        for summary in self.unexpected() {
            writeln!(
                f,
                "not as expected: {} ({}), {} of {} calls",
                Escaped::new(summary.target().label().as_bytes()),
                summary.expectation(),
                summary.unexpected(),
                summary.calls()
            )?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct OuterTotal<T> {
    total: T,
}

#[derive(Serialize)]
struct JsonTotal<'a> {
    targets: usize,
    calls: u64,
    failed: u64,
    unexpected: u64,
    not_as_expected: Vec<&'a str>,
}

/// Displays the old and the new pods of a rollout, and whether the new ones replaced the old ones.
struct RolloutLines<'a>(&'a Rollout);

impl fmt::Display for RolloutLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rollout = self.0;
        let old = rollout.old().map(|pod| ("old", pod));
        let new = rollout.new_pods().map(|pod| ("new", pod));
        for (sort, (pod, Answered { first, last, .. })) in old.chain(new) {
            let pod = Escaped::new(pod.as_bytes());
            let (first, last) = (clock::time_of_day(*first), clock::time_of_day(*last));
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
pub(crate) struct JsonSummary<'a> {
    /// The summary of a target.
    pub summary: &'a Summary,
    /// Whether to name the target, as one of several.
    pub names_target: bool,
}

impl fmt::Display for JsonSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = json_summary(self.summary, self.names_target);
        write_json(f, &Outer { summary })
    }
}

/// A summary as a serializable object. `names_target` is for one of several targets.
pub(crate) fn json_summary(summary: &Summary, names_target: bool) -> impl Serialize {
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
    let expectation = summary.expectation();
    let is_check = names_target || expectation != Expectation::Ok;
    Json {
        target: json::target(summary.target(), names_target),
        url: summary.target().as_str(),
        expectation: is_check.then(|| expectation.to_string()),
        unexpected: is_check.then(|| summary.unexpected()),
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
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expectation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unexpected: Option<u64>,
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
    let times = |(pod, answered): (_, &Answered)| {
        (pod, [answered.first, answered.last].map(clock::rfc3339))
    };
    let why = rollout.not_seen();
    RolloutView {
        replaced: why.is_none(),
        why: why.as_ref().map(verdict::not_replaced),
        old_pods: rollout.old().map(times).collect(),
        new_pods: rollout.new_pods().map(times).collect(),
    }
}
