//! Durations as flags take them: `5s`, `500ms`, `1m 30s`.

use std::time::{Duration, Instant};

/// Reads a duration.
///
/// # Errors
///
/// When the text is not a duration, or is one that the clock cannot add to the current time; the error
/// is for the user.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    // Twice, as it is also added to times that are not now, and to other durations.
    match duration
        .checked_mul(2)
        .and_then(|twice| Instant::now().checked_add(twice))
    {
        Some(_) => Ok(duration),
        None => Err("must be shorter: the clock does not reach that far".to_owned()),
    }
}

/// Reads a duration that is not zero, for what must not be disabled by a zero.
///
/// # Errors
///
/// As those of [`parse_duration`], and when it is zero.
pub fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("must be greater than zero".to_owned()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_that_the_clock_cannot_add_are_refused() {
        for text in [
            "584542046090y",
            "18446744073709551615s",
            "300000000000y",
            "0",
            "x",
            "",
        ] {
            assert!(parse_positive_duration(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(
            parse_positive_duration("1000y 1ms").map(|d| d.subsec_millis()),
            Ok(1)
        );
    }
}
