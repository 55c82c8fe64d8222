//! Fetches the rows of all callers behind the names of a mesh. Rows are fetched only on request, and within limits: the
//! number of rows at once, the bytes and the time for each, and the time for all.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::matrix::{Matrix, MatrixBuilder, Missing};
use super::row::{MAX_BYTES, Row};
use crate::dns::{Host, Lookup, Resolver};
use crate::target::Target;

/// Default port of the rows: the default admin port of a caller.
pub const DEFAULT_PORT: u16 = 8082;

/// Number of rows that are fetched at the same time.
const MAX_CONCURRENT: usize = 32;

/// Timeout for a row, including its connection.
const ROW_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout for the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Timeout for all rows together.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for the lookups of all names, which run at the same time.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Collects the rows of a mesh.
#[derive(Clone, Debug)]
pub struct Collector {
    /// The targets of the mesh. Their names resolve to the addresses of all callers.
    pub targets: Vec<Arc<Target>>,
    /// Resolves the names of the targets.
    pub resolver: Resolver,
    /// The port at which callers serve their rows.
    pub port: u16,
}

/// The result of a collection.
#[derive(Debug)]
pub struct Collected {
    /// The rows, put together.
    pub matrix: Matrix,
    /// The lookups that failed.
    pub failed_lookups: Vec<Lookup>,
}

impl Collector {
    /// The label of each target: its name, or else its URL.
    pub fn labels(&self) -> Vec<String> {
        let labels = self.targets.iter().map(|target| target.label().to_owned());
        labels.collect()
    }

    /// Looks up all names at the same time, and fetches the row of each address. A row that cannot be fetched is
    /// missing in the matrix.
    pub async fn collect(&self) -> Collected {
        let deadline = Instant::now() + LOOKUP_TIMEOUT;
        let mut addresses = BTreeSet::new();
        let mut lookups = JoinSet::new();
        for (number, target) in self.targets.iter().enumerate() {
            match &target.host {
                Host::Address { ip, .. } => {
                    addresses.insert(*ip);
                }
                Host::Name(name) => {
                    let (resolver, name) = (self.resolver.clone(), name.clone());
                    lookups.spawn(async move { (number, resolver.lookup(&name, deadline).await) });
                }
            }
        }
        let mut lookups = lookups.join_all().await;
        lookups.sort_by_key(|(number, _)| *number);
        let mut failed_lookups = Vec::new();
        for (_, lookup) in lookups {
            match &lookup.outcome {
                Ok(ips) => addresses.extend(ips),
                Err(_) => failed_lookups.push(lookup),
            }
        }
        let matrix = self.matrix(addresses).await;
        Collected {
            matrix,
            failed_lookups,
        }
    }

    /// Fetches the row of each address.
    async fn matrix(&self, addresses: BTreeSet<IpAddr>) -> Matrix {
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ROW_TIMEOUT)
            .user_agent(concat!("caller/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.expect("a client without TLS can always be built");
        let deadline = Instant::now() + TOTAL_TIMEOUT;
        let mut matrix = MatrixBuilder::new(addresses);
        let mut waiting = matrix.addresses().into_iter();
        let mut fetching = JoinSet::new();
        loop {
            while fetching.len() < MAX_CONCURRENT
                && let Some(ip) = waiting.next()
            {
                let (client, url) = (client.clone(), self.url(ip));
                fetching.spawn(async move {
                    let fetched = timeout_at(deadline, fetch(&client, &url)).await;
                    (ip, fetched.unwrap_or(Err(Missing::NotAsked)))
                });
            }
            match fetching.join_next().await {
                Some(Ok((ip, row))) => matrix.add(ip, row),
                Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                None => return matrix.finish(),
            }
        }
    }

    fn url(&self, ip: IpAddr) -> String {
        format!("http://{}/mesh.json", SocketAddr::new(ip, self.port))
    }
}

async fn fetch(client: &Client, url: &str) -> Result<Row, Missing> {
    let sent = client.get(url).send().await;
    let mut response = sent.map_err(|error| missing(&error))?;
    if !response.status().is_success() {
        return Err(Missing::Status(response.status().as_u16()));
    }
    let body = read(&mut response).await?;
    serde_json::from_slice(&body).map_err(|_| Missing::Malformed)
}

async fn read(response: &mut Response) -> Result<Vec<u8>, Missing> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| missing(&error))? {
        if body.len() + piece.len() > MAX_BYTES {
            return Err(Missing::Malformed);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// Why a request failed, from the sources of reqwest's error.
fn missing(error: &reqwest::Error) -> Missing {
    let mut source = error.source();
    let (mut kind, mut is_http) = (None, true);
    while let Some(cause) = source {
        kind = kind.or(cause.downcast_ref::<io::Error>().map(io::Error::kind));
        is_http &= !cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_parse);
        source = cause.source();
    }
    if !is_http {
        return Missing::Malformed;
    }
    match (error.is_connect(), error.is_timeout(), kind) {
        (true, true, _) | (true, _, Some(io::ErrorKind::TimedOut)) => Missing::ConnectTimeout,
        (true, _, Some(io::ErrorKind::ConnectionRefused)) => Missing::Refused,
        (true, _, Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)) => {
            Missing::Unreachable
        }
        (_, true, _) => Missing::ResponseTimeout,
        _ => Missing::Broken,
    }
}
