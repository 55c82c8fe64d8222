//! `/metrics` of `echo-server`: requests, connections, connections after SIGTERM, lost lines and a full accept queue.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use test_support::http::{Connection, exchange, get, metric as value};
use test_support::netns::Netns;
use test_support::process::{Process, Signal, echo_server};
use test_support::{TIMEOUT, wait_until};

use crate::ECHO_SERVER;

fn command() -> Command {
    configured(Command::new(ECHO_SERVER))
}

fn configured(mut command: Command) -> Command {
    command
        .env("ECHO_TEXT", "hello")
        .env("ECHO_ADMIN_LISTEN", "127.0.0.1:0");
    command
}

fn start(command: &mut Command) -> (Process, SocketAddr, SocketAddr) {
    let (process, addr) = echo_server(command);
    let admin = process.wait_for_admin();
    (process, addr, admin)
}

#[test]
fn requests_are_counted_by_status_and_open_connections_while_they_are_open() {
    let (_process, addr, admin) = start(&mut command());
    assert_eq!(value(admin, "echo_server_open_connections"), Some(0.0));
    let mut connection = Connection::open(addr);
    for _ in 0..3 {
        connection.send("GET / HTTP/1.1\r\nHost: backend\r\n\r\n");
        assert_eq!(connection.reply().status(), 200);
    }
    // A request that is refused is counted as well.
    assert_eq!(exchange(addr, "GET / HTTP/1.1\r\n\r\n").status(), 400);
    wait_until("one connection left", TIMEOUT, || {
        value(admin, "echo_server_open_connections") == Some(1.0)
    });
    for (metric, expected) in [
        ("echo_server_requests_total{code=\"200\"}", 3.0),
        ("echo_server_requests_total{code=\"400\"}", 1.0),
        ("echo_server_request_duration_seconds_count", 4.0),
        ("echo_server_connections_total", 2.0),
        ("echo_server_connections_while_draining_total", 0.0),
        ("echo_server_access_log_dropped_total", 0.0),
    ] {
        assert_eq!(value(admin, metric), Some(expected), "{metric}");
    }
    drop(connection);
    wait_until("no connection left", TIMEOUT, || {
        value(admin, "echo_server_open_connections") == Some(0.0)
    });
    let build = format!(
        "echo_server_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(value(admin, &build), Some(1.0));
}

#[test]
fn connections_after_sigterm_are_counted_apart() {
    let (process, addr, admin) = start(command().arg("--drain-delay=30s"));
    get(addr, "/");
    process.signal(Signal::TERM);
    process.wait_for_stderr("lame duck");
    for _ in 0..2 {
        assert_eq!(get(addr, "/").status(), 200);
    }
    let late = value(admin, "echo_server_connections_while_draining_total");
    assert_eq!(late, Some(2.0));
    assert_eq!(value(admin, "echo_server_connections_total"), Some(3.0));
}

#[test]
fn lost_lines_of_the_access_log_are_counted() {
    let mut process = Process::spawn_unread(command().env("ECHO_LISTEN", "127.0.0.1:0"));
    let addr = process.wait_for_field("server is listening", "address");
    let addr = addr.parse().expect("an address");
    let admin = process.wait_for_admin();
    let dropped = || value(admin, "echo_server_access_log_dropped_total");
    let mut connection = Connection::open(addr);
    let long = "x".repeat(8000);
    let mut sent = 0_u32;
    wait_until("a dropped line", TIMEOUT, || {
        for _ in 0..50 {
            connection.send(format!("GET /{long} HTTP/1.1\r\nHost: backend\r\n\r\n"));
            assert_eq!(connection.reply().status(), 200);
        }
        sent += 50;
        dropped() > Some(0.0)
    });
    // Each line has either been written or counted as lost.
    process.read_stdout();
    let lines = || process.stdout().matches('\n').count() as f64;
    wait_until("the rest", TIMEOUT, || {
        Some(lines()) == dropped().map(|dropped| f64::from(sent) - dropped)
    });
}

#[test]
fn connections_that_found_the_accept_queue_full_are_counted() {
    let Some(namespace) = Netns::new("accept-queue") else {
        return;
    };
    // The kernel's limit on accept queues, which it reads when a socket begins to listen.
    namespace.sh("sysctl -qw net.core.somaxconn=4");
    let start_inside = || start(&mut configured(namespace.command(ECHO_SERVER)));
    let (process, addr, admin) = start_inside();
    let overflows = |admin| namespace.enter(|| value(admin, "echo_server_listen_overflows_total"));
    assert_eq!(overflows(admin), Some(0.0));

    process.signal(Signal::STOP);
    let connect = || TcpStream::connect_timeout(&addr, Duration::from_millis(300));
    let mut connections = Vec::new();
    while let Ok(connection) = namespace.enter(connect) {
        connections.push(connection);
        assert!(connections.len() < 100, "the queue has no limit");
    }
    process.signal(Signal::CONT);
    assert!(overflows(admin) > Some(0.0));

    // A request that asks for the count, and has an id, gets it.
    let header = |fields: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n{fields}\r\n");
        let response = namespace.enter(|| exchange(addr, request));
        response.header("x-listen-overflows").map(str::to_owned)
    };
    let count = overflows(admin).expect("it is there");
    let asked = header("X-Request-Id: 1\r\nX-Want-Listen-Overflows: 1\r\n");
    assert_eq!(asked, Some(count.to_string()));
    assert_eq!(header("X-Request-Id: 1\r\n"), None);
    assert_eq!(header("X-Want-Listen-Overflows: 1\r\n"), None);

    // A server counts from its own start.
    let (_process, _, admin) = start_inside();
    assert_eq!(overflows(admin), Some(0.0));
}

#[test]
fn a_metric_is_left_out_where_the_kernel_has_no_counter() {
    let Some(namespace) = Netns::new("no-proc") else {
        return;
    };
    let script = format!("mount -t tmpfs none /proc && exec {ECHO_SERVER}");
    let mut command = configured(namespace.command("sh"));
    let (_process, addr, admin) = start(command.args(["-euc", &script]));
    namespace.enter(|| {
        assert_eq!(get(addr, "/").status(), 200);
        assert_eq!(value(admin, "echo_server_listen_overflows_total"), None);
        assert_eq!(value(admin, "echo_server_connections_total"), Some(1.0));
    });
}
