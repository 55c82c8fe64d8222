//! Sends a request on an established connection and reads the response. No proxy is used, no redirect is followed, and
//! nothing is retried.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::conclude::Conclusion;
use super::config::{CaptureLimits, HttpConfig};
use super::proxy;
use super::request::{REQUEST_ID, RequestOptions, request};
use super::stream::Stream;
use super::tap::{Evidence, Tap};
use crate::failure::{Cause, FailureKind, MAX_EVIDENCE, Received};
use crate::report::{Response, Tls, Wire};
use crate::target::Target;

/// Most header fields in a response. curl has no such limit, and hyper's default is 100. A thousand fields take
/// 64 KB while a head is being parsed; with more, the allocator would return the memory to the system after each
/// call, and request it again.
const MAX_FIELDS: usize = 1000;

/// The longest pod name that Kubernetes allows (a DNS subdomain, RFC 1123).
const MAX_POD_NAME: usize = 253;

const POD_NAME: HeaderName = HeaderName::from_static("x-pod-name");
const NODE_NAME: HeaderName = HeaderName::from_static("x-node-name");
const LISTEN_OVERFLOWS: HeaderName = HeaderName::from_static("x-listen-overflows");
const PEER_ADDRESS: HeaderName = HeaderName::from_static("x-peer-address");

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    /// TLS version, protocol and certificate, over TLS.
    pub(super) tls: Option<Arc<Tls>>,
    /// Local address of the connection.
    pub(super) local: Option<SocketAddr>,
    evidence: Evidence,
    /// When the last response ended; `None` for a new connection.
    idle_since: Option<Instant>,
    _driver: AbortOnDrop,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// The task that drives a connection; it is aborted with the connection.
#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Result of a request.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Time from sending the request to the end of the response's head; `None` if the head was not received.
    pub(super) first_byte: Option<Duration>,
    pub(super) outcome: Result<Response, ExchangeError>,
}

/// Why a request failed, and as much of the response as was received.
#[derive(Debug)]
pub(super) struct ExchangeError {
    pub(super) kind: FailureKind,
    pub(super) cause: Cause,
    pub(super) received: Received,
    pub(super) idle: Option<Duration>,
    pub(super) response: Option<Response>,
}

impl Connection {
    /// Prepares a connection for requests. For HTTP/2, this sends the connection preface.
    pub(super) async fn new(
        stream: Stream,
        tls: Option<Arc<Tls>>,
        local: Option<SocketAddr>,
        config: &HttpConfig,
    ) -> hyper::Result<Self> {
        let (tap, evidence) = Tap::new(stream, config.capture.wire);
        let io = TokioIo::new(tap);
        let (sender, driver) = if config.http2 {
            let builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.handshake(io).await?;
            (Sender::Http2(sender), tokio::spawn(drop_result(connection)))
        } else {
            // As lenient as curl, so that every response that curl accepts is accepted here.
            let (sender, connection) = http1::Builder::new()
                .max_headers(MAX_FIELDS)
                .allow_obsolete_multiline_headers_in_responses(true)
                .allow_spaces_after_header_name_in_responses(true)
                .ignore_invalid_headers_in_responses(true)
                .handshake(io)
                .await?;
            (Sender::Http1(sender), tokio::spawn(drop_result(connection)))
        };
        Ok(Self {
            sender,
            tls,
            local,
            evidence,
            idle_since: None,
            _driver: AbortOnDrop(driver.abort_handle()),
        })
    }

    /// Whether another request can be sent. For HTTP/1, this waits until hyper has finished with the last
    /// response.
    pub(super) async fn is_reusable(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok() && !sender.is_closed(),
        }
    }

    /// Sends a request and reads the response.
    pub(super) async fn exchange(
        &mut self,
        config: &HttpConfig,
        target: &Target,
        options: RequestOptions<'_>,
        deadline: Instant,
    ) -> Exchange {
        let start = Instant::now();
        let idle = self.idle_since.map(|since| since.elapsed());
        let failed = |evidence: &Evidence, conclude: Conclusion, response: Option<Response>| {
            let (mut received, end) = evidence.get();
            received.body = response.as_ref().map(|response| response.body_len);
            let (kind, cause) = conclude.kind_and_cause(end, &received);
            ExchangeError {
                kind,
                cause,
                received,
                idle,
                response,
            }
        };
        self.evidence.start_request();
        let request = request(config, target, options, self.sender.version());
        let incoming = match timeout_at(deadline, self.sender.send(request)).await {
            Ok(Ok(incoming)) => incoming,
            ended => {
                let error = ended.ok().and_then(Result::err);
                let conclude = error.map_or(Conclusion::Timeout, Conclusion::Broken);
                return Exchange {
                    first_byte: None,
                    outcome: Err(failed(&self.evidence, conclude, None)),
                };
            }
        };
        let first_byte = Some(start.elapsed());
        let (head, mut body) = incoming.into_parts();
        let mut response = Response {
            status: head.status,
            pod: text(&head.headers, &POD_NAME, MAX_POD_NAME),
            node: text(&head.headers, &NODE_NAME, MAX_POD_NAME),
            echoed: head.headers.get(REQUEST_ID).map_or(0, HeaderValue::len),
            peer_address: peer_address(&head.headers),
            listen_overflows: text(&head.headers, &LISTEN_OVERFLOWS, MAX_EVIDENCE)
                .and_then(|text| text.parse().ok()),
            location: text(&head.headers, &LOCATION, MAX_EVIDENCE),
            proxy: None,
            wire: self.wire(config.capture),
            body: Vec::new(),
            body_len: 0,
        };
        let mut last_part = Instant::now();
        let read = read_body(&mut body, &mut response, config.capture, &mut last_part);
        let read = timeout_at(deadline, read).await;
        response.proxy = proxy::author(head.status, &head.headers, &response.body);
        let conclude = match read {
            Ok(Ok(())) => {
                self.idle_since = Some(Instant::now());
                if config.expected_status.allows(response.status) {
                    let outcome = Ok(response);
                    return Exchange {
                        first_byte,
                        outcome,
                    };
                }
                match response.proxy {
                    Some(_) => Conclusion::Known(FailureKind::ProxyError, Cause::Status),
                    None => Conclusion::Known(FailureKind::HttpStatus, Cause::Status),
                }
            }
            Ok(Err(BodyError::TooLarge)) => Conclusion::Known(
                FailureKind::BodyTooLarge,
                Cause::TooLarge(config.capture.max_body),
            ),
            Ok(Err(BodyError::Broken(error))) => Conclusion::Broken(error),
            Err(_) => Conclusion::Timeout,
        };
        let mut error = failed(&self.evidence, conclude, Some(response));
        error.received.silence = last_part.elapsed();
        Exchange {
            first_byte,
            outcome: Err(error),
        }
    }
}

impl Connection {
    /// The request and the response's head as sent on the wire; `None` if they are not kept.
    fn wire(&self, capture: CaptureLimits) -> Option<Box<Wire>> {
        let (received, _) = (capture.wire > Received::KEPT).then(|| self.evidence.get())?;
        let head = received.start;
        let end = head.windows(4).position(|four| four == b"\r\n\r\n");
        Some(Box::new(Wire {
            request: self.evidence.sent(),
            head: head[..end.map_or(head.len(), |end| end + 4)].to_vec(),
        }))
    }
}

impl Sender {
    async fn send(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> hyper::Result<http::Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }

    fn version(&self) -> Version {
        match self {
            Self::Http1(_) => Version::HTTP_11,
            Self::Http2(_) => Version::HTTP_2,
        }
    }
}

/// Ignores the result of a connection task: how the connection ended is recorded by [`Tap`] and reported to
/// the sender of the request.
async fn drop_result<T, E>(connection: impl Future<Output = Result<T, E>>) {
    let _ = connection.await;
}

fn text(headers: &HeaderMap, name: &HeaderName, max: usize) -> Option<String> {
    let value = headers.get(name)?.as_bytes();
    Some(String::from_utf8_lossy(&value[..value.len().min(max)]).into_owned())
}

/// The source address that the backend saw. An IPv4-mapped IPv6 address is converted to IPv4.
fn peer_address(headers: &HeaderMap) -> Option<SocketAddr> {
    let text = headers.get(PEER_ADDRESS)?.to_str().ok()?;
    let address: SocketAddr = text.parse().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

enum BodyError {
    TooLarge,
    Broken(hyper::Error),
}

/// Reads the body to its end, and keeps when its last part came.
async fn read_body(
    body: &mut Incoming,
    response: &mut Response,
    capture: CaptureLimits,
    last_part: &mut Instant,
) -> Result<(), BodyError> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else {
            continue;
        };
        *last_part = Instant::now();
        let room = capture.body - response.body.len();
        let kept = &data[..data.len().min(room)];
        response.body.extend_from_slice(kept);
        response.body_len += data.len() as u64;
        if response.body_len > capture.max_body {
            return Err(BodyError::TooLarge);
        }
    }
    Ok(())
}
