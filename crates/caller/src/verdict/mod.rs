//! All wording of failures: the evidence, what happened, the likely cause, and the next command to run.
//! Every view takes its sentences from here, so that no two views can disagree.

pub(crate) mod dns;
mod http;
pub mod mesh;
mod next;
pub(crate) mod path;
mod some;
pub mod tls;

use std::borrow::Cow;
use std::time::Duration;

use runtime::escape::Escaped;

pub(crate) use self::next::{after_lookup, how_to_read, next_command};
pub(crate) use self::some::likely_of_some;
use crate::dns::{Host, Lookup, LookupFailure, Source};
use crate::failure::{Cause, Failure, FailureKind, Icmp, OsError, Stage};
use crate::millis::Millis;
use crate::report::{Phase, Report, Retransmissions};
use crate::stats::NotSeen;

/// Most attempts at other addresses that the evidence lists.
const MAX_OTHER_ATTEMPTS: usize = 3;

/// The evidence of a failure: names, addresses, errors, sizes and times, on one line.
pub(crate) fn evidence(report: &Report, failure: &Failure) -> String {
    if let Some((lookup, failure)) = failed_lookup(report) {
        return dns::evidence(lookup, failure);
    }
    let what = match failure.stage {
        Stage::Dns | Stage::Connect => format!("connecting: {}", unconnected(failure)),
        Stage::Tls => tls::evidence(report, failure),
        Stage::Http => http::evidence(report, failure),
    };
    let after = Millis(Some(failure.detail.after));
    let mut text = match report.address {
        // The scheme's default port is often the wrong one.
        Some(address) if failure.stage == Stage::Connect && !report.target.is_port_given => {
            format!("{address} (the URL names no port): {what} after {after}")
        }
        Some(address) => format!("{address}: {what} after {after}"),
        None => format!("{what} after {after}"),
    };
    let others = &failure.detail.other_attempts;
    for (address, failure) in others.iter().take(MAX_OTHER_ATTEMPTS) {
        text += &format!("; also {address}: {}", unconnected(failure));
    }
    if let more @ 1.. = others.len().saturating_sub(MAX_OTHER_ATTEMPTS) {
        text += &format!(" and {more} more");
    }
    // Without a connection, a call can only have retransmitted SYNs: other segments that were counted in the
    // meantime belong to other connections of this pod.
    let retransmissions = report.retransmissions.map(|seen| match failure.stage {
        Stage::Dns | Stage::Connect => Retransmissions {
            segments: 0,
            ..seen
        },
        Stage::Tls | Stage::Http => seen,
    });
    if let Some(retransmissions) = retransmissions.and_then(path::retransmissions) {
        text += &format!("; {retransmissions}");
    }
    if let Some(control) = &report.control {
        text += &format!("; the control {}", control.target);
        text += &match control.failure() {
            None => " answered".to_owned(),
            Some(failure) => format!(" failed: {}", evidence(control, failure)),
        };
    }
    text
}

/// How connecting to an address failed.
fn unconnected(failure: &Failure) -> String {
    match (&failure.detail.cause, failure.detail.icmp) {
        (Cause::Os(error), Some(icmp)) => format!("{error}, {}", path::icmp(icmp)),
        (Cause::Os(error), None) => error.to_string(),
        _ => "no answer".to_owned(),
    }
}

/// What happened, in a few words: refined by the evidence, or else the words of the failure's kind.
pub(crate) fn what(failure: &Failure) -> &'static str {
    let refined = match failure.stage {
        Stage::Dns | Stage::Connect => None,
        Stage::Tls => tls::what(failure),
        Stage::Http => http::what(failure),
    };
    refined.unwrap_or_else(|| words(failure.kind))
}

/// The likely cause: refined by the evidence, or else the usual one of the failure's kind.
pub(crate) fn likely(report: &Report, failure: &Failure) -> Cow<'static, str> {
    let refined = match failure.stage {
        // The failure of the control matters, not how the blocked connection failed.
        _ if failure.kind == FailureKind::Unproven => None,
        Stage::Connect | Stage::Tls | Stage::Http if failure.kind == FailureKind::Local => {
            match &failure.detail.cause {
                Cause::Os(error) => shortage(error).map(Cow::from),
                _ => None,
            }
        }
        Stage::Dns => {
            failed_lookup(report).map(|(lookup, failure)| dns::likely_cause(lookup, failure))
        }
        Stage::Connect => {
            let cause = connect_cause(report, failure).or_else(|| outdated_hosts(report, failure));
            or_doubtful(report, failure, cause)
        }
        Stage::Tls => or_doubtful(report, failure, tls::likely(report, failure)),
        Stage::Http => http::likely(report, failure),
    };
    let likely = refined.unwrap_or_else(|| usual_cause(failure.kind).into());
    match slow_phase(report, failure) {
        Some((phase, took, total)) => {
            let (took, total) = (Millis(Some(took)), Millis(Some(total)));
            format!(
                "{phase} took {took} of the call's {total}, and the rest was too short; or {likely}"
            )
            .into()
        }
        None => likely,
    }
}

/// The phase that took most of the time of a call that timed out in a later phase, how long it took, and how long the
/// call did.
fn slow_phase(report: &Report, failure: &Failure) -> Option<(&'static str, Duration, Duration)> {
    use FailureKind::{ConnectTimeout, ResponseTimeout};
    if !matches!(failure.kind, ConnectTimeout | ResponseTimeout)
        || failure.kind == ConnectTimeout && !failure.detail.is_cut_short
    {
        return None;
    }
    let total = report.timings[Phase::Total]?;
    let phases = [
        (Phase::Dns, "DNS"),
        (Phase::Connect, "the connection"),
        (Phase::Tls, "the TLS handshake"),
    ];
    phases.into_iter().find_map(|(phase, name)| {
        let took = report.timings[phase]?;
        (took > total / 2).then_some((name, took, total))
    })
}

/// Why a failed call does not count: see [`Report::is_of_unused_family`].
pub(crate) fn unused_family(report: &Report, failure: &Failure) -> String {
    let (own, other) = match report.address.is_some_and(|address| address.is_ipv6()) {
        true => ("IPv6", "IPv4"),
        false => ("IPv4", "IPv6"),
    };
    let evidence = evidence(report, failure);
    format!(
        "{evidence}: this pod has no {own} route to it, and programs call the name's {other} address"
    )
}

/// The lookup, if the call failed because of it.
fn failed_lookup(report: &Report) -> Option<(&Lookup, &LookupFailure)> {
    let lookup = report.lookup.as_deref()?;
    Some((lookup, lookup.outcome.as_ref().err()?))
}

/// What this pod is short of, by the error of the operating system.
fn shortage(error: &OsError) -> Option<&'static str> {
    match error.errno? {
        libc::EMFILE | libc::ENFILE => Some("this pod is short of file descriptors"),
        libc::EADDRNOTAVAIL | libc::EAGAIN => {
            Some("this pod is short of local ports for that address")
        }
        libc::ENOBUFS | libc::ENOMEM => Some("this pod is short of memory for sockets"),
        _ => None,
    }
}

/// A likely cause; before it, that the address is probably not that of the target, if that is so.
fn or_doubtful(
    report: &Report,
    failure: &Failure,
    cause: Option<Cow<'static, str>>,
) -> Option<Cow<'static, str>> {
    let Some(doubtful) = doubtful_address(report) else {
        return cause;
    };
    let cause = cause.unwrap_or_else(|| usual_cause(failure.kind).into());
    Some(format!("{doubtful}; or {cause}").into())
}

/// Why the address is probably not that of the target, if connecting to it or the TLS handshake failed. A certificate for
/// the target proves the address.
fn doubtful_address(report: &Report) -> Option<Cow<'static, str>> {
    let failure = report.failure()?;
    let rejected = report
        .tls
        .as_deref()
        .and_then(|tls| tls.rejected.as_deref());
    let is_of_address = matches!(failure.stage, Stage::Connect | Stage::Tls)
        && !matches!(failure.kind, FailureKind::Local | FailureKind::Unproven)
        && !rejected.is_some_and(|rejected| rejected.is_for_host);
    let (address, lookup) = (report.address?.ip(), report.lookup.as_deref()?);
    // If there are several addresses, the note may be about another one.
    let is_noted = lookup.unexpected_name().is_some() || address.is_unspecified();
    let note = (is_of_address && is_noted).then(|| dns::note(lookup));
    note.flatten().map(Cow::from)
}

/// The likely cause if an address from the hosts file cannot be connected to.
fn outdated_hosts(report: &Report, failure: &Failure) -> Option<Cow<'static, str>> {
    let Source::Hosts(path) = &report.lookup.as_deref()?.source else {
        return None;
    };
    let usual = usual_cause(failure.kind);
    let likely = format!(
        "an outdated address in {} (hostAliases), as DNS was not asked; or {usual}",
        path.display()
    );
    (!next::is_this_pod(&report.target.host)).then_some(likely.into())
}

/// Whether a Service's name has one address, which may be a ClusterIP. Packets to a port that the Service does not list are
/// dropped or rejected, depending on the mode of kube-proxy or on what replaces it.
fn has_one_address_of_service(report: &Report) -> bool {
    let lookup = report.lookup.as_deref();
    let lookup = lookup.filter(|lookup| lookup.source == Source::Dns);
    lookup.is_some_and(|lookup| lookup.outcome.as_ref().is_ok_and(|ips| ips.len() == 1))
        && next::is_service(report)
}

/// The likely cause of a failed connection, if the evidence shows a more specific one than that of its kind.
fn connect_cause(report: &Report, failure: &Failure) -> Option<Cow<'static, str>> {
    if failure.kind == FailureKind::ConnectRefused && next::is_this_pod(&report.target.host) {
        return Some("nothing in this pod listens at that port".into());
    }
    if failure.kind == FailureKind::ConnectRefused
        && matches!(report.target.host, Host::Address { .. })
    {
        return Some("nothing listens at that port; a Service's address without a ready endpoint refuses as well".into());
    }
    if failure.kind == FailureKind::ConnectRefused && next::is_outside(report) {
        return Some("nothing listens at that port there, or a firewall refuses".into());
    }
    if failure.kind == FailureKind::ConnectTimeout && has_one_address_of_service(report) {
        let usual = usual_cause(failure.kind);
        return Some(format!("{usual}; or the Service does not list this port").into());
    }
    let Cause::Os(OsError {
        errno: Some(errno), ..
    }) = failure.detail.cause
    else {
        return None;
    };
    // An ICMP message from the called address itself does not show which machine sent it: the address may be that
    // of a Service, which no machine has.
    let is_of_another = |icmp: &Icmp| {
        report
            .address
            .is_none_or(|address| address.ip() != icmp.from)
    };
    let icmp = failure.detail.icmp.filter(is_of_another);
    if let Some(likely) = icmp.and_then(path::likely_by_icmp) {
        return Some(likely.into());
    }
    let family = match report.address?.is_ipv6() {
        true => "IPv6",
        false => "IPv4",
    };
    match (failure.kind, errno) {
        (FailureKind::ConnectUnreachable, libc::ENETUNREACH) if failure.detail.lacks_route => {
            Some(format!("this pod has no route to it, and sent nothing: no {family} here, or the CNI plugin").into())
        }
        (FailureKind::ConnectUnreachable, libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => {
            Some(format!("this pod has no {family} address to call from").into())
        }
        (FailureKind::ConnectUnreachable, libc::EINVAL) => {
            Some("the address is of use only with a scope, or not at all, or its route is a blackhole".into())
        }
        (FailureKind::ConnectUnreachable, libc::EPERM | libc::EACCES) => {
            Some("a policy or a firewall on this side forbids it".into())
        }
        (FailureKind::Reset, _) => Some(
            "what listens there hangs up as soon as it is connected: a proxy without a backend, or a backend that refuses this client".into(),
        ),
        _ => None,
    }
}

/// Why no complete rollout was observed, as the continuation of "not seen, ".
pub(crate) fn not_replaced(why: &NotSeen) -> String {
    let list = |pods: &[String]| Escaped::new(pods.join(", ").as_bytes()).to_string();
    match why {
        NotSeen::NoBaseline => {
            "the run was too short to know the old pods: 30 calls and 3 s at least".to_owned()
        }
        NotSeen::Nameless => {
            "the answers do not say which pod they are from (X-Pod-Name)".to_owned()
        }
        NotSeen::NotBegun => "no new pod answered, and all old pods answer still".to_owned(),
        NotSeen::BegunBefore { staying, gone } => format!(
            "no new pod answered; it had begun before this run, if {} was to be replaced by {}",
            list(gone),
            list(staying)
        ),
        NotSeen::OldAnswer(pods) => format!("{} of the old pods answers still", list(pods)),
        NotSeen::NotSteady => {
            "new pods answer, but not yet 30 times in a row without a failure".to_owned()
        }
    }
}

/// A description of a kind of failure, in a few words.
pub fn words(kind: FailureKind) -> &'static str {
    table(kind).0
}

/// The most frequent cause of this kind of failure in a cluster.
pub fn usual_cause(kind: FailureKind) -> &'static str {
    table(kind).1
}

/// For each kind of failure: its description, and its usual cause.
fn table(kind: FailureKind) -> (&'static str, &'static str) {
    use FailureKind::*;
    match kind {
        ResolvConf => (
            "DNS is not configured",
            "no usable resolver configuration in this pod",
        ),
        DnsNxdomain => (
            "the name does not exist",
            "no such Service in that namespace",
        ),
        DnsNodata => (
            "the name exists without an address",
            "a headless Service with no ready pod, or the wrong IP family",
        ),
        DnsServfail => (
            "DNS could not answer",
            "cluster DNS is up but cannot answer: see its logs, its upstream and the API server",
        ),
        DnsRefused => (
            "DNS refused to answer",
            "cluster DNS is up but will not answer for this zone or this client",
        ),
        DnsTimeout => (
            "DNS did not answer in time",
            "cluster DNS is down, or egress to port 53 is blocked",
        ),
        DnsUnreachable => (
            "DNS cannot be reached",
            "nothing listens at the nameserver's address, or a policy rejects: cluster DNS has no ready pod, or egress to port 53 is forbidden",
        ),
        DnsMalformed => (
            "the answer was not DNS",
            "something else listens at the nameserver's address, or meddles on the way",
        ),
        ConnectRefused => (
            "the connection was refused",
            "no ready endpoints, or the wrong port",
        ),
        ConnectUnreachable => (
            "the address cannot be reached",
            "no route: the CNI plugin, or a policy that rejects",
        ),
        ConnectTimeout => (
            "the connection was not made in time",
            "packets dropped: a NetworkPolicy, or a dead node",
        ),
        Local => (
            "the call could not be made from here",
            "this pod is short of file descriptors, ports or memory",
        ),
        TlsHandshake => (
            "the TLS handshake failed",
            "the port does not speak TLS, or has no version or algorithm in common with this side",
        ),
        TlsUntrusted => (
            "the certificate is not trusted",
            "its issuer is not among those that are trusted here: --cacert names others",
        ),
        TlsExpired => (
            "the certificate is out of date",
            "it was not renewed, or the server has not loaded the new one",
        ),
        TlsName => (
            "the certificate is for other names",
            "the wrong Service, or a certificate without the name that is used here",
        ),
        Reset => (
            "the connection was reset",
            "the backend died or was killed mid-answer",
        ),
        EmptyReply => (
            "the connection was closed before there was an answer",
            "the backend died or was killed mid-answer, or what listens there speaks another protocol or refuses this client",
        ),
        Incomplete => (
            "the answer was cut short",
            "the backend died or was killed mid-answer",
        ),
        Protocol => (
            "the answer was not HTTP",
            "what answered does not speak HTTP: the wrong port, or one that wants TLS",
        ),
        ResponseTimeout => (
            "connected, but no answer in time",
            "the backend is overloaded or stuck",
        ),
        PathMtu => (
            "large packets are lost on the way",
            "an MTU on the way that is smaller than the interface's, as of a tunnel, and ICMP that is dropped",
        ),
        ProxyError => (
            "a proxy answered, for a backend that it could not reach",
            "the proxy could not reach the backend, or may not",
        ),
        HttpStatus => (
            "the backend answered, with an error",
            "a fault of the backend's own; the network is fine",
        ),
        BodyTooLarge => (
            "the answer is over the size limit",
            "what answered is not the backend that was meant",
        ),
        Unproven => (
            "blocked, but the control did not answer either",
            "a dead node, or a backend that does not run: this proves no policy",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{
        Cause, Failure, FailureKind, Lookup, LookupFailure, OsError, Phase, Report, Source, Stage,
        likely,
    };
    use crate::dns::{ConfSource, GaiError, QueryOutcome};
    use crate::report::Outcome;

    fn timed_out(phase: Phase, took: Duration) -> String {
        let failure = Failure::new(
            Stage::Http,
            FailureKind::ResponseTimeout,
            Cause::Timeout,
            Duration::from_secs(5) - took,
        );
        let mut report = Report::of_outcome(Outcome::Failed(failure.clone(), None));
        report.timings[phase] = Some(took);
        report.timings[Phase::Total] = Some(Duration::from_secs(5));
        likely(&report, &failure).into_owned()
    }

    #[test]
    fn a_phase_that_took_most_of_a_call_that_timed_out_is_named() {
        assert_eq!(
            timed_out(Phase::Dns, Duration::from_millis(3800)),
            "DNS took 3800.0ms of the call's 5000.0ms, and the rest was too short; or the backend is overloaded or stuck"
        );
        for (phase, words) in [
            (Phase::Connect, "the connection took "),
            (Phase::Tls, "the TLS handshake took "),
        ] {
            assert!(timed_out(phase, Duration::from_secs(3)).starts_with(words));
        }
        assert_eq!(
            timed_out(Phase::Dns, Duration::from_millis(20)),
            "the backend is overloaded or stuck"
        );
    }

    #[test]
    fn an_attempt_to_connect_that_had_all_its_time_was_not_cut_short_by_dns() {
        let kind = FailureKind::ConnectTimeout;
        let mut failure = Failure::new(Stage::Connect, kind, Cause::Timeout, Duration::ZERO);
        let mut report = Report::of_outcome(Outcome::Failed(failure.clone(), None));
        report.timings[Phase::Dns] = Some(Duration::from_millis(2300));
        report.timings[Phase::Total] = Some(Duration::from_millis(4300));
        assert_eq!(likely(&report, &failure), super::usual_cause(kind));
        failure.detail.is_cut_short = true;
        assert!(likely(&report, &failure).starts_with("DNS took 2300.0ms of the call's 4300.0ms"));
    }

    #[test]
    fn packets_to_the_one_address_of_a_service_may_be_lost_for_want_of_the_port() {
        let kind = FailureKind::ConnectTimeout;
        let failure = Failure::new(Stage::Connect, kind, Cause::Timeout, Duration::ZERO);
        let likely_at = |ips: &[[u8; 4]]| {
            let mut report = Report::of_outcome(Outcome::Failed(failure.clone(), None));
            let files = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(
                files.path(),
                "nameserver 10.96.0.10\nsearch demo.svc.cluster.local\n",
            )
            .expect("it can be written");
            let source = ConfSource {
                path: files.path().to_owned(),
                nameservers: Vec::new(),
            };
            report.lookup = Some(Arc::new(Lookup {
                conf: Some(source.read().expect("a configuration")),
                answered: "backend.demo.svc.cluster.local.".parse().ok(),
                outcome: Ok(ips.iter().map(|&ip| ip.into()).collect()),
                ..lookup()
            }));
            likely(&report, &failure).into_owned()
        };
        let usual = super::usual_cause(kind);
        let of_cluster_ip = format!("{usual}; or the Service does not list this port");
        assert_eq!(likely_at(&[[10, 96, 0, 7]]), of_cluster_ip);
        assert_eq!(likely_at(&[[10, 0, 0, 7], [10, 0, 1, 7]]), usual);
    }

    fn lookup() -> Lookup {
        Lookup {
            name: "backend".to_owned(),
            source: Source::Dns,
            conf: None,
            queries: Vec::new(),
            answered: None,
            duration: Duration::ZERO,
            outcome: Ok(Vec::new()),
        }
    }

    #[test]
    fn what_this_pod_is_short_of_is_told_by_the_error() {
        for (errno, expected) in [
            (libc::EMFILE, "this pod is short of file descriptors"),
            (libc::ENFILE, "this pod is short of file descriptors"),
            (libc::ENOBUFS, "this pod is short of memory for sockets"),
            (
                libc::EADDRNOTAVAIL,
                "this pod is short of local ports for that address",
            ),
            (libc::EIO, super::usual_cause(FailureKind::Local)),
        ] {
            let error = OsError::from(&std::io::Error::from_raw_os_error(errno));
            let cause = Cause::Os(error.clone());
            let failure = Failure::new(Stage::Connect, FailureKind::Local, cause, Duration::ZERO);
            let report = Report::of_outcome(Outcome::Failed(failure.clone(), None));
            assert_eq!(likely(&report, &failure), expected);

            let failure = LookupFailure::Answered {
                outcome: QueryOutcome::Local(error),
                glibc: GaiError::Again,
            };
            assert_eq!(super::dns::likely_cause(&lookup(), &failure), expected);
        }
    }
}
