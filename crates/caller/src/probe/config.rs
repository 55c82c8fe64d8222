//! How requests are made.

use std::time::Duration;

use http::{HeaderMap, Method};

use crate::expected_status::ExpectedStatus;
use crate::failure::Received;

/// How requests are made.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The request's method.
    pub method: Method,
    /// Header fields beside the caller's own; of one name, these count.
    pub headers: HeaderMap,
    /// Which statuses are a success.
    pub expected_status: ExpectedStatus,
    /// HTTP/2 with prior knowledge in place of HTTP/1.1.
    pub http2: bool,
    /// Use a connection for several calls.
    pub keep_alive: bool,
    /// Longest time for each TCP handshake.
    pub connect_timeout: Duration,
    /// How much of an exchange is kept.
    pub keep: Keep,
}

/// How much of an exchange is kept, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Of the request and the response's head, as they are on the wire.
    pub wire: usize,
    /// Of the response's body.
    pub body: usize,
    /// A body over this size is not read to its end.
    pub max_body: u64,
}

/// What a report needs.
impl Default for Keep {
    fn default() -> Self {
        Self {
            wire: Received::KEPT,
            body: 4096,
            max_body: 1024 * 1024,
        }
    }
}
