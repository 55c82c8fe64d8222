//! What the parts of a connection share with one another, and what all connections of a server share.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::yield_now;
use tracing::warn;

use super::activity::Activity;
use super::crowd::{Crowd, Pending, Place};
use super::handler::Handler;
use super::lifecycle::Phase;
use super::limits::Limits;
use super::metrics::{OpenConnection, ServerMetrics};
use crate::repeated::Repeated;

/// How often to let others go first. Once or twice will do, unless none of them can be evicted.
const MAX_YIELDS: usize = 16;

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) handler: Box<dyn Handler>,
    pub(super) limits: Limits,
    /// Speak HTTP/2 to those who begin with its preface.
    #[cfg(feature = "http2")]
    pub(super) http2: bool,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) metrics: ServerMetrics,
    pub(super) crowd: Crowd,
    pub(super) evictions: Repeated,
}

/// One client, who is connected.
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: SocketAddr,
    pub(super) activity: Arc<Activity>,
}

/// What an open connection takes up, until dropped.
pub(super) struct Open {
    shared: Arc<Shared>,
    place: Place,
    _count: OpenConnection,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    pub(super) fn new(shared: &Arc<Shared>, place: Place, permit: OwnedSemaphorePermit) -> Self {
        Self {
            shared: Arc::clone(shared),
            place,
            _count: shared.metrics.connection(),
            _permit: permit,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.crowd.remove(&self.place);
    }
}

impl Client {
    /// Counts the client as in the middle of a request, which may cost others their connections.
    pub(super) fn enter(&self, weight: usize) -> Pending<'_> {
        let (pending, evicted) = self.shared.crowd.enter(&self.activity, weight);
        self.shared
            .evicted(evicted, "too many requests are under way");
        pending
    }

    /// The same, before the client is given any memory: waits until those who were evicted for him have
    /// let go of theirs. They are behind him in the queue of tasks, and may be many.
    pub(super) async fn admit(&self, weight: usize) -> Pending<'_> {
        let pending = self.enter(weight);
        for _ in 0..MAX_YIELDS {
            if !self.shared.crowd.is_over() {
                break;
            }
            yield_now().await;
        }
        pending
    }
}

impl Shared {
    /// Counts connections that were closed to make room.
    pub(super) fn evicted(&self, connections: u64, why: &'static str) {
        if connections == 0 {
            return;
        }
        self.metrics.evicted.inc_by(connections);
        if let Some(more) = self.evictions.next() {
            warn!(
                why,
                connections, more, "closing the connections that have waited longest"
            );
        }
    }
}
