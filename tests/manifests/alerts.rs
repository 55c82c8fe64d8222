//! The links and the selectors of the alerts. `alerts.yaml` tests when they fire.

use std::fs;

use serde_json::Value;
use test_support::documents::{anchors, page};

use crate::render::{parse, root};

const RUNBOOK: &str = "kustomize/components/monitoring/runbook.md";
const FAILURES: &str = "docs/failures.md";

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

#[test]
fn alerts_depend_on_no_namespace_and_no_port_number() {
    for alert in alerts() {
        let expression = alert["expr"].as_str().expect("text");
        let bare: String = expression.split_whitespace().collect();
        for tie in ["namespace=", "instance", "job", ":80", "808"] {
            assert!(!bare.contains(tie), "{tie} in {expression}");
        }
    }
}

#[test]
fn every_alert_links_to_an_entry_that_exists() {
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
        let name = alert["alert"].as_str().expect("text").to_lowercase();
        assert!(anchors(&page(RUNBOOK)).contains(&name), "{name}");
        match anchor.starts_with("{{ with printf \"topk(1, sum by (result)") {
            // The link ends with the kind of failure that a query finds.
            true => {
                assert_eq!(file, FAILURES);
                let entries = anchors(&page(file));
                for kind in kinds() {
                    assert!(entries.contains(&kind), "{file} has no {kind}");
                }
            }
            false => assert_eq!((file, anchor), (RUNBOOK, name.as_str())),
        }
    }
}

/// The kinds of failure, from the table that `tests/documents.rs` compares with the program.
fn kinds() -> Vec<String> {
    let text = page(FAILURES);
    let (_, table) = text.split_once("\n| kind | exit code |").expect("a table");
    let rows = table.lines().skip(2);
    let kinds: Vec<String> = rows
        .map_while(|row| Some(row.strip_prefix("| [`")?.split_once('`')?.0.to_owned()))
        .collect();
    assert!(kinds.len() >= 20, "{kinds:?}");
    kinds
}
