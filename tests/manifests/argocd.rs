//! Argo CD's Application, its project, and the path of the demo that this replaces.

use serde_json::{Value, json};

use crate::render::{parse, render, renderings, root};

fn manifest(name: &str) -> Value {
    let text = std::fs::read_to_string(root().join("argocd").join(name)).expect("it is there");
    let mut manifests = parse(&text);
    assert_eq!(manifests.len(), 1);
    manifests.remove(0)
}

#[test]
fn the_path_of_the_replaced_demo_renders_what_the_root_renders() {
    let path = root().join("argocd/apps/pod-to-pod-communication");
    let Some(rendering) = render(&path) else {
        return;
    };
    assert_eq!(Some(rendering), render(&root().join("kustomize")));
}

#[test]
fn the_application_is_pinned_to_this_version_and_its_path_can_be_rendered() {
    let application = manifest("application.yaml");
    let source = &application["spec"]["source"];
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    assert_eq!(source["targetRevision"], version);
    let path = root().join(source["path"].as_str().expect("text"));
    if let Some(rendering) = render(&path) {
        assert!(!rendering.is_empty());
    }
}

#[test]
fn the_project_allows_what_the_application_deploys_and_nothing_else() {
    let application = manifest("application.yaml");
    let project = manifest("project.yaml");
    let spec = &project["spec"];
    assert_eq!(application["spec"]["project"], project["metadata"]["name"]);
    for manifest in [&application, &project] {
        assert_eq!(manifest["metadata"]["namespace"], "argocd");
    }
    let repository = &application["spec"]["source"]["repoURL"];
    assert_eq!(spec["sourceRepos"], json!([repository]));
    let destination = &application["spec"]["destination"];
    assert_eq!(spec["destinations"], json!([destination]));
    let namespace = json!([{"group": "", "kind": "Namespace"}]);
    assert_eq!(spec["clusterResourceWhitelist"], namespace);
    // All namespaced kinds are allowed, so those of every component are.
    for list in ["namespaceResourceWhitelist", "namespaceResourceBlacklist"] {
        assert!(spec[list].is_null(), "{list}");
    }
    for (folder, manifests) in renderings().unwrap_or_default() {
        for manifest in manifests {
            let allowed = match manifest["kind"].as_str() {
                Some("Namespace") => &manifest["metadata"]["name"],
                _ => &manifest["metadata"]["namespace"],
            };
            assert_eq!(allowed, &destination["namespace"], "{folder}");
        }
    }
}
