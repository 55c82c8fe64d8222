//! The expected result of a call, which makes the call a test.

use std::fmt;
use std::str::FromStr;

use crate::failure::FailureKind;

/// The expected result of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expectation {
    /// The call is expected to succeed.
    #[default]
    Ok,
    /// A policy is expected to block the connection: packets are dropped, or the address is unreachable. A
    /// refused connection does not count, because a missing backend causes one as well.
    Blocked,
    /// The call is expected to fail with this kind of failure.
    Kind(FailureKind),
}

/// The text is not an expectation.
#[derive(Debug, thiserror::Error)]
#[error("expected ok, blocked or one of {}", kinds())]
pub struct ParseExpectationError;

/// The labels of all kinds of failure that can be expected, separated by commas.
fn kinds() -> String {
    let kinds = FailureKind::ALL
        .iter()
        .filter(|kind| can_be_expected(**kind));
    let labels: Vec<&str> = kinds.map(|kind| kind.label()).collect();
    labels.join(", ")
}

/// Whether the kind can be expected: `unproven` cannot, since it is the result of an expectation itself.
fn can_be_expected(kind: FailureKind) -> bool {
    kind != FailureKind::Unproven
}

impl FromStr for Expectation {
    type Err = ParseExpectationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ok" => Ok(Self::Ok),
            "blocked" => Ok(Self::Blocked),
            kind => {
                let kind = kind.parse().ok().filter(|kind| can_be_expected(*kind));
                kind.map(Self::Kind).ok_or(ParseExpectationError)
            }
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Blocked => "blocked",
            Self::Kind(kind) => kind.label(),
        })
    }
}

impl Expectation {
    /// Whether a call with this kind of failure, or a success (`None`), is as expected.
    pub fn allows(self, kind: Option<FailureKind>) -> bool {
        match self {
            Self::Ok => kind.is_none(),
            Self::Blocked => matches!(
                kind,
                Some(FailureKind::ConnectTimeout | FailureKind::ConnectUnreachable)
            ),
            Self::Kind(expected) => kind == Some(expected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Expectation;

    #[test]
    fn invalid_expectations_and_unproven_are_rejected() {
        for text in ["unproven", "", "OK", "dns"] {
            let error = text.parse::<Expectation>().expect_err(text).to_string();
            assert!(error.starts_with("expected ok, blocked or one of resolv_conf, "));
            assert!(!error.contains("unproven"), "{error}");
        }
    }
}
