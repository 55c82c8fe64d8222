//! The state that all connections of a server share, and the state of one client that the tasks of its connection
//! share.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::yield_now;
use tracing::warn;

use super::activity::Activity;
use super::handler::Handler;
use super::lifecycle::Phase;
use super::limits::Limits;
use super::metrics::{OpenConnection, ServerMetrics};
use super::table::{ConnectionTable, Pending, Slot};
use crate::repeated::Repeated;

/// How often [`Client::admit`] yields at most. Once or twice is enough, unless no connection can be evicted.
const MAX_YIELDS: usize = 16;

/// The state that all connections of a server share.
pub(super) struct Shared {
    pub(super) handler: Box<dyn Handler>,
    pub(super) limits: Limits,
    /// Speak HTTP/2 to clients that start with its preface.
    #[cfg(feature = "http2")]
    pub(super) http2: bool,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) metrics: ServerMetrics,
    pub(super) table: ConnectionTable,
    pub(super) evictions: Repeated,
}

/// One client, for as long as it is connected.
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: SocketAddr,
    pub(super) activity: Arc<Activity>,
}

/// What an open connection occupies: its slot in the table, its permit, and its place in the metric. All of it is
/// released on drop.
pub(super) struct OpenGuard {
    shared: Arc<Shared>,
    slot: Slot,
    _count: OpenConnection,
    _permit: OwnedSemaphorePermit,
}

impl OpenGuard {
    pub(super) fn new(shared: &Arc<Shared>, slot: Slot, permit: OwnedSemaphorePermit) -> Self {
        Self {
            shared: Arc::clone(shared),
            slot,
            _count: shared.metrics.connection(),
            _permit: permit,
        }
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.shared.table.remove(&self.slot);
    }
}

impl Client {
    /// Counts the client as in the middle of a request until the guard is dropped. Where that is one too many,
    /// other connections are evicted.
    pub(super) fn begin_pending(&self, weight: usize) -> Pending<'_> {
        let (pending, evicted) = self.shared.table.begin_pending(&self.activity, weight);
        self.shared
            .evicted(evicted, "too many requests are under way");
        pending
    }

    /// As [`Client::begin_pending`], for a client that is about to use memory: waits until the connections that
    /// were evicted for it have freed theirs. Their tasks are behind this one in the queue, and may be many.
    pub(super) async fn admit(&self, weight: usize) -> Pending<'_> {
        let pending = self.begin_pending(weight);
        for _ in 0..MAX_YIELDS {
            if !self.shared.table.is_over_limit() {
                break;
            }
            yield_now().await;
        }
        pending
    }
}

impl Shared {
    /// Counts connections that were closed to make room, and logs it at times.
    pub(super) fn evicted(&self, connections: u64, why: &'static str) {
        if connections == 0 {
            return;
        }
        self.metrics.evicted.inc_by(connections);
        if let Some(more) = self.evictions.next() {
            warn!(why, connections, more, "closing connections to make room");
        }
    }
}
