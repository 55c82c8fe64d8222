//! The wording of lookups: the evidence and the likely cause of a failure, and notes on a success.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use crate::dns::{GaiError, Lookup, LookupFailure, Query, QueryOutcome, Race, Source};
use crate::failure::{FailureKind, MAX_EVIDENCE};
use crate::millis::Millis;

/// Most items of a list. The list is also cut to [`MAX_EVIDENCE`] bytes.
const MAX_LISTED: usize = 64;

/// The evidence of a failed lookup: the names queried, the servers and their responses.
pub(crate) fn evidence(lookup: &Lookup, failure: &LookupFailure) -> String {
    let Lookup { name, queries, .. } = lookup;
    let outcome = match failure {
        LookupFailure::Conf(error) => return cut(error.to_string()),
        LookupFailure::InvalidName => return cut(format!("{name}: not a valid DNS name")),
        LookupFailure::Forbidden { .. } => {
            return cut(format!("{name}: AAAA is not asked for: options no-aaaa"));
        }
        LookupFailure::OutOfTime => None,
        LookupFailure::Answered { outcome, .. } => Some(outcome),
    };
    let mut evidence = match outcome {
        Some(outcome) => format!("{name}: {}", Outcome(outcome, queries)),
        None => format!("{name}: no time left to ask for every name that it may stand for"),
    };
    // Other failures are listed too, although they did not decide the outcome.
    let mut listed: Vec<&QueryOutcome> = outcome.into_iter().collect();
    for Query { outcome, .. } in queries {
        let is_plain = matches!(
            outcome,
            QueryOutcome::NxDomain | QueryOutcome::NoData | QueryOutcome::Truncated
        );
        if !is_plain && !listed.contains(&outcome) {
            listed.push(outcome);
            evidence += &format!("; {}", Outcome(outcome, queries));
        }
    }
    if let Some((query, target)) = dangling(lookup) {
        evidence += &format!("; CNAME of {} is {target}", query.name);
    }
    let strays: u32 = queries.iter().map(|query| query.strays).sum();
    if strays > 0 {
        evidence += &format!("; {strays} datagrams that were no answer");
    }
    cut(evidence) + &format!(" after {}", Millis(Some(lookup.duration)))
}

/// The likely cause of a failed lookup: refined by the evidence, or else the usual one of its kind.
pub(crate) fn likely_cause(lookup: &Lookup, failure: &LookupFailure) -> Cow<'static, str> {
    let usual = || super::usual_cause(failure.kind()).into();
    let outcome = match failure {
        LookupFailure::Forbidden { .. } => {
            return "options no-aaaa in resolv.conf forbids IPv6".into();
        }
        LookupFailure::Conf(_) if failure.kind() == FailureKind::Local => {
            return "this pod is short of file descriptors".into();
        }
        _ if failure.kind() == FailureKind::DnsNxdomain && lookup.lacks_search_domain() => {
            return "DNS does not know the name as it is, and its final dot switches the search list off: without it, \
                    it may be that of a Service".into();
        }
        LookupFailure::InvalidName => return "no name in DNS can be that long or look so".into(),
        LookupFailure::Answered { outcome, .. } => outcome,
        LookupFailure::Conf(_) | LookupFailure::OutOfTime => return usual(),
    };
    let is_of_service = lookup.service_zone().is_some();
    match outcome {
        QueryOutcome::NxDomain | QueryOutcome::NoData => {
            if let Some((query, target)) = dangling(lookup) {
                let what = match lookup
                    .service_zone()
                    .is_some_and(|zone| zone.zone_of(&query.name))
                {
                    true => "the Service is an ExternalName".to_owned(),
                    false => format!("{} is an alias", query.name),
                };
                let fate = match query.outcome {
                    QueryOutcome::NxDomain => "does not exist",
                    _ => "does not exist or has no address",
                };
                return cut(format!("{what} for {target}, which {fate}")).into();
            }
            match outcome {
                QueryOutcome::NxDomain => no_such_name(lookup).unwrap_or_else(usual),
                _ => usual(),
            }
        }
        QueryOutcome::Timeout if lookup.queries.iter().any(|query| query.strays > 0) => {
            "datagrams came that answer no query of this lookup: something else listens at the \
             nameserver's address, or meddles on the way"
                .into()
        }
        QueryOutcome::Timeout if silent_server_answered(lookup) => {
            "DNS is up, as it answered another query just now: packets get lost (the race of A and \
             AAAA, caller resolve --repeat), or its upstream is silent"
                .into()
        }
        QueryOutcome::Referral => "the nameserver does not resolve names for its clients".into(),
        QueryOutcome::ServFail if !is_of_service && lookup.is_in_a_cluster() => {
            "cluster DNS is up but its upstream cannot answer".into()
        }
        _ => usual(),
    }
}

/// The likely cause of NXDOMAIN, if it is not a missing Service in this namespace.
fn no_such_name(lookup: &Lookup) -> Option<Cow<'static, str>> {
    if lookup.service_zone().is_none() {
        return Some(match lookup.is_in_a_cluster() {
            true => "it is not in the cluster's domain, and DNS outside of it does not know the name",
            false => "DNS does not know the name",
        }
        .into());
    }
    // A name with one dot may be SERVICE.NAMESPACE or a host name outside of the cluster.
    let (service, namespace) = lookup.name.split_once('.')?;
    let as_is = lookup.queries.last()?;
    let is_unknown = as_is.outcome == QueryOutcome::NxDomain && as_is.name.num_labels() == 2;
    (!namespace.contains('.') && is_unknown).then(|| {
        let what = "nor such a name outside of the cluster";
        format!("no Service {service} in the namespace {namespace}, {what}").into()
    })
}

/// The most useful next command, if it differs from the usual one of the failure's kind.
pub(crate) fn next_command(lookup: &Lookup, failure: &LookupFailure) -> Option<String> {
    let config = || "kubectl get configmap -n kube-system coredns -o yaml".to_owned();
    let (query, target) = dangling(lookup).unzip();
    match (failure.kind(), lookup.service_zone(), query) {
        (FailureKind::DnsNxdomain | FailureKind::DnsNodata, Some(_), Some(_)) => {
            Some(format!("caller resolve {}", target?))
        }
        (FailureKind::DnsNxdomain | FailureKind::DnsNodata, None, _) => Some(config()),
        _ => None,
    }
}

/// A warning about a lookup that succeeded, but with an address that is probably not the intended one.
pub(crate) fn note(lookup: &Lookup) -> Option<String> {
    let addresses = lookup.outcome.as_ref().ok()?;
    if let Some(name) = lookup.unexpected_name() {
        return Some(cut(format!(
            "{name} answered, which is not where {} was to be found: a wildcard in a search domain, or a resolver that makes names up",
            lookup.name
        )));
    }
    let unspecified = addresses.iter().find(|ip| ip.is_unspecified())?;
    Some(format!(
        "{unspecified} is no address of another machine: a blocklist or a placeholder answered, and a call ends at this pod"
    ))
}

/// The lines and options of `resolv.conf` that have no effect, with their line numbers.
pub(crate) fn ignored(lookup: &Lookup) -> Vec<String> {
    let Some(conf) = &lookup.conf else {
        return Vec::new();
    };
    let lines = conf.ignored.iter();
    lines
        .map(|(line, text)| format!("line {line}: {text}"))
        .collect()
}

/// The text of glibc's `gai_strerror` for this error, as other programs in this pod log it.
pub(crate) fn glibc_message(error: GaiError) -> &'static str {
    match error {
        GaiError::NoName => "Name or service not known",
        GaiError::NoData => "No address associated with hostname",
        GaiError::Again => "Temporary failure in name resolution",
    }
}

/// The likely cause of the responses that were lost in a race, if any were.
pub(crate) fn race_verdict(race: &Race) -> Option<&'static str> {
    let (one, two) = (&race.one_socket, &race.two_sockets);
    match (one.lost, two.lost) {
        (0, 0) => None,
        // The server never responded, which the lookup before has reported.
        (lost, _) if lost == one.sent && two.lost == two.sent => None,
        (one, two) if one > two.saturating_mul(2) => Some(
            "two packets from one socket race each other (conntrack), and programs with glibc wait five seconds for the one that is lost: a DNS cache on each node, or options single-request-reopen, prevents it",
        ),
        _ => Some(
            "packets get lost whatever socket they are from: the network, or DNS is overloaded",
        ),
    }
}

/// Where the addresses come from, for a sentence such as "backend is 10.96.3.4, found ...".
pub(crate) fn source(lookup: &Lookup) -> String {
    match &lookup.source {
        Source::Hosts(path) => format!("in {}", path.display()),
        Source::Loopback => "this machine by definition".to_owned(),
        Source::Dns => lookup
            .answered
            .as_ref()
            .map_or("in DNS".to_owned(), |name| format!("as {name}")),
    }
}

/// A query whose CNAME chain ends at a name without an address, and that name.
fn dangling(lookup: &Lookup) -> Option<(&Query, String)> {
    let mut queries = lookup.queries.iter();
    queries.find_map(|query| {
        let is_nothing = matches!(query.outcome, QueryOutcome::NxDomain | QueryOutcome::NoData);
        let target = query.cnames.last().filter(|_| is_nothing)?;
        Some((query, target.to_ascii()))
    })
}

/// Whether a server that let one query time out responded to another query of the same lookup.
fn silent_server_answered(lookup: &Lookup) -> bool {
    let is_silent = |query: &&Query| query.outcome == QueryOutcome::Timeout;
    let silent: Vec<SocketAddr> = lookup
        .queries
        .iter()
        .filter(is_silent)
        .map(|q| q.server)
        .collect();
    let mut queries = lookup.queries.iter();
    queries.any(|query| {
        let is_failure = matches!(
            query.outcome,
            QueryOutcome::Timeout
                | QueryOutcome::Malformed(_)
                | QueryOutcome::Unreachable(_)
                | QueryOutcome::Local(_)
                | QueryOutcome::Truncated
        );
        !is_failure && silent.contains(&query.server)
    })
}

/// Displays an outcome with the names, servers and record types of all queries that had it.
struct Outcome<'a>(&'a QueryOutcome, &'a [Query]);

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(outcome, queries) = self;
        let alike = || queries.iter().filter(|query| query.outcome == **outcome);
        let names = distinct(alike().map(|query| query.name.to_ascii()));
        let servers = distinct(alike().map(|query| query.server.to_string()));
        let types = distinct(alike().map(|query| query.family.to_string()));
        let shown: fn(&QueryOutcome) -> String = |outcome| match outcome {
            QueryOutcome::Addresses { addresses, .. } => format!("{} addresses", addresses.len()),
            outcome => outcome.to_string(),
        };
        write!(f, "{} for {names} from {servers} ({types})", shown(outcome))
    }
}

/// Distinct items in order, separated by commas.
fn distinct(items: impl Iterator<Item = String>) -> String {
    let mut list = Vec::new();
    for item in items {
        if list.len() < MAX_LISTED && !list.contains(&item) {
            list.push(item);
        }
    }
    list.join(", ")
}

/// Cuts the text to [`MAX_EVIDENCE`] bytes.
fn cut(mut text: String) -> String {
    if text.len() > MAX_EVIDENCE {
        let fits = |at: &usize| text.is_char_boundary(*at);
        text.truncate((0..=MAX_EVIDENCE).rev().find(fits).unwrap_or_default());
        text.push_str("...");
    }
    text
}
