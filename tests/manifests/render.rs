//! Renders the manifests with kubectl, and finds parts in what is rendered.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;
use test_support::process::run;
use test_support::tool;

pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("it is there")
}

/// Renders a folder as `kubectl apply -k` does. `None` if kubectl is missing.
pub(crate) fn render(folder: &Path) -> Option<String> {
    let output = run(Command::new(tool("kubectl")?).arg("kustomize").arg(folder));
    assert_eq!(
        output.code,
        Some(0),
        "{}: {}",
        folder.display(),
        output.stderr
    );
    // kustomize prints warnings about deprecated fields there.
    assert_eq!(output.stderr, "", "{}", folder.display());
    Some(output.stdout)
}

/// A copy of the manifests, which a test may change.
pub(crate) struct WorkingCopy(TempDir);

impl WorkingCopy {
    pub(crate) fn new() -> Self {
        let copy = tempfile::tempdir().expect("a directory");
        let output = run(Command::new("cp")
            .args(["-r", "kustomize", "argocd"])
            .arg(copy.path())
            .current_dir(root()));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        Self(copy)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Renders the base with these components in this namespace. `None` if kubectl is missing.
    pub(crate) fn combine(&self, namespace: &str, components: &[String]) -> Option<String> {
        let folder = tempfile::tempdir_in(self.path()).expect("a directory");
        let mut text =
            format!("namespace: {namespace}\nresources: [../kustomize/base]\ncomponents:\n");
        for component in components {
            text += &format!("  - ../kustomize/components/{component}\n");
        }
        fs::write(folder.path().join("kustomization.yaml"), text).expect("it can be written");
        render(folder.path())
    }

    /// The names of all components except those in `without`.
    pub(crate) fn components(&self, without: &[&str]) -> Vec<String> {
        let mut components = subfolders(&self.path().join("kustomize/components"));
        components.retain(|component| !without.contains(&component.as_str()));
        components
    }

    /// Renders everything that can be deployed: the root, the overlays, and the base with all components. That takes
    /// two renderings, because `check` and `check-hardened` have the same Job, without network policies and with
    /// them, and `mesh` and `mesh-hardened` have the same DaemonSet.
    pub(crate) fn render_all(&self) -> Option<Vec<(String, String)>> {
        let kustomize = self.path().join("kustomize");
        let overlays = subfolders(&kustomize.join("overlays"));
        let overlays = overlays.iter().map(|overlay| format!("overlays/{overlay}"));
        let mut renderings = Vec::new();
        for folder in std::iter::once(".".to_owned()).chain(overlays) {
            let rendering = render(&kustomize.join(&folder))?;
            renderings.push((folder, rendering));
        }
        for (name, without) in [
            (
                "all components but the policies",
                &["network-policy", "check-hardened", "mesh-hardened"][..],
            ),
            ("all components", &["check", "mesh"]),
        ] {
            let rendering = self.combine("pod-to-pod-communication", &self.components(without))?;
            renderings.push((name.to_owned(), rendering));
        }
        Some(renderings)
    }
}

/// The unchanged renderings of everything that can be deployed, with their names. `None` if kubectl is missing.
pub(crate) fn renderings() -> Option<&'static [(String, Vec<Value>)]> {
    static RENDERINGS: OnceLock<Vec<(String, Vec<Value>)>> = OnceLock::new();
    tool("kubectl")?;
    Some(RENDERINGS.get_or_init(|| {
        let renderings = WorkingCopy::new().render_all().expect("there is a kubectl");
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

pub(crate) fn parse(yaml: &str) -> Vec<Value> {
    use serde::Deserialize;
    let documents = serde_yaml_ng::Deserializer::from_str(yaml);
    documents
        .map(|document| Value::deserialize(document).expect("YAML"))
        .collect()
}

/// Every value of a field of this name, at any depth.
pub(crate) fn fields<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
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

pub(crate) fn of_kind<'a>(
    manifests: &'a [Value],
    kind: &'a str,
) -> impl Iterator<Item = &'a Value> {
    manifests
        .iter()
        .filter(move |manifest| manifest["kind"] == kind)
}

pub(crate) fn named<'a>(manifests: &'a [Value], kind: &'a str, name: &str) -> &'a Value {
    let mut found =
        of_kind(manifests, kind).filter(|manifest| manifest["metadata"]["name"] == name);
    found
        .next()
        .unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The overlay that has the mesh alone, without the demo's backend and frontend.
pub(crate) const MESH_ALONE: &str = "overlays/mesh";

/// The workloads: Deployments, and the DaemonSet of the mesh.
pub(crate) fn workloads(manifests: &[Value]) -> impl Iterator<Item = &Value> {
    of_kind(manifests, "Deployment").chain(of_kind(manifests, "DaemonSet"))
}

/// Calls `check` for each Deployment of each rendering, with its pod template.
pub(crate) fn for_each_deployment(check: impl Fn(&Value, &Value)) {
    for (folder, manifests) in renderings().unwrap_or_default() {
        let least = if folder == MESH_ALONE { 0 } else { 2 };
        let deployments = of_kind(manifests, "Deployment");
        assert!(deployments.count() >= least, "{folder}");
        for deployment in of_kind(manifests, "Deployment") {
            check(deployment, &deployment["spec"]["template"]);
        }
    }
}

/// Calls `check` for each workload of each rendering, with its pod template.
pub(crate) fn for_each_workload(check: impl Fn(&Value, &Value)) {
    for (folder, manifests) in renderings().unwrap_or_default() {
        assert!(workloads(manifests).count() >= 1, "{folder}");
        for workload in workloads(manifests) {
            check(workload, &workload["spec"]["template"]);
        }
    }
}

/// Calls `check` for each pod template of each rendering: those of workloads and of Jobs.
pub(crate) fn for_each_pod_template(check: impl Fn(&Value)) {
    for (_, manifests) in renderings().unwrap_or_default() {
        for owner in workloads(manifests).chain(of_kind(manifests, "Job")) {
            check(&owner["spec"]["template"]);
        }
    }
}

pub(crate) fn containers(template: &Value) -> &[Value] {
    let containers = template["spec"]["containers"].as_array().expect("a list");
    assert!(!containers.is_empty());
    containers
}

/// The only container of a pod.
pub(crate) fn container(template: &Value) -> &Value {
    let [container] = containers(template) else {
        panic!("one container: {template:#}");
    };
    container
}

/// The ports of a container, by name.
pub(crate) fn ports(container: &Value) -> impl Iterator<Item = (&str, u64)> {
    let ports = container["ports"].as_array().expect("a list");
    ports.iter().map(|port| {
        let name = port["name"].as_str().expect("a name");
        (name, port["containerPort"].as_u64().expect("a number"))
    })
}

/// Whether labels contain all labels of a selector's `matchLabels`.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("a map");
    !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
}
