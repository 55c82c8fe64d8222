//! Which view of a report is printed.

use std::str::FromStr;

use crate::json::JsonReport;
use crate::report::Report;
use crate::summary::{JsonSummary, Summary};
use crate::text::Block;

/// How much to say of a call, and to whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Three lines.
    #[default]
    Text,
    /// A fourth line: the pod, the address, and where the time went.
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
    /// A report in this format, each line ended. `url` is what was called.
    pub fn report(self, url: &str, report: &Report) -> String {
        match self {
            Self::Text | Self::Wide => Block {
                report,
                wide: self == Self::Wide,
            }
            .to_string(),
            Self::Json => format!("{}\n", JsonReport { url, report }),
        }
    }

    /// The summary in this format, each line ended.
    pub fn summary(self, summary: &Summary) -> String {
        match self {
            Self::Text | Self::Wide => summary.to_string(),
            Self::Json => format!("{}\n", JsonSummary(summary)),
        }
    }
}
