//! Views of reports: a file for each format. A view depends only on the report, and not on how the call
//! was made.

pub(crate) mod diagnose;
pub mod json;
pub(crate) mod junit;
pub(crate) mod listening;
pub mod mesh;
pub(crate) mod resolve;
pub(crate) mod summary;
pub(crate) mod table;
pub(crate) mod tap;
pub(crate) mod text;

use std::str::FromStr;

use runtime::escape::Escaped;

use crate::expectation::Expectation;
use crate::report::Report;
use crate::stats::Summary;

/// The last line of a successful call; the output of a failed call never contains it.
pub(crate) const SUCCESS: &str = "Response received successfully!";

/// Output format of each call, in the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Three lines of text for each call.
    #[default]
    Text,
    /// The three lines of `Text`, and a fourth with the pod, the address, and the duration of each phase.
    Wide,
    /// A JSON object for each call, on one line.
    Json,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            _ => Err("expected text, wide or json"),
        }
    }
}

/// Output format of `once`: the formats of the loop, and those that need all results at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnceFormat {
    /// A format of the loop. With several targets, text is a table.
    Lines(Format),
    /// The Test Anything Protocol, version 14.
    Tap,
    /// JUnit XML, as CI systems read it.
    Junit,
}

impl FromStr for OnceFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "tap" => Ok(Self::Tap),
            "junit" => Ok(Self::Junit),
            format => {
                let format = format.parse().map(Self::Lines);
                format.map_err(|_| "expected text, wide, json, tap or junit")
            }
        }
    }
}

impl OnceFormat {
    /// The reports of all targets in this format; every line ends with a newline.
    pub(crate) fn reports(self, reports: &[Report]) -> String {
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

/// The name of a call as a test case: target and expectation.
fn expected(report: &Report) -> String {
    let label = Escaped::new(report.target.label().as_bytes());
    format!("{label} is {}", report.expectation)
}

/// The line that says whether an expectation other than `ok` was met.
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
    /// A report in this format; every line ends with a newline. `names_target` is for one of several targets.
    pub(crate) fn report(self, report: &Report, names_target: bool) -> String {
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

    /// The summaries of all targets in this format, and their total if there are several; every line ends
    /// with a newline.
    pub(crate) fn summaries(self, summaries: &[Summary]) -> String {
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

/// Replaces the spaces of the success line with `space` in the output of a failed call, whose evidence may
/// quote that line from the response. So `grep -c` of the success line counts only successful calls.
pub(crate) fn without_success(text: String, space: &str) -> String {
    match text.contains(SUCCESS) {
        true => text.replace(SUCCESS, &SUCCESS.replace(' ', space)),
        false => text,
    }
}
