//! The HTTP half of a call: one request to one address, one answer. Nothing is done behind the
//! caller's back: no proxy, no redirect, no retry, no pooled connection unless asked for.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use reqwest::{Client, Response, Url, redirect, retry};
use tokio::time::{Instant, timeout, timeout_at};
use tower::BoxError;
use tower::util::MapFutureLayer;

use crate::failure::FailureKind as Kind;
use crate::report::{Answer, Failure};
use crate::status::ExpectedStatus;
use crate::text::Millis;

/// A body over this many bytes is not read to its end.
const MAX_BODY: u64 = 1024 * 1024;

/// Of a body this many bytes are kept for the log.
const KEPT_BODY: usize = 4096;

/// The longest pod name that Kubernetes allows (a DNS subdomain, RFC 1123).
const MAX_POD_NAME: usize = 253;

const USER_AGENT: &str = concat!("caller/", env!("CARGO_PKG_VERSION"));

/// How requests are made.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The request's method.
    pub method: Method,
    /// Headers beside the caller's own.
    pub headers: HeaderMap,
    /// Which answers are a success.
    pub expected_status: ExpectedStatus,
    /// HTTP/2 with prior knowledge in place of HTTP/1.1.
    pub http2: bool,
    /// Use a connection for several calls.
    pub keep_alive: bool,
    /// Each TCP handshake.
    pub connect_timeout: Duration,
}

/// Sends requests.
#[derive(Debug)]
pub(crate) struct Http {
    config: HttpConfig,
    url: Url,
    /// The clients, and with them the connections, that are kept alive.
    kept: Mutex<HashMap<SocketAddr, Connector>>,
}

/// What came of a request.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) connect: Option<Duration>,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) answer: Option<Answer>,
    pub(crate) failure: Option<Failure>,
}

/// A client for one address, and what its connector saw last.
#[derive(Clone, Debug)]
struct Connector {
    client: Client,
    handshake: Arc<Mutex<Handshake>>,
}

/// A TCP handshake.
#[derive(Debug, Default)]
enum Handshake {
    /// There was none: a connection that was kept alive is used.
    #[default]
    None,
    /// It has begun.
    Begun,
    /// The connection stands.
    Done { end: Instant, took: Duration },
    /// It has failed.
    Failed(Kind, String),
}

impl Http {
    pub(crate) fn new(config: HttpConfig, url: Url) -> Self {
        Self {
            config,
            url,
            kept: Mutex::default(),
        }
    }

    /// Forgets the connections to all addresses but these.
    pub(crate) fn keep_only(&self, addresses: &[SocketAddr]) {
        self.kept().retain(|address, _| addresses.contains(address));
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Connector>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request to the first of `addresses` that takes a connection.
    pub(crate) async fn send(
        &self,
        addresses: &[SocketAddr],
        request_id: &str,
        deadline: Instant,
    ) -> Exchange {
        let mut first_failure = None;
        for &address in addresses {
            let exchange = self.send_to(address, request_id, deadline).await;
            let connected = match &exchange.failure {
                Some(failure) => !crate::report::is_before_connection(failure.kind),
                None => true,
            };
            if connected {
                return exchange;
            }
            first_failure.get_or_insert(exchange);
            if Instant::now() >= deadline {
                break;
            }
        }
        first_failure.unwrap_or_default()
    }

    async fn send_to(&self, address: SocketAddr, request_id: &str, deadline: Instant) -> Exchange {
        let exchange = self.exchange(address, request_id, deadline).await;
        if exchange.answer.is_none() {
            // A connection on which an answer did not come is not one to keep.
            self.kept().remove(&address);
        }
        exchange
    }

    async fn exchange(&self, address: SocketAddr, request_id: &str, deadline: Instant) -> Exchange {
        let start = Instant::now();
        let failed = |kind, what: &str| {
            Some(Failure {
                kind,
                evidence: format!("{address}: {what} after {}", Millis(Some(start.elapsed()))),
            })
        };
        let mut exchange = Exchange {
            address: Some(address),
            ..Exchange::default()
        };
        let Connector { client, handshake } = match self.connector(address) {
            Ok(connector) => connector,
            Err(error) => {
                exchange.failure = failed(Kind::Protocol, &root(&error).to_string());
                return exchange;
            }
        };
        let request = client
            .request(self.config.method.clone(), self.url.clone())
            .headers(self.config.headers.clone())
            .header("x-request-id", request_id);
        let sent = timeout_at(deadline, request.send()).await;
        let handshake = std::mem::take(&mut *lock(&handshake));
        let connected = match handshake {
            Handshake::None => start,
            Handshake::Done { end, took } => {
                exchange.connect = Some(took);
                end
            }
            Handshake::Begun => {
                exchange.failure = failed(Kind::ConnectTimeout, "connecting: no answer");
                return exchange;
            }
            Handshake::Failed(kind, what) => {
                exchange.failure = failed(kind, &format!("connecting: {what}"));
                return exchange;
            }
        };
        let mut response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                exchange.failure = failed(before_head(&error), &root(&error).to_string());
                return exchange;
            }
            Err(_) => {
                exchange.failure = failed(Kind::ResponseTimeout, "connected, then no answer");
                return exchange;
            }
        };
        exchange.first_byte = Some(connected.elapsed());
        let mut answer = head(&response);
        let read = timeout_at(deadline, read_body(&mut response, &mut answer)).await;
        let status = response.status();
        exchange.failure = match read {
            Ok(Ok(())) if self.config.expected_status.allows(status) => None,
            Ok(Ok(())) => failed(Kind::HttpStatus, &status_line(status)),
            Ok(Err(Body::TooLarge)) => failed(
                Kind::BodyTooLarge,
                &format!("over {MAX_BODY} bytes of body"),
            ),
            Ok(Err(Body::Broken(error))) => failed(
                in_body(&error),
                &format!("{} after {} bytes of body", root(&error), answer.body_len),
            ),
            Err(_) => failed(
                Kind::ResponseTimeout,
                &format!("no more than {} bytes of body", answer.body_len),
            ),
        };
        exchange.answer = Some(answer);
        exchange
    }

    /// A client for this address: a new one, or the one that has a connection to it.
    fn connector(&self, address: SocketAddr) -> reqwest::Result<Connector> {
        if !self.config.keep_alive {
            return self.new_connector(address);
        }
        let mut kept = self.kept();
        if let Some(connector) = kept.get(&address) {
            return Ok(connector.clone());
        }
        let connector = self.new_connector(address)?;
        kept.insert(address, connector.clone());
        Ok(connector)
    }

    /// Building a client costs less than a microsecond, and it holds on to nothing but its pool.
    fn new_connector(&self, address: SocketAddr) -> reqwest::Result<Connector> {
        let handshake = Arc::new(Mutex::new(Handshake::None));
        let seen = Arc::clone(&handshake);
        let patience = self.config.connect_timeout;
        let timed = MapFutureLayer::new(move |connecting| {
            let seen = Arc::clone(&seen);
            async move {
                let start = Instant::now();
                *lock(&seen) = Handshake::Begun;
                let connected = timeout(patience, connecting).await;
                *lock(&seen) = match &connected {
                    Ok(Ok(_)) => Handshake::Done {
                        end: Instant::now(),
                        took: start.elapsed(),
                    },
                    Ok(Err(error)) => while_connecting(error),
                    Err(_) => Handshake::Failed(Kind::ConnectTimeout, "no answer".to_owned()),
                };
                connected.unwrap_or_else(|late| Err(late.into()))
            }
        });
        let host = self.url.host_str().unwrap_or_default();
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .pool_max_idle_per_host(usize::from(self.config.keep_alive))
            .resolve_to_addrs(host, &[address])
            .connector_layer(timed);
        if self.config.http2 {
            builder = builder.http2_prior_knowledge();
        } else {
            builder = builder.http1_only();
        }
        let client = builder.build()?;
        Ok(Connector { client, handshake })
    }
}

fn lock(handshake: &Mutex<Handshake>) -> std::sync::MutexGuard<'_, Handshake> {
    handshake.lock().unwrap_or_else(PoisonError::into_inner)
}

fn head(response: &Response) -> Answer {
    let pod = response.headers().get("x-pod-name").map(|name| {
        let name = name.as_bytes();
        let name = &name[..name.len().min(MAX_POD_NAME)];
        String::from_utf8_lossy(name).into_owned()
    });
    Answer {
        status: response.status().as_u16(),
        pod,
        body: Vec::new(),
        body_len: 0,
    }
}

enum Body {
    TooLarge,
    Broken(reqwest::Error),
}

async fn read_body(response: &mut Response, answer: &mut Answer) -> Result<(), Body> {
    while let Some(chunk) = response.chunk().await.map_err(Body::Broken)? {
        let room = KEPT_BODY - answer.body.len();
        answer
            .body
            .extend_from_slice(&chunk[..chunk.len().min(room)]);
        answer.body_len += chunk.len() as u64;
        if answer.body_len > MAX_BODY {
            return Err(Body::TooLarge);
        }
    }
    Ok(())
}

fn status_line(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("HTTP {} {reason}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    }
}

fn while_connecting(error: &BoxError) -> Handshake {
    let error = error.as_ref();
    let kind = match find::<io::Error>(error).map(io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => Kind::ConnectRefused,
        Some(ErrorKind::TimedOut) => Kind::ConnectTimeout,
        Some(ErrorKind::ConnectionReset) => Kind::Reset,
        // A policy on this side of the network shows as EPERM or EACCES.
        Some(
            ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::PermissionDenied,
        ) => Kind::ConnectUnreachable,
        _ => Kind::Local,
    };
    Handshake::Failed(kind, root(error).to_string())
}

fn before_head(error: &reqwest::Error) -> Kind {
    if let Some(error) = find::<io::Error>(error) {
        return match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Kind::Reset,
            ErrorKind::TimedOut => Kind::ResponseTimeout,
            ErrorKind::UnexpectedEof => Kind::EmptyReply,
            _ => Kind::Protocol,
        };
    }
    match find::<hyper::Error>(error) {
        // Canceled: closed in the moment between the handshake and the request.
        Some(error)
            if error.is_incomplete_message() || error.is_closed() || error.is_canceled() =>
        {
            Kind::EmptyReply
        }
        _ => Kind::Protocol,
    }
}

fn in_body(error: &reqwest::Error) -> Kind {
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(ErrorKind::ConnectionReset) => Kind::Reset,
        Some(ErrorKind::TimedOut) => Kind::ResponseTimeout,
        Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => Kind::Protocol,
        _ => Kind::Incomplete,
    }
}

/// The first error of a type in a chain of sources.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The error at the bottom of a chain, which says what happened; those above say to whom.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
