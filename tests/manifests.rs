//! The manifests, rendered as `kubectl apply -k` renders them.

#[path = "manifests/alerts.rs"]
mod alerts;
#[path = "manifests/argocd.rs"]
mod argocd;
#[path = "manifests/check.rs"]
mod check;
#[path = "manifests/documents.rs"]
mod documents;
#[path = "manifests/mesh.rs"]
mod mesh;
#[path = "manifests/pods.rs"]
mod pods;
#[path = "manifests/release.rs"]
mod release;
#[path = "manifests/render.rs"]
mod render;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use test_support::process::run;
use test_support::tool;

use crate::render::{
    MESH_ALONE, WorkingCopy, containers, fields, for_each_workload, of_kind, parse, ports, render,
    renderings, root, selects, workloads,
};

#[test]
fn every_manifest_passes_strict_validation() {
    let Some(renderings) = renderings() else {
        return;
    };
    let Some(python) = tool("python3") else {
        return;
    };
    let has_schemas = Command::new(&python)
        .args(["-c", "import kubernetes_validate"])
        .output();
    if !has_schemas.is_ok_and(|output| output.status.success()) {
        // Prints that the test is skipped, or fails on CI.
        assert!(
            tool("kubernetes-validate").is_none(),
            "another python3 has kubernetes-validate"
        );
        return;
    }
    let mut command = Command::new(python);
    command.arg(root().join("tests/validate-manifests"));
    if let Some(crds) = std::env::var_os("CRDS_DIR") {
        command.arg("--crds").arg(crds);
    }
    command.arg(root().join("argocd/application.yaml"));
    command.arg(root().join("argocd/project.yaml"));
    for (n, (_, manifests)) in renderings.iter().enumerate() {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rendering-{n}.yaml"));
        let documents = manifests
            .iter()
            .map(|manifest| format!("---\n{manifest}\n"));
        fs::write(&file, documents.collect::<String>()).expect("it can be written");
        command.arg(file);
    }
    let output = run(&mut command);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
    for line in output
        .stdout
        .lines()
        .filter(|line| line.starts_with("skipped"))
    {
        // Not with `eprintln!`, whose output the test harness hides.
        let _ = writeln!(
            std::io::stderr(),
            "{line} (see CRDS_DIR in CONTRIBUTING.md)"
        );
    }
}

/// The workloads whose pods a selector's labels select.
fn selected<'a>(manifests: &'a [Value], selector: &'a Value) -> impl Iterator<Item = &'a Value> {
    workloads(manifests).filter(|workload| {
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        selects(selector, labels)
    })
}

#[test]
fn each_selector_selects_the_pods_of_one_workload() {
    for_each_workload(|workload, template| {
        let selector = &workload["spec"]["selector"]["matchLabels"];
        let labels = &template["metadata"]["labels"];
        assert!(selects(selector, labels), "{workload:#}");
        let keys: Vec<&String> = selector.as_object().expect("a map").keys().collect();
        assert_eq!(
            keys,
            ["app"],
            "selectors cannot be changed later, so they stay as they are"
        );
        assert_eq!(selector["app"], workload["metadata"]["name"]);
    });
    for (folder, manifests) in renderings().unwrap_or_default() {
        for kind in ["Service", "PodDisruptionBudget"] {
            for manifest in of_kind(manifests, kind) {
                let selector = match kind {
                    "Service" => &manifest["spec"]["selector"],
                    _ => &manifest["spec"]["selector"]["matchLabels"],
                };
                assert_eq!(selected(manifests, selector).count(), 1, "{folder}");
            }
        }
    }
}

#[test]
fn service_ports_and_probes_name_ports_that_the_containers_have() {
    for_each_workload(|_, template| {
        for container in containers(template) {
            let number = match container["name"].as_str() {
                Some("echo-server") => 8081,
                _ => 8082,
            };
            let admin = ports(container).find(|(_, port)| *port == number);
            let (admin, _) = admin.expect("it has an admin port");
            for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
                let get = &container[probe]["httpGet"];
                assert_eq!((&get["path"], &get["port"]), (&path.into(), &admin.into()));
            }
        }
    });
    for (folder, manifests) in renderings().unwrap_or_default() {
        for service in of_kind(manifests, "Service") {
            let workload = selected(manifests, &service["spec"]["selector"]).next();
            let template = &workload.expect("it selects one")["spec"]["template"];
            let of_pod: Vec<_> = containers(template).iter().flat_map(ports).collect();
            for port in service["spec"]["ports"].as_array().expect("a list") {
                let name = port["targetPort"].as_str().expect("a name");
                // The two numbers are equal, because a headless Service does not translate ports.
                let number = port["port"].as_u64().expect("a number");
                assert!(of_pod.contains(&(name, number)), "{folder}: {port}");
            }
            assert_eq!(service["spec"]["ports"][0]["port"], 8080, "{folder}");
        }
    }
}

#[test]
fn no_two_containers_of_a_pod_share_a_port_or_the_name_of_one() {
    for_each_workload(|workload, template| {
        let all: Vec<_> = containers(template).iter().flat_map(ports).collect();
        let names: BTreeSet<_> = all.iter().map(|(name, _)| name).collect();
        let numbers: BTreeSet<_> = all.iter().map(|(_, number)| number).collect();
        assert_eq!(
            (names.len(), numbers.len()),
            (all.len(), all.len()),
            "{workload:#}"
        );
    });
}

#[test]
fn services_have_an_app_protocol_and_both_ip_families() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        for service in of_kind(manifests, "Service") {
            let spec = &service["spec"];
            // In a mesh each pod has one address, which stands for its node.
            let policy = match service["metadata"]["name"].as_str() {
                Some("mesh") => "SingleStack",
                _ => "PreferDualStack",
            };
            assert_eq!(spec["ipFamilyPolicy"], policy, "{folder}");
            for port in spec["ports"].as_array().expect("a list") {
                assert_eq!(port["appProtocol"], "http", "{folder}");
            }
        }
    }
}

#[test]
fn images_are_pinned_to_this_version() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        for image in manifests
            .iter()
            .flat_map(|manifest| fields(manifest, "image"))
        {
            let image = image.as_str().expect("a name");
            let (_, tag) = image
                .split_once(':')
                .unwrap_or_else(|| panic!("{folder}: {image} has no tag"));
            assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{folder}");
        }
    }
}

#[test]
fn the_commented_out_pull_secret_reaches_every_pod() {
    let copy = WorkingCopy::new();
    let file = copy
        .path()
        .join("kustomize/components/images/kustomization.yaml");
    let text = fs::read_to_string(&file).expect("it is there");
    let (before, patches) = text.split_once("# patches:").expect("it shows how");
    let patches = format!("# patches:{patches}").replace("\n# ", "\n");
    let patches = patches.trim_start_matches("# ");
    fs::write(file, format!("{before}{patches}")).expect("it can be written");
    for (folder, yaml) in copy.render_all().unwrap_or_default() {
        let manifests = parse(&yaml);
        let with_password: BTreeSet<String> = of_kind(&manifests, "ServiceAccount")
            .filter(|account| account["imagePullSecrets"][0]["name"] == "registry")
            .map(|account| account["metadata"]["name"].to_string())
            .collect();
        for owner in workloads(&manifests).chain(of_kind(&manifests, "Job")) {
            let account = &owner["spec"]["template"]["spec"]["serviceAccountName"];
            assert!(
                with_password.contains(&account.to_string()),
                "{folder}: {account}"
            );
        }
    }
}

#[test]
fn the_root_and_the_overlays_are_in_a_namespace_of_their_own() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        for manifest in manifests {
            let namespace = match manifest["kind"].as_str() {
                Some("Namespace") => &manifest["metadata"]["name"],
                _ => &manifest["metadata"]["namespace"],
            };
            assert_eq!(namespace, "pod-to-pod-communication", "{folder}");
        }
        assert_eq!(of_kind(manifests, "Namespace").count(), 1, "{folder}");
        let name = if folder == MESH_ALONE {
            "mesh"
        } else {
            "backend"
        };
        let service =
            of_kind(manifests, "Service").any(|service| service["metadata"]["name"] == name);
        assert!(service, "{folder}: callers look for the name `{name}`");
    }
}

#[test]
fn the_base_has_no_namespace_of_its_own() {
    let Some(base) = render(&root().join("kustomize/base")) else {
        return;
    };
    let manifests = parse(&base);
    assert!(manifests.len() >= 7);
    for manifest in manifests {
        assert!(manifest["metadata"]["namespace"].is_null(), "{manifest:#}");
        assert_ne!(manifest["kind"], "Namespace");
    }
}

#[test]
fn all_components_can_be_deployed_in_two_namespaces_side_by_side() {
    let copy = WorkingCopy::new();
    // `check-hardened` has all that `check` has, and so has `mesh-hardened`.
    let components = copy.components(&["namespace", "check", "mesh"]);
    let Some(one) = copy.combine("one-of-two", &components) else {
        return;
    };
    let other = copy.combine("two-of-two", &components).expect("as before");
    assert_eq!(one.replace("one-of-two", "two-of-two"), other);
    for manifest in parse(&one) {
        assert_eq!(
            manifest["metadata"]["namespace"], "one-of-two",
            "{manifest:#}"
        );
        // Selectors of policies and monitors would have the first text, and DNS names the second.
        let text = manifest.to_string();
        assert!(!text.contains("namespace\":\"pod-to-pod"), "{text}");
        assert!(!text.contains(".pod-to-pod-communication"), "{text}");
    }
}

#[test]
fn the_hardened_overlay_enforces_restricted_pods_and_the_others_warn() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        let namespace = of_kind(manifests, "Namespace").next().expect("one");
        let enforced = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        let hardened = folder.ends_with("hardened");
        assert_eq!(enforced, if hardened { "restricted" } else { "baseline" });
        if hardened {
            let policies =
                of_kind(manifests, "NetworkPolicy").map(|policy| &policy["metadata"]["name"]);
            assert_eq!(
                policies.collect::<Vec<_>>(),
                ["backend", "default-deny", "frontend"]
            );
        }
    }
}

#[test]
fn network_policies_name_ports_that_pods_have() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        let ports: BTreeSet<u64> = workloads(manifests)
            .flat_map(|workload| containers(&workload["spec"]["template"]))
            .flat_map(ports)
            .map(|(_, number)| number)
            .chain([53, 5353])
            .collect();
        for policy in of_kind(manifests, "NetworkPolicy") {
            let spec = policy["spec"].to_string();
            for part in spec.split("\"port\":").skip(1) {
                let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
                assert!(
                    ports.contains(&digits.parse().expect("a number")),
                    "{folder}: {digits}"
                );
            }
        }
    }
}

#[test]
fn network_policies_deny_by_default_and_name_every_exception() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        for policy in of_kind(manifests, "NetworkPolicy") {
            let text = policy["spec"].to_string();
            assert!(
                !text.contains("\"namespaceSelector\":{}"),
                "{folder}: {text}"
            );
            for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
                for rule in policy["spec"][rules].as_array().into_iter().flatten() {
                    assert!(rule[peers].is_array(), "{folder}: anybody, by {rule}");
                    // The check may call every port of the backend, so that what blocks it is the backend's policy.
                    let backend = json!([{"podSelector": {"matchLabels": {"app": "backend"}}}]);
                    let may_call = policy["metadata"]["name"] == "check" && rule["to"] == backend;
                    assert!(
                        rule["ports"].is_array() || may_call,
                        "{folder}: any port, by {rule}"
                    );
                }
            }
        }
    }
}

#[test]
fn network_policies_allow_dns_at_its_pods_and_at_the_addresses_of_node_local_caches() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        for policy in of_kind(manifests, "NetworkPolicy") {
            let Some(rules) = policy["spec"]["egress"].as_array() else {
                continue;
            };
            let dns = rules.iter().find(|rule| rule["ports"][0]["port"] == 53);
            let dns = dns.unwrap_or_else(|| panic!("{folder}: {policy:#}"));
            let kube_system =
                json!({"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}});
            // `node-local-dns` is NodeLocal DNSCache where its pods have addresses of their own.
            let pods = json!({"matchExpressions": [{
                "key": "k8s-app", "operator": "In", "values": ["kube-dns", "node-local-dns"],
            }]});
            let of_node = |address: &str| json!({"ipBlock": {"cidr": address}});
            assert_eq!(
                dns["to"],
                json!([
                    {"namespaceSelector": kube_system, "podSelector": pods},
                    of_node("169.254.20.10/32"),
                    of_node("169.254.25.10/32"),
                ]),
                "{folder}"
            );
            let (udp, tcp) = (&dns["ports"][0], &dns["ports"][1]);
            assert_eq!(udp, &json!({"protocol": "UDP", "port": 53}), "{folder}");
            assert_eq!(tcp, &json!({"protocol": "TCP", "port": 53}), "{folder}");
        }
    }
}

/// The patches in the comment of a component, without the comment signs.
fn patches_in_comment(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("it is there");
    let mut patches = Vec::new();
    for line in text.lines().take_while(|line| line.starts_with('#')) {
        let line = line.strip_prefix("#   ").unwrap_or_default();
        match (line, patches.last_mut()) {
            ("patches:", _) => patches.push("patches:\n".to_owned()),
            ("", _) | (_, None) => {}
            (line, Some(patch)) => *patch += &format!("{line}\n"),
        }
    }
    patches
}

#[test]
fn the_patches_that_the_network_policies_suggest_work() {
    let Some(kubectl) = tool("kubectl") else {
        return;
    };
    let kustomize = root().join("kustomize");
    let patches =
        patches_in_comment(&kustomize.join("components/network-policy/kustomization.yaml"));
    assert_eq!(patches.len(), 2, "{patches:?}");
    // In the policies of the backend, the frontend and the mesh, and of the frontend, the check and the mesh.
    for (patch, expected) in patches.iter().zip(["observability", "10.96.0.10/32"]) {
        let copy = tempfile::tempdir().expect("a directory");
        let copied = Command::new("cp")
            .arg("-r")
            .arg(&kustomize)
            .arg(copy.path())
            .status();
        assert!(copied.expect("coreutils").success());
        let overlay = copy.path().join("kustomize/overlays/patched");
        fs::create_dir(&overlay).expect("it is a copy");
        let text = format!(
            "resources: [../hardened]\ncomponents: [../../components/check-hardened, ../../components/mesh-hardened]\n{patch}"
        );
        fs::write(overlay.join("kustomization.yaml"), text).expect("it is a copy");
        let output = run(Command::new(&kubectl).arg("kustomize").arg(overlay));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        let found = output.stdout.matches(expected).count();
        assert_eq!(found, 3, "{expected}: {}", output.stdout);
    }
}
