//! Serves the requests of a connection: passes them from hyper to the [`Handler`](super::Handler).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout};

use super::activity::Activity;
use super::client::Client;
use super::handler::{Arrival, Reply};
use super::lifecycle::Phase;
use super::limits::MAX_KEPT;
use super::request;
use crate::body::{Body, PIECE};

/// Header values of more than this many bytes, in responses over HTTP/2, are counted while they wait to be sent.
const LARGE_VALUE: usize = 1024;

/// The service that hyper calls for each request of a connection.
pub(super) struct Service(pub(super) Arc<Client>);

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn call(&self, request: Request<Incoming>) -> ResponseFuture {
        let Self(client) = self;
        let (head, body) = request.into_parts();
        let origin = Origin {
            version: head.version,
            is_last: body.is_end_stream() && says_close(&head),
            arrival: Arrival {
                peer: client.peer,
                at: Instant::now().into_std(),
            },
        };
        let is_complete = body.is_end_stream() || head.method == Method::CONNECT;
        if let Err((status, reason)) = request::check(&head) {
            let refusal = origin.refusal(status, reason);
            return ResponseFuture::Now(Some(client.finish(refusal, origin, !is_complete)));
        }
        if !is_complete {
            if let Err(reason) = request::check_body(&head) {
                let refusal = origin.refusal(StatusCode::BAD_REQUEST, reason);
                return ResponseFuture::Now(Some(client.finish(refusal, origin, true)));
            }
            let Some(kept) = Kept::new(client, request::size_to_keep(&head)) else {
                let refusal = origin.refusal(TOO_MUCH_KEPT.0, TOO_MUCH_KEPT.1);
                return ResponseFuture::Now(Some(client.finish(refusal, origin, true)));
            };
            let head = request::keep_head(&head);
            let client = Arc::clone(client);
            return ResponseFuture::Later(Box::pin(
                client.respond_after_body(head, kept, body, origin),
            ));
        }
        match client.shared.handler.answer(&head, origin.arrival) {
            Reply::Now(response) => {
                ResponseFuture::Now(Some(client.finish(response, origin, false)))
            }
            Reply::Later(response) => {
                // It keeps as much of the head as a request with a body does.
                let Some(kept) = Kept::new(client, request::size_to_keep(&head)) else {
                    let refusal = origin.refusal(TOO_MUCH_KEPT.0, TOO_MUCH_KEPT.1);
                    return ResponseFuture::Now(Some(client.finish(refusal, origin, false)));
                };
                let client = Arc::clone(client);
                ResponseFuture::Later(Box::pin(async move {
                    let owed = client.activity.begin_response();
                    let response = response.await;
                    drop((owed, kept));
                    client.finish(response, origin, false)
                }))
            }
        }
    }
}

/// A response, or a future of one. Connections keep room for it, so it is small: a future is in a box.
pub(super) enum ResponseFuture {
    Now(Option<Response<Outgoing>>),
    Later(Pin<Box<dyn Future<Output = Response<Outgoing>> + Send>>),
}

impl Future for ResponseFuture {
    type Output = Result<Response<Outgoing>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(response) => {
                let response = response.take().expect("it is not polled again");
                Poll::Ready(Ok(response))
            }
            Self::Later(response) => response.as_mut().poll(cx).map(Ok),
        }
    }
}

/// The body of a response. While a large one is being sent, its connection is not parked.
pub(super) struct Outgoing {
    body: Body,
    _sending: Option<Sending>,
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Until this is dropped, hyper has not taken all of a large response, and its connection is not parked.
struct Sending(Arc<Activity>);

impl Sending {
    fn new(client: &Client) -> Self {
        client.activity.set_sending(true);
        Self(Arc::clone(&client.activity))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.set_sending(false);
    }
}

/// What making a response needs to know of its request.
#[derive(Clone, Copy)]
struct Origin {
    version: Version,
    /// The client has said that it sends no other request, and has sent all of this one.
    is_last: bool,
    arrival: Arrival,
}

impl Origin {
    /// A response that refuses the request. It closes the connection of an HTTP/1 client.
    fn refusal(self, status: StatusCode, reason: &'static str) -> Response<Body> {
        let mut response = Response::new(reason.into());
        *response.status_mut() = status;
        if self.version <= Version::HTTP_11 {
            close(&mut response);
        }
        response
    }
}

impl Client {
    /// Receives and discards the body of a request, and then responds.
    async fn respond_after_body(
        self: Arc<Self>,
        head: Parts,
        kept: Kept,
        body: Incoming,
        origin: Origin,
    ) -> Response<Outgoing> {
        let limits = &self.shared.limits;
        let discarded = {
            let _awaited = self.activity.await_body();
            timeout(limits.header_timeout, discard(body, limits.max_body)).await
        };
        let (status, reason) = match discarded {
            Ok(Discarded::All) => {
                let _owed = self.activity.begin_response();
                let response = match self.shared.handler.answer(&head, origin.arrival) {
                    Reply::Now(response) => response,
                    Reply::Later(response) => response.await,
                };
                drop(kept);
                return self.finish(response, origin, false);
            }
            Ok(Discarded::TooLarge) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "413 Content Too Large: the request body is over the limit\n",
            ),
            Ok(Discarded::Broken) => (
                StatusCode::BAD_REQUEST,
                "400 Bad Request: the request body is broken\n",
            ),
            Err(_) => (
                StatusCode::REQUEST_TIMEOUT,
                "408 Request Timeout: the request body did not come in time\n",
            ),
        };
        self.finish(origin.refusal(status, reason), origin, true)
    }

    /// Counts a response and makes it ready to be sent. `cut_short` says that its request has not ended yet.
    fn finish(
        self: &Arc<Self>,
        mut response: Response<Body>,
        origin: Origin,
        cut_short: bool,
    ) -> Response<Outgoing> {
        if origin.version == Version::HTTP_2 && self.count_large_values(&mut response).is_none() {
            response = origin.refusal(TOO_MUCH_KEPT.0, TOO_MUCH_KEPT.1);
        }
        let now = Instant::now();
        let took = now.into_std() - origin.arrival.at;
        self.shared
            .metrics
            .responded(response.status().as_u16(), took);
        let is_evicted = self.shared.table.claim_eviction(&self.activity);
        if is_evicted {
            self.shared.evicted(1, "all connections are busy");
        }
        if origin.version > Version::HTTP_11 {
            if is_evicted {
                self.activity.request_graceful_shutdown();
            }
        } else if is_evicted || *self.shared.phase.borrow() != Phase::Serving {
            close(&mut response);
        }
        let streaming = matches!(response.body(), Body::Stream(_));
        let is_last = origin.is_last && !cut_short;
        self.activity
            .on_response(now, streaming, is_last, cut_short);
        let size = response.body().size_hint().lower();
        let sending = (size > PIECE as u64).then(|| Sending::new(self));
        response.map(|body| Outgoing {
            body,
            _sending: sending,
        })
    }

    /// Counts the large header values of a response until they have been sent, because the client decides when
    /// that is, and with X-Request-Id how large they are. Returns `None` if there would be too much, or if the
    /// client reads no responses. (Nothing else bounds what h2 has encoded: large fields make its buffer grow
    /// past the size at which it counts as full.)
    fn count_large_values(self: &Arc<Self>, response: &mut Response<Body>) -> Option<()> {
        for value in response.headers_mut().values_mut() {
            if value.len() > LARGE_VALUE {
                if self.activity.is_blocked() {
                    return None;
                }
                let counted = KeptValue {
                    value: value.as_bytes().into(),
                    _kept: Kept::new(self, value.len())?,
                };
                *value = HeaderValue::from_maybe_shared(Bytes::from_owner(counted)).ok()?;
            }
        }
        Some(())
    }
}

const TOO_MUCH_KEPT: (StatusCode, &str) = (
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    "431 Request Header Fields Too Large: with those of other requests that are not complete\n",
);

/// Counts bytes that are kept for a client until dropped.
struct Kept {
    client: Arc<Client>,
    bytes: usize,
}

/// A header value of a response that has not been sent yet.
struct KeptValue {
    value: Box<[u8]>,
    _kept: Kept,
}

impl Kept {
    /// Returns `None` if the client would have more than [`MAX_KEPT`] bytes.
    fn new(client: &Arc<Client>, bytes: usize) -> Option<Self> {
        client.activity.try_keep(bytes, MAX_KEPT).then(|| Self {
            client: Arc::clone(client),
            bytes,
        })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.client.activity.release(self.bytes);
    }
}

impl AsRef<[u8]> for KeptValue {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

/// Whether the client says that this is its last request, in the usual form. Hyper understands the other forms;
/// where one is missed here, the connection ends with one packet more.
fn says_close(head: &Parts) -> bool {
    let connection = head.headers.get(CONNECTION);
    connection.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Asks an HTTP/1 client to close the connection.
fn close(response: &mut Response<Body>) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

/// How receiving a body has ended.
enum Discarded {
    /// All of it has been received.
    All,
    /// It is longer than the limit.
    TooLarge,
    /// It breaks the rules of HTTP, or the connection has ended.
    Broken,
}

/// Receives a body of at most `max` bytes and discards it.
async fn discard(mut body: Incoming, max: u64) -> Discarded {
    let mut left = max;
    // A declared length over the limit is refused before the client is asked to send any of the body.
    if body.size_hint().lower() > max {
        return Discarded::TooLarge;
    }
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Discarded::Broken;
        };
        let len = frame.data_ref().map_or(0, |data| data.len() as u64);
        match left.checked_sub(len) {
            Some(rest) => left = rest,
            None => return Discarded::TooLarge,
        }
    }
    Discarded::All
}
