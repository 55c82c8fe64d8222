//! Attempts to connect that found a full accept queue: the kernel drops them, and the client waits for a second or
//! more until it tries again.
//!
//! The kernel counts them for all sockets of a network namespace, so that the other containers of the pod are in it.
//! `echo_server_listen_overflows_total` is the metric; `X-Listen-Overflows` tells a client that asks with
//! `X-Want-Listen-Overflows`, as `caller diagnose` does, which cannot reach the admin port of a Service's pods.

use prometheus_client::registry::Registry;
use runtime::cached::Cached;
use runtime::metrics::register_tcp_counter;
use runtime::tcp_counters::TcpCounters;

/// The overflows since this was made. Read at most once in 200 ms, however many ask.
#[derive(Debug)]
pub(crate) struct AcceptQueue {
    at_start: Option<TcpCounters>,
    overflows: Cached<Option<u64>>,
}

impl AcceptQueue {
    /// Counts from now on.
    pub(crate) fn new() -> Self {
        Self {
            at_start: TcpCounters::read(),
            overflows: Cached::default(),
        }
    }

    /// How many there have been; `None` where the kernel does not tell.
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
