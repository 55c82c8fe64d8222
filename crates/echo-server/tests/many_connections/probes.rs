//! Probes are served whatever else is open or requested at the admin port, and so are clients at the main port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::catch_unwind;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use test_support::TIMEOUT;

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

/// Sends requests on some connections all the time, each as soon as the response to the one before has come, until
/// `stop` is set. Connects anew where a response asks for it.
fn flood(addr: SocketAddr, connections: usize, stop: &AtomicBool) {
    let request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let open = || {
        let stream = TcpStream::connect(addr).expect("it listens");
        stream
            .set_read_timeout(Some(TIMEOUT))
            .expect("it is not zero");
        stream
    };
    let mut streams: Vec<TcpStream> = (0..connections).map(|_| open()).collect();
    let mut response = [0; 1024];
    while !stop.load(Relaxed) {
        for stream in &mut streams {
            let _ = stream.write_all(request);
        }
        for stream in &mut streams {
            let n = stream.read(&mut response).unwrap_or(0);
            // Where this process is slow, its connections are idle long enough to be closed without a response.
            if n == 0 || response[..n].windows(5).any(|word| word == b"close") {
                *stream = open();
            }
        }
    }
}

#[test]
fn probes_are_served_beside_connections_that_are_always_busy() {
    let (_server, _, admin) = start(&[]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // More than the admin port has room for, so that some always wait for others.
        for _ in 0..4 {
            scope.spawn(|| flood(admin, 20, &stop));
        }
        let probes = (0..20).map(|_| catch_unwind(|| get(admin, "/livez").status()));
        let statuses: Vec<_> = probes.collect();
        stop.store(true, Relaxed);
        assert!(
            statuses.iter().all(|status| matches!(status, Ok(200))),
            "{statuses:?}"
        );
    });
}

/// Sends requests on a connection all the time while another one waits, until it ends. Returns whether it has ended
/// with a response that says so.
fn ends_with_a_response(addr: SocketAddr) -> bool {
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut busy = TcpStream::connect(addr).expect("it listens");
    busy.set_read_timeout(Some(TIMEOUT)).expect("not zero");
    let mut response = [0; 1024];
    let mut exchange = || {
        let _ = busy.write_all(request.as_bytes());
        let n = busy.read(&mut response).unwrap_or(0);
        String::from_utf8_lossy(&response[..n]).into_owned()
    };
    exchange();
    let mut waiting = Connection::open(addr);
    waiting.send(request);
    let end = Instant::now() + TIMEOUT;
    let last = loop {
        let response = exchange();
        if response.is_empty() || response.contains("connection: close") {
            break response;
        }
        assert!(Instant::now() < end, "it goes on");
    };
    assert_eq!(waiting.reply().status(), 200);
    !last.is_empty()
}

#[test]
fn a_busy_connection_ends_with_a_response_where_another_one_waits() {
    let (_server, addr, _) = start(&["--max-connections=1"]);
    // Where this process is slow, the connection is idle for long enough to be closed at once: so once is enough.
    assert!((0..100).any(|_| ends_with_a_response(addr)));
}
