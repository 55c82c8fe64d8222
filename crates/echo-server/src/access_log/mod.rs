//! The access log: a line on stdout for each answer, in http-echo's own form or as JSON.
//!
//! ```text
//! 2026/11/22 12:22:53 backend:8080 127.0.0.1:42176 "GET /any/path HTTP/1.1" 200 28 "t/1" 11.547µs
//! ```
//!
//! A reader of stdout who is slow, or stuck, never delays an answer: see [`runtime::output`].

mod line;

use std::str::FromStr;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use runtime::output::{self, Output};

pub(crate) use self::line::Entry;

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// http-echo's own.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// No lines.
    Off,
}

/// The text is not a form of the access log.
#[derive(Debug, thiserror::Error)]
#[error("expected text, json or off")]
pub struct ParseFormatError;

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "off" => Ok(Self::Off),
            _ => Err(ParseFormatError),
        }
    }
}

/// The log's writing end: started once, finished once.
#[derive(Debug)]
pub(crate) struct AccessLog {
    format: Format,
    /// `None`: there is no log.
    output: Option<Output>,
}

/// Takes the lines.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    format: Format,
    lines: Option<output::Lines>,
}

impl AccessLog {
    pub(crate) fn start(format: Format) -> Self {
        let output = (format != Format::Off).then(Output::stdout);
        Self { format, output }
    }

    pub(crate) fn lines(&self) -> Lines {
        Lines {
            format: self.format,
            lines: self.output.as_ref().map(Output::lines),
        }
    }

    pub(crate) fn register_metrics(&self, registry: &mut Registry) {
        let dropped = match &self.output {
            Some(output) => output.lines().dropped(),
            None => Counter::default(),
        };
        registry.register(
            "access_log_dropped",
            "Lines of the access log that were not written, because stdout was stuck or gone",
            dropped,
        );
    }

    /// Waits for the lines to be written, but not for ever: nobody may be reading.
    pub(crate) fn finish(self) {
        if let Some(output) = self.output {
            output.finish();
        }
    }
}

impl Lines {
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        let Some(lines) = &self.lines else { return };
        lines.append(|buffer| match self.format {
            Format::Json => line::append_json(buffer, entry),
            Format::Text | Format::Off => line::append_text(buffer, entry),
        });
    }
}
