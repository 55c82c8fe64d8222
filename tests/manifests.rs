//! The manifests, rendered as `kubectl apply -k` renders them.

#[path = "manifests/alerts.rs"]
mod alerts;
#[path = "manifests/argocd.rs"]
mod argocd;
#[path = "manifests/readme.rs"]
mod readme;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;
use test_support::process::run;
use test_support::tool;

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("it is there")
}

/// What `kubectl apply -k` would apply. `None`: there is no kubectl.
fn render(folder: &Path) -> Option<String> {
    let output = run(Command::new(tool("kubectl")?).arg("kustomize").arg(folder));
    assert_eq!(
        output.code,
        Some(0),
        "{}: {}",
        folder.display(),
        output.stderr
    );
    // kustomize says there what it would rather have written otherwise.
    assert_eq!(output.stderr, "", "{}", folder.display());
    Some(output.stdout)
}

/// A copy of the manifests that a test may change, with a folder of its own in it for what it renders.
struct Copy(TempDir);

impl Copy {
    fn new() -> Self {
        let copy = tempfile::tempdir().expect("a directory");
        let output = run(Command::new("cp")
            .args(["-r", "kustomize", "argocd"])
            .arg(copy.path())
            .current_dir(root()));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        Self(copy)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The base with these components, in this namespace.
    fn combine(&self, namespace: &str, components: &[String]) -> Option<String> {
        let folder = tempfile::tempdir_in(self.path()).expect("a directory");
        let mut text =
            format!("namespace: {namespace}\nresources: [../kustomize/base]\ncomponents:\n");
        for component in components {
            text += &format!("  - ../kustomize/components/{component}\n");
        }
        fs::write(folder.path().join("kustomization.yaml"), text).expect("it can be written");
        render(folder.path())
    }

    /// What can be deployed: the root, the overlays, and every component added to the base.
    fn render_all(&self) -> Option<Vec<(String, String)>> {
        let kustomize = self.path().join("kustomize");
        let overlays = subfolders(&kustomize.join("overlays"));
        let overlays = overlays.iter().map(|overlay| format!("overlays/{overlay}"));
        let mut renderings = Vec::new();
        for folder in std::iter::once(".".to_owned()).chain(overlays) {
            let rendering = render(&kustomize.join(&folder))?;
            renderings.push((folder, rendering));
        }
        let components = subfolders(&kustomize.join("components"));
        let all = self.combine("pod-to-pod-communication", &components)?;
        renderings.push(("all components".to_owned(), all));
        Some(renderings)
    }
}

/// What can be deployed, as it stands. `None`: there is no kubectl.
fn renderings() -> Option<&'static [(String, Vec<Value>)]> {
    static RENDERINGS: OnceLock<Vec<(String, Vec<Value>)>> = OnceLock::new();
    tool("kubectl")?;
    Some(RENDERINGS.get_or_init(|| {
        let renderings = Copy::new().render_all().expect("there is a kubectl");
        let parsed = renderings
            .into_iter()
            .map(|(name, yaml)| (name, parse(&yaml)));
        parsed.collect()
    }))
}

/// The names of the folders in a folder, in order.
fn subfolders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is there");
    let entries = entries.map(|entry| entry.expect("it can be read"));
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

fn parse(yaml: &str) -> Vec<Value> {
    use serde::Deserialize;
    let documents = serde_yaml_ng::Deserializer::from_str(yaml);
    documents
        .map(|document| Value::deserialize(document).expect("YAML"))
        .collect()
}

/// Every value of a field of this name, however deep it stands.
fn fields<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| {
                let own = (key == name).then_some(value);
                own.into_iter().chain(fields(value, name))
            })
            .collect(),
        Value::Array(values) => values
            .iter()
            .flat_map(|value| fields(value, name))
            .collect(),
        _ => Vec::new(),
    }
}

fn of_kind<'a>(manifests: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    manifests
        .iter()
        .filter(move |manifest| manifest["kind"] == kind)
}

/// Calls `check` for each Deployment of each rendering, with its pod template.
fn for_each_deployment(check: impl Fn(&Value, &Value)) {
    for (folder, manifests) in renderings().unwrap_or_default() {
        assert!(of_kind(manifests, "Deployment").count() >= 2, "{folder}");
        for deployment in of_kind(manifests, "Deployment") {
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
            for manifest in of_kind(manifests, kind) {
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
                    of_kind(manifests, "Deployment").filter(selected).count(),
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
        let mut deployments = of_kind(manifests, "Deployment");
        let backend = deployments.find(|deployment| deployment["metadata"]["name"] == "backend");
        let names = names(&backend.expect("a backend")["spec"]["template"]);
        for service in of_kind(manifests, "Service") {
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
        if container(template)["name"] == "caller" {
            for bound in ["requests", "limits"] {
                assert!(resources[bound]["ephemeral-storage"].is_string(), "{bound}");
            }
        }
    });
}

#[test]
fn each_app_has_an_account_of_its_own_without_a_token_and_nobody_has_rights() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        let accounts: Vec<&Value> = of_kind(manifests, "ServiceAccount")
            .inspect(|account| assert_eq!(account["automountServiceAccountToken"], false))
            .map(|account| &account["metadata"]["name"])
            .collect();
        assert_eq!(accounts, ["backend", "frontend"], "{folder}");
        for deployment in of_kind(manifests, "Deployment") {
            let component = &deployment["metadata"]["labels"]["app.kubernetes.io/component"];
            let account = &deployment["spec"]["template"]["spec"]["serviceAccountName"];
            assert_eq!(account, component, "{folder}");
        }
        let with_rights = manifests
            .iter()
            .filter(|manifest| manifest["apiVersion"].to_string().contains("rbac."));
        assert_eq!(with_rights.count(), 0, "{folder}");
    }
}

#[test]
fn kubectl_and_scrapers_find_the_right_container_beside_a_sidecar() {
    for_each_deployment(|_, template| {
        let container = container(template);
        let ports = container["ports"].as_array().expect("a list");
        let admin = ports.iter().find(|port| port["name"] == "admin");
        let admin = admin.expect("it has one")["containerPort"].to_string();
        assert_eq!(
            template["metadata"]["annotations"],
            serde_json::json!({
                "kubectl.kubernetes.io/default-container": container["name"],
                "prometheus.io/scrape": "true",
                "prometheus.io/port": admin,
                "prometheus.io/path": "/metrics",
            })
        );
    });
}

#[test]
fn labels_say_the_version_and_no_selector_asks_for_it() {
    let version = "app.kubernetes.io/version";
    for_each_deployment(|deployment, template| {
        for metadata in [&deployment["metadata"], &template["metadata"]] {
            assert_eq!(metadata["labels"][version], env!("CARGO_PKG_VERSION"));
        }
    });
    for (folder, manifests) in renderings().unwrap_or_default() {
        for kind in ["Service", "ServiceAccount", "PodDisruptionBudget"] {
            for manifest in of_kind(manifests, kind) {
                let labels = &manifest["metadata"]["labels"];
                assert_eq!(
                    labels[version],
                    env!("CARGO_PKG_VERSION"),
                    "{folder}: {kind}"
                );
            }
        }
        // A selector with a version would lose the old pods in the middle of a rollout.
        for field in ["selector", "labelSelector", "podSelector", "matchLabels"] {
            for selector in manifests
                .iter()
                .flat_map(|manifest| fields(manifest, field))
            {
                assert!(
                    !selector.to_string().contains(version),
                    "{folder}: {selector}"
                );
            }
        }
    }
}

#[test]
fn services_say_what_they_speak_and_take_both_ip_families() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        for service in of_kind(manifests, "Service") {
            let spec = &service["spec"];
            assert_eq!(spec["ipFamilyPolicy"], "PreferDualStack", "{folder}");
            for port in spec["ports"].as_array().expect("a list") {
                assert_eq!(port["appProtocol"], "http", "{folder}");
            }
        }
    }
}

#[test]
fn pods_are_spread_over_nodes_and_a_drain_takes_one_at_a_time() {
    for_each_deployment(|deployment, template| {
        let spread = &template["spec"]["topologySpreadConstraints"][0];
        assert_eq!(spread["topologyKey"], "kubernetes.io/hostname");
        assert_eq!(spread["labelSelector"], deployment["spec"]["selector"]);
    });
    for (folder, manifests) in renderings().unwrap_or_default() {
        for deployment in of_kind(manifests, "Deployment") {
            let mut budgets = of_kind(manifests, "PodDisruptionBudget")
                .filter(|budget| budget["spec"]["selector"] == deployment["spec"]["selector"]);
            let budget = budgets
                .next()
                .unwrap_or_else(|| panic!("{folder}: {deployment:#}"));
            assert_eq!(budget["spec"]["maxUnavailable"], 1);
            assert!(
                budgets.next().is_none(),
                "a pod with two budgets cannot be evicted"
            );
        }
    }
}

#[test]
fn the_headless_frontend_is_the_frontend_but_for_its_name_its_number_and_its_target() {
    let Some(renderings) = renderings() else {
        return;
    };
    let (_, manifests) = renderings.last().expect("that of all components");
    let named = |name: &str| {
        let mut deployments = of_kind(manifests, "Deployment");
        let found = deployments.find(|deployment| deployment["metadata"]["name"] == name);
        found.expect("it is there").clone()
    };
    let mut frontend = named("frontend");
    let mut headless = named("frontend-headless");
    let environment = "/spec/template/spec/containers/0/env";
    let environment = headless.pointer_mut(environment).expect("it is there");
    let shared = frontend["spec"]["template"]["spec"]["containers"][0]["env"].as_array();
    let shared = shared.expect("a list").len();
    let own = environment
        .as_array_mut()
        .expect("a list")
        .split_off(shared);
    let target = serde_json::json!([
        {"name": "CALLER_URL", "value": "http://backend-headless:8080/"},
        {"name": "CALLER_EACH_ADDRESS", "value": "true"},
    ]);
    assert_eq!(Value::Array(own), target);
    assert_eq!(headless["spec"]["replicas"].take(), 1);
    frontend["spec"]["replicas"].take();
    let renamed = frontend
        .to_string()
        .replace(r#""app":"frontend""#, r#""app":"frontend-headless""#);
    let renamed = renamed.replace(r#""name":"frontend""#, r#""name":"frontend-headless""#);
    assert_eq!(headless.to_string(), renamed);
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
fn a_password_for_the_registry_reaches_every_pod_once_its_lines_are_taken_in() {
    let copy = Copy::new();
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
        for deployment in of_kind(&manifests, "Deployment") {
            let account = &deployment["spec"]["template"]["spec"]["serviceAccountName"];
            assert!(
                with_password.contains(&account.to_string()),
                "{folder}: {account}"
            );
        }
    }
}

#[test]
fn the_root_and_the_overlays_are_in_one_namespace_that_they_bring() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        for manifest in manifests {
            let namespace = match manifest["kind"].as_str() {
                Some("Namespace") => &manifest["metadata"]["name"],
                _ => &manifest["metadata"]["namespace"],
            };
            assert_eq!(namespace, "pod-to-pod-communication", "{folder}");
        }
        assert_eq!(of_kind(manifests, "Namespace").count(), 1, "{folder}");
        let service =
            of_kind(manifests, "Service").any(|service| service["metadata"]["name"] == "backend");
        assert!(service, "{folder}: callers look for the name `backend`");
    }
}

#[test]
fn the_base_goes_into_whichever_namespace_it_is_applied_to() {
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
fn two_namespaces_can_have_all_of_it_side_by_side() {
    let copy = Copy::new();
    let mut components = subfolders(&copy.path().join("kustomize/components"));
    components.retain(|component| component != "namespace");
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
        // A policy or a monitor would look for it so, and an address in DNS contain it.
        let text = manifest.to_string();
        assert!(!text.contains("namespace\":\"pod-to-pod"), "{text}");
        assert!(!text.contains(".pod-to-pod-communication"), "{text}");
    }
}

#[test]
fn the_hardened_overlay_enforces_what_the_others_warn_of() {
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
        let ports: BTreeSet<u64> = of_kind(manifests, "Deployment")
            .flat_map(|deployment| {
                container(&deployment["spec"]["template"])["ports"]
                    .as_array()
                    .expect("a list")
            })
            .map(|port| port["containerPort"].as_u64().expect("a number"))
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
