//! `GET /metrics` -- everything in a registry, as OpenMetrics to those who ask for it, and otherwise in
//! the Prometheus text format, which every scraper reads; and what a [`Server`](crate::server::Server)
//! counts.

use std::time::Duration;

use http::header::HeaderValue;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

const OPEN_METRICS: &str = "application/openmetrics-text";

/// Seconds. An answer takes microseconds unless something is wrong, and then it takes long.
const DURATION_BUCKETS: [f64; 12] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Metrics in a form that `accept`, a request's header, asks for; and the form's content type.
pub(crate) fn exposition(
    registry: &Registry,
    accept: Option<&HeaderValue>,
) -> (&'static str, String) {
    let mut text = String::new();
    // Writing to a String does not fail, and no metric of ours does.
    let _ = text::encode(&mut text, registry);
    if wants_open_metrics(accept) {
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            text,
        )
    } else {
        (
            "text/plain; version=0.0.4; charset=utf-8",
            to_prometheus(&text),
        )
    }
}

/// Whether OpenMetrics is named, and not as second choice (RFC 9110, section 12.5.1).
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

/// The older format has no `UNIT` and no `EOF`, names counters with their `_total` in `TYPE` and
/// `HELP` too, and knows no `info`.
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            // How the name ends depends on the type, which comes next.
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

/// Adds `build_info`, whose label is the program's version.
pub fn register_build_info(registry: &mut Registry, version: &'static str) {
    registry.register(
        "build",
        "The version that runs",
        Info::new([("version", version)]),
    );
}

/// What a server counts.
#[derive(Clone, Debug)]
pub(crate) struct ServerMetrics {
    requests: Family<Code, Counter>,
    duration: Histogram,
    connections: Counter,
    open: Gauge,
    pub(crate) while_draining: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Histogram::new(DURATION_BUCKETS),
            connections: Counter::default(),
            open: Gauge::default(),
            while_draining: Counter::default(),
        }
    }
}

impl ServerMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let Self {
            requests,
            duration,
            connections,
            open,
            while_draining,
        } = self.clone();
        registry.register(
            "requests",
            "Requests answered, by status; not those whose head is not HTTP, or too large",
            requests,
        );
        registry.register_with_unit(
            "request_duration",
            "From the head of a request to that of its answer",
            Unit::Seconds,
            duration,
        );
        registry.register("connections", "Connections accepted", connections);
        registry.register("open_connections", "Connections that are open", open);
        registry.register(
            "connections_while_draining",
            "Connections accepted after the request to stop",
            while_draining,
        );
    }

    pub(crate) fn answered(&self, code: u16, took: Duration) {
        self.requests.get_or_create(&Code { code }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a connection, as open until the guard is dropped.
    pub(crate) fn connection(&self) -> OpenConnection {
        self.connections.inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }
}

/// An open connection, until dropped.
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::wants_open_metrics;

    fn wants(accept: &'static str) -> bool {
        wants_open_metrics(Some(&HeaderValue::from_static(accept)))
    }

    #[test]
    fn open_metrics_is_for_those_who_name_it() {
        assert!(!wants_open_metrics(None));
        assert!(!wants("*/*"));
        assert!(!wants("text/html, application/xhtml+xml, */*;q=0.8"));
        assert!(!wants("text/plain;version=0.0.4;q=1,*/*;q=0.1"));
        assert!(wants("application/openmetrics-text"));
        // Prometheus 2.42, as it was seen to ask.
        assert!(wants(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
    }

    #[test]
    fn the_weights_decide() {
        assert!(!wants("application/openmetrics-text;q=0"));
        assert!(!wants(
            "application/openmetrics-text;q=0.5, text/plain;q=0.9"
        ));
        assert!(wants(
            "Application/OpenMetrics-Text; version=1.0.0; q=0.9, text/plain; q=0.5"
        ));
    }
}
