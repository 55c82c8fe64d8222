//! An HTTP server for one port: HTTP/1.0, HTTP/1.1 and HTTP/2 with prior knowledge (h2c).
//!
//! [`Server::run`] accepts connections until it is asked to stop, and then shuts down in three steps, so that a
//! cluster which goes on sending for a while (endpoints are not removed in an instant) never sees a failure:
//!
//! 1. Lame duck, for [`Drain::delay`]: the server still accepts connections and answers requests, but asks
//!    clients to go elsewhere (`Connection: close`; GOAWAY once an HTTP/2 connection has no open stream).
//! 2. Draining, for at most [`Drain::timeout`]: the port is closed, idle connections are closed, and requests in
//!    progress are finished.
//! 3. Cut: the connections that are left are closed.
//!
//! [`Limits`] bound what a client can use of time and memory. Where a limit is reached, the connection that has
//! kept the server waiting longest is closed to make room, or, where all are busy, one ends with its next response;
//! so a full port still answers.

mod accept;
mod activity;
mod client;
mod connection;
mod handler;
#[cfg(feature = "http2")]
mod http2;
mod lifecycle;
mod limits;
mod metrics;
mod request;
mod service;
mod socket;
mod table;

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
pub use self::handler::{Arrival, Handler, Reply};
use self::lifecycle::Phase;
pub use self::limits::{Drain, Limits};
use self::metrics::ServerMetrics;
pub use self::request::keep_head;
use self::table::ConnectionTable;

/// A server on an open port, ready to [run](Server::run). Dropping it closes the port.
pub struct Server {
    listener: TcpListener,
    drain: Drain,
    shared: Shared,
}

/// The socket on which the server listens.
impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Server {
    /// Makes a server of an open port. It speaks HTTP/1 only, and accepts nothing before [`Server::run`].
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
                table: ConnectionTable::new(&limits),
                evictions: Default::default(),
            },
        }
    }

    /// Enables HTTP/2 for clients that start with its preface (h2c with prior knowledge, RFC 9113, section 3.3).
    #[cfg(feature = "http2")]
    pub fn with_http2(mut self) -> Self {
        self.shared.http2 = true;
        self
    }

    /// Adds the server's metrics to a registry: requests by status, their duration in seconds, and connections.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    /// The address that the server listens on, with the port that the kernel chose where port 0 was asked for.
    ///
    /// # Errors
    ///
    /// The error of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes, then drains as described in the [module's documentation](self), and
    /// returns when no connection is open or the drain timeout has passed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            listener,
            drain,
            shared,
        } = self;
        let mut acceptor = Acceptor::new(listener, shared);
        acceptor.accept_until(shutdown).await;

        acceptor.set_phase(Phase::LameDuck);
        info!(delay = ?drain.delay, "lame duck: still accepting, asking clients to leave");
        acceptor.accept_until(sleep(drain.delay)).await;

        let connections = acceptor.close().await;
        let ended = timeout(drain.timeout, connections.all_ended()).await;
        if ended.is_err() {
            let open = connections.open();
            warn!(connections = open, timeout = ?drain.timeout, "drain timeout: cutting connections");
            connections.set_phase(Phase::Cut);
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
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

    use super::*;
    use crate::body::Body;
    use crate::listen::ListenAddr;

    /// Streams a response of single bytes, each sooner than the idle timeout.
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

    /// Responds with as many bytes as the path says.
    struct Sized;

    impl Handler for Sized {
        fn answer(&self, head: &Parts, _: Arrival) -> Reply {
            let length = head.uri.path()[1..].parse().expect("a length");
            Reply::Now(Response::new(vec![b'x'; length].into()))
        }
    }

    /// Starts a server, and returns its address.
    async fn start(handler: impl Handler, limits: Limits) -> SocketAddr {
        let any: ListenAddr = "127.0.0.1:0".parse().expect("an address");
        let listener = any.bind().expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let drain = Drain {
            delay: Duration::ZERO,
            timeout: Duration::ZERO,
        };
        let server = Server::new(listener, handler, limits, drain);
        tokio::spawn(server.run(std::future::pending()));
        addr
    }

    /// Requests a response with a body of this length, pauses, and reads the response.
    async fn read_after_a_pause(addr: SocketAddr, length: usize, connection: &str) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut client = socket.connect(addr).await.expect("it listens");
        let request =
            format!("GET /{length} HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n");
        client
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        // Longer than the time after which an idle connection is parked.
        sleep(Duration::from_millis(100)).await;
        let mut response = Vec::new();
        let mut left = 1;
        while left > 0 {
            let read = timeout(Duration::from_secs(30), client.read_buf(&mut response)).await;
            let read = read.unwrap_or_else(|_| panic!("{left} of {length} bytes do not come"));
            assert!(read.expect("no reset") > 0, "{left} of {length} bytes");
            let head = response.windows(4).position(|end| end == b"\r\n\r\n");
            left = head.map_or(1, |end| end + 4 + length - response.len());
        }
    }

    #[tokio::test]
    async fn a_large_response_is_complete_although_its_client_pauses() {
        let limits = Limits {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            // A quarter of them may have clients that do not read.
            max_connections: 256,
            max_body: 0,
        };
        let addr = start(Sized, limits).await;
        let mut clients = JoinSet::new();
        // Less than the kernel takes, more than it and hyper's buffer take, and many lengths between.
        for length in (1..=20).map(|n| n * 8 * 1024).chain([1 << 20]) {
            for connection in ["close", "keep-alive"] {
                clients.spawn(read_after_a_pause(addr, length, connection));
            }
        }
        clients.join_all().await;
    }

    #[tokio::test]
    async fn a_streamed_response_may_take_longer_than_the_idle_timeout() {
        let limits = Limits {
            header_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(1),
            max_connections: 1,
            max_body: 0,
        };
        let addr = start(Trickling, limits).await;
        let mut client = TcpStream::connect(addr).await.expect("it listens");
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).await.expect("it reads");
        let mut response = String::new();
        // Until the server closes the connection, which is idle after the response.
        let all = client.read_to_string(&mut response).await;
        all.expect("a response");
        assert_eq!(response.matches("1\r\n.\r\n").count(), 25, "{response}");
        assert!(response.ends_with("0\r\n\r\n"), "{response}");
    }
}
