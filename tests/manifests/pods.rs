//! Workloads and their pods: Pod Security, the advice of linters, and rollouts.

use std::process::Command;

use serde_json::Value;
use test_support::process::run;

use crate::render::{
    container, containers, fields, for_each_deployment, for_each_pod_template, for_each_workload,
    named, of_kind, ports, renderings, workloads,
};

#[test]
fn pods_have_the_restricted_security_context_and_no_writable_volume() {
    for_each_pod_template(|template| {
        let pod = &template["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        // The image names the user, so that a cluster that assigns user ids may choose another one.
        assert!(pod["securityContext"]["runAsUser"].is_null());
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["enableServiceLinks"], false);
        for shared in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod[shared].is_null(), "{shared}");
        }
        // The only volume allowed is a list of targets, which cannot be written.
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            assert!(volume["configMap"].is_object(), "{volume}");
        }
        assert!(pod["initContainers"].is_null());
        for container in containers(template) {
            let mounts = container["volumeMounts"].as_array();
            for mount in mounts.into_iter().flatten() {
                assert_eq!(mount["readOnly"], true, "{mount}");
            }
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(
                context["capabilities"],
                serde_json::json!({"drop": ["ALL"]})
            );
            assert!(context["privileged"].is_null());
            for port in container["ports"].as_array().into_iter().flatten() {
                assert!(port["hostPort"].is_null(), "{port}");
            }
            let resources = &container["resources"];
            assert!(resources["requests"]["cpu"].is_string());
            for bound in ["requests", "limits"] {
                for resource in ["memory", "ephemeral-storage"] {
                    assert!(resources[bound][resource].is_string(), "{bound}");
                }
            }
        }
    });
}

#[test]
fn pods_are_scheduled_to_linux_nodes_alone() {
    for_each_pod_template(|template| {
        assert_eq!(
            template["spec"]["nodeSelector"],
            serde_json::json!({"kubernetes.io/os": "linux"}),
            "{template:#}"
        );
    });
}

#[test]
fn each_app_has_a_service_account_without_a_token_and_without_rights() {
    for (folder, manifests) in renderings().unwrap_or_default() {
        let accounts: Vec<&Value> = of_kind(manifests, "ServiceAccount")
            .inspect(|account| assert_eq!(account["automountServiceAccountToken"], false))
            .map(|account| &account["metadata"]["name"])
            .collect();
        let there = |kind: &str| of_kind(manifests, kind).next().is_some();
        let expected = [
            ("backend", there("Deployment")),
            ("check", there("Job")),
            ("frontend", there("Deployment")),
            ("mesh", there("DaemonSet")),
        ];
        let expected = expected.into_iter().filter(|(_, there)| *there);
        let expected: Vec<&str> = expected.map(|(name, _)| name).collect();
        assert_eq!(accounts, expected, "{folder}");
        for workload in workloads(manifests) {
            let component = &workload["metadata"]["labels"]["app.kubernetes.io/component"];
            let account = &workload["spec"]["template"]["spec"]["serviceAccountName"];
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
    for_each_workload(|_, template| {
        // In a pod of the mesh, the default container is the caller.
        let container = match containers(template) {
            [container] => container,
            several => {
                let mut several = several.iter();
                let caller = several.find(|container| container["name"] == "caller");
                caller.expect("there is one")
            }
        };
        let admin = ports(container).find(|(name, _)| *name == "admin");
        let admin = admin.expect("it has one").1.to_string();
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
fn labels_have_the_version_and_selectors_do_not() {
    let version = "app.kubernetes.io/version";
    for_each_workload(|workload, template| {
        for metadata in [&workload["metadata"], &template["metadata"]] {
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
fn pods_are_spread_over_nodes_and_a_drain_evicts_one_at_a_time() {
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
fn the_headless_frontend_differs_from_the_frontend_in_name_replicas_and_target_only() {
    let Some(renderings) = renderings() else {
        return;
    };
    let (_, manifests) = renderings.last().expect("that of all components");
    let mut frontend = named(manifests, "Deployment", "frontend").clone();
    let mut headless = named(manifests, "Deployment", "frontend-headless").clone();
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
fn a_rollout_stops_no_pod_before_a_new_one_is_ready() {
    for_each_deployment(|deployment, _| {
        let update = &deployment["spec"]["strategy"]["rollingUpdate"];
        assert_eq!(update["maxUnavailable"], 0);
    });
}

#[test]
fn the_grace_period_is_longer_than_the_shutdown() {
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
    for_each_workload(|_, template| {
        let grace = template["spec"]["terminationGracePeriodSeconds"]
            .as_u64()
            .expect("it is set");
        for container in containers(template) {
            if container["name"] == "echo-server" {
                assert!(grace > way_out, "{grace} seconds for {way_out}");
                let set = format!("{}{}", container["args"], container["env"]).to_lowercase();
                assert!(!set.contains("drain"), "the defaults count");
            }
        }
    });
}

#[test]
fn frontends_wait_for_the_backend_before_their_first_call() {
    for_each_deployment(|_, template| {
        let container = container(template);
        if container["name"] == "caller" {
            let variables = container["env"].as_array().expect("a list");
            let wait = variables
                .iter()
                .find(|variable| variable["name"] == "CALLER_WAIT");
            assert_eq!(wait.expect("it waits")["value"], "30s");
        }
    });
}
