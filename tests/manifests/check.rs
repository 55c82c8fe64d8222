//! The Job that proves, after a sync, that pods can talk as a list of targets says.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::patches_in_comment;
use crate::render::{WorkingCopy, container, named, of_kind, parse, render, renderings, root};

/// The component that has the Job, and the components that it is deployed with.
const COMBINATIONS: [(&str, &[&str]); 2] = [
    ("check", &["check"]),
    ("check-hardened", &["network-policy", "check-hardened"]),
];

/// The rendering of the base with either component. Empty if kubectl is missing.
fn combinations() -> Vec<(&'static str, Vec<Value>)> {
    let copy = WorkingCopy::new();
    let combine = |(component, with): (&'static str, &[&str])| {
        let with: Vec<String> = with.iter().map(|&name| name.to_owned()).collect();
        let yaml = copy.combine("some-namespace", &with)?;
        Some((component, parse(&yaml)))
    };
    COMBINATIONS.into_iter().filter_map(combine).collect()
}

/// A line of a list of targets.
struct Line {
    expectation: String,
    host: String,
    port: u64,
    options: BTreeMap<String, String>,
}

/// The host and the port of a target.
fn authority(target: &str) -> (String, u64) {
    let (_, rest) = target.split_once("://").expect("a scheme");
    let authority = rest.split('/').next().expect("text");
    let (host, port) = authority.split_once(':').expect("a port");
    (host.to_owned(), port.parse().expect("a number"))
}

/// The lines of the list of targets in a rendering.
fn lines(manifests: &[Value]) -> Vec<Line> {
    let list = named(manifests, "ConfigMap", "check")["data"]["targets"].as_str();
    let lines = list.expect("a list").lines();
    let lines = lines.map(|line| line.split('#').next().expect("text").trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.split_whitespace();
            let expectation = words.next().expect("a word").to_owned();
            let (host, port) = authority(words.next().expect("a target"));
            let options = words
                .map(|option| option.split_once('=').expect("an option"))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            Line {
                expectation,
                host,
                port,
                options,
            }
        })
        .collect()
}

#[test]
fn the_job_runs_after_each_sync_and_replaces_the_one_before() {
    for (component, manifests) in combinations() {
        let job = named(&manifests, "Job", "check");
        assert_eq!(
            job["metadata"]["annotations"],
            json!({
                "argocd.argoproj.io/hook": "PostSync",
                "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
            }),
            "{component}"
        );
        let hooks = manifests.iter().filter(|manifest| {
            let annotations = &manifest["metadata"]["annotations"];
            annotations.to_string().contains("argocd.argoproj.io/hook")
        });
        assert_eq!(hooks.count(), 1, "what it needs is synced before it");
    }
}

#[test]
fn a_check_that_fails_or_cannot_start_ends() {
    for (component, manifests) in combinations() {
        let spec = &named(&manifests, "Job", "check")["spec"];
        assert_eq!(spec["backoffLimit"], 0, "{component}");
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Never");
        let container = container(&spec["template"]);
        let args = container["args"].as_array().expect("a list");
        let wait = args.iter().skip_while(|arg| *arg != "--wait").nth(1);
        let wait = wait.and_then(Value::as_str).expect("it waits");
        let wait: u64 = wait
            .strip_suffix('s')
            .expect("seconds")
            .parse()
            .expect("a number");
        let deadline = spec["activeDeadlineSeconds"].as_u64().expect("it has one");
        assert!(deadline >= 2 * wait, "{deadline} seconds for {wait}");
    }
}

#[test]
fn the_job_reads_the_list_that_is_mounted_where_it_looks() {
    for (component, manifests) in combinations() {
        let template = &named(&manifests, "Job", "check")["spec"]["template"];
        let container = container(template);
        assert_eq!(
            container["args"],
            json!([
                "once",
                "--targets",
                "/etc/caller/targets",
                "--format",
                "tap",
                "--wait",
                "60s"
            ]),
            "{component}"
        );
        assert_eq!(
            container["volumeMounts"],
            json!([{"name": "targets", "mountPath": "/etc/caller", "readOnly": true}])
        );
        // The ConfigMap's name has no hash: with one, a new list would change the Job, which the API server refuses.
        assert_eq!(
            template["spec"]["volumes"],
            json!([{"name": "targets", "configMap": {"name": "check"}}])
        );
        let list = &named(&manifests, "ConfigMap", "check")["data"];
        let file = root()
            .join("kustomize/components")
            .join(component)
            .join("targets");
        let file = fs::read_to_string(file).expect("it is there");
        assert_eq!(list, &json!({"targets": file}));
    }
}

#[test]
fn the_job_has_the_same_kind_of_labels_and_account_as_the_deployments() {
    for (component, manifests) in combinations() {
        let job = named(&manifests, "Job", "check");
        let template = &job["spec"]["template"];
        let labels = json!({
            "app": "check",
            "app.kubernetes.io/name": "caller",
            "app.kubernetes.io/component": "check",
            "app.kubernetes.io/part-of": "pod-to-pod-communication",
            "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
        });
        assert_eq!(job["metadata"]["labels"], labels, "{component}");
        assert_eq!(template["metadata"]["labels"], labels, "{component}");
        let default = "kubectl.kubernetes.io/default-container";
        assert_eq!(
            template["metadata"]["annotations"],
            json!({default: container(template)["name"]})
        );
        assert_eq!(template["spec"]["serviceAccountName"], "check");
        let account = named(&manifests, "ServiceAccount", "check");
        assert_eq!(account["automountServiceAccountToken"], false);
    }
}

#[test]
fn targets_are_services_of_the_backend_and_each_has_a_name() {
    for (component, manifests) in combinations() {
        for line in lines(&manifests) {
            let control = line
                .options
                .get("control")
                .map(|control| authority(control));
            for (host, _) in [(line.host, line.port)].into_iter().chain(control) {
                let selector = &named(&manifests, "Service", &host)["spec"]["selector"];
                assert_eq!(selector, &json!({"app": "backend"}), "{component}");
            }
            assert!(line.options.contains_key("name"), "{component}");
        }
    }
}

#[test]
fn without_policies_a_closed_port_of_the_pods_is_refused() {
    for (component, manifests) in combinations() {
        if component != "check" {
            continue;
        }
        let [ok, closed] = &lines(&manifests)[..] else {
            panic!("two lines");
        };
        assert_eq!(
            (&*ok.expectation, &*ok.host, ok.port),
            ("ok", "backend", 8080)
        );
        assert_eq!(closed.expectation, "connect_refused");
        // Behind a ClusterIP, kube-proxy would respond and not the pods.
        let service = named(&manifests, "Service", &closed.host);
        assert_eq!(service["spec"]["clusterIP"], "None");
        let backend = named(&manifests, "Deployment", "backend");
        let ports = container(&backend["spec"]["template"])["ports"].as_array();
        for port in ports.expect("a list") {
            assert_ne!(port["containerPort"], closed.port);
        }
    }
}

#[test]
fn with_policies_a_port_that_they_do_not_allow_is_blocked_and_the_same_pods_are_the_control() {
    for (component, manifests) in combinations() {
        if component != "check-hardened" {
            continue;
        }
        let [ok, blocked] = &lines(&manifests)[..] else {
            panic!("two lines");
        };
        assert_eq!(
            (&*ok.expectation, &*ok.host, ok.port),
            ("ok", "backend", 8080)
        );
        assert_eq!(blocked.expectation, "blocked");
        let (host, port) = authority(&blocked.options["control"]);
        assert_eq!(blocked.host, host);
        // Ports that the policy allows from this namespace.
        let allowed = |port: u64| {
            let policy = named(&manifests, "NetworkPolicy", "backend");
            let rules = policy["spec"]["ingress"].as_array().expect("a list");
            let rules = rules
                .iter()
                .filter(|rule| rule["from"] == json!([{"podSelector": {}}]));
            let mut ports = rules.flat_map(|rule| rule["ports"].as_array().expect("a list"));
            ports.any(|allowed| allowed["port"] == port)
        };
        assert!(allowed(ok.port) && allowed(port) && !allowed(blocked.port));
    }
}

#[test]
fn the_policy_of_the_check_blocks_nothing_that_the_policy_of_the_backend_should_block() {
    for (component, manifests) in combinations() {
        let policies = of_kind(&manifests, "NetworkPolicy");
        if component == "check" {
            assert_eq!(policies.count(), 0);
            continue;
        }
        let names: Vec<&Value> = policies.map(|policy| &policy["metadata"]["name"]).collect();
        assert_eq!(names, ["backend", "check", "default-deny", "frontend"]);
        let policy = &named(&manifests, "NetworkPolicy", "check")["spec"];
        assert_eq!(
            policy["podSelector"]["matchLabels"],
            json!({"app": "check"})
        );
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        assert!(policy["ingress"].is_null());
        let [dns @ .., backend] = &policy["egress"].as_array().expect("a list")[..] else {
            panic!("it has rules");
        };
        let frontend = &named(&manifests, "NetworkPolicy", "frontend")["spec"]["egress"];
        let frontend = frontend.as_array().expect("a list");
        assert_eq!(dns, &frontend[..frontend.len() - 1]);
        // A rule without `ports` allows all ports.
        let to = json!({"to": [{"podSelector": {"matchLabels": {"app": "backend"}}}]});
        assert_eq!(backend, &to);
    }
}

#[test]
fn the_check_is_deployed_only_with_its_component() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        let asked_for = folder.starts_with("all components");
        assert_eq!(
            of_kind(manifests, "Job").count(),
            usize::from(asked_for),
            "{folder}"
        );
    }
}

#[test]
fn the_lines_that_are_commented_out_work() {
    let copy = WorkingCopy::new();
    for (folder, line) in [
        ("kustomize", "#  - components/check "),
        (
            "kustomize/overlays/hardened",
            "#  - ../../components/check-hardened",
        ),
    ] {
        let folder = copy.path().join(folder);
        let file = folder.join("kustomization.yaml");
        let text = fs::read_to_string(&file).expect("it is there");
        assert!(text.contains(line), "{text}");
        let taken_in = text.replace(line, line.trim_start_matches('#'));
        fs::write(&file, &taken_in).expect("it can be written");
        let rendering = render(&folder);
        fs::write(file, text).expect("it can be written");
        let Some(yaml) = rendering else {
            return;
        };
        let manifests = parse(&yaml);
        let job = named(&manifests, "Job", "check");
        assert_eq!(job["metadata"]["namespace"], "pod-to-pod-communication");
    }
}

#[test]
fn the_check_can_be_added_to_the_hardened_overlay_as_it_stands() {
    let copy = WorkingCopy::new();
    let text = "namespace: pod-to-pod-communication\nresources: [kustomize/overlays/hardened]\ncomponents: [kustomize/components/check-hardened]\n";
    fs::write(copy.path().join("kustomization.yaml"), text).expect("it can be written");
    let Some(yaml) = render(copy.path()) else {
        return;
    };
    let manifests = parse(&yaml);
    named(&manifests, "Job", "check");
    assert_eq!(of_kind(&manifests, "NetworkPolicy").count(), 4);
}

#[test]
fn the_patch_in_the_comment_replaces_the_list_of_targets() {
    let patches = patches_in_comment(&root().join("kustomize/components/check/kustomization.yaml"));
    assert_eq!(patches.len(), 1, "{patches:?}");
    for (component, with) in COMBINATIONS {
        let copy = WorkingCopy::new();
        let mut text = "resources: [kustomize/base]\ncomponents:\n".to_owned();
        for name in with {
            text += &format!("  - kustomize/components/{name}\n");
        }
        text += &patches[0];
        fs::write(copy.path().join("kustomization.yaml"), text).expect("it can be written");
        let Some(yaml) = render(copy.path()) else {
            return;
        };
        let lines = lines(&parse(&yaml));
        let hosts: Vec<&str> = lines.iter().map(|line| &*line.host).collect();
        assert_eq!(hosts, ["backend", "payments.prod"], "{component}");
    }
}
