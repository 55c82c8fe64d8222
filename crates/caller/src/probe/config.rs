//! HTTP settings of a probe.

use std::time::Duration;

use http::{HeaderMap, Method};

use crate::expected_status::ExpectedStatus;
use crate::failure::Received;

/// HTTP settings of a probe.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Method of the requests, such as GET.
    pub method: Method,
    /// Header fields to add to the caller's own; they replace those of the same name.
    pub headers: HeaderMap,
    /// Statuses that count as a success.
    pub expected_status: ExpectedStatus,
    /// Whether to use HTTP/2 with prior knowledge (RFC 9113, section 3.3) in place of HTTP/1.1.
    pub http2: bool,
    /// Whether to reuse a connection for the following calls.
    pub keep_alive: bool,
    /// Timeout of each TCP handshake.
    pub connect_timeout: Duration,
    /// How much of a request and its response to keep.
    pub capture: CaptureLimits,
}

/// How much of a request and its response to keep, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct CaptureLimits {
    /// Bytes to keep of the request, and of the response's head, as sent on the wire.
    pub wire: usize,
    /// Bytes to keep of the response's body.
    pub body: usize,
    /// Size of the largest body that is accepted; a larger one is not read to its end, and the call fails.
    pub max_body: u64,
}

/// The limits for a report, which shows only the beginning of a response.
impl Default for CaptureLimits {
    fn default() -> Self {
        Self {
            wire: Received::KEPT,
            body: 4096,
            max_body: 1024 * 1024,
        }
    }
}
