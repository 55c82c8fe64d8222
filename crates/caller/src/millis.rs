//! Durations as reports show them.

use std::fmt;
use std::time::Duration;

/// Displays a duration in milliseconds, to a tenth; `-` for `None`.
pub(crate) struct Millis(pub(crate) Option<Duration>);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => f.pad(&format!("{:.1}ms", duration.as_secs_f64() * 1e3)),
            None => f.pad("-"),
        }
    }
}
