//! A report as lines of text, made for `kubectl logs -l app=frontend`:
//!
//! ```text
//! === Frontend calling Backend at Mon Dec 10 16:20:00 UTC 2025 ===
//! Hello from Backend Service!
//! Response received successfully!
//! ```
//!
//! `kubectl logs` with a selector shows the last ten lines of each pod, so a call has only three: time,
//! response body, result. A failed call has three as well, and its last line begins with `Call failed`. With
//! several targets, the first line names the target in place of `Backend`; with an expectation other than
//! `ok`, the third line says whether it was met.

use std::fmt;

use runtime::escape::Escaped;

use super::SUCCESS;
use crate::clock;
use crate::expectation::Expectation;
use crate::failure::{Failure, MAX_EVIDENCE};
use crate::millis::Millis;
use crate::report::{Outcome, Phase, Report, Response, Source};
use crate::verdict;

/// Most bytes to show of the body of a successful response.
const SHOWN_BODY: usize = 1024;

/// Displays a report; every line ends with a newline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    /// The report to display.
    pub report: &'a Report,
    /// Whether to add a fourth line: the pod, the address, and the duration of each phase.
    pub wide: bool,
    /// Whether to name the target in the first line.
    pub names_target: bool,
}

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let date = clock::unix_date(report.started);
        let target = match self.names_target {
            true => report.target.label(),
            false => "Backend",
        };
        let target = Escaped::new(target.as_bytes());
        writeln!(f, "=== Frontend calling {target} at {date} ===")?;
        match &report.outcome {
            Outcome::Connected => write!(f, "{}\n{SUCCESS}", Connected(report))?,
            Outcome::Answered(response) => {
                write!(f, "{}\n{SUCCESS}", Body::of_success(response))?;
            }
            Outcome::Failed(failure, _) => {
                let what = verdict::what(failure);
                let likely = verdict::likely(report, failure);
                writeln!(f, "{}", Evidence { report, failure })?;
                let likely = Escaped::new(likely.as_bytes());
                write!(f, "Call failed: {what}; likely {likely}")?;
            }
        }
        match (report.expectation, report.is_as_expected()) {
            (Expectation::Ok, _) => writeln!(f)?,
            (expectation, true) => writeln!(f, " (as expected: {expectation})")?,
            (expectation, false) => writeln!(f, " (not as expected: {expectation})")?,
        }
        match self.wide {
            false => Ok(()),
            true => writeln!(f, "{}", Wide(report)),
        }
    }
}

/// Displays the evidence of a failure with the beginning of the response's body, on one line.
pub(crate) struct Evidence<'a> {
    pub(crate) report: &'a Report,
    pub(crate) failure: &'a Failure,
}

impl fmt::Display for Evidence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, failure } = self;
        let evidence = verdict::evidence(report, failure);
        write!(f, "{}", Escaped::new(evidence.as_bytes()))?;
        match report.response() {
            Some(response) if !response.body.is_empty() => {
                let max_bytes = MAX_EVIDENCE;
                write!(
                    f,
                    ": {}",
                    Body {
                        response,
                        max_bytes
                    }
                )
            }
            _ => Ok(()),
        }
    }
}

/// Displays the result of a successful call of a `tcp://` target, which has no response.
pub(crate) struct Connected<'a>(pub(crate) &'a Report);

impl fmt::Display for Connected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.address {
            Some(address) => write!(f, "Connected to {address}"),
            None => f.write_str("Connected"),
        }
    }
}

/// Displays a response body on one line, without its final newline.
pub(crate) struct Body<'a> {
    response: &'a Response,
    max_bytes: usize,
}

impl<'a> Body<'a> {
    pub(crate) fn of_success(response: &'a Response) -> Self {
        let max_bytes = SHOWN_BODY;
        Self {
            response,
            max_bytes,
        }
    }
}

impl fmt::Display for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Response {
            body,
            body_len,
            status,
            ..
        } = self.response;
        if body.is_empty() {
            return write!(f, "(HTTP {} with an empty body)", status.as_u16());
        }
        let body = body.strip_suffix(b"\n").unwrap_or(body);
        let body = body.strip_suffix(b"\r").unwrap_or(body);
        let shown = &body[..body.len().min(self.max_bytes)];
        write!(f, "{}", Escaped::new(shown))?;
        if shown.len() < body.len() {
            write!(f, "... ({body_len} bytes)")?;
        }
        Ok(())
    }
}

struct Wide<'a>(&'a Report);

impl fmt::Display for Wide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let pod = report
            .response()
            .and_then(|response| response.pod.as_deref());
        let pod = Escaped::new(pod.unwrap_or("-").as_bytes()).to_string();
        // The fields of this line are separated by spaces.
        write!(f, "pod={} address=", pod.replace(' ', "\\x20"))?;
        match report.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("-")?,
        }
        for phase in Phase::of(report.target.scheme) {
            write!(f, " {}={}", phase.label(), Millis(report.timings[*phase]))?;
        }
        if let Some(retransmissions) = report
            .retransmissions
            .and_then(verdict::path::retransmissions)
        {
            write!(f, " tcp=\"{retransmissions}\"")?;
        }
        match report.source() {
            Some(Source::Unchanged) => f.write_str(" nat=no")?,
            Some(Source::Translated(seen) | Source::Proxied(seen)) => write!(f, " seen_as={seen}")?,
            None => {}
        }
        let lookup = report.lookup.as_ref();
        if let Some(name) = lookup.and_then(|lookup| lookup.unexpected_name()) {
            write!(f, " answered={name}")?;
        }
        write!(f, " id={}", report.request_id)
    }
}
