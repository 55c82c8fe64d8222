//! The graceful shutdown of `echo-server`.

use std::net::SocketAddr;
use std::process::Command;

use test_support::http::{Connection, Reply, get};
use test_support::process::{Process, Signal, echo_server};

use crate::ECHO_SERVER;

struct Server {
    process: Process,
    addr: SocketAddr,
    admin: SocketAddr,
}

fn start(args: &[&str]) -> Server {
    let mut command = Command::new(ECHO_SERVER);
    command
        .args(["-text=x", "-admin-listen=127.0.0.1:0"])
        .args(args);
    let (process, addr) = echo_server(&mut command);
    let admin = process.wait_for_admin();
    Server {
        process,
        addr,
        admin,
    }
}

/// Whether a response asks the client to close the connection.
fn says_close(reply: &Reply) -> bool {
    reply.header("connection") == Some("close")
}

#[test]
fn probes_succeed_while_the_server_runs() {
    let server = start(&[]);
    assert_eq!(get(server.admin, "/livez").status(), 200);
    assert_eq!(get(server.admin, "/readyz").status(), 200);
    assert_eq!(get(server.admin, "/nosuch").status(), 404);
    assert!(!says_close(&get(server.addr, "/")));
}

#[test]
fn sigterm_and_sigint_end_the_server_with_exit_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = start(&["--drain-delay=0s"]);
        server.process.signal(signal);
        assert_eq!(server.process.finish().code, Some(0));
    }
}

#[test]
fn during_the_drain_delay_requests_are_served_and_connections_closed() {
    let server = start(&["--drain-delay=3s"]);
    let mut kept = Connection::open(server.addr);
    kept.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    assert!(!says_close(&kept.reply()));
    server.process.signal(Signal::TERM);
    server.process.wait_for_stderr("lame duck");

    assert_eq!(get(server.admin, "/readyz").status(), 503);
    assert_eq!(get(server.admin, "/livez").status(), 200);
    let new = get(server.addr, "/");
    assert_eq!((new.status(), says_close(&new)), (200, true));
    kept.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    let reply = kept.reply();
    assert_eq!((reply.status(), says_close(&reply)), (200, true));
    assert!(kept.is_closed());
    assert_eq!(server.process.finish().code, Some(0));
}

#[test]
fn a_request_in_progress_is_finished_and_idle_connections_are_closed() {
    let server = start(&["--drain-delay=0s", "--drain-timeout=60s"]);
    let mut idle = Connection::open(server.addr);
    idle.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    idle.reply();
    let mut busy = Connection::open(server.addr);
    busy.send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\na");
    let mut silent = Connection::open(server.addr);
    // The server has accepted this connection after the others, and so has read those by now.
    get(server.addr, "/");
    server.process.signal(Signal::TERM);
    assert!(idle.is_closed());
    assert!(silent.is_closed());
    busy.send("b");
    let reply = busy.reply();
    assert_eq!((reply.status(), says_close(&reply)), (200, true));
    assert_eq!(server.process.finish().code, Some(0));
}

#[test]
fn a_request_that_takes_longer_than_the_drain_timeout_is_cut_off() {
    let server = start(&["--drain-delay=0s", "--drain-timeout=100ms"]);
    let mut busy = Connection::open(server.addr);
    busy.send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\na");
    get(server.addr, "/");
    server.process.signal(Signal::TERM);
    server
        .process
        .wait_for_stderr("drain timeout: cutting connections connections=1");
    assert!(busy.is_closed());
    assert_eq!(server.process.finish().code, Some(0));
}

#[test]
fn a_second_signal_ends_the_server_at_once_with_exit_code_143() {
    let server = start(&["--drain-delay=1h"]);
    server.process.signal(Signal::TERM);
    server.process.wait_for_stderr("lame duck");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.finish().code, Some(128 + 15));
}

#[tokio::test]
async fn http_2_clients_lose_no_request_during_the_drain() {
    let server = start(&["--drain-delay=3s"]);
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .no_proxy()
        .retry(reqwest::retry::never())
        .build()
        .expect("a client");
    let url = format!("http://{}/", server.addr);
    let call = || async { client.get(&url).send().await.expect("a response").status() };
    assert_eq!(call().await, 200);
    server.process.signal(Signal::TERM);
    server.process.wait_for_stderr("lame duck");
    for _ in 0..50 {
        assert_eq!(call().await, 200);
    }
    assert_eq!(server.process.finish().code, Some(0));
}

#[test]
fn connections_in_the_accept_queue_are_served_before_the_port_is_closed() {
    let server = start(&["--drain-delay=0s"]);
    // While the process is stopped, the kernel puts connections into the accept queue.
    server.process.signal(Signal::STOP);
    let mut waiting: Vec<Connection> = (0..100).map(|_| Connection::open(server.addr)).collect();
    for connection in &mut waiting {
        connection.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    }
    server.process.signal(Signal::TERM);
    server.process.signal(Signal::CONT);
    for connection in &mut waiting {
        assert_eq!(connection.reply().status(), 200);
    }
    assert_eq!(server.process.finish().code, Some(0));
}

#[test]
fn a_signal_right_after_the_start_ends_the_server() {
    for delay in 0..40 {
        let mut command = Command::new(ECHO_SERVER);
        command.args([
            "-text=x",
            "-listen=127.0.0.1:0",
            "-admin-listen=off",
            "--drain-delay=0s",
        ]);
        let process = Process::spawn(&mut command);
        std::thread::sleep(std::time::Duration::from_micros(delay * 100));
        process.signal(Signal::TERM);
        // Before the handler is installed, the signal itself ends the process.
        assert!(matches!(process.finish().code, None | Some(0)));
    }
}

#[test]
fn connections_that_wait_to_be_accepted_are_served_although_idle_ones_hold_the_limit() {
    let server = start(&["--drain-delay=0s", "--max-connections=4"]);
    let request = "GET / HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut idle: Vec<Connection> = (0..4).map(|_| Connection::open(server.addr)).collect();
    for connection in &mut idle {
        connection.send(request);
        assert_eq!(connection.reply().status(), 200);
    }
    // While it is stopped, connections wait in the kernel's queue, and then the signal comes first.
    server.process.signal(Signal::STOP);
    let mut waiting: Vec<Connection> = (0..12).map(|_| Connection::open(server.addr)).collect();
    for connection in &mut waiting {
        connection.send(request);
    }
    server.process.signal(Signal::TERM);
    server.process.signal(Signal::CONT);
    for connection in &mut waiting {
        assert_eq!(connection.reply().status(), 200);
    }
    assert_eq!(server.process.finish().code, Some(0));
}
