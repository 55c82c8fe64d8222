//! Words for lookups that failed.

use std::fmt;

use crate::dns::{Lookup, LookupFailure, Query, QueryOutcome};
use crate::views::text::Millis;

/// What was seen: the names that were asked for, the servers and their answers.
pub fn evidence(lookup: &Lookup, failure: &LookupFailure) -> String {
    let Lookup { name, queries, .. } = lookup;
    let outcome = match failure {
        LookupFailure::Conf(error) => return error.to_string(),
        LookupFailure::InvalidName => return format!("{name}: not a valid DNS name"),
        LookupFailure::OutOfTime => return format!("{name}: no time left to ask"),
        LookupFailure::Answered(outcome) => outcome,
    };
    let mut evidence = format!("{name}: {}", Outcome(outcome, queries));
    // What did not decide is not hidden, either.
    let mut told = vec![outcome];
    for Query { outcome, .. } in queries {
        let is_plain = matches!(
            outcome,
            QueryOutcome::NxDomain | QueryOutcome::NoData | QueryOutcome::Truncated
        );
        if !is_plain && !told.contains(&outcome) {
            told.push(outcome);
            evidence += &format!("; {}", Outcome(outcome, queries));
        }
    }
    evidence + &format!(" after {}", Millis(Some(lookup.duration)))
}

/// An outcome, the names that were asked for and the servers that gave it.
struct Outcome<'a>(&'a QueryOutcome, &'a [Query]);

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome, queries) = self;
        let alike = || queries.iter().filter(|query| query.outcome == **outcome);
        let names = distinct(alike().map(|query| query.name.to_ascii()));
        let servers = distinct(alike().map(|query| query.server.to_string()));
        write!(f, "{outcome} for {names} from {servers}")
    }
}

/// Distinct items in order, separated by commas.
fn distinct(items: impl Iterator<Item = String>) -> String {
    let mut list = Vec::new();
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
    list.join(", ")
}
