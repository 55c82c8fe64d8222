//! `caller resolve` and `caller diagnose`: the same reports, step by step, for a person.

use std::fmt;

use runtime::escape::Escaped;

use crate::advice::Service;
use crate::dns::{Lookup, QueryOutcome, ResolvConf};
use crate::report::{Failure, Report};
use crate::text::Millis;

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

/// Displays a lookup: the configuration, every question, the verdict.
#[derive(Debug)]
pub struct Transcript<'a>(pub &'a Lookup);

impl fmt::Display for Transcript<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lookup = self.0;
        if let Some(conf) = &lookup.conf {
            for server in &conf.nameservers {
                writeln!(f, "nameserver {server}")?;
            }
            writeln!(f, "search     {}", conf.search.join(" "))?;
            writeln!(f, "options    {}", Options(conf))?;
            writeln!(f)?;
        }
        let width = |column: fn(&crate::dns::Query) -> String| {
            lookup
                .queries
                .iter()
                .map(|q| column(q).len())
                .max()
                .unwrap_or(0)
        };
        let name_width = width(|question| question.name.to_ascii());
        let server_width = width(|question| question.server.to_string());
        for question in &lookup.queries {
            write!(
                f,
                "{name:name_width$}  {family:<4}  {server:server_width$}  {transport}  {took:>9}  {answer}",
                name = question.name.to_ascii(),
                family = question.family.to_string(),
                server = question.server.to_string(),
                transport = question.transport,
                took = Millis(Some(question.duration)),
                answer = question.outcome,
            )?;
            if let QueryOutcome::Addresses { addresses, ttl } = &question.outcome {
                write!(f, "  ttl {ttl}  ")?;
                join(f, addresses)?;
            }
            writeln!(f)?;
        }
        match &lookup.outcome {
            Ok(addresses) => {
                write!(f, "\n{} is ", lookup.name)?;
                join(f, addresses)?;
                writeln!(f, ", found in {}", Millis(Some(lookup.duration)))
            }
            Err(failure) => {
                let kind = failure.kind();
                writeln!(
                    f,
                    "\n{}",
                    Escaped::new(crate::verdict::dns::evidence(lookup, failure).as_bytes())
                )?;
                let (words, cause) = (
                    crate::verdict::words(kind),
                    crate::verdict::usual_cause(kind),
                );
                writeln!(f, "Lookup failed: {words}; likely {cause}")
            }
        }
    }
}

/// The options that decide what is asked.
struct Options<'a>(&'a ResolvConf);

impl fmt::Display for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResolvConf {
            nameservers: _,
            search: _,
            ndots,
            attempts,
            edns,
            use_tcp,
        } = self.0;
        write!(f, "ndots:{ndots} attempts:{attempts}")?;
        if *edns {
            f.write_str(" edns0")?;
        }
        if *use_tcp {
            f.write_str(" use-vc")?;
        }
        Ok(())
    }
}

fn join(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (n, item) in items.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
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
                self.explanation(f, failure)?;
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
                    "{} is {} in {}, {} questions",
                    lookup.name,
                    addresses.join(", "),
                    Millis(Some(lookup.duration)),
                    lookup.queries.len()
                );
                self.step(f, true, "DNS", &how)
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

    fn explanation(&self, f: &mut fmt::Formatter<'_>, failure: &Failure) -> fmt::Result {
        let Failure { kind, .. } = failure;
        writeln!(f, "      what         {}", crate::verdict::words(*kind))?;
        writeln!(
            f,
            "      likely       {}",
            crate::verdict::usual_cause(*kind)
        )?;
        writeln!(f, "      next         {}", self.service.next_command(*kind))
    }
}
