//! What a call is expected to come to, which makes a check of it.

use std::fmt;
use std::str::FromStr;

use crate::failure::{FailureKind, ParseFailureKindError};
use crate::report::Report;

/// What a call is expected to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It succeeds.
    Ok,
    /// A policy keeps it from connecting: packets are dropped, or there is no way. A refusal is no
    /// sign of that, because a backend that is not there refuses as well.
    Blocked,
    /// It fails in this way.
    Kind(FailureKind),
}

impl FromStr for Expectation {
    type Err = ParseFailureKindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ok" => Ok(Self::Ok),
            "blocked" => Ok(Self::Blocked),
            kind => kind.parse().map(Self::Kind),
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
    /// Whether a call came to what was expected.
    pub fn is_met_by(self, report: &Report) -> bool {
        let kind = report.kind();
        match self {
            Self::Ok => kind.is_none(),
            Self::Blocked => {
                matches!(
                    kind,
                    Some(FailureKind::ConnectTimeout | FailureKind::ConnectUnreachable)
                )
            }
            Self::Kind(expected) => kind == Some(expected),
        }
    }

    /// The exit code for a call: 0 as expected; else its kind's, or 1 if it succeeded.
    pub fn exit_code(self, report: &Report) -> u8 {
        match report.kind() {
            _ if self.is_met_by(report) => 0,
            Some(kind) => kind.exit_code(),
            None => 1,
        }
    }
}
