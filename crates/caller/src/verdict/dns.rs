//! The wording of lookups: the evidence and the likely cause of a failure, and notes on a success.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_resolver::proto::rr::Name;

use crate::dns::{
    Family, GaiError, Lookup, LookupFailure, Query, QueryOutcome, Race, Source, Transport,
};
use crate::failure::{self, FailureKind, Icmp, MAX_EVIDENCE, OsError};
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
    if let Some((query, target)) = outcome.and_then(|outcome| dangling(lookup, outcome)) {
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
        LookupFailure::Conf(_) | LookupFailure::OutOfTime => {
            return super::usual_cause(failure.kind()).into();
        }
    };
    match unanswered(lookup, outcome) {
        Some(Query {
            family,
            name,
            outcome,
            ..
        }) => {
            let (cause, _) = cause(lookup, outcome);
            cut(format!(
                "there is no usable answer for {family} of {name}: {cause}"
            ))
            .into()
        }
        None => cause(lookup, outcome).0,
    }
}

/// The kind of failure whose next command helps most: that of the likely cause.
pub(crate) fn kind_of_cause(lookup: &Lookup, failure: &LookupFailure) -> FailureKind {
    match failure {
        LookupFailure::Answered { outcome, .. } => cause(lookup, decisive(lookup, outcome)).1,
        _ => failure.kind(),
    }
}

/// The outcome whose cause counts.
fn decisive<'a>(lookup: &'a Lookup, outcome: &'a QueryOutcome) -> &'a QueryOutcome {
    unanswered(lookup, outcome).map_or(outcome, |query| &query.outcome)
}

/// The query for the other record type, which got no usable answer, of a name that has none of one type. NXDOMAIN for
/// A counts for both types; NXDOMAIN for AAAA alone is a frequent error of name servers.
fn unanswered<'a>(lookup: &'a Lookup, outcome: &QueryOutcome) -> Option<&'a Query> {
    // The first name with NODATA decides, but any name may be the one that exists.
    let (families, names): (&[Family], _) = match outcome {
        QueryOutcome::NoData => (&[Family::V4, Family::V6], 1),
        QueryOutcome::NxDomain => (&[Family::V6], usize::MAX),
        _ => return None,
    };
    let zone = lookup.service_zone();
    let is_alike = |query: &&Query| {
        query.outcome == *outcome
            && families.contains(&query.family)
            && zone.as_ref().is_none_or(|zone| zone.zone_of(&query.name))
    };
    lookup
        .queries
        .iter()
        .filter(is_alike)
        .take(names)
        .find_map(|alike| {
            let of_other =
                |query: &&Query| query.name == alike.name && query.family != alike.family;
            let query = lookup.queries.iter().rev().find(of_other)?;
            let is_answer = matches!(
                query.outcome,
                QueryOutcome::Addresses { .. } | QueryOutcome::NoData | QueryOutcome::NxDomain
            );
            (!is_answer).then_some(query)
        })
}

/// The likely cause of this outcome, and the kind of failure whose next command helps most.
fn cause(lookup: &Lookup, outcome: &QueryOutcome) -> (Cow<'static, str>, FailureKind) {
    let kind = outcome.kind();
    let usual = || (super::usual_cause(kind).into(), kind);
    let zone = lookup.service_zone();
    if let Some((query, target)) = dangling(lookup, outcome) {
        let what = match zone.is_some_and(|zone| zone.zone_of(&query.name)) {
            true => "the Service is an ExternalName".to_owned(),
            false => format!("{} is an alias", query.name),
        };
        let fate = match query.outcome {
            _ if is_address(&target) => "and no alias can be for an address",
            QueryOutcome::NxDomain => "which does not exist",
            QueryOutcome::NoData => "which does not exist or has no address",
            _ => "which DNS cannot resolve",
        };
        return (cut(format!("{what} for {target}, {fate}")).into(), kind);
    }
    if let Some(likely) = tcp_cause(lookup, outcome) {
        return (likely.into(), FailureKind::DnsTimeout);
    }
    let has_edns = lookup.conf.as_ref().is_some_and(|conf| conf.edns);
    let likely = match outcome {
        QueryOutcome::NxDomain => return no_such_name(lookup).unwrap_or_else(usual),
        QueryOutcome::NoData if zone.is_none() => {
            let alike = lookup
                .queries
                .iter()
                .filter(|query| query.outcome == *outcome);
            let Some(name) = alike.clone().next().map(|query| &query.name) else {
                return usual();
            };
            let types = alike.filter(|query| query.name == *name);
            let types = distinct(types.map(|query| query.family.to_string()));
            return (
                format!("{name} exists, but has no address ({types})").into(),
                kind,
            );
        }
        QueryOutcome::Timeout if lookup.queries.iter().any(|query| query.strays > 0) => {
            "datagrams came that answer no query of this lookup: something else listens at the \
             nameserver's address, or meddles on the way"
        }
        QueryOutcome::Timeout if silent_server_answered(lookup) => {
            "DNS is up, as it answered another query just now: packets get lost (the race of A and \
             AAAA, caller resolve --repeat), or its upstream is silent"
        }
        QueryOutcome::Referral => "the nameserver does not resolve names for its clients",
        QueryOutcome::ServFail if zone.is_none() && lookup.is_in_a_cluster() => {
            "cluster DNS is up but its upstream cannot answer"
        }
        QueryOutcome::OtherCode(FORMERR) if has_edns => {
            "the nameserver does not take EDNS, which options edns0 in resolv.conf asks for"
        }
        QueryOutcome::CnameLoop => {
            let likely = "the name is an alias (CNAME) that leads to itself";
            return (likely.into(), FailureKind::DnsNxdomain);
        }
        QueryOutcome::Local(error) => match super::shortage(error) {
            Some(likely) => likely,
            None => return usual(),
        },
        QueryOutcome::Unreachable { .. } => {
            return unreachable(lookup, outcome).unwrap_or_else(usual);
        }
        _ => return usual(),
    };
    (likely.into(), kind)
}

/// The response code FORMERR (RFC 1035, section 4.1.1).
const FORMERR: u16 = 1;

/// The likely cause of this outcome, if it is that of TCP, while UDP may work.
fn tcp_cause(lookup: &Lookup, outcome: &QueryOutcome) -> Option<&'static str> {
    let is_failure = matches!(
        outcome,
        QueryOutcome::Timeout | QueryOutcome::Unreachable { .. } | QueryOutcome::Closed
    );
    let of_tcp = |query: &&Query| query.transport == Transport::Tcp && query.outcome == *outcome;
    let failed = lookup.queries.iter().filter(|_| is_failure).find(of_tcp)?;
    match is_truncated(&lookup.queries, failed) {
        true => Some(
            "the answer is too large for UDP, and TCP to port 53 is blocked, or not served by the nameserver",
        ),
        false if *outcome == QueryOutcome::Closed => {
            Some("the nameserver does not serve TCP, which options use-vc in resolv.conf asks for")
        }
        false => None,
    }
}

/// Whether this query was sent over TCP because the response over UDP was truncated.
fn is_truncated(queries: &[Query], of: &Query) -> bool {
    let is_truncated = |query: &Query| query.outcome == QueryOutcome::Truncated;
    of.transport == Transport::Tcp && queries.iter().any(is_truncated)
}

/// The likely cause if the name server cannot be reached, and the error shows a more specific one than usual.
fn unreachable(
    lookup: &Lookup,
    outcome: &QueryOutcome,
) -> Option<(Cow<'static, str>, FailureKind)> {
    let QueryOutcome::Unreachable {
        error,
        icmp,
        lacks_route,
    } = outcome
    else {
        return None;
    };
    let query = lookup
        .queries
        .iter()
        .find(|query| query.outcome == *outcome)?;
    let server = query.server;
    if let Some(icmp) = icmp.filter(|icmp| icmp.from != server.ip())
        && let Some(likely) = super::path::likely_by_icmp(icmp)
    {
        return Some((likely.into(), outcome.kind()));
    }
    let is_link_local = matches!(server.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    let likely: Cow<'static, str> = match error.errno? {
        libc::EINVAL if is_link_local => {
            "a link-local nameserver needs an interface of this pod, such as %eth0; one that was \
             copied from a node names an interface of the node"
                .into()
        }
        _ if *lacks_route => {
            let family = if server.is_ipv6() { "IPv6" } else { "IPv4" };
            format!("this pod has no {family} address or route to that nameserver").into()
        }
        libc::ECONNREFUSED if server.ip().is_loopback() && server.port() == 53 => {
            "nothing listens at this pod's own loopback: the resolv.conf of a node was copied \
             (systemd-resolved), or a nameserver within this pod is down"
                .into()
        }
        _ => return None,
    };
    Some((likely, FailureKind::ResolvConf))
}

/// The likely cause of NXDOMAIN, if it is not a missing Service in this namespace.
fn no_such_name(lookup: &Lookup) -> Option<(Cow<'static, str>, FailureKind)> {
    let name = lookup.name.trim_end_matches('.');
    let labels: Vec<&str> = name.split('.').collect();
    let kind = FailureKind::DnsNxdomain;
    let is_of_cluster = labels.len() == 1 || labels.iter().skip(2).any(|label| *label == "svc");
    if !lookup.is_in_a_cluster() && is_of_cluster {
        let likely = "no such Service, or resolv.conf is not that of a pod, as it has no search domain of a cluster: \
                      dnsPolicy ClusterFirst, or ClusterFirstWithHostNet with hostNetwork";
        return Some((likely.into(), FailureKind::ResolvConf));
    }
    let zone = lookup.service_zone();
    let is_in_zone = |zone: &Name| lookup.queries.iter().any(|query| zone.zone_of(&query.name));
    if zone.as_ref().is_some_and(|zone| !is_in_zone(zone)) {
        let likely = "an answer for another search domain ended the search, as it does in glibc, before the Service's \
                      own name was asked for";
        return Some((likely.into(), FailureKind::ResolvConf));
    }
    let outside = "nor such a name outside of the cluster";
    let likely = match (labels.as_slice(), zone, pod(lookup)) {
        ([_, _, _, "svc", ..], Some(_), Some((pod, service, Some(namespace)))) => format!(
            "no Service {service} in the namespace {namespace}, or no ready pod {pod} behind it"
        ),
        (_, None, Some((pod, service, Some(namespace)))) => format!(
            "DNS outside of the cluster does not know the name; or there is no ready pod {pod} behind a headless Service \
             {service} in the namespace {namespace}"
        ),
        (_, None, _) => match lookup.is_in_a_cluster() {
            true => {
                "it is not in the cluster's domain, and DNS outside of it does not know the name"
            }
            false => "DNS does not know the name",
        }
        .to_owned(),
        // A name with one dot may be SERVICE.NAMESPACE, POD.SERVICE or a host name outside of the cluster.
        ([service, namespace], Some(_), pod) => {
            let as_is = lookup.queries.last()?;
            if as_is.name.num_labels() != 2 {
                return None;
            }
            if as_is.outcome != QueryOutcome::NxDomain {
                // A cluster without a way out has the same answers for a Service that is missing.
                let likely = format!(
                    "no Service {service} in the namespace {namespace}; or, if {name} is a name outside of the cluster, \
                     DNS could not answer for it ({})",
                    as_is.outcome.code()
                );
                return Some((likely.into(), kind));
            }
            let pod = pod.map(|(pod, service, _)| {
                format!("no ready pod {pod} behind a headless Service {service}, ")
            });
            let pod = pod.unwrap_or_default();
            format!("no Service {service} in the namespace {namespace}, {pod}{outside}")
        }
        _ => return None,
    };
    Some((likely.into(), kind))
}

/// The pod, the headless Service and, if it is named, the namespace that a name in a cluster may stand for:
/// `POD.SERVICE.NAMESPACE.svc...`; without `svc` only if the pod ends with a number, as those of a StatefulSet.
fn pod(lookup: &Lookup) -> Option<(&str, &str, Option<&str>)> {
    let labels: Vec<&str> = lookup.name.trim_end_matches('.').split('.').collect();
    let is_numbered = |pod: &str| {
        let number = pod.rsplit_once('-').map(|(_, number)| number);
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    match *labels.as_slice() {
        _ if !lookup.is_in_a_cluster()
            || !labels.iter().all(|label| super::next::is_label(label)) =>
        {
            None
        }
        [pod, service, namespace, "svc", ..] => Some((pod, service, Some(namespace))),
        // `pod` is for records of pods, and `ip-10-0-0-1` is a name of a cloud's.
        [pod, service, namespace]
            if !["svc", "pod"].contains(&namespace)
                && !pod.starts_with("ip-")
                && is_numbered(pod) =>
        {
            Some((pod, service, Some(namespace)))
        }
        [pod, service] if is_numbered(pod) => Some((pod, service, None)),
        _ => None,
    }
}

/// The most useful next command, if it differs from the usual one of [`kind_of_cause`].
pub(crate) fn next_command(lookup: &Lookup, failure: &LookupFailure) -> Option<String> {
    let is_of_service = lookup.service_zone().is_some();
    if let LookupFailure::Answered { outcome, .. } = failure
        && is_of_service
        && let Some((_, target)) = dangling(lookup, decisive(lookup, outcome))
        && !is_address(&target)
    {
        return Some(format!("caller resolve {target}"));
    }
    let kind = kind_of_cause(lookup, failure);
    if let Some((_, service, Some(namespace))) =
        pod(lookup).filter(|_| kind == FailureKind::DnsNxdomain && is_of_service)
    {
        return Some(format!(
            "kubectl get endpointslices -n {namespace} -l kubernetes.io/service-name={service}"
        ));
    }
    let is_unknown = matches!(kind, FailureKind::DnsNxdomain | FailureKind::DnsNodata);
    (is_unknown && !is_of_service)
        .then(|| "kubectl get configmap -n kube-system coredns -o yaml".to_owned())
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

/// A query whose CNAME chain ends at a name without an address, and that name, if it explains this outcome.
fn dangling<'a>(lookup: &'a Lookup, outcome: &QueryOutcome) -> Option<(&'a Query, String)> {
    let is_nothing =
        |outcome: &QueryOutcome| matches!(outcome, QueryOutcome::NxDomain | QueryOutcome::NoData);
    let explains = |query: &&Query| match outcome {
        QueryOutcome::NxDomain | QueryOutcome::NoData => is_nothing(&query.outcome),
        QueryOutcome::ServFail | QueryOutcome::Refused => query.outcome == *outcome,
        _ => false,
    };
    let mut queries = lookup.queries.iter().filter(explains);
    queries.find_map(|query| Some((query, query.cnames.last()?.to_ascii())))
}

/// Whether an absolute name is an IPv4 address with a dot at its end.
fn is_address(name: &str) -> bool {
    name.trim_end_matches('.').parse::<Ipv4Addr>().is_ok()
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
                | QueryOutcome::Closed
                | QueryOutcome::Unreachable { .. }
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
        // ECONNREFUSED alone says as much as "port unreachable" from the server itself.
        let is_plain = |error: &OsError, icmp: &Icmp| {
            error.errno == Some(libc::ECONNREFUSED)
                && alike().any(|query| query.server.ip() == icmp.from)
        };
        match outcome {
            QueryOutcome::Addresses { addresses, .. } => write!(f, "{} addresses", addresses.len()),
            QueryOutcome::Unreachable {
                error,
                icmp: Some(icmp),
                ..
            } if !is_plain(error, icmp) => {
                write!(f, "unreachable ({error}, {})", super::path::icmp(*icmp))
            }
            outcome => outcome.fmt(f),
        }?;
        let tcp = match alike().find(|query| query.transport == Transport::Tcp) {
            Some(query) if is_truncated(queries, query) => " over TCP, truncated over UDP",
            Some(_) => " over TCP",
            None => "",
        };
        write!(f, " for {names} from {servers} ({types}{tcp})")
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
fn cut(text: String) -> String {
    failure::cut(text, MAX_EVIDENCE)
}
