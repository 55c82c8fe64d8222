//! Metrics of calls, for Prometheus.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use runtime::metrics::register_build_info;

use crate::dns::Lookup;
use crate::failure::FailureKind;
use crate::report::{Phase, Report};
use crate::stats::{Names, Observer};

/// Seconds: from what a call within a node takes to what the longest timeout is likely to be.
const PHASE_BUCKETS: [f64; 15] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// The metrics of a caller.
#[derive(Debug)]
pub(crate) struct Metrics {
    calls: Family<ResultLabel, Counter>,
    phases: Family<PhaseLabel, Histogram, fn() -> Histogram>,
    questions: Family<QuestionLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    pods: Mutex<Names>,
    last_success: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuestionLabels {
    r#type: String,
    rcode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    pod: String,
    result: &'static str,
}

impl Metrics {
    /// Makes metrics and a registry of them. `dropped` counts the lines of output that were lost.
    pub(crate) fn new(dropped: Counter) -> (Self, Registry) {
        let metrics = Self {
            calls: Family::default(),
            phases: Family::new_with_constructor(|| Histogram::new(PHASE_BUCKETS)),
            questions: Family::default(),
            responses: Family::default(),
            pods: Mutex::default(),
            last_success: Gauge::default(),
        };
        // A counter that appears with its first failure hides that failure from `rate`.
        let kinds = FailureKind::ALL.iter().map(|kind| kind.label());
        for result in ["ok"].into_iter().chain(kinds) {
            drop(metrics.calls.get_or_create(&ResultLabel { result }));
        }
        for phase in Phase::ALL.map(Phase::label) {
            drop(metrics.phases.get_or_create(&PhaseLabel { phase }));
        }

        let mut registry = Registry::with_prefix("caller");
        registry.register(
            "calls",
            "Calls that ended, by result: ok or the kind of failure",
            metrics.calls.clone(),
        );
        registry.register_with_unit(
            "phase_duration",
            "Where the time of calls went: dns, connect, first_byte, and in total",
            Unit::Seconds,
            metrics.phases.clone(),
        );
        registry.register(
            "dns_questions",
            "Questions to DNS, by type and response code, or why there was none",
            metrics.questions.clone(),
        );
        registry.register(
            "responses",
            "Answers by pod, or by address where the backend does not say which pod it is, and by result",
            metrics.responses.clone(),
        );
        registry.register_with_unit(
            "last_success_timestamp",
            "When the last call succeeded, in Unix time; 0 if none has",
            Unit::Seconds,
            metrics.last_success.clone(),
        );
        registry.register(
            "output_dropped",
            "Lines of output that were lost, because stdout was stuck, full or gone",
            dropped,
        );
        register_build_info(&mut registry, env!("CARGO_PKG_VERSION"));
        (metrics, registry)
    }
}

impl Observer for Metrics {
    fn lookup(&self, lookup: &Lookup) {
        for query in &lookup.queries {
            let labels = QuestionLabels {
                r#type: query.family.to_string(),
                rcode: query.outcome.code(),
            };
            self.questions.get_or_create(&labels).inc();
        }
    }

    fn call(&self, report: &Report) {
        let result = report.result();
        self.calls.get_or_create(&ResultLabel { result }).inc();
        for (phase, duration) in report.timings.iter() {
            if let Some(duration) = duration {
                let phase = phase.label();
                let histogram = self.phases.get_or_create(&PhaseLabel { phase });
                histogram.observe(duration.as_secs_f64());
            }
        }
        if let Some(backend) = report.backend() {
            let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
            let pod = pods.bounded(backend);
            let labels = ResponseLabels { pod, result };
            self.responses.get_or_create(&labels).inc();
        }
        if report.is_ok() {
            let now = Timestamp::now().as_duration();
            self.last_success.set(now.as_secs_f64());
        }
    }
}
