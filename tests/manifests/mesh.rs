//! The mesh: a pod on every node, a name for all of them, and a policy that lets them alone reach each other.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use test_support::http::get;
use test_support::process::echo_server;

use crate::render::{
    MESH_ALONE, WorkingCopy, containers, named, of_kind, parse, ports, render, renderings, selects,
    workloads,
};

/// The rendering of `overlays/mesh`. `None` if kubectl is missing.
fn alone() -> Option<&'static [Value]> {
    let mut renderings = renderings()?.iter();
    let alone = renderings.find(|(folder, _)| folder == MESH_ALONE);
    Some(&alone.expect("there is this overlay").1)
}

fn daemon_set(manifests: &[Value]) -> &Value {
    named(manifests, "DaemonSet", "mesh")
}

/// One of the two containers of the pods of the mesh, by its name.
fn container<'a>(manifests: &'a [Value], name: &str) -> &'a Value {
    let mut containers = containers(&daemon_set(manifests)["spec"]["template"]).iter();
    let found = containers.find(|container| container["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {name}"))
}

/// An environment variable of a container with the value of a field of its pod.
fn of_pod(name: &str, field: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}})
}

#[test]
fn the_mesh_is_deployed_only_with_its_component() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        let asked_for = folder == MESH_ALONE || folder.starts_with("all components");
        let found = of_kind(manifests, "DaemonSet").count();
        assert_eq!(found, usize::from(asked_for), "{folder}");
    }
}

#[test]
fn the_mesh_alone_needs_only_a_namespace_of_the_cluster() {
    let Some(manifests) = alone() else {
        return;
    };
    let mut kinds: Vec<&str> = manifests
        .iter()
        .map(|manifest| manifest["kind"].as_str().expect("text"))
        .collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        ["DaemonSet", "Namespace", "Service", "ServiceAccount"]
    );
}

#[test]
fn every_linux_node_that_runs_daemon_sets_has_a_pod_whatever_its_taints() {
    let Some(manifests) = alone() else {
        return;
    };
    let pod = &daemon_set(manifests)["spec"]["template"]["spec"];
    // A toleration without a key and an effect matches every taint.
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
    assert!(pod["topologySpreadConstraints"].is_null());
    // Nodes of Fargate and virtual kubelets run no pod of a DaemonSet: one for such a node is pending for ever. A node
    // without these labels is not excluded.
    let not_in =
        |key: &str, value: &str| json!({"key": key, "operator": "NotIn", "values": [value]});
    let terms = json!([{"matchExpressions": [
        not_in("eks.amazonaws.com/compute-type", "fargate"),
        not_in("type", "virtual-kubelet"),
    ]}]);
    assert_eq!(
        pod["affinity"],
        json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
        }})
    );
}

#[test]
fn a_rollout_replaces_a_share_of_the_pods_at_a_time() {
    let Some(manifests) = alone() else {
        return;
    };
    let strategy = &daemon_set(manifests)["spec"]["updateStrategy"];
    assert_eq!(strategy["type"], "RollingUpdate");
    let share = strategy["rollingUpdate"]["maxUnavailable"].as_str();
    let share: u32 = share
        .and_then(|share| share.strip_suffix('%'))
        .expect("a share, which is another number in another cluster")
        .parse()
        .expect("a number");
    // A rollout takes some ten steps, and most of the mesh runs meanwhile.
    assert!((5..=25).contains(&share), "{share}");
}

#[test]
fn the_name_of_the_mesh_has_one_address_for_each_pod_ready_or_not() {
    let Some(manifests) = alone() else {
        return;
    };
    let spec = &named(manifests, "Service", "mesh")["spec"];
    assert_eq!(spec["clusterIP"], "None");
    assert_eq!(spec["publishNotReadyAddresses"], true);
    assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    let of_service = json!([
        {"name": "http", "port": 8080, "targetPort": "http", "appProtocol": "http"},
        {"name": "admin", "port": 8082, "targetPort": "admin", "appProtocol": "http"},
    ]);
    assert_eq!(spec["ports"], of_service);
    // Calls use the first port, and rows the second.
    for (name, port) in [("echo-server", ("http", 8080)), ("caller", ("admin", 8082))] {
        let found = ports(container(manifests, name)).any(|found| found == port);
        assert!(found, "{name}");
    }
}

#[test]
fn callers_of_the_mesh_call_the_mesh_and_know_their_pod_address_and_node() {
    let Some(manifests) = alone() else {
        return;
    };
    let caller = container(manifests, "caller");
    let args = json!(["--each-address", "--sample=10", "http://mesh:8080/"]);
    assert_eq!(caller["args"], args);
    assert!(caller["command"].is_null(), "the image has the command");
    assert_eq!(
        caller["env"],
        json!([
            of_pod("POD_NAME", "metadata.name"),
            of_pod("POD_NAMESPACE", "metadata.namespace"),
            of_pod("POD_IP", "status.podIP"),
            of_pod("NODE_NAME", "spec.nodeName"),
        ])
    );
    // For a moment, the caller has the rows of all nodes in memory.
    assert_eq!(caller["resources"]["limits"]["memory"], "64Mi");
    let (_, root) = renderings().unwrap_or_default().first().expect("the root");
    let frontend = named(root, "Deployment", "frontend");
    let frontend = &containers(&frontend["spec"]["template"])[0];
    assert_eq!(caller["image"], frontend["image"]);
    for same in ["readinessProbe", "livenessProbe", "ports"] {
        assert_eq!(caller[same], frontend[same], "{same}");
    }
}

#[test]
fn the_echo_server_of_the_mesh_starts_with_its_arguments_and_names_its_node() {
    let Some(manifests) = alone() else {
        return;
    };
    let container = container(manifests, "echo-server");
    assert_eq!(container["env"][2], of_pod("NODE_NAME", "spec.nodeName"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo-server"));
    // Variables are set in order, as by the kubelet, so that a value may refer to earlier ones.
    let mut variables: Vec<(String, String)> = Vec::new();
    for variable in container["env"].as_array().expect("a list") {
        let name = variable["name"].as_str().expect("text").to_owned();
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("metadata.name") => "mesh-x7k2p".to_owned(),
            Some("metadata.namespace") => "some-namespace".to_owned(),
            Some("spec.nodeName") => "node-3".to_owned(),
            Some(field) => panic!("{field} is not expected"),
            None => {
                let mut value = variable["value"].as_str().expect("text").to_owned();
                for (name, known) in &variables {
                    value = value.replace(&format!("$({name})"), known);
                }
                value
            }
        };
        variables.push((name, value));
    }
    command.env_clear().envs(variables);
    for arg in container["args"].as_array().expect("a list") {
        let arg = arg.as_str().expect("text");
        // The ports in the manifest may be in use on this machine.
        command.arg(arg.replace("-listen=:8080", "-listen=127.0.0.1:0"));
    }
    let (_server, addr) = echo_server(command.env("ECHO_ADMIN_LISTEN", "off"));
    let reply = get(addr, "/");
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.body, "Hello from node-3!\n");
    assert_eq!(reply.header("x-node-name"), Some("node-3"));
    assert_eq!(reply.header("x-pod-name"), Some("mesh-x7k2p"));
    assert_eq!(reply.header("x-pod-namespace"), Some("some-namespace"));
}

#[test]
fn the_echo_server_of_the_mesh_has_the_limits_of_the_backend() {
    let Some(manifests) = alone() else {
        return;
    };
    let (_, root) = renderings().unwrap_or_default().first().expect("the root");
    let backend = named(root, "Deployment", "backend");
    let backend = &containers(&backend["spec"]["template"])[0];
    let container = container(manifests, "echo-server");
    for same in ["image", "resources", "securityContext"] {
        assert_eq!(container[same], backend[same], "{same}");
    }
    let args = |container: &Value| {
        let args = container["args"].as_array().expect("a list").clone();
        // The text of the mesh contains the name of the node, so it comes from a variable.
        args.into_iter()
            .filter(|arg| !arg.to_string().contains("-text="))
            .collect::<Vec<_>>()
    };
    assert_eq!(args(container), args(backend));
}

#[test]
fn the_policy_of_the_mesh_allows_its_pods_dns_and_scrapers_and_nobody_else() {
    let Some((_, manifests)) = renderings().unwrap_or_default().last() else {
        return;
    };
    let policy = &named(manifests, "NetworkPolicy", "mesh")["spec"];
    let mesh = json!({"matchLabels": {"app": "mesh"}});
    assert_eq!(policy["podSelector"], mesh);
    let labels = &daemon_set(manifests)["spec"]["template"]["metadata"]["labels"];
    assert!(selects(&mesh["matchLabels"], labels));
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    let tcp = |port: u64| json!({"protocol": "TCP", "port": port});
    let [each_other, scrapers] = &policy["ingress"].as_array().expect("a list")[..] else {
        panic!("two rules: {policy:#}");
    };
    let ports = json!([tcp(8080), tcp(8082)]);
    assert_eq!(
        each_other,
        &json!({"from": [{"podSelector": mesh}], "ports": ports})
    );
    let frontend = &named(manifests, "NetworkPolicy", "frontend")["spec"];
    assert_eq!(scrapers["from"], frontend["ingress"][0]["from"]);
    assert_eq!(scrapers["ports"], json!([tcp(8081), tcp(8082)]));
    let [dns @ .., others] = &policy["egress"].as_array().expect("a list")[..] else {
        panic!("it has rules");
    };
    let frontend = frontend["egress"].as_array().expect("a list");
    assert_eq!(dns, &frontend[..frontend.len() - 1]);
    assert_eq!(
        others,
        &json!({"to": [{"podSelector": mesh}], "ports": ports})
    );
}

/// Renders a folder of the manifests after replacing a line of its kustomization.
fn with_line(folder: &str, line: &str, replacement: &str) -> Option<Vec<Value>> {
    let copy = WorkingCopy::new();
    let folder = copy.path().join("kustomize").join(folder);
    let file = folder.join("kustomization.yaml");
    let text = fs::read_to_string(&file).expect("it is there");
    assert!(text.contains(line), "{line} is not in {text}");
    fs::write(file, text.replace(line, replacement)).expect("it can be written");
    Some(parse(&render(&folder)?))
}

#[test]
fn mesh_hardened_is_the_mesh_with_a_policy() {
    let Some(manifests) = alone() else {
        return;
    };
    let hardened = with_line(
        MESH_ALONE,
        "\n  - ../../components/mesh\n#  - ../../components/mesh-hardened ",
        "\n  - ../../components/mesh-hardened ",
    );
    let (policies, others): (Vec<Value>, Vec<Value>) = hardened
        .expect("there is a kubectl")
        .into_iter()
        .partition(|manifest| manifest["kind"] == "NetworkPolicy");
    assert_eq!(others, manifests);
    let [policy] = &policies[..] else {
        panic!("one policy: {policies:?}");
    };
    assert_eq!(policy["metadata"]["name"], "mesh");
    assert_eq!(policy["metadata"]["namespace"], "pod-to-pod-communication");
}

#[test]
fn the_commented_out_line_adds_the_mesh_to_the_demo_and_changes_nothing_else() {
    for (folder, line, policies) in [
        (".", "#  - components/mesh ", 0),
        (
            "overlays/hardened",
            "#  - ../../components/mesh-hardened",
            4,
        ),
    ] {
        let Some(with_mesh) = with_line(folder, line, line.trim_start_matches('#')) else {
            return;
        };
        assert_eq!(
            of_kind(&with_mesh, "NetworkPolicy").count(),
            policies,
            "{folder}"
        );
        let mut renderings = renderings().unwrap_or_default().iter();
        let (_, before) = renderings
            .find(|(name, _)| name == folder)
            .expect("it is rendered");
        let without_mesh = |manifest: &&Value| manifest["metadata"]["name"] != "mesh";
        assert!(
            with_mesh.iter().filter(without_mesh).eq(before.iter()),
            "{folder}"
        );
        assert_eq!(workloads(&with_mesh).count(), 3, "{folder}");
    }
}

#[test]
fn a_scraper_finds_both_containers_of_the_mesh_and_their_node() {
    let monitored = with_line(
        MESH_ALONE,
        "#  - ../../components/monitoring",
        "  - ../../components/monitoring",
    );
    let Some(manifests) = monitored else {
        return;
    };
    let monitor = &named(&manifests, "PodMonitor", "mesh")["spec"];
    let labels = &daemon_set(&manifests)["spec"]["template"]["metadata"]["labels"];
    assert!(selects(&monitor["selector"]["matchLabels"], labels));
    let [caller, echo_server] = &monitor["podMetricsEndpoints"].as_array().expect("a list")[..]
    else {
        panic!("two endpoints: {monitor:#}");
    };
    for (endpoint, name, number) in [(caller, "caller", 8082), (echo_server, "echo-server", 8081)] {
        let port = endpoint["port"].as_str().expect("a name");
        assert!(
            ports(container(&manifests, name)).any(|found| found == (port, number)),
            "{port}"
        );
    }
    assert_eq!(
        caller["relabelings"],
        json!([{
            "action": "replace",
            "sourceLabels": ["__meta_kubernetes_pod_node_name"],
            "targetLabel": "node",
        }])
    );
    let frontend = &named(&manifests, "PodMonitor", "frontend")["spec"]["podMetricsEndpoints"][0];
    assert_eq!(caller["metricRelabelings"], frontend["metricRelabelings"]);
}
