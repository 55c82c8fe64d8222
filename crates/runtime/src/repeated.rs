//! Events that come again and again, so that logs can be no weapon.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines that say the same.
const PAUSE: Duration = Duration::from_secs(10);

/// An event that clients, or a fault that lasts, can bring about again and again: it is logged once in
/// a while, with the number of those that were not.
#[derive(Debug, Default)]
pub(crate) struct Repeated(Mutex<(Option<Instant>, u64)>);

impl Repeated {
    /// Counts the event. `Some`, if it is to be logged: how many were not, since the last that was.
    pub(crate) fn next(&self) -> Option<u64> {
        let (last, silent) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if last.is_some_and(|last| now - last < PAUSE) {
            *silent += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(silent))
    }
}
