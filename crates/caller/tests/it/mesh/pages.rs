//! `/mesh`, `/mesh.json` and `/mesh/matrix.json` on the admin port of a caller.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use test_support::http::{Connection, Reply, exchange};

use super::*;

const PAGES: [(&str, &str); 3] = [
    ("/mesh", "text/html; charset=utf-8"),
    ("/mesh.json", "application/json"),
    ("/mesh/matrix.json", "application/json"),
];

/// How long requests get the same matrix.
const SHARED_FOR: Duration = Duration::from_secs(5);

#[test]
fn only_a_caller_with_sample_has_the_pages() {
    let mesh = Mesh::of([1, 2]);
    let with = mesh.start(1);
    let without = Node::start(mesh.caller(2).env_remove("CALLER_SAMPLE"));
    for (page, content_type) in PAGES {
        assert_eq!(get(without.admin, page).status(), 404, "{page}");
        let reply = get(with.admin, page);
        assert_eq!(reply.status(), 200, "{page}");
        assert_eq!(reply.header("content-type"), Some(content_type));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let request = |line: &str, host: &str| {
            format!("{line} {page} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        };
        let foreign = exchange(with.admin, request("GET", "attacker.example"));
        assert_eq!(foreign.status(), 421, "{page}");
        assert!(!foreign.body.contains("node-1"), "{}", foreign.body);
        let post = exchange(with.admin, request("POST", "mesh"));
        assert_eq!(post.status(), 405, "{page}");
        let mut head = Connection::open(with.admin);
        head.send(request("HEAD", "mesh"));
        assert_eq!(head.reply_to_head().status(), 200, "{page}");
        assert!(head.is_closed(), "a body of {page}");
    }
    // The live page is served as well.
    assert_eq!(get(with.admin, "/").status(), 200);
}

#[test]
fn the_page_allows_only_its_own_script_by_a_nonce_that_is_new_for_each_request() {
    let mesh = Mesh::of([1]);
    let node = mesh.start(1);
    let nonce = || {
        let Reply { headers, body, .. } = get(node.admin, "/mesh");
        let mut headers = headers.iter();
        let policy = headers.find(|(name, _)| name == "content-security-policy");
        let policy = &policy.expect("a policy").1;
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        for directive in ["connect-src 'self'", "require-trusted-types-for 'script'"] {
            assert!(policy.contains(directive), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let nonce = policy.split("script-src 'nonce-").nth(1);
        let nonce = nonce.and_then(|rest| rest.split('\'').next());
        let nonce = nonce.expect("a nonce").to_owned();
        assert!(
            policy.contains(&format!("style-src 'nonce-{nonce}'")),
            "{policy}"
        );
        // Each script and each style has the nonce, and no placeholder is left.
        for tag in ["<script", "<style"] {
            let with_nonce = format!("{tag} nonce=\"{nonce}\">");
            assert_eq!(body.matches(tag).count(), 1);
            assert!(body.contains(&with_nonce), "no {with_nonce}");
        }
        assert!(!body.contains("{nonce}"));
        nonce
    };
    let first = nonce();
    assert_eq!(first.len(), 32);
    assert_ne!(first, nonce());
}

/// A mesh of two nodes. The first one has a caller. The second one has a server in its place, which sends a fabricated
/// row and counts its connections.
fn with_a_counting_server() -> (Mesh, Node, Arc<AtomicUsize>) {
    let mesh = Mesh::of([1, 2]);
    let row = mesh.fabricated_row(2, &[(1, "ok")]).to_string();
    let asked = serve(mesh.rows(2), sends(response("200 OK", "", &row)));
    let node = mesh.start(1);
    node.wait_for_row("a call", |row| result(row, mesh.ip(2)) == Some("ok"));
    (mesh, node, asked)
}

fn matrix(admin: SocketAddr) -> Value {
    let reply = get(admin, "/mesh/matrix.json");
    serde_json::from_str(&reply.body).expect("an object")
}

#[test]
fn rows_are_collected_only_on_request_and_once_for_concurrent_requests() {
    let (mesh, node, asked) = with_a_counting_server();
    let pages = ["/mesh", "/mesh.json", "/metrics", "/status.json"];
    let _ = pages.map(|page| get(node.admin, page));
    assert_eq!(
        asked.load(Ordering::SeqCst),
        0,
        "nobody has asked for the rows"
    );

    let start = Instant::now();
    let admin = node.admin;
    let clients = [(); 20].map(|()| thread::spawn(move || matrix(admin)));
    let matrices = clients.map(|client| client.join().expect("an answer"));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(matrices.iter().all(|matrix| *matrix == matrices[0]));
    assert_eq!(mesh.row_of(2, &matrices[0]), "ok");

    // Later requests get the same matrix, until it is five seconds old; then the rows are collected once more.
    let mut later = Value::Null;
    wait_until("another matrix", TIMEOUT, || {
        later = matrix(admin);
        later["time"] != matrices[0]["time"]
    });
    assert!(start.elapsed() >= SHARED_FOR);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn clients_that_disconnect_do_not_restart_a_collection() {
    let mesh = Mesh::of([1, 2]);
    let node = mesh.start(1);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let asked = serve(mesh.rows(2), move |stream| {
        // Waits until the test sends a message, or has ended.
        let _ = released.lock().expect("nobody panics").recv();
        let _ = stream.write_all(&response("404 Not Found", "", ""));
    });
    let ask = || {
        let mut client = Connection::open(node.admin);
        client.send("GET /mesh/matrix.json HTTP/1.1\r\nHost: mesh\r\n\r\n");
        client
    };
    let first = ask();
    wait_until("the collection", TIMEOUT, || {
        asked.load(Ordering::SeqCst) == 1
    });
    drop(first);
    for _ in 0..5 {
        drop(ask());
    }
    let mut last = ask();
    release.send(()).expect("it waits");
    let matrix: Value = serde_json::from_str(&last.reply().body).expect("an object");
    assert_eq!(matrix["nodes"].as_array().map(Vec::len), Some(2));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_probe_is_answered_while_many_wait_for_the_matrix() {
    let mesh = Mesh::of([1]);
    // No name server responds, so there is no matrix before the lookup has timed out.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let nameserver = silent.local_addr().expect("it is bound").to_string();
    let node = Node::start(mesh.caller(1).env("CALLER_NAMESERVER", nameserver));
    // More than the limit on connections of the admin port.
    let clients = [(); 100].map(|()| {
        let mut client = TcpStream::connect(node.admin).expect("it listens");
        let request = "GET /mesh/matrix.json HTTP/1.1\r\nHost: mesh\r\n\r\n";
        client
            .write_all(request.as_bytes())
            .expect("it is connected");
        client
    });
    assert_eq!(get(node.admin, "/livez").status(), 200);
    let mut first = &clients[0];
    first.set_nonblocking(true).expect("it is a socket");
    let error = first.read(&mut [0]).expect_err("the probe came first");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    // The clients over the limit on waiting clients get 503; the others wait.
    first.set_nonblocking(false).expect("it is a socket");
    let status = |mut client: &TcpStream| {
        let mut line = [0; "HTTP/1.1 200".len()];
        // A client without a response has been disconnected to make room for another.
        client.read_exact(&mut line).ok()?;
        Some(String::from_utf8_lossy(&line[9..]).into_owned())
    };
    assert_eq!(status(first).as_deref(), Some("200"));
    let refused = clients
        .iter()
        .filter(|client| status(client).as_deref() == Some("503"));
    assert!(refused.count() > 0);
}
