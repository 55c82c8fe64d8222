//! The access log of `echo-server`: a line on stdout for each response.

use std::process::Command;

use test_support::http::{Connection, exchange, get};
use test_support::process::{Process, Signal, echo_server};

use crate::ECHO_SERVER;

/// An echo-server without an admin port and drain delay.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(ECHO_SERVER);
    command
        .args([
            "-text=Hello from Backend Service!",
            "-admin-listen=off",
            "-drain-delay=0s",
        ])
        .args(args);
    command
}

/// Stops the server, and returns what it has written to stdout.
fn stdout(server: Process) -> String {
    server.signal(Signal::TERM);
    server.finish().stdout
}

/// Whether a text matches a pattern, in which `9` stands for any digit and `*` for any characters.
fn matches(text: &str, pattern: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(&text[at..], rest))
        }
        Some(wanted) => text.chars().next().is_some_and(|c| {
            (c == wanted || (wanted == '9' && c.is_ascii_digit()))
                && matches(&text[c.len_utf8()..], &pattern[wanted.len_utf8()..])
        }),
    }
}

#[test]
fn a_line_has_the_format_of_http_echo() {
    let (server, addr) = echo_server(&mut command(&[]));
    exchange(
        addr,
        "GET /any/path?q=secret HTTP/1.1\r\nHost: backend:8080\r\nUser-Agent: t/1\r\n\r\n",
    );
    get(addr, "/health");
    exchange(addr, "POST /x HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    let log = stdout(server);
    let lines: Vec<&str> = log.lines().collect();
    for (line, pattern) in lines.iter().zip([
        r#"9999/99/99 99:99:99 backend:8080 127.0.0.1:* "GET /any/path HTTP/1.1" 200 28 "t/1" 9*s"#,
        r#"9999/99/99 99:99:99  127.0.0.1:* "POST /x HTTP/1.0" 200 28 "" 9*s"#,
    ]) {
        assert!(
            matches(line, pattern),
            "{line:?} does not match {pattern:?}"
        );
    }
    assert_eq!(lines.len(), 2, "/health is not logged:\n{log}");
}

#[test]
fn what_a_client_sends_cannot_forge_a_line() {
    let (server, addr) = echo_server(&mut command(&[]));
    let mut connection = Connection::open(addr);
    connection.send(b"GET / HTTP/1.1\r\nHost: b\r\nUser-Agent: a\" 200 1 \"\x1b[2Jb\xff\r\n\r\n");
    let status = connection.reply().status();
    let log = stdout(server);
    match status {
        200 => assert!(log.contains(r#""a\" 200 1 \"\x1b[2Jb\xff""#), "{log}"),
        // A request with an escape character may be refused instead.
        status => assert_eq!((status, log.as_str()), (400, "")),
    }
}

#[test]
fn the_json_format_has_an_object_for_each_response() {
    let (server, addr) = echo_server(&mut command(&["--access-log=json"]));
    exchange(
        addr,
        "GET /any?q=1 HTTP/1.1\r\nHost: backend\r\nUser-Agent: a\"b\r\nX-Request-Id: r-1\r\n\r\n",
    );
    let log = stdout(server);
    let pattern = r#"{"time":"9999-99-99T99:99:99*Z","host":"backend","client":"127.0.0.1:*","method":"GET","path":"/any","protocol":"HTTP/1.1","status":200,"bytes":28,"user_agent":"a\"b","request_id":"r-1","duration_us":9*}"#;
    assert!(matches(log.trim_end(), pattern), "{log:?}");
}

#[test]
fn long_fields_are_cut_at_1024_bytes() {
    for format in ["text", "json"] {
        let format = format!("--access-log={format}");
        let (server, addr) = echo_server(&mut command(&[&format]));
        let long = "x".repeat(6000);
        let request = format!(
            "GET /{long} HTTP/1.1\r\nHost: b\r\nUser-Agent: {long}\r\nX-Request-Id: {long}\r\n\r\n"
        );
        let reply = exchange(addr, request);
        assert_eq!(reply.header("x-request-id"), Some(&*long));
        let log = stdout(server);
        assert!(
            log.contains(&long[..1024]) && !log.contains(&long[..1025]),
            "{log}"
        );
    }
}

#[test]
fn nothing_is_logged_when_the_access_log_is_off() {
    let (server, addr) = echo_server(&mut command(&["--access-log=off"]));
    get(addr, "/");
    assert_eq!(stdout(server), "");
}

#[test]
fn responses_are_not_delayed_while_stdout_is_not_read_and_lost_lines_are_reported() {
    let mut server = Process::spawn_unread(command(&["-listen=127.0.0.1:0"]).env("CI", ""));
    let addr = server.wait_for_field("server is listening", "address");
    let mut connection = Connection::open(addr.parse().expect("an address"));
    // The pipe and the queue hold some hundred kilobytes; these are megabytes.
    let request = format!("GET /{} HTTP/1.1\r\nHost: b\r\n\r\n", "x".repeat(4000));
    for _ in 0..1000 {
        connection.send(&request);
        assert_eq!(connection.reply().status(), 200);
    }
    server.read_stdout();
    server.wait_for_stderr("output lines dropped");
    connection.send("GET /last HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_eq!(connection.reply().status(), 200);
    server.wait_for_stdout("\"GET /last HTTP/1.1\"");
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
}

#[test]
fn the_server_exits_although_stdout_is_never_read() {
    let mut server = Process::spawn_unread(&mut command(&["-listen=127.0.0.1:0"]));
    let addr = server.wait_for_field("server is listening", "address");
    let mut connection = Connection::open(addr.parse().expect("an address"));
    let request = format!("GET /{} HTTP/1.1\r\nHost: b\r\n\r\n", "x".repeat(4000));
    for _ in 0..100 {
        connection.send(&request);
        assert_eq!(connection.reply().status(), 200);
    }
    assert!(!server.has_ended());
    server.signal(Signal::TERM);
    let output = server.finish();
    assert_eq!(output.code, Some(0));
    assert!(
        output.stderr.contains("output is stuck"),
        "{}",
        output.stderr
    );
}
