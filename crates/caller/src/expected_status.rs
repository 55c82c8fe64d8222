//! Which HTTP statuses count as a success.

use std::ops::RangeInclusive;
use std::str::FromStr;

use http::StatusCode;

/// A list of codes (`200`), classes (`2xx`) and ranges (`200-299`), separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedStatus(Vec<RangeInclusive<u16>>);

/// The text is not a list of HTTP statuses.
#[derive(Debug, thiserror::Error)]
#[error("expected codes, classes or ranges from 100 to 599, such as 200, 2xx, 200-204 or 200,404")]
pub struct ParseStatusError;

impl ExpectedStatus {
    /// A list that allows every status.
    pub fn any() -> Self {
        Self(vec![100..=599])
    }

    /// Whether a response with this status is a success.
    pub fn allows(&self, status: StatusCode) -> bool {
        self.0.iter().any(|range| range.contains(&status.as_u16()))
    }
}

/// The default list, `2xx`.
impl Default for ExpectedStatus {
    fn default() -> Self {
        Self(vec![200..=299])
    }
}

impl FromStr for ExpectedStatus {
    type Err = ParseStatusError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',')
            .map(range)
            .collect::<Option<_>>()
            .map(Self)
            .ok_or(ParseStatusError)
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let code = |text: &str| text.parse().ok().filter(|code| (100..=599).contains(code));
    match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(class), _) => {
            let first = code(&format!("{class}00"))?;
            Some(first..=first + 99)
        }
        (None, Some((first, last))) => {
            Some(code(first)?..=code(last)?).filter(|range| !range.is_empty())
        }
        (None, None) => code(text).map(|code| code..=code),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ExpectedStatus;

    fn allowed(text: &str) -> Vec<u16> {
        let expected: ExpectedStatus = text.parse().expect("it is well formed");
        let allows = |code: &u16| expected.allows((*code).try_into().expect("a status"));
        (100..600).filter(allows).collect()
    }

    #[test]
    fn codes_classes_and_ranges_are_accepted() {
        assert_eq!(allowed("200"), [200]);
        assert_eq!(allowed("2xx"), (200..300).collect::<Vec<_>>());
        assert_eq!(allowed("200-202,404"), [200, 201, 202, 404]);
    }

    #[test]
    fn anything_else_is_rejected() {
        for text in [
            "", "99", "600", "6xx", "0xx", "xx", "300-200", "200,", "2x", "a-b", "-",
        ] {
            assert!(text.parse::<ExpectedStatus>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_ranges_stay_within_100_and_599(text in "[0-9x,-]{0,12}") {
            if let Ok(expected) = text.parse::<ExpectedStatus>() {
                prop_assert!(expected.0.iter().all(|range| *range.start() >= 100 && *range.end() <= 599));
            }
        }
    }
}
