//! The log of `caller`: three lines for each call, and the success line for successful calls only.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use test_support::bed::Bed;
use test_support::pki::free_addr;
use test_support::process::run;

use crate::{CALLER, server};

/// The three lines of a single call, without the summary.
fn block(command: &mut Command) -> [String; 3] {
    let output = run(command.args(["--count=1"]));
    assert_eq!(output.stderr, "");
    let mut lines = output.stdout.lines().map(str::to_owned);
    let block = [(); 3].map(|()| lines.next().expect("three lines"));
    let next = lines.next().unwrap_or_default();
    assert!(next.starts_with("--- "), "a fourth line: {next:?}");
    block
}

/// The current time in seconds, as `date(1)` prints it in the C locale.
fn date() -> String {
    let date = run(Command::new("date")
        .arg("-u")
        .env("LC_ALL", "C")
        .arg("+%a %b %e %H:%M:%S UTC %Y"));
    date.stdout.trim_end().to_owned()
}

fn call(addr: SocketAddr) -> [String; 3] {
    let mut command = Command::new(CALLER);
    block(command.args(["--admin-listen=off", &format!("http://{addr}/")]))
}

fn assert_failed(block: &[String; 3], evidence: &str, verdict: &str) {
    assert!(block[0].starts_with("=== Frontend calling Backend at "));
    assert!(block[1].contains(evidence), "no {evidence:?} in {block:#?}");
    assert_eq!(block[2], verdict);
    assert!(!block.concat().contains("success"), "{block:#?}");
}

#[test]
fn a_successful_call_prints_exactly_three_lines() {
    let bed = Bed::start(&["backend-1", "backend-2"]);
    loop {
        let before = date();
        let block = block(&mut bed.caller(CALLER));
        if before != date() {
            // The second has changed meanwhile, so the line may have either of the two.
            continue;
        }
        assert_eq!(
            block,
            [
                format!("=== Frontend calling Backend at {before} ==="),
                "Hello from Backend Service!".to_owned(),
                "Response received successfully!".to_owned(),
            ]
        );
        return;
    }
}

#[test]
fn the_wide_format_has_a_fourth_line_with_the_pod() {
    let bed = Bed::start(&["backend-1"]);
    let output = run(bed.caller(CALLER).args(["--count=1", "--format=wide"]));
    let line = output.stdout.lines().nth(3).expect("a fourth line");
    let start = format!("pod=backend-1 address={} dns=", bed.service);
    assert!(line.starts_with(&start), "{line:?}");
    for field in [" connect=", " first_byte=", " total=", " id="] {
        assert!(line.contains(field), "{line:?}");
    }
}

#[test]
fn a_name_that_does_not_exist_is_reported() {
    let bed = Bed::start(&["backend-1"]);
    bed.records
        .remove("backend.pod-to-pod-communication.svc.cluster.local");
    assert_failed(
        &block(&mut bed.caller(CALLER)),
        "backend: NXDOMAIN for backend.pod-to-pod-communication.svc.cluster.local., \
         backend.svc.cluster.local., backend.cluster.local., backend. from 127.0.0.1:",
        "Call failed: the name does not exist; likely no such Service in that namespace",
    );
}

#[test]
fn a_name_without_an_address_is_reported() {
    let bed = Bed::start(&["backend-1"]);
    let name = "backend.pod-to-pod-communication.svc.cluster.local";
    bed.records.set(name, []);
    assert_failed(
        &block(&mut bed.caller(CALLER)),
        &format!("backend: NODATA for {name}. from 127.0.0.1:"),
        "Call failed: the name exists without an address; likely a headless Service with no \
         ready pod, or the wrong IP family",
    );
}

#[test]
fn a_name_without_an_address_of_the_family_is_reported_as_nodata() {
    let bed = Bed::start(&["backend-1"]);
    let block = block(bed.caller(CALLER).arg("--ip-family=6"));
    assert!(block[1].starts_with("backend: NODATA for "), "{block:#?}");
}

#[test]
fn a_name_server_that_does_not_listen_is_reported() {
    let bed = Bed::start(&["backend-1"]);
    let closed = free_addr().to_string();
    assert_failed(
        &block(bed.caller(CALLER).env("CALLER_NAMESERVER", &closed)),
        &format!(
            "backend: unreachable (Connection refused (os error 111)) for \
                  backend.pod-to-pod-communication.svc.cluster.local. from {closed}"
        ),
        "Call failed: DNS cannot be reached; likely nothing listens at the nameserver's address, or a policy rejects: cluster DNS has no ready pod, or egress to port 53 is forbidden",
    );
}

#[test]
fn a_name_server_that_does_not_respond_is_reported() {
    let bed = Bed::start(&["backend-1"]);
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = silent.local_addr().expect("it is bound").to_string();
    let mut command = bed.caller(CALLER);
    command
        .env("CALLER_NAMESERVER", &addr)
        .arg("--dns-timeout=100ms");
    assert_failed(
        &block(&mut command),
        &format!(
            "backend: no answer for backend.pod-to-pod-communication.svc.cluster.local., backend. from {addr}"
        ),
        "Call failed: DNS did not answer in time; likely cluster DNS is down, or egress to port 53 is blocked",
    );
}

#[test]
fn a_missing_resolver_configuration_is_reported() {
    let bed = Bed::start(&["backend-1"]);
    let mut command = bed.caller(CALLER);
    command.env_remove("CALLER_NAMESERVER");
    let verdict =
        "Call failed: DNS is not configured; likely no usable resolver configuration in this pod";
    assert_failed(&block(&mut command), "no nameserver in ", verdict);
    command.env("CALLER_RESOLV_CONF", "/nonexistent/resolv.conf");
    assert_failed(
        &block(&mut command),
        "cannot read /nonexistent/resolv.conf: No such file",
        verdict,
    );
}

#[test]
fn a_closed_port_is_reported() {
    let closed = free_addr();
    assert_failed(
        &call(closed),
        &format!("{closed}: connecting: Connection refused (os error 111) after "),
        "Call failed: the connection was refused; likely nothing in this pod listens at that port",
    );
}

#[test]
fn missing_incomplete_and_invalid_responses_are_reported() {
    let died = "likely the backend died or was killed mid-answer";
    assert_failed(
        &call(server("")),
        "closed before the first byte of an answer",
        &format!(
            "Call failed: the connection was closed before there was an answer; {died}, or what listens there speaks \
             another protocol or refuses this client"
        ),
    );
    assert_failed(
        &call(server("HTTP/1.1 200 OK\r\nX-Half")),
        "closed after 23 bytes of a head, which begins \"HTTP/1.1 200 OK\\r\\nX-Half\"",
        &format!("Call failed: the answer was cut short; {died}"),
    );
    assert_failed(
        &call(server("HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\nHello")),
        "after 5 bytes of body",
        &format!("Call failed: the answer was cut short; {died}"),
    );
    assert_failed(
        &call(server("220 mail.example ESMTP\r\n")),
        "127.0.0.1:",
        "Call failed: the answer was not HTTP; likely what answered does not speak HTTP: the wrong \
         port, or one that wants TLS",
    );
}

#[test]
fn an_error_status_is_reported() {
    let addr = server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nbusy\n");
    assert_failed(
        &call(addr),
        "HTTP 503 Service Unavailable after ",
        "Call failed: the backend answered, with an error; likely a fault of the backend's own; \
         the network is fine",
    );
    assert!(call(addr)[1].ends_with(": busy"));
    let redirect =
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    assert!(call(server(redirect))[1].contains("HTTP 302 Found"));
}

#[test]
fn a_body_over_the_limit_is_reported() {
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 * 1024 * 1024));
    let block = call(server(endless));
    assert!(
        block[1].contains("over 1048576 bytes of body"),
        "{}",
        &block[1][..200]
    );
    assert!(block[1].len() < 2000);
    assert!(block[2].starts_with("Call failed: the answer is over the size limit; likely "));
}

#[test]
fn a_response_timeout_is_reported() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let mut command = Command::new(CALLER);
    command.args([
        "--admin-listen=off",
        "--timeout=200ms",
        &format!("http://{addr}/"),
    ]);
    assert_failed(
        &block(&mut command),
        "connected, then no answer after ",
        "Call failed: connected, but no answer in time; likely the backend is overloaded or stuck",
    );
}

#[test]
fn control_characters_in_a_body_are_escaped() {
    let body = b"a\x1b[2J\nb\r\n\x00\xff\xe2\x80\xaec\n";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let block = call(server([head.as_bytes(), body].concat()));
    assert_eq!(block[1], "a\\x1b[2J\\nb\\r\\n\\x00\\xff\\u{202e}c");
    assert_eq!(block[2], "Response received successfully!");
}

#[test]
fn an_empty_body_is_reported_as_such() {
    let block = call(server("HTTP/1.1 204 No Content\r\n\r\n"));
    assert_eq!(block[1], "(HTTP 204 with an empty body)");
    assert_eq!(block[2], "Response received successfully!");
}

#[test]
fn a_failure_never_prints_the_success_line_whatever_the_backend_sends() {
    const SUCCESS: &str = "Response received successfully!";
    let head = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n";
    for reply in [
        format!("{head}\r\n{SUCCESS}\n"),
        format!("{head}X-Pod-Name: {SUCCESS}\r\nServer: envoy {SUCCESS}\r\n\r\n"),
        format!("HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: /{SUCCESS}\r\n\r\n"),
        format!("{SUCCESS}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{SUCCESS}\n"),
    ] {
        let url = format!("http://{}/", server(reply));
        for args in [
            &["once"][..],
            &["once", "--format=wide"],
            &["once", "--format=json"],
            &["diagnose"],
        ] {
            let output = run(Command::new(CALLER).args(args).arg(&url));
            assert_ne!(output.code, Some(0), "{}", output.stdout);
            assert!(!output.stdout.contains(SUCCESS), "{}", output.stdout);
        }
    }
}

#[test]
fn spaces_in_the_name_of_a_pod_are_escaped() {
    let reply = "HTTP/1.1 200 OK\r\nX-Pod-Name: a address=6.6.6.6:1\r\nContent-Length: 0\r\n\r\n";
    let url = format!("http://{}/", server(reply));
    let output = run(Command::new(CALLER).args(["once", "--format=wide", &url]));
    let line = output.stdout.lines().nth(3).expect("a fourth line");
    let start = r"pod=a\x20address=6.6.6.6:1 address=127.0.0.1:";
    assert!(line.starts_with(start), "{line}");
}
