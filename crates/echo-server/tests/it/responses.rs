//! The responses of `echo-server`: those that http-echo was observed to send, and those that it does not have.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;

use test_support::http::{Connection, Reply, exchange, get};
use test_support::process::{Process, echo_server};

use crate::ECHO_SERVER;

const TEXT: &str = "Hello from Backend Service!";
const BODY: &str = "Hello from Backend Service!\n";

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(ECHO_SERVER);
    command.arg("-admin-listen=off").args(args);
    command
}

fn start(args: &[&str]) -> (Process, SocketAddr) {
    echo_server(command(args).arg("-text").arg(TEXT))
}

fn assert_text(reply: &Reply) {
    assert_eq!(reply.status_line, "HTTP/1.1 200 OK");
    assert_eq!(reply.body, BODY);
    assert_eq!(reply.header("x-app-name"), Some("echo-server"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(reply.header("x-app-version"), Some(version));
    let plain = Some("text/plain; charset=utf-8");
    assert_eq!(reply.header("content-type"), plain);
    assert_eq!(reply.header("content-length"), Some("28"));
    assert!(
        reply
            .header("date")
            .is_some_and(|date| date.ends_with("GMT"))
    );
}

#[test]
fn requests_with_any_path_and_method_get_the_text() {
    let (_server, addr) = start(&[]);
    for request in [
        "GET / HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET /any/path?q=1 HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET /health/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET //a/../b HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET http://b/absolute HTTP/1.1\r\nHost: b\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: b\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n",
        "BREW /pot HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc",
        "PUT /x HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        assert_text(&exchange(addr, request));
    }
}

#[test]
fn connect_gets_405_with_the_text() {
    let (_server, addr) = start(&[]);
    let reply = exchange(addr, "CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n");
    assert_eq!((reply.status(), reply.body.as_str()), (405, BODY));
}

#[test]
fn head_gets_only_the_headers_and_the_connection_stays_open() {
    let (_server, addr) = start(&[]);
    let mut connection = Connection::open(addr);
    connection.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    let get = connection.reply();
    connection.send("HEAD / HTTP/1.1\r\nHost: b\r\n\r\n");
    let head = connection.reply_to_head();
    assert_eq!(head.status_line, get.status_line);
    let names = |reply: &Reply| {
        reply
            .headers
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&head), names(&get));
    assert_eq!(head.header("content-length"), Some("28"));
    // If HEAD had got a body, this would read it as a status line.
    connection.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_text(&connection.reply());
}

#[test]
fn health_is_200_whatever_status_is_configured() {
    let (_server, addr) = start(&["-status-code", "503"]);
    let reply = get(addr, "/health");
    assert_eq!(
        (reply.status(), reply.body.as_str()),
        (200, "{\"status\":\"ok\"}\n")
    );
    assert_eq!(reply.header("x-app-name"), Some("echo-server"));
    assert_eq!(
        get(addr, "/").status_line,
        "HTTP/1.1 503 Service Unavailable"
    );
    assert_eq!(get(addr, "/health/").status(), 503);
}

#[test]
fn a_status_without_content_has_no_body() {
    for status in ["204", "304"] {
        let (_server, addr) = start(&["-status-code", status]);
        let mut connection = Connection::open(addr);
        for _ in 0..2 {
            connection.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
            let reply = connection.reply();
            assert_eq!(reply.status().to_string(), status);
            assert_eq!(reply.header("content-length"), None);
        }
    }
}

#[test]
fn an_http_1_0_request_gets_an_http_1_0_response_and_a_close() {
    let (_server, addr) = start(&[]);
    let mut connection = Connection::open(addr);
    connection.send("GET / HTTP/1.0\r\n\r\n");
    let reply = connection.reply();
    assert_eq!(
        (reply.status_line.as_str(), reply.body.as_str()),
        ("HTTP/1.0 200 OK", BODY)
    );
    assert!(connection.is_closed());
}

#[test]
fn invalid_http_gets_400_and_the_next_client_is_served() {
    let (_server, addr) = start(&[]);
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "garbage\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: b\r\nContent-Length: x\r\n\r\n",
    ] {
        let mut connection = Connection::open(addr);
        connection.send(request);
        assert_eq!(connection.reply().status(), 400, "{request:?}");
        assert!(connection.is_closed(), "{request:?}");
        assert_text(&get(addr, "/"));
    }
}

#[test]
fn a_head_over_the_limit_gets_431() {
    let (_server, addr) = start(&[]);
    let mut connection = Connection::open(addr);
    connection.send("GET / HTTP/1.1\r\nHost: b\r\n");
    let line = format!("X-Filler: {}\r\n", "x".repeat(8000));
    for _ in 0..150 {
        connection.send(&line);
    }
    assert_eq!(connection.reply().status(), 431);
    assert!(connection.is_closed());
    assert_text(&get(addr, "/"));
}

#[test]
fn a_body_over_the_limit_gets_413() {
    let (_server, addr) = start(&["--max-body", "10"]);
    let post = |length: &str, body: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: b\r\n{length}\r\n\r\n");
        exchange(addr, head + body).status()
    };
    assert_eq!(post("Content-Length: 10", "0123456789"), 200);
    assert_eq!(post("Content-Length: 11", "0123456789a"), 413);
    assert_eq!(
        post(
            "Transfer-Encoding: chunked",
            "b\r\n0123456789a\r\n0\r\n\r\n"
        ),
        413
    );
}

#[test]
fn pipelined_requests_get_their_responses_in_order() {
    let (_server, addr) = start(&[]);
    let mut connection = Connection::open(addr);
    connection.send(
        "GET / HTTP/1.1\r\nHost: b\r\n\r\nGET /health HTTP/1.1\r\nHost: b\r\n\r\n\
         GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    );
    let bodies = [(); 3].map(|()| connection.reply().body);
    assert_eq!(bodies, [BODY, "{\"status\":\"ok\"}\n", BODY]);
}

#[test]
fn a_request_that_asks_for_close_gets_it() {
    let (_server, addr) = start(&[]);
    let mut connection = Connection::open(addr);
    connection.send("GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n");
    assert_text(&connection.reply());
    assert!(connection.is_closed());
}

#[test]
fn a_long_last_response_arrives_completely() {
    // About the longest argument that Linux allows.
    let text = "0123456789abcdef".repeat(8000);
    let (_server, addr) = echo_server(&mut command(&["-text", &text]));
    for request in [
        "GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: b\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let mut connection = Connection::open(addr);
        connection.send(request);
        assert_eq!(connection.reply().body, format!("{text}\n"));
        assert!(connection.is_closed());
    }
}

#[test]
fn a_client_that_sends_more_after_connection_close_gets_its_response() {
    let (_server, addr) = start(&[]);
    let rest = "x".repeat(8000);
    for _ in 0..20 {
        let mut connection = Connection::open(addr);
        connection.send(format!(
            "GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n{rest}"
        ));
        assert_text(&connection.reply());
    }
}

#[test]
fn the_text_is_sent_unchanged_with_a_guessed_or_given_content_type() {
    for (args, content_type) in [
        (&["-text=<html>hi</html>"][..], "text/html; charset=utf-8"),
        (&["-text={\"a\": 1}"], "text/plain; charset=utf-8"),
        (
            &["-text={}", "-content-type", "application/json"],
            "application/json",
        ),
        (&["-text=grüße\n%s"], "text/plain; charset=utf-8"),
    ] {
        let (_server, addr) = echo_server(&mut command(args));
        let reply = get(addr, "/");
        assert_eq!(format!("-text={}", reply.body), format!("{}\n", args[0]));
        assert_eq!(reply.header("content-type"), Some(content_type));
    }
}

#[test]
fn headers_name_the_pod_where_it_is_known() {
    let (_server, addr) = start(&[]);
    let anonymous = get(addr, "/");
    for name in [
        "x-pod-name",
        "x-node-name",
        "x-pod-namespace",
        "x-request-id",
        "x-peer-address",
    ] {
        assert_eq!(anonymous.header(name), None);
    }
    let (_server, addr) = echo_server(
        command(&["-text", TEXT])
            .env("POD_NAME", "backend-7d9c-x2x1z")
            .env("NODE_NAME", "node-1")
            .env("POD_NAMESPACE", ""),
    );
    let named = exchange(
        addr,
        "GET / HTTP/1.1\r\nHost: b\r\nX-Request-Id: r-1\r\n\r\n",
    );
    assert_text(&named);
    assert_eq!(named.header("x-pod-name"), Some("backend-7d9c-x2x1z"));
    assert_eq!(named.header("x-node-name"), Some("node-1"));
    assert_eq!(named.header("x-pod-namespace"), None);
    assert_eq!(named.header("x-request-id"), Some("r-1"));
}

#[test]
fn a_request_with_an_id_gets_the_peer_address_that_the_server_sees() {
    // On a socket for both families, the kernel shows an IPv4 client as ::ffff:127.0.0.1.
    let (_server, addr) = start(&["-listen=:0"]);
    let v4 = SocketAddr::from(([127, 0, 0, 1], addr.port()));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, addr.port()));
    for addr in [v4, v6] {
        if addr.is_ipv6() && TcpStream::connect(addr).is_err() {
            eprintln!("skipped the half for IPv6: this machine has none");
            continue;
        }
        let mut connection = Connection::open(addr);
        let local = connection.local_addr().to_string();
        for request in [
            "GET / HTTP/1.1\r\nHost: b\r\nX-Request-Id: r-1\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: b\r\nX-Request-Id: r-1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: b\r\nX-Request-Id: r-1\r\nContent-Length: 3\r\n\r\nabc",
        ] {
            connection.send(request);
            let reply = connection.reply();
            assert_eq!(reply.header("x-peer-address"), Some(&*local), "{request}");
        }
        // A request without an id gets the same response as before.
        connection.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
        assert_eq!(connection.reply().header("x-peer-address"), None);
    }
}

#[tokio::test]
async fn the_peer_address_is_sent_over_http_2_too() {
    let (server, addr) = start(&["-access-log=json"]);
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .local_address(IpAddr::from([127, 0, 0, 2]))
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!("http://{addr}/");
    let anonymous = client.get(&url).send().await.expect("a response");
    assert!(!anonymous.headers().contains_key("x-peer-address"));
    for id in ["r-1", "r-2"] {
        let request = client.get(&url).header("x-request-id", id);
        let reply = request.send().await.expect("a response");
        let peer = reply.headers()["x-peer-address"].to_str().expect("text");
        assert!(peer.starts_with("127.0.0.2:"), "{peer}");
        let logged = server.wait_for_stdout(&format!("\"request_id\":\"{id}\""));
        let client = format!("\"client\":\"{peer}\"");
        assert!(logged.contains(&client), "{client} in {logged}");
    }
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_served_on_the_same_port() {
    let (_server, addr) = start(&[]);
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .no_proxy()
        .build()
        .expect("a client");
    let url = format!("http://{addr}/any?x=1");
    for _ in 0..3 {
        let reply = client.get(&url).send().await.expect("a response");
        assert_eq!(reply.version(), reqwest::Version::HTTP_2);
        assert_eq!(reply.headers()["x-app-name"], "echo-server");
        assert_eq!(reply.headers()["content-length"], "28");
        assert_eq!(reply.text().await.expect("a body"), BODY);
    }
    let reply = client.head(&url).send().await.expect("a response");
    assert_eq!(reply.headers()["content-length"], "28");
    assert_eq!(reply.text().await.expect("no body"), "");
    let reply = client
        .post(&url)
        .body("abc")
        .send()
        .await
        .expect("a response");
    assert_eq!(reply.status(), 200);
    assert_text(&get(addr, "/"));
}

#[test]
fn a_client_that_shuts_down_its_sending_side_gets_its_response() {
    let (_server, addr) = start(&[]);
    for request in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let mut connection = Connection::open(addr);
        connection.send(request);
        connection.end();
        assert_eq!(connection.reply().body, BODY);
        assert!(connection.is_closed());
    }
}

#[test]
fn a_request_that_begins_like_the_http_2_preface_is_served_as_http_1() {
    let (_server, addr) = start(&[]);
    let mut connection = Connection::open(addr);
    // POST and the preface (PRI) begin with the same letter.
    connection.send("P");
    assert_text(&get(addr, "/"));
    connection.send("OST / HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n");
    assert_text(&connection.reply());
}

#[test]
fn incomplete_requests_and_idle_connections_are_closed_at_their_timeouts() {
    let (_server, addr) = start(&["--header-timeout=200ms", "--idle-timeout=400ms"]);
    let mut slow = Connection::open(addr);
    slow.send("GET / HTTP/1.1\r\nHost: b\r\nX-Slow: ");
    assert!(slow.is_closed());
    let mut silent = Connection::open(addr);
    assert!(silent.is_closed());
    let mut idle = Connection::open(addr);
    idle.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    assert_text(&idle.reply());
    assert!(idle.is_closed());
    let mut late = Connection::open(addr);
    late.send("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\na");
    assert_eq!(late.reply().status(), 408);
    assert!(late.is_closed());
}
