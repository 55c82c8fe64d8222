//! Words for failures: what happened, what is the likely cause, what to run next. Every view takes them
//! from here.

pub mod dns;

use crate::failure::FailureKind;

/// What happened, in a few words.
pub fn words(kind: FailureKind) -> &'static str {
    table(kind).0
}

/// What is most often behind a failure of this kind in a cluster.
pub fn usual_cause(kind: FailureKind) -> &'static str {
    table(kind).1
}

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
        Reset => (
            "the connection was reset",
            "the backend died or was killed mid-answer",
        ),
        EmptyReply => (
            "the connection was closed before there was an answer",
            "the backend died or was killed mid-answer",
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
    }
}
