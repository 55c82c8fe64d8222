//! Rate limiting of log events, so that clients cannot flood the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::unpoisoned::unpoisoned;

/// Shortest time between two log lines for the same event.
const PAUSE: Duration = Duration::from_secs(10);

/// An event that clients, or a lasting fault, can cause again and again. It is logged at most once in ten seconds,
/// with the number of events that were not logged.
#[derive(Debug, Default)]
pub(crate) struct Repeated(
    /// When the event was last logged, and how often it has happened since.
    Mutex<(Option<Instant>, u64)>,
);

impl Repeated {
    /// Counts the event. Returns `Some` if it is to be logged, with the number of events since the last one that was.
    pub(crate) fn next(&self) -> Option<u64> {
        let (last, not_logged) = &mut *unpoisoned(self.0.lock());
        let now = Instant::now();
        if last.is_some_and(|last| now - last < PAUSE) {
            *not_logged += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(not_logged))
    }
}
