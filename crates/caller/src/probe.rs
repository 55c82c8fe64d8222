//! A call, from the name to the last byte of the answer.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::dns::{Lookup, Resolver};
use crate::http::{Exchange, Http, HttpConfig};
use crate::report::{Failure, Phases, Report};

/// With `--each-address`, how many are called at once: enough that a few dead ones do not hold up
/// the rest, and few enough to bound memory.
const AT_ONCE: usize = 16;

/// Words that are no hosts, unless a URL says so.
const SUBCOMMANDS: [&str; 3] = ["once", "resolve", "diagnose"];

/// Where to call: `http://HOST[:PORT][/PATH]`; without a scheme, `http` is meant, as with curl.
#[derive(Clone, Debug)]
pub struct Target {
    url: Url,
    /// What DNS is asked for, or the address itself.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

/// A host, as a URL has it.
#[derive(Clone, Debug)]
pub enum Host {
    /// To be resolved.
    Name(String),
    /// Not to be resolved.
    Address(IpAddr),
    /// This machine, and never a question for DNS (RFC 6761, section 6.3).
    Localhost,
}

/// The text is not something to call.
#[derive(Debug, thiserror::Error)]
pub enum ParseTargetError {
    /// It is not a URL at all.
    #[error("not a URL: {0}")]
    NotAUrl(String),
    /// It is another scheme's URL.
    #[error("only http:// can be called")]
    NotHttp,
    /// It is a subcommand that is taken for a host, because a flag came before it.
    #[error(
        "flags go after the subcommand: `caller {0} --flag`; a host of that name is http://{0}/"
    )]
    Subcommand(String),
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if SUBCOMMANDS.contains(&text) {
            return Err(ParseTargetError::Subcommand(text.to_owned()));
        }
        let parsed = match text.contains("://") {
            true => Url::parse(text),
            false => Url::parse(&format!("http://{text}")),
        };
        let url = parsed.map_err(|error| ParseTargetError::NotAUrl(error.to_string()))?;
        if url.scheme() != "http" {
            return Err(ParseTargetError::NotHttp);
        }
        let name = url.host_str().unwrap_or_default();
        let host = match name.trim_matches(['[', ']']).parse() {
            Ok(address) => Host::Address(address),
            Err(_) if matches!(name, "localhost" | "localhost.") => Host::Localhost,
            Err(_) => Host::Name(name.to_owned()),
        };
        let port = url.port_or_known_default().unwrap_or_default();
        Ok(Self { url, host, port })
    }
}

impl std::fmt::Display for Target {
    /// Without user, password and query, which are nobody's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        write!(f, "http://{host}:{}{}", self.port, self.url.path())
    }
}

/// How to call.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// Where to call.
    pub target: Target,
    /// How names are resolved.
    pub resolver: Resolver,
    /// How requests are made.
    pub http: HttpConfig,
    /// The whole call.
    pub timeout: Duration,
    /// Call every address of the name, not only the first that takes a connection.
    pub each_address: bool,
}

/// Calls a target, as often as it is asked to.
#[derive(Debug)]
pub struct Probe {
    config: ProbeConfig,
    http: Arc<Http>,
}

impl Probe {
    /// Makes ready to call; nothing is sent.
    pub fn new(config: ProbeConfig) -> Self {
        let http = Http::new(config.http.clone(), config.target.url.clone());
        Self {
            config,
            http: Arc::new(http),
        }
    }

    /// Calls once, or each address once, and gives a report of each call as it ends. Whatever goes
    /// wrong is in the reports; there is always one.
    pub async fn round(&self, mut ended: impl FnMut(Report)) {
        let started = Timestamp::now();
        let start = Instant::now();
        let deadline = start + self.config.timeout;
        let (lookup, addresses) = self.addresses(deadline).await;
        let addresses = match addresses {
            Ok(addresses) => addresses,
            Err(failure) => {
                let exchange = Exchange {
                    failure: Some(failure),
                    ..Exchange::default()
                };
                ended(report(
                    started,
                    new_request_id(),
                    lookup,
                    exchange,
                    start.elapsed(),
                ));
                return;
            }
        };
        self.http.keep_only(&addresses);
        if !self.config.each_address {
            let id = new_request_id();
            let exchange = self.http.send(&addresses, &id, deadline).await;
            ended(report(started, id, lookup, exchange, start.elapsed()));
            return;
        }
        let mut calls = JoinSet::new();
        for address in addresses {
            if calls.len() >= AT_ONCE
                && let Some(Ok(report)) = calls.join_next().await
            {
                ended(report);
            }
            let (http, lookup, timeout) =
                (Arc::clone(&self.http), lookup.clone(), self.config.timeout);
            calls.spawn(async move {
                let start = Instant::now();
                let id = new_request_id();
                let exchange = http.send(&[address], &id, start + timeout).await;
                let resolved = lookup.as_ref().map_or(Duration::ZERO, |l| l.duration);
                // Its own time, without that of waiting for its turn.
                let total = resolved + start.elapsed();
                report(started, id, lookup, exchange, total)
            });
        }
        while let Some(Ok(report)) = calls.join_next().await {
            ended(report);
        }
    }

    /// The addresses to call, and how they were found.
    async fn addresses(
        &self,
        deadline: Instant,
    ) -> (Option<Arc<Lookup>>, Result<Vec<SocketAddr>, Failure>) {
        let Target { host, port, .. } = &self.config.target;
        let resolver = &self.config.resolver;
        let (lookup, ips) = match host {
            Host::Address(address) => (None, Ok(vec![*address])),
            Host::Localhost | Host::Name(_) => {
                let name = match host {
                    Host::Name(name) => name,
                    _ => "localhost",
                };
                let lookup = resolver.lookup(name, deadline).await;
                let ips = lookup
                    .outcome
                    .as_ref()
                    .map(Vec::clone)
                    .map_err(|failure| Failure {
                        kind: failure.kind(),
                        evidence: crate::verdict::dns::evidence(&lookup, failure),
                    });
                (Some(Arc::new(lookup)), ips)
            }
        };
        let with_port = |ip| SocketAddr::new(ip, *port);
        (
            lookup,
            ips.map(|ips| ips.into_iter().map(with_port).collect()),
        )
    }
}

fn new_request_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}

fn report(
    started: Timestamp,
    request_id: String,
    lookup: Option<Arc<Lookup>>,
    exchange: Exchange,
    total: Duration,
) -> Report {
    let Exchange {
        address,
        connect,
        first_byte,
        answer,
        failure,
    } = exchange;
    Report {
        started,
        request_id,
        address,
        phases: Phases {
            dns: lookup.as_ref().map(|lookup| lookup.duration),
            connect,
            first_byte,
            total,
        },
        lookup,
        answer,
        failure,
    }
}
