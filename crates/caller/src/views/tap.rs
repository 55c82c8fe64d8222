//! The calls of `once` in the Test Anything Protocol, version 14 (<https://testanything.org/tap-version-14-specification.html>):
//! a test point for each target.

use std::fmt;

use serde::Serialize;

use super::json::millis;
use super::table::CallResult;
use crate::report::{Phase, Report};
use crate::verdict;

/// Displays one call of each target; every line ends with a newline.
#[derive(Debug)]
pub(crate) struct Tap<'a>(
    /// A report for each target.
    pub &'a [Report],
);

impl fmt::Display for Tap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "TAP version 14")?;
        writeln!(f, "1..{}", self.0.len())?;
        for (number, report) in (1..).zip(self.0) {
            let not = match report.is_as_expected() {
                true => "",
                false => "not ",
            };
            let test = super::expected(report);
            writeln!(f, "{not}ok {number} - {}", escaped(&test))?;
            if !report.is_as_expected() {
                diagnostics(f, report)?;
            }
        }
        Ok(())
    }
}

/// The details of a failed test point, as a YAML block. Values are written as JSON, which is valid YAML.
fn diagnostics(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let failure = report.failure();
    writeln!(f, "  ---")?;
    field(f, "message", &CallResult(report).to_string())?;
    field(f, "severity", &"fail")?;
    field(f, "url", &report.target.as_str())?;
    field(f, "expected", &report.expectation.to_string())?;
    field(f, "result", &report.result())?;
    if let Some(failure) = failure {
        field(f, "likely", &verdict::likely(report, failure))?;
        field(f, "next", &verdict::next_command(report, failure.kind))?;
    }
    if let Some(total) = report.timings[Phase::Total] {
        field(f, "duration_ms", &millis(total))?;
    }
    writeln!(f, "  ...")
}

fn field(f: &mut fmt::Formatter<'_>, name: &str, value: &impl Serialize) -> fmt::Result {
    write!(f, "  {name}: ")?;
    super::json::write_json(f, value)?;
    writeln!(f)
}

/// Escapes a description, in which `#` would start a directive.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('#', "\\#")
}
