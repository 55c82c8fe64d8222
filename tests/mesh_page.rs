//! The page of a mesh: its headers, over HTTP; and what a person sees of it, in a real browser. The meshes are a
//! healthy one, one with a node that has just failed, one with more nodes than fit into a table, and one with faults.
//! Pictures are saved in the target directory.

use std::future::pending;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use local_cluster::mesh::{Config, Mesh};
use serde_json::{Value, json};
use test_support::bed::Bed;
use test_support::browser::keys::{
    ARROW_DOWN, ARROW_LEFT, ARROW_RIGHT, ARROW_UP, END, ENTER, HOME, TAB,
};
use test_support::browser::{Browser, HOSTILE, HOSTILE_SHOWN, nonce};
use test_support::http::{Reply, get};
use test_support::process::{Process, caller};
use test_support::{TIMEOUT, wait_until};
use tokio::runtime::Runtime;

/// The directory for the pictures.
const PICTURES: &str = env!("CARGO_TARGET_TMPDIR");

/// A mesh in this process, which ends on drop.
struct Nodes {
    resolv_conf: PathBuf,
    dns: SocketAddr,
    target: String,
    rows_port: u16,
    _runtime: Runtime,
}

/// Held while a mesh looks for free ports and opens them, so that two tests do not choose the same ones.
static OPENING: Mutex<()> = Mutex::new(());

impl Nodes {
    /// Starts a mesh of this many nodes. `broken` is the node that fails after two seconds, if any.
    fn start(nodes: u16, broken: Option<&str>) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let config = Config {
            nodes,
            sample: 5,
            interval: Duration::from_secs(1),
            breaks: broken
                .map(|node| node.parse().expect("a node"))
                .into_iter()
                .collect(),
        };
        let mesh = {
            let _opening = OPENING.lock();
            runtime.block_on(Mesh::bind(config)).expect("free ports")
        };
        let resolv_conf = mesh.resolv_conf();
        let (dns, rows_port) = (mesh.dns_addr(), mesh.page().port());
        let target = mesh.target().to_string();
        runtime.spawn(mesh.run(pending(), None));
        Self {
            resolv_conf,
            dns,
            target,
            rows_port,
            _runtime: runtime,
        }
    }

    /// Starts a caller that samples the mesh without being a node of it.
    fn caller(&self, admin: &str) -> (Process, SocketAddr) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_caller"));
        command
            .args(["--interval=1h", "--sample=1", &self.target])
            .env("CALLER_ADMIN_LISTEN", admin)
            .env("CALLER_RESOLV_CONF", &self.resolv_conf)
            .env("CALLER_NAMESERVER", self.dns.to_string())
            .env("CALLER_ROWS_PORT", self.rows_port.to_string())
            .env("POD_NAME", "mesh-0");
        caller(&mut command)
    }
}

/// Starts a server of the page of a real caller, with this matrix as its data.
fn serve(page: Reply, matrix: Arc<Mutex<Value>>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let (mut first, mut line) = (String::new(), String::new());
            let _ = stream.read_line(&mut first);
            while stream.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            let matrix = || matrix.lock().expect("no test panics").to_string();
            let (policy, body) = match first.split(' ').nth(1) {
                Some("/mesh") => (
                    page.header("content-security-policy").expect("a policy"),
                    page.body.clone(),
                ),
                _ => ("default-src 'none'", matrix()),
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Security-Policy: {policy}\r\nContent-Length: {}\r\n\
                 Content-Type: {}\r\nConnection: close\r\n\r\n",
                body.len(),
                page.header("content-type").expect("a type"),
            );
            // The browser may have closed the connection.
            let _ = stream.get_mut().write_all((head + &body).as_bytes());
        }
    });
    addr
}

/// The texts of the cells of the matrix, including its headings.
fn table(browser: &Browser) -> Vec<Vec<String>> {
    let cells = browser.run(
        "return [...document.querySelector('table').rows].map(row => \
             [...row.cells].map(cell => cell.textContent))",
    );
    serde_json::from_value(cells).expect("rows of cells")
}

/// The number of elements that match a selector.
fn count(browser: &Browser, selector: &str) -> u64 {
    let script = format!("return document.querySelectorAll({selector:?}).length");
    browser.run(&script).as_u64().expect("a number")
}

/// Moves the focus to the matrix with the keyboard.
fn enter_the_matrix(browser: &Browser) {
    browser.run("document.getElementById('order').focus()");
    browser.press(TAB);
}

/// Sends a mouse event at the upper left corner of an element, until the page describes this pair.
fn point_at(browser: &Browser, event: &str, element: &str, pair: &str) {
    wait_until(pair, TIMEOUT, || {
        let corner = browser.run(&format!(
            "const {{ x, y }} = {element}.getBoundingClientRect(); return [x + 3, y + 3]"
        ));
        let point = json!({ "type": event, "x": corner[0], "y": corner[1], "button": "left" });
        browser.devtools("Input.dispatchMouseEvent", &point);
        browser.text("pair").starts_with(pair)
    });
}

/// Makes the page fetch the matrix now, which it does by itself every five seconds.
fn refresh(browser: &Browser) {
    browser.run("return poll()");
}

/// Asserts that the page has sent requests to its own server only.
fn assert_no_foreign_requests(browser: &Browser, url: &str) {
    let requests = browser.requests();
    let data = format!("{url}mesh/matrix.json");
    assert!(requests.contains(&data), "{requests:?}");
    let is_elsewhere = |asked: &&String| !asked.starts_with(url) && !asked.starts_with("data:");
    let elsewhere: Vec<&String> = requests.iter().filter(is_elsewhere).collect();
    assert_eq!(elsewhere, Vec::<&String>::new());
}

#[test]
fn the_page_of_a_mesh_loads_nothing_from_other_servers() {
    let bed = Bed::start(&["backend-1"]);
    let start = |args: &[&str]| {
        let mut command = bed.caller(env!("CARGO_BIN_EXE_caller"));
        command.env("CALLER_ADMIN_LISTEN", "127.0.0.1:0").args(args);
        caller(&mut command)
    };
    let (_caller, admin) = start(&["--sample=1"]);
    let page = get(admin, "/mesh");
    assert_ne!(nonce(&page), nonce(&get(admin, "/mesh")), "it is used once");
    assert_eq!(page.body.matches("://").count(), 0);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let data = get(admin, "/mesh/matrix.json");
    assert_eq!(data.header("content-type"), Some("application/json"));

    let has_mesh = |admin| {
        let status: Value = serde_json::from_str(&get(admin, "/status.json").body).expect("JSON");
        status["mesh"].clone()
    };
    assert_eq!(has_mesh(admin), true);
    let url = bed.url("backend");
    let (_caller, admin) = start(&["--sample=1", &url, "http://127.0.0.1:9/"]);
    assert_eq!(has_mesh(admin), true, "in the overview of several targets");
    let (_caller, admin) = start(&[]);
    assert_eq!(has_mesh(admin), false);
    for path in ["/mesh", "/mesh.json", "/mesh/matrix.json"] {
        assert_eq!(get(admin, path).status(), 404, "{path}");
    }
}

#[test]
fn a_browser_shows_a_healthy_mesh_that_can_be_navigated_by_keyboard() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let nodes = Nodes::start(4, None);
    let (caller, admin) = nodes.caller("127.0.0.1:0");
    let url = format!("http://{admin}/");
    browser.resize(1280, 900, false);
    browser.open(&url);
    browser.wait_for_text("mesh", "Mesh: who reaches whom");
    browser.run("document.querySelector('#mesh a').click()");
    let seen = "return [document.title, $('verdict').textContent, \
        $('sentence').textContent.split(',')[0], $('step').hidden]";
    let all = "4 nodes reach each other: 12 of 12 pairs called lately";
    let wanted = json!(["✓ OK – mesh", "✓ OK", all, true]);
    wait_until(all, TIMEOUT, || browser.run(seen) == wanted);
    for hidden in [
        "also",
        "briefly",
        "left-out",
        "lost",
        "worst-part",
        "pairs-part",
    ] {
        assert_eq!(browser.text(hidden), "", "{hidden}");
    }
    let what = browser.text("what");
    let (nodes_of, _) = what.split_once(". As of 20").expect("when");
    assert_eq!(
        nodes_of,
        format!("4 nodes behind {}, collected by mesh-0", nodes.target)
    );
    let names = ["node-1", "node-2", "node-3", "node-4"];
    let rows = table(&browser);
    assert_eq!(rows[0][1..], names);
    for (i, row) in rows[1..].iter().enumerate() {
        assert_eq!(row[0], names[i]);
        for (j, cell) in row[1..].iter().enumerate() {
            let is_ms = cell.parse::<f64>().is_ok_and(|ms| ms >= 0.0);
            assert!(if i == j { cell == "·" } else { is_ms }, "{rows:?}");
        }
    }
    browser.check_layout(PICTURES, "mesh-ok");

    // By keyboard.
    enter_the_matrix(&browser);
    let is_at = |from: u8, to: u8| {
        let pair = browser.text("pair");
        let wanted = format!("node-{from} (127.0.1.{from}) → node-{to} (127.0.1.{to}): ");
        assert!(pair.starts_with(&wanted), "{pair}, not {wanted}");
        assert_eq!(count(&browser, "td[tabindex='0']"), 1);
        assert_eq!(count(&browser, "td[tabindex='0']:focus"), 1);
        pair[wanted.len()..].to_owned()
    };
    assert_eq!(is_at(1, 1), "itself");
    for (key, from, to) in [
        (ARROW_LEFT, 1, 1),
        (ARROW_UP, 1, 1),
        (ARROW_RIGHT, 1, 2),
        (ARROW_DOWN, 2, 2),
        (END, 2, 4),
        (ARROW_RIGHT, 2, 4),
        (ARROW_DOWN, 3, 4),
        (HOME, 3, 1),
        (ARROW_RIGHT, 3, 2),
        (ARROW_UP, 2, 2),
        (ARROW_LEFT, 2, 1),
    ] {
        browser.press(key);
        is_at(from, to);
    }
    let reached = is_at(2, 1);
    assert!(
        reached.starts_with("reached in ") && reached.ends_with(" ms"),
        "{reached}"
    );
    wait_until("newer data", TIMEOUT, || browser.text("what") != what);
    is_at(2, 1);
    browser.press(TAB);
    assert_eq!(count(&browser, "td:focus"), 0, "one press leads out of it");

    // The pointer takes precedence, and does not move the focus.
    let cell = "document.querySelector('table').rows[4].cells[3]";
    let wanted = "node-4 (127.0.1.4) → node-3 (127.0.1.3): reached in ";
    point_at(&browser, "mouseMoved", cell, wanted);
    assert_eq!(count(&browser, "td[tabindex='0']"), 1);

    // The caller ends, and another one takes its place.
    assert_eq!(browser.console(), Vec::<String>::new());
    drop(caller);
    refresh(&browser);
    let lost = browser.wait_for_text("lost", "No contact since 20");
    assert!(lost.contains("kubectl port-forward"), "{lost}");
    assert_eq!(browser.text("verdict"), "Unknown: no contact");
    assert_eq!(browser.title(), "Unknown: no contact – mesh");
    let sentence = browser.text("sentence");
    assert!(sentence.starts_with("✓ OK until 20"), "{sentence}");
    browser.check_layout(PICTURES, "mesh-lost");
    let (_caller, _) = nodes.caller(&admin.to_string());
    browser.wait_for_text("verdict", "✓ OK");
    assert_eq!(browser.text("lost"), "");
    assert_eq!(browser.errors(), Vec::<String>::new());
    assert_no_foreign_requests(&browser, &url);
}

#[test]
fn a_browser_shows_a_node_that_has_just_failed() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let nodes = Nodes::start(4, Some("3:in"));
    let (_caller, admin) = nodes.caller("127.0.0.1:0");
    browser.resize(1280, 900, false);
    browser.open(&format!("http://{admin}/mesh"));
    let seen = "return [$('verdict').textContent, $('step').hidden, $('briefly').textContent, \
        document.querySelectorAll('td.brief').length, document.querySelectorAll('td.fail').length]";
    let briefly = "3 pairs fail for less than a minute; not counted yet";
    let wanted = json!(["✓ OK", true, briefly, 3, 0]);
    wait_until(briefly, TIMEOUT, || browser.run(seen) == wanted);
    let rows = table(&browser);
    assert_eq!(rows[0][1..], ["node-3", "node-1", "node-2", "node-4"]);
    assert_eq!(rows[1], ["node-3", "row missing: connect_timeout"]);
    for row in &rows[2..] {
        assert_eq!(row[1], "a", "{rows:?}");
    }
    assert!(browser.text("kinds").contains("A connect_timeout"));
    let pairs = browser.text("pairs");
    assert_eq!(pairs.lines().count(), 3);
    assert!(pairs.starts_with("node-"), "{pairs}");
    assert!(
        pairs.contains(" → node-3: connect_timeout, for "),
        "{pairs}"
    );
    assert!(pairs.ends_with(" ago, not counted yet"), "{pairs}");
    browser.check_layout(PICTURES, "mesh-brief");

    // A missing row is a single cell, which stands for all columns when the focus moves up or down through it.
    enter_the_matrix(&browser);
    browser.press(ARROW_UP);
    let itself = "node-1 (127.0.1.1) → node-1 (127.0.1.1): itself";
    let missing = "row missing: connect_timeout";
    for (key, pair) in [
        (
            HOME,
            format!("node-3 (127.0.1.3) → node-3 (127.0.1.3): {missing}"),
        ),
        (
            ARROW_RIGHT,
            format!("node-3 (127.0.1.3) → node-1 (127.0.1.1): {missing}"),
        ),
        (ARROW_DOWN, itself.to_owned()),
        (
            HOME,
            "node-1 (127.0.1.1) → node-3 (127.0.1.3): connect_timeout, for ".to_owned(),
        ),
    ] {
        browser.press(key);
        let at = browser.text("pair");
        assert!(at.starts_with(&pair), "{at}");
    }

    browser.run("document.getElementById('order').focus()");
    browser.press(ARROW_DOWN);
    wait_until("the other order", TIMEOUT, || {
        table(&browser)[0][1..] == ["node-1", "node-2", "node-3", "node-4"]
    });
    browser.press(TAB);
    let pair = browser.text("pair");
    assert!(
        pair.starts_with("node-1 (127.0.1.1) → node-3 (127.0.1.3): "),
        "{pair}"
    );
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_mesh_of_many_nodes_is_drawn_small_with_a_list_of_the_worst() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let nodes = Nodes::start(41, Some("7:in"));
    let (_caller, admin) = nodes.caller("127.0.0.1:0");
    browser.resize(320, 900, false);
    browser.open(&format!("http://{admin}/mesh"));
    // Each line has the numbers of nodes that reach the node and that it reaches; the broken node comes first.
    let worst = r"
        const said = /^(?:node-\d+ \()?(127\.0\.1\.\d+)\)?: reached by (\d+) of (\d+), (?:reaches (\d+) of (\d+)|row missing: \w+)$/;
        const lines = [...document.querySelectorAll('#worst li')].map(line => line.textContent.match(said));
        const isBad = line => line && (+line[2] < +line[3] || !line[4] || +line[4] < +line[5]);
        return lines.length > 1 && lines.every(isBad) && lines[0][1] === '127.0.1.7' && !lines[0][4]";
    wait_until("the worst nodes", TIMEOUT, || browser.run(worst) == true);
    assert_eq!(count(&browser, "td"), 0);
    let drawn = "return [document.querySelector('table').checkVisibility(), \
        document.querySelector('canvas').checkVisibility(), box.scrollWidth <= box.clientWidth]";
    assert_eq!(browser.run(drawn), json!([false, true, true]));

    // The corner of each cell has the colour of its result; a mark, if there is one, is in the middle.
    browser.resize(1280, 900, false);
    let wrong = "
        const { width } = canvas, shot = canvas.getContext('2d').getImageData(0, 0, width, width).data;
        const colors = new Map(), css = name => getComputedStyle(canvas).getPropertyValue(`--${name}`);
        const wrong = [];
        order.forEach((from, i) => order.forEach((to, j) => {
            const at = 4 * ((i * size + 1) * width + j * size + 1), seen = [...shot.slice(at, at + 4)];
            const row = data.cells[from], name = row ? look(row[to]) : 'missing';
            const hex = css(name).match(/^ *#(..)(..)(..)$/)?.slice(1).map(part => parseInt(part, 16));
            if (String(seen) !== String(hex ? [...hex, 255] : [0, 0, 0, 0])) wrong.push([from, to, name, seen]);
            colors.set(name, 1 + (colors.get(name) ?? 0));
        }));
        return [width === 41 * size, wrong, colors.get('missing') >= 41, colors.get('brief') > 0]";
    wait_until("it is drawn in its new size", TIMEOUT, || {
        browser.run("return size") == 16
    });
    assert_eq!(browser.run(wrong), json!([true, [], true, true]));
    browser.check_layout(PICTURES, "mesh-41");

    // Ordered by name, because that order does not change; from the first pair on.
    browser.run("document.getElementById('order').focus()");
    browser.press(ARROW_DOWN);
    let canvas = "document.querySelector('canvas')";
    let first = "node-1 (127.0.1.1) → node-1 (127.0.1.1): itself";
    point_at(&browser, "mousePressed", canvas, first);
    enter_the_matrix(&browser);
    for (key, from, to) in [
        (ARROW_RIGHT, 1, 2),
        (ARROW_DOWN, 2, 2),
        (ARROW_DOWN, 3, 2),
        (ARROW_LEFT, 3, 1),
        (END, 3, 41),
        (HOME, 3, 1),
    ] {
        browser.press(key);
        let pair = browser.text("pair");
        let wanted = format!("node-{from} (127.0.1.{from}) → node-{to} (127.0.1.{to}): ");
        assert!(pair.starts_with(&wanted), "{pair}, not {wanted}");
    }
    assert_eq!(browser.console(), Vec::<String>::new());
}

/// The data of four nodes, of which one is not reached and has a name that is markup.
fn not_ok() -> Value {
    json!({
        "version": "0.2.0",
        "time": "2026-11-26T01:20:03.120Z",
        "name": HOSTILE,
        "targets": [format!("http://{HOSTILE}/")],
        "state": "not_ok",
        "sentence": format!("{HOSTILE} (10.0.3.7) is not reached from 3 of 3 nodes (connect_timeout), and its row is missing"),
        "next": format!("kubectl get node '{HOSTILE}' -o wide"),
        "also": [format!("node-1 does not reach {HOSTILE}"), "node-4 is slow"],
        "more": 5,
        "failing_briefly": 1,
        "left_out": 12,
        "nodes": [
            { "address": "10.0.1.7", "node": "node-1", "row": "ok" },
            { "address": "10.0.2.7", "node": "node-2", "row": "ok" },
            { "address": "10.0.3.7", "node": HOSTILE, "row": "connect_timeout" },
            { "address": "10.0.4.7", "node": null, "row": "ok" },
        ],
        "failures": ["connect_timeout", "path_mtu"],
        "buckets_ms": [0.25, 0.5, 1, 2.5, 5, 10, 25, 100, 1000],
        "cells": ["-0Ab", "1-A<", null, " 9A-"],
        "ms": [[null, 0.2, null, null], [0.412, null, null, null], null, [null, 1234, null, null]],
        "pairs": [
            { "from": 0, "to": 2, "result": "connect_timeout", "since_s": 90000, "asked_s": 4 },
            { "from": 0, "to": 3, "result": "path_mtu", "since_s": 12, "asked_s": 2, "detail": HOSTILE },
        ],
    })
}

/// The data of forty nodes that reach each other.
fn forty() -> Value {
    let mut data = not_ok();
    let node = |number: usize| {
        let name = format!("gke-prod-pool-{number}.example.internal");
        json!({ "address": format!("10.0.{number}.7"), "node": name, "row": "ok" })
    };
    data["nodes"] = (1..=40).map(node).collect();
    let row = |from: usize| {
        let cell = |to: usize| if from == to { '-' } else { '2' };
        (0..40).map(cell).collect::<String>()
    };
    data["cells"] = (0..40).map(row).collect();
    data["ms"] = vec![vec![0.7; 40]; 40].into();
    data["pairs"] = json!([]);
    data
}

#[test]
fn data_is_shown_as_text_and_never_as_markup() {
    let Some(browser) = Browser::start() else {
        return;
    };
    // The page of a real caller.
    let bed = Bed::start(&[]);
    let mut command = bed.caller(env!("CARGO_BIN_EXE_caller"));
    let command = command.env("CALLER_ADMIN_LISTEN", "127.0.0.1:0");
    let (_caller, admin) = caller(command.args(["--interval=1h", "--sample=1"]));
    let matrix = Arc::new(Mutex::new(not_ok()));
    let addr = serve(get(admin, "/mesh"), Arc::clone(&matrix));
    let set = |news: Value| *matrix.lock().expect("no thread panics") = news;
    let url = format!("http://{addr}/");
    browser.resize(1280, 900, false);
    browser.open(&format!("{url}mesh"));

    browser.wait_for_text("verdict", "✗ NOT OK");
    assert_eq!(browser.title(), "✗ NOT OK – mesh");
    let shown = |text: &Value| {
        let text = text.as_str().expect("text");
        text.replace(HOSTILE, HOSTILE_SHOWN)
    };
    let data = not_ok();
    assert_eq!(browser.text("sentence"), shown(&data["sentence"]));
    assert_eq!(browser.text("next"), shown(&data["next"]));
    let also = format!("{}\nnode-4 is slow\nand 5 more", shown(&data["also"][0]));
    assert_eq!(browser.text("also"), also);
    assert_eq!(
        browser.text("briefly"),
        "1 pair fails for less than a minute; not counted yet"
    );
    assert_eq!(
        browser.text("left-out"),
        "12 more nodes are not in the matrix, which has room for 4"
    );
    assert_eq!(
        browser.text("what"),
        format!(
            "4 nodes behind http://{HOSTILE_SHOWN}/, collected by {HOSTILE_SHOWN}. As of 2026-11-26 01:20:03 UTC."
        )
    );
    // The worst come first. A long name is cut in the middle, and the tooltip has all of it.
    let short = "<img s…>\\u{202e}";
    assert_eq!(
        table(&browser),
        [
            vec!["from ↓ to →", short, "10.0.4.7", "node-1", "node-2"],
            vec![short, "row missing: connect_timeout"],
            vec!["10.0.4.7", "A", "·", " ", "1234"],
            vec!["node-1", "A", "b", "·", "0.2"],
            vec!["node-2", "A", "<", "0.4", "·"],
        ]
    );
    let title = browser.run("return document.querySelector('thead th:nth-child(2)').title");
    assert_eq!(title, format!("{HOSTILE_SHOWN} (10.0.3.7)"));
    assert_eq!(
        browser.text("pairs").lines().collect::<Vec<_>>(),
        [
            format!(
                "node-1 → {HOSTILE_SHOWN}: connect_timeout, for 25 h 0 min, since 2026-11-25 00:20:03, asked 4 s ago"
            ),
            format!(
                "node-1 → 10.0.4.7: path_mtu, {HOSTILE_SHOWN}, for 12 s, since 01:19:51, asked 2 s ago, not counted yet"
            ),
        ]
    );
    browser.check_layout(PICTURES, "mesh-not-ok");
    for (class, cells) in [
        ("fail", 3),
        ("brief", 1),
        ("missing", 1),
        ("left", 1),
        ("b9", 1),
    ] {
        assert_eq!(count(&browser, &format!("td.{class}")), cells, "{class}");
    }
    assert_eq!(count(&browser, "img"), 0, "no markup out of data");
    assert_eq!(count(&browser, "script"), 1);

    browser.run("document.getElementById('copy').focus()");
    browser.press(ENTER);
    browser.wait_for_text("copied", "Copied");

    // The mesh recovers.
    let mut data = not_ok();
    data["state"] = "ok".into();
    data["next"] = Value::Null;
    set(data);
    refresh(&browser);
    assert_eq!(browser.text("verdict"), "✓ OK");
    assert_eq!(browser.text("step"), "");

    // As many nodes as fit into a table, with names as cloud providers give them.
    set(forty());
    refresh(&browser);
    let heads = table(&browser).remove(0);
    assert_eq!(heads.len(), 41);
    assert_eq!(heads[1..3], ["1", "2"]);
    assert_eq!(
        browser.text("cut"),
        "Names are shown without “gke-prod-pool-….example.internal”."
    );
    let is_in_view = "const pair = document.getElementById('pair'), { x, y } = pair.getBoundingClientRect(); \
        return y < box.getBoundingClientRect().bottom && document.elementFromPoint(x + 9, y + 9) === pair";
    assert_eq!(
        browser.run(is_in_view),
        true,
        "what is said of a pair stays in view"
    );
    browser.check_layout(PICTURES, "mesh-40");

    set(json!({
        "version": "0.2.0", "time": "2026-11-26T01:20:08.120Z", "name": null, "targets": ["http://mesh:8080/"],
        "state": "no_rows", "sentence": "no rows: mesh does not exist", "next": "kubectl get services",
        "also": [], "more": 0, "failing_briefly": 0, "left_out": 0, "nodes": [], "failures": [], "buckets_ms": [],
        "cells": [], "ms": [], "pairs": [],
    }));
    refresh(&browser);
    assert_eq!(browser.text("verdict"), "? No rows");
    assert_eq!(browser.title(), "? No rows – mesh");
    assert_eq!(browser.text("sentence"), "no rows: mesh does not exist");
    assert_eq!(browser.text("next"), "kubectl get services");
    assert_eq!(browser.text("copied"), "", "another command");
    assert_eq!(browser.text("rest"), "");
    browser.check_layout(PICTURES, "mesh-no-rows");
    assert_eq!(browser.console(), Vec::<String>::new());
    assert_no_foreign_requests(&browser, &url);
}
