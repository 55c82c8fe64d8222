//! Probes are served whatever else is open or requested at the admin port, and so are clients at the main port.

use std::net::SocketAddr;
use std::process::Command;

use test_support::http::{Connection, exchange, get};
use test_support::process::{Process, echo_server};

use crate::{ECHO_SERVER, allow_files};

/// Number of connections: four times the limit of an admin port.
const MANY: usize = 4 * 64;

fn start(args: &[&str]) -> (Process, SocketAddr, SocketAddr) {
    let mut command = Command::new(ECHO_SERVER);
    command
        .args(["-text=x", "-admin-listen=127.0.0.1:0", "-access-log=off"])
        .args(args);
    let (process, addr) = echo_server(&mut command);
    let admin = process.wait_for_admin();
    (process, addr, admin)
}

/// Opens many connections that send `first` and read nothing, and requests probes meanwhile.
fn assert_probes_are_served(first: &[u8]) {
    // Beside this test, others of this binary hold their own.
    if !allow_files(8 * MANY as u64) {
        return;
    }
    let (_server, addr, admin) = start(&["--header-timeout=1h", "--idle-timeout=1h"]);
    let mut held = Vec::new();
    for n in 0..MANY {
        let mut connection = Connection::open(admin);
        connection.send(first);
        held.push(connection);
        if n % 16 == 0 {
            assert_eq!(get(admin, "/livez").status(), 200, "after {n}");
        }
    }
    for probe in ["/livez", "/readyz"] {
        assert_eq!(get(admin, probe).status(), 200);
    }
    assert_eq!(get(addr, "/").status(), 200);
}

#[test]
fn probes_are_served_beside_connections_that_send_nothing() {
    assert_probes_are_served(b"");
}

#[test]
fn probes_are_served_beside_incomplete_heads() {
    assert_probes_are_served(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Half: ");
}

#[test]
fn probes_are_served_beside_incomplete_request_lines() {
    assert_probes_are_served(b"GET /liv");
}

#[test]
fn probes_are_served_beside_incomplete_bodies() {
    assert_probes_are_served(
        b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
}

#[test]
fn probes_are_served_beside_idle_connections() {
    assert_probes_are_served(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
}

#[test]
fn probes_are_served_beside_responses_that_are_not_read() {
    assert_probes_are_served(&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200));
}

#[test]
fn the_admin_port_does_not_speak_http_2() {
    let (_server, addr, admin) = start(&[]);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let mut connection = Connection::open(admin);
    connection.send(preface);
    assert!(connection.is_closed());
    // The main port speaks it, and has sent a SETTINGS frame.
    let mut connection = Connection::open(addr);
    connection.send(preface);
    connection.end();
    assert!(!connection.is_closed());
    assert_eq!(get(admin, "/livez").status(), 200);
}

#[test]
fn metrics_are_new_after_a_short_time() {
    let (_server, addr, admin) = start(&[]);
    let requests = |n: usize| {
        let page = get(admin, "/metrics").body;
        page.contains(&format!("echo_server_requests_total{{code=\"200\"}} {n}\n"))
    };
    for n in 1..=5 {
        get(addr, "/");
        // The metrics are cached, but not for long.
        test_support::wait_until("new metrics", test_support::TIMEOUT, || requests(n));
    }
    let page = || {
        let request =
            "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n";
        exchange(admin, request).body
    };
    let page = page();
    assert!(page.ends_with("# EOF\n"), "{page}");
}
