//! Points in time as reports show them: in UTC, limited to the years 1970 to 9999. A time outside of that
//! range is shown as its nearest bound.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::fmt_http_date;
use humantime::format_rfc3339_millis;

/// The last second of the year 9999, which in certificates stands for no expiry (RFC 5280, section 4.1.2.5).
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// Time since the Unix epoch, limited as the module says.
pub(crate) fn since_epoch(moment: SystemTime) -> Duration {
    let since = moment.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().min(LAST)
}

/// Date and time to the millisecond (RFC 3339): `2025-12-10T16:20:00.000Z`.
pub(crate) fn rfc3339(moment: SystemTime) -> String {
    format_rfc3339_millis(UNIX_EPOCH + since_epoch(moment)).to_string()
}

/// Date and time to the second: `2025-12-10T16:20:00`.
pub(crate) fn date_time(moment: SystemTime) -> String {
    rfc3339(moment)[..19].to_owned()
}

/// The time of day, to the second: `16:20:00`.
pub(crate) fn time_of_day(moment: SystemTime) -> String {
    rfc3339(moment)[11..19].to_owned()
}

/// Date and time to the minute: `2025-12-10 16:20 UTC`.
pub(crate) fn to_the_minute(moment: SystemTime) -> String {
    let text = rfc3339(moment);
    format!("{} {} UTC", &text[..10], &text[11..16])
}

/// Date and time in the format of date(1) in the C locale: `Wed Dec 10 16:20:00 UTC 2025`.
pub(crate) fn unix_date(moment: SystemTime) -> String {
    // `Wed, 10 Dec 2025 16:20:00 GMT`, where the day of the month may begin with a zero.
    let text = fmt_http_date(UNIX_EPOCH + since_epoch(moment));
    let day = text[5..7].trim_start_matches('0');
    let (weekday, month, year, time) = (&text[..3], &text[8..11], &text[12..16], &text[17..25]);
    format!("{weekday} {month} {day:>2} {time} UTC {year}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::{LAST, date_time, rfc3339, time_of_day, to_the_minute, unix_date};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn unix_date_has_the_format_of_the_date_command() {
        for (seconds, date) in [
            (0, "Thu Jan  1 00:00:00 UTC 1970"),
            (951_782_399, "Mon Feb 28 23:59:59 UTC 2000"),
            (951_782_400, "Tue Feb 29 00:00:00 UTC 2000"),
            (1_733_847_600, "Tue Dec 10 16:20:00 UTC 2024"),
            (1_765_383_600, "Wed Dec 10 16:20:00 UTC 2025"),
            (1_772_323_200, "Sun Mar  1 00:00:00 UTC 2026"),
            (4_107_542_400, "Mon Mar  1 00:00:00 UTC 2100"),
            (LAST.as_secs(), "Fri Dec 31 23:59:59 UTC 9999"),
        ] {
            assert_eq!(unix_date(at(seconds)), date);
        }
    }

    #[test]
    fn a_time_out_of_range_is_shown_as_the_nearest_bound() {
        let before = UNIX_EPOCH - Duration::from_secs(86_400);
        assert_eq!(rfc3339(before), "1970-01-01T00:00:00.000Z");
        assert_eq!(unix_date(before), "Thu Jan  1 00:00:00 UTC 1970");
        for after in [UNIX_EPOCH + LAST, UNIX_EPOCH + LAST * 20] {
            assert_eq!(rfc3339(after), "9999-12-31T23:59:59.000Z");
            assert_eq!(to_the_minute(after), "9999-12-31 23:59 UTC");
            assert_eq!(unix_date(after), "Fri Dec 31 23:59:59 UTC 9999");
        }
    }

    proptest! {
        /// The last time that the other library can represent is 26 hours before the end of the year 9999.
        #[test]
        fn every_format_agrees_with_another_library(nanos in 0..253_402_207_200_000_000_000_u128) {
            let other = Timestamp::from_nanosecond(nanos as i128).expect("it is in range");
            let moment = SystemTime::from(other);
            prop_assert_eq!(rfc3339(moment), format!("{other:.3}"));
            for (form, of) in [
                ("%Y-%m-%dT%H:%M:%S", date_time as fn(SystemTime) -> String),
                ("%H:%M:%S", time_of_day),
                ("%Y-%m-%d %H:%M UTC", to_the_minute),
                ("%a %b %e %H:%M:%S UTC %Y", unix_date),
            ] {
                prop_assert_eq!(of(moment), other.strftime(form).to_string());
            }
        }
    }
}
