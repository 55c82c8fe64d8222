//! Views of reports: one file a format. They know what a report says, and nothing of how it came about.

pub mod diagnose;
pub mod json;
pub mod junit;
pub mod listening;
pub mod mesh;
pub mod resolve;
pub mod summary;
pub mod table;
pub mod tap;
pub mod text;

use std::str::FromStr;

use runtime::escape::Escaped;

use crate::expectation::Expectation;
use crate::report::Report;
use crate::stats::Summary;

/// The last line of a successful call, and of no other.
pub(crate) const SUCCESS: &str = "Response received successfully!";

/// How much to say of a call, and to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Three lines.
    #[default]
    Text,
    /// A fourth line: the pod, the address, and how long each phase took.
    Wide,
    /// A JSON object.
    Json,
}

/// The text is not a format.
#[derive(Debug, thiserror::Error)]
#[error("expected text, wide or json")]
pub struct ParseFormatError;

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            _ => Err(ParseFormatError),
        }
    }
}

/// How much to say of the calls of `once`, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnceFormat {
    /// As in the loop; of several targets, text is a table.
    Lines(Format),
    /// The Test Anything Protocol, version 14.
    Tap,
    /// JUnit's XML.
    Junit,
}

impl Default for OnceFormat {
    fn default() -> Self {
        Self::Lines(Format::Text)
    }
}

/// The text is not a format of `once`.
#[derive(Debug, thiserror::Error)]
#[error("expected text, wide, json, tap or junit")]
pub struct ParseOnceFormatError;

impl FromStr for OnceFormat {
    type Err = ParseOnceFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "tap" => Ok(Self::Tap),
            "junit" => Ok(Self::Junit),
            format => {
                let format = format.parse().map_err(|_| ParseOnceFormatError)?;
                Ok(Self::Lines(format))
            }
        }
    }
}

impl OnceFormat {
    /// The reports of all targets in this format, each line ended.
    pub fn reports(self, reports: &[Report]) -> String {
        let is_table = reports.len() > 1;
        let blocks = |format: Format| -> String {
            let blocks = reports.iter().map(|report| format.report(report, is_table));
            blocks.collect()
        };
        let text = match self {
            Self::Tap => tap::Tap(reports).to_string(),
            Self::Junit => junit::Junit(reports).to_string(),
            Self::Lines(Format::Json) => return blocks(Format::Json),
            Self::Lines(Format::Text) if is_table => table::Table(reports).to_string(),
            Self::Lines(Format::Wide) if is_table => {
                let table = table::Table(reports).to_string();
                return blocks(Format::Wide) + &without_success(table, "\\x20");
            }
            Self::Lines(format) => {
                let checks = reports.iter().filter(|r| r.expectation != Expectation::Ok);
                let checks: String = checks.map(check).collect();
                return blocks(format) + &checks;
            }
        };
        without_success(text, "\\x20")
    }
}

/// What a call is a test of, in a few words.
fn expected(report: &Report) -> String {
    let label = Escaped::new(report.target.label().as_bytes());
    format!("{label} is {}", report.expectation)
}

/// Whether a call came to what was expected, where that is not a success.
fn check(report: &Report) -> String {
    let Report { expectation, .. } = report;
    match report.is_as_expected() {
        true => format!("Check passed: expected {expectation}\n"),
        false => format!(
            "Check failed: expected {expectation}, but it was {}\n",
            report.result()
        ),
    }
}

impl Format {
    /// A report in this format, each line ended; with the target, if it is one of several.
    pub fn report(self, report: &Report, names_target: bool) -> String {
        let text = match self {
            Self::Text | Self::Wide => text::Block {
                report,
                wide: self == Self::Wide,
                names_target,
            }
            .to_string(),
            Self::Json => {
                let report = json::JsonReport {
                    report,
                    names_target,
                };
                format!("{report}\n")
            }
        };
        match (report.is_ok(), self) {
            (true, _) => text,
            (false, Self::Text | Self::Wide) => without_success(text, "\\x20"),
            (false, Self::Json) => without_success(text, "\\u0020"),
        }
    }

    /// The summaries of all targets in this format, and their total where there are several. Each line is
    /// ended.
    pub fn summaries(self, summaries: &[Summary]) -> String {
        let names_target = summaries.len() > 1;
        let each = summaries.iter().map(|summary| match self {
            Self::Text | Self::Wide => summary::TextSummary(summary).to_string(),
            Self::Json => {
                let json = summary::JsonSummary {
                    summary,
                    names_target,
                };
                format!("{json}\n")
            }
        });
        let mut text: String = each.collect();
        if names_target {
            let total = summary::Total(summaries);
            text += &match self {
                Self::Text | Self::Wide => total.to_string(),
                Self::Json => total.to_json(),
            };
        }
        text
    }
}

/// What a failed call prints never has the line of a successful one, whatever its response says, so that
/// `grep -c` counts rightly: its spaces are written as `space`.
pub(crate) fn without_success(text: String, space: &str) -> String {
    match text.contains(SUCCESS) {
        true => text.replace(SUCCESS, &SUCCESS.replace(' ', space)),
        false => text,
    }
}
