//! What one call came to. Every view (the log, the summary, the exit code) is made of this.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use runtime::escape::Escaped;

use crate::dns::{self, Lookup};

/// One call.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it began.
    pub started: Timestamp,
    /// Sent as `X-Request-Id`, so that the backend's log can be matched.
    pub request_id: String,
    /// `None`: the URL has a literal address.
    pub lookup: Option<Arc<Lookup>>,
    /// What was called; for a Service that is the ClusterIP. `None`: it did not come to that.
    pub address: Option<SocketAddr>,
    /// Where the time went.
    pub phases: Phases,
    /// The answer, if one came: with [`Kind::HttpStatus`] there is an answer *and* a failure.
    pub answer: Option<Answer>,
    /// Why the call failed, if it did.
    pub failure: Option<Failure>,
}

/// Where the time of a call went. A phase that was not reached is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// From the name to its addresses.
    pub dns: Option<Duration>,
    /// The TCP handshake.
    pub connect: Option<Duration>,
    /// From the connection to the head of the answer.
    pub first_byte: Option<Duration>,
    /// From the beginning to the last byte, or to the failure.
    pub total: Duration,
}

impl Phases {
    /// Each phase with its name, in the order of time.
    pub fn named(&self) -> [(&'static str, Option<Duration>); 4] {
        let Self {
            dns,
            connect,
            first_byte,
            total,
        } = *self;
        [
            ("dns", dns),
            ("connect", connect),
            ("first_byte", first_byte),
            ("total", Some(total)),
        ]
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `X-Pod-Name`, where the backend says.
    pub pod: Option<String>,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// The length of the whole body, in bytes.
    pub body_len: u64,
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// In one word.
    pub kind: Kind,
    /// What was seen: names, addresses, errors, times.
    pub evidence: String,
}

impl Report {
    /// Whether the call did what it was to do.
    pub fn is_ok(&self) -> bool {
        self.failure.is_none()
    }

    /// `ok`, or the kind of failure: the word for metrics and JSON.
    pub fn result(&self) -> &'static str {
        self.failure.as_ref().map_or("ok", |f| f.kind.label())
    }

    /// Who answered: the pod, or where the backend does not say, the address. `None`: nobody.
    pub fn backend(&self) -> Option<String> {
        let answer = self.answer.as_ref()?;
        match (&answer.pod, self.address) {
            (Some(pod), _) => Some(Escaped::new(pod.as_bytes()).to_string()),
            (None, address) => address.map(|address| address.to_string()),
        }
    }
}

impl From<dns::Failure> for Failure {
    fn from(failure: dns::Failure) -> Self {
        Self {
            kind: failure.kind.into(),
            evidence: failure.evidence,
        }
    }
}

/// Declares the kinds once: variant, label, exit code, what happened, what is the likely cause.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident: $label:literal, $exit:literal, $words:literal, $cause:literal;)*) => {
        /// Why a call failed, in one word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// Every kind, in the order in which a call can meet them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for metrics and JSON.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// curl's exit code for it (<https://curl.se/libcurl/c/libcurl-errors.html>).
            pub fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $exit,)* }
            }

            /// What happened, in words.
            pub fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }

            /// What is most often behind it, in a cluster.
            pub fn likely_cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)* }
            }
        }
    };
}

kinds! {
    /// No resolver configuration.
    ResolvConf: "resolv_conf", 6, "DNS is not configured",
        "no usable resolver configuration in this pod";
    /// NXDOMAIN.
    DnsNxdomain: "dns_nxdomain", 6, "the name does not exist",
        "no such Service in that namespace";
    /// NODATA.
    DnsNodata: "dns_nodata", 6, "the name exists without an address",
        "a headless Service with no ready pod, or the wrong IP family";
    /// SERVFAIL and its like.
    DnsServfail: "dns_servfail", 6, "DNS could not answer",
        "cluster DNS is up but cannot answer: see its logs, its upstream and the API server";
    /// REFUSED.
    DnsRefused: "dns_refused", 6, "DNS refused to answer",
        "cluster DNS is up but will not answer for this zone or this client";
    /// Silence from DNS.
    DnsTimeout: "dns_timeout", 6, "DNS did not answer in time",
        "cluster DNS is down, or egress to port 53 is blocked";
    /// No DNS server there.
    DnsUnreachable: "dns_unreachable", 6, "DNS cannot be reached",
        "nothing listens at the nameserver's address, or a policy rejects: cluster DNS has no ready pod, or egress to port 53 is forbidden";
    /// Not DNS.
    DnsMalformed: "dns_malformed", 6, "the answer was not DNS",
        "something else listens at the nameserver's address, or meddles on the way";
    /// ECONNREFUSED.
    ConnectRefused: "connect_refused", 7, "the connection was refused",
        "no ready endpoints, or the wrong port";
    /// EHOSTUNREACH, ENETUNREACH and their like.
    ConnectUnreachable: "connect_unreachable", 7, "the address cannot be reached",
        "no route: the CNI plugin, or a policy that rejects";
    /// No handshake in time.
    ConnectTimeout: "connect_timeout", 28, "the connection was not made in time",
        "packets dropped: a NetworkPolicy, or a dead node";
    /// Neither the network nor the backend: this side.
    Local: "local", 7, "the call could not be made from here",
        "this pod is short of file descriptors, ports or memory";
    /// RST.
    Reset: "reset", 56, "the connection was reset",
        "the backend died or was killed mid-answer";
    /// FIN in place of an answer.
    EmptyReply: "empty_reply", 52, "the connection was closed before there was an answer",
        "the backend died or was killed mid-answer";
    /// FIN in the middle of an answer.
    Incomplete: "incomplete", 18, "the answer was cut short",
        "the backend died or was killed mid-answer";
    /// Not HTTP.
    Protocol: "protocol", 8, "the answer was not HTTP",
        "what answered does not speak HTTP: the wrong port, or one that wants TLS";
    /// Connected, then silence.
    ResponseTimeout: "response_timeout", 28, "connected, but no answer in time",
        "the backend is overloaded or stuck";
    /// An error status.
    HttpStatus: "http_status", 22, "the backend answered, with an error",
        "a fault of the backend's own; the network is fine";
    /// An endless body.
    BodyTooLarge: "body_too_large", 63, "the answer is over the size limit",
        "what answered is not the backend that was meant";
}

impl Kind {
    /// Whether no connection was made, so that another address may do better.
    pub fn is_before_connection(self) -> bool {
        self <= Self::Local
    }
}

impl FromStr for Kind {
    type Err = ParseKindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut kinds = Self::ALL.iter().copied();
        kinds
            .find(|kind| kind.label() == text)
            .ok_or(ParseKindError)
    }
}

/// The text is not the label of a kind.
#[derive(Debug, thiserror::Error)]
#[error("not the label of a kind of failure")]
pub struct ParseKindError;

impl From<dns::FailureKind> for Kind {
    fn from(kind: dns::FailureKind) -> Self {
        match kind {
            dns::FailureKind::NoConf => Self::ResolvConf,
            dns::FailureKind::NxDomain => Self::DnsNxdomain,
            dns::FailureKind::NoData => Self::DnsNodata,
            dns::FailureKind::ServFail => Self::DnsServfail,
            dns::FailureKind::Refused => Self::DnsRefused,
            dns::FailureKind::Timeout => Self::DnsTimeout,
            dns::FailureKind::Unreachable => Self::DnsUnreachable,
            dns::FailureKind::Malformed => Self::DnsMalformed,
            dns::FailureKind::Local => Self::Local,
        }
    }
}
