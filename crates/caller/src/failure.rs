//! Why a call can fail: the stages it goes through, and every kind of failure with its label and exit
//! code. The words for them are in [`crate::verdict`].

use std::fmt;
use std::str::FromStr;

/// A step of a call, in the order in which a call takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// From the name to its addresses.
    Dns,
    /// The TCP connection. A failure here says nothing about the other addresses of the name.
    Connect,
    /// The request and its response.
    Http,
}

impl Stage {
    /// The word for JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
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
    /// A proxy or a sidecar answered for a backend that it could not reach.
    ProxyError: "proxy_error", 22;
    /// The backend answered with a status that is not expected.
    HttpStatus: "http_status", 22;
    /// The response is over the size limit.
    BodyTooLarge: "body_too_large", 63;
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
