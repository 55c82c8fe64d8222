//! Connection attempts that found an accept queue full: the kernel drops them, and the client retries after a second
//! or more.
//!
//! The kernel counts them for a whole network namespace, so the other containers of the pod are included. The metric
//! is `echo_server_listen_overflows_total`. A request with `X-Want-Listen-Overflows` gets the count in
//! `X-Listen-Overflows`: `caller diagnose` sends it, because it cannot reach the admin port of a Service's pods.

use prometheus_client::registry::Registry;
use runtime::cached::Cached;
use runtime::metrics::register_tcp_counter;
use runtime::tcp_counters::TcpCounters;

/// Counts the overflows since it was made. The kernel is asked at most once in 200 ms.
#[derive(Debug)]
pub(crate) struct AcceptQueue {
    at_start: Option<TcpCounters>,
    overflows: Cached<Option<u64>>,
}

impl AcceptQueue {
    /// Counts the overflows from now on.
    pub(crate) fn new() -> Self {
        Self {
            at_start: TcpCounters::read(),
            overflows: Cached::default(),
        }
    }

    /// The number of overflows so far; `None` if the kernel does not have the counter.
    pub(crate) fn overflows(&self) -> Option<u64> {
        self.overflows.get(|| {
            let now = TcpCounters::read()?;
            now.since(self.at_start.as_ref()?).listen_overflows
        })
    }
}

/// Adds the metric to a registry, and counts from now on.
pub(crate) fn register_metrics(registry: &mut Registry) {
    register_tcp_counter(
        registry,
        "listen_overflows",
        "Attempts to connect that found an accept queue full, in this pod, or with hostNetwork on this node, \
         since this server started.",
        |counters| counters.listen_overflows,
    );
}
