//! The commands and files in the README and in `docs` that concern the manifests do what the pages say.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use test_support::documents::{Block, checked_by, page, pages};
use test_support::process::run;

use crate::render::{WorkingCopy, fields, of_kind, parse, render, renderings, root};

/// The one block that a test checks.
fn block(test: &str) -> Block {
    let mut blocks = checked_by(test);
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    blocks.remove(0)
}

/// Runs the commands of a block in a copy of the repository, except kubectl, which needs a cluster.
fn run_block(copy: &Path, block: &str) {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.starts_with("kubectl "));
    let script = lines.collect::<Vec<_>>().join("\n");
    let output = run(Command::new("sh").args(["-euc", &script]).current_dir(copy));
    assert_eq!(output.code, Some(0), "{script}: {}", output.stderr);
}

#[test]
fn a_registry_of_ones_own_reaches_everything_that_can_be_deployed() {
    let copy = WorkingCopy::new();
    let block = block("a_registry_of_ones_own_reaches_everything_that_can_be_deployed").text;
    let registry = "registry.example.com:5000/team";
    // The second run stands for a move to another registry.
    for registry in ["the.first.one/of/two", registry] {
        run_block(copy.path(), &block.replace("REGISTRY", registry));
    }
    let mut renderings = copy.render_all().unwrap_or_default();
    let application = copy.path().join("argocd/apps/pod-to-pod-communication");
    renderings.extend(render(&application).map(|yaml| ("argocd".to_owned(), yaml)));
    let version = env!("CARGO_PKG_VERSION");
    let expected = ["caller", "echo-server"].map(|name| format!("{registry}/{name}:{version}"));
    for (folder, yaml) in renderings {
        let manifests = parse(&yaml);
        let images = manifests
            .iter()
            .flat_map(|manifest| fields(manifest, "image"));
        let mut images: Vec<&str> = images.map(|image| image.as_str().expect("text")).collect();
        images.sort_unstable();
        images.dedup();
        assert_eq!(images, expected, "{folder}");
    }
}

#[test]
fn a_repository_of_ones_own_replaces_the_example_everywhere() {
    let copy = WorkingCopy::new();
    let block = block("a_repository_of_ones_own_replaces_the_example_everywhere").text;
    let repository = "https://github.com/someone/demo";
    run_block(copy.path(), &block.replace("REPOSITORY", repository));
    let left = run(Command::new("grep")
        .args(["-rn", "--include=*.yaml", r"git\.example\.com", "."])
        .current_dir(copy.path()));
    assert_eq!(left.stdout, "");
    let application = fs::read_to_string(copy.path().join("argocd/application.yaml"));
    let application = parse(&application.expect("it is there")).remove(0);
    let url = &application["spec"]["source"]["repoURL"];
    assert_eq!(url, &format!("{repository}.git"));
}

#[test]
fn a_kustomization_of_ones_own_goes_into_its_namespace() {
    let copy = WorkingCopy::new();
    for block in checked_by("a_kustomization_of_ones_own_goes_into_its_namespace") {
        let kustomization = &parse(&block.text)[0];
        fs::write(copy.path().join("kustomization.yaml"), &block.text).expect("it can be written");
        let Some(yaml) = render(copy.path()) else {
            return;
        };
        for manifest in parse(&yaml) {
            let namespace = &manifest["metadata"]["namespace"];
            assert_eq!(*namespace, kustomization["namespace"], "{}", block.place);
            // The namespace may have pods of others, which a policy for all pods would cut off.
            let denies_all = manifest["kind"] == "NetworkPolicy"
                && manifest["spec"]["podSelector"] == serde_json::json!({});
            assert!(!denies_all, "{}: {manifest:#}", block.place);
        }
    }
}

#[test]
fn the_oldest_kubernetes_of_the_docs_is_the_one_that_manifests_are_validated_for() {
    let script = fs::read_to_string(root().join("tests/validate-manifests")).expect("it is there");
    let oldest = script
        .lines()
        .find_map(|line| line.strip_prefix("OLDEST = \"")?.strip_suffix('"'));
    let promise = format!("Kubernetes {} or newer", oldest.expect("it names one"));
    for path in ["README.md", "docs/deploy.md"] {
        assert!(page(path).contains(&promise), "{path}: {promise}");
    }
}

#[test]
fn what_a_component_added_can_be_deleted_alone() {
    let test = "what_a_component_added_can_be_deleted_alone";
    assert!(
        block(test)
            .text
            .contains(" -k kustomize/components/headless")
    );
    let copy = WorkingCopy::new();
    let names = |yaml: &str| -> BTreeSet<String> {
        let names = parse(yaml).into_iter().map(|manifest| {
            let (kind, name) = (&manifest["kind"], &manifest["metadata"]["name"]);
            format!("{kind} {name}")
        });
        names.collect()
    };
    for component in copy.components(&["images", "namespace"]) {
        let folder = copy.path().join("kustomize/components").join(&component);
        let (Some(alone), Some(base)) =
            (render(&folder), render(&copy.path().join("kustomize/base")))
        else {
            return;
        };
        let combined = copy.combine("some-namespace", std::slice::from_ref(&component));
        let combined = names(&combined.expect("there is a kubectl"));
        let added: BTreeSet<String> = combined.difference(&names(&base)).cloned().collect();
        assert_eq!(names(&alone), added, "{component}");
    }
}

#[test]
fn the_way_back_from_the_hardened_overlay_deletes_all_of_its_policies() {
    let block = block("the_way_back_from_the_hardened_overlay_deletes_all_of_its_policies").text;
    let line = block
        .lines()
        .find_map(|line| line.strip_prefix("kubectl delete networkpolicies "));
    let mut words = line.expect("it says how").split(' ');
    assert_eq!(words.next(), Some("-n"));
    assert_eq!(words.next(), Some("pod-to-pod-communication"));
    let named: Vec<&str> = words.collect();
    let renderings = renderings().unwrap_or_default();
    for (_, manifests) in renderings
        .iter()
        .filter(|(name, _)| name.ends_with("hardened"))
    {
        let policies: Vec<&str> = of_kind(manifests, "NetworkPolicy")
            .map(|policy| policy["metadata"]["name"].as_str().expect("text"))
            .collect();
        assert_eq!(named, policies);
    }
}

#[test]
fn cleaning_up_deletes_the_application_before_what_it_would_put_back() {
    let blocks = checked_by("cleaning_up_deletes_the_application_before_what_it_would_put_back");
    let [with_argo_cd, without] = &blocks[..] else {
        panic!("{blocks:?}");
    };
    let at = |block: &str, text: &str| {
        let found = block.find(text);
        found.unwrap_or_else(|| panic!("{text} is not in {block}"))
    };
    let (with_argo_cd, without) = (&with_argo_cd.text, &without.text);
    assert!(at(with_argo_cd, "argocd/application.yaml") < at(with_argo_cd, "argocd/project.yaml"));
    // Where Argo CD does not run, the finalizer has to go first, or the deletion waits for ever.
    assert!(at(without, r#"{"finalizers":null}"#) < at(without, "kubectl delete"));
    assert!(at(without, "argocd/application.yaml") < at(without, "kubectl delete -k kustomize"));
}

#[test]
fn every_folder_that_is_to_be_applied_can_be_deployed() {
    let text: String = pages().iter().map(|page| page.text.as_str()).collect();
    let mut folders: Vec<&str> = text
        .split(" -k ")
        .skip(1)
        .map(|rest| {
            let end = rest.find(|c: char| c.is_whitespace() || c == '`');
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect();
    folders.sort_unstable();
    folders.dedup();
    assert!(folders.len() >= 5, "{folders:?}");
    for folder in folders {
        render(&root().join(folder));
    }
}
