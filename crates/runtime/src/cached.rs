//! Keeps what is costly to make and what anybody may ask for.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old a page may be.
const MAX_AGE: Duration = Duration::from_millis(200);

/// A page, metrics, or whatever is made of a program's state: made anew at most once in 200 ms, however
/// many ask for it. For those in between it is as it was then; they share one copy if `T` is shared, as
/// `Bytes` are.
///
/// ```
/// let page = runtime::cached::Cached::<bytes::Bytes>::default();
/// let now = page.get(|| "costly".into());
/// assert_eq!(page.get(|| unreachable!()), now);
/// ```
#[derive(Debug)]
pub struct Cached<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Cached<T> {
    /// Gives what was made in the last 200 ms, or makes it. Who asks meanwhile waits for it.
    pub fn get(&self, make: impl FnOnce() -> T) -> T {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((made, value)) if made.elapsed() < MAX_AGE => value.clone(),
            _ => {
                let value = make();
                *last = Some((Instant::now(), value.clone()));
                value
            }
        }
    }
}
