//! What a server asks its owner: to answer requests.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Instant;

use http::Response;
use http::request::Parts;

use crate::body::Body;

/// Answers requests. Their bodies have been read and discarded before.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    ///
    /// Of the head of a request that had a body, only this is there: the method, the version, the
    /// target, cut where it is longer than 2 KiB, and the fields Host, Accept, User-Agent and
    /// X-Request-Id. The rest is not kept while the body comes.
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
    /// One that has to be waited for. [`keep_head`](super::keep_head) copies what it may need of the head.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}
