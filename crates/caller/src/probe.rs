//! A call, from the name to the last byte of the answer.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use tokio::time::Instant;

use crate::dns::Resolver;
use crate::http::{Exchange, Request};
use crate::report::{Phases, Report};

/// Where to call: `http://HOST[:PORT][/PATH]`; without a scheme, `http` is meant, as with curl.
#[derive(Clone, Debug)]
pub struct Target {
    url: Url,
    host: Host,
    port: u16,
}

#[derive(Clone, Debug)]
enum Host {
    Name(String),
    Address(IpAddr),
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
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
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
            // RFC 6761, section 6.3: never a question for DNS.
            Err(_) if name == "localhost" => Host::Address(std::net::Ipv4Addr::LOCALHOST.into()),
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

/// Calls a target, as often as it is asked to.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Where to call.
    pub target: Target,
    /// How names are resolved.
    pub resolver: Resolver,
    /// The whole call.
    pub timeout: Duration,
    /// Each TCP handshake.
    pub connect_timeout: Duration,
}

impl Probe {
    /// Calls once. Whatever goes wrong is in the report.
    pub async fn call(&self) -> Report {
        let started = Timestamp::now();
        let start = Instant::now();
        let deadline = start + self.timeout;
        let request_id = format!("{:016x}", rand::random::<u64>());
        let lookup = match &self.target.host {
            Host::Name(name) => Some(self.resolver.lookup(name, deadline).await),
            Host::Address(_) => None,
        };
        let addresses = match (&self.target.host, &lookup) {
            (Host::Address(address), _) => Ok(vec![*address]),
            (_, Some(lookup)) => lookup.outcome.clone(),
            (Host::Name(_), None) => Ok(Vec::new()),
        };
        let exchange = match addresses {
            Ok(addresses) => {
                let with_port = |ip| SocketAddr::new(ip, self.target.port);
                let addresses: Vec<SocketAddr> = addresses.into_iter().map(with_port).collect();
                let request = Request {
                    url: &self.target.url,
                    request_id: &request_id,
                    connect_timeout: self.connect_timeout,
                    deadline,
                };
                request.send(&addresses).await
            }
            Err(failure) => Exchange {
                failure: Some(failure.into()),
                ..Exchange::default()
            },
        };
        let Exchange {
            connect,
            first_byte,
            answer,
            failure,
        } = exchange;
        Report {
            started,
            request_id,
            phases: Phases {
                dns: lookup.as_ref().map(|lookup| lookup.duration),
                connect,
                first_byte,
                total: start.elapsed(),
            },
            lookup,
            answer,
            failure,
        }
    }
}
