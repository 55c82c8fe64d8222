//! `caller resolve`: a lookup, query by query, for a person.

use std::fmt;

use runtime::escape::Escaped;

use super::text::Millis;
use crate::dns::{Lookup, Query, QueryOutcome, ResolvConf};
use crate::verdict;

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
        let width = |column: fn(&Query) -> String| {
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
                    Escaped::new(verdict::dns::evidence(lookup, failure).as_bytes())
                )?;
                let (words, cause) = (verdict::words(kind), verdict::usual_cause(kind));
                writeln!(f, "Lookup failed: {words}; likely {cause}")
            }
        }
    }
}

/// The options that decide what is asked.
pub(super) struct Options<'a>(pub(super) &'a ResolvConf);

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
