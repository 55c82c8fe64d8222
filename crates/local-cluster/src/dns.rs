//! Cluster DNS: authoritative for `cluster.local`, answering as CoreDNS's kubernetes plugin does:
//!
//! - a Service's name -- its addresses, TTL 30
//! - a Service's name, another record type -- NODATA
//! - a name above one -- NODATA
//! - any other name -- NXDOMAIN; also outside the zone, where CoreDNS would hand on what the
//!   internet's servers say, and where this demo's names do not exist
//!
//! It listens on UDP and TCP at one port.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, SOA};
use hickory_server::proto::rr::{LowerName, Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tracing::warn;

/// Seconds; what kubeadm writes into CoreDNS's configuration.
const TTL: u32 = 30;

/// The zone.
const ZONE: &str = "cluster.local.";

/// A client that keeps a TCP connection and asks nothing is cut off.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Answers in flight on a TCP connection.
const TCP_RESPONSES: usize = 16;

/// Two sockets want one port: how many free ports to try.
const PORT_TRIES: u32 = 16;

/// The records, shared by the server and whoever changes them.
#[derive(Clone, Debug, Default)]
pub struct Records(Arc<RwLock<BTreeMap<LowerName, Vec<IpAddr>>>>);

impl Records {
    /// Gives `name` these addresses in place of any it had. With none, the name exists all the
    /// same, as that of a headless Service without ready pods does.
    ///
    /// # Panics
    ///
    /// When `name` is not a domain name.
    pub fn set(&self, name: &str, addresses: impl Into<Vec<IpAddr>>) {
        let name = absolute(name);
        let mut records = self.0.write().unwrap_or_else(PoisonError::into_inner);
        records.insert(name, addresses.into());
    }

    /// Takes `name` out of the zone.
    ///
    /// # Panics
    ///
    /// When `name` is not a domain name.
    pub fn remove(&self, name: &str) {
        let name = absolute(name);
        let mut records = self.0.write().unwrap_or_else(PoisonError::into_inner);
        records.remove(&name);
    }

    fn find(&self, name: &LowerName, record_type: RecordType) -> Found {
        let zone = absolute(ZONE);
        let records = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(addresses) = records.get(name) {
            let data = |address: &IpAddr| match (address, record_type) {
                (IpAddr::V4(v4), RecordType::A) => Some(RData::A(A(*v4))),
                (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(AAAA(*v6))),
                _ => None,
            };
            let owner = Name::from(name);
            let record = |data| Record::from_rdata(owner.clone(), TTL, data);
            return Found::Records(addresses.iter().filter_map(data).map(record).collect());
        }
        match name == &zone || records.keys().any(|known| name.zone_of(known)) {
            true => Found::Records(Vec::new()),
            false => Found::Nothing,
        }
    }
}

enum Found {
    /// The name exists; there may be no record of that type.
    Records(Vec<Record>),
    /// The name does not exist.
    Nothing,
    /// There is no name to look for.
    Nonsense,
}

/// A running name server. Dropping it ends it.
pub struct Dns {
    /// Where it listens.
    pub addr: SocketAddr,
    _server: Server<Records>,
}

impl Dns {
    /// Starts answering at a port of 127.0.0.1: `port`, or a free one where that is taken or 0.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(port: u16, records: Records) -> io::Result<Self> {
        let mut bound = bind(port).await;
        for _ in 0..PORT_TRIES {
            match bound {
                Ok(_) => break,
                Err(_) => bound = bind(0).await,
            }
        }
        let (udp, tcp) = bound?;
        let addr = udp.local_addr()?;
        let mut server = Server::new(records);
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_RESPONSES);
        Ok(Self {
            addr,
            _server: server,
        })
    }
}

async fn bind(port: u16) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let tcp = TcpListener::bind(udp.local_addr()?).await?;
    Ok((udp, tcp))
}

#[async_trait::async_trait]
impl RequestHandler for Records {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut responses: R,
    ) -> ResponseInfo {
        let builder = MessageResponseBuilder::from_message_request(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        metadata.recursion_available = true;
        let found = match request.request_info() {
            Ok(info) => self.find(info.query.name(), info.query.query_type()),
            Err(_) => Found::Nonsense,
        };
        let (code, records) = match found {
            Found::Records(records) => (ResponseCode::NoError, records),
            Found::Nothing => (ResponseCode::NXDomain, Vec::new()),
            Found::Nonsense => (ResponseCode::FormErr, Vec::new()),
        };
        metadata.response_code = code;
        let soa = records.is_empty().then(start_of_authority);
        let response = builder.build(metadata, &records, [], &soa, []);
        responses
            .send_response(response)
            .await
            .unwrap_or_else(|error| {
                warn!(%error, "failed to answer");
                ResponseInfo::from(hickory_server::proto::op::Header {
                    metadata,
                    counts: Default::default(),
                })
            })
    }
}

/// What a client may remember a missing name or type by (RFC 2308).
fn start_of_authority() -> Record {
    let name = |label: &str| Name::from(absolute(&format!("{label}.dns.{ZONE}")));
    let soa = SOA::new(
        name("ns"),
        name("hostmaster"),
        1,
        7200,
        1800,
        86400,
        TTL as _,
    );
    Record::from_rdata(Name::from(absolute(ZONE)), TTL, RData::SOA(soa))
}

fn absolute(name: &str) -> LowerName {
    let mut name = Name::from_ascii(name).expect("a domain name");
    name.set_fqdn(true);
    LowerName::new(&name)
}
