//! The output of `caller diagnose`: the reports of a round, step by step, as text or JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use runtime::escape::Escaped;
use serde::Serialize;

use super::json;
use super::resolve::Options;
use super::text::{Body, Evidence};
use crate::dns::Lookup;
use crate::expectation::Expectation;
use crate::failure::{Failure, FailureKind, Stage};
use crate::millis::Millis;
use crate::report::{Outcome, Passed, Path, Phase, Report, Tls};
use crate::target::Target;
use crate::verdict;

/// A lookup that takes this long or longer is slow: within a cluster it takes a few milliseconds.
const SLOW_LOOKUP: Duration = Duration::from_millis(100);

/// A handshake or a response that takes this long or longer is slow. A lost SYN costs one second (RFC 6298, section
/// 2.1).
const SLOW_STEP: Duration = Duration::from_secs(1);

/// Result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Ok,
    Slow,
    #[serde(rename = "FAIL")]
    Failed,
}

impl Mark {
    /// The mark of a successful step that took this long.
    fn of(took: Option<Duration>, slow: Duration) -> Self {
        match took {
            Some(took) if took >= slow => Self::Slow,
            _ => Self::Ok,
        }
    }

    fn show(self, colour: bool) -> String {
        let (word, sgr) = match self {
            Self::Ok => ("ok  ", 32),
            Self::Slow => ("slow", 33),
            Self::Failed => ("FAIL", 31),
        };
        match colour {
            true => format!("\x1b[{sgr}m{word}\x1b[0m"),
            false => word.to_owned(),
        }
    }
}

/// A line of a diagnosis.
#[derive(Debug, Serialize)]
struct Step {
    /// The result of the step; `None` for a remark, which is about the step before.
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
    step: &'static str,
    text: String,
}

/// The calls of a target, with a line for each step. The first failure is followed by its likely cause and the next
/// command to run.
#[derive(Debug)]
pub(crate) struct Diagnosis<'a> {
    /// The target that was called.
    pub target: &'a Target,
    /// The calls, one for each address.
    pub reports: &'a [Report],
    /// Further calls of the address, if the name has only one.
    pub repeated: &'a [Report],
    /// Result of testing the network path; `None` if it was not tested.
    pub path: Option<&'a Path>,
}

#[derive(Serialize)]
struct Json<'a, T> {
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expectation: Option<String>,
    result: &'static str,
    exit_code: u8,
    steps: &'a [Step],
    calls: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathView<T>>,
}

#[derive(Serialize)]
struct PathView<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    interface_mtu: Option<u32>,
    /// Bytes that passed to the backend in one request.
    #[serde(skip_serializing_if = "Option::is_none")]
    passed_there: Option<u64>,
    /// Bytes that passed back in one response.
    #[serde(skip_serializing_if = "Option::is_none")]
    passed_back: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hop: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hop_number: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listen_overflows: Option<u64>,
    /// The call that failed because it was large.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<T>,
}

impl Diagnosis<'_> {
    /// The diagnosis as text, with or without colours (ECMA-48 SGR); every line ends with a newline.
    pub(crate) fn to_text(&self, colour: bool) -> String {
        let line = |step: &Step| {
            let mark = step
                .mark
                .map_or("    ".to_owned(), |mark| mark.show(colour));
            let text = Escaped::new(step.text.as_bytes());
            format!("{mark}  {:<11}  {text}\n", step.step)
        };
        self.steps().iter().map(line).collect()
    }

    /// The diagnosis as a JSON object on one line, which ends with a newline.
    pub(crate) fn to_json(&self) -> String {
        let calls = || self.reports.iter().chain(self.repeated);
        let failure = self.kind();
        let expectation = self.expectation();
        let object = Json {
            target: self.target.as_str(),
            expectation: expectation.map(|expectation| expectation.to_string()),
            result: failure.map_or("ok", |kind| kind.label()),
            exit_code: self.exit_code(),
            steps: &self.steps(),
            calls: calls().map(|report| json::call(report, false)).collect(),
            path: self.path.map(|path| {
                let last = path.hops.and_then(|hops| hops.last);
                let (there, back) = match path.passed {
                    Some(Passed::BothWays(bytes)) => (Some(bytes), Some(bytes)),
                    Some(Passed::Answer(bytes)) => (None, Some(bytes)),
                    None => (None, None),
                };
                PathView {
                    interface_mtu: path.interface_mtu,
                    passed_there: there,
                    passed_back: back,
                    listen_overflows: path.overflows.as_ref().map(|(_, count)| *count),
                    last_hop: last.map(|(_, address)| address),
                    last_hop_number: last.map(|(number, _)| number),
                    failed: path
                        .failed
                        .as_deref()
                        .map(|report| json::call(report, false)),
                }
            }),
        };
        format!("{}\n", json::to_json(&object))
    }

    /// All calls, including the one of the path test that failed because it was large.
    fn calls(&self) -> impl Iterator<Item = &Report> {
        let counts = |report: &&Report| !report.is_of_unused_family(self.reports);
        let calls = self.reports.iter().filter(counts).chain(self.repeated);
        calls.chain(self.path.and_then(|path| path.failed.as_deref()))
    }

    /// The kind of the first failure.
    fn kind(&self) -> Option<FailureKind> {
        self.calls().find_map(Report::kind)
    }

    /// The exit code of the first call that was not as expected.
    pub(crate) fn exit_code(&self) -> u8 {
        let mut codes = self.calls().map(Report::exit_code);
        codes.find(|code| *code != 0).unwrap_or_default()
    }

    /// The expected result, if it is not a success.
    fn expectation(&self) -> Option<Expectation> {
        let report = self.reports.first()?;
        (report.expectation != Expectation::Ok).then_some(report.expectation)
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Steps::default();
        let expected = self
            .expectation()
            .map(|expected| format!(", expected: {expected}"));
        let target = format!("{}{}", self.target, expected.unwrap_or_default());
        steps.remark("target", target);
        // The calls of a round share one lookup.
        let mut lookups = self
            .reports
            .iter()
            .filter_map(|report| report.lookup.as_deref());
        if let Some(lookup) = lookups.next() {
            steps.lookup(lookup);
        }
        let mut explained = false;
        let is_mixed = self.reports.iter().any(Report::is_ok);
        for report in self.reports {
            if let Some(failure) = report.failure()
                && report.is_of_unused_family(self.reports)
            {
                steps.remark("note", verdict::unused_family(report, failure));
                continue;
            }
            steps.call(report);
            if let Some(failure) = report.failure()
                && !explained
                && self.repeated.is_empty()
            {
                explained = true;
                let some = || verdict::likely_of_some(report, failure, self.reports.iter());
                steps.explain(report, failure, is_mixed.then(some).flatten());
            }
        }
        if !self.repeated.is_empty() {
            self.repeated_calls(&mut steps);
        }
        if let Some(path) = self.path {
            steps.path(path, self.reports);
        }
        steps.0
    }

    /// Adds how many of all calls failed, which pods responded, and an explanation of the first failure.
    fn repeated_calls(&self, steps: &mut Steps) {
        let calls = || self.reports.iter().chain(self.repeated);
        let count = calls().count();
        let (mut failed, mut answered) = (BTreeMap::new(), BTreeMap::new());
        for report in calls() {
            if let Some(kind) = report.kind() {
                *failed.entry(kind.label()).or_insert(0) += 1;
            }
            if let Some(backend) = report.backend() {
                let (answers, failures) = answered.entry(backend).or_insert((0, 0));
                *answers += 1;
                *failures += usize::from(!report.is_ok());
            }
        }
        let kinds = failed.iter().map(|(kind, count)| format!("{kind} {count}"));
        let kinds: Vec<String> = kinds.collect();
        let pods = answered
            .iter()
            .map(|(pod, (answers, failures))| match failures {
                0 => format!("{pod} {answers}"),
                _ => format!("{pod} {answers} ({failures} failed)"),
            });
        let pods: Vec<String> = pods.collect();
        let failures: usize = failed.values().sum();
        let mut text = match failures {
            0 => format!("{count} of {count} succeeded"),
            _ => format!("{failures} of {count} failed: {}", kinds.join(", ")),
        };
        if !pods.is_empty() {
            text += &format!("; answered by {}", pods.join(", "));
        }
        let mark = match failures {
            0 => Mark::Ok,
            _ => Mark::Failed,
        };
        steps.step(mark, "calls", text);
        let first = calls().find_map(|report| Some((report, report.failure()?)));
        let Some((report, failure)) = first else {
            return;
        };
        if self.reports.iter().all(Report::is_ok) {
            steps.remark("seen", Evidence { report, failure }.to_string());
        }
        let some = || verdict::likely_of_some(report, failure, calls());
        steps.explain(report, failure, (failures < count).then(some).flatten());
    }
}

/// The steps collected so far.
#[derive(Debug, Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn step(&mut self, mark: Mark, step: &'static str, text: String) {
        let mark = Some(mark);
        self.0.push(Step { mark, step, text });
    }

    fn remark(&mut self, step: &'static str, text: impl Into<String>) {
        let (mark, text) = (None, text.into());
        self.0.push(Step { mark, step, text });
    }

    fn lookup(&mut self, lookup: &Lookup) {
        if let Some(conf) = &lookup.conf {
            let servers: Vec<String> = conf.nameservers.iter().map(|s| s.to_string()).collect();
            let text = format!(
                "nameserver {}; search {}; {}",
                servers.join(" "),
                conf.search.join(" "),
                Options(conf)
            );
            self.step(Mark::Ok, "resolv.conf", text);
        }
        match &lookup.outcome {
            Ok(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(|ip| ip.to_string()).collect();
                let text = format!(
                    "{} is {} in {}, {} questions, {}",
                    lookup.name,
                    addresses.join(", "),
                    Millis(Some(lookup.duration)),
                    lookup.queries.len(),
                    verdict::dns::source(lookup),
                );
                let mark = Mark::of(Some(lookup.duration), SLOW_LOOKUP);
                self.step(mark, "DNS", text);
                if let Some(note) = verdict::dns::note(lookup) {
                    self.remark("note", note);
                }
            }
            Err(failure) => {
                let step = match lookup.conf {
                    Some(_) => "DNS",
                    None => "resolv.conf",
                };
                let text = verdict::dns::evidence(lookup, failure);
                self.step(Mark::Failed, step, text);
            }
        }
    }

    /// Adds the handshake, if it completed, and the certificate, even if it was not accepted.
    fn tls(&mut self, report: &Report, tls: &Tls) {
        let took = report.timings[Phase::Tls];
        if let Some(version) = tls.version
            && took.is_some()
        {
            let verified = match tls.is_verified {
                true => "certificate verified",
                false => "certificate not verified: --insecure",
            };
            let mut text = format!("{version} in {}, {verified}", Millis(took));
            if let Some(protocol) = &tls.protocol {
                text += &format!(", {protocol}");
            }
            self.step(Mark::of(took, SLOW_STEP), "TLS", text);
        }
        if let Some(certificate) = &tls.certificate {
            let facts = verdict::tls::Facts(certificate);
            let validity = verdict::tls::validity(certificate, report.started);
            self.remark("certificate", format!("{facts}; {validity}"));
        }
    }

    fn call(&mut self, report: &Report) {
        let connect = report.timings[Phase::Connect];
        if let (Some(address), Some(took)) = (report.address, connect) {
            let mut text = format!("{address} connected in {}", Millis(Some(took)));
            // The evidence of a failure already contains the retransmissions.
            if let Some(retransmissions) = report
                .retransmissions
                .and_then(verdict::path::retransmissions)
                && report.is_ok()
            {
                text += &format!(": {retransmissions}");
            }
            self.step(Mark::of(connect, SLOW_STEP), "TCP", text);
        }
        if let Some(tls) = &report.tls {
            self.tls(report, tls);
        }
        match &report.outcome {
            Outcome::Connected => {}
            Outcome::Failed(failure, _) => {
                let step = match failure.stage {
                    // The step of the lookup already has the reason.
                    Stage::Dns => return,
                    Stage::Connect => "TCP",
                    Stage::Tls => "TLS",
                    Stage::Http => "HTTP",
                };
                let evidence = Evidence { report, failure }.to_string();
                self.step(Mark::Failed, step, evidence);
            }
            Outcome::Answered(response) => {
                let first_byte = report.timings[Phase::FirstByte];
                let pod = response.pod.as_deref().unwrap_or("an unnamed pod");
                let text = format!(
                    "{} from {pod}, first byte after {}, {} bytes: {}",
                    response.status.as_u16(),
                    Millis(first_byte),
                    response.body_len,
                    Body::of_success(response),
                );
                self.step(Mark::of(first_byte, SLOW_STEP), "HTTP", text);
            }
        }
    }

    /// Adds the results for the network path: the source address that the backend saw, packet sizes, overflows of the
    /// accept queue, and the last hop.
    fn path(&mut self, path: &Path, reports: &[Report]) {
        let mut seen = reports
            .iter()
            .filter_map(|report| Some((report, report.source()?)));
        if let Some((report, source)) = seen.next() {
            self.remark(
                "source",
                verdict::path::SeenSource(report, source).to_string(),
            );
        }
        if let Some(sizes) = verdict::path::sizes(path) {
            self.remark("path", sizes);
        }
        if let Some((pod, count @ 1..)) = &path.overflows {
            self.remark("backlog", verdict::path::overflows(pod, *count));
        }
        if let Some(hops) = &path.hops {
            self.remark("path", verdict::path::last_hop(hops));
        }
        if let Some(report) = path.failed.as_deref()
            && let Some(failure) = report.failure()
        {
            let evidence = Evidence { report, failure }.to_string();
            self.step(Mark::Failed, "path", evidence);
            self.explain(report, failure, None);
        }
    }

    /// Adds what happened, the likely cause and the next command. `likely` is a cause that was derived from
    /// several calls, and replaces that of the report.
    fn explain(&mut self, report: &Report, failure: &Failure, likely: Option<&str>) {
        self.remark("what", verdict::what(failure));
        let usual = || verdict::likely(report, failure).into_owned();
        self.remark("likely", likely.map_or_else(usual, str::to_owned));
        self.remark("next", verdict::next_command(report, failure.kind));
        if let Some(reading) = verdict::how_to_read(report, failure.kind) {
            self.remark("read", reading);
        }
    }
}
