//! The manifests, rendered as `kubectl apply -k` renders them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use test_support::process::run;
use test_support::tool;

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("it is there")
}

/// What can be deployed: the root, the overlays, and every component added to the base.
fn renderings() -> Option<Vec<(String, Vec<Value>)>> {
    let kubectl = tool("kubectl")?;
    let kustomize = root().join("kustomize");
    let mut folders = vec![kustomize.clone()];
    folders.extend(subfolders(&kustomize.join("overlays")));
    let all_components = Path::new(env!("CARGO_TARGET_TMPDIR")).join("all-components");
    fs::create_dir_all(&all_components).expect("it can be made");
    // kustomize takes relative paths alone.
    let depth = all_components.components().count() - 1;
    let relative = |path: &Path| "../".repeat(depth) + &path.display().to_string()[1..];
    let mut text = format!(
        "namespace: pod-to-pod-communication\nresources: [{}]\ncomponents:\n",
        relative(&kustomize.join("base"))
    );
    for component in subfolders(&kustomize.join("components")) {
        text += &format!("  - {}\n", relative(&component));
    }
    fs::write(all_components.join("kustomization.yaml"), text).expect("it can be written");
    folders.push(all_components);
    let render = |folder: PathBuf| {
        let output = run(Command::new(&kubectl).arg("kustomize").arg(&folder));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        // kustomize says there what it would rather have written otherwise.
        assert_eq!(output.stderr, "", "{}", folder.display());
        (folder.display().to_string(), parse(&output.stdout))
    };
    Some(folders.into_iter().map(render).collect())
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths.filter(|path| path.is_dir()).collect()
}

fn parse(yaml: &str) -> Vec<Value> {
    use serde::Deserialize;
    let documents = serde_yaml_ng::Deserializer::from_str(yaml);
    documents
        .map(|document| Value::deserialize(document).expect("YAML"))
        .collect()
}

fn of_kind<'a>(manifests: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    manifests
        .iter()
        .filter(move |manifest| manifest["kind"] == kind)
}

/// Calls `check` for each Deployment of each rendering, with its pod template.
fn for_each_deployment(check: impl Fn(&Value, &Value)) {
    for (folder, manifests) in renderings().unwrap_or_default() {
        assert!(of_kind(&manifests, "Deployment").count() >= 2, "{folder}");
        for deployment in of_kind(&manifests, "Deployment") {
            check(deployment, &deployment["spec"]["template"]);
        }
    }
}

fn container(template: &Value) -> &Value {
    let containers = template["spec"]["containers"].as_array().expect("a list");
    assert_eq!(containers.len(), 1);
    &containers[0]
}

/// Whether labels have all that a selector's matchLabels name.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("a map");
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}

#[test]
fn every_manifest_is_one_that_a_strict_server_takes() {
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
        // Says that it is skipped, or fails on CI.
        assert!(
            tool("kubernetes-validate").is_none(),
            "another python3 has kubernetes-validate"
        );
        return;
    }
    let mut command = Command::new(python);
    command.arg(root().join("tests/validate-manifests"));
    let crds = root().join("../shared/crds");
    if crds.is_dir() {
        command.arg("--crds").arg(crds);
    }
    command.arg(root().join("kustomize/argocd/application.yaml"));
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
}

#[test]
fn selectors_select_what_they_are_meant_to_and_no_more() {
    for_each_deployment(|deployment, template| {
        let selector = &deployment["spec"]["selector"]["matchLabels"];
        let labels = &template["metadata"]["labels"];
        assert!(selects(selector, labels), "{deployment:#}");
        let keys: Vec<&String> = selector.as_object().expect("a map").keys().collect();
        assert_eq!(
            keys,
            ["app"],
            "selectors cannot be changed later, so they stay as they are"
        );
        assert_eq!(selector["app"], deployment["metadata"]["name"]);
    });
    for (folder, manifests) in renderings().unwrap_or_default() {
        for kind in ["Service", "PodDisruptionBudget"] {
            for manifest in of_kind(&manifests, kind) {
                let selector = match kind {
                    "Service" => &manifest["spec"]["selector"],
                    _ => &manifest["spec"]["selector"]["matchLabels"],
                };
                let selected = |deployment: &&Value| {
                    selects(
                        selector,
                        &deployment["spec"]["template"]["metadata"]["labels"],
                    )
                };
                assert_eq!(
                    of_kind(&manifests, "Deployment").filter(selected).count(),
                    1,
                    "{folder}"
                );
            }
        }
    }
}

#[test]
fn service_ports_and_probes_name_ports_that_the_containers_have() {
    let names = |template: &Value| -> BTreeSet<String> {
        let ports = container(template)["ports"].as_array().expect("a list");
        ports
            .iter()
            .map(|port| port["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    for_each_deployment(|_, template| {
        for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
            let get = &container(template)[probe]["httpGet"];
            assert_eq!(
                (&get["path"], &get["port"]),
                (&path.into(), &"admin".into())
            );
        }
        assert!(names(template).contains("admin"));
    });
    for (folder, manifests) in renderings().unwrap_or_default() {
        let mut deployments = of_kind(&manifests, "Deployment");
        let backend = deployments.find(|deployment| deployment["metadata"]["name"] == "backend");
        let names = names(&backend.expect("a backend")["spec"]["template"]);
        for service in of_kind(&manifests, "Service") {
            let port = &service["spec"]["ports"][0];
            assert_eq!(port["port"], 8080, "{folder}");
            assert!(
                names.contains(port["targetPort"].as_str().expect("a name")),
                "{folder}"
            );
        }
    }
}

#[test]
fn pods_are_restricted_and_more() {
    for_each_deployment(|_, template| {
        let pod = &template["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        // The number is the image's, so that a cluster that gives out numbers may give another.
        assert!(pod["securityContext"]["runAsUser"].is_null());
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["enableServiceLinks"], false);
        for shared in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
            assert!(pod[shared].is_null(), "{shared}");
        }
        let context = &container(template)["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(
            context["capabilities"],
            serde_json::json!({"drop": ["ALL"]})
        );
        assert!(context["privileged"].is_null());
        let resources = &container(template)["resources"];
        assert!(
            resources["requests"]["cpu"].is_string() && resources["requests"]["memory"].is_string()
        );
        assert!(resources["limits"]["memory"].is_string());
        assert!(resources["limits"]["ephemeral-storage"].is_string());
    });
}

#[test]
fn a_rollout_takes_no_pod_before_there_is_another() {
    for_each_deployment(|deployment, _| {
        let update = &deployment["spec"]["strategy"]["rollingUpdate"];
        assert_eq!(update["maxUnavailable"], 0);
    });
}

#[test]
fn the_grace_period_is_longer_than_the_way_out() {
    let help = run(Command::new(env!("CARGO_BIN_EXE_echo-server")).arg("--help")).stdout;
    let default = |flag: &str| {
        let (_, text) = help
            .split_once(&format!("{flag} <"))
            .expect("it is in the help");
        let (_, text) = text.split_once("[default: ").expect("it has a default");
        let (text, _) = text.split_once("s]").expect("it is in seconds");
        text.parse::<u64>().expect("a number")
    };
    let way_out = default("--drain-delay") + default("--drain-timeout");
    for_each_deployment(|deployment, template| {
        let grace = template["spec"]["terminationGracePeriodSeconds"]
            .as_u64()
            .expect("it is set");
        if deployment["metadata"]["name"] == "backend" {
            assert!(grace > way_out, "{grace} seconds for {way_out}");
            assert!(
                !container(template)["args"].to_string().contains("drain"),
                "the defaults count"
            );
        }
    });
}

#[test]
fn images_are_pinned_to_this_version() {
    for_each_deployment(|_, template| {
        let image = container(template)["image"].as_str().expect("a name");
        let (_, tag) = image
            .split_once(':')
            .unwrap_or_else(|| panic!("{image} has no tag"));
        assert_eq!(tag, env!("CARGO_PKG_VERSION"));
    });
}

#[test]
fn all_is_in_the_namespace_and_keeps_its_name() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        for manifest in &manifests {
            let namespace = match manifest["kind"].as_str() {
                Some("Namespace") => &manifest["metadata"]["name"],
                _ => &manifest["metadata"]["namespace"],
            };
            assert_eq!(namespace, "pod-to-pod-communication", "{folder}");
        }
        let service =
            of_kind(&manifests, "Service").any(|service| service["metadata"]["name"] == "backend");
        assert!(service, "{folder}: callers look for the name `backend`");
    }
}

#[test]
fn the_hardened_overlay_enforces_what_the_others_warn_of() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        let namespace = of_kind(&manifests, "Namespace").next().expect("one");
        let enforced = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        let hardened = folder.ends_with("hardened");
        assert_eq!(enforced, if hardened { "restricted" } else { "baseline" });
        if hardened {
            let policies =
                of_kind(&manifests, "NetworkPolicy").map(|policy| &policy["metadata"]["name"]);
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
        let ports: BTreeSet<u64> = of_kind(&manifests, "Deployment")
            .flat_map(|deployment| {
                container(&deployment["spec"]["template"])["ports"]
                    .as_array()
                    .expect("a list")
            })
            .map(|port| port["containerPort"].as_u64().expect("a number"))
            .chain([53, 5353])
            .collect();
        for policy in of_kind(&manifests, "NetworkPolicy") {
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
fn network_policies_let_nobody_in_or_out_by_default_and_name_all_others() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        for policy in of_kind(&manifests, "NetworkPolicy") {
            let text = policy["spec"].to_string();
            assert!(
                !text.contains("\"namespaceSelector\":{}"),
                "{folder}: {text}"
            );
            for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
                for rule in policy["spec"][rules].as_array().into_iter().flatten() {
                    assert!(rule[peers].is_array(), "{folder}: anybody, by {rule}");
                    assert!(rule["ports"].is_array(), "{folder}: any port, by {rule}");
                }
            }
        }
    }
}

/// The patches that the comment of a component shows, as they stand there.
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
        let text = format!("resources: [../hardened]\n{patch}");
        fs::write(overlay.join("kustomization.yaml"), text).expect("it is a copy");
        let output = run(Command::new(&kubectl).arg("kustomize").arg(overlay));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert!(output.stdout.contains(expected), "{}", output.stdout);
    }
}
