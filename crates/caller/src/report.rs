//! Result of one call. All views (the log, the metrics, the summary, the exit code) are derived from it.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use runtime::escape::Escaped;

use crate::dns::Lookup;
use crate::expectation::Expectation;
use crate::failure::{Cause, Failure, FailureKind, Hole, Stage};
use crate::mesh::sample::Sampled;
use crate::target::{Scheme, Target};

/// Report of one call: what was called, how long each phase took, and the result.
#[derive(Clone, Debug)]
pub struct Report {
    /// The target that was called.
    pub target: Arc<Target>,
    /// The expected result of the call.
    pub expectation: Expectation,
    /// When the round that this call belongs to started.
    pub started: SystemTime,
    /// The lookup of the target's name, shared by the calls of a round; `None` if the target is an IP
    /// address.
    pub lookup: Option<Arc<Lookup>>,
    /// The value sent as `X-Request-Id`, with which the call can be found in the backend's log.
    pub request_id: String,
    /// The address that was called, which for a Service is the ClusterIP; `None` if no address was found.
    pub address: Option<SocketAddr>,
    /// How and why the address was chosen, if the addresses are sampled.
    pub sampled: Option<Sampled>,
    /// Local address and port of the connection, if one was made.
    pub local: Option<SocketAddr>,
    /// How long each phase took.
    pub timings: Timings,
    /// TCP retransmissions during the call, if any were counted.
    pub retransmissions: Option<Retransmissions>,
    /// Version, protocol and certificate of the TLS handshake, if there was one.
    pub tls: Option<Arc<Tls>>,
    /// The call of the control in the same round, if this call was blocked as expected.
    pub control: Option<Arc<Report>>,
    /// The result of the call.
    pub outcome: Outcome,
}

/// Result of a call: a connection or a response that is a success, or a failure, which may include a response
/// as well (an error status, or an incomplete body).
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The connection was made, and nothing is sent on it: `tcp://`.
    Connected,
    /// The response has a status that counts as a success.
    Answered(Response),
    /// The call failed, with this response, if one was received.
    Failed(Failure, Option<Response>),
}

/// The parts of a response that are kept.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status of the response.
    pub status: StatusCode,
    /// `X-Pod-Name`: name of the pod that responded.
    pub pod: Option<String>,
    /// `X-Node-Name`: name of the node that this pod runs on.
    pub node: Option<String>,
    /// `X-Peer-Address`: source address of the connection as the backend saw it.
    pub peer_address: Option<SocketAddr>,
    /// `X-Listen-Overflows`: number of connection attempts that were dropped since the backend started
    /// because its accept queue was full. echo-server sends it on request.
    pub listen_overflows: Option<u64>,
    /// Length of the `X-Request-Id` that the response contains, in bytes.
    pub echoed: usize,
    /// `Location`: target of a redirect.
    pub location: Option<String>,
    /// The proxy that generated this response, if its header fields or its body show one.
    pub proxy: Option<Proxy>,
    /// The request and the response's head as sent on the wire, if they are kept.
    pub wire: Option<Box<Wire>>,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// Number of body bytes that were received.
    pub body_len: u64,
}

/// An HTTP/1 request and response as sent on the wire, without the body.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The head of the request.
    pub request: Vec<u8>,
    /// The head of the response.
    pub head: Vec<u8>,
}

/// A proxy, a sidecar or a load balancer between the caller and the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its name, such as `Envoy`, or a description, such as `a gateway`.
    pub name: &'static str,
    /// The header fields that identify it, as `name: value`.
    pub headers: Vec<String>,
    /// Whether it may have passed on a response of the backend's: it puts its name on those as well.
    pub may_pass_on: bool,
}

/// TCP retransmissions in this pod during a call. They are counted for the pod as a whole: see
/// [`runtime::tcp_counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmissions {
    /// Number of SYNs that were sent again.
    pub syns: u64,
    /// Number of other segments that were sent again.
    pub segments: u64,
    /// Whether another call was running, to which the retransmissions may belong.
    pub is_shared: bool,
}

/// The source address that the backend sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The caller's own address: nothing on the path translates it.
    Unchanged,
    /// Another address: there is NAT on the path, and network policies see this address.
    Translated(SocketAddr),
    /// A loopback address of the backend's pod: a sidecar or a proxy there made the connection that the
    /// backend saw.
    Proxied(SocketAddr),
}

/// Test results of the network path to an address, beyond the report of the call itself.
#[derive(Clone, Debug, Default)]
pub struct Path {
    /// MTU of the interface that the call was sent from, in bytes.
    pub interface_mtu: Option<u32>,
    /// The message size that passed without loss, if it was tested.
    pub passed: Option<Passed>,
    /// The packet size limit of the path, if small packets pass and large ones are lost.
    pub hole: Option<Hole>,
    /// The backend that was asked, and how many connection attempts its full accept queue has dropped.
    pub overflows: Option<(String, u64)>,
    /// The hops that responded, if packets are dropped.
    pub hops: Option<Hops>,
    /// The call that failed because its packets were too large, while small ones pass.
    pub failed: Option<Box<Report>>,
}

/// Message size that passed, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// A request and a response of this size each.
    BothWays(u64),
    /// A response with a body of this size.
    Answer(u64),
}

/// Result of connection attempts with an increasing time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hops {
    /// Number and address of the farthest hop that responded.
    pub last: Option<(u8, IpAddr)>,
    /// Number of hops that were tested.
    pub tried: u8,
}

/// Version, protocol and certificate of a TLS handshake.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The TLS version, such as `TLSv1.3`; `None` if the handshake was not completed.
    pub version: Option<&'static str>,
    /// The negotiated application protocol (ALPN, RFC 7301).
    pub protocol: Option<String>,
    /// The server's certificate, if it was received and could be parsed.
    pub certificate: Option<Certificate>,
    /// Whether the certificate was verified and accepted.
    pub is_verified: bool,
    /// Whether the server requested a client certificate.
    pub wants_certificate: bool,
    /// Whether the server was told the host name of the target (SNI, RFC 6066, section 3).
    pub is_name_sent: bool,
    /// Why the certificate was not accepted, beyond the error itself; `None` if it was accepted.
    pub rejected: Option<Box<Rejected>>,
}

/// Evidence about a certificate that was not accepted, and about the chain that it was sent with.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Whether the certificate is for the host of the target.
    pub is_for_host: bool,
    /// The issuer of the last certificate of the chain that the server sent, in the form of a subject; `None` if it did
    /// not send the certificate of the first issuer.
    pub last_issuer: Option<String>,
    /// The certificate of an issuer because of which the chain is out of date, and where it is from.
    pub outdated_issuer: Option<(IssuerSource, Certificate)>,
}

/// Where the certificate of an issuer is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerSource {
    /// The server sent it along with its own.
    Sent,
    /// It is among the trusted ones.
    Trusted,
}

/// The fields of a server's certificate that are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject, such as `CN=kubernetes`.
    pub subject: String,
    /// The host names, IP addresses and URIs in its subjectAltName. `DNS:` is before an address that is there as a host
    /// name.
    pub names: Vec<String>,
    /// The issuer, in the form of the subject.
    pub issuer: String,
    /// Whether issuer and subject are the same.
    pub is_self_signed: bool,
    /// Time from which the certificate is valid.
    pub not_before: SystemTime,
    /// Time at which the certificate expires.
    pub not_after: SystemTime,
}

/// A phase of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The lookup of the name.
    Dns,
    /// The TCP handshake, from the SYN to the established connection.
    Connect,
    /// The TLS handshake, and the verification of the certificate.
    Tls,
    /// From sending the request to the end of the response's head.
    FirstByte,
    /// The whole call, up to the last byte or the failure.
    Total,
}

impl Phase {
    /// All phases, in chronological order.
    pub const ALL: [Self; 5] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::FirstByte,
        Self::Total,
    ];

    /// The phases that a call with this scheme can have.
    pub fn of(scheme: Scheme) -> &'static [Self] {
        match scheme {
            Scheme::Http => &[Self::Dns, Self::Connect, Self::FirstByte, Self::Total],
            Scheme::Https => &Self::ALL,
            Scheme::Tcp => &[Self::Dns, Self::Connect, Self::Total],
        }
    }

    /// The name in metrics, JSON and text.
    pub fn label(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::FirstByte => "first_byte",
            Self::Total => "total",
        }
    }
}

/// Duration of each phase; `None` for a phase that was not completed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings([Option<Duration>; Phase::ALL.len()]);

impl Index<Phase> for Timings {
    type Output = Option<Duration>;

    fn index(&self, phase: Phase) -> &Option<Duration> {
        &self.0[phase as usize]
    }
}

impl IndexMut<Phase> for Timings {
    fn index_mut(&mut self, phase: Phase) -> &mut Option<Duration> {
        &mut self.0[phase as usize]
    }
}

impl Timings {
    /// Each phase with its duration, in chronological order.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, Option<Duration>)> {
        Phase::ALL.into_iter().map(|phase| (phase, self[phase]))
    }
}

impl Outcome {
    /// The failure, if the call failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Connected | Self::Answered(_) => None,
            Self::Failed(failure, _) => Some(failure),
        }
    }

    /// The response, if one was received.
    pub fn response(&self) -> Option<&Response> {
        match self {
            Self::Connected => None,
            Self::Answered(response) => Some(response),
            Self::Failed(_, response) => response.as_ref(),
        }
    }
}

impl Report {
    /// Makes a blocked call unproven if the attempt to connect was shorter than `min_attempt`, because the
    /// timeout of the whole call ended it early: that does not prove that packets are dropped.
    pub(crate) fn require_duration(&mut self, min_attempt: Duration) {
        if let Outcome::Failed(failure, _) = &mut self.outcome
            && failure.kind == FailureKind::ConnectTimeout
            && matches!(failure.detail.cause, Cause::Timeout)
            && failure.detail.after < min_attempt
        {
            failure.kind = FailureKind::Unproven;
        }
    }

    /// Adds the call of the control to a blocked call, which becomes unproven if the control failed as well.
    pub(crate) fn apply_control(&mut self, control: Arc<Self>) {
        if let Outcome::Failed(failure, _) = &mut self.outcome
            && !control.is_ok()
        {
            failure.kind = FailureKind::Unproven;
        }
        self.control = Some(control);
    }

    /// If the call timed out without a response, changes its failure to [`FailureKind::PathMtu`]: its packets were
    /// too large for the path.
    pub(crate) fn reclassify_as_path_mtu(&mut self, hole: Hole) {
        if let Outcome::Failed(failure, _) = &mut self.outcome
            && failure.kind == FailureKind::ResponseTimeout
        {
            failure.kind = FailureKind::PathMtu;
            failure.detail.hole = Some(hole);
        }
    }

    /// The failure, if the call failed.
    pub fn failure(&self) -> Option<&Failure> {
        self.outcome.failure()
    }

    /// The response, if one was received.
    pub fn response(&self) -> Option<&Response> {
        self.outcome.response()
    }

    /// The category of the failure, if the call failed.
    pub fn kind(&self) -> Option<FailureKind> {
        self.failure().map(|failure| failure.kind)
    }

    /// Whether the call was a success.
    pub fn is_ok(&self) -> bool {
        self.failure().is_none()
    }

    /// The source address that the backend saw; `None` if the response does not contain it.
    pub fn source(&self) -> Option<Source> {
        let seen = self.response()?.peer_address?;
        let local = self.local?.ip();
        Some(match seen.ip() {
            ip if ip == local => Source::Unchanged,
            ip if ip.is_loopback() => Source::Proxied(seen),
            _ => Source::Translated(seen),
        })
    }

    /// Whether the result is as expected.
    pub fn is_as_expected(&self) -> bool {
        self.expectation.allows(self.kind())
            && (self.expectation != Expectation::Blocked || self.is_blocked())
    }

    /// Exit code for this call: 0 if the result is as expected; otherwise that of its kind of failure. It is
    /// 1 if the call succeeded but should not have.
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            _ if self.is_as_expected() => 0,
            Some(kind) => kind.exit_code(),
            None => 1,
        }
    }

    /// Whether the connection attempt failed, and not because this pod has no route to the destination.
    fn is_blocked(&self) -> bool {
        let is_blocked =
            |failure: &Failure| failure.stage == Stage::Connect && !failure.detail.lacks_route;
        self.failure().is_some_and(is_blocked)
    }

    /// Whether this pod has a route to no address of the same family, but to one of the other family: programs call that
    /// one. `calls` are the calls of all addresses.
    pub(crate) fn is_of_unused_family(&self, calls: &[Self]) -> bool {
        let has_route = |call: &&Self| {
            call.failure()
                .is_none_or(|failure| !failure.detail.lacks_route)
        };
        let mut routed = calls
            .iter()
            .filter(has_route)
            .filter_map(|call| call.address)
            .peekable();
        let is_ipv6 = self.address.is_some_and(|address| address.is_ipv6());
        routed.peek().is_some() && routed.all(|address| address.is_ipv6() != is_ipv6)
    }

    /// `ok`, or the label of the kind of failure: the value of `result` in metrics and JSON.
    pub fn result(&self) -> &'static str {
        self.kind().map_or("ok", FailureKind::label)
    }

    /// The name of the pod that responded, or its address if the response does not name the pod; `None` if
    /// there was no response.
    pub fn backend(&self) -> Option<String> {
        let pod = match &self.outcome {
            Outcome::Answered(response) | Outcome::Failed(_, Some(response)) => &response.pod,
            Outcome::Connected => &None,
            Outcome::Failed(_, None) => return None,
        };
        match (pod, self.address) {
            (Some(pod), _) => Some(Escaped::new(pod.as_bytes()).to_string()),
            (None, address) => address.map(|address| address.to_string()),
        }
    }
}

#[cfg(test)]
impl Response {
    /// A response with this status, and nothing else.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        Self {
            status,
            pod: None,
            node: None,
            peer_address: None,
            listen_overflows: None,
            echoed: 0,
            location: None,
            proxy: None,
            wire: None,
            body: Vec::new(),
            body_len: 0,
        }
    }
}

#[cfg(test)]
impl Report {
    /// The report of a call with this result, and nothing else.
    pub(crate) fn of_outcome(outcome: Outcome) -> Self {
        Self {
            target: Arc::new("backend".parse().expect("a target")),
            expectation: Expectation::Ok,
            started: SystemTime::UNIX_EPOCH,
            lookup: None,
            request_id: String::new(),
            address: None,
            sampled: None,
            local: None,
            timings: Timings::default(),
            retransmissions: None,
            tls: None,
            control: None,
            outcome,
        }
    }
}
