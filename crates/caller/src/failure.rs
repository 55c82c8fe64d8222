//! Why a call failed: the stage it had reached, the kind of failure, and the evidence, all of it data.
//! The words for them are in [`crate::verdict`].

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// A step of a call, in the order in which a call takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// From the name to its addresses.
    Dns,
    /// The TCP connection. A failure here says nothing about the other addresses of the name.
    Connect,
    /// The TLS handshake, and the verification of the certificate.
    Tls,
    /// The request and its response.
    Http,
}

impl Stage {
    /// The word for JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Http => "http",
        }
    }
}

/// Declares the kinds once: variant, label and exit code.
macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $variant:ident: $label:literal, $exit:literal;)*) => {
        /// Category of a failure. Its label is the value of the metric label `result` and of
        /// `error.kind` in JSON.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FailureKind { $($(#[$doc])* $variant,)* }

        impl FailureKind {
            /// Every kind, roughly in the order in which a call can meet them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for metrics and JSON.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// curl's exit code for this failure (<https://curl.se/libcurl/c/libcurl-errors.html>).
            pub fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $exit,)* }
            }
        }
    };
}

failure_kinds! {
    /// There is no usable resolver configuration.
    ResolvConf: "resolv_conf", 6;
    /// DNS says that the name does not exist.
    DnsNxdomain: "dns_nxdomain", 6;
    /// DNS says that the name exists, without an address.
    DnsNodata: "dns_nodata", 6;
    /// DNS answered with SERVFAIL, or with an error code that has no kind of its own.
    DnsServfail: "dns_servfail", 6;
    /// DNS answered with REFUSED.
    DnsRefused: "dns_refused", 6;
    /// DNS did not answer in time.
    DnsTimeout: "dns_timeout", 6;
    /// Nothing listens at the name server's address, or no route leads to it.
    DnsUnreachable: "dns_unreachable", 6;
    /// What came back from the name server is not a DNS answer to the question.
    DnsMalformed: "dns_malformed", 6;
    /// The connection was refused (ECONNREFUSED).
    ConnectRefused: "connect_refused", 7;
    /// The address cannot be reached (EHOSTUNREACH, ENETUNREACH and their like).
    ConnectUnreachable: "connect_unreachable", 7;
    /// The TCP handshake did not end in time.
    ConnectTimeout: "connect_timeout", 28;
    /// Neither the network nor the backend failed: this process has no descriptors, ports or memory.
    Local: "local", 7;
    /// What answered does not speak TLS, or there is no version or algorithm in common, or it sent an alert.
    TlsHandshake: "tls_handshake", 35;
    /// The certificate does not lead to an issuer that is trusted here.
    TlsUntrusted: "tls_untrusted", 60;
    /// The certificate is out of date, or is not valid yet.
    TlsExpired: "tls_expired", 60;
    /// The certificate is for other names.
    TlsName: "tls_name", 60;
    /// The connection was reset (RST).
    Reset: "reset", 56;
    /// The connection was closed before the first byte of a response.
    EmptyReply: "empty_reply", 52;
    /// The connection was closed in the middle of a response.
    Incomplete: "incomplete", 18;
    /// What answered does not speak HTTP, or not correctly.
    Protocol: "protocol", 8;
    /// The connection was made, and the response did not come in time.
    ResponseTimeout: "response_timeout", 28;
    /// The connection was made, and large packets are lost on the way, while small ones pass.
    PathMtu: "path_mtu", 28;
    /// A proxy or a sidecar answered for a backend that it could not reach.
    ProxyError: "proxy_error", 22;
    /// The backend answered with a status that is not expected.
    HttpStatus: "http_status", 22;
    /// The response is over the size limit.
    BodyTooLarge: "body_too_large", 63;
    /// The call was blocked, as expected, but its control failed as well, so that this proves nothing.
    Unproven: "unproven", 1;
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for FailureKind {
    type Err = ParseFailureKindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut kinds = Self::ALL.iter().copied();
        kinds
            .find(|kind| kind.label() == text)
            .ok_or(ParseFailureKindError)
    }
}

/// The text is not the label of a kind of failure.
#[derive(Debug, thiserror::Error)]
#[error("not the label of a kind of failure")]
pub struct ParseFailureKindError;

/// Why a call failed: where, in one word, and everything that was seen of it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The step that failed.
    pub stage: Stage,
    /// The category, for metrics, exit codes and expectations.
    pub kind: FailureKind,
    /// What was seen. In a box, so that a result which may be a failure stays small.
    pub detail: Box<Detail>,
}

impl Failure {
    /// A failure of which nothing else is known yet. `after` is the time from the start of the attempt, or of the
    /// lookup.
    pub(crate) fn new(stage: Stage, kind: FailureKind, cause: Cause, after: Duration) -> Self {
        Self {
            stage,
            kind,
            detail: Box::new(Detail {
                cause,
                received: Received::default(),
                wants_tls: false,
                icmp: None,
                hole: None,
                idle: None,
                after,
            }),
        }
    }
}

/// What was seen of a failure, as data. [`crate::verdict`] makes sentences of it.
#[derive(Clone, Debug)]
pub struct Detail {
    /// What ended the step.
    pub cause: Cause,
    /// How much of a response had come by then.
    pub received: Received,
    /// Whether the port speaks TLS, which was looked at because a plain request got no answer.
    pub wants_tls: bool,
    /// The ICMP message that rejected the connection, where the kernel tells.
    pub icmp: Option<Icmp>,
    /// What is too large for the way, where that was looked at.
    pub hole: Option<Hole>,
    /// How long the connection had been idle before, where a kept one was used.
    pub idle: Option<Duration>,
    /// From the start of the attempt at this address, or of the lookup, to the failure.
    pub after: Duration,
}

/// What ended a step that failed.
#[derive(Clone, Debug)]
pub enum Cause {
    /// DNS did: see the report's lookup.
    Lookup,
    /// The operating system reported an error.
    Os(OsError),
    /// The time was up.
    Timeout,
    /// The peer closed the connection.
    Closed,
    /// What came is not HTTP/1; the parser's words.
    Malformed(String),
    /// What came is not HTTP/2; the parser's words.
    MalformedHttp2(String),
    /// TLS ended it.
    Tls(TlsError),
    /// The peer ended the stream or the connection by HTTP/2's own means.
    Http2(Http2Error),
    /// A whole response came, and its status is not expected.
    Status,
    /// The body is longer than this many bytes.
    TooLarge(u64),
}

/// An error of the operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsError {
    /// The number, where there is one.
    pub errno: Option<i32>,
    text: String,
}

/// Why a TLS connection could not be made, or was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The peer sent this alert (RFC 8446, section 6), by its name there.
    Alert(String),
    /// The certificate was not accepted, for this reason. The report has the certificate.
    Certificate(String),
    /// What the peer sent was not accepted, for this reason.
    Handshake(String),
}

/// The end of an HTTP/2 stream or connection, as the peer put it (RFC 9113, section 7).
#[derive(Clone, Debug)]
pub struct Http2Error {
    /// The frame that carried it.
    pub frame: Http2Frame,
    /// The error code.
    pub reason: h2::Reason,
    /// What GOAWAY's debug data say, the beginning of it.
    pub debug: String,
}

/// A frame that ends an HTTP/2 stream or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Frame {
    /// The whole connection ends.
    GoAway,
    /// This request alone is refused or aborted.
    RstStream,
}

/// An ICMP message about a connection that was being made (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The type.
    pub r#type: u8,
    /// The code.
    pub code: u8,
    /// Who sent it; that of IPv6 differs in its types and codes.
    pub from: IpAddr,
}

/// A way on which large packets vanish and small ones pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The largest IP packet that passes, in bytes.
    pub mtu: u32,
    /// Where larger ones are lost; `None` where that cannot be told.
    pub direction: Option<Direction>,
}

/// A direction of the way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From here to the backend.
    There,
    /// From the backend to here.
    Back,
}

/// Most bytes of evidence from the network in one piece; what is longer is cut.
pub const MAX_EVIDENCE: usize = 512;

/// How much of a response has come.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Bytes read from the connection since the request was sent.
    pub bytes: u64,
    /// The first of them, at most [`Received::KEPT`].
    pub start: Vec<u8>,
    /// Bytes of the body, once the head was complete.
    pub body: Option<u64>,
}

impl Received {
    /// How many bytes of what was received are kept as evidence.
    pub const KEPT: usize = 64;

    /// Whether it begins as a record of TLS does: an alert or a handshake, version 3.x.
    pub fn starts_as_tls(&self) -> bool {
        matches!(self.start.as_slice(), [0x15 | 0x16, 3, ..])
    }
}

impl From<&io::Error> for OsError {
    fn from(error: &io::Error) -> Self {
        Self {
            errno: error.raw_os_error(),
            text: error.to_string(),
        }
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Http2Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GoAway => "GOAWAY",
            Self::RstStream => "RST_STREAM",
        })
    }
}
