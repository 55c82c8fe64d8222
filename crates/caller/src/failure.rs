//! Why a call failed, as data: the stage it had reached, the kind of failure, and the evidence. The wording is
//! in [`crate::verdict`].

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio_rustls::rustls::CertificateError;

/// A step of a call, in the order in which a call takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Resolving the name of the target.
    Dns,
    /// The TCP handshake. A failure here says nothing about the other addresses of the name.
    Connect,
    /// The TLS handshake, and the verification of the certificate.
    Tls,
    /// Sending the request and receiving its response.
    Http,
}

impl Stage {
    /// The value of `error.stage` in JSON.
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

            /// The value of the metric label `result` and of `error.kind` in JSON.
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
    /// DNS responded that the name does not exist (NXDOMAIN).
    DnsNxdomain: "dns_nxdomain", 6;
    /// DNS responded that the name exists, but has no address (NODATA, RFC 2308).
    DnsNodata: "dns_nodata", 6;
    /// DNS responded with SERVFAIL, or with an error code that has no kind of its own.
    DnsServfail: "dns_servfail", 6;
    /// DNS responded with REFUSED.
    DnsRefused: "dns_refused", 6;
    /// DNS did not respond in time.
    DnsTimeout: "dns_timeout", 6;
    /// Nothing listens at the name server's address, or no route leads to it.
    DnsUnreachable: "dns_unreachable", 6;
    /// The name server sent something that is not a DNS response to the query.
    DnsMalformed: "dns_malformed", 6;
    /// The connection was refused (ECONNREFUSED).
    ConnectRefused: "connect_refused", 7;
    /// The address cannot be reached (EHOSTUNREACH, ENETUNREACH and similar errors).
    ConnectUnreachable: "connect_unreachable", 7;
    /// The TCP handshake did not complete in time.
    ConnectTimeout: "connect_timeout", 28;
    /// Neither the network nor the backend failed: this pod has no file descriptors, ports or memory left.
    Local: "local", 7;
    /// The server does not speak TLS, has no version or algorithm in common with this side, or sent an alert.
    TlsHandshake: "tls_handshake", 35;
    /// The chain of the certificate does not end at a trusted CA.
    TlsUntrusted: "tls_untrusted", 60;
    /// The certificate has expired, or is not valid yet.
    TlsExpired: "tls_expired", 60;
    /// The certificate is for other names than the host of the target.
    TlsName: "tls_name", 60;
    /// The connection was reset (RST).
    Reset: "reset", 56;
    /// The connection was closed before the first byte of a response.
    EmptyReply: "empty_reply", 52;
    /// The connection was closed in the middle of a response.
    Incomplete: "incomplete", 18;
    /// The response is not HTTP, or violates the protocol.
    Protocol: "protocol", 8;
    /// The connection was made, but no complete response came in time.
    ResponseTimeout: "response_timeout", 28;
    /// The connection was made, but large packets are lost on the path, while small ones pass.
    PathMtu: "path_mtu", 28;
    /// A proxy or a sidecar responded in place of a backend that it could not reach.
    ProxyError: "proxy_error", 22;
    /// The backend responded with a status that does not count as a success.
    HttpStatus: "http_status", 22;
    /// The response is over the size limit.
    BodyTooLarge: "body_too_large", 63;
    /// The call was blocked, as expected, but its control failed as well, so nothing proves a policy.
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

/// Why a call failed: the stage, the category and the evidence.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The step that failed.
    pub stage: Stage,
    /// The category, for metrics, exit codes and expectations.
    pub kind: FailureKind,
    /// The evidence. It is boxed so that a `Result` with a failure stays small.
    pub detail: Box<Detail>,
}

impl Failure {
    /// A failure with this cause and no further evidence. `after` is the time since the start of the attempt,
    /// or of the lookup.
    pub(crate) fn new(stage: Stage, kind: FailureKind, cause: Cause, after: Duration) -> Self {
        Self {
            stage,
            kind,
            detail: Box::new(Detail {
                cause,
                received: Received::default(),
                wants_tls: None,
                icmp: None,
                lacks_route: false,
                is_cut_short: false,
                other_attempts: Vec::new(),
                hole: None,
                idle: None,
                after,
            }),
        }
    }
}

/// The evidence of a failure, as data. [`crate::verdict`] makes sentences of it.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The direct cause of the failure.
    pub cause: Cause,
    /// How much of a response had been received before the failure.
    pub received: Received,
    /// The TLS that the port speaks, if it does, which was tested because a plain request got no response.
    pub wants_tls: Option<TlsPort>,
    /// The ICMP message that rejected the connection, if the kernel passed it on (`IP_RECVERR`, ip(7)).
    pub icmp: Option<Icmp>,
    /// Whether this pod has no source address or no route for the address, so that no packet was sent.
    pub lacks_route: bool,
    /// Whether the timeout of the whole call left less time for connecting than the timeout of that step.
    pub is_cut_short: bool,
    /// The attempts at other addresses of the name, which failed as well. They are made only if connecting fails.
    pub other_attempts: Vec<(SocketAddr, Failure)>,
    /// The limit above which packets are lost, if the path was tested and has one.
    pub hole: Option<Hole>,
    /// How long the connection had been idle before the request, if it was a reused one.
    pub idle: Option<Duration>,
    /// Time from the start of the attempt at this address, or of the lookup, to the failure.
    pub after: Duration,
}

/// The kind of TLS that a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPort {
    /// The server alone presents a certificate.
    Server,
    /// The server asks for a client certificate.
    Mutual,
}

/// The direct cause of a failure.
#[derive(Clone, Debug)]
pub enum Cause {
    /// The lookup failed; the report contains it.
    Lookup,
    /// The operating system reported an error.
    Os(OsError),
    /// The timeout of the step expired.
    Timeout,
    /// The peer closed the connection.
    Closed,
    /// The response is not valid HTTP/1; the parser's error.
    Malformed(String),
    /// The response is not valid HTTP/2; the parser's error.
    MalformedHttp2(String),
    /// TLS failed with this error.
    Tls(TlsError),
    /// The peer ended the stream or the connection with an HTTP/2 frame.
    Http2(Http2Error),
    /// A complete response was received, with a status that does not count as a success.
    Status,
    /// The body is longer than this many bytes.
    TooLarge(u64),
}

/// An error of the operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsError {
    /// The error number (errno(3)), if there is one.
    pub errno: Option<i32>,
    text: String,
}

/// Why a TLS connection could not be made, or was ended.
#[derive(Clone, Debug)]
pub enum TlsError {
    /// The peer sent an alert; its name in RFC 8446, section 6.
    Alert(String),
    /// The certificate was not accepted, for this reason. The report contains the certificate.
    Certificate(CertificateError),
    /// The certificate is fine, but its key did not verify the server's signature of the handshake.
    Signature,
    /// This side did not accept the messages of the peer, for this reason.
    Handshake(String),
}

/// The frame with which the peer ended an HTTP/2 stream or connection.
#[derive(Clone, Debug)]
pub struct Http2Error {
    /// The type of the frame.
    pub frame: Http2Frame,
    /// The error code in it (RFC 9113, section 7).
    pub reason: h2::Reason,
    /// The beginning of GOAWAY's debug data.
    pub debug: String,
}

/// A type of frame that ends an HTTP/2 stream or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Frame {
    /// GOAWAY, which ends the connection (RFC 9113, section 6.8).
    GoAway,
    /// RST_STREAM, which refuses or aborts a single request (RFC 9113, section 6.4).
    RstStream,
}

/// An ICMP error message about a connection attempt (RFC 792), or an ICMPv6 one (RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The message's type field.
    pub r#type: u8,
    /// The message's code field.
    pub code: u8,
    /// Address of the sender. Its family decides the meaning of the type and the code.
    pub from: IpAddr,
}

/// A path that loses large packets, while small ones pass: an MTU black hole (RFC 2923).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The largest IP packet that passes, in bytes.
    pub mtu: u32,
    /// The direction in which larger packets are lost; `None` if it could not be determined.
    pub direction: Option<Direction>,
}

/// A direction of the path between this pod and a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From this pod to the backend.
    There,
    /// From the backend to this pod.
    Back,
}

/// Longest piece of evidence that comes from the network, in bytes; a longer one is cut.
pub const MAX_EVIDENCE: usize = 512;

/// Cuts a text to at most `max` bytes, and marks that with three dots after them.
pub(crate) fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let fits = |at: &usize| text.is_char_boundary(*at);
        text.truncate((0..=max).rev().find(fits).unwrap_or_default());
        text.push_str("...");
    }
    text
}

/// How much of a response has been received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Bytes read from the connection since the request was sent.
    pub bytes: u64,
    /// The first of them, at most [`Received::KEPT`].
    pub start: Vec<u8>,
    /// Bytes of the body, once the head was complete.
    pub body: Option<u64>,
    /// Time from the last part of the body, or from the head if there was none, to the failure; zero without a head.
    pub silence: Duration,
}

impl Received {
    /// Number of received bytes to keep as evidence.
    pub const KEPT: usize = 64;

    /// Whether the data begins like a TLS record: an alert or a handshake, version 3.x (RFC 8446, section 5.1).
    pub fn starts_as_tls(&self) -> bool {
        matches!(self.start.as_slice(), [0x15 | 0x16, 3, ..])
    }

    /// Whether the data begins as that of an HTTP/2 server: with a SETTINGS frame on stream 0 (RFC 9113, section 3.4).
    pub(crate) fn starts_as_http2(&self) -> bool {
        matches!(self.start.as_slice(), [0, _, _, 4, _, 0, 0, 0, 0, ..])
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
