//! Requirements of RFC 9112 on a server, and refusals that reach their client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;

use test_support::TIMEOUT;
use test_support::http::{Connection, exchange};
use test_support::process::{Process, Signal, echo_server};

use crate::ECHO_SERVER;

fn start(args: &[&str]) -> (Process, SocketAddr) {
    let mut command = Command::new(ECHO_SERVER);
    command.args(["-text=x", "-admin-listen=off", "--drain-delay=0s"]);
    echo_server(command.args(args))
}

/// The request gets 400, and the connection is closed.
fn assert_refused(addr: SocketAddr, request: &str) {
    let mut connection = Connection::open(addr);
    connection.send(request);
    assert_eq!(connection.reply().status(), 400, "{request:?}");
    assert!(connection.is_closed(), "{request:?}");
}

#[test]
fn an_invalid_host_gets_400_in_every_version_and_is_not_logged() {
    let (server, addr) = start(&[]);
    for host in [
        "x 6.6.6.6:1 -",
        "a/b",
        "user@b",
        "b:port",
        "b:1:2",
        "[::1",
        "a%zz",
        "a\"b",
        "b, c",
        "<b>",
        "[b]",
    ] {
        for version in ["1.0", "1.1", "1.2"] {
            assert_refused(
                addr,
                &format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n"),
            );
        }
        assert_refused(
            addr,
            &format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\nx"),
        );
    }
    for version in ["1.0", "1.1"] {
        assert_refused(
            addr,
            &format!("GET / HTTP/{version}\r\nHost: a\r\nHost: a\r\n\r\n"),
        );
    }
    assert_refused(addr, "GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n");
    server.signal(Signal::TERM);
    assert_eq!(server.finish().stdout, "");
}

#[test]
fn a_valid_host_is_served() {
    let (_server, addr) = start(&[]);
    for host in [
        "backend:8080",
        "",
        "[::1]:8080",
        "a_b.demo.svc",
        "10.0.0.1",
        "b:",
        "%62",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(exchange(addr, request).status(), 200, "{host:?}");
    }
    assert_eq!(exchange(addr, "GET / HTTP/1.0\r\n\r\n").status(), 200);
}

#[test]
fn transfer_codings_other_than_one_chunked_get_400() {
    let (_server, addr) = start(&[]);
    let request =
        |codings: &str| format!("POST / HTTP/1.1\r\nHost: b\r\n{codings}\r\n1\r\nx\r\n0\r\n\r\n");
    for codings in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: x\r\n",
    ] {
        assert_refused(addr, &request(codings));
    }
    for codings in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: Chunked \r\n",
    ] {
        assert_eq!(
            exchange(addr, request(codings)).status(),
            200,
            "{codings:?}"
        );
    }
}

#[test]
fn each_form_of_a_target_is_accepted_for_its_methods_only() {
    let (_server, addr) = start(&[]);
    let request = |line: &str| format!("{line} HTTP/1.1\r\nHost: b\r\n\r\n");
    for line in [
        "GET *",
        "GET b",
        "GET b:80",
        "GET http:///x",
        "GET http://u@b/",
        "CONNECT /",
    ] {
        assert_refused(addr, &request(line));
    }
    for (line, status) in [
        ("OPTIONS *", 200),
        ("GET http://b/x", 200),
        ("GET HTTP://b:80", 200),
        ("CONNECT b:80", 405),
    ] {
        assert_eq!(exchange(addr, request(line)).status(), status, "{line}");
    }
}

#[test]
fn later_minor_versions_of_http_1_are_served_as_http_1_1() {
    let (_server, addr) = start(&[]);
    for version in ["1.2", "1.9"] {
        let reply = exchange(addr, format!("GET /a HTTP/{version}\r\nHost: b\r\n\r\n"));
        assert_eq!(reply.status_line, "HTTP/1.1 200 OK");
    }
    for version in ["2.0", "0.9", "3.0", "1.", "1.x", "1.22"] {
        assert_refused(addr, &format!("GET / HTTP/{version}\r\nHost: b\r\n\r\n"));
    }
}

/// Sends a complete request before it reads, as many clients do, and returns the beginning of the response.
fn send_all_then_read(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream
        .set_read_timeout(Some(TIMEOUT))
        .expect("it is not zero");
    // The server may close the connection meanwhile; what it has sent before can still be read.
    let _ = stream.write_all(request);
    let mut answer = [0; 12];
    let read = stream.read_exact(&mut answer);
    read.unwrap_or_else(|error| panic!("no response: {error}"));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_refusal_reaches_a_client_that_sends_everything_before_it_reads() {
    let (_server, addr) = start(&["-access-log=off"]);
    let body = "x".repeat(3_000_000);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for (request, answer) in [
        (
            format!("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 3000000\r\n\r\n{body}"),
            "HTTP/1.1 413",
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
                chunk.repeat(40)
            ),
            "HTTP/1.1 413",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: b\r\nX: {body}\r\n\r\n"),
            "HTTP/1.1 431",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost : b\r\n\r\n{body}"),
            "HTTP/1.1 400",
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a b\r\nContent-Length: 3000000\r\n\r\n{body}"),
            "HTTP/1.1 400",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n{}",
                "GET / HTTP/1.1\r\nHost: b\r\n\r\n".repeat(50_000)
            ),
            "HTTP/1.1 200",
        ),
    ] {
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| assert_eq!(send_all_then_read(addr, request.as_bytes()), answer));
            }
        });
    }
}

#[test]
fn a_slow_body_gets_408_although_more_of_it_arrives() {
    let (_server, addr) = start(&["--header-timeout=300ms"]);
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream
        .set_read_timeout(Some(TIMEOUT))
        .expect("it is not zero");
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 100000\r\n\r\nx")
        .expect("it reads");
    let mut answer = [0; 12];
    let mut reader = stream.try_clone().expect("it is open");
    let sending = thread::spawn(move || {
        while stream.write_all(b"x").is_ok() {
            thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    reader.read_exact(&mut answer).expect("a response");
    assert_eq!(&answer, b"HTTP/1.1 408");
    drop(reader);
    sending.join().expect("it ends");
}
