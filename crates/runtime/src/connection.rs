//! One connection, from its first byte to its last: which protocol, how long it may wait, and how
//! it is asked to leave.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::server::{Handler, Limits, Phase};

/// What an HTTP/2 client that does not negotiate sends first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most bytes of a request's head, and of unread pipelined requests.
const MAX_HEAD: usize = 32 * 1024;

/// HTTP/2: requests at once, bytes of one's head, and bytes of bodies in transit, for each connection.
const MAX_STREAMS: u32 = 32;
const MAX_HEADER_LIST: u32 = 16 * 1024;
const STREAM_WINDOW: u32 = 64 * 1024;

/// While the port is being closed, a connection that was accepted but has not yet asked for
/// anything gets this long from its start: its request is probably on the way.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Serves a connection until it ends, by the client's wish, a timeout or the phase.
pub(crate) async fn serve<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    handler: H,
    limits: Limits,
    phase: watch::Receiver<Phase>,
) {
    let activity = Arc::new(Activity::new());
    let Some((io, http2)) = first_bytes(stream, &activity, &limits, phase.clone()).await else {
        return;
    };
    let io = TokioIo::new(io);
    let requests = Arc::new(Requests {
        peer,
        handler,
        limits,
        phase: phase.clone(),
        activity: Arc::clone(&activity),
    });
    let service = service_fn(move |request| Arc::clone(&requests).answer(request));

    let ended = if H::HTTP2 && http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .serve_connection(io, service);
        let leave = |connection: Pin<&mut http2::Connection<_, _, _>>| {
            connection.graceful_shutdown();
        };
        drive(connection, leave, &activity, &limits, phase, true).await
    } else {
        let connection = http1::Builder::new()
            // A client that has said all that it wants to say still wants the answer.
            .half_close(true)
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD)
            .serve_connection(io, service);
        let leave = |connection: Pin<&mut http1::Connection<_, _>>| {
            connection.graceful_shutdown();
        };
        drive(connection, leave, &activity, &limits, phase, false).await
    };
    if let Err(error) = ended {
        debug!(client.addr = %peer, %error, "connection ended");
    }
}

/// Reads just enough to tell HTTP/2 from the rest. `None`: nothing came in time.
async fn first_bytes(
    stream: TcpStream,
    activity: &Arc<Activity>,
    limits: &Limits,
    mut phase: watch::Receiver<Phase>,
) -> Option<(Io, bool)> {
    let mut io = Io {
        stream,
        head: *HTTP2_PREFACE,
        head_read: 0,
        head_len: 0,
        activity: Some(Arc::clone(activity)),
    };
    let mut deadline = activity.opened + limits.idle_timeout;
    let mut closing = false;
    while io.head_len < HTTP2_PREFACE.len() {
        let mut rest = [0; HTTP2_PREFACE.len()];
        let wanted = HTTP2_PREFACE.len() - io.head_len;
        let read = tokio::select! {
            biased;
            read = io.stream.read(&mut rest[..wanted]) => read.ok().filter(|&n| n > 0)?,
            _ = phase.wait_for(|phase| *phase >= Phase::Draining), if !closing => {
                closing = true;
                deadline = deadline.min(activity.opened + FIRST_REQUEST_GRACE);
                continue;
            }
            () = sleep_until(deadline) => return None,
        };
        if io.head_len == 0 {
            activity.bytes_came();
            deadline = deadline.min(Instant::now() + limits.header_timeout);
        }
        io.head[io.head_len..][..read].copy_from_slice(&rest[..read]);
        io.head_len += read;
        if io.head[..io.head_len] != HTTP2_PREFACE[..io.head_len] {
            return Some((io, false));
        }
    }
    // HTTP/2 has bytes of its own (SETTINGS, PING): they are no sign of a request.
    io.activity = None;
    activity.head_begun.store(false, Relaxed);
    Some((io, true))
}

/// Runs hyper's connection; asks it to `leave` when the phase says so, drops it when it is late.
async fn drive<C, E>(
    connection: C,
    leave: impl Fn(Pin<&mut C>),
    activity: &Activity,
    limits: &Limits,
    mut phase: watch::Receiver<Phase>,
    http2: bool,
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    let mut connection = pin!(connection);
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
        let due = |activity: &Activity| match (http2, now) {
            (true, Phase::LameDuck) => activity.served.load(Relaxed) && activity.idle(),
            (true, Phase::Draining) => true,
            (false, Phase::Draining) => activity.idle(),
            _ => false,
        };
        let step = poll_fn(|cx| {
            if !leaving && due(activity) {
                leaving = true;
                leave(connection.as_mut());
            }
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() && !leaving && due(activity) {
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
}

impl<H: Handler> Requests<H> {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<H::Body>, Infallible> {
        let _in_flight = self.activity.begin();
        let http1 = request.version() <= Version::HTTP_11;
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
        match timeout(self.limits.header_timeout, discard(body, max)).await {
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
    // A declared length is refused before any of it is asked for.
    let mut left = max;
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

/// What a connection is doing, as far as its timer needs to know. HTTP/2 answers on other tasks,
/// hence the atomics; none of them guards other data.
#[derive(Debug)]
struct Activity {
    opened: Instant,
    /// Milliseconds from `opened` to the start of what is waited for now.
    waiting_since: AtomicU64,
    /// Bytes have come since the last answer: it is a head that is waited for, not a request.
    head_begun: AtomicBool,
    /// Requests being answered.
    in_flight: AtomicU32,
    /// At least one request has been answered.
    served: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            waiting_since: AtomicU64::new(0),
            head_begun: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            served: AtomicBool::new(false),
        }
    }

    fn wait_from_now(&self) {
        let millis = self.opened.elapsed().as_millis();
        self.waiting_since
            .store(u64::try_from(millis).unwrap_or(u64::MAX), Relaxed);
    }

    fn bytes_came(&self) {
        if self.in_flight.load(Relaxed) == 0 && !self.head_begun.swap(true, Relaxed) {
            self.wait_from_now();
        }
    }

    fn begin(&self) -> InFlight<'_> {
        self.head_begun.store(false, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self)
    }

    fn idle(&self) -> bool {
        self.in_flight.load(Relaxed) == 0 && !self.head_begun.load(Relaxed)
    }

    /// When what is waited for now is late. `None`: we are the one who is waited for.
    fn due(&self, limits: &Limits) -> Option<Instant> {
        if self.in_flight.load(Relaxed) > 0 {
            return None;
        }
        let patience = if self.head_begun.load(Relaxed) {
            limits.header_timeout
        } else {
            limits.idle_timeout
        };
        Some(self.opened + Duration::from_millis(self.waiting_since.load(Relaxed)) + patience)
    }

    fn late(&self, limits: &Limits) -> bool {
        self.due(limits).is_some_and(|due| due <= Instant::now())
    }

    /// When to look again. One timer that is seldom touched is cheaper than one set for every
    /// request, so it must not sleep past a head that begins right after this look.
    fn check_at(&self, limits: &Limits) -> Instant {
        let soonest = Instant::now() + limits.header_timeout.min(limits.idle_timeout);
        self.due(limits).map_or(soonest, |due| due.min(soonest))
    }
}

/// A request being answered, until dropped.
struct InFlight<'a>(&'a Activity);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.served.store(true, Relaxed);
        if self.0.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.0.wait_from_now();
        }
    }
}

/// The socket, with the bytes that were read to tell the protocol put back in front.
struct Io {
    stream: TcpStream,
    head: [u8; HTTP2_PREFACE.len()],
    head_read: usize,
    head_len: usize,
    activity: Option<Arc<Activity>>,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        let head = &this.head[this.head_read..this.head_len];
        if !head.is_empty() {
            let n = head.len().min(buf.remaining());
            buf.put_slice(&head[..n]);
            this.head_read += n;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Some(activity) = &this.activity
            && buf.filled().len() > before
        {
            activity.bytes_came();
        }
        polled
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
