//! Limits on the time and memory that a connection can use, and how the memory adds up.
//!
//! Most connections are idle. An idle connection is parked: it uses a socket and about 1.5 KB. For [`PARK_AFTER`]
//! after a response it keeps its buffers, about 10 KB. What a client can make larger is bounded for each
//! connection, and so is the number of connections that can be in the middle of a request at once:
//! [`Limits::max_pending`], a quarter of all. A request of [`PARK_AT_ONCE_FROM`] bytes or more counts until it has its
//! response, which takes time where the program delays it.
//!
//! | memory of an HTTP/1 connection in the middle of a request | at most |
//! |---|---|
//! | the head being read, in a buffer that doubles ([`MAX_HEAD`]) | 32 KB |
//! | its fields as a map, 100 of them | 21 KB |
//! | or, while its body is discarded: the kept part of the head, and trailers | 24 + 32 KB |
//! | or, while the client does not read: responses in a buffer that doubles, and unread requests | 48 + 32 KB |
//! | bytes in the kernel, each way ([`crate::listen`]) | 32 + 32 KB |
//!
//! An HTTP/2 connection counts as ten of these (`HTTP2_WEIGHT`) from its preface on:
//!
//! | memory of an HTTP/2 connection | at most |
//! |---|---|
//! | frames being read and written | 48 KB |
//! | a header block that is not complete: 16 KB of fields as a map | 84 KB |
//! | 32 requests, each with the kept part of its head | 32 × 4 KB |
//! | in all of them, larger values in kept heads and in responses ([`MAX_KEPT`]) | 32 KB, and 64 KB encoded |
//! | the table of header compression: each of 97 entries keeps the frame that it came in | 97 × 8 to 16 KB |
//! | bytes in the kernel, each way | 32 + 32 KB |
//!
//! With 1,024 connections that is 1,024 × 10 KB, and 256 × 144 KB or 25 × 1.9 MB: less than 60 MB.
//! The worst traffic that was found took 18 to 50 MB.

use std::time::Duration;

/// Limit on the bytes of an HTTP/1 request's head, and of unread pipelined requests. A service mesh adds headers:
/// heads of 16 KB, with 8 KB in one field, have been seen.
pub(super) const MAX_HEAD: usize = 24 * 1024;

/// An HTTP/1 connection is parked when it has been idle for this long.
pub(super) const PARK_AFTER: Duration = Duration::from_millis(10);

/// An HTTP/1 connection whose last request had at least this many bytes is parked at once, because its buffer has
/// grown.
pub(super) const PARK_AT_ONCE_FROM: usize = 8 * 1024;

/// HTTP/2: limit on concurrent requests of a connection.
#[cfg(feature = "http2")]
pub(super) const MAX_STREAMS: u32 = 32;

/// HTTP/2: limit on the bytes of a request head, counted with 32 more for each field (RFC 9113, section 6.5.2).
#[cfg(feature = "http2")]
pub(super) const MAX_HEADER_LIST: u32 = 16 * 1024;

/// HTTP/2: bytes of request bodies in transit, for each connection and each stream. They are discarded on arrival.
#[cfg(feature = "http2")]
pub(super) const WINDOW: u32 = 64 * 1024;

/// HTTP/2: limit on the bytes that a connection keeps of request heads while it waits for their bodies, and of
/// large header values in responses that are not sent yet.
pub(super) const MAX_KEPT: usize = 32 * 1024;

/// How many HTTP/1 connections in the middle of a request an HTTP/2 connection counts as.
#[cfg(feature = "http2")]
pub(super) const HTTP2_WEIGHT: usize = 10;

/// One in this many connections of a port can be in the middle of a request.
const PENDING_SHARE: usize = 4;

/// At least this many connections can be in the middle of a request, however low the limit on connections is.
const MIN_PENDING: usize = 16;

/// Limits on each client of a [`Server`](super::Server), and on all of them together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Timeout for the first byte of a connection; from the first byte of a request to the end of its head; from
    /// there to the end of its body (408 Request Timeout); and for a client that does not read its response.
    pub header_timeout: Duration,
    /// Timeout between two requests of a connection.
    pub idle_timeout: Duration,
    /// Limit on open connections. One more replaces the connection that has kept the server waiting longest, or,
    /// where all are busy, the next one that has a response.
    pub max_connections: usize,
    /// Limit on the bytes of a request body (413 Content Too Large).
    pub max_body: u64,
}

impl Limits {
    /// Limit on connections in the middle of a request, by weight. One more replaces the one that has kept the
    /// server waiting longest. A request that comes in one piece never counts.
    pub(super) fn max_pending(&self) -> usize {
        (self.max_connections / PENDING_SHARE).max(MIN_PENDING)
    }
}

/// Graceful-shutdown timing of a [`Server`](super::Server): how long each step takes.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long the server goes on accepting connections after the request to stop.
    pub delay: Duration,
    /// How long requests in progress may take after that.
    pub timeout: Duration,
}
