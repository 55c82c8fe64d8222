//! An HTTP server for one port: HTTP/1.0, HTTP/1.1 and HTTP/2 with prior knowledge (h2c).
//!
//! It accepts until asked to stop, and then leaves in three steps, so that a cluster which keeps
//! sending for a while (endpoint removal is not instantaneous) never sees a failure:
//!
//! 1. [`Phase::LameDuck`], for [`Drain::delay`]: still accepting and answering, but asking clients
//!    to go elsewhere (`Connection: close`; GOAWAY once an HTTP/2 connection has no open stream).
//! 2. [`Phase::Draining`], for at most [`Drain::timeout`]: the port is closed, idle connections
//!    are closed, requests under way are finished.
//! 3. [`Phase::Cut`]: what is left is closed.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::connection;
use crate::metrics::ServerMetrics;

/// First and longest pause after a failed accept, such as one for want of file descriptors.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Answers requests. The body has been read and discarded before it is asked.
pub trait Handler: Clone + Send + Sync + 'static {
    /// The body of an answer. The server's own refusals are made from a fixed text.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>
        + From<&'static str>
        + Send
        + 'static;

    /// Whether HTTP/2 is spoken as well; without it, its code is left out of the binary.
    const HTTP2: bool;

    /// Answers one request of the client at `peer`.
    fn handle(
        &self,
        request: Request<()>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// What one client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time from the first byte of a request to the end of its head, and again from there
    /// to the end of its body.
    pub header_timeout: Duration,
    /// Longest time without a request.
    pub idle_timeout: Duration,
    /// Connections served at once; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Longest request body, in bytes.
    pub max_body: u64,
}

/// How long leaving may take.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Time to go on accepting after the request to stop.
    pub delay: Duration,
    /// Time for requests under way after that.
    pub timeout: Duration,
}

/// Where a server is in its life. The order is the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Accepting and answering.
    Serving,
    /// Accepting and answering, while asking clients to leave.
    LameDuck,
    /// Not accepting; finishing what is under way.
    Draining,
    /// Closing what is left.
    Cut,
}

/// A server on an open port. Dropping it closes the port.
#[derive(Debug)]
pub struct Server<H> {
    listener: TcpListener,
    handler: H,
    limits: Limits,
    drain: Drain,
    phase: watch::Sender<Phase>,
    metrics: Arc<ServerMetrics>,
}

impl<H: Handler> Server<H> {
    /// Makes a server of an open port; [`Server::run`] starts it.
    pub fn new(listener: TcpListener, handler: H, limits: Limits, drain: Drain) -> Self {
        Self {
            listener,
            handler,
            limits,
            drain,
            phase: watch::Sender::new(Phase::Serving),
            metrics: Arc::default(),
        }
    }

    /// Adds what it counts to a registry: requests, their durations, connections.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// The address that is really listened on.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Follows the server through its life.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Serves until `shutdown` completes, then drains.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            listener,
            handler,
            limits,
            drain,
            phase,
            metrics,
        } = self;
        let permits = Arc::new(Semaphore::new(limits.max_connections));
        let start = |stream, peer: SocketAddr, permit| {
            if *phase.borrow() != Phase::Serving {
                // How long the cluster keeps sending to a pod that is leaving is worth knowing.
                metrics.while_draining.inc();
            }
            // An IPv4 client of a socket for both families shows as ::ffff:a.b.c.d.
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let phase = phase.subscribe();
            // Spawned as it is: a block around it would double its memory.
            let handler = handler.clone();
            let metrics = Arc::clone(&metrics);
            tokio::spawn(connection::serve(
                stream, peer, handler, limits, phase, metrics, permit,
            ));
        };
        accept_until(&listener, &permits, &start, shutdown).await;

        phase.send_replace(Phase::LameDuck);
        info!(delay = ?drain.delay, "lame duck: still accepting, asking clients to leave");
        accept_until(&listener, &permits, &start, sleep(drain.delay)).await;
        accept_waiting(listener, &permits, &start);

        phase.send_replace(Phase::Draining);
        let all = u32::try_from(limits.max_connections).unwrap_or(u32::MAX);
        if timeout(drain.timeout, permits.acquire_many(all))
            .await
            .is_err()
        {
            let open = limits.max_connections - permits.available_permits();
            warn!(connections = open, timeout = ?drain.timeout, "drain timeout: cutting connections");
            phase.send_replace(Phase::Cut);
        }
        info!(
            connections_while_draining = metrics.while_draining.get(),
            "drained"
        );
    }
}

async fn accept_until(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    start: &impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit),
    stop: impl Future<Output = ()>,
) {
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => return,
            (stream, peer, permit) = accept(listener, permits) => start(stream, peer, permit),
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let mut pause = ACCEPT_BACKOFF.0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            // The client has gone before we came to it: no reason to wait.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(%error, ?pause, "failed to accept");
                sleep(pause).await;
                pause = ACCEPT_BACKOFF.1.min(pause * 2);
            }
        }
    }
}

/// Closes the port, but not on those who have connected already and wait in the kernel's queue:
/// closing would reset them. Tokio may not have heard of them yet, so the kernel itself is asked.
fn accept_waiting(
    listener: TcpListener,
    permits: &Arc<Semaphore>,
    start: &impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok(permit) = Arc::clone(permits).try_acquire_owned()
        && let Ok((stream, peer)) = listener.accept()
    {
        let stream = stream.set_nonblocking(true).map(|()| stream);
        if let Ok(stream) = stream.and_then(TcpStream::from_std) {
            start(stream, peer, permit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use hyper::body::Frame;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Interval, interval};

    use super::*;

    /// A body of single bytes that come more often than a connection may be idle.
    struct Trickle(Interval, u8);

    impl From<&'static str> for Trickle {
        fn from(_: &'static str) -> Self {
            Self(interval(Duration::from_millis(100)), 25)
        }
    }

    impl Body for Trickle {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            ready!(self.0.poll_tick(cx));
            let left = self.1.checked_sub(1);
            self.1 = left.unwrap_or(0);
            Poll::Ready(left.map(|_| Ok(Frame::data(Bytes::from_static(b".")))))
        }
    }

    #[derive(Clone)]
    struct Trickling;

    impl Handler for Trickling {
        type Body = Trickle;

        const HTTP2: bool = false;

        async fn handle(&self, _: Request<()>, _: SocketAddr) -> Response<Trickle> {
            Response::new("".into())
        }
    }

    #[tokio::test]
    async fn an_answer_may_go_on_for_longer_than_a_connection_may_be_idle() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let limits = Limits {
            header_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            max_connections: 1,
            max_body: 0,
        };
        let drain = Drain {
            delay: Duration::ZERO,
            timeout: Duration::ZERO,
        };
        let server = Server::new(listener, Trickling, limits, drain);
        tokio::spawn(server.run(std::future::pending()));
        let mut client = TcpStream::connect(addr).await.expect("it listens");
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).await.expect("it reads");
        let mut answer = String::new();
        // Until the server has had enough of a connection on which nothing is left to say.
        client.read_to_string(&mut answer).await.expect("an answer");
        assert_eq!(answer.matches("1\r\n.\r\n").count(), 25, "{answer}");
        assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
    }
}
