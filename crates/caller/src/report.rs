//! Result of one call. Every view (the log, the metrics, the summary, the exit code) is made of this.

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

/// One call: what was called, how long each phase took, and how it ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was called.
    pub target: Arc<Target>,
    /// What the call was expected to come to.
    pub expectation: Expectation,
    /// When the round that this call belongs to began.
    pub started: SystemTime,
    /// The lookup of the target's name, shared by the calls of a round. `None` where there was nothing
    /// to look up.
    pub lookup: Option<Arc<Lookup>>,
    /// Sent as `X-Request-Id`, so that the backend's log can be matched.
    pub request_id: String,
    /// What was connected to; for a Service that is the ClusterIP. `None`: it did not come to that.
    pub address: Option<SocketAddr>,
    /// How and why the address was called, if it is one of a sample.
    pub sampled: Option<Sampled>,
    /// The address and port that the call was made from, where a connection was made.
    pub local: Option<SocketAddr>,
    /// How long each phase took.
    pub timings: Timings,
    /// What TCP had to send again meanwhile, where that was looked at and was something.
    pub resent: Option<Resent>,
    /// What TLS showed, where it came to that.
    pub tls: Option<Arc<Tls>>,
    /// The call of the control in the same round, where this one was blocked as expected.
    pub control: Option<Arc<Report>>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a call ended: with a connection or a response that is a success, or with a failure, which may have a
/// response as well (an error status, a body that broke off).
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The connection was made, and there is nothing to ask on it: `tcp://`.
    Connected,
    /// The response is what was expected.
    Answered(Response),
    /// The call failed.
    Failed(Failure, Option<Response>),
}

/// A response, as far as it is kept.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: StatusCode,
    /// `X-Pod-Name`, where the backend says it.
    pub pod: Option<String>,
    /// `X-Node-Name`, where the backend says it.
    pub node: Option<String>,
    /// `X-Peer-Address`: who the backend took the caller for.
    pub peer_address: Option<SocketAddr>,
    /// `X-Listen-Overflows`: attempts to connect that the backend's full accept queue has dropped since it
    /// started. Our own says so where it is asked.
    pub listen_overflows: Option<u64>,
    /// Bytes of `X-Request-Id` that came back.
    pub echoed: usize,
    /// `Location`, of a redirect.
    pub location: Option<String>,
    /// The proxy that made up this response itself, as far as its headers and its body tell.
    pub proxy: Option<Proxy>,
    /// The exchange as it was on the wire, where that is kept.
    pub wire: Option<Box<Wire>>,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// The length of the body that was read, in bytes.
    pub body_len: u64,
}

/// An HTTP/1 exchange as it was on the wire, without the body.
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
    /// Its name, such as `Envoy`, or what is known of it.
    pub name: &'static str,
    /// The header fields that give it away, as `name: value`.
    pub headers: Vec<String>,
}

/// What TCP sent again in this pod while a call was under way. Counted for the pod as a whole: see
/// [`runtime::tcp_counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resent {
    /// SYNs.
    pub syns: u64,
    /// Other segments.
    pub segments: u64,
    /// Whether another call was under way, which it may have been for.
    pub is_shared: bool,
}

/// Who the backend takes the caller for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The address that it has: nothing on the way translates it.
    Unchanged,
    /// Another: there is NAT on the way, and policies there see this one.
    Translated(SocketAddr),
    /// The backend's own pod: a sidecar or a proxy there has made the connection that the backend saw.
    Proxied(SocketAddr),
}

/// What was found of the way to an address, beyond what the call itself says.
#[derive(Clone, Debug, Default)]
pub struct Path {
    /// The MTU of the interface that the call went out of, in bytes.
    pub interface_mtu: Option<u32>,
    /// How much has passed in one piece.
    pub passed: Option<Passed>,
    /// What is too large, where small packets pass.
    pub hole: Option<Hole>,
    /// Who was asked, and how many attempts to connect its full accept queue has dropped.
    pub overflows: Option<(String, u64)>,
    /// The hops that answered, where packets are dropped.
    pub hops: Option<Hops>,
    /// The call that failed because it was large, where those that are small succeed.
    pub failed: Option<Box<Report>>,
}

/// Sizes that are known to pass, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// So much each way.
    BothWays(u64),
    /// An answer with so long a body.
    Answer(u64),
}

/// Where connections with a bounded number of hops end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hops {
    /// The farthest hop that answered: its number, and its address.
    pub last: Option<(u8, IpAddr)>,
    /// How many were tried.
    pub tried: u8,
}

/// What a server showed of itself in a TLS handshake.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The version, such as `TLSv1.3`; `None` if the handshake did not end.
    pub version: Option<&'static str>,
    /// The protocol that was agreed on (ALPN).
    pub protocol: Option<String>,
    /// The certificate, as far as it could be read.
    pub certificate: Option<Certificate>,
    /// Whether the certificate was verified and accepted.
    pub is_verified: bool,
    /// Whether it asked for a certificate of the client's.
    pub wants_certificate: bool,
}

/// A server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is, such as `CN=kubernetes`.
    pub subject: String,
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// Whether the issuer is the subject itself.
    pub is_self_signed: bool,
    /// The beginning of its validity.
    pub not_before: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
}

/// A part of a call's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// From the name to its addresses.
    Dns,
    /// The TCP handshake.
    Connect,
    /// The TLS handshake.
    Tls,
    /// From the connection to the head of the response.
    FirstByte,
    /// From the beginning to the last byte, or to the failure.
    Total,
}

impl Phase {
    /// Every phase, in the order of time.
    pub const ALL: [Self; 5] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::FirstByte,
        Self::Total,
    ];

    /// The phases that a call by this scheme can have.
    pub fn of(scheme: Scheme) -> &'static [Self] {
        match scheme {
            Scheme::Http => &[Self::Dns, Self::Connect, Self::FirstByte, Self::Total],
            Scheme::Https => &Self::ALL,
            Scheme::Tcp => &[Self::Dns, Self::Connect, Self::Total],
        }
    }

    /// The word for metrics, JSON and text.
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

/// How long each phase took; `None` for one that was not reached.
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
    /// Each phase with its duration, in the order of time.
    pub fn iter(&self) -> impl Iterator<Item = (Phase, Option<Duration>)> {
        Phase::ALL.into_iter().map(|phase| (phase, self[phase]))
    }
}

impl Outcome {
    /// Why the call failed, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Connected | Self::Answered(_) => None,
            Self::Failed(failure, _) => Some(failure),
        }
    }

    /// The response, if one came.
    pub fn response(&self) -> Option<&Response> {
        match self {
            Self::Connected => None,
            Self::Answered(response) => Some(response),
            Self::Failed(_, response) => response.as_ref(),
        }
    }
}

impl Report {
    /// Takes into account how long the connection was tried, for a call that was blocked as expected: one that was
    /// given up early, because the time for the whole call was over, proves nothing.
    pub(crate) fn judge_by_time(&mut self, enough: Duration) {
        if let Outcome::Failed(failure, _) = &mut self.outcome
            && failure.kind == FailureKind::ConnectTimeout
            && matches!(failure.detail.cause, Cause::Timeout)
            && failure.detail.after < enough
        {
            failure.kind = FailureKind::Unproven;
        }
    }

    /// Takes the control into account, for a call that was blocked as expected: if the control failed as
    /// well, that proves nothing.
    pub(crate) fn judge_by(&mut self, control: Arc<Self>) {
        if let Outcome::Failed(failure, _) = &mut self.outcome
            && !control.is_ok()
        {
            failure.kind = FailureKind::Unproven;
        }
        self.control = Some(control);
    }

    /// Makes of a call that was not answered in time one whose packets were too large.
    pub(crate) fn is_lost_in(&mut self, hole: Hole) {
        if let Outcome::Failed(failure, _) = &mut self.outcome
            && failure.kind == FailureKind::ResponseTimeout
        {
            failure.kind = FailureKind::PathMtu;
            failure.detail.hole = Some(hole);
        }
    }

    /// Why the call failed, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        self.outcome.failure()
    }

    /// The response, if one came.
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

    /// Who the backend took the caller for, where it says so.
    pub fn source(&self) -> Option<Source> {
        let seen = self.response()?.peer_address?;
        let local = self.local?.ip();
        Some(match seen.ip() {
            ip if ip == local => Source::Unchanged,
            ip if ip.is_loopback() => Source::Proxied(seen),
            _ => Source::Translated(seen),
        })
    }

    /// Whether the call came to what was expected of it.
    pub fn is_as_expected(&self) -> bool {
        self.expectation.allows(self.kind())
            && (self.expectation != Expectation::Blocked || self.is_blocked())
    }

    /// The exit code for this call: 0 as expected; else its kind's, or 1 if it succeeded, or was blocked in a way
    /// that no policy is.
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            _ if self.is_as_expected() => 0,
            Some(kind) => kind.exit_code(),
            None => 1,
        }
    }

    /// Whether something on the way kept it from connecting, and not this pod, for want of an address to call from.
    fn is_blocked(&self) -> bool {
        let Some(failure) = self.failure() else {
            return false;
        };
        let is_ours = match &failure.detail.cause {
            Cause::Os(error) => matches!(
                error.errno,
                Some(libc::EINVAL | libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
            ),
            _ => false,
        };
        failure.stage == Stage::Connect && !is_ours
    }

    /// `ok`, or the label of the kind of failure: the word for metrics and JSON.
    pub fn result(&self) -> &'static str {
        self.kind().map_or("ok", FailureKind::label)
    }

    /// Who answered: the pod, or where the backend does not say, the address. `None`: nobody.
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
    /// A response with this status, and without anything else.
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
    /// A call that ended in this way, and of which nothing else is known.
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
            resent: None,
            tls: None,
            control: None,
            outcome,
        }
    }
}
