//! Views of reports: one file a format. They know what a report says, and nothing of how it came about.

pub mod diagnose;
pub mod json;
pub mod listening;
pub mod resolve;
pub mod summary;
pub mod text;

use std::str::FromStr;

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

impl Format {
    /// A report in this format, each line ended.
    pub fn report(self, report: &Report) -> String {
        let text = match self {
            Self::Text => text::Block {
                report,
                wide: false,
            }
            .to_string(),
            Self::Wide => text::Block { report, wide: true }.to_string(),
            Self::Json => format!("{}\n", json::JsonReport(report)),
        };
        match (report.is_ok(), self) {
            (true, _) => text,
            (false, Self::Text | Self::Wide) => without_success(text, "\\x20"),
            (false, Self::Json) => without_success(text, "\\u0020"),
        }
    }

    /// The summary in this format, each line ended.
    pub fn summary(self, summary: &Summary) -> String {
        match self {
            Self::Text | Self::Wide => summary::TextSummary(summary).to_string(),
            Self::Json => format!("{}\n", summary::JsonSummary(summary)),
        }
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
