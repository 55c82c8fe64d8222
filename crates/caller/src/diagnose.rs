//! `caller resolve` and `caller diagnose`: the same reports, step by step, for a person.

use std::fmt;

use runtime::escape::Escaped;

use crate::advice::Service;
use crate::dns::Lookup;
use crate::report::{Failure, Report};
use crate::text::Millis;
use crate::views::resolve::Options;

/// Marks what went well and what did not: in colour on a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// Use colour (ECMA-48 SGR).
    pub colour: bool,
}

impl Marks {
    fn ok(self) -> &'static str {
        if self.colour {
            "\x1b[32mok  \x1b[0m"
        } else {
            "ok  "
        }
    }

    fn failed(self) -> &'static str {
        if self.colour {
            "\x1b[31mFAIL\x1b[0m"
        } else {
            "FAIL"
        }
    }
}

/// Displays the way of a call, a line a step; after the first failure its likely cause and the
/// command to run next. The reports are those of one round, one for each address.
#[derive(Debug)]
pub struct Diagnosis<'a> {
    /// Never empty.
    pub reports: &'a [Report],
    /// The Service's name, as far as it can be told.
    pub service: Service,
    /// How to mark.
    pub marks: Marks,
}

impl fmt::Display for Diagnosis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lookup_shown = false;
        let mut explained = false;
        for report in self.reports {
            if let Some(lookup) = &report.lookup
                && !lookup_shown
            {
                lookup_shown = true;
                self.lookup(f, lookup)?;
            }
            self.exchange(f, report)?;
            if let Some(failure) = &report.failure
                && !explained
            {
                explained = true;
                self.explanation(f, report, failure)?;
            }
        }
        Ok(())
    }
}

impl Diagnosis<'_> {
    fn step(&self, f: &mut fmt::Formatter<'_>, ok: bool, what: &str, how: &str) -> fmt::Result {
        let mark = if ok {
            self.marks.ok()
        } else {
            self.marks.failed()
        };
        writeln!(f, "{mark}  {what:<11}  {}", Escaped::new(how.as_bytes()))
    }

    fn lookup(&self, f: &mut fmt::Formatter<'_>, lookup: &Lookup) -> fmt::Result {
        match (&lookup.conf, &lookup.outcome) {
            (Some(conf), _) => {
                let servers: Vec<String> = conf.nameservers.iter().map(|s| s.to_string()).collect();
                let how = format!(
                    "nameserver {}; search {}; {}",
                    servers.join(" "),
                    conf.search.join(" "),
                    Options(conf)
                );
                self.step(f, true, "resolv.conf", &how)?;
            }
            (None, Err(failure)) => {
                return self.step(
                    f,
                    false,
                    "resolv.conf",
                    &crate::verdict::dns::evidence(lookup, failure),
                );
            }
            (None, Ok(_)) => {}
        }
        match &lookup.outcome {
            Ok(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(|ip| ip.to_string()).collect();
                let how = format!(
                    "{} is {} in {}, {} questions, {}",
                    lookup.name,
                    addresses.join(", "),
                    Millis(Some(lookup.duration)),
                    lookup.queries.len(),
                    crate::verdict::dns::source(lookup)
                );
                self.step(f, true, "DNS", &how)?;
                match crate::verdict::dns::note(lookup) {
                    Some(note) => {
                        writeln!(f, "      note         {}", Escaped::new(note.as_bytes()))
                    }
                    None => Ok(()),
                }
            }
            Err(failure) => self.step(
                f,
                false,
                "DNS",
                &crate::verdict::dns::evidence(lookup, failure),
            ),
        }
    }

    fn exchange(&self, f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
        if let (Some(address), Some(took)) = (report.address, report.phases.connect) {
            let how = format!("{address} connected in {}", Millis(Some(took)));
            self.step(f, true, "TCP", &how)?;
        }
        match (&report.failure, &report.answer) {
            // It did not come to a connection: the lookup's line has said why.
            (Some(_), _) if report.address.is_none() => Ok(()),
            (Some(failure), _) if crate::report::is_before_connection(failure.kind) => {
                self.step(f, false, "TCP", &failure.evidence)
            }
            (Some(failure), _) => self.step(f, false, "HTTP", &failure.evidence),
            (None, Some(answer)) => {
                let pod = answer.pod.as_deref().unwrap_or("an unnamed pod");
                let how = format!(
                    "{} from {pod}, first byte after {}, {} bytes",
                    answer.status,
                    Millis(report.phases.first_byte),
                    answer.body_len
                );
                self.step(f, true, "HTTP", &how)
            }
            (None, None) => Ok(()),
        }
    }

    fn explanation(
        &self,
        f: &mut fmt::Formatter<'_>,
        report: &Report,
        failure: &Failure,
    ) -> fmt::Result {
        let Failure { kind, .. } = failure;
        writeln!(f, "      what         {}", crate::verdict::words(*kind))?;
        writeln!(
            f,
            "      likely       {}",
            Escaped::new(report.likely_cause().as_bytes())
        )?;
        let next = report
            .failed_lookup()
            .and_then(|(lookup, failure)| crate::verdict::dns::next_command(lookup, failure))
            .unwrap_or_else(|| self.service.next_command(*kind));
        writeln!(f, "      next         {}", Escaped::new(next.as_bytes()))
    }
}
