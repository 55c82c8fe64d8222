//! A real Prometheus: the metrics that it scrapes from the local cluster and from a mesh, the queries of the dashboard,
//! the alerts, and the scrape configuration in the docs.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use local_cluster::mesh::address;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::documents::checked_by;
use test_support::http::get;
use test_support::process::{Process, run};
use test_support::{TIMEOUT, tool, wait_until};

const NAMESPACE: &str = "demo";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of pods and the addresses of their admin ports.
type Pods = Vec<(String, SocketAddr)>;

/// A running local cluster and its pods.
struct Cluster {
    _process: Process,
    service: SocketAddr,
    pods: Pods,
}

impl Cluster {
    fn start(interval: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_local-cluster"));
        let process = Process::spawn(command.arg("--interval").arg(interval));
        process.wait_for_stdout("diagnose");
        let banner = process.stdout();
        let address = |text: &str| text.parse().expect("an address");
        let pod = |line: &str| {
            let name = line.strip_prefix("pod ")?.trim_start();
            let (name, _) = name.split_once([' ', ','])?;
            let (_, url) = line.rsplit_once("http://")?;
            let (admin, _) = url.split_once('/')?;
            Some((name.to_owned(), address(admin)))
        };
        let service = banner.lines().find_map(|line| line.split_once(" -> "));
        let pods: Pods = banner.lines().filter_map(pod).collect();
        assert_eq!(pods.len(), 4, "{banner}");
        Self {
            service: address(service.expect("there is one").1),
            pods,
            _process: process,
        }
    }
}

/// Starts a mesh of this many nodes, and returns the pods of its callers.
fn mesh(nodes: u16, flags: &[&str]) -> (Process, Pods) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_local-cluster"));
    let process = Process::spawn(command.arg(format!("--nodes={nodes}")).args(flags));
    let line = process.wait_for_stdout("mesh, page at http://");
    let (_, page) = line.split_once("http://").expect("a URL");
    let (page, _) = page.split_once('/').expect("a path");
    let page: SocketAddr = page.parse().expect("an address");
    let admin = |node| SocketAddr::new(address(node).into(), page.port());
    let pods = (1..=nodes).map(|node| (format!("mesh-{node}"), admin(node)));
    (process, pods.collect())
}

/// The endpoints that the PodMonitor of an app scrapes.
fn endpoints(app: &str) -> Vec<Value> {
    let file = format!("kustomize/components/monitoring/podmonitor-{app}.yaml");
    let text = fs::read_to_string(root().join(file)).expect("it is there");
    let monitor: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    let endpoints = monitor["spec"]["podMetricsEndpoints"].as_array();
    endpoints.expect("a list").clone()
}

/// Relabelings of the PodMonitor of an app for the port `admin`, as the operator writes them into a configuration.
fn relabelings(app: &str, field: &str) -> Value {
    let mut endpoints = endpoints(app).into_iter();
    let endpoint = endpoints.find(|endpoint| endpoint["port"] == "admin");
    let endpoint = endpoint.unwrap_or_else(|| panic!("{app} has this port"));
    assert!(endpoint["honorLabels"].is_null(), "it is not carried over");
    let relabelings = endpoint[field].as_array().into_iter().flatten();
    relabelings
        .map(|relabeling| {
            let fields = relabeling.as_object().expect("a map").iter();
            fields
                .map(|(name, value)| match name.as_str() {
                    "action" | "regex" => (name.clone(), value.clone()),
                    "sourceLabels" => ("source_labels".to_owned(), value.clone()),
                    "targetLabel" => ("target_label".to_owned(), value.clone()),
                    _ => panic!("Prometheus has another name for {name}"),
                })
                .collect::<Value>()
        })
        .collect()
}

struct Prometheus {
    address: SocketAddr,
    _process: Process,
    _files: TempDir,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes these pods as the PodMonitors configure it. `None` if Prometheus is missing.
    fn start(pods: &Pods) -> Option<Self> {
        let prometheus = tool("prometheus")?;
        let files = tempfile::tempdir().expect("a directory");
        let mut config = String::from(
            "global: { scrape_interval: 250ms, scrape_timeout: 250ms }\nscrape_configs:\n",
        );
        for (pod, admin) in pods {
            let (app, number) = pod.split_once('-').expect("an app and a number");
            let of_targets = relabelings(app, "relabelings");
            let of_metrics = relabelings(app, "metricRelabelings");
            config += &format!(
                "  - job_name: {pod}\n    relabel_configs: {of_targets}\n    metric_relabel_configs: {of_metrics}\n    static_configs:\n      - targets: ['{admin}']\n        labels: {{ namespace: {NAMESPACE}, pod: {pod}, __meta_kubernetes_pod_node_name: node-{number} }}\n"
            );
        }
        let file = files.path().join("prometheus.yml");
        fs::write(&file, config).expect("it can be written");
        // Prometheus does not tell which port it has chosen, so the test chooses one.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let mut command = Command::new(prometheus);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", files.path().display()))
            .arg(format!("--web.listen-address={address}"));
        let process = Process::spawn(&mut command);
        wait_until("a ready Prometheus", TIMEOUT, || {
            TcpStream::connect(address).is_ok() && get(address, "/-/ready").status() == 200
        });
        Some(Self {
            address,
            _process: process,
            _files: files,
        })
    }

    fn api(&self, path: &str) -> Value {
        let reply = get(self.address, path);
        assert_eq!(reply.status(), 200, "{path}: {}", reply.body);
        let mut answer: Value = serde_json::from_str(&reply.body).expect("JSON");
        answer["data"].take()
    }

    /// The sorted results of a query, such as `backend-1: 2`, except those that are NaN.
    fn query(&self, query: &str, label: &str) -> Vec<String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.api(&format!("/api/v1/query?query={encoded}"));
        let results = data["result"].as_array().expect("a list");
        let mut values: Vec<String> = results
            .iter()
            .filter(|result| result["value"][1] != "NaN")
            .map(|result| {
                let name = result["metric"][label].as_str().unwrap_or_default();
                format!("{name}: {}", result["value"][1].as_str().expect("text"))
            })
            .collect();
        values.sort();
        values
    }
}

#[test]
fn prometheus_counts_each_call_and_each_request_once() {
    let cluster = Cluster::start("1h");
    let Some(prometheus) = Prometheus::start(&cluster.pods) else {
        return;
    };
    for _ in 0..5 {
        assert_eq!(get(cluster.service, "/").status(), 200);
    }
    let is = |query: &str, label: &str, expected: &[&str]| {
        let what = format!("{expected:?} of {query}");
        wait_until(&what, TIMEOUT, || {
            prometheus.query(query, label) == expected
        });
    };
    // One call of each of the two callers, and five requests of this test.
    is("caller_calls_total > 0", "result", &["ok: 1", "ok: 1"]);
    is("sum(caller_responses_total)", "", &[": 2"]);
    is(
        "sum by (code) (echo_server_requests_total)",
        "code",
        &["200: 7"],
    );
    is(
        "sum(echo_server_request_duration_seconds_count)",
        "",
        &[": 7"],
    );
    is("sum(echo_server_connections_total)", "", &[": 7"]);
    is(
        "sum by (type) (caller_dns_questions_total)",
        "type",
        &["A: 2", "AAAA: 2"],
    );
    for phase in ["dns", "connect", "first_byte", "total"] {
        let count = format!("caller_phase_duration_seconds_count{{phase=\"{phase}\"}}");
        is(&count, "pod", &["frontend-1: 1", "frontend-2: 1"]);
    }
    is(
        "time() - caller_last_success_timestamp_seconds < bool 600",
        "pod",
        &["frontend-1: 1", "frontend-2: 1"],
    );
    let version = env!("CARGO_PKG_VERSION");
    let both = format!("{version}: 2");
    is(
        "count by (version) (caller_build_info)",
        "version",
        &[&both],
    );
    is(
        "count by (version) (echo_server_build_info)",
        "version",
        &[&both],
    );
    // Prometheus could read all metrics.
    is(
        "up",
        "pod",
        &[
            "backend-1: 1",
            "backend-2: 1",
            "frontend-1: 1",
            "frontend-2: 1",
        ],
    );
}

#[test]
fn the_label_pod_of_responses_names_the_backend_and_not_the_scraped_caller() {
    let cluster = Cluster::start("50ms");
    let Some(prometheus) = Prometheus::start(&cluster.pods) else {
        return;
    };
    // Each of the two callers has a count of its own for each of the two backends.
    wait_until("an answer of each backend to each caller", TIMEOUT, || {
        prometheus.query("count by (pod) (caller_responses_total)", "pod")
            == ["backend-1: 2", "backend-2: 2"]
    });
    assert!(prometheus.query(r#"{exported_pod!=""}"#, "pod").is_empty());
    assert_eq!(
        prometheus.query("count by (pod) (caller_build_info)", "pod"),
        ["frontend-1: 1", "frontend-2: 1"]
    );
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let Some(promtool) = tool("promtool") else {
        return;
    };
    let cluster = Cluster::start("20ms");
    let (_mesh, of_mesh) = mesh(2, &["--interval=20ms"]);
    for (pod, admin) in cluster.pods.iter().chain(&of_mesh) {
        let files = tempfile::tempdir().expect("a directory");
        let file = files.path().join("metrics");
        fs::write(&file, get(*admin, "/metrics").body).expect("it can be written");
        let output = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(fs::File::open(&file).expect("it is there"))
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{pod}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{pod}");
    }
}

fn dashboard() -> Value {
    let file = root().join("kustomize/components/monitoring/dashboard.json");
    serde_json::from_str(&fs::read_to_string(file).expect("it is there")).expect("JSON")
}

/// The queries of a dashboard, with the title of the panel of each.
fn queries(dashboard: &Value) -> Vec<(&str, &str)> {
    let panels = dashboard["panels"].as_array().expect("a list");
    // A panel of type row is a heading without queries.
    let panels = panels.iter().filter(|panel| panel["type"] != "row");
    let targets = panels.flat_map(|panel| {
        let title = panel["title"].as_str().expect("text");
        let targets = panel["targets"].as_array().expect("a list").iter();
        targets.map(move |target| (title, target["expr"].as_str().expect("text")))
    });
    targets.collect()
}

/// A query as Grafana sends it.
fn fill_in(query: &str, interval: &str, range: &str) -> String {
    let query = query
        .replace("$namespace", NAMESPACE)
        .replace("$target", ".*")
        .replace("$__rate_interval", interval)
        .replace("$__range", range);
    assert!(!query.contains('$'), "{query}");
    query
}

#[test]
fn every_query_of_the_dashboard_returns_data() {
    let cluster = Cluster::start("50ms");
    let (_mesh, of_mesh) = mesh(3, &["--interval=250ms", "--break=3:in"]);
    let Some(prometheus) = Prometheus::start(&[cluster.pods, of_mesh].concat()) else {
        return;
    };
    let dashboard = dashboard();
    let queries = queries(&dashboard);
    assert!(queries.len() >= 20);
    for (_, query) in queries {
        // The calls of a mesh are counted by node and not by target.
        let is_of_mesh = query.contains("caller_mesh_");
        let about_calls = query.contains("caller_") && !query.contains("caller_build_info");
        assert!(
            !about_calls || is_of_mesh || query.contains(r#"target=~"$target""#),
            "{query}"
        );
        let query = fill_in(query, "5s", "5s");
        if query.contains("caller_tls_") {
            // Nobody is called over TLS here, so it has to be a valid query and no more.
            prometheus.query(&query, "");
            continue;
        }
        wait_until(&query, TIMEOUT, || !prometheus.query(&query, "").is_empty());
    }
    // The label `node` has the node from which a call of the mesh came.
    assert_eq!(
        prometheus.query(r#"max by (node) (caller_mesh_peers{pod="mesh-1"})"#, "node"),
        ["node-1: 2"]
    );
    let namespaces = prometheus.api("/api/v1/label/namespace/values?match[]=caller_build_info");
    assert_eq!(namespaces, json!([NAMESPACE]));
    let variable = &dashboard["templating"]["list"][1];
    assert_eq!(
        variable["query"],
        "label_values(caller_build_info, namespace)"
    );
    let targets = prometheus.api("/api/v1/label/target/values?match[]=caller_calls_total");
    // The two targets are the backend and the mesh.
    assert_eq!(targets.as_array().expect("a list").len(), 2, "{targets}");
    let variable = &dashboard["templating"]["list"][2];
    assert_eq!(
        variable["query"],
        r#"label_values(caller_calls_total{namespace="$namespace"}, target)"#
    );
}

/// The samples that a query is expected to give, as promtool reads them.
fn samples(expected: &[(&str, f64)]) -> Value {
    let samples = expected
        .iter()
        .map(|(labels, value)| json!({"labels": labels, "value": value}));
    samples.collect()
}

#[test]
fn the_dashboard_shows_which_nodes_of_a_mesh_are_not_reached_and_from_which_nodes() {
    let Some(promtool) = tool("promtool") else {
        return;
    };
    // Of four nodes, node-2 is not reached, node-3 is reached from node-2 half of the time, and the caller
    // of node-4 is not scraped. In another namespace nothing works.
    let calls = [
        (NAMESPACE, "1", "node-2", "connect_timeout", "0+2x90"),
        (NAMESPACE, "1", "node-3", "ok", "0+2x90"),
        (NAMESPACE, "2", "node-1", "ok", "0+2x90"),
        (NAMESPACE, "2", "node-3", "ok", "0+1x90"),
        (NAMESPACE, "2", "node-3", "reset", "0+1x90"),
        // This pair has failed before, and no longer fails.
        (NAMESPACE, "3", "node-1", "connect_refused", "0+2x75 150x15"),
        (NAMESPACE, "3", "node-1", "ok", "0x75 0+2x15"),
        (NAMESPACE, "3", "node-2", "connect_timeout", "0+2x90"),
        ("other", "1", "node-1", "connect_timeout", "0+2x90"),
    ];
    let calls = calls.map(|(namespace, from, to, result, values)| {
        let series = format!(
            "caller_mesh_calls_total{{namespace={namespace:?}, pod=\"mesh-{from}\", node=\"node-{from}\", to_node={to:?}, result={result:?}}}"
        );
        json!({"series": series, "values": values})
    });
    let peers = ["1", "2", "3"].map(|from| {
        let series = format!("caller_mesh_peers{{namespace={NAMESPACE:?}, pod=\"mesh-{from}\"}}");
        json!({"series": series, "values": "3x90"})
    });
    let expected = [
        ("Nodes not reached", samples(&[("{}", 1.0)])),
        ("Callers of the mesh", samples(&[("{}", 4.0)])),
        ("Callers of the mesh", samples(&[("{}", 3.0)])),
        (
            "Calls of the mesh that fail",
            samples(&[
                (r#"{result="connect_timeout"}"#, 0.2),
                (r#"{result="reset"}"#, 0.05),
            ]),
        ),
        (
            "Share of the calls to a node that fail",
            samples(&[
                (r#"{to_node="node-1"}"#, 0.0),
                (r#"{to_node="node-2"}"#, 1.0),
                (r#"{to_node="node-3"}"#, 0.25),
            ]),
        ),
        (
            "Who does not reach whom",
            samples(&[
                (r#"{node="node-1", pod="mesh-1", to_node="node-2"}"#, 1.0),
                (r#"{node="node-2", pod="mesh-2", to_node="node-3"}"#, 0.5),
                (r#"{node="node-3", pod="mesh-3", to_node="node-2"}"#, 1.0),
            ]),
        ),
    ];
    let dashboard = dashboard();
    let queries = queries(&dashboard).into_iter();
    let queries: Vec<_> = queries
        .filter(|(_, query)| query.contains("caller_mesh_"))
        .collect();
    assert_eq!(queries.len(), expected.len(), "{queries:?}");
    // No sample is exactly as old as a window is long: versions of Prometheus disagree about that one.
    let tests = queries.iter().zip(&expected).map(|(query, expected)| {
        assert_eq!(query.0, expected.0, "the order of panels");
        let query = fill_in(query.1, "70s", "610s");
        json!({"expr": format!("round({query}, 0.01)"), "eval_time": "30m", "exp_samples": expected.1})
    });
    let test = json!({
        "interval": "20s",
        "input_series": calls.into_iter().chain(peers).collect::<Value>(),
        "promql_expr_test": tests.collect::<Value>(),
    });
    // In a healthy mesh no call has failed, so there is no series of failures, not even one with the value 0.
    let (_, not_reached) = queries[0];
    let all_well = json!({
        "interval": "20s",
        "input_series": [
            {"series": format!("caller_mesh_calls_total{{namespace={NAMESPACE:?}, to_node=\"node-1\", result=\"ok\"}}"), "values": "0+2x90"},
            {"series": format!("caller_mesh_peers{{namespace={NAMESPACE:?}}}"), "values": "3x90"},
        ],
        "promql_expr_test": [
            {"expr": fill_in(not_reached, "70s", "610s"), "eval_time": "30m", "exp_samples": samples(&[("{}", 0.0)])},
        ],
    });
    let files = tempfile::tempdir().expect("a directory");
    let file = files.path().join("mesh.yaml");
    let text = json!({"evaluation_interval": "20s", "tests": [test, all_well]}).to_string();
    fs::write(&file, text).expect("it can be written");
    let output = run(Command::new(promtool).args(["test", "rules"]).arg(file));
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    let Some(promtool) = tool("promtool") else {
        return;
    };
    let files = tempfile::tempdir().expect("a directory");
    let rule = root().join("kustomize/components/monitoring/prometheusrule.yaml");
    let rule: Value =
        serde_yaml_ng::from_str(&fs::read_to_string(rule).expect("it is there")).expect("YAML");
    let rules = files.path().join("rules.yaml");
    fs::write(&rules, rule["spec"].to_string()).expect("it can be written");
    let tests = files.path().join("alerts.yaml");
    fs::copy(root().join("tests/alerts.yaml"), &tests).expect("it is there");
    let output = run(Command::new(promtool).args(["test", "rules"]).arg(tests));
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
}

#[test]
fn the_docs_have_a_scrape_configuration_that_prometheus_takes() {
    let Some(promtool) = tool("promtool") else {
        return;
    };
    let blocks = checked_by("the_docs_have_a_scrape_configuration_that_prometheus_takes");
    let mut config: Value = serde_yaml_ng::from_str(&blocks[0].text).expect("YAML");
    let job = &mut config["scrape_configs"][0];
    // Debian builds Prometheus without Kubernetes service discovery; the rest can be checked.
    let job = job.as_object_mut().expect("a map");
    let discovery = job.remove("kubernetes_sd_configs");
    let namespaces = json!({"names": ["pod-to-pod-communication"]});
    let expected = json!([{"role": "pod", "namespaces": namespaces}]);
    assert_eq!(discovery, Some(expected));
    // The ports and the relabelings are those of the PodMonitors.
    let apps = ["backend", "frontend", "mesh"];
    let ports = apps.iter().flat_map(|app| endpoints(app));
    let ports = ports.map(|endpoint| endpoint["port"].as_str().expect("a name").to_owned());
    let ports: BTreeSet<String> = ports.collect();
    let ports: Vec<String> = ports.into_iter().collect();
    let of_targets = job["relabel_configs"].as_array().expect("a list");
    assert_eq!(
        of_targets[0],
        json!({
            "source_labels": ["__meta_kubernetes_pod_container_port_name"],
            "regex": ports.join("|"),
            "action": "keep",
        })
    );
    let of_mesh = relabelings("mesh", "relabelings");
    for relabeling in of_mesh.as_array().expect("a list") {
        assert!(of_targets.contains(relabeling), "{relabeling}");
    }
    let of_metrics = &job["metric_relabel_configs"];
    for app in ["frontend", "mesh"] {
        assert_eq!(*of_metrics, relabelings(app, "metricRelabelings"));
    }
    let files = tempfile::tempdir().expect("a directory");
    let file = files.path().join("prometheus.yml");
    fs::write(&file, config.to_string()).expect("it can be written");
    let output = run(Command::new(promtool).args(["check", "config"]).arg(file));
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
}
