//! One connection, from its first byte to its last: what it is refused, how long it may wait, and how
//! it is asked to leave.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::activity::Activity;
use crate::metrics::ServerMetrics;
use crate::server::{Handler, Limits, Phase};
use crate::socket;

/// Most bytes of a request's head, and of unread pipelined requests.
const MAX_HEAD: usize = 32 * 1024;

/// HTTP/2: requests at once, bytes of one's head, and bytes of bodies in transit, for each connection.
const MAX_STREAMS: u32 = 32;
const MAX_HEADER_LIST: u32 = 16 * 1024;
const STREAM_WINDOW: u32 = 64 * 1024;

/// Serves a connection until it ends, by the client's wish, a timeout or the phase; then gives back
/// the permit.
pub(crate) async fn serve<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    handler: H,
    limits: Limits,
    phase: watch::Receiver<Phase>,
    metrics: Arc<ServerMetrics>,
    _permit: OwnedSemaphorePermit,
) {
    let _open = metrics.connection();
    let activity = Arc::new(Activity::new());
    let Some((socket, http2)) =
        socket::first_bytes(stream, &activity, &limits, phase.clone()).await
    else {
        return;
    };
    let io = TokioIo::new(socket);
    let requests = Arc::new(Requests {
        peer,
        handler,
        limits,
        phase: phase.clone(),
        activity: Arc::clone(&activity),
        metrics,
    });
    let service = service_fn(move |request| Arc::clone(&requests).answer(request));

    let ended = if H::HTTP2 && http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .serve_connection(io, service);
        // In a box, so that it takes no room in the connections that are not HTTP/2.
        let mut connection = Box::pin(connection);
        let leave = |connection: Pin<&mut http2::Connection<_, _, _>>| {
            connection.graceful_shutdown();
        };
        drive(connection.as_mut(), leave, &activity, &limits, phase, true).await
    } else {
        let connection = http1::Builder::new()
            // A client that has said all that it wants to say still wants the answer.
            .half_close(true)
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD)
            .writev(false)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        let leave = |connection: Pin<&mut http1::Connection<_, _>>| {
            connection.graceful_shutdown();
        };
        drive(connection.as_mut(), leave, &activity, &limits, phase, false).await
    };
    if let Err(error) = ended {
        debug!(client.addr = %peer, %error, "connection ended");
    }
}

/// Runs hyper's connection; asks it to `leave` when the phase says so, drops it when it is late.
async fn drive<C, E>(
    mut connection: Pin<&mut C>,
    leave: impl Fn(Pin<&mut C>),
    activity: &Activity,
    limits: &Limits,
    mut phase: watch::Receiver<Phase>,
    http2: bool,
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    let mut timer = pin!(sleep_until(activity.check_at(limits)));
    let mut leaving = false;
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::Cut {
            return Ok(());
        }
        // An HTTP/1 client leaves with its next answer, which says `Connection: close`; one that
        // waits between two requests is let go when the port is closed. GOAWAY tells an HTTP/2
        // client race-free, but not before it has had an answer: some give up otherwise.
        let due = || match (http2, now) {
            (true, Phase::LameDuck) => activity.has_served() && activity.idle(),
            (true, Phase::Draining) => true,
            (false, Phase::Draining) => activity.idle(),
            _ => false,
        };
        let step = poll_fn(|cx| {
            if !leaving && due() {
                leaving = true;
                leave(connection.as_mut());
            }
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() && !leaving && due() {
                // It came to rest in this very poll: come back to tell it to leave.
                cx.waker().wake_by_ref();
            }
            polled
        });
        tokio::select! {
            biased;
            ended = step => return ended,
            changed = phase.changed() => {
                if changed.is_err() {
                    // The server itself is gone, so the process is ending.
                    return Ok(());
                }
            }
            () = timer.as_mut() => {
                if !activity.late(limits) {
                    timer.as_mut().reset(activity.check_at(limits));
                } else if http2 && !leaving {
                    // A request may be on the way: GOAWAY lets it in, once.
                    leaving = true;
                    leave(connection.as_mut());
                    timer.as_mut().reset(Instant::now() + limits.header_timeout);
                } else {
                    return Ok(());
                }
            }
        }
    }
}

/// What every request of a connection needs.
struct Requests<H> {
    peer: SocketAddr,
    handler: H,
    limits: Limits,
    phase: watch::Receiver<Phase>,
    activity: Arc<Activity>,
    metrics: Arc<ServerMetrics>,
}

impl<H: Handler> Requests<H> {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<H::Body>, Infallible> {
        let start = Instant::now();
        let http1 = request.version() <= Version::HTTP_11;
        let _in_flight = self.activity.begin(http1);
        let (head, body) = request.into_parts();
        let mut response = match self.refusal(&head, body).await {
            Some((status, reason)) => {
                let mut response = Response::new(H::Body::from(reason));
                *response.status_mut() = status;
                if http1 {
                    close(&mut response);
                }
                response
            }
            None => {
                let request = Request::from_parts(head, ());
                self.handler.handle(request, self.peer).await
            }
        };
        if http1 && *self.phase.borrow() != Phase::Serving {
            close(&mut response);
        }
        self.metrics
            .answered(response.status().as_u16(), start.elapsed());
        Ok(response)
    }

    /// Reads and discards the body. `Some`: why the request is not to be answered.
    async fn refusal(
        &self,
        head: &http::request::Parts,
        body: Incoming,
    ) -> Option<(StatusCode, &'static str)> {
        // RFC 9112, section 3.2: hyper leaves this check to us.
        if head.version == Version::HTTP_11 && head.headers.get_all(HOST).iter().count() != 1 {
            return Some((
                StatusCode::BAD_REQUEST,
                "400 Bad Request: exactly one Host header is required\n",
            ));
        }
        if body.is_end_stream() || head.method == Method::CONNECT {
            return None;
        }
        let max = self.limits.max_body;
        // In a box, so that it takes no room in the connections whose requests have no body.
        let discarded = Box::pin(timeout(self.limits.header_timeout, discard(body, max)));
        match discarded.await {
            Ok(Discarded::All) => None,
            Ok(Discarded::TooLarge) => Some((
                StatusCode::PAYLOAD_TOO_LARGE,
                "413 Content Too Large: the request body is over the limit\n",
            )),
            Ok(Discarded::Broken) => Some((
                StatusCode::BAD_REQUEST,
                "400 Bad Request: the request body is broken\n",
            )),
            Err(_) => Some((
                StatusCode::REQUEST_TIMEOUT,
                "408 Request Timeout: the request body did not come in time\n",
            )),
        }
    }
}

fn close<B>(response: &mut Response<B>) {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

enum Discarded {
    All,
    TooLarge,
    Broken,
}

async fn discard(mut body: Incoming, max: u64) -> Discarded {
    let mut left = max;
    // A declared length is refused before any of it is asked for.
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
