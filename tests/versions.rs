//! The workspace's version in every place that names it, and the oldest Rust that is promised.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use test_support::process::run;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A file, the text before the version in it, and the number of such places at least.
const PLACES: [(&str, &str, usize); 6] = [
    ("CHANGELOG.md", "## [", 1),
    ("Dockerfile", "image.version=\"", 2),
    ("argocd/application.yaml", "targetRevision: v", 1),
    (
        "kustomize/components/images/kustomization.yaml",
        "newTag: ",
        2,
    ),
    (
        "kustomize/components/images/kustomization.yaml",
        "app.kubernetes.io/version: ",
        1,
    ),
    ("README.md", "`v", 0),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The versions, of three numbers, that follow the text `before`.
fn versions<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let version = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
        (version.split('.').count() == 3).then_some(version)
    })
}

/// Finds the files that are not Rust: documents and manifests.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("a name");
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            documents(&path, found);
        } else if name == "Dockerfile" || name.ends_with(".md") || name.ends_with(".yaml") {
            found.push(path);
        }
    }
}

#[test]
fn every_place_that_names_the_version_names_this_one() {
    for (file, before, at_least) in PLACES {
        let text = read(&root().join(file));
        let mut found: Vec<&str> = versions(&text, before).collect();
        if file == "CHANGELOG.md" {
            // The newest comes first.
            found.truncate(1);
        }
        assert!(found.len() >= at_least, "{file}: {before}{found:?}");
        for version in found {
            assert_eq!(version, VERSION, "{file}: {before}");
        }
    }
}

#[test]
fn every_image_of_ours_that_is_named_with_a_tag_has_this_version() {
    let mut files = Vec::new();
    documents(&root(), &mut files);
    let mut found = 0;
    for file in files {
        let text = read(&file);
        for version in ["caller:", "echo-server:"]
            .into_iter()
            .flat_map(|image| versions(&text, image))
        {
            assert_eq!(version, VERSION, "{}", file.display());
            found += 1;
        }
    }
    assert!(found >= 4, "{found}");
}

#[test]
fn every_crate_has_the_version_of_the_workspace() {
    for entry in fs::read_dir(root().join("crates")).expect("it is there") {
        let manifest = read(&entry.expect("it can be read").path().join("Cargo.toml"));
        for key in ["version", "rust-version"] {
            let line = format!("{key}.workspace = true");
            assert!(manifest.lines().any(|is| is == line), "{line}: {manifest}");
        }
    }
}

fn numbers(version: &str) -> Vec<u64> {
    let numbers = version.split('.').map(|part| part.parse().expect(version));
    numbers.chain([0, 0]).take(3).collect()
}

#[test]
fn no_dependency_asks_for_a_newer_rust_than_the_workspace() {
    // Offline, because all crates were fetched to compile this test.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = run(Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .args(["--filter-platform", &platform])
        .current_dir(root()));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let metadata: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let oldest = numbers(env!("CARGO_PKG_RUST_VERSION"));
    let mut asked = 0;
    for package in metadata["packages"].as_array().expect("a list") {
        if let Some(version) = package["rust_version"].as_str() {
            assert!(numbers(version) <= oldest, "{} {version}", package["name"]);
            asked += 1;
        }
    }
    assert!(asked > 50, "{asked}");
}
