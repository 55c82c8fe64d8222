//! Prometheus metrics of calls.

use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use runtime::metrics::{register_build_info, register_tcp_counter};
use runtime::unpoisoned::unpoisoned;

use crate::clock;
use crate::dns::Lookup;
use crate::failure::FailureKind;
use crate::mesh::node::Node;
use crate::report::{Phase, Report};
use crate::stats::{Names, Observer};
use crate::target::{Scheme, Target};

/// Upper bounds of the histogram buckets in seconds: from the duration of a call within a node to the longest
/// likely timeout.
const PHASE_BUCKETS: [f64; 15] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// The metrics of a caller.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    calls: Family<ResultLabels, Counter>,
    unexpected: Family<TargetLabel, Counter>,
    expectation_met: Family<TargetLabel, Gauge>,
    phases: Family<PhaseLabels, Histogram, fn() -> Histogram>,
    questions: Family<QuestionLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    last_success: Family<TargetLabel, Gauge<f64, AtomicU64>>,
    certificates: Family<TargetLabel, Gauge<f64, AtomicU64>>,
}

/// The metrics of a mesh: those of one target's peers that are called in every round.
#[derive(Debug)]
pub(crate) struct MeshMetrics {
    calls: Family<NodeLabels, Counter>,
    peers: Gauge,
    /// Number of peers that this target has contributed to `peers`.
    added: AtomicI64,
    node: Arc<Node>,
    names: Mutex<Names>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    to_node: String,
    result: &'static str,
}

impl MeshMetrics {
    /// Registers the metrics of a mesh once, and returns a handle to them for each of the nodes.
    pub(crate) fn register(nodes: &[Arc<Node>], registry: &mut Registry) -> Vec<Self> {
        let (calls, peers) = (Family::default(), Gauge::default());
        registry.register(
            "mesh_calls",
            "Calls to the peers of a mesh that are called in every round, by the node of the peer (or its address, until a response names the node), and by result",
            calls.clone(),
        );
        registry.register(
            "mesh_peers",
            "Number of other addresses that the names of the mesh resolve to",
            peers.clone(),
        );
        let metrics = nodes.iter().map(|node| Self {
            calls: calls.clone(),
            peers: peers.clone(),
            added: AtomicI64::new(0),
            node: Arc::clone(node),
            names: Mutex::new(Names::for_one_of(nodes.len())),
        });
        metrics.collect()
    }
}

impl Observer for MeshMetrics {
    fn call(&self, report: &Report) {
        let (Some(sampled), Some(address)) = (report.sampled, report.address) else {
            return;
        };
        if sampled.is_steady {
            let name = self.node.name_of(address.ip());
            let bounded = unpoisoned(self.names.lock()).bounded(name);
            let labels = |to_node, result| NodeLabels { to_node, result };
            if let Some(forgotten) = bounded.forgotten {
                remove_series(&self.calls, |result| labels(forgotten.clone(), result));
            }
            let labels = labels(bounded.name, report.result());
            self.calls.get_or_create(&labels).inc();
        }
    }

    fn round_ended(&self) {
        let known = i64::try_from(self.node.peer_count()).unwrap_or(i64::MAX);
        let before = self.added.swap(known, Ordering::Relaxed);
        self.peers.inc_by(known - before);
    }
}

/// The metrics of the calls of one target.
#[derive(Debug)]
pub(crate) struct TargetMetrics {
    metrics: Metrics,
    /// The value of the label `target`.
    target: Arc<String>,
    pods: Mutex<Names>,
    /// Whether a call of this round had an unexpected result.
    is_round_unexpected: AtomicBool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabel {
    target: Arc<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    target: Arc<String>,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    target: Arc<String>,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuestionLabels {
    target: Arc<String>,
    r#type: String,
    rcode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    target: Arc<String>,
    pod: String,
    result: &'static str,
}

/// All values of the label `result`.
fn results() -> impl Iterator<Item = &'static str> {
    let kinds = FailureKind::ALL.iter().map(|kind| kind.label());
    ["ok"].into_iter().chain(kinds)
}

/// Removes the series of a name, whatever their result.
fn remove_series<L: Clone + Eq + Hash>(
    family: &Family<L, Counter>,
    labels: impl Fn(&'static str) -> L,
) {
    for result in results() {
        family.remove(&labels(result));
    }
}

impl Metrics {
    /// Creates the metrics and registers them. `dropped` counts the lines of output that were lost.
    pub(crate) fn new(dropped: Counter) -> (Self, Registry) {
        let metrics = Self {
            calls: Family::default(),
            unexpected: Family::default(),
            expectation_met: Family::default(),
            phases: Family::new_with_constructor(|| Histogram::new(PHASE_BUCKETS)),
            questions: Family::default(),
            responses: Family::default(),
            last_success: Family::default(),
            certificates: Family::default(),
        };
        let mut registry = Registry::with_prefix("caller");
        registry.register(
            "calls",
            "Calls that ended, by result: ok or the kind of failure",
            metrics.calls.clone(),
        );
        registry.register(
            "unexpected_results",
            "Calls whose result was not as expected; without an expectation, calls that failed",
            metrics.unexpected.clone(),
        );
        registry.register(
            "expectation_met",
            "Whether all results of the last round were as expected: 1 or 0",
            metrics.expectation_met.clone(),
        );
        registry.register_with_unit(
            "phase_duration",
            "Duration of the phases of calls: dns, connect, tls, first_byte and total",
            Unit::Seconds,
            metrics.phases.clone(),
        );
        registry.register(
            "dns_questions",
            "DNS queries, by record type and by response code, or by the reason why there was no response",
            metrics.questions.clone(),
        );
        registry.register(
            "responses",
            "Responses, by pod (or by address, if the response does not name the pod), and by result",
            metrics.responses.clone(),
        );
        registry.register_with_unit(
            "last_success_timestamp",
            "Unix time of the last call that succeeded; 0 if none has",
            Unit::Seconds,
            metrics.last_success.clone(),
        );
        registry.register_with_unit(
            "tls_certificate_not_after_timestamp",
            "Unix time at which the certificate of the last TLS handshake expires",
            Unit::Seconds,
            metrics.certificates.clone(),
        );
        registry.register(
            "output_dropped",
            "Lines of output that were lost, because stdout was stuck, full or gone",
            dropped,
        );
        register_tcp_counter(
            &mut registry,
            "tcp_retransmits",
            "TCP segments that were retransmitted since this caller started, in this pod, or with hostNetwork on this node",
            |counters| counters.retransmits,
        );
        register_build_info(&mut registry, env!("CARGO_PKG_VERSION"));
        (metrics, registry)
    }

    /// The metrics of one target out of `targets`. Its counters start at zero.
    pub(crate) fn of(&self, target: &Target, targets: usize) -> TargetMetrics {
        let metrics = self.clone();
        let label = Arc::new(target.label().to_owned());
        let with = || Arc::clone(&label);
        // If a counter first appeared with the value 1, Prometheus's `rate` would not see that failure.
        let is_of_tls = |result: &str| result.starts_with("tls_");
        let is_possible = |result: &&str| target.scheme == Scheme::Https || !is_of_tls(result);
        for result in results().filter(is_possible) {
            let target = with();
            drop(
                metrics
                    .calls
                    .get_or_create(&ResultLabels { target, result }),
            );
        }
        for phase in Phase::of(target.scheme) {
            let (target, phase) = (with(), phase.label());
            drop(metrics.phases.get_or_create(&PhaseLabels { target, phase }));
        }
        let target = TargetLabel { target: with() };
        drop(metrics.unexpected.get_or_create(&target));
        drop(metrics.last_success.get_or_create(&target));
        TargetMetrics {
            metrics,
            target: label,
            pods: Mutex::new(Names::for_one_of(targets)),
            is_round_unexpected: AtomicBool::new(false),
        }
    }
}

impl TargetMetrics {
    fn target(&self) -> Arc<String> {
        Arc::clone(&self.target)
    }

    fn label(&self) -> TargetLabel {
        TargetLabel {
            target: self.target(),
        }
    }
}

impl Observer for TargetMetrics {
    fn lookup(&self, lookup: &Lookup) {
        for query in &lookup.queries {
            let labels = QuestionLabels {
                target: self.target(),
                r#type: query.family.to_string(),
                rcode: query.outcome.code(),
            };
            self.metrics.questions.get_or_create(&labels).inc();
        }
    }

    fn call(&self, report: &Report) {
        let Metrics {
            calls,
            unexpected,
            phases,
            responses,
            last_success,
            certificates,
            ..
        } = &self.metrics;
        let (target, result) = (self.target(), report.result());
        calls.get_or_create(&ResultLabels { target, result }).inc();
        if !report.is_as_expected() {
            unexpected.get_or_create(&self.label()).inc();
            self.is_round_unexpected.store(true, Ordering::Relaxed);
        }
        for (phase, duration) in report.timings.iter() {
            if let Some(duration) = duration {
                let (target, phase) = (self.target(), phase.label());
                let histogram = phases.get_or_create(&PhaseLabels { target, phase });
                histogram.observe(duration.as_secs_f64());
            }
        }
        if let Some(backend) = report.backend() {
            let bounded = unpoisoned(self.pods.lock()).bounded(backend);
            let labels = |pod, result| ResponseLabels {
                target: self.target(),
                pod,
                result,
            };
            if let Some(forgotten) = bounded.forgotten {
                remove_series(responses, |result| labels(forgotten.clone(), result));
            }
            let labels = labels(bounded.name, result);
            responses.get_or_create(&labels).inc();
        }
        if report.is_ok() {
            let now = clock::since_epoch(SystemTime::now());
            let gauge = last_success.get_or_create(&self.label());
            gauge.set(now.as_secs_f64());
        }
        let tls = report.tls.as_deref();
        if let Some(certificate) = tls.and_then(|tls| tls.certificate.as_ref()) {
            let gauge = certificates.get_or_create(&self.label());
            gauge.set(clock::since_epoch(certificate.not_after).as_secs_f64());
        }
    }

    fn round_ended(&self) {
        let is_unexpected = self.is_round_unexpected.swap(false, Ordering::Relaxed);
        let gauge = self.metrics.expectation_met.get_or_create(&self.label());
        gauge.set(i64::from(!is_unexpected));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use prometheus_client::encoding::text::encode;
    use tokio::time::advance;

    use super::*;
    use crate::report::{Outcome, Response};

    fn answered_by(pod: &str) -> Report {
        let mut response = Response::of_status(StatusCode::OK);
        response.pod = Some(pod.to_owned());
        Report::of_outcome(Outcome::Answered(response))
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_long_gone_makes_room_for_a_new_one() {
        let (metrics, registry) = Metrics::new(Counter::default());
        let report = answered_by("new");
        let calls = metrics.of(&report.target, 1);
        for number in 0..100 {
            calls.call(&answered_by(&format!("old-{number}")));
        }
        advance(Duration::from_secs(1)).await;
        calls.call(&report);
        advance(Duration::from_secs(3600)).await;
        calls.call(&report);
        let mut text = String::new();
        encode(&mut text, &registry).expect("it can be written");
        let pods = text.lines().filter(|line| line.contains("pod=\""));
        let pods: Vec<&str> = pods.collect();
        assert_eq!(pods.len(), 101, "{pods:?}");
        for (pod, is_there) in [("other", true), ("new", true), ("old-0", false)] {
            let label = format!("pod=\"{pod}\",result=\"ok\"}} 1");
            assert_eq!(
                pods.iter().any(|line| line.ends_with(&label)),
                is_there,
                "{pod}"
            );
        }
    }
}
