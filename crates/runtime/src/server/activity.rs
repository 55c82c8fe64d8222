//! The state of a connection, from which its one timer tells whether a timeout has passed, and the accept loop
//! which connection has kept the server waiting longest.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::{Limits, PARK_AFTER, PARK_AT_ONCE_FROM};

/// Start of the clock: times are kept as milliseconds since this moment, because there is no atomic `Instant`.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The state of a connection. Its fields are atomics because requests of an HTTP/2 connection are served by other
/// tasks; none of them guards other data.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Start of the current wait, in milliseconds since [`START`]: of the server for the client, or, while a response
    /// is due, of the client for the server.
    waiting_since: AtomicU64,
    /// Bytes have been read since the last response, so the server waits for the rest of a head and not for a
    /// request.
    head_begun: AtomicBool,
    /// As `head_begun`, and all bytes that were available have been read, so the head is not complete.
    head_awaited: AtomicBool,
    /// Number of requests whose bodies the server waits for.
    bodies: AtomicU32,
    /// Number of complete requests whose responses are not ready yet.
    responses_due: AtomicU32,
    /// The response is streamed and may never end, so each byte of it that the client reads is activity.
    streaming: AtomicBool,
    /// The socket takes no more bytes, because the client has not read the earlier ones.
    blocked: AtomicBool,
    /// Bytes of a response have been written, and it is not known that hyper has no more of them.
    unflushed: AtomicBool,
    /// Hyper has not taken all of a large response yet.
    sending: AtomicBool,
    /// The client sends no other request, and the response to its last one is complete.
    last: AtomicBool,
    /// The last response was made before the end of its request, so more of that may be on the way.
    cut_short: AtomicBool,
    /// At least one request has had its response.
    served: AtomicBool,
    /// The client was chosen to connect anew, and its connection speaks HTTP/2, in which no response says so.
    shutdown_requested: AtomicBool,
    /// Bytes read since the connection was last idle.
    read: AtomicUsize,
    /// Weight of the connection among those in the middle of a request; 0 if it is not.
    weight: AtomicUsize,
    /// Bytes kept of request heads and of header values in responses.
    kept: AtomicUsize,
}

/// Milliseconds from [`START`] to `at`.
fn millis(at: Instant) -> u64 {
    let millis = at.saturating_duration_since(*START).as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX)
}

impl Activity {
    /// A new connection, on which the server waits for the first byte from now on.
    pub(super) fn new() -> Self {
        let new = Self::default();
        new.restart_wait(Instant::now());
        new
    }

    /// Begins a new wait, and with it a new timeout.
    fn restart_wait(&self, now: Instant) {
        self.waiting_since.store(millis(now), Relaxed);
    }

    /// Bytes were read. Between requests they are the beginning of a head.
    pub(super) fn on_bytes_read(&self, n: usize) {
        self.read.store(self.read.load(Relaxed) + n, Relaxed);
        if !self.in_flight() {
            self.head_begun.store(true, Relaxed);
        }
    }

    /// All available bytes have been read and parsed. The clock is read here and not when bytes are read, which
    /// saves it for heads that come in one piece.
    pub(super) fn on_read_pending(&self) {
        if self.head_begun.load(Relaxed) && !self.head_awaited.swap(true, Relaxed) {
            self.restart_wait(Instant::now());
        }
    }

    /// The socket has taken bytes of a response.
    pub(super) fn bytes_written(&self) {
        if self.streaming.load(Relaxed) || self.blocked.load(Relaxed) {
            self.blocked.store(false, Relaxed);
            self.restart_wait(Instant::now());
        }
    }

    /// The socket takes no more bytes of a response, because the client has not read the earlier ones.
    pub(super) fn on_write_pending(&self) {
        if !self.blocked.swap(true, Relaxed) {
            self.restart_wait(Instant::now());
        }
    }

    /// Whether hyper has written all that it has.
    pub(super) fn set_flushed(&self, flushed: bool) {
        self.unflushed.store(!flushed, Relaxed);
    }

    /// Whether hyper still has to take a part of the body of a response.
    pub(super) fn set_sending(&self, sending: bool) {
        self.sending.store(sending, Relaxed);
    }

    /// Whether the client does not read what is sent.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// A head is complete, and the server waits for its body until the guard is dropped.
    pub(super) fn await_body(&self) -> WaitGuard<'_> {
        self.head_complete();
        self.bodies.fetch_add(1, Relaxed);
        self.restart_wait(Instant::now());
        WaitGuard(self, &self.bodies)
    }

    /// A request is complete, and its response is being made until the guard is dropped. The first of several restarts
    /// the clock, so that [`Activity::due_since_millis`] tells since when a response is due.
    pub(super) fn begin_response(&self) -> WaitGuard<'_> {
        self.head_complete();
        if self.responses_due.fetch_add(1, Relaxed) == 0 {
            self.restart_wait(Instant::now());
        }
        WaitGuard(self, &self.responses_due)
    }

    /// The response to a request was made at `now`. `streaming`: its body may never end. `last`: the client sends no
    /// other request. `cut_short`: the request has not ended.
    pub(super) fn on_response(&self, now: Instant, streaming: bool, last: bool, cut_short: bool) {
        self.head_complete();
        self.streaming.store(streaming, Relaxed);
        self.last.store(last && !streaming, Relaxed);
        if cut_short {
            self.cut_short.store(true, Relaxed);
        }
        self.served.store(true, Relaxed);
        self.restart_wait(now);
    }

    /// What has been read so far is a complete head, or belongs to no request.
    pub(super) fn head_complete(&self) {
        self.head_begun.store(false, Relaxed);
        self.head_awaited.store(false, Relaxed);
    }

    /// Whether the client sends no other request, and the response to its last one is complete.
    pub(super) fn is_last(&self) -> bool {
        self.last.load(Relaxed)
    }

    /// Whether the last response was made before the end of its request.
    pub(super) fn is_cut_short(&self) -> bool {
        self.cut_short.load(Relaxed)
    }

    /// Whether at least one request has had its response.
    pub(super) fn has_served(&self) -> bool {
        self.served.load(Relaxed)
    }

    /// Whether a request is being received or served.
    fn in_flight(&self) -> bool {
        self.bodies.load(Relaxed) > 0 || self.responses_due.load(Relaxed) > 0
    }

    /// Whether every request that has begun has had its response.
    pub(super) fn is_idle(&self) -> bool {
        !self.in_flight() && !self.head_begun.load(Relaxed)
    }

    /// Whether the client is in the middle of a request, does not read its response, or has sent a large request
    /// whose response is not ready.
    pub(super) fn is_mid_request(&self) -> bool {
        self.head_begun.load(Relaxed)
            || self.bodies.load(Relaxed) > 0
            || self.blocked.load(Relaxed)
            || self.responses_due.load(Relaxed) > 0 && self.is_large()
    }

    /// Whether many bytes were read since the connection was last idle, so its buffer has grown.
    fn is_large(&self) -> bool {
        self.read.load(Relaxed) >= PARK_AT_ONCE_FROM
    }

    /// Start of the wait for the client, in milliseconds. `None` while the client waits for a response.
    pub(super) fn waiting_since_millis(&self) -> Option<u64> {
        (self.responses_due.load(Relaxed) == 0).then(|| self.waiting_since.load(Relaxed))
    }

    /// Since when a response is due, or streamed, in milliseconds. `None` if there is no such response, or if one is
    /// due for less than `time`.
    pub(super) fn due_since_millis(&self, time: Duration) -> Option<u64> {
        let is_due = self.responses_due.load(Relaxed) > 0 && self.has_waited(time);
        (is_due || self.streaming.load(Relaxed)).then(|| self.waiting_since.load(Relaxed))
    }

    /// The connection is to be shut down gracefully.
    pub(super) fn request_graceful_shutdown(&self) {
        self.shutdown_requested.store(true, Relaxed);
    }

    /// Whether the connection is to be shut down gracefully.
    pub(super) fn is_shutdown_requested(&self) -> bool {
        self.shutdown_requested.load(Relaxed)
    }

    /// Whether the last response is sent and the client has not begun another request.
    fn is_between_requests(&self) -> bool {
        let is_sent = !self.unflushed.load(Relaxed) && !self.sending.load(Relaxed);
        is_sent && self.is_idle() && !self.streaming.load(Relaxed) && !self.blocked.load(Relaxed)
    }

    /// Whether the connection is between two requests, the last of which was large. Begins to count bytes anew.
    pub(super) fn take_idle_after_large_request(&self) -> bool {
        if !self.is_idle() {
            return false;
        }
        let was_large = self.is_large();
        self.read.store(0, Relaxed);
        was_large && self.is_between_requests()
    }

    /// Whether the connection has been between two requests long enough to be parked.
    pub(super) fn should_park(&self) -> bool {
        self.is_between_requests() && self.has_waited(PARK_AFTER / 2)
    }

    /// Whether the current wait has taken at least this long.
    pub(super) fn has_waited(&self, time: Duration) -> bool {
        let since = Duration::from_millis(self.waiting_since.load(Relaxed));
        START.elapsed().saturating_sub(since) >= time
    }

    /// When the timeout of the current wait passes. `None` while the client waits for the server, or has a timeout
    /// of its own, for the body of its request.
    fn deadline(&self, limits: &Limits) -> Option<Instant> {
        if self.in_flight() {
            return None;
        }
        let in_request = self.head_begun.load(Relaxed) || self.blocked.load(Relaxed);
        let timeout = if in_request || !self.has_served() {
            limits.header_timeout
        } else {
            limits.idle_timeout
        };
        let since = Duration::from_millis(self.waiting_since.load(Relaxed));
        START.checked_add(since)?.checked_add(timeout)
    }

    /// Whether the timeout of the current wait has passed.
    pub(super) fn is_overdue(&self, limits: &Limits) -> bool {
        self.deadline(limits)
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    /// When to check again: after `pause`, or earlier where a timeout passes before.
    pub(super) fn next_check(&self, limits: &Limits, pause: Duration) -> Instant {
        let after_pause = Instant::now() + pause;
        self.deadline(limits)
            .map_or(after_pause, |deadline| deadline.min(after_pause))
    }

    /// Weight of the connection among those in the middle of a request; 0 if it is not.
    pub(super) fn weight(&self) -> usize {
        self.weight.load(Relaxed)
    }

    /// Sets the weight; 0 at the end of the request.
    pub(super) fn set_weight(&self, weight: usize) {
        self.weight.store(weight, Relaxed);
    }

    /// Counts bytes that are kept for the client. Returns `false`, and counts nothing, if there would be more than
    /// `max`.
    pub(super) fn try_keep(&self, n: usize, max: usize) -> bool {
        let kept = self.kept.fetch_add(n, Relaxed) + n;
        if kept > max {
            self.kept.fetch_sub(n, Relaxed);
        }
        kept <= max
    }

    /// Takes bytes that [`Activity::try_keep`] counted off the count.
    pub(super) fn release(&self, n: usize) {
        self.kept.fetch_sub(n, Relaxed);
    }
}

/// Counts a request in one of the counters of an [`Activity`] until dropped, which begins a new wait.
pub(super) struct WaitGuard<'a>(&'a Activity, &'a AtomicU32);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Relaxed);
        self.0.restart_wait(Instant::now());
    }
}
