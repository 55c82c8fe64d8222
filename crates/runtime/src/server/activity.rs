//! What a connection is doing, so that one timer can tell who has kept the other waiting too long, and
//! the accept loop who has done so for longest.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::{LARGE, Limits, QUIET};

/// Times are kept as milliseconds from here, as there is no atomic `Instant`.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What a connection is doing. HTTP/2 answers on other tasks, hence the atomics; none of them guards
/// other data.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// When the wait began that goes on now, in milliseconds from [`START`].
    waiting_since: AtomicU64,
    /// Bytes have come since the last answer: it is a head that is waited for, not a request.
    head_begun: AtomicBool,
    /// The same, and they have been read, but the head is not complete.
    head_awaited: AtomicBool,
    /// Requests whose bodies are waited for.
    bodies: AtomicU32,
    /// Requests whose answers we owe.
    owed: AtomicU32,
    /// The answer may go on for ever, so that every byte of it that the client takes is activity.
    streaming: AtomicBool,
    /// The client does not take what is written.
    blocked: AtomicBool,
    /// The client has said all that it will say, and its last answer is all there.
    last: AtomicBool,
    /// The last answer came before the end of the request, of which there may be more on the way.
    cut_short: AtomicBool,
    /// At least one request has been answered.
    served: AtomicBool,
    /// Bytes read since the connection last came to rest.
    read: AtomicUsize,
    /// What it counts as among those in the middle of a request.
    weight: AtomicUsize,
    /// Bytes kept of heads and of values in answers.
    kept: AtomicUsize,
}

fn millis(at: Instant) -> u64 {
    let millis = at.saturating_duration_since(*START).as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX)
}

impl Activity {
    pub(super) fn new() -> Self {
        let new = Self::default();
        new.wait_from(Instant::now());
        new
    }

    fn wait_from(&self, now: Instant) {
        self.waiting_since.store(millis(now), Relaxed);
    }

    pub(super) fn bytes_came(&self, n: usize) {
        self.read.store(self.read.load(Relaxed) + n, Relaxed);
        if !self.in_flight() {
            self.head_begun.store(true, Relaxed);
        }
    }

    /// All that has come has been looked at. Reading the clock here, and not when bytes come, spares
    /// it for heads that come in one piece.
    pub(super) fn on_read_pending(&self) {
        if self.head_begun.load(Relaxed) && !self.head_awaited.swap(true, Relaxed) {
            self.wait_from(Instant::now());
        }
    }

    /// The kernel has taken bytes of an answer.
    pub(super) fn bytes_written(&self) {
        if self.streaming.load(Relaxed) || self.blocked.load(Relaxed) {
            self.blocked.store(false, Relaxed);
            self.wait_from(Instant::now());
        }
    }

    /// The kernel takes no more bytes of an answer, as the client has not taken those before.
    pub(super) fn on_write_pending(&self) {
        if !self.blocked.swap(true, Relaxed) {
            self.wait_from(Instant::now());
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// A head is complete; its body is waited for, until the guard is dropped.
    pub(super) fn await_body(&self) -> Guard<'_> {
        self.no_head();
        self.bodies.fetch_add(1, Relaxed);
        self.wait_from(Instant::now());
        Guard(self, &self.bodies)
    }

    /// A request is complete; its answer is owed, until the guard is dropped.
    pub(super) fn owe_answer(&self) -> Guard<'_> {
        self.no_head();
        self.owed.fetch_add(1, Relaxed);
        Guard(self, &self.owed)
    }

    /// A request has been answered `now`.
    pub(super) fn answered(&self, now: Instant, streaming: bool, last: bool, cut_short: bool) {
        self.no_head();
        self.streaming.store(streaming, Relaxed);
        self.last.store(last && !streaming, Relaxed);
        if cut_short {
            self.cut_short.store(true, Relaxed);
        }
        self.served.store(true, Relaxed);
        self.wait_from(now);
    }

    /// The bytes that came were no head of a request, or a whole one; of the next there may be some.
    pub(super) fn no_head(&self) {
        self.head_begun.store(false, Relaxed);
        self.head_awaited.store(false, Relaxed);
    }

    pub(super) fn is_last(&self) -> bool {
        self.last.load(Relaxed)
    }

    pub(super) fn is_cut_short(&self) -> bool {
        self.cut_short.load(Relaxed)
    }

    pub(super) fn has_served(&self) -> bool {
        self.served.load(Relaxed)
    }

    fn in_flight(&self) -> bool {
        self.bodies.load(Relaxed) > 0 || self.owed.load(Relaxed) > 0
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.in_flight() && !self.head_begun.load(Relaxed)
    }

    /// The client is in the middle of a request, or has not taken its answer.
    pub(super) fn is_pending(&self) -> bool {
        self.head_begun.load(Relaxed) || self.bodies.load(Relaxed) > 0 || self.blocked.load(Relaxed)
    }

    /// Since when the client is waited for. `None` while we owe an answer.
    pub(super) fn waits_since(&self) -> Option<u64> {
        (self.owed.load(Relaxed) == 0).then(|| self.waiting_since.load(Relaxed))
    }

    fn is_between_requests(&self) -> bool {
        self.is_idle() && !self.streaming.load(Relaxed) && !self.blocked.load(Relaxed)
    }

    /// It has come to rest between two requests, and has read much for the last.
    pub(super) fn rests_after_much(&self) -> bool {
        let read = self.read.load(Relaxed);
        self.read.store(0, Relaxed);
        read >= LARGE && self.is_between_requests()
    }

    /// It has been between two requests for some time.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_between_requests() && self.waits_for(QUIET / 2)
    }

    /// The wait that goes on now has taken so long.
    pub(super) fn waits_for(&self, time: Duration) -> bool {
        let since = Duration::from_millis(self.waiting_since.load(Relaxed));
        START.elapsed().saturating_sub(since) >= time
    }

    /// When what is waited for now is late. `None` while we are the one who is waited for.
    fn due(&self, limits: &Limits) -> Option<Instant> {
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

    pub(super) fn is_late(&self, limits: &Limits) -> bool {
        self.due(limits).is_some_and(|due| due <= Instant::now())
    }

    /// When to look again: after `pause`, or earlier where something is due.
    pub(super) fn check_at(&self, limits: &Limits, pause: Duration) -> Instant {
        let soonest = Instant::now() + pause;
        self.due(limits).map_or(soonest, |due| due.min(soonest))
    }

    pub(super) fn weight(&self) -> usize {
        self.weight.load(Relaxed)
    }

    pub(super) fn set_weight(&self, weight: usize) {
        self.weight.store(weight, Relaxed);
    }

    /// Counts bytes that are kept for the client, unless there would be more than `max`.
    pub(super) fn keep(&self, n: usize, max: usize) -> bool {
        let kept = self.kept.fetch_add(n, Relaxed) + n;
        if kept > max {
            self.kept.fetch_sub(n, Relaxed);
        }
        kept <= max
    }

    pub(super) fn let_go(&self, n: usize) {
        self.kept.fetch_sub(n, Relaxed);
    }
}

/// A request that is waited for, until dropped.
pub(super) struct Guard<'a>(&'a Activity, &'a AtomicU32);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Relaxed);
        self.0.wait_from(Instant::now());
    }
}
