//! A sick replica, on demand.

use std::net::SocketAddr;
use std::process::Command;

use test_support::http::get;
use test_support::process::{Process, Signal, echo_server};

use crate::ECHO_SERVER;

fn start(args: &[&str]) -> (Process, SocketAddr) {
    let mut command = Command::new(ECHO_SERVER);
    command.args(["-text=well", "--drain-delay=0s", "-admin-listen=off"]);
    echo_server(command.args(args))
}

fn statuses(addr: SocketAddr) -> Vec<u16> {
    (0..100).map(|_| get(addr, "/").status()).collect()
}

#[test]
fn nothing_is_sick_by_default() {
    let (_server, addr) = start(&["--fault-status=503", "--fault-delay=1h"]);
    assert!(statuses(addr).iter().all(|status| *status == 200));
}

#[test]
fn a_share_of_the_answers_is_sick_but_never_health() {
    let (_server, addr) = start(&["--fault-percent=30", "--fault-status=503"]);
    assert!((0..100).all(|_| get(addr, "/health").status() == 200));
    let statuses = statuses(addr);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 30);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 70);
    // Spread, and not in one run.
    assert!(
        !statuses
            .windows(5)
            .any(|run| run.iter().all(|status| *status == 503))
    );
}

#[test]
fn all_may_be_sick() {
    let (_server, addr) = start(&["--fault-percent=100"]);
    let reply = get(addr, "/");
    assert_eq!(
        (reply.status(), reply.body.as_str()),
        (500, "injected fault\n")
    );
    assert_eq!(reply.header("x-app-name"), Some("echo-server"));
}

#[test]
fn a_late_answer_is_waited_for_when_the_server_leaves() {
    let (server, addr) = start(&[
        "--fault-percent=100",
        "--fault-status=200",
        "--fault-delay=700ms",
    ]);
    let late = std::thread::spawn(move || get(addr, "/").status());
    // The answer of /health, from a later connection, shows that the first has been taken.
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(get(addr, "/health").status(), 200);
    server.signal(Signal::TERM);
    assert_eq!(late.join().expect("no panic"), 200);
    let output = server.finish();
    assert_eq!(output.code, Some(0));
    assert!(
        output.stdout.contains("\"GET / HTTP/1.1\" 200 15 "),
        "{}",
        output.stdout
    );
}
