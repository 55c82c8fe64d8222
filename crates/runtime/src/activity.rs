//! What a connection is doing, so that one timer can tell who has kept the other waiting too long.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::server::Limits;

/// What a connection is doing, as far as its timer needs to know. HTTP/2 answers on other tasks,
/// hence the atomics; none of them guards other data.
#[derive(Debug)]
pub(crate) struct Activity {
    pub(crate) opened: Instant,
    /// Milliseconds from `opened` to the start of what is waited for now.
    waiting_since: AtomicU64,
    /// Bytes have come since the last answer: it is a head that is waited for, not a request.
    head_begun: AtomicBool,
    /// The same, and they have been read, but the head is not complete.
    head_awaited: AtomicBool,
    /// Requests whose answers have to be waited for.
    in_flight: AtomicU32,
    /// The answer may go on for ever, so that every byte of it that the client takes is activity.
    streaming: AtomicBool,
    /// The client has said all that it will say, and its last answer is all there.
    last: AtomicBool,
    /// At least one request has been answered.
    served: AtomicBool,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            opened: Instant::now(),
            waiting_since: AtomicU64::new(0),
            head_begun: AtomicBool::new(false),
            head_awaited: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            streaming: AtomicBool::new(false),
            last: AtomicBool::new(false),
            served: AtomicBool::new(false),
        }
    }

    fn wait_from(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.opened).as_millis();
        self.waiting_since
            .store(u64::try_from(millis).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn bytes_came(&self) {
        if self.in_flight.load(Relaxed) == 0 {
            self.head_begun.store(true, Relaxed);
        }
    }

    /// All that has come has been looked at. Reading the clock here, and not when bytes come, spares
    /// it for heads that come in one piece.
    pub(crate) fn came_to_rest(&self) {
        if self.head_begun.load(Relaxed) && !self.head_awaited.swap(true, Relaxed) {
            self.wait_from(Instant::now());
        }
    }

    /// The kernel has taken bytes of an answer for an HTTP/1 client.
    pub(crate) fn bytes_left(&self) {
        if self.streaming.load(Relaxed) {
            self.wait_from(Instant::now());
        }
    }

    /// A head is complete; its answer has to be waited for, until the guard is dropped.
    pub(crate) fn begin(&self) -> InFlight<'_> {
        self.no_head();
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self)
    }

    /// A head is complete, and has been answered `now`.
    pub(crate) fn answered(&self, now: Instant, streaming: bool, last: bool) {
        self.no_head();
        self.streaming.store(streaming, Relaxed);
        self.last.store(last && !streaming, Relaxed);
        self.served.store(true, Relaxed);
        self.wait_from(now);
    }

    /// The bytes that came were no head of a request, or a whole one; of the next there may be some.
    pub(crate) fn no_head(&self) {
        self.head_begun.store(false, Relaxed);
        self.head_awaited.store(false, Relaxed);
    }

    pub(crate) fn is_last(&self) -> bool {
        self.last.load(Relaxed)
    }

    pub(crate) fn has_served(&self) -> bool {
        self.served.load(Relaxed)
    }

    pub(crate) fn idle(&self) -> bool {
        self.in_flight.load(Relaxed) == 0 && !self.head_begun.load(Relaxed)
    }

    /// When what is waited for now is late. `None`: we are the one who is waited for.
    fn due(&self, limits: &Limits) -> Option<Instant> {
        if self.in_flight.load(Relaxed) > 0 {
            return None;
        }
        let patience = if self.head_begun.load(Relaxed) {
            limits.header_timeout
        } else {
            limits.idle_timeout
        };
        Some(self.opened + Duration::from_millis(self.waiting_since.load(Relaxed)) + patience)
    }

    pub(crate) fn late(&self, limits: &Limits) -> bool {
        self.due(limits).is_some_and(|due| due <= Instant::now())
    }

    /// When to look again. One timer that is seldom touched is cheaper than one set for every
    /// request, so it must not sleep past a head that begins right after this look.
    pub(crate) fn check_at(&self, limits: &Limits) -> Instant {
        let soonest = Instant::now() + limits.header_timeout.min(limits.idle_timeout);
        self.due(limits).map_or(soonest, |due| due.min(soonest))
    }
}

/// A request whose answer is waited for, until dropped.
pub(crate) struct InFlight<'a>(&'a Activity);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.0.wait_from(Instant::now());
        }
    }
}
