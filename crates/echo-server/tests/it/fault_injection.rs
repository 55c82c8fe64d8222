//! Fault injection: `echo-server` as a faulty backend.

use std::net::SocketAddr;
use std::process::Command;

use test_support::http::{Connection, get, metric};
use test_support::process::{Process, Signal, echo_server};
use test_support::{TIMEOUT, wait_until};

use crate::ECHO_SERVER;

fn start(args: &[&str]) -> (Process, SocketAddr) {
    let mut command = Command::new(ECHO_SERVER);
    command.args(["-text=healthy", "--drain-delay=0s", "-admin-listen=off"]);
    echo_server(command.args(args))
}

fn statuses(addr: SocketAddr) -> Vec<u16> {
    (0..100).map(|_| get(addr, "/").status()).collect()
}

#[test]
fn no_response_is_faulty_by_default() {
    let (_server, addr) = start(&["--fault-status=503", "--fault-delay=1h"]);
    assert!(statuses(addr).iter().all(|status| *status == 200));
}

#[test]
fn the_given_percentage_of_responses_is_faulty_and_health_never_is() {
    let (_server, addr) = start(&["--fault-percent=30", "--fault-status=503"]);
    assert!((0..100).all(|_| get(addr, "/health").status() == 200));
    let statuses = statuses(addr);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 30);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 70);
    // They are spread, and not all in a row.
    assert!(
        !statuses
            .windows(5)
            .any(|run| run.iter().all(|status| *status == 503))
    );
}

#[test]
fn a_hundred_percent_makes_every_response_faulty() {
    let (_server, addr) = start(&["--fault-percent=100"]);
    let reply = get(addr, "/");
    assert_eq!(
        (reply.status(), reply.body.as_str()),
        (500, "injected fault\n")
    );
    assert_eq!(reply.header("x-app-name"), Some("echo-server"));
}

#[test]
fn a_delayed_response_is_sent_before_the_server_exits() {
    let (server, addr) = start(&[
        "--fault-percent=100",
        "--fault-status=200",
        "--fault-delay=700ms",
    ]);
    let late = std::thread::spawn(move || get(addr, "/").status());
    // The response on a later connection shows that the first one has been accepted.
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

#[test]
fn health_is_answered_while_delayed_responses_hold_every_connection() {
    let (_server, addr) = start(&[
        "--fault-percent=100",
        "--fault-delay=1h",
        "--max-connections=4",
    ]);
    let mut delayed: Vec<Connection> = (0..8).map(|_| Connection::open(addr)).collect();
    for connection in &mut delayed {
        connection.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    }
    for _ in 0..4 {
        assert_eq!(get(addr, "/health").status(), 200);
    }
}

#[test]
fn large_requests_with_delayed_responses_are_limited_as_incomplete_ones_are() {
    let (server, addr) = start(&[
        "--fault-percent=100",
        "--fault-delay=1h",
        "--max-connections=64",
        "-admin-listen=127.0.0.1:0",
    ]);
    let admin = server.wait_for_admin();
    let large = "x".repeat(20_000);
    // Sixteen of them may be in the middle of a request.
    let mut delayed: Vec<Connection> = (0..20).map(|_| Connection::open(addr)).collect();
    for connection in &mut delayed {
        connection.send(format!(
            "GET / HTTP/1.1\r\nHost: b\r\nX-Large: {large}\r\n\r\n"
        ));
    }
    wait_until("evictions", TIMEOUT, || {
        metric(admin, "echo_server_connections_evicted_total").is_some_and(|evicted| evicted >= 4.0)
    });
}
