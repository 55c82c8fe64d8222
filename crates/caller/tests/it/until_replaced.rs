//! `--until-replaced`: a run that ends when all pods have been replaced.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use test_support::bed::Bed;
use test_support::process::{Process, Signal, run};
use test_support::{TIMEOUT, wait_until};

use crate::CALLER;

/// Starts a pod that is not behind the Service.
fn pod(bed: &Bed, name: &str) -> SocketAddr {
    bed.pod(name, (Ipv4Addr::LOCALHOST, 0).into())
}

/// A command that waits for a rollout, with calls far more often than the pods change.
fn until_replaced(bed: &Bed, args: &[&str]) -> Command {
    let mut command = bed.caller(CALLER);
    command
        .args(["--until-replaced", "--interval=5ms", "--format=json"])
        .args(args);
    command
}

/// Waits for this many more calls.
fn wait_for_calls(caller: &Process, more: usize) {
    let calls = || caller.stdout().lines().count();
    let before = calls();
    wait_until("more calls", TIMEOUT, || calls() >= before + more);
}

/// Waits until the baseline is complete, which takes 3 s. Calls are at least 5 ms apart.
fn wait_for_baseline(caller: &Process) {
    wait_for_calls(caller, 650);
}

/// Waits until the caller ends, and returns its exit code and summary.
fn finish(caller: Process) -> (Option<i32>, serde_json::Value) {
    let output = caller.finish();
    let summary = output.stdout.lines().last().expect("a summary").to_owned();
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    (output.code, summary["summary"].clone())
}

fn pods(rollout: &serde_json::Value, sort: &str) -> Vec<String> {
    let pods = rollout[sort].as_object().expect("an object");
    pods.keys().cloned().collect()
}

#[test]
fn a_completed_rollout_ends_the_run_with_exit_code_0() {
    let bed = Bed::start(&["old-1", "old-2"]);
    let caller = Process::spawn(&mut until_replaced(&bed, &["--duration=1m"]));
    wait_for_baseline(&caller);
    bed.endpoints.set([pod(&bed, "new-1"), pod(&bed, "new-2")]);
    let (code, summary) = finish(caller);
    let rollout = &summary["rollout"];
    assert_eq!(
        (code, &rollout["replaced"]),
        (Some(0), &true.into()),
        "{summary:#}"
    );
    assert_eq!(pods(rollout, "old_pods"), ["old-1", "old-2"]);
    assert_eq!(pods(rollout, "new_pods"), ["new-1", "new-2"]);
}

#[test]
fn a_missing_rollout_exits_3() {
    let bed = Bed::start(&["old-1", "old-2"]);
    let caller = Process::spawn(&mut until_replaced(&bed, &["--duration=5s"]));
    let (code, summary) = finish(caller);
    let rollout = &summary["rollout"];
    assert_eq!(
        (code, &summary["failed"]),
        (Some(3), &0.into()),
        "{summary:#}"
    );
    assert_eq!(
        rollout["why"],
        "no new pod answered, and all old pods answer still"
    );
}

#[test]
fn a_failed_call_during_the_rollout_exits_1() {
    let bed = Bed::start(&["old-1"]);
    let caller = Process::spawn(&mut until_replaced(&bed, &["--duration=1m"]));
    wait_for_baseline(&caller);
    bed.endpoints.set([]);
    caller.wait_for_stdout("\"error\"");
    bed.endpoints.set([pod(&bed, "new-1")]);
    let (code, summary) = finish(caller);
    assert_eq!(code, Some(1), "{summary:#}");
    assert_eq!(summary["rollout"]["replaced"], true);
}

#[test]
fn a_rollout_that_began_before_the_run_exits_3_with_the_reason() {
    let bed = Bed::start(&["old-1", "new-1"]);
    let caller = Process::spawn(&mut until_replaced(&bed, &["--duration=1h"]));
    wait_for_baseline(&caller);
    // The old pod is removed; the new one is in the baseline.
    bed.endpoints.set([pod(&bed, "new-1")]);
    wait_for_calls(&caller, 100);
    caller.signal(Signal::TERM);
    let (code, summary) = finish(caller);
    assert_eq!(code, Some(3), "{summary:#}");
    assert_eq!(
        summary["rollout"]["why"],
        "no new pod answered; it had begun before this run, if old-1 was to be replaced by new-1"
    );
}

#[test]
fn the_summary_has_the_old_pods_and_why_no_rollout_was_seen() {
    let bed = Bed::start(&["old-1"]);
    let mut command = bed.caller(CALLER);
    let output = run(command.args(["--until-replaced", "--interval=5ms", "--duration=100ms"]));
    assert_eq!(output.code, Some(3));
    let summary = &output.stdout;
    assert!(
        summary.contains("\nold pod: old-1, answered from "),
        "{summary}"
    );
    let why = "replaced: not seen, the run was too short to know the old pods: 30 calls and 3 s at least\n";
    assert!(summary.contains(why), "{summary}");
}

#[test]
fn flags_that_make_a_proof_impossible_exit_2() {
    for (args, named) in [
        (&["--until-replaced"][..], "--interval"),
        (&["--until-replaced", "--interval=2s"], "--interval"),
        (
            &["--until-replaced", "--interval=1s", "--keep-alive"],
            "--keep-alive",
        ),
        (
            &["--until-replaced", "--interval=1s", "tcp://backend:8080"],
            "tcp://",
        ),
    ] {
        let output = run(Command::new(CALLER).args(args));
        assert_eq!(output.code, Some(2), "{args:?}");
        assert!(output.stderr.contains(named), "{args:?}: {}", output.stderr);
    }
}
