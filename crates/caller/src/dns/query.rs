//! One query to one name server, and its outcome.

use std::fmt;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::{Edns, Message, Query as Question};
use hickory_resolver::proto::rr::{Name, RecordType};

use crate::failure::{FailureKind, Icmp, OsError};
use crate::socket_error;

/// Largest UDP response in bytes that a query with EDNS allows: the value recommended by DNS Flag Day 2020.
const EDNS_PAYLOAD: u16 = 1232;

/// An address family, which is queried by its record type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, by A records.
    V4,
    /// IPv6, by AAAA records.
    V6,
}

/// The transport protocol of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP, which is tried first.
    Udp,
    /// TCP, after a truncated response or with `options use-vc`.
    Tcp,
}

/// A line of the transcript: a query and its outcome.
#[derive(Clone, Debug)]
pub struct Query {
    /// The absolute name that was queried.
    pub name: Name,
    /// The record type that was queried.
    pub family: Family,
    /// Address of the name server.
    pub server: SocketAddr,
    /// The transport protocol used.
    pub transport: Transport,
    /// Result of the query.
    pub outcome: QueryOutcome,
    /// The targets of the CNAMEs in the response, in its order; of a long chain the first few and the
    /// last.
    pub cnames: Vec<Name>,
    /// Number of datagrams that arrived in the meantime and are not the response to this query.
    pub strays: u32,
    /// Time from sending the query to its outcome.
    pub duration: Duration,
}

/// Result of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryOutcome {
    /// The name has these addresses.
    Addresses {
        /// At least one address, in the server's order.
        addresses: Vec<IpAddr>,
        /// Time to live in seconds: the shortest among the CNAMEs and the addresses.
        ttl: u32,
    },
    /// NOERROR without a record of this type: the name exists, but has no such address.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// SERVFAIL: the server could not resolve the name.
    ServFail,
    /// REFUSED: the server will not answer this query, or this client.
    Refused,
    /// Another error code, such as FORMERR or NOTIMP.
    OtherCode(u16),
    /// An empty response of a server that neither is authoritative for the name nor resolves it for clients.
    Referral,
    /// The response does not fit into one datagram; the same query is sent over TCP next.
    Truncated,
    /// The message received is not a valid response to the query, for this reason.
    Malformed(String),
    /// The CNAMEs in the response lead back to the name itself.
    CnameLoop,
    /// The TCP connection was closed before the response came.
    Closed,
    /// No response came before the timeout.
    Timeout,
    /// The server cannot be reached.
    Unreachable {
        /// The operating system's error.
        error: OsError,
        /// The ICMP message that rejected a query over UDP, if the kernel passed one on.
        icmp: Option<Icmp>,
        /// Whether this pod has no source address or no route for the server, so that nothing was sent.
        lacks_route: bool,
    },
    /// This pod lacks what a query needs, such as a file descriptor; the operating system's error.
    Local(OsError),
}

impl Family {
    pub(super) fn record_type(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record_type().fmt(f)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

impl QueryOutcome {
    /// The name of the response code (RFC 1035, section 4.1.1), or one word for the reason why there is none.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Addresses { .. } => "NOERROR",
            Self::NoData => "NODATA",
            Self::NxDomain => "NXDOMAIN",
            Self::ServFail => "SERVFAIL",
            Self::Refused => "REFUSED",
            Self::OtherCode(1) => "FORMERR",
            Self::OtherCode(4) => "NOTIMP",
            Self::OtherCode(_) => "other",
            Self::Referral => "referral",
            Self::Truncated => "truncated",
            Self::Malformed(_) | Self::CnameLoop | Self::Closed => "malformed",
            Self::Timeout => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::Local(_) => "local",
        }
    }

    /// The category of a lookup that fails because of this outcome.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NxDomain => FailureKind::DnsNxdomain,
            Self::NoData | Self::Addresses { .. } => FailureKind::DnsNodata,
            Self::ServFail | Self::OtherCode(_) => FailureKind::DnsServfail,
            Self::Refused | Self::Referral => FailureKind::DnsRefused,
            Self::Timeout => FailureKind::DnsTimeout,
            Self::Unreachable { .. } => FailureKind::DnsUnreachable,
            Self::Local(_) => FailureKind::Local,
            Self::Malformed(_) | Self::CnameLoop | Self::Closed | Self::Truncated => {
                FailureKind::DnsMalformed
            }
        }
    }

    /// The outcome of a query to `server` whose socket failed with this error.
    pub(super) fn failed(error: &Error, server: SocketAddr) -> Self {
        if error.kind() == ErrorKind::UnexpectedEof {
            return Self::Closed;
        }
        match socket_error::kind(error, server) {
            FailureKind::ConnectTimeout => Self::Timeout,
            FailureKind::Reset => Self::Closed,
            FailureKind::Local => Self::Local(error.into()),
            _ => Self::Unreachable {
                error: error.into(),
                icmp: None,
                lacks_route: socket_error::lacks_route(error, server),
            },
        }
    }
}

/// Displays the response code, or why there is none.
impl fmt::Display for QueryOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCode(code) if self.code() == "other" => write!(f, "RCODE{code}"),
            Self::Malformed(why) => write!(f, "malformed answer ({why})"),
            Self::CnameLoop => f.write_str("a CNAME loop"),
            Self::Closed => f.write_str("connection closed without an answer"),
            Self::Timeout => f.write_str("no answer"),
            Self::Unreachable { error, .. } => write!(f, "unreachable ({error})"),
            Self::Local(why) => write!(f, "not asked ({why})"),
            _ => f.write_str(self.code()),
        }
    }
}

/// Encodes a query with a random id, and returns that id and the bytes.
pub(super) fn encode(
    name: &Name,
    family: Family,
    edns: bool,
) -> Result<(u16, Vec<u8>), ProtoError> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(name.clone(), family.record_type()));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_PAYLOAD);
        message.set_edns(edns);
    }
    Ok((message.metadata.id, message.to_vec()?))
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::{FailureKind, QueryOutcome};

    #[test]
    fn each_errno_of_a_query_has_its_kind_of_failure() {
        use FailureKind::*;
        for (errno, expected) in [
            (libc::ECONNREFUSED, DnsUnreachable),
            (libc::EHOSTUNREACH, DnsUnreachable),
            (libc::ENETUNREACH, DnsUnreachable),
            (libc::EPERM, DnsUnreachable),
            (libc::EADDRNOTAVAIL, DnsUnreachable),
            (libc::EINVAL, DnsUnreachable),
            (libc::EAFNOSUPPORT, DnsUnreachable),
            (libc::ENOPROTOOPT, DnsUnreachable),
            (libc::EPROTO, DnsUnreachable),
            (libc::EHOSTDOWN, DnsUnreachable),
            (libc::EOPNOTSUPP, DnsUnreachable),
            (libc::ETIMEDOUT, DnsTimeout),
            (libc::ECONNRESET, DnsMalformed),
            (libc::EMFILE, Local),
            (libc::ENFILE, Local),
            (libc::ENOBUFS, Local),
            (libc::ENOMEM, Local),
            (libc::EAGAIN, Local),
        ] {
            // No socket can be connected to this address, as to an IPv6 address without IPv6.
            let server = ([255, 255, 255, 255], 53).into();
            let outcome = QueryOutcome::failed(&Error::from_raw_os_error(errno), server);
            assert_eq!(outcome.kind(), expected, "{outcome}");
        }
    }
}
