//! `caller diagnose`: the reports of a round, step by step, for a person.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use runtime::escape::Escaped;

use super::resolve::Options;
use super::text::{Body, Evidence};
use crate::dns::Lookup;
use crate::expectation::Expectation;
use crate::failure::{Failure, Stage};
use crate::millis::Millis;
use crate::report::{Outcome, Phase, Report, Tls};
use crate::target::Target;
use crate::verdict;

/// A lookup that takes longer is slow: within a cluster it takes a few milliseconds.
const SLOW_LOOKUP: Duration = Duration::from_millis(100);

/// A handshake or a response that takes longer is slow. The first SYN that is lost costs a second.
const SLOW_STEP: Duration = Duration::from_secs(1);

/// Marks how a step went: in colour on a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// Use colour (ECMA-48 SGR).
    pub colour: bool,
}

/// How a step went.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Ok,
    Slow,
    Failed,
}

impl Mark {
    /// For a step that succeeded, and took so long.
    fn of(took: Option<Duration>, slow: Duration) -> Self {
        match took {
            Some(took) if took >= slow => Self::Slow,
            _ => Self::Ok,
        }
    }
}

impl Marks {
    fn show(self, mark: Mark) -> String {
        let (word, sgr) = match mark {
            Mark::Ok => ("ok  ", 32),
            Mark::Slow => ("slow", 33),
            Mark::Failed => ("FAIL", 31),
        };
        match self.colour {
            true => format!("\x1b[{sgr}m{word}\x1b[0m"),
            false => word.to_owned(),
        }
    }
}

/// Displays the way of a round's calls, a line a step; after the first failure its likely cause and the
/// command to run next.
#[derive(Debug)]
pub struct Diagnosis<'a> {
    /// What was called.
    pub target: &'a Target,
    /// The calls, one for each address.
    pub reports: &'a [Report],
    /// Further calls, where there is one address.
    pub again: &'a [Report],
    /// How to mark.
    pub marks: Marks,
}

impl fmt::Display for Diagnosis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "      target       {}", self.target)?;
        match self.reports.first().map(|report| report.expectation) {
            None | Some(Expectation::Ok) => writeln!(f)?,
            Some(expectation) => writeln!(f, ", expected: {expectation}")?,
        }
        // The calls of a round share one lookup.
        if let Some(lookup) = self
            .reports
            .iter()
            .find_map(|report| report.lookup.as_deref())
        {
            self.lookup(f, lookup)?;
        }
        let mut explained = false;
        let is_mixed = self.reports.iter().any(Report::is_ok);
        for report in self.reports {
            self.call(f, report)?;
            if let Some(failure) = report.failure()
                && !explained
                && self.again.is_empty()
            {
                explained = true;
                let some = || verdict::likely_of_some(failure, self.reports.iter());
                explain(f, report, failure, is_mixed.then(some))?;
            }
        }
        match self.again {
            [] => Ok(()),
            _ => self.share(f),
        }
    }
}

impl Diagnosis<'_> {
    fn step(
        &self,
        f: &mut fmt::Formatter<'_>,
        mark: Mark,
        what: &str,
        text: impl fmt::Display,
    ) -> fmt::Result {
        writeln!(f, "{}  {what:<11}  {text}", self.marks.show(mark))
    }

    fn lookup(&self, f: &mut fmt::Formatter<'_>, lookup: &Lookup) -> fmt::Result {
        if let Some(conf) = &lookup.conf {
            let servers: Vec<String> = conf.nameservers.iter().map(|s| s.to_string()).collect();
            let text = format!(
                "nameserver {}; search {}; {}",
                servers.join(" "),
                conf.search.join(" "),
                Options(conf)
            );
            self.step(f, Mark::Ok, "resolv.conf", Escaped::new(text.as_bytes()))?;
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
                self.step(f, mark, "DNS", Escaped::new(text.as_bytes()))?;
                match verdict::dns::note(lookup) {
                    Some(note) => {
                        writeln!(f, "      note         {}", Escaped::new(note.as_bytes()))
                    }
                    None => Ok(()),
                }
            }
            Err(failure) => {
                let step = match lookup.conf {
                    Some(_) => "DNS",
                    None => "resolv.conf",
                };
                let text = verdict::dns::evidence(lookup, failure);
                self.step(f, Mark::Failed, step, Escaped::new(text.as_bytes()))
            }
        }
    }

    /// How many of all the calls failed, who answered them, and the first failure explained.
    fn share(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = || self.reports.iter().chain(self.again);
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
        let mark = if failures == 0 {
            Mark::Ok
        } else {
            Mark::Failed
        };
        self.step(f, mark, "calls", text)?;
        let first = calls().find_map(|report| Some((report, report.failure()?)));
        let Some((report, failure)) = first else {
            return Ok(());
        };
        if self.reports.iter().all(Report::is_ok) {
            writeln!(f, "      seen         {}", Evidence { report, failure })?;
        }
        let some = (failures < count).then(|| verdict::likely_of_some(failure, calls()));
        explain(f, report, failure, some)
    }

    /// The handshake, if it ended, and the certificate, even if it was not accepted.
    fn tls(&self, f: &mut fmt::Formatter<'_>, report: &Report, tls: &Tls) -> fmt::Result {
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
            let mark = Mark::of(took, SLOW_STEP);
            self.step(f, mark, "TLS", Escaped::new(text.as_bytes()))?;
        }
        let Some(certificate) = &tls.certificate else {
            return Ok(());
        };
        let text = format!(
            "{}; {}",
            verdict::tls::Facts(certificate),
            verdict::tls::validity(certificate, report.started)
        );
        writeln!(f, "      certificate  {}", Escaped::new(text.as_bytes()))
    }

    fn call(&self, f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
        let connect = report.timings[Phase::Connect];
        if let (Some(address), Some(took)) = (report.address, connect) {
            let mark = Mark::of(connect, SLOW_STEP);
            let text = format!("{address} connected in {}", Millis(Some(took)));
            self.step(f, mark, "TCP", text)?;
        }
        if let Some(tls) = &report.tls {
            self.tls(f, report, tls)?;
        }
        match &report.outcome {
            Outcome::Connected => Ok(()),
            Outcome::Failed(failure, _) => {
                let step = match failure.stage {
                    // The lookup's line has said why.
                    Stage::Dns => return Ok(()),
                    Stage::Connect => "TCP",
                    Stage::Tls => "TLS",
                    Stage::Http => "HTTP",
                };
                self.step(f, Mark::Failed, step, Evidence { report, failure })
            }
            Outcome::Answered(response) => {
                let first_byte = report.timings[Phase::FirstByte];
                let pod = response.pod.as_deref().unwrap_or("an unnamed pod");
                let text = format!(
                    "{} from {}, first byte after {}, {} bytes: {}",
                    response.status.as_u16(),
                    Escaped::new(pod.as_bytes()),
                    Millis(first_byte),
                    response.body_len,
                    Body::of_success(response),
                );
                self.step(f, Mark::of(first_byte, SLOW_STEP), "HTTP", text)
            }
        }
    }
}

/// What happened, why, and what to do next. `likely` is for what only several calls tell.
fn explain(
    f: &mut fmt::Formatter<'_>,
    report: &Report,
    failure: &Failure,
    likely: Option<&str>,
) -> fmt::Result {
    writeln!(f, "      what         {}", verdict::what(failure))?;
    match likely {
        Some(likely) => writeln!(f, "      likely       {likely}")?,
        None => {
            let likely = verdict::likely(report, failure);
            writeln!(f, "      likely       {}", Escaped::new(likely.as_bytes()))?;
        }
    }
    let next = verdict::next_command(report, failure.kind);
    writeln!(f, "      next         {}", Escaped::new(next.as_bytes()))?;
    match verdict::how_to_read(report, failure.kind) {
        Some(reading) => writeln!(f, "      read         {reading}"),
        None => Ok(()),
    }
}
