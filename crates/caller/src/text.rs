//! A report as lines of text, made for `kubectl logs -l app=frontend`:
//!
//! ```text
//! === Frontend calling Backend at Mon Dec 10 16:20:00 UTC 2025 ===
//! Hello from Backend Service!
//! Response received successfully!
//! ```
//!
//! kubectl shows ten lines of each pod, so a call has three: when, what, and how it ended. A
//! failure has three as well, and says `Call failed` where a success says `Response received`.

use std::fmt;
use std::time::Duration;

use runtime::escape::Escaped;

use crate::report::{Answer, Report};

/// Most bytes of a body to show.
const SHOWN_BODY: usize = 1024;

/// Displays a report, each line ended.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// What to show.
    pub report: &'a Report,
    /// Add a fourth line: the pod, the address, and where the time went.
    pub wide: bool,
}

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        // As date(1) writes it in the C locale.
        let date = report.started.strftime("%a %b %e %H:%M:%S UTC %Y");
        writeln!(f, "=== Frontend calling Backend at {date} ===")?;
        match (&report.failure, &report.answer) {
            (Some(failure), answer) => {
                write!(f, "{}", Escaped::new(failure.evidence.as_bytes()))?;
                if let Some(answer) = answer
                    && !answer.body.is_empty()
                {
                    write!(f, ": {}", Body(answer))?;
                }
                let words = crate::verdict::words(failure.kind);
                let cause = report.likely_cause();
                let cause = Escaped::new(cause.as_bytes());
                writeln!(f, "\nCall failed: {words}; likely {cause}")?;
            }
            (None, Some(answer)) => {
                writeln!(f, "{}\nResponse received successfully!", Body(answer))?;
            }
            (None, None) => {}
        }
        match self.wide {
            false => Ok(()),
            true => writeln!(f, "{}", Wide(report)),
        }
    }
}

/// The body on one line, without the newline that ends it.
struct Body<'a>(&'a Answer);

impl fmt::Display for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer {
            body,
            body_len,
            status,
            ..
        } = self.0;
        if body.is_empty() {
            return write!(f, "(HTTP {status} with an empty body)");
        }
        let body = body.strip_suffix(b"\n").unwrap_or(body);
        let body = body.strip_suffix(b"\r").unwrap_or(body);
        let shown = &body[..body.len().min(SHOWN_BODY)];
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
            .answer
            .as_ref()
            .and_then(|answer| answer.pod.as_deref());
        let pod = Escaped::new(pod.unwrap_or("-").as_bytes());
        write!(f, "pod={pod} address=")?;
        match report.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("-")?,
        }
        for (name, phase) in report.phases.named() {
            write!(f, " {name}={}", Millis(phase))?;
        }
        if let Some(name) = report.lookup.as_ref().and_then(|l| l.answered_elsewhere()) {
            write!(f, " answered={name}")?;
        }
        write!(f, " id={}", report.request_id)
    }
}

/// A duration in milliseconds, as all of this program's text has it.
pub(crate) struct Millis(pub(crate) Option<Duration>);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => f.pad(&format!("{:.1}ms", duration.as_secs_f64() * 1e3)),
            None => f.pad("-"),
        }
    }
}
