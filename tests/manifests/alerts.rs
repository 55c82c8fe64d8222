//! What the alerts lead to, and what they are tied to. What they say of a day is in `alerts.yaml`.

use std::fs;

use serde_json::Value;

use crate::render::{parse, root};

fn alerts() -> Vec<Value> {
    let file = root().join("kustomize/components/monitoring/prometheusrule.yaml");
    let rule = parse(&fs::read_to_string(file).expect("it is there")).remove(0);
    let groups = rule["spec"]["groups"].as_array().expect("a list");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("a list"));
    let alerts: Vec<Value> = rules.cloned().collect();
    assert!(alerts.len() >= 4);
    alerts
}

/// What links to the headings of a Markdown file lead to, as forges name them.
fn anchors(markdown: &str) -> Vec<String> {
    let headings = markdown.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            heading.replace(' ', "-")
        })
        .collect()
}

#[test]
fn alerts_are_tied_to_no_namespace_and_to_no_port_number() {
    for alert in alerts() {
        let expression = alert["expr"].as_str().expect("text");
        let bare: String = expression.split_whitespace().collect();
        for tie in ["namespace=", "instance", "job", ":80", "808"] {
            assert!(!bare.contains(tie), "{tie} in {expression}");
        }
    }
}

#[test]
fn every_alert_leads_to_its_entry_in_the_runbook() {
    let application = root().join("argocd/application.yaml");
    let application = parse(&fs::read_to_string(application).expect("it is there")).remove(0);
    let repository = application["spec"]["source"]["repoURL"].as_str();
    let repository = repository.and_then(|url| url.strip_suffix(".git"));
    let repository = repository.expect("the address of a repository");
    for alert in alerts() {
        let url = alert["annotations"]["runbook_url"].as_str();
        let url = url.unwrap_or_else(|| panic!("{} has one", alert["alert"]));
        let path = url.strip_prefix(repository).expect("in the repository");
        let path = path.strip_prefix("/blob/HEAD/").expect("the newest");
        let (file, anchor) = path.split_once('#').expect("an entry");
        let runbook = fs::read_to_string(root().join(file)).expect("it is there");
        let anchors = anchors(&runbook);
        let name = alert["alert"].as_str().expect("text").to_lowercase();
        assert!(anchors.contains(&name), "{name}");
        // Either the alert's own entry, or that of the kind of failure that a query finds.
        assert!(
            anchor == name || anchor.starts_with("{{ with printf \"topk(1, sum by (result)"),
            "{anchor}"
        );
    }
}

#[test]
fn the_runbook_has_an_entry_for_each_kind_of_failure() {
    let runbook = root().join("kustomize/components/monitoring/runbook.md");
    let anchors = anchors(&fs::read_to_string(runbook).expect("it is there"));
    let readme = fs::read_to_string(root().join("README.md")).expect("it is there");
    let (_, table) = readme
        .split_once("\n| kind | exit code |")
        .expect("it has a table of them");
    let kinds: Vec<&str> = table
        .lines()
        .skip(2)
        .map_while(|row| row.strip_prefix('|')?.split('|').next())
        // A row may name several kinds.
        .flat_map(|kinds| kinds.split('`').skip(1).step_by(2))
        .collect();
    assert!(kinds.len() >= 20, "{kinds:?}");
    for kind in kinds {
        assert!(anchors.iter().any(|anchor| anchor == kind), "{kind}");
    }
}
