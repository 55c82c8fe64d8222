//! The interface between a server and the program that serves its requests.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Instant;

use http::Response;
use http::request::Parts;

use crate::body::Body;

/// Responds to requests. By then the server has read and discarded the request's body.
pub trait Handler: Send + Sync + 'static {
    /// Responds to one request.
    ///
    /// Of a request that had a body, `head` has these parts only: the method, the version, the target, cut where
    /// it is longer than 2 KiB, and the fields Host, Accept, User-Agent and X-Request-Id, of which Accept and
    /// User-Agent are cut where they are longer than 1 KiB. The rest is not kept while the body is received.
    fn answer(&self, head: &Parts, arrival: Arrival) -> Reply;
}

/// From where and when a request arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The address of the client. An IPv4 client has an IPv4 address here, even if the socket is for both families.
    pub peer: SocketAddr,
    /// When the head of the request was complete.
    pub at: Instant,
}

/// A response, or a future of one.
pub enum Reply {
    /// A response that is ready, as nearly all are.
    Now(Response<Body>),
    /// A response that has to be waited for. The future cannot borrow the head of its request;
    /// [`keep_head`](super::keep_head) makes a small copy of it.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}
