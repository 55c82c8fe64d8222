//! A cache for one value that is costly to make and that any client can request.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::unpoisoned::unpoisoned;

/// Longest time for which a value is returned again.
const MAX_AGE: Duration = Duration::from_millis(200);

/// A cached value, such as a rendered page: made anew at most once in 200 ms, however many requests there are for
/// it. Each of them gets a clone, which is cheap if `T` is shared, as `Bytes` are.
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
    /// Returns the value that was made in the last 200 ms, or makes it. Calls of other threads block meanwhile.
    pub fn get(&self, make: impl FnOnce() -> T) -> T {
        let mut last = unpoisoned(self.0.lock());
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
