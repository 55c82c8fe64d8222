//! `echo_server_listen_overflows_total` -- attempts to connect that found a full accept queue: the kernel
//! drops them, and the client waits for a second or more until it tries again.
//!
//! The kernel counts them for all sockets of a network namespace, so that the other containers of the pod
//! are in it. Where it does not tell, there is no such metric.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use runtime::tcp_counters::TcpCounters;

const HELP: &str = "Attempts to connect that found an accept queue full, in this pod, or with hostNetwork \
                    on this node, since this server started.";

/// The overflows since the start, read when somebody asks for them.
#[derive(Debug)]
struct ListenOverflows {
    at_start: Option<TcpCounters>,
}

/// Adds the metric to a registry, and counts from now on.
pub(crate) fn register_metrics(registry: &mut Registry) {
    let at_start = TcpCounters::read();
    registry.register_collector(Box::new(ListenOverflows { at_start }));
}

impl Collector for ListenOverflows {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counters = self.at_start.zip(TcpCounters::read());
        let overflows = counters.and_then(|(at_start, now)| now.since(&at_start).listen_overflows);
        let Some(overflows) = overflows else {
            return Ok(());
        };
        let counter = ConstCounter::new(overflows);
        counter.encode(encoder.encode_descriptor(
            "listen_overflows",
            HELP,
            None,
            counter.metric_type(),
        )?)
    }
}
