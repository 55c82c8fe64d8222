//! The accept loop: accepts connections up to the limit, and closes others to make room for more.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::activity::Activity;
use super::client::{Client, OpenGuard, Shared};
use super::connection;
use super::lifecycle::Phase;
use crate::repeated::Repeated;

/// First and longest pause after `accept(2)` has failed, for example for lack of file descriptors.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long to wait for an evicted connection to end before another one is evicted.
const EVICTION_WAIT: Duration = Duration::from_millis(10);

/// Longest time to accept what waits in the kernel's queue when the port is closed.
const ACCEPT_QUEUE_TIMEOUT: Duration = Duration::from_secs(1);

/// An open port, and the connections that it has accepted.
pub(super) struct Acceptor {
    listener: TcpListener,
    /// A connection that is accepted and for which there is no room yet.
    waiting: Option<(TcpStream, SocketAddr)>,
    failures: Repeated,
    connections: Connections,
}

/// The open connections of a server, and the limit on their number.
pub(super) struct Connections {
    shared: Arc<Shared>,
    /// A permit for each connection that may be open.
    permits: Arc<Semaphore>,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, shared: Shared) -> Self {
        let permits = Arc::new(Semaphore::new(shared.limits.max_connections));
        Self {
            listener,
            waiting: None,
            failures: Repeated::default(),
            connections: Connections {
                shared: Arc::new(shared),
                permits,
            },
        }
    }

    /// Tells all connections that the server is in this phase.
    pub(super) fn set_phase(&self, phase: Phase) {
        self.connections.set_phase(phase);
    }

    /// Accepts connections until `stop` completes.
    pub(super) async fn accept_until(&mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = self.accept() => {}
            }
        }
    }

    /// Accepts and starts one connection. The future may be dropped at any point: a connection that has been
    /// accepted stays in `waiting`.
    async fn accept(&mut self) {
        let mut pause = ACCEPT_BACKOFF.0;
        while self.waiting.is_none() {
            match self.listener.accept().await {
                Ok(accepted) => self.waiting = Some(accepted),
                // The client has closed the connection before it was accepted: no reason to pause.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if let Some(more) = self.failures.next() {
                        warn!(%error, more, "failed to accept");
                    }
                    // Closing a connection frees a descriptor.
                    self.connections.make_room("failed to accept");
                    sleep(pause).await;
                    pause = ACCEPT_BACKOFF.1.min(pause * 2);
                }
            }
        }
        let permit = self.connections.permit().await;
        if let Some((stream, peer)) = self.waiting.take() {
            self.connections.start(stream, peer, permit);
        }
    }

    /// Closes the port, after accepting the connections that wait in the kernel's queue: closing would reset
    /// them. Tokio may not know of them yet, so the kernel itself is asked. Where there is no room for them, others
    /// end first; all of them have been told to.
    pub(super) async fn close(self) -> Connections {
        let Self {
            listener,
            waiting,
            connections,
            ..
        } = self;
        connections.set_phase(Phase::Draining);
        let accept_all = async {
            if let Some((stream, peer)) = waiting {
                connections.start(stream, peer, connections.permit().await);
            }
            let Ok(listener) = listener.into_std() else {
                return;
            };
            while let Ok((stream, peer)) = listener.accept() {
                let stream = stream.set_nonblocking(true).map(|()| stream);
                if let Ok(stream) = stream.and_then(TcpStream::from_std) {
                    connections.start(stream, peer, connections.permit().await);
                }
            }
        };
        // Others may go on connecting.
        let _ = timeout(ACCEPT_QUEUE_TIMEOUT, accept_all).await;
        connections
    }
}

impl Connections {
    /// Tells all connections that the server is in this phase.
    pub(super) fn set_phase(&self, phase: Phase) {
        self.shared.phase.send_replace(phase);
    }

    /// Waits until one more connection may be open, and evicts others for it.
    async fn permit(&self) -> OwnedSemaphorePermit {
        loop {
            let permits = Arc::clone(&self.permits);
            if let Ok(permit) = permits.try_acquire_owned() {
                return permit;
            }
            // Lets connections that have just been accepted read their first request.
            yield_now().await;
            let evicted = self.make_room("too many connections");
            let ended = Arc::clone(&self.permits).acquire_owned();
            if let Ok(Ok(permit)) = timeout(EVICTION_WAIT, ended).await {
                if !evicted {
                    self.shared.table.cancel_eviction();
                }
                return permit;
            }
        }
    }

    /// Returns whether a connection was closed.
    fn make_room(&self, why: &'static str) -> bool {
        let evicted = self.shared.table.evict();
        self.shared.evicted(evicted.into(), why);
        evicted
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let shared = &self.shared;
        if *shared.phase.borrow() != Phase::Serving {
            // Shows how long the cluster goes on sending to a pod that is shutting down.
            shared.metrics.while_draining.inc();
        }
        let activity = Arc::new(Activity::new());
        shared.table.add(Arc::clone(&activity), |slot| {
            let client = Arc::new(Client {
                shared: Arc::clone(shared),
                // An IPv4 client of a socket for both families shows as ::ffff:a.b.c.d.
                peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
                activity,
            });
            let phase = shared.phase.subscribe();
            let open = OpenGuard::new(shared, slot, permit);
            // Spawned as it is: a block around it would double its memory.
            tokio::spawn(connection::serve(stream, client, phase, open)).abort_handle()
        });
    }

    /// Waits until no connection is open.
    pub(super) async fn all_ended(&self) {
        let all = u32::try_from(self.shared.limits.max_connections).unwrap_or(u32::MAX);
        // An error would mean that the semaphore is closed, which it never is.
        let _ = self.permits.acquire_many(all).await;
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.shared.limits.max_connections - self.permits.available_permits()
    }

    /// How many connections were accepted after the request to stop.
    pub(super) fn while_draining(&self) -> u64 {
        self.shared.metrics.while_draining.get()
    }
}
