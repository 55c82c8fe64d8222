//! `--wait`: a caller that starts before its backend prints nothing until the backend responds.

use test_support::bed::Bed;
use test_support::http::get;
use test_support::pki::free_addr;
use test_support::process::{Process, Signal, caller, run};

use crate::CALLER;

#[test]
fn with_wait_the_first_block_is_a_success_when_the_backend_starts_later() {
    for _ in 0..20 {
        let bed = Bed::start(&[]);
        let addr = free_addr();
        let mut command = bed.caller(CALLER);
        command.args(["--wait=1m", "--interval=1h", "--log-level=info"]);
        let caller = Process::spawn(command.arg(format!("http://backend:{}/", addr.port())));
        // At least one call has failed by now.
        caller.wait_for_stderr("waiting");
        bed.pod("backend-1", addr);
        caller.wait_for_stdout("Response received successfully!");
        caller.signal(Signal::TERM);
        let output = caller.finish();
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(lines[1], "Hello from Backend Service!", "{}", output.stdout);
        assert!(
            lines[4].starts_with("1 calls, 1 ok, 0 failed"),
            "{}",
            output.stdout
        );
    }
}

#[test]
fn a_missing_backend_is_reported_after_the_wait() {
    let bed = Bed::start(&["backend-1"]);
    let args = ["--wait=600ms", "--count=1", &bed.url("nosuch")];
    let output = run(bed.caller(CALLER).args(args));
    assert_eq!(output.code, Some(1));
    assert_eq!(output.stderr, "");
    let lines: Vec<&str> = output.stdout.lines().collect();
    let verdict = "Call failed: the name does not exist; likely ";
    assert!(lines[2].starts_with(verdict), "{}", output.stdout);
    assert!(
        lines[4].starts_with("1 calls, 0 ok, 1 failed"),
        "{}",
        output.stdout
    );
}

#[test]
fn once_waits_until_the_expectation_is_met() {
    let bed = Bed::start(&["backend-1"]);
    let closed = free_addr();
    let url = format!("http://{closed}/");
    let mut command = bed.caller(CALLER);
    command.env("CALLER_LOG_LEVEL", "info");
    let waiting = Process::spawn(command.args(["once", "--wait=1m", &url]));
    waiting.wait_for_stderr("waiting");
    bed.pod("backend-1", closed);
    let output = waiting.finish();
    assert_eq!(output.code, Some(0), "{}", output.stdout);
    assert_eq!(output.stdout.lines().count(), 3, "{}", output.stdout);

    let args = [
        "once",
        "--wait=1m",
        "--expect=dns_nxdomain",
        &bed.url("nosuch"),
    ];
    let output = run(bed.caller(CALLER).args(args));
    assert_eq!(output.code, Some(0), "{}", output.stdout);
}

#[test]
fn a_waiting_caller_is_ready_and_ends_on_a_signal() {
    let bed = Bed::start(&["backend-1"]);
    let mut command = bed.caller(CALLER);
    command
        .env("CALLER_ADMIN_LISTEN", "127.0.0.1:0")
        .args(["--wait=1h", &bed.url("nosuch")]);
    let (caller, admin) = caller(&mut command);
    caller.wait_for_stderr("waiting");
    assert_eq!(get(admin, "/readyz").status(), 200);
    let status = get(admin, "/status.json").body;
    assert!(status.contains("\"ok\":null"), "{status}");
    caller.signal(Signal::TERM);
    let output = caller.finish();
    assert_eq!(output.code, Some(0));
    assert!(output.stdout.starts_with("--- "), "{}", output.stdout);
}
