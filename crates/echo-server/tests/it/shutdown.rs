//! How echo-server leaves.

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
    let admin = process.wait_for_field("admin is listening", "address");
    let admin = admin.parse().expect("an address");
    Server {
        process,
        addr,
        admin,
    }
}

fn says_close(reply: &Reply) -> bool {
    reply.header("connection") == Some("close")
}

#[test]
fn probes_are_green_while_it_serves() {
    let server = start(&[]);
    assert_eq!(get(server.admin, "/livez").status(), 200);
    assert_eq!(get(server.admin, "/readyz").status(), 200);
    assert_eq!(get(server.admin, "/nosuch").status(), 404);
    assert!(!says_close(&get(server.addr, "/")));
}

#[test]
fn either_signal_ends_it_with_exit_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = start(&["--drain-delay=0s"]);
        server.process.signal(signal);
        assert_eq!(server.process.finish().code, Some(0));
    }
}

#[test]
fn as_a_lame_duck_it_answers_and_asks_clients_to_leave() {
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
fn a_request_under_way_is_finished_and_idle_connections_are_not_waited_for() {
    let server = start(&["--drain-delay=0s", "--drain-timeout=60s"]);
    let mut idle = Connection::open(server.addr);
    idle.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    idle.reply();
    let mut busy = Connection::open(server.addr);
    busy.send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\na");
    let mut silent = Connection::open(server.addr);
    // Answered by the same thread after the others, so by now those have been read.
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
fn a_request_that_outlives_the_drain_timeout_is_cut() {
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
fn a_second_signal_ends_it_at_once_and_not_cleanly() {
    let server = start(&["--drain-delay=1h"]);
    server.process.signal(Signal::TERM);
    server.process.wait_for_stderr("lame duck");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.finish().code, Some(128 + 15));
}

#[tokio::test]
async fn http_2_clients_are_told_to_leave_and_lose_nothing() {
    let server = start(&["--drain-delay=3s"]);
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .no_proxy()
        .retry(reqwest::retry::never())
        .build()
        .expect("a client");
    let url = format!("http://{}/", server.addr);
    let call = || async { client.get(&url).send().await.expect("an answer").status() };
    assert_eq!(call().await, 200);
    server.process.signal(Signal::TERM);
    server.process.wait_for_stderr("lame duck");
    for _ in 0..50 {
        assert_eq!(call().await, 200);
    }
    assert_eq!(server.process.finish().code, Some(0));
}

#[test]
fn clients_that_nobody_has_accepted_yet_are_served_before_the_port_is_closed() {
    let server = start(&["--drain-delay=0s"]);
    // While the process stands still the kernel takes connections for it.
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
fn a_signal_in_the_first_moments_of_its_life_ends_it_too() {
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
        // Before there is a handler, the signal itself ends it.
        assert!(matches!(process.finish().code, None | Some(0)));
    }
}
