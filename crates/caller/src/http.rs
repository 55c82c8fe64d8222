//! The HTTP half of a call: one connection to one address, one request, one answer. Nothing is
//! done behind the caller's back: no proxy, no redirect, no retry, no pooled connection.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use reqwest::{Client, Response, Url, redirect};
use tokio::time::{Instant, timeout, timeout_at};
use tower::BoxError;
use tower::util::MapFutureLayer;

use crate::report::{Answer, Failure, Kind};

/// A body over this many bytes is not read to its end.
const MAX_BODY: u64 = 1024 * 1024;

/// Of a body this many bytes are kept for the log.
const KEPT_BODY: usize = 4096;

/// The longest pod name that Kubernetes allows (a DNS subdomain, RFC 1123).
const MAX_POD_NAME: usize = 253;

const USER_AGENT: &str = concat!("caller/", env!("CARGO_PKG_VERSION"));

/// A request, to be sent to any address of the host.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) url: &'a Url,
    pub(crate) request_id: &'a str,
    pub(crate) connect_timeout: Duration,
    pub(crate) deadline: Instant,
}

/// What came of a request.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) connect: Option<Duration>,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) answer: Option<Answer>,
    pub(crate) failure: Option<Failure>,
}

/// The TCP handshake, as the connector saw it.
#[derive(Debug)]
struct Handshake {
    end: Instant,
    duration: Duration,
    failure: Option<(Kind, String)>,
}

impl Request<'_> {
    /// Sends the request to the first of `addresses` that takes a connection.
    pub(crate) async fn send(&self, addresses: &[SocketAddr]) -> Exchange {
        let mut first_failure = None;
        for &address in addresses {
            let exchange = self.send_to(address).await;
            if exchange.connect.is_some() {
                return exchange;
            }
            first_failure.get_or_insert(exchange);
        }
        first_failure.unwrap_or_default()
    }

    async fn send_to(&self, address: SocketAddr) -> Exchange {
        let handshake = Arc::new(Mutex::new(None));
        let start = Instant::now();
        let sent = match self.client(address, Arc::clone(&handshake)) {
            Ok(client) => {
                let request = client
                    .get(self.url.clone())
                    .header("x-request-id", self.request_id);
                timeout_at(self.deadline, request.send()).await
            }
            Err(error) => Ok(Err(error)),
        };
        let handshake = handshake
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let failed = |kind, what: &str| {
            Some(Failure {
                kind,
                evidence: format!("{address}: {what} after {:.1?}", start.elapsed()),
            })
        };
        let mut exchange = Exchange::default();
        let Some(handshake) = handshake else {
            // The deadline, and with it the client, went before the connector was done.
            exchange.failure = failed(Kind::ConnectTimeout, "connecting: no answer");
            return exchange;
        };
        if let Some((kind, what)) = handshake.failure {
            exchange.failure = failed(kind, &format!("connecting: {what}"));
            return exchange;
        }
        exchange.connect = Some(handshake.duration);
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
        exchange.first_byte = Some(handshake.end.elapsed());
        let mut answer = head(&response, address);
        let read = timeout_at(self.deadline, read_body(&mut response, &mut answer)).await;
        let status = response.status();
        exchange.failure = match read {
            Ok(Ok(())) if status.is_success() => None,
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

    /// A client for one call. Building one costs less than a microsecond, and holds on to nothing.
    fn client(
        &self,
        address: SocketAddr,
        handshake: Arc<Mutex<Option<Handshake>>>,
    ) -> reqwest::Result<Client> {
        let patience = self.connect_timeout;
        let timed = MapFutureLayer::new(move |connecting| {
            let handshake = Arc::clone(&handshake);
            async move {
                let start = Instant::now();
                let connected = timeout(patience, connecting).await;
                let failure = match &connected {
                    Ok(Ok(_)) => None,
                    Ok(Err(error)) => Some(while_connecting(error)),
                    Err(_) => Some((Kind::ConnectTimeout, "no answer".to_owned())),
                };
                *handshake.lock().unwrap_or_else(PoisonError::into_inner) = Some(Handshake {
                    end: Instant::now(),
                    duration: start.elapsed(),
                    failure,
                });
                connected.unwrap_or_else(|late| Err(late.into()))
            }
        });
        let host = self.url.host_str().unwrap_or_default();
        Client::builder()
            .user_agent(USER_AGENT)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .resolve_to_addrs(host, &[address])
            .connector_layer(timed)
            .build()
    }
}

fn head(response: &Response, address: SocketAddr) -> Answer {
    let pod = response.headers().get("x-pod-name").map(|name| {
        let name = name.as_bytes();
        let name = &name[..name.len().min(MAX_POD_NAME)];
        String::from_utf8_lossy(name).into_owned()
    });
    Answer {
        address,
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

fn while_connecting(error: &BoxError) -> (Kind, String) {
    let error = error.as_ref();
    let kind = match find::<io::Error>(error).map(io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => Kind::ConnectRefused,
        Some(ErrorKind::TimedOut) => Kind::ConnectTimeout,
        Some(ErrorKind::ConnectionReset) => Kind::Reset,
        _ => Kind::ConnectUnreachable,
    };
    (kind, root(error).to_string())
}

fn before_head(error: &reqwest::Error) -> Kind {
    if let Some(error) = find::<io::Error>(error) {
        return match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Kind::Reset,
            ErrorKind::TimedOut => Kind::ResponseTimeout,
            _ => Kind::EmptyReply,
        };
    }
    match find::<hyper::Error>(error) {
        Some(error) if error.is_parse() || error.is_parse_too_large() => Kind::Protocol,
        Some(error) if error.is_incomplete_message() => Kind::EmptyReply,
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
