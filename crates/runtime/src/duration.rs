//! Durations as flags take them: `5s`, `500ms`, `1m 30s`.

use std::time::Duration;

/// Reads a duration that is longer than nothing, for what must not be switched off by a zero.
///
/// # Errors
///
/// When the text is not a duration, or is zero; the error is for the user.
pub fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("must be longer than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}
