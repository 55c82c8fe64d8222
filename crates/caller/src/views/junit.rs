//! The calls of `once` as JUnit XML, which CI systems read: a test case for each target. It is valid by the
//! schema of Ant's JUnit task, the strictest of those in use.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use runtime::escape::Escaped;

use super::table::CallResult;
use crate::clock;
use crate::report::{Phase, Report};
use crate::verdict;

/// Displays one call of each target; every line ends with a newline.
#[derive(Debug)]
pub(crate) struct Junit<'a>(
    /// A report for each target.
    pub &'a [Report],
);

impl fmt::Display for Junit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reports = self.0;
        let failures = reports.iter().filter(|report| !report.is_as_expected());
        // The calls run at the same time, so the longest one is the time of the suite.
        let time = reports.iter().map(total).max().unwrap_or_default();
        let started = reports.iter().map(|report| report.started).min();
        let started = clock::date_time(started.unwrap_or(UNIX_EPOCH));
        let host = std::env::var("POD_NAME").unwrap_or_else(|_| "localhost".to_owned());
        writeln!(f, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
        writeln!(f, "<testsuites>")?;
        writeln!(
            f,
            r#"  <testsuite id="0" package="caller" name="caller" tests="{}" failures="{}" errors="0" time="{}" timestamp="{started}" hostname="{}">"#,
            reports.len(),
            failures.count(),
            Seconds(time),
            Xml(&host)
        )?;
        let version = env!("CARGO_PKG_VERSION");
        writeln!(
            f,
            r#"    <properties><property name="version" value="{version}"/></properties>"#
        )?;
        for report in reports {
            case(f, report)?;
        }
        writeln!(
            f,
            "    <system-out/>\n    <system-err/>\n  </testsuite>\n</testsuites>"
        )
    }
}

fn case(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let test = super::expected(report);
    let time = Seconds(total(report));
    write!(
        f,
        r#"    <testcase classname="caller" name="{}" time="{time}""#,
        Xml(&test)
    )?;
    if report.is_as_expected() {
        return writeln!(f, "/>");
    }
    let message = CallResult(report).to_string();
    write!(
        f,
        ">\n      <failure type=\"{}\" message=\"{}\">",
        report.result(),
        Xml(&message)
    )?;
    write!(f, "{}", Xml(report.target.as_str()))?;
    if let Some(failure) = report.failure() {
        let likely = verdict::likely(report, failure);
        let next = verdict::next_command(report, failure.kind);
        write!(f, "\nlikely: {}\nnext: {}", Xml(&likely), Xml(&next))?;
    }
    writeln!(f, "</failure>\n    </testcase>")
}

fn total(report: &Report) -> Duration {
    report.timings[Phase::Total].unwrap_or_default()
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0.as_secs_f64())
    }
}

/// Displays text escaped for an element or an attribute in double quotes (XML 1.0, sections 2.2 and 2.4).
struct Xml<'a>(&'a str);

impl fmt::Display for Xml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in Escaped::new(self.0.as_bytes()).to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\u{fffe}' | '\u{ffff}' => f.write_str("\u{fffd}")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}
