//! One connection, from its first byte to its last: parked while it waits for a request, served while there is
//! one, under a timeout at any time, and shut down gracefully when the server is.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::{Duration, sleep_until};
use tracing::debug;

use super::client::{Client, OpenGuard};
use super::lifecycle::Phase;
use super::limits::{MAX_HEAD, PARK_AFTER};
use super::service::Service;
use super::socket::{self, Protocol, Socket};
use super::table::Pending;

/// Longest pause between two checks of a connection's timeouts.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Serves a connection until the client, a timeout or the server's phase ends it.
///
/// What serves a request is in a box, which is freed while the connection waits for the next one: so an idle
/// connection takes 1.7 KB instead of 11.3, and a request on a busy one 8.2 µs of CPU instead of 8.1.
pub(super) async fn serve(
    mut stream: TcpStream,
    client: Arc<Client>,
    mut phase: watch::Receiver<Phase>,
    _open: OpenGuard,
) {
    let mut first = Bytes::new();
    loop {
        let begun = socket::first_bytes(&mut stream, first, &client, &mut phase).await;
        let Some((bytes, protocol)) = begun else {
            return;
        };
        let socket = Socket::new(stream, bytes, protocol, &client);
        match protocol {
            Protocol::Http1 => match Box::pin(serve_http1(socket, &client, &mut phase)).await {
                Some(parked) => (stream, first) = parked,
                None => return,
            },
            #[cfg(feature = "http2")]
            Protocol::Http2 => {
                return Box::pin(super::http2::serve(socket, client, &mut phase)).await;
            }
        }
    }
}

/// Serves requests over HTTP/1. Returns the socket, and what has been read of the next request, if the connection
/// is to be parked; `None` if it has ended.
async fn serve_http1(
    socket: Socket,
    client: &Arc<Client>,
    phase: &mut watch::Receiver<Phase>,
) -> Option<(TcpStream, Bytes)> {
    let mut connection = http1::Builder::new()
        // A client that has shut down its sending side still wants the response.
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        // Responses are short: a copy into one buffer costs less than a list of two.
        .writev(false)
        .serve_connection(TokioIo::new(socket), Service(Arc::clone(client)));
    let graceful_shutdown = |connection: Pin<&mut http1::Connection<_, _>>| {
        connection.graceful_shutdown();
    };
    let driven = drive(
        Pin::new(&mut connection),
        graceful_shutdown,
        client,
        phase,
        false,
    )
    .await;
    let parts = connection.into_parts();
    let socket = parts.io.into_inner();
    match driven {
        // A copy, because a slice would keep hyper's whole buffer.
        Driven::Idle => {
            let begun = Bytes::copy_from_slice(&parts.read_buf);
            return Some((socket.into_stream(), begun));
        }
        Driven::Abandoned => {}
        Driven::Ended(ended) => {
            let is_refused = matches!(&ended, Err(error) if error.is_parse());
            log_end(client, ended);
            if is_refused
                || client.activity.is_cut_short()
                || socket.has_unread()
                || !parts.read_buf.is_empty()
            {
                socket.linger().await;
            }
        }
    }
    None
}

/// Logs the error that ended a connection, if any, and counts the refusals that hyper sent by itself.
pub(super) fn log_end(client: &Client, ended: hyper::Result<()>) {
    let Err(error) = ended else { return };
    debug!(client.addr = %client.peer, %error, "connection ended");
    if error.is_parse_too_large() {
        client.shared.metrics.refused(431);
    } else if error.is_parse() {
        client.shared.metrics.refused(400);
    }
}

/// Why [`drive`] has returned.
pub(super) enum Driven<E> {
    /// Hyper's connection has ended by itself.
    Ended(Result<(), E>),
    /// An HTTP/1 connection has been between two requests for a while and is to be parked.
    Idle,
    /// A timeout has passed, or the server's phase cuts all connections.
    Abandoned,
}

/// Runs hyper's connection. Calls `graceful_shutdown` when the server's phase asks for it, and returns when the
/// connection has ended, is to be parked, or is to be dropped.
pub(super) async fn drive<C, E>(
    mut connection: Pin<&mut C>,
    graceful_shutdown: impl Fn(Pin<&mut C>),
    client: &Client,
    phase: &mut watch::Receiver<Phase>,
    http2: bool,
) -> Driven<E>
where
    C: Future<Output = Result<(), E>>,
{
    let (activity, limits) = (&*client.activity, &client.shared.limits);
    // A busy connection is checked less and less often, because each check costs a poll.
    let max_pause = MAX_PAUSE
        .min(limits.header_timeout)
        .min(limits.idle_timeout);
    let mut pause = if http2 { max_pause } else { PARK_AFTER };
    let mut timer = pin!(sleep_until(activity.next_check(limits, pause)));
    let mut pending = None::<Pending<'_>>;
    let mut shutting_down = false;
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::Cut {
            return Driven::Abandoned;
        }
        // An HTTP/1 connection ends with its next response, which says `Connection: close`, and one that is
        // between two requests when the port is closed. GOAWAY ends an HTTP/2 connection without a race, but
        // not before the client has had a response: some clients give up otherwise.
        let should_shut_down = || match (http2, now) {
            _ if activity.is_shutdown_requested() => true,
            (true, Phase::LameDuck) => activity.has_served() && activity.is_idle(),
            (true, Phase::Draining) => true,
            (false, Phase::Draining) => activity.is_idle(),
            _ => false,
        };
        let mut should_park = false;
        let step = poll_fn(|cx| {
            if !shutting_down && should_shut_down() {
                shutting_down = true;
                graceful_shutdown(connection.as_mut());
            }
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() && !http2 {
                activity.on_read_pending();
                if activity.is_mid_request() != pending.is_some() {
                    pending = pending.is_none().then(|| client.begin_pending(1));
                }
                should_park = !shutting_down && activity.take_idle_after_large_request();
            }
            if polled.is_pending() && !shutting_down && should_shut_down() {
                // It became idle in this very poll: poll again to shut it down.
                cx.waker().wake_by_ref();
            }
            match polled {
                Poll::Pending if should_park => Poll::Ready(None),
                polled => polled.map(Some),
            }
        });
        tokio::select! {
            biased;
            ended = step => return ended.map_or(Driven::Idle, Driven::Ended),
            changed = phase.changed() => {
                if changed.is_err() {
                    // The server has been dropped: the process is ending.
                    return Driven::Abandoned;
                }
            }
            () = timer.as_mut() => {
                if !activity.is_overdue(limits) {
                    if !http2 && !shutting_down && activity.should_park() {
                        return Driven::Idle;
                    }
                    pause = max_pause.min(pause * 2);
                    timer.as_mut().reset(activity.next_check(limits, pause));
                } else if http2 && !shutting_down {
                    // A request may be on the way: GOAWAY still accepts it, once.
                    shutting_down = true;
                    graceful_shutdown(connection.as_mut());
                    timer.as_mut().reset(Instant::now() + limits.header_timeout);
                } else {
                    return Driven::Abandoned;
                }
            }
        }
    }
}
