//! What a call is expected to come to, which makes a check of it.

use std::fmt;
use std::str::FromStr;

use crate::failure::FailureKind;

/// What a call is expected to come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expectation {
    /// It succeeds.
    #[default]
    Ok,
    /// A policy keeps it from connecting: packets are dropped, or there is no way. A refusal is no
    /// sign of that, because a backend that is not there refuses as well.
    Blocked,
    /// It fails in this way.
    Kind(FailureKind),
}

/// The text is not an expectation.
#[derive(Debug, thiserror::Error)]
#[error("expected ok, blocked or one of {}", kinds())]
pub struct ParseExpectationError;

/// The kinds of failure that a call can be expected to come to.
fn kinds() -> String {
    let kinds = FailureKind::ALL
        .iter()
        .filter(|kind| can_be_expected(**kind));
    let labels: Vec<&str> = kinds.map(|kind| kind.label()).collect();
    labels.join(", ")
}

/// `unproven` is a verdict on an expectation, and not one itself.
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
    /// Whether a call that failed in this way, or succeeded (`None`), came to what was expected.
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
    fn an_unproven_result_cannot_be_expected() {
        for text in ["unproven", "", "OK", "dns"] {
            let error = text.parse::<Expectation>().expect_err(text).to_string();
            assert!(error.starts_with("expected ok, blocked or one of resolv_conf, "));
            assert!(!error.contains("unproven"), "{error}");
        }
    }
}
