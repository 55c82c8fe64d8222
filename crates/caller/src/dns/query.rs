//! One query to one name server, and its outcome.
//!
//! This is hickory's `net` layer and not its `Resolver`: a `Resolver` sends three packets for each
//! question, walks the search list and the servers itself, and reports only the last error.

use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsRequestSender, FirstAnswer};
use hickory_resolver::net::{DnsHandle, NetError};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Edns, Message, Query as Question, ResponseCode,
};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;
use tokio::time::timeout;

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

/// What carried the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// The usual way.
    Udp,
    /// After a truncated answer, or by `options use-vc`.
    Tcp,
}

/// A line of the transcript: one packet, or one TCP exchange.
#[derive(Clone, Debug)]
pub struct Query {
    /// The absolute name asked for.
    pub name: Name,
    /// The record type asked for.
    pub family: Family,
    /// Who was asked.
    pub server: SocketAddr,
    /// How.
    pub transport: Transport,
    /// What came of it.
    pub outcome: QueryOutcome,
    /// How long that took.
    pub duration: Duration,
}

/// What came of a question.
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
    /// The answer does not fit into one packet; the same question goes out over TCP next.
    Truncated,
    /// Something came that is no answer to the question.
    Malformed(String),
    /// Nothing came in time.
    Timeout,
    /// The operating system says that the server cannot be reached.
    Unreachable(String),
    /// The operating system says that the question cannot be asked.
    Local(String),
}

impl Family {
    fn record_type(self) -> RecordType {
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
            Self::Truncated => "truncated",
            Self::Malformed(_) => "malformed",
            Self::Timeout => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Local(_) => "local",
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

/// Asks once. Over UDP this sends exactly one packet.
pub(super) async fn ask(
    name: &Name,
    family: Family,
    server: SocketAddr,
    transport: Transport,
    edns: bool,
    within: Duration,
) -> Query {
    let start = Instant::now();
    let request = request(name, family, edns);
    let response = match transport {
        Transport::Udp => over_udp(request, server, within).await,
        Transport::Tcp => timeout(within, over_tcp(request, server, within))
            .await
            .unwrap_or(Err(NetError::Timeout)),
    };
    Query {
        name: name.clone(),
        family,
        server,
        transport,
        outcome: match response {
            Ok(response) => read(&response, name, family, transport),
            Err(error) => failed(error),
        },
        duration: start.elapsed(),
    }
}

fn request(name: &Name, family: Family, edns: bool) -> DnsRequest {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(name.clone(), family.record_type()));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_PAYLOAD);
        message.set_edns(edns);
    }
    DnsRequest::new(message, DnsRequestOptions::default())
}

async fn over_udp(
    request: DnsRequest,
    server: SocketAddr,
    within: Duration,
) -> Result<DnsResponse, NetError> {
    UdpClientStream::builder(server, ConnectedUdp::default())
        .with_timeout(Some(within))
        .with_max_retries(1)
        .with_os_port_selection(true)
        .build()
        .send_message(request)
        .first_answer()
        .await
}

async fn over_tcp(
    request: DnsRequest,
    server: SocketAddr,
    within: Duration,
) -> Result<DnsResponse, NetError> {
    // It owns the task that drives the connection, so it has to live until the answer is here.
    let provider = TokioRuntimeProvider::new();
    TcpClientStream::exchange(server, None, within, None, provider.clone())
        .await?
        .send(request)
        .first_answer()
        .await
}

fn read(response: &DnsResponse, name: &Name, family: Family, transport: Transport) -> QueryOutcome {
    // hickory checks the question over UDP only.
    let asked =
        |query: &Question| query.name() == name && query.query_type() == family.record_type();
    if !matches!(response.queries.as_slice(), [query] if asked(query)) {
        return QueryOutcome::Malformed("it answers another question".into());
    }
    match response.response_code {
        ResponseCode::NoError if response.truncation && transport == Transport::Udp => {
            QueryOutcome::Truncated
        }
        ResponseCode::NoError => addresses(response, name, family),
        ResponseCode::NXDomain => QueryOutcome::NxDomain,
        ResponseCode::ServFail => QueryOutcome::ServFail,
        ResponseCode::Refused => QueryOutcome::Refused,
        code => QueryOutcome::OtherCode(code.into()),
    }
}

/// Follows the CNAMEs in an answer from `name` to addresses.
fn addresses(response: &DnsResponse, name: &Name, family: Family) -> QueryOutcome {
    let mut name = name;
    let mut ttl = u32::MAX;
    // More steps than records is a loop.
    for _ in 0..=response.answers.len() {
        let records = || {
            response
                .answers
                .iter()
                .filter(|record| record.name == *name)
        };
        let mut addresses = Vec::new();
        for record in records() {
            let address: IpAddr = match (&record.data, family) {
                (RData::A(a), Family::V4) => a.0.into(),
                (RData::AAAA(aaaa), Family::V6) => aaaa.0.into(),
                _ => continue,
            };
            ttl = ttl.min(record.ttl);
            addresses.push(address);
        }
        if !addresses.is_empty() {
            return QueryOutcome::Addresses { addresses, ttl };
        }
        let Some((target, step)) = records().find_map(|record| match &record.data {
            RData::CNAME(cname) => Some((&cname.0, record.ttl)),
            _ => None,
        }) else {
            return QueryOutcome::NoData;
        };
        name = target;
        ttl = ttl.min(step);
    }
    QueryOutcome::Malformed("a CNAME loop".into())
}

fn failed(error: NetError) -> QueryOutcome {
    let error = match error {
        NetError::Timeout => return QueryOutcome::Timeout,
        NetError::Io(error) => error,
        other => return QueryOutcome::Malformed(other.to_string()),
    };
    match error.kind() {
        ErrorKind::TimedOut => QueryOutcome::Timeout,
        // A TCP connection that is closed in place of an answer.
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
            QueryOutcome::Malformed("the connection was closed".into())
        }
        // The last of these is how a policy on this side of the network shows.
        ErrorKind::ConnectionRefused
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::PermissionDenied => QueryOutcome::Unreachable(error.to_string()),
        _ => QueryOutcome::Local(error.to_string()),
    }
}

/// Tokio, but with UDP sockets that are connected: only those hear of an ICMP "port unreachable",
/// and tell at once what would else be a time-out.
#[derive(Clone, Default)]
struct ConnectedUdp(TokioRuntimeProvider);

impl RuntimeProvider for ConnectedUdp {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = ConnectedSocket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        within: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        self.0.connect_tcp(server, local, within)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(ConnectedSocket { socket, server })
        })
    }
}

struct ConnectedSocket {
    socket: UdpSocket,
    server: SocketAddr,
}

/// The async functions, and not only the poll functions, because tokio wakes the latter for data
/// but not for an error alone.
#[async_trait::async_trait]
impl DnsUdpSocket for ConnectedSocket {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buf = tokio::io::ReadBuf::new(buf);
        let polled = self.socket.poll_recv(cx, &mut buf);
        polled.map_ok(|()| (buf.filled().len(), self.server))
    }

    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        Ok((self.socket.recv(buf).await?, self.server))
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        _server: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, buf)
    }

    async fn send_to(&self, buf: &[u8], _server: SocketAddr) -> io::Result<usize> {
        self.socket.send(buf).await
    }
}
