//! Metrics in the formats of `GET /metrics`: OpenMetrics for a client that asks for it, and otherwise the Prometheus
//! text format, which every scraper reads.

use std::fmt;

use http::header::HeaderValue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::tcp_counters::TcpCounters;

/// Media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// One of the kernel's TCP counters as a metric, which is read at each scrape and counts from the start of the
/// process. Where the kernel does not have the counter, the metric is left out.
#[derive(Debug)]
struct TcpCounter {
    name: &'static str,
    help: &'static str,
    pick: fn(&TcpCounters) -> Option<u64>,
    at_start: Option<TcpCounters>,
}

/// Adds one of the kernel's TCP counters to a registry; `pick` chooses it. It counts from now on.
pub fn register_tcp_counter(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    pick: fn(&TcpCounters) -> Option<u64>,
) {
    let at_start = TcpCounters::read();
    registry.register_collector(Box::new(TcpCounter {
        name,
        help,
        pick,
        at_start,
    }));
}

impl Collector for TcpCounter {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counters = self.at_start.zip(TcpCounters::read());
        let count = counters.and_then(|(at_start, now)| (self.pick)(&now.since(&at_start)));
        let Some(count) = count else {
            return Ok(());
        };
        let counter = ConstCounter::new(count);
        let kind = counter.metric_type();
        counter.encode(encoder.encode_descriptor(self.name, self.help, None, kind)?)
    }
}

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The format OpenMetrics, version 1.0.0.
    OpenMetrics,
    /// The Prometheus text format, version 0.0.4.
    Prometheus,
}

impl Format {
    /// The format that the `Accept` header of a request asks for.
    pub(crate) fn asked_for(accept: Option<&HeaderValue>) -> Self {
        match wants_open_metrics(accept) {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The metrics of a registry as text.
pub(crate) fn render(registry: &Registry, format: Format) -> String {
    let mut text = String::new();
    // Writing to a String does not fail, and neither does encoding our metrics.
    let _ = text::encode(&mut text, registry);
    match format {
        Format::OpenMetrics => text,
        Format::Prometheus => to_prometheus(&text),
    }
}

/// Whether an `Accept` header names OpenMetrics, and gives it at least the weight of plain text (RFC 9110, section
/// 12.5.1).
fn wants_open_metrics(accept: Option<&HeaderValue>) -> bool {
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let weight = |wanted: &str| {
        let ranges = accept.unwrap_or_default().split(',');
        ranges
            .filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let named = parts.next()?.eq_ignore_ascii_case(wanted);
                let q = parts.find_map(|part| part.strip_prefix("q="));
                named.then(|| q.and_then(|q| q.parse().ok()).unwrap_or(1.0))
            })
            .fold(0.0_f32, f32::max)
    };
    let open_metrics = weight(OPEN_METRICS);
    open_metrics > 0.0 && open_metrics >= weight("text/plain")
}

/// Converts OpenMetrics to the Prometheus text format, which has no `UNIT`, `EOF` and `info`, and has the `_total`
/// of counters in `TYPE` and `HELP`, too.
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            // The suffix of the name depends on the type, which is on the next line.
            help = Some(line);
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or((typed, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            let help = help.take().and_then(|help| help.splitn(4, ' ').nth(3));
            let help = help.unwrap_or_default();
            text += &format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

/// Adds the metric `build_info`, whose label `version` is the program's version.
pub fn register_build_info(registry: &mut Registry, version: &'static str) {
    registry.register(
        "build",
        "The version that runs",
        Info::new([("version", version)]),
    );
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::wants_open_metrics;

    fn wants(accept: &'static str) -> bool {
        wants_open_metrics(Some(&HeaderValue::from_static(accept)))
    }

    #[test]
    fn openmetrics_is_chosen_only_where_the_accept_header_names_it() {
        assert!(!wants_open_metrics(None));
        assert!(!wants("*/*"));
        assert!(!wants("text/html, application/xhtml+xml, */*;q=0.8"));
        assert!(!wants("text/plain;version=0.0.4;q=1,*/*;q=0.1"));
        assert!(wants("application/openmetrics-text"));
        // As Prometheus 2.42 was observed to send it.
        assert!(wants(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
    }

    #[test]
    fn the_higher_weight_decides() {
        assert!(!wants("application/openmetrics-text;q=0"));
        assert!(!wants(
            "application/openmetrics-text;q=0.5, text/plain;q=0.9"
        ));
        assert!(wants(
            "Application/OpenMetrics-Text; version=1.0.0; q=0.9, text/plain; q=0.5"
        ));
    }
}
