//! Rows from a peer that is broken or hostile.

use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::*;

/// Serves this row in place of the caller of a node.
fn serve_row(mesh: &Mesh, node: u8, row: &Value) {
    serve(
        mesh.rows(node),
        sends(response("200 OK", "", &row.to_string())),
    );
}

/// Sends a response that has a head and never ends.
fn endless(stream: &mut TcpStream, piece: &[u8], pause: Duration) {
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    while stream.write_all(piece).is_ok() {
        thread::sleep(pause);
    }
}

/// A listener that drops packets because its accept queue is full: one connection is in it, and is never accepted.
fn full(addr: SocketAddr) -> (Socket, TcpStream) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&addr.into()).expect("a free port");
    listener.listen(0).expect("it is bound");
    let first = TcpStream::connect(addr).expect("there is room for it");
    (listener, first)
}

#[test]
fn a_response_that_is_not_a_row_counts_as_missing_with_the_reason() {
    let mesh = Mesh::of([1]);
    let ok = |headers: &str, body: &str| response("200 OK", headers, body);
    let row = |node| mesh.fabricated_row(node, &[(1, "ok")]).to_string();
    let elsewhere = TcpListener::bind((mesh.ip(200), mesh.rows_port)).expect("a free port");
    let location = format!("Location: http://{}/mesh.json\r\n", mesh.rows(200));
    let padding = "X-Padding: ".to_owned() + &"x".repeat(10_000) + "\r\n";
    let too_long = row(4).replace(env!("CARGO_PKG_VERSION"), &"0".repeat(64 * 1024));
    let mut cut_short = ok("", &row(5));
    cut_short.truncate(cut_short.len() - 9);
    let sent = [
        (2, "malformed", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        (3, "malformed", ok("", "<html>It works!</html>")),
        (4, "malformed", ok("", &too_long)),
        (5, "reset", cut_short),
        (6, "reset", Vec::new()),
        (7, "http_status", response("302 Found", &location, "")),
        (8, "no_sample", response("404 Not Found", "", "")),
        (9, "ok", ok(&padding, &row(9))),
        (10, "malformed", ok(&padding.repeat(100), &row(10))),
        (11, "malformed", ok("", &"[".repeat(60_000))),
        (12, "malformed", ok("", &row(12).replace("3600", "-1"))),
        (13, "malformed", ok("", &row(13).replace("3600", "1e99"))),
        (14, "malformed", ok("", "{}")),
    ];
    let mut expected = vec![
        (1, "ok"),
        (15, "connect_refused"),
        (16, "response_timeout"),
        (17, "response_timeout"),
        (18, "malformed"),
        (19, "connect_timeout"),
    ];
    for (node, why, bytes) in sent {
        serve(mesh.rows(node), sends(bytes));
        expected.push((node, why));
    }
    let _silent = TcpListener::bind(mesh.rows(16)).expect("a free port");
    let _full = full(mesh.rows(19));
    let pause = Duration::from_millis(50);
    serve(mesh.rows(17), move |stream| endless(stream, b" ", pause));
    serve(mesh.rows(18), |stream| {
        endless(stream, &[b' '; 4096], Duration::ZERO);
    });

    mesh.resolves_to(expected.iter().map(|(node, _)| *node));
    let _caller = mesh.start(1);
    let (matrix, code) = mesh.matrix();
    assert_eq!(
        (code, count(&matrix["nodes"])),
        (Some(1), expected.len() as u64)
    );
    for (node, why) in expected {
        assert_eq!(mesh.row_of(node, &matrix), why, "node {node}");
    }
    elsewhere.set_nonblocking(true).expect("it is a socket");
    assert!(elsewhere.accept().is_err(), "a redirect was followed");
}

#[test]
fn a_collection_ends_although_two_hundred_callers_do_not_respond() {
    let mesh = Mesh::of([]);
    let nodes = 1..=200;
    // They accept connections, and do not respond.
    let bind = |node| TcpListener::bind(mesh.rows(node)).expect("a free port");
    let _silent: Vec<TcpListener> = nodes.clone().map(bind).collect();
    mesh.resolves_to(nodes);
    let output = mesh.collect(&[]);
    assert_eq!(output.code, Some(3));
    let sentence = "NO ROWS  none of 200 addresses has a row (not_asked, response_timeout): ";
    assert!(output.stdout.starts_with(sentence), "{}", output.stdout);
}

/// Names that would do harm if they were printed or run as they are: in a terminal, as a line of the output, in a
/// shell.
const NAME_OF_2: &str = "\u{1b}[2J\u{202e}\nOK      all is well";
const NAME_OF_3: &str = "$(reboot); `reboot` '";

#[test]
fn hostile_names_and_numbers_in_a_row_do_no_harm() {
    let mesh = Mesh::of([]);
    mesh.resolves_to(2..=4);
    let mut row = mesh.fabricated_row(2, &[(3, "connect_refused"), (4, "ok")]);
    row["node"] = NAME_OF_2.into();
    row["peers"][0][1] = NAME_OF_3.into();
    row["peers"][0][4] = u32::MAX.into();
    row["peers"][1][3] = 1e300.into();
    row["interval_s"] = 1e300.into();
    row["known"] = u64::MAX.into();
    row["lookup"] = json!(["no such kind", u64::MAX]);
    row["mtus"] = json!([[mesh.ip(3), u32::MAX], [mesh.ip(3), 0]]);
    serve_row(&mesh, 2, &row);
    let mut row = mesh.fabricated_row(4, &[(3, "connect_refused"), (2, "no such result")]);
    row["node"] = "x".repeat(10_000).into();
    row["peers"][0][1] = NAME_OF_3.into();
    serve_row(&mesh, 4, &row);

    let output = mesh.collect(&[]);
    assert_eq!(output.code, Some(1));
    let is_plain = |text: &str| {
        text.chars()
            .all(|c| c == '\n' || !c.is_control() && c != '\u{202e}')
    };
    assert!(is_plain(&output.stdout), "{:?}", output.stdout);
    let first = format!(
        "NOT OK  {NAME_OF_3} ({}) is not reached from 2 of 2 nodes (connect_refused), and its row is missing: ",
        mesh.ip(3)
    );
    assert!(output.stdout.starts_with(&first), "{}", output.stdout);
    let name_of_2 = "\\x1b[2J\\u{202e}\\nOK      all is well";
    assert!(output.stdout.contains(name_of_2), "{}", output.stdout);
    assert!(!output.stdout.contains("xxxxx"), "{}", output.stdout);
    let next = format!(
        "\nnext    kubectl get pods -A -o wide --field-selector status.podIP={}\n",
        mesh.ip(3)
    );
    assert!(output.stdout.ends_with(&next), "{}", output.stdout);

    let output = mesh.collect(&["--format=json"]);
    assert!(is_plain(&output.stdout) && output.stdout.lines().count() == 1);
    let matrix: Value = serde_json::from_str(&output.stdout).expect("an object");
    let name = |node| &matrix["nodes"][mesh.place(node, &matrix)]["node"];
    assert_eq!((name(2), name(3)), (&NAME_OF_2.into(), &NAME_OF_3.into()));
    assert_eq!(name(4), "node-4", "as another row has it");
    assert_eq!(matrix["pairs"][0]["since_s"], u32::MAX);
}

#[test]
fn a_row_counts_for_the_address_that_sent_it_and_for_no_other() {
    let mesh = Mesh::of([1, 2]);
    let [_caller] = mesh.start_all([1]);
    // Node 2 claims to be node 1 and to reach nobody, and gives node 1 another name.
    let mut row = mesh.fabricated_row(1, &[(2, "connect_timeout"), (1, "connect_timeout")]);
    row["peers"][1][1] = "evil".into();
    serve_row(&mesh, 2, &row);
    let (matrix, _) = mesh.matrix();
    let (first, second) = (mesh.place(1, &matrix), mesh.place(2, &matrix));
    assert_eq!(matrix["nodes"][first]["node"], "node-1");
    let cell = |from: usize, to: usize| {
        let cells = matrix["cells"][from].as_str().expect("text").chars();
        cells.clone().nth(to).expect("a cell")
    };
    assert_eq!((cell(first, first), cell(second, second)), ('-', '-'));
    assert!(cell(first, second).is_ascii_digit());
    assert!(cell(second, first).is_ascii_uppercase());
    assert_eq!(count(&matrix["pairs"]), 1);
}

#[test]
fn an_empty_node_name_counts_as_unknown() {
    let mesh = Mesh::of([]);
    mesh.resolves_to([1, 2]);
    for node in [1, 2] {
        let mut row = mesh.fabricated_row(node, &[(3 - node, "ok")]);
        row["node"] = "".into();
        row["peers"][0][1] = "".into();
        serve_row(&mesh, node, &row);
    }
    let (matrix, code) = mesh.matrix();
    assert_eq!(code, Some(0));
    for node in [1, 2] {
        assert_eq!(
            matrix["nodes"][mesh.place(node, &matrix)]["node"],
            Value::Null
        );
    }
}
