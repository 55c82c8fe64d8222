//! `/metrics` of `caller`: the results of calls, with labels whose number is limited whatever a backend sends.

use std::net::SocketAddr;

use local_cluster::cluster::SERVICE;
use test_support::bed::Bed;
use test_support::http::{exchange, get, metric as value};
use test_support::process::{Process, caller, run};
use test_support::{TIMEOUT, wait_until};

fn start(bed: &Bed, args: &[&str]) -> (Process, SocketAddr) {
    let mut command = bed.caller(crate::CALLER);
    caller(command.env("CALLER_ADMIN_LISTEN", "127.0.0.1:0").args(args))
}

fn wait_for(admin: SocketAddr, metric: &str, expected: f64) {
    wait_until(&format!("{metric} {expected}"), TIMEOUT, || {
        value(admin, metric) == Some(expected)
    });
}

#[test]
fn a_call_is_counted_by_its_result() {
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start(&bed, &["--interval=1h"]);
    wait_for(admin, "caller_calls_total{result=\"ok\"}", 1.0);
    for (metric, expected) in [
        // All kinds are there from the start, so that the first failure of a kind is an increase.
        ("caller_calls_total{result=\"dns_nxdomain\"}", 0.0),
        ("caller_calls_total{result=\"body_too_large\"}", 0.0),
        (
            "caller_responses_total{pod=\"backend-1\",result=\"ok\"}",
            1.0,
        ),
        (
            "caller_dns_questions_total{type=\"A\",rcode=\"NOERROR\"}",
            1.0,
        ),
        (
            "caller_dns_questions_total{type=\"AAAA\",rcode=\"NODATA\"}",
            1.0,
        ),
        (
            "caller_phase_duration_seconds_count{phase=\"first_byte\"}",
            1.0,
        ),
        (
            "caller_phase_duration_seconds_bucket{le=\"10.0\",target=\"TARGET\",phase=\"dns\"}",
            1.0,
        ),
        ("caller_unexpected_results_total", 0.0),
        ("caller_expectation_met", 1.0),
    ] {
        let metric = metric.replace("TARGET", &bed.url("backend"));
        assert_eq!(value(admin, &metric), Some(expected), "{metric}");
    }
    let tls = "caller_calls_total{result=\"tls_expired\"}";
    assert_eq!(value(admin, tls), None, "there is no TLS in plain HTTP");
    let now = jiff::Timestamp::now().as_second() as f64;
    let last = value(admin, "caller_last_success_timestamp_seconds").expect("it is there");
    assert!((now - last).abs() < 60.0, "{last}");
}

#[test]
fn a_failure_is_counted_by_its_kind() {
    let bed = Bed::start(&["backend-1"]);
    bed.records.remove(SERVICE);
    let (_caller, admin) = start(&bed, &["--interval=1h"]);
    wait_for(admin, "caller_calls_total{result=\"dns_nxdomain\"}", 1.0);
    for (metric, expected) in [
        ("caller_calls_total{result=\"ok\"}", Some(0.0)),
        (
            "caller_dns_questions_total{type=\"A\",rcode=\"NXDOMAIN\"}",
            Some(4.0),
        ),
        (
            "caller_phase_duration_seconds_count{phase=\"total\"}",
            Some(1.0),
        ),
        (
            "caller_phase_duration_seconds_count{phase=\"connect\"}",
            Some(0.0),
        ),
        ("caller_last_success_timestamp_seconds", Some(0.0)),
        ("caller_unexpected_results_total", Some(1.0)),
        ("caller_expectation_met", Some(0.0)),
        (
            "caller_responses_total{pod=\"backend-1\",result=\"ok\"}",
            None,
        ),
    ] {
        assert_eq!(value(admin, metric), expected, "{metric}");
    }
}

#[test]
fn a_lookup_for_several_calls_is_counted_once() {
    let bed = Bed::start(&["backend-1"]);
    let port = bed.service.port();
    let others = [2, 3].map(|n| SocketAddr::from(([127, 0, 0, n], port)));
    for (n, other) in others.iter().enumerate() {
        bed.pod(&format!("pod-{n}"), *other);
    }
    let addresses: Vec<_> = others
        .iter()
        .map(|addr| addr.ip())
        .chain([bed.service.ip()])
        .collect();
    bed.records.set(SERVICE, addresses);
    let (_caller, admin) = start(&bed, &["--interval=1h", "--each-address"]);
    wait_for(admin, "caller_calls_total{result=\"ok\"}", 3.0);
    assert_eq!(
        value(
            admin,
            "caller_dns_questions_total{type=\"A\",rcode=\"NOERROR\"}"
        ),
        Some(1.0)
    );
    assert_eq!(
        value(admin, "caller_responses_total{pod=\"pod-1\",result=\"ok\"}"),
        Some(1.0)
    );
}

#[test]
fn labels_are_escaped_and_their_number_is_limited() {
    let hostile = "x\"} 1\\";
    let names: Vec<String> = (0..110).map(|n| format!("{hostile}{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bed = Bed::start(&names);
    let (_caller, admin) = start(&bed, &["--interval=0s"]);
    wait_until("a pod too many", TIMEOUT, || {
        value(admin, "caller_responses_total{pod=\"other\",result=\"ok\"}").is_some()
    });
    let text = get(admin, "/metrics").body;
    let pods: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("caller_responses_total"))
        .collect();
    assert_eq!(pods.len(), 101);
    for pod in pods.iter().filter(|pod| !pod.contains("other")) {
        let label = pod.split_once(',').map_or("", |(_, label)| label);
        assert!(label.starts_with("pod=\"x\\\"} 1\\\\"), "{pod}");
    }
}

#[test]
fn metrics_have_the_format_that_the_accept_header_asks_for() {
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start(&bed, &["--interval=1h"]);
    let plain = get(admin, "/metrics");
    let content_type = plain.header("content-type");
    assert_eq!(
        content_type,
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(plain.body.contains("\n# TYPE caller_calls_total counter\n"));
    assert!(plain.body.contains("\n# TYPE caller_build_info gauge\n"));
    assert!(!plain.body.contains("# UNIT") && !plain.body.contains("# EOF"));

    let accept = "Accept: application/openmetrics-text; version=1.0.0";
    let open = exchange(
        admin,
        format!("GET /metrics HTTP/1.1\r\nHost: caller\r\n{accept}\r\n\r\n"),
    );
    let content_type = open.header("content-type");
    assert_eq!(
        content_type,
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(open.body.contains("\n# TYPE caller_build info\n"));
    assert!(open.body.ends_with("\n# EOF\n"));
}

#[test]
fn the_metrics_and_the_summary_have_the_same_counts() {
    let bed = Bed::start(&["backend-1", "backend-2"]);
    let (caller, admin) = start(&bed, &["--interval=5ms", "--format=json"]);
    let ok = "caller_calls_total{result=\"ok\"}";
    wait_until("100 calls", TIMEOUT, || value(admin, ok) >= Some(100.0));
    let counted = value(admin, ok).expect("it is there");
    caller.signal(test_support::process::Signal::TERM);
    let output = caller.finish();
    let last = output.stdout.lines().last().expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(last).expect("JSON");
    let calls = summary["summary"]["ok"].as_f64().expect("a number");
    assert!(
        (counted..counted + 1000.0).contains(&calls),
        "{counted} {calls}"
    );
}

#[test]
fn no_admin_port_is_opened_when_it_is_off() {
    let bed = Bed::start(&["backend-1"]);
    let mut command = bed.caller(crate::CALLER);
    let output = run(command.args(["--admin-listen=off", "--count=1", "--log-level=info"]));
    assert_eq!(output.code, Some(0));
    assert!(!output.stderr.contains("admin"), "{}", output.stderr);
}
