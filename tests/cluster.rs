//! The whole story of the demo in a real cluster. It uses the current context of kubectl, so it runs only when it is
//! asked for by name:
//!
//! ```text
//! cargo test -p local-cluster --test cluster
//! ```
//!
//! The images have to be there already, under the names in the manifests; docs/deploy.md says how
//! for kind, minikube, k3s and a registry. `KUSTOMIZATION` names another folder than `kustomize` to
//! deploy. The namespace is deleted in the end, and has to be absent at the beginning.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use test_support::process::{Output, Process, run};
use test_support::wait_until;

const NAMESPACE: &str = "pod-to-pod-communication";

/// Timeouts for what a cluster does: pulling images, scheduling and probing.
const ROLLOUT: &str = "--timeout=180s";
const TIMEOUT: Duration = Duration::from_secs(180);

fn kubectl(args: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .args(args);
    command
}

/// Runs kubectl, which must succeed, and returns its output.
fn succeed(args: &[&str]) -> String {
    let Output {
        code,
        stdout,
        stderr,
    } = run(&mut kubectl(args));
    assert_eq!(code, Some(0), "kubectl {args:?}: {stdout}{stderr}");
    stdout
}

fn in_namespace<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["--namespace", NAMESPACE], args].concat()
}

/// The pods of an app, without those that are being deleted.
fn pods(app: &str) -> BTreeSet<String> {
    let selector = format!("app={app}");
    let names = r#"{range .items[*]}{.metadata.name}{" "}{.metadata.deletionTimestamp}{"\n"}{end}"#;
    let output = format!("jsonpath={names}");
    let listed = succeed(&in_namespace(&[
        "get", "pods", "-l", &selector, "-o", &output,
    ]));
    let staying = listed.lines().filter_map(|line| line.strip_suffix(' '));
    staying.map(str::to_owned).collect()
}

/// The deployed manifests, which are deleted on drop, also if the test fails.
struct Deployed(String);

impl Deployed {
    fn apply() -> Self {
        let folder = std::env::var("KUSTOMIZATION").unwrap_or_else(|_| "kustomize".to_owned());
        let there = run(&mut kubectl(&["get", "namespace", NAMESPACE]));
        assert_ne!(
            there.code,
            Some(0),
            "the namespace {NAMESPACE} is there already"
        );
        succeed(&["apply", "-k", &folder]);
        Self(folder)
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        let deleted = kubectl(&["delete", "-k", &self.0, "--wait=true", "--timeout=120s"]).status();
        if !thread::panicking() {
            assert!(deleted.is_ok_and(|status| status.success()));
        }
    }
}

#[test]
fn the_demo_is_deployed_called_rolled_out_and_hardened() {
    let deployed = Deployed::apply();
    for deployment in ["deployment/backend", "deployment/frontend"] {
        succeed(&in_namespace(&["rollout", "status", deployment, ROLLOUT]));
    }

    // All pods start at the same time, and yet the first call of a frontend is a success.
    for frontend in pods("frontend") {
        let first_block = || {
            let log = succeed(&in_namespace(&["logs", &frontend]));
            let lines: Vec<String> = log.lines().take(3).map(str::to_owned).collect();
            lines
        };
        wait_until("a block in a frontend's log", TIMEOUT, || {
            first_block().len() == 3
        });
        let block = first_block();
        assert!(block[0].starts_with("=== Frontend calling Backend at "));
        assert_eq!(
            block[1..],
            [
                "Hello from Backend Service!",
                "Response received successfully!"
            ]
        );
    }

    // The command with which the original demo is checked.
    let body = succeed(&in_namespace(&[
        "exec",
        "deployment/frontend",
        "--",
        "curl",
        "http://backend:8080",
    ]));
    assert_eq!(body, "Hello from Backend Service!\n");

    let backends = pods("backend");
    assert_eq!(backends.len(), 2);
    let exec = ["exec", "deployment/frontend", "--", "caller"];
    let mut answered = BTreeSet::new();
    wait_until("an answer of each backend", TIMEOUT, || {
        let report = succeed(&in_namespace(
            &[&exec[..], &["once", "--format=wide"]].concat(),
        ));
        let pod = report
            .lines()
            .find_map(|line| line.strip_prefix("pod=")?.split(' ').next());
        answered.insert(pod.expect("a fourth line").to_owned());
        backends.is_subset(&answered)
    });
    let diagnosis = succeed(&in_namespace(&[&exec[..], &["diagnose"]].concat()));
    assert!(!diagnosis.contains("FAIL"), "{diagnosis}");

    // Argo CD would try to undo any difference between the manifests and what the API server stores.
    let diff = run(&mut kubectl(&["diff", "-k", &deployed.0]));
    assert_eq!(diff.code, Some(0), "{}{}", diff.stdout, diff.stderr);

    let load = [
        "--until-replaced",
        "--interval=20ms",
        "--duration=5m",
        "--format=wide",
    ];
    let load = Process::spawn(&mut kubectl(&in_namespace(&[&exec[..], &load].concat())));
    // Waits until the caller knows the pods that are to be replaced.
    wait_until("the baseline", TIMEOUT, || {
        load.stdout().matches("Response received").count() > 200
    });
    succeed(&in_namespace(&["rollout", "restart", "deployment/backend"]));
    succeed(&in_namespace(&[
        "rollout",
        "status",
        "deployment/backend",
        ROLLOUT,
    ]));
    wait_until("the end of the old backends", TIMEOUT, || {
        pods("backend").is_disjoint(&backends)
    });
    wait_until("the end of the load", TIMEOUT, || {
        load.stdout().contains("longest gap without a success")
    });
    // The same works behind policies, and in a namespace that admits only restricted pods.
    succeed(&["apply", "-k", "kustomize/overlays/hardened"]);
    succeed(&in_namespace(&[
        "rollout",
        "status",
        "deployment/frontend",
        ROLLOUT,
    ]));
    wait_until("a call behind the policies", TIMEOUT, || {
        run(&mut kubectl(&in_namespace(
            &[&exec[..], &["once"]].concat(),
        )))
        .code
            == Some(0)
    });

    let log = load.stdout();
    let (_, summary) = log.rsplit_once("--- http://").expect("a summary");
    println!("{summary}");
    assert!(summary.contains(" 0 failed (0.0%)"), "{summary}");
    assert_eq!(load.finish().code, Some(0));
}
