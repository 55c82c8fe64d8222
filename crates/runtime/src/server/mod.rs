//! An HTTP server for one port: HTTP/1.0, HTTP/1.1 and HTTP/2 with prior knowledge (h2c).
//!
//! It accepts until asked to stop, and then leaves in three steps, so that a cluster which keeps
//! sending for a while (endpoint removal is not instantaneous) never sees a failure:
//!
//! 1. Lame duck, for [`Drain::delay`]: still accepting and answering, but asking clients
//!    to go elsewhere (`Connection: close`; GOAWAY once an HTTP/2 connection has no open stream).
//! 2. Draining, for at most [`Drain::timeout`]: the port is closed, idle connections
//!    are closed, requests under way are finished.
//! 3. Cut: what is left is closed.

mod accept;
mod activity;
mod client;
mod connection;
mod crowd;
mod handler;
#[cfg(feature = "http2")]
mod http2;
mod lifecycle;
mod limits;
mod metrics;
mod request;
mod service;
mod socket;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::accept::Acceptor;
use self::client::Shared;
use self::crowd::Crowd;
pub use self::handler::{Arrival, Handler, Reply};
use self::lifecycle::Phase;
pub use self::limits::{Drain, Limits};
use self::metrics::ServerMetrics;
pub use self::request::keep_head;

/// A server on an open port. Dropping it closes the port.
pub struct Server {
    listener: TcpListener,
    drain: Drain,
    shared: Shared,
}

/// The socket that listens.
impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Server {
    /// Makes a server of an open port, for HTTP/1 alone; [`Server::run`] starts it.
    pub fn new(listener: TcpListener, handler: impl Handler, limits: Limits, drain: Drain) -> Self {
        Self {
            listener,
            drain,
            shared: Shared {
                handler: Box::new(handler),
                limits,
                #[cfg(feature = "http2")]
                http2: false,
                phase: watch::Sender::new(Phase::Serving),
                metrics: ServerMetrics::default(),
                crowd: Crowd::new(&limits),
                evictions: Default::default(),
            },
        }
    }

    /// Speaks HTTP/2 as well, with those who begin with it (h2c with prior knowledge).
    #[cfg(feature = "http2")]
    pub fn with_http2(mut self) -> Self {
        self.shared.http2 = true;
        self
    }

    /// Adds what it counts to a registry: requests, their durations, connections.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    /// The address that is really listened on.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes, then drains.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            listener,
            drain,
            shared,
        } = self;
        let mut acceptor = Acceptor::new(listener, shared);
        acceptor.accept_until(shutdown).await;

        acceptor.enter(Phase::LameDuck);
        info!(delay = ?drain.delay, "lame duck: still accepting, asking clients to leave");
        acceptor.accept_until(sleep(drain.delay)).await;

        let connections = acceptor.close();
        let ended = timeout(drain.timeout, connections.all_ended()).await;
        if ended.is_err() {
            let open = connections.open();
            warn!(connections = open, timeout = ?drain.timeout, "drain timeout: cutting connections");
            connections.enter(Phase::Cut);
        }
        info!(
            connections_while_draining = connections.while_draining(),
            "drained"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::Response;
    use http::request::Parts;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::mpsc;

    use super::*;
    use crate::body::Body;

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
