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

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Response;
use http::request::Parts;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::body::Body;
use crate::connection;
use crate::metrics::ServerMetrics;

/// First and longest pause after a failed accept, such as one for want of file descriptors.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Answers requests. Their bodies have been read and discarded before.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, head: &Parts, arrival: Arrival) -> Reply;
}

/// Where a request came from, and when.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The client.
    pub peer: SocketAddr,
    /// When the head was complete.
    pub at: Instant,
}

/// An answer, now or later.
pub enum Reply {
    /// As nearly all are.
    Now(Response<Body>),
    /// One that has to be waited for.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
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
pub struct Server {
    listener: TcpListener,
    drain: Drain,
    connections: Connections,
}

impl Server {
    /// Makes a server of an open port; [`Server::run`] starts it.
    pub fn new(listener: TcpListener, handler: impl Handler, limits: Limits, drain: Drain) -> Self {
        Self {
            listener,
            drain,
            connections: Connections {
                handler: Arc::new(handler),
                limits,
                phase: watch::Sender::new(Phase::Serving),
                metrics: Arc::default(),
                permits: Arc::new(Semaphore::new(limits.max_connections)),
            },
        }
    }

    /// Adds what it counts to a registry: requests, their durations, connections.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.connections.metrics.register(registry);
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
        self.connections.phase.subscribe()
    }

    /// Serves until `shutdown` completes, then drains.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            listener,
            drain,
            connections,
        } = self;
        connections.accept_until(&listener, shutdown).await;

        connections.phase.send_replace(Phase::LameDuck);
        info!(delay = ?drain.delay, "lame duck: still accepting, asking clients to leave");
        let delay = sleep(drain.delay);
        connections.accept_until(&listener, delay).await;
        connections.accept_waiting(listener);

        connections.phase.send_replace(Phase::Draining);
        let ended = timeout(drain.timeout, connections.all_ended()).await;
        if ended.is_err() {
            let open = connections.open();
            warn!(connections = open, timeout = ?drain.timeout, "drain timeout: cutting connections");
            connections.phase.send_replace(Phase::Cut);
        }
        info!(
            connections_while_draining = connections.metrics.while_draining.get(),
            "drained"
        );
    }
}

/// The connections of a server.
struct Connections {
    handler: Arc<dyn Handler>,
    limits: Limits,
    phase: watch::Sender<Phase>,
    metrics: Arc<ServerMetrics>,
    /// One for each connection that may be open.
    permits: Arc<Semaphore>,
}

impl Connections {
    async fn accept_until(&self, listener: &TcpListener, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return,
                (stream, peer, permit) = self.accept(listener) => self.start(stream, peer, permit),
            }
        }
    }

    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        let permit = Arc::clone(&self.permits)
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
    fn accept_waiting(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else {
            return;
        };
        while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned()
            && let Ok((stream, peer)) = listener.accept()
        {
            let stream = stream.set_nonblocking(true).map(|()| stream);
            if let Ok(stream) = stream.and_then(TcpStream::from_std) {
                self.start(stream, peer, permit);
            }
        }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        if *self.phase.borrow() != Phase::Serving {
            // How long the cluster keeps sending to a pod that is leaving is worth knowing.
            self.metrics.while_draining.inc();
        }
        // An IPv4 client of a socket for both families shows as ::ffff:a.b.c.d.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // Spawned as it is: a block around it would double its memory.
        tokio::spawn(connection::serve(
            stream,
            peer,
            Arc::clone(&self.handler),
            self.limits,
            self.phase.subscribe(),
            Arc::clone(&self.metrics),
            permit,
        ));
    }

    /// Waits until no connection is open.
    async fn all_ended(&self) {
        let all = u32::try_from(self.limits.max_connections).unwrap_or(u32::MAX);
        // An error would mean that the semaphore is closed, which it never is.
        let _ = self.permits.acquire_many(all).await;
    }

    fn open(&self) -> usize {
        self.limits.max_connections - self.permits.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;

    /// Answers with single bytes that come more often than a connection may be idle.
    struct Trickling;

    impl Handler for Trickling {
        fn answer(&self, _: &Parts, _: Arrival) -> Reply {
            let (sender, pieces) = mpsc::channel(1);
            tokio::spawn(async move {
                for _ in 0..25 {
                    sleep(Duration::from_millis(100)).await;
                    let piece = Bytes::from_static(b".");
                    sender.send(piece).await.expect("somebody reads");
                }
            });
            Reply::Now(Response::new(Body::Stream(pieces)))
        }
    }

    #[tokio::test]
    async fn an_answer_may_go_on_for_longer_than_a_connection_may_be_idle() {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
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
        let all = client.read_to_string(&mut answer).await;
        all.expect("an answer");
        assert_eq!(answer.matches("1\r\n.\r\n").count(), 25, "{answer}");
        assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
    }
}
