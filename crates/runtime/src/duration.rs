//! Durations as flags accept them: `5s`, `500ms`, `1m 30s`.

use std::time::{Duration, Instant};

/// Parses a duration, such as `5s`.
///
/// # Errors
///
/// If the text is not a duration, or one so long that the clock cannot add it to the current time. The error is a
/// message for the user.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    // Twice the duration, because it is also added to later times and to other durations.
    match duration
        .checked_mul(2)
        .and_then(|twice| Instant::now().checked_add(twice))
    {
        Some(_) => Ok(duration),
        None => Err("must be shorter: the clock does not reach that far".to_owned()),
    }
}

/// Parses a duration that is not zero, for flags that a zero must not disable.
///
/// # Errors
///
/// As [`parse_duration`], and if the duration is zero.
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
    fn durations_that_the_clock_cannot_add_are_rejected() {
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
