//! The metrics of a server.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds in seconds. A response takes microseconds, unless something is wrong.
const DURATION_BUCKETS: [f64; 12] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The counters of a server; clones share them.
#[derive(Clone, Debug)]
pub(super) struct ServerMetrics {
    requests: Family<Code, Counter>,
    duration: Histogram,
    connections: Counter,
    open: Gauge,
    pub(super) while_draining: Counter,
    pub(super) evicted: Counter,
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
            evicted: Counter::default(),
        }
    }
}

impl ServerMetrics {
    /// Adds the metrics to a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        let Self {
            requests,
            duration,
            connections,
            open,
            while_draining,
            evicted,
        } = self.clone();
        registry.register(
            "requests",
            "Requests answered, by status; 400 and 431 for a head that is not HTTP, or too large",
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
        registry.register(
            "connections_evicted",
            "Connections closed at a limit, to make room for others",
            evicted,
        );
    }

    /// Counts a response with this status, and the time from the head of its request to the response.
    pub(super) fn responded(&self, code: u16, took: Duration) {
        self.requests.get_or_create(&Code { code }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts the response to a request whose head could not be parsed, which has no duration.
    pub(super) fn refused(&self, code: u16) {
        self.requests.get_or_create(&Code { code }).inc();
    }

    /// Counts a connection, which is open until the guard is dropped.
    pub(super) fn connection(&self) -> OpenConnection {
        self.connections.inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }
}

/// Counts a connection as open until dropped.
pub(super) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
