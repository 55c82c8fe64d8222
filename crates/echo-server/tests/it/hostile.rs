//! Requests that only an attacker sends: they get an error status or a closed connection, take little memory, and the
//! next client is served.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use test_support::http::{Connection, get};
use test_support::process::{Process, Signal, echo_server};

use crate::ECHO_SERVER;

fn start(args: &[&str]) -> (Process, SocketAddr) {
    let mut command = Command::new(ECHO_SERVER);
    command.args([
        "-text=x",
        "-admin-listen=off",
        "-access-log=off",
        "--threads=1",
    ]);
    echo_server(command.args(args))
}

fn assert_served(addr: SocketAddr) {
    assert_eq!(get(addr, "/").body, "x\n");
}

/// Sends bytes, and returns what the server sends until it closes the connection or sends nothing for 300 ms.
fn raw(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("it is not zero");
    let _ = stream.write_all(bytes);
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n) = stream.read(&mut buffer)
        && n > 0
    {
        received.extend_from_slice(&buffer[..n]);
    }
    received
}

#[test]
fn requests_with_ambiguous_framing_get_400() {
    let (_server, addr) = start(&[]);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: b\r\n\r\n";
    for head in [
        "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 3, 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: -1\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHo st: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: b\r\nX-A: 1\r\n folded: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: b\r\nX-A: \x00\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ] {
        let mut connection = Connection::open(addr);
        connection.send(format!("{head}{smuggled}"));
        assert_eq!(connection.reply().status(), 400, "{head:?}");
        assert!(connection.is_closed(), "{head:?}");
        assert_served(addr);
    }
    // With both lengths, chunked is valid (RFC 9112, section 6.3), and the connection is closed.
    let mut connection = Connection::open(addr);
    connection.send(format!(
        "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
    ));
    let reply = connection.reply();
    assert!(matches!(reply.status(), 200 | 400));
    assert!(connection.is_closed());
}

#[test]
fn expect_100_continue_gets_100_or_413() {
    let (_server, addr) = start(&["--max-body=3"]);
    let expect = |length: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut connection = Connection::open(addr);
    connection.send(expect("3"));
    assert_eq!(connection.reply_to_head().status(), 100);
    connection.send("abc");
    assert_eq!(connection.reply().status(), 200);
    let mut connection = Connection::open(addr);
    connection.send(expect("4"));
    assert_eq!(connection.reply().status(), 413);
}

#[test]
fn an_endless_body_gets_413_and_takes_no_memory() {
    let (server, addr) = start(&[]);
    assert_served(addr);
    let before = server.memory();
    let mut connection = Connection::open(addr);
    connection.send("POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..200 {
        connection.send(&chunk);
    }
    assert_eq!(connection.reply().status(), 413);
    assert!(
        server.memory() < before + 2048,
        "{before} KiB before, {} after",
        server.memory()
    );
    assert_served(addr);
}

#[test]
fn an_upgrade_is_ignored() {
    let (_server, addr) = start(&[]);
    for upgrade in ["h2c", "websocket", "TLS/1.0"] {
        let mut connection = Connection::open(addr);
        connection.send(format!(
            "GET / HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
        ));
        assert_eq!(connection.reply().status(), 200);
    }
}

#[test]
fn random_bytes_do_not_harm_the_server() {
    let (server, addr) = start(&[]);
    assert_served(addr);
    let before = server.memory();
    // A linear congruential generator (with the constants of Knuth's MMIX), so that a failure can be repeated.
    let mut state = 42_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for round in 0..100 {
        let mut bytes: Vec<u8> = (0..400).map(|_| random()).collect();
        match round % 3 {
            0 => {}
            1 => bytes.splice(..0, *b"GET / HTTP/1.1\r\n").for_each(drop),
            _ => bytes
                .splice(..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                .for_each(drop),
        }
        bytes.extend(b"\r\n\r\n");
        let mut stream = TcpStream::connect(addr).expect("it listens");
        let _ = stream.write_all(&bytes);
    }
    assert_served(addr);
    assert!(
        server.memory() < before + 4096,
        "{before} KiB before, {} after",
        server.memory()
    );
}

/// Encodes an HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a short payload")
        .to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The header block of `GET http://b/`, encoded with HPACK (RFC 7541, appendices A and C).
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'b'];

/// The preface of a client, with its SETTINGS.
fn preface() -> Vec<u8> {
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &[]),
    ]
    .concat()
}

/// Whether there is a GOAWAY among the frames that the server has sent.
fn has_goaway(mut frames: &[u8]) -> bool {
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = frames {
        if *kind == 7 {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        frames = rest.get(length..).unwrap_or_default();
    }
    false
}

#[test]
fn http_2_floods_end_their_own_connection_only() {
    let (server, addr) = start(&[]);
    assert_served(addr);
    let before = server.memory();
    let stream = |n: u32| 2 * n + 1;
    let reset_at_once = |n| {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream(n), GET);
        [
            request,
            frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes()),
        ]
        .concat()
    };
    // CVE-2023-44487, CVE-2019-9515, CVE-2019-9512, CVE-2024-27316.
    let rapid_reset: Vec<u8> = (0..20_000).flat_map(reset_at_once).collect();
    let settings: Vec<u8> = (0..20_000)
        .flat_map(|_| frame(SETTINGS, 0, 0, &[]))
        .collect();
    let pings: Vec<u8> = (0..20_000)
        .flat_map(|_| frame(PING, 0, 0, &[0; 8]))
        .collect();
    let continued = frame(HEADERS, END_STREAM, 1, GET);
    let filler = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x01][..], &[b'y'; 256]].concat();
    let continuations = (0..5_000).flat_map(|_| frame(CONTINUATION, 0, 1, &filler));
    let continuations: Vec<u8> = continued.into_iter().chain(continuations).collect();
    for (name, flood, must_end) in [
        ("rapid reset", rapid_reset, true),
        ("settings", settings, false),
        ("pings", pings, false),
        ("continuations", continuations, true),
    ] {
        let received = raw(addr, &[preface(), flood].concat());
        if must_end {
            assert!(has_goaway(&received) || received.is_empty(), "{name}");
        }
        assert_served(addr);
    }
    assert!(
        server.memory() < before + 8192,
        "{before} KiB before, {} after",
        server.memory()
    );
}

#[test]
fn a_method_of_more_than_64_bytes_gets_501_and_is_not_logged() {
    let mut command = Command::new(ECHO_SERVER);
    command.args(["-text=x", "-admin-listen=off", "--drain-delay=0s"]);
    let (server, addr) = echo_server(&mut command);
    for (length, status) in [(64, 200), (65, 501), (20_000, 501)] {
        let mut connection = Connection::open(addr);
        connection.send(format!(
            "{} / HTTP/1.1\r\nHost: b\r\n\r\n",
            "M".repeat(length)
        ));
        assert_eq!(connection.reply().status(), status, "{length}");
    }
    server.signal(Signal::TERM);
    let log = server.finish().stdout;
    assert_eq!(log.lines().count(), 1, "{log}");
}

#[test]
fn a_used_http_1_connection_does_not_become_http_2() {
    let (_server, addr) = start(&[]);
    let mut connection = Connection::open(addr);
    connection.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_eq!(connection.reply().status(), 200);
    // Longer than the time after which an idle connection is parked.
    std::thread::sleep(Duration::from_millis(100));
    connection.send(preface());
    assert!(connection.is_closed());
}

/// Waits for most of the header timeout before and after the beginning of a request. Returns whether it has a
/// response.
fn is_late_request_served(addr: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    for part in ["GET / HT", "TP/1.1\r\nHost: b\r\n\r\n"] {
        std::thread::sleep(Duration::from_millis(1300));
        let _ = stream.write_all(part.as_bytes());
    }
    matches!(stream.read(&mut [0; 12]), Ok(1..))
}

#[test]
fn the_header_timeout_applies_anew_from_the_first_byte() {
    let (_server, addr) = start(&["--header-timeout=2s"]);
    // Once is enough: this process may be late itself.
    assert!((0..5).any(|_| is_late_request_served(addr)));
}

#[test]
fn clients_that_do_not_read_a_long_response_share_it() {
    let (server, addr) = start(&[&format!("-text={}", "x".repeat(100_000))]);
    get(addr, "/");
    let before = server.memory();
    let requests = "GET / HTTP/1.1\r\nHost: b\r\n\r\n".repeat(100);
    let mut blocked: Vec<Connection> = (0..100).map(|_| Connection::open(addr)).collect();
    for connection in &mut blocked {
        connection.send(&requests);
    }
    get(addr, "/");
    let after = server.memory();
    assert!(after < before + 8192, "{before} KiB before, {after} after");
}
