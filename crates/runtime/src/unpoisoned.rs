//! Locks whose poisoning is ignored.

use std::sync::{LockResult, PoisonError};

/// The guard of a lock, or of a wait on a condition, whether or not another thread panicked while it held the lock.
///
/// The binaries are built with `panic = "abort"`, so there no lock is ever poisoned. In tests, what these locks
/// guard is in order even after a panic.
pub fn unpoisoned<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
