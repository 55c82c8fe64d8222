//! The access log: a line on stdout for each response, in http-echo's own format or as JSON.
//!
//! ```text
//! 2026/11/22 12:22:53 backend:8080 127.0.0.1:42176 "GET /any/path HTTP/1.1" 200 28 "t/1" 11.547µs
//! ```
//!
//! A slow or blocked reader of stdout never delays a response: see [`runtime::output`].

mod line;

use std::str::FromStr;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use runtime::output::{self, Output};

pub(crate) use self::line::Entry;

/// The format of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Lines in http-echo's own format.
    #[default]
    Text,
    /// A JSON object for each line.
    Json,
    /// There is no access log.
    Off,
}

/// The text is not a format of the access log.
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

/// The access log of a server.
#[derive(Debug)]
pub(crate) struct AccessLog {
    format: Format,
    /// The output to stdout; `None` if there is no access log.
    output: Option<Output>,
}

/// A handle that writes lines to an [`AccessLog`].
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    format: Format,
    lines: Option<output::Lines>,
}

impl AccessLog {
    /// Starts to write to stdout, unless the format is [`Format::Off`].
    pub(crate) fn start(format: Format) -> Self {
        let output = (format != Format::Off).then(Output::stdout);
        Self { format, output }
    }

    /// A handle that writes lines.
    pub(crate) fn lines(&self) -> Lines {
        Lines {
            format: self.format,
            lines: self.output.as_ref().map(Output::lines),
        }
    }

    /// Adds the number of lost lines to a registry.
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

    /// Waits until all lines are written, or until stdout has accepted nothing for a second, and for 5 seconds at most.
    pub(crate) fn finish(self) {
        if let Some(output) = self.output {
            output.lines().limit_flush_time();
            output.finish();
        }
    }
}

impl Lines {
    /// Writes the line of a response. Never blocks.
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        let Some(lines) = &self.lines else { return };
        lines.append(|buffer| match self.format {
            Format::Json => line::append_json(buffer, entry),
            Format::Text | Format::Off => line::append_text(buffer, entry),
        });
    }
}
