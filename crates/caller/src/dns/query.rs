//! One query to one name server, and its outcome.

use std::fmt;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::{Edns, Message, Query as Question};
use hickory_resolver::proto::rr::{Name, RecordType};

/// With EDNS, the largest answer in one packet: what DNS Flag Day 2020 settled on.
const EDNS_PAYLOAD: u16 = 1232;

/// An address family, and so a record type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// What carried the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The usual way.
    Udp,
    /// After a truncated answer, or by `options use-vc`.
    Tcp,
}

/// A line of the transcript: a query and what came of it.
#[derive(Clone, Debug)]
pub struct Query {
    /// The absolute name asked for.
    pub name: Name,
    /// The record type asked for.
    pub family: Family,
    /// The server asked.
    pub server: SocketAddr,
    /// What carried the query.
    pub transport: Transport,
    /// What came of it.
    pub outcome: QueryOutcome,
    /// The targets of the CNAMEs in the answer, in its order; of a long chain the first few and the
    /// last.
    pub cnames: Vec<Name>,
    /// Datagrams that came meanwhile and were no answer to this query.
    pub strays: u32,
    /// From the query to its outcome.
    pub duration: Duration,
}

/// What came of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryOutcome {
    /// The name has these addresses.
    Addresses {
        /// In the server's order; at least one.
        addresses: Vec<IpAddr>,
        /// Seconds that a cache might keep them; the shortest on the way from the name.
        ttl: u32,
    },
    /// The name exists, but not with this record type.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// SERVFAIL.
    ServFail,
    /// REFUSED.
    Refused,
    /// Another error code, such as FORMERR or NOTIMP.
    OtherCode(u16),
    /// The server neither knows the name nor asks others for it.
    Referral,
    /// The answer does not fit into one packet; the same query goes out over TCP next.
    Truncated,
    /// What came is no answer to the query.
    Malformed(String),
    /// Nothing came in time.
    Timeout,
    /// The operating system says that the server cannot be reached.
    Unreachable(String),
    /// The operating system says that the query cannot be sent.
    Local(String),
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
    /// The response code in DNS's own words, or in one word why there is none.
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
            Self::Malformed(_) => "malformed",
            Self::Timeout => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Local(_) => "local",
        }
    }

    /// What an error of a socket means for a query.
    pub(super) fn failed(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Self::Timeout,
            // A TCP connection that is closed in place of an answer.
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                Self::Malformed("the connection was closed".into())
            }
            // The last of these is how a policy on this side of the network shows.
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::PermissionDenied => Self::Unreachable(error.to_string()),
            _ => Self::Local(error.to_string()),
        }
    }
}

/// The code, and more where there is more to say.
impl fmt::Display for QueryOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCode(code) if self.code() == "other" => write!(f, "RCODE{code}"),
            Self::Malformed(why) => write!(f, "malformed answer ({why})"),
            Self::Timeout => f.write_str("no answer"),
            Self::Unreachable(why) => write!(f, "unreachable ({why})"),
            Self::Local(why) => write!(f, "not asked ({why})"),
            _ => f.write_str(self.code()),
        }
    }
}

/// The bytes of a query with an id of its own, and that id.
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
