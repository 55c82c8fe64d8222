//! The kustomization that is attached to a release.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use test_support::process::run;

use crate::render::{WorkingCopy, fields, parse, render, root};

#[test]
fn a_release_deploys_this_registrys_images_by_digest() {
    let digests = [("caller", "a"), ("echo-server", "b")]
        .map(|(image, digit)| (image, format!("sha256:{}", digit.repeat(64))));
    let [(_, caller), (_, echo_server)] = &digests;
    let repository = "https://github.com/someone/demo";
    let output = run(Command::new(root().join(".github/release-kustomization"))
        .args([repository, "0123abc", "ghcr.io/someone"])
        .args([caller, echo_server]));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let remote = format!("{repository}//kustomize?ref=0123abc");
    assert!(output.stdout.contains(&remote), "{}", output.stdout);

    let copy = WorkingCopy::new();
    for folder in ["kustomize", "kustomize/overlays/hardened"] {
        let text = output.stdout.replace(&remote, folder);
        fs::write(copy.path().join("kustomization.yaml"), text).expect("it can be written");
        let Some(yaml) = render(copy.path()) else {
            return;
        };
        let manifests = parse(&yaml);
        let images: BTreeSet<String> = manifests
            .iter()
            .flat_map(|manifest| fields(manifest, "image"))
            .map(|image| image.as_str().expect("text").to_owned())
            .collect();
        let expected = digests
            .iter()
            .map(|(image, digest)| format!("ghcr.io/someone/{image}@{digest}"));
        assert_eq!(images, expected.collect(), "{folder}");
    }
}
