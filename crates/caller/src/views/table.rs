//! The calls of `once` as a table with a line for each target. A call that was not as expected is followed by
//! its likely cause and the next command.

use std::fmt;

use runtime::escape::Escaped;

use super::text::{Connected, Evidence};
use crate::millis::Millis;
use crate::report::{Outcome, Phase, Report};
use crate::verdict;

/// Displays one call of each of several targets; every line ends with a newline.
#[derive(Debug)]
pub(crate) struct Table<'a>(
    /// A report for each target.
    pub &'a [Report],
);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = |report: &Report| Escaped::new(report.target.label().as_bytes()).to_string();
        let labels: Vec<String> = self.0.iter().map(label).collect();
        let expected = self.0.iter().map(|report| report.expectation.to_string());
        let expected: Vec<String> = expected.collect();
        let width = |column: &[String], title: &str| {
            let widths = column.iter().map(|text| text.chars().count());
            widths.max().unwrap_or_default().max(title.len())
        };
        let (wide, narrow) = (width(&labels, "TARGET"), width(&expected, "EXPECTED"));
        writeln!(
            f,
            "      {:<wide$}  {:<narrow$}  RESULT",
            "TARGET", "EXPECTED"
        )?;
        for ((report, label), expected) in self.0.iter().zip(&labels).zip(&expected) {
            let mark = match report.is_as_expected() {
                true => "ok  ",
                false => "FAIL",
            };
            writeln!(
                f,
                "{mark}  {label:<wide$}  {expected:<narrow$}  {}",
                CallResult(report)
            )?;
            if report.is_as_expected() {
                continue;
            }
            if let Some(failure) = report.failure() {
                let likely = verdict::likely(report, failure);
                writeln!(f, "      likely  {}", Escaped::new(likely.as_bytes()))?;
                let next = verdict::next_command(report, failure.kind);
                writeln!(f, "      next    {}", Escaped::new(next.as_bytes()))?;
            }
        }
        let met = self.0.iter().filter(|report| report.is_as_expected());
        writeln!(f, "{} of {} as expected", met.count(), self.0.len())
    }
}

/// Displays the result of a call on one line.
pub(super) struct CallResult<'a>(pub(super) &'a Report);

impl fmt::Display for CallResult<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let took = Millis(report.timings[Phase::Total]);
        match &report.outcome {
            Outcome::Connected => write!(f, "ok: {} in {took}", Connected(report)),
            Outcome::Answered(response) => {
                write!(f, "ok: HTTP {}", response.status.as_u16())?;
                if let Some(backend) = report.backend() {
                    write!(f, " from {backend}")?;
                }
                write!(f, " in {took}")
            }
            Outcome::Failed(failure, _) => {
                write!(f, "{}: {}", failure.kind, Evidence { report, failure })
            }
        }
    }
}
