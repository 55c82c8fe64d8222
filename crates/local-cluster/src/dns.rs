//! Cluster DNS: authoritative for `cluster.local`, with the responses of CoreDNS's kubernetes plugin
//! (<https://coredns.io/plugins/kubernetes/>):
//!
//! - for a Service's name, its addresses with a TTL of 30 seconds
//! - for a Service's name and another record type, NODATA
//! - for a name above that of a Service, NODATA
//! - for any other name, NXDOMAIN; also outside of the zone, where CoreDNS would forward the query to its
//!   upstream servers, which do not know the names of this demo
//!
//! It listens on UDP and TCP at the same port.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, SOA};
use hickory_server::proto::rr::{LowerName, Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use runtime::unpoisoned::unpoisoned;
use tokio::net::{TcpListener, UdpSocket};
use tracing::warn;

/// Time to live of all records in seconds, as in kubeadm's configuration of CoreDNS.
const TTL: u32 = 30;

/// The zone of the cluster.
const ZONE: &str = "cluster.local.";

/// Idle timeout of a TCP connection.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Limit on the responses in flight on a TCP connection.
const TCP_RESPONSES: usize = 16;

/// Number of free ports to try, as one that is free for UDP may be in use for TCP.
const PORT_TRIES: u32 = 16;

/// The address records of the zone. A clone shares them, so that they can be changed while the server runs.
#[derive(Clone, Debug, Default)]
pub struct Records(Arc<RwLock<BTreeMap<LowerName, Vec<IpAddr>>>>);

impl Records {
    /// Replaces the addresses of `name`. Without an address the name still exists, as that of a headless Service
    /// without ready pods does.
    ///
    /// # Panics
    ///
    /// When `name` is not a domain name.
    pub fn set(&self, name: &str, addresses: impl Into<Vec<IpAddr>>) {
        let name = absolute(name);
        let mut records = unpoisoned(self.0.write());
        records.insert(name, addresses.into());
    }

    /// Removes `name` from the zone.
    ///
    /// # Panics
    ///
    /// When `name` is not a domain name.
    pub fn remove(&self, name: &str) {
        let name = absolute(name);
        let mut records = unpoisoned(self.0.write());
        records.remove(&name);
    }

    fn find(&self, name: &LowerName, record_type: RecordType) -> Found {
        let zone = absolute(ZONE);
        let records = unpoisoned(self.0.read());
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
    /// The request has no valid question.
    Malformed,
}

/// A running name server. Dropping it stops the server.
pub struct Dns {
    /// The address at which it listens.
    pub addr: SocketAddr,
    _server: Server<Records>,
}

impl Dns {
    /// Starts a server at a port of 127.0.0.1: `port`, or a free one if that is in use or 0.
    ///
    /// # Errors
    ///
    /// When no port can be opened.
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
            Err(_) => Found::Malformed,
        };
        let (code, records) = match found {
            Found::Records(records) => (ResponseCode::NoError, records),
            Found::Nothing => (ResponseCode::NXDomain, Vec::new()),
            Found::Malformed => (ResponseCode::FormErr, Vec::new()),
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

/// The SOA record of a negative response, which tells clients how long they may cache it (RFC 2308).
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
