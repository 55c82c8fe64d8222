//! What the README tells to type about the manifests does what it says.

use std::fs;
use std::path::Path;
use std::process::Command;

use test_support::process::run;

use crate::render::{WorkingCopy, fields, of_kind, parse, render, renderings, root};

/// A section of the README, to the next heading of its level or above.
fn section(heading: &str) -> String {
    let readme = fs::read_to_string(root().join("README.md")).expect("it is there");
    let (_, text) = readme
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("there is no section {heading}"));
    let level = heading.split(' ').next().expect("marks");
    let end = (1..=level.len())
        .filter_map(|n| text.find(&format!("\n{} ", "#".repeat(n))))
        .min();
    text[..end.unwrap_or(text.len())].to_owned()
}

/// The blocks of code in a language.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let blocks = section.split(&start).skip(1);
    blocks
        .map(|block| block.split("```").next().expect("text").to_owned())
        .collect()
}

/// Runs a block but for kubectl, which needs a cluster, in a copy of the repository.
fn type_in(copy: &Path, block: &str) {
    let joined = block.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.starts_with("kubectl "));
    let script = lines.collect::<Vec<_>>().join("\n");
    let output = run(Command::new("sh").args(["-euc", &script]).current_dir(copy));
    assert_eq!(output.code, Some(0), "{script}: {}", output.stderr);
}

#[test]
fn a_registry_of_ones_own_reaches_everything_that_can_be_deployed() {
    let copy = WorkingCopy::new();
    let blocks = blocks(&section("## Deploy"), "sh");
    let block = blocks.iter().find(|block| block.contains("REGISTRY"));
    let block = block.expect("it says how");
    let registry = "registry.example.com:5000/team";
    // Whoever moves to another registry does it once more.
    for registry in ["the.first.one/of/two", registry] {
        type_in(copy.path(), &block.replace("REGISTRY", registry));
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
    let blocks = blocks(&section("### With Argo CD"), "sh");
    let block = blocks.iter().find(|block| block.contains("REPOSITORY"));
    let repository = "https://github.com/someone/demo";
    let block = block
        .expect("it says how")
        .replace("REPOSITORY", repository);
    type_in(copy.path(), &block);
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
fn a_kustomization_of_ones_own_puts_parts_into_another_namespace() {
    let copy = WorkingCopy::new();
    let blocks = blocks(&section("## Deploy"), "yaml");
    assert_eq!(blocks.len(), 1);
    fs::write(copy.path().join("kustomization.yaml"), &blocks[0]).expect("it can be written");
    let manifests = parse(&render(copy.path()).unwrap_or_default());
    for manifest in &manifests {
        assert_eq!(manifest["metadata"]["namespace"], "some-namespace");
    }
}

#[test]
fn the_way_back_from_the_hardened_overlay_deletes_all_of_its_policies() {
    let deploy = section("## Deploy");
    let line = deploy
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
    let blocks = blocks(&section("## Clean up"), "sh");
    let at = |block: &str, text: &str| {
        let found = block.find(text);
        found.unwrap_or_else(|| panic!("{text} is not in {block}"))
    };
    let with_argo_cd = &blocks[1];
    assert!(at(with_argo_cd, "argocd/application.yaml") < at(with_argo_cd, "argocd/project.yaml"));
    // Without a running Argo CD: its finalizer first, or the deletion waits for ever.
    let without = &blocks[2];
    assert!(at(without, r#"{"finalizers":null}"#) < at(without, "kubectl delete"));
    assert!(at(without, "argocd/application.yaml") < at(without, "kubectl delete -k kustomize"));
}

#[test]
fn every_folder_that_the_readme_names_can_be_deployed() {
    let readme = fs::read_to_string(root().join("README.md")).expect("it is there");
    let mut folders: Vec<&str> = readme
        .split(" -k ")
        .skip(1)
        .map(|rest| {
            let end = rest.find(|c: char| c.is_whitespace() || c == '`');
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect();
    folders.sort_unstable();
    folders.dedup();
    assert!(folders.len() >= 4, "{folders:?}");
    for folder in folders {
        render(&root().join(folder));
    }
}
