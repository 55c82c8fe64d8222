//! One connection, from its first byte to its last: what it is refused, how long it may wait, and how
//! it is asked to leave.

#[cfg(feature = "http2")]
mod http2;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONNECTION, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::activity::Activity;
use crate::body::Body;
use crate::metrics::ServerMetrics;
use crate::server::{Arrival, Handler, Limits, Phase, Reply};
use crate::socket;

/// Most bytes of a request's head, and of unread pipelined requests.
const MAX_HEAD: usize = 32 * 1024;

/// Serves a connection until it ends, by the client's wish, a timeout or the phase; then gives back
/// the permit.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    handler: Arc<dyn Handler>,
    limits: Limits,
    phase: watch::Receiver<Phase>,
    metrics: Arc<ServerMetrics>,
    _permit: OwnedSemaphorePermit,
) {
    let _open = metrics.connection();
    let activity = Arc::new(Activity::new());
    let Some((socket, is_http2)) =
        socket::first_bytes(stream, &activity, &limits, phase.clone()).await
    else {
        return;
    };
    let io = TokioIo::new(socket);
    let service = Service(Arc::new(Requests {
        peer,
        handler,
        limits,
        phase: phase.clone(),
        activity: Arc::clone(&activity),
        metrics,
    }));

    #[cfg(feature = "http2")]
    if is_http2 {
        // In a box, so that it takes no room in the connections that are not HTTP/2.
        let served = Box::pin(http2::serve(io, service, &activity, &limits, phase));
        log_end(peer, served.await);
        return;
    }
    // Without HTTP/2, hyper hangs up on its preface.
    let _ = is_http2;
    let connection = http1::Builder::new()
        // A client that has said all that it wants to say still wants the answer.
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        // Answers are short: a copy into one buffer costs less than a list of two.
        .writev(false)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let leave = |connection: Pin<&mut http1::Connection<_, _>>| {
        connection.graceful_shutdown();
    };
    let ended = drive(connection.as_mut(), leave, &activity, &limits, phase, false).await;
    log_end(peer, ended);
}

fn log_end(peer: SocketAddr, ended: hyper::Result<()>) {
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
            activity.came_to_rest();
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
struct Requests {
    peer: SocketAddr,
    handler: Arc<dyn Handler>,
    limits: Limits,
    phase: watch::Receiver<Phase>,
    activity: Arc<Activity>,
    metrics: Arc<ServerMetrics>,
}

/// Answers the requests of a connection.
struct Service(Arc<Requests>);

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let Self(requests) = self;
        let arrival = Arrival {
            peer: requests.peer,
            at: Instant::now().into_std(),
        };
        let (head, body) = request.into_parts();
        let version = head.version;
        let is_complete = body.is_end_stream() || head.method == Method::CONNECT;
        let is_last = body.is_end_stream() && says_close(&head);
        let reply = if is_complete {
            requests.reply(&head, arrival)
        } else {
            let requests = Arc::clone(requests);
            Reply::Later(Box::pin(async move {
                let max = requests.limits.max_body;
                match timeout(requests.limits.header_timeout, discard(body, max)).await {
                    Ok(Discarded::All) => match requests.reply(&head, arrival) {
                        Reply::Now(response) => response,
                        Reply::Later(response) => response.await,
                    },
                    Ok(Discarded::TooLarge) => refusal(
                        version,
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "413 Content Too Large: the request body is over the limit\n",
                    ),
                    Ok(Discarded::Broken) => refusal(
                        version,
                        StatusCode::BAD_REQUEST,
                        "400 Bad Request: the request body is broken\n",
                    ),
                    Err(_) => refusal(
                        version,
                        StatusCode::REQUEST_TIMEOUT,
                        "408 Request Timeout: the request body did not come in time\n",
                    ),
                }
            }))
        };
        match reply {
            Reply::Now(response) => {
                Answer::Now(Some(requests.finish(response, version, is_last, arrival)))
            }
            Reply::Later(response) => {
                let requests = Arc::clone(requests);
                Answer::Later(Box::pin(async move {
                    let _in_flight = requests.activity.begin();
                    let response = response.await;
                    requests.finish(response, version, is_last, arrival)
                }))
            }
        }
    }
}

/// An answer on its way. Idle connections keep room for one, so it is small: what has to be waited for
/// is in a box.
enum Answer {
    Now(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

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

impl Requests {
    fn reply(&self, head: &Parts, arrival: Arrival) -> Reply {
        // RFC 9112, section 3.2: hyper leaves this check to us.
        if head.version == Version::HTTP_11 && head.headers.get_all(HOST).iter().count() != 1 {
            return Reply::Now(refusal(
                head.version,
                StatusCode::BAD_REQUEST,
                "400 Bad Request: exactly one Host header is required\n",
            ));
        }
        self.handler.answer(head, arrival)
    }

    fn finish(
        &self,
        mut response: Response<Body>,
        version: Version,
        is_last: bool,
        arrival: Arrival,
    ) -> Response<Body> {
        let now = Instant::now();
        let took = now.into_std() - arrival.at;
        self.metrics.answered(response.status().as_u16(), took);
        if version <= Version::HTTP_11 && *self.phase.borrow() != Phase::Serving {
            close(&mut response);
        }
        let streaming = matches!(response.body(), Body::Stream(_));
        self.activity.answered(now, streaming, is_last);
        response
    }
}

/// An answer to a request that is not to be answered; an HTTP/1 client has to connect anew.
fn refusal(version: Version, status: StatusCode, reason: &'static str) -> Response<Body> {
    let mut response = Response::new(reason.into());
    *response.status_mut() = status;
    if version <= Version::HTTP_11 {
        close(&mut response);
    }
    response
}

/// Whether the client says that this is its last request. Clients may say so in more elaborate ways,
/// which hyper understands; then all that is lost is a packet.
fn says_close(head: &Parts) -> bool {
    let connection = head.headers.get(CONNECTION);
    connection.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

fn close(response: &mut Response<Body>) {
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
