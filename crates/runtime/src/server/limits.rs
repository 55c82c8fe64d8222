//! What a connection may take of time and memory, and how the memory adds up.
//!
//! Most connections are idle, and an idle one is a socket and some 1.5 KB ("parked"). One that has just
//! been answered keeps its buffers for [`QUIET`], some 10 KB. What a client can make larger is bounded
//! for each, and only so many clients may be in the middle of a request at once: [`Limits::max_pending`],
//! a quarter of all.
//!
//! | an HTTP/1 connection in the middle of a request | at most |
//! |---|---|
//! | the head being read, in a buffer that doubles ([`MAX_HEAD`]) | 32 KB |
//! | its fields as a map, 100 of them | 21 KB |
//! | or, while its body is discarded: what is kept of the head, and trailers | 24 + 32 KB |
//! | or, while answers are not taken: answers in a buffer that doubles, and unread requests | 48 + 32 KB |
//! | bytes in the kernel, each way ([`crate::listen`]) | 32 + 32 KB |
//!
//! An HTTP/2 connection counts as ten of these (`HTTP2_WEIGHT`) from its preface on:
//!
//! | an HTTP/2 connection | at most |
//! |---|---|
//! | frames being read and written | 48 KB |
//! | a header block that is not complete: 16 KB of fields as a map | 84 KB |
//! | 32 requests, each with what is kept of its head | 32 × 4 KB |
//! | of all of them, larger values in heads that are kept and in answers ([`MAX_KEPT`]) | 32 KB, and 64 KB encoded |
//! | a table of fields: each of 97 entries keeps the frame that it came in | 97 × 8 to 16 KB |
//! | bytes in the kernel, each way | 32 + 32 KB |
//!
//! With 1,024 connections that is 1,024 × 10 KB, and 256 × 144 KB or 25 × 1.9 MB: less than 60 MB.
//! The worst that was found to be sent took 18 to 50 MB.

use std::time::Duration;

/// Most bytes of an HTTP/1 request's head, and of unread pipelined requests. A service mesh adds to
/// heads; 16 KB, with 8 KB in one field, are seen.
pub(super) const MAX_HEAD: usize = 24 * 1024;

/// An HTTP/1 connection that has been quiet for this long is parked.
pub(super) const QUIET: Duration = Duration::from_millis(10);

/// So is one that has read this much for its last request, at once: its buffer has grown.
pub(super) const LARGE: usize = 8 * 1024;

/// HTTP/2: requests at once for each connection.
#[cfg(feature = "http2")]
pub(super) const MAX_STREAMS: u32 = 32;

/// HTTP/2: bytes of one head, with 32 more for each field.
#[cfg(feature = "http2")]
pub(super) const MAX_HEADER_LIST: u32 = 16 * 1024;

/// HTTP/2: bytes of bodies in transit, for each connection and each stream. They are discarded as they
/// come.
#[cfg(feature = "http2")]
pub(super) const WINDOW: u32 = 64 * 1024;

/// HTTP/2: bytes of the heads that a connection keeps while it waits for their bodies, and of those
/// values that come back in answers.
pub(super) const MAX_KEPT: usize = 32 * 1024;

/// How many HTTP/1 connections in the middle of a request an HTTP/2 connection counts as.
#[cfg(feature = "http2")]
pub(super) const HTTP2_WEIGHT: usize = 10;

/// Of the connections of a port, this share may be in the middle of a request; but so many always.
const PENDING_SHARE: usize = 4;
const MIN_PENDING: usize = 16;

/// Limits for each client, and for all of them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time for the first byte of a connection to arrive; from the first byte of a request to
    /// the end of its head, and again from there to the end of its body; and without taking any of an
    /// answer.
    pub header_timeout: Duration,
    /// Longest time between two requests.
    pub idle_timeout: Duration,
    /// Connections open at once. Another one replaces the one that has kept us waiting longest.
    pub max_connections: usize,
    /// Longest request body, in bytes.
    pub max_body: u64,
}

impl Limits {
    /// How many connections may be in the middle of a request, waiting for their clients. Another one
    /// replaces the one that has waited longest. A request that comes in one piece never counts.
    pub(super) fn max_pending(&self) -> usize {
        (self.max_connections / PENDING_SHARE).max(MIN_PENDING)
    }
}

/// Graceful-shutdown timing.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Time to go on accepting after the request to stop.
    pub delay: Duration,
    /// Time for requests under way after that.
    pub timeout: Duration,
}
