//! The live page: its data, over HTTP; and what a person sees of it, in a real browser. The states are: before the
//! first call, working, unsteady, failing, working again, and after a restart of the caller; with one target, several,
//! many, and one over TLS. The layout of each is checked in several sizes and both colour schemes, and pictures are
//! saved in the target directory.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use local_cluster::cluster::SERVICE;
use serde_json::Value;
use tempfile::TempDir;
use test_support::bed::Bed;
use test_support::browser::keys::{ARROW_DOWN, ARROW_LEFT, END, ENTER, ESCAPE, TAB};
use test_support::browser::{Browser, HOSTILE, HOSTILE_SHOWN, nonce};
use test_support::http::{Connection, exchange, get};
use test_support::process::{Process, caller};
use test_support::{TIMEOUT, Tool, tool, wait_until};

/// The directory for the pictures.
const PICTURES: &str = env!("CARGO_TARGET_TMPDIR");

fn start(bed: &Bed, admin: &str, args: &[&str]) -> (Process, SocketAddr) {
    let mut command = bed.caller(env!("CARGO_BIN_EXE_caller"));
    command
        .env("CALLER_ADMIN_LISTEN", admin)
        .env("POD_NAME", "frontend-1")
        .args(args);
    caller(&mut command)
}

/// The number of connections that an admin port has not closed, from the kernel's table (proc(5)).
fn connections(admin: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let port = format!(":{:04X}", admin.port());
    let is_open = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        // ESTABLISHED, or CLOSE_WAIT: closed by the client.
        local.ends_with(&port) && matches!(fields.nth(1), Some("01" | "08"))
    };
    table.lines().filter(is_open).count()
}

/// Starts a caller of the targets in a file with these lines.
fn start_file(bed: &Bed, lines: &str, args: &[&str]) -> (Process, SocketAddr) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("targets");
    std::fs::write(&file, lines).expect("it can be written");
    let args = [&["--targets", file.to_str().expect("UTF-8")], args].concat();
    // The caller has read the file before it opens the admin port.
    start(bed, "127.0.0.1:0", &args)
}

/// Five targets: one fails, and two fail as expected.
fn five(bed: &Bed) -> String {
    let port = bed.service.port();
    format!(
        "ok              http://backend:{port}/     name=backend
         dns_nxdomain    http://old-name/
         ok              http://127.0.0.2:{port}/   name=db
         connect_refused http://127.0.0.3:{port}/
         ok              tcp://127.0.0.1:{port}"
    )
}

fn status(admin: SocketAddr) -> Value {
    serde_json::from_str(&get(admin, "/status.json").body).expect("JSON")
}

/// The error of the newest failure in a status.
fn last_error(status: &Value) -> &Value {
    let failures = status["failures"].as_array().expect("a list");
    &failures.last().expect("one call failed")["error"]
}

fn heal(bed: &Bed) {
    bed.records
        .set(SERVICE, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
}

/// Gives the Service an address at which nothing listens.
fn refuse(bed: &Bed) {
    bed.records
        .set(SERVICE, [IpAddr::from(Ipv4Addr::new(127, 0, 0, 2))]);
}

/// Starts a server that responds as two pods behind one address: to two requests of three as `backend-1`, and to the
/// third as `backend-2`, with an error.
fn one_sick_pod() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { return };
            let mut stream = BufReader::new(stream);
            let (status, pod) = match number % 3 {
                2 => ("503 Service Unavailable", "backend-2"),
                _ => ("200 OK", "backend-1"),
            };
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            let head = format!("HTTP/1.1 {status}\r\nX-Pod-Name: {pod}\r\nContent-Length: 0\r\n");
            let answer = format!("{head}Connection: close\r\n\r\n");
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    addr
}

/// The cells of the rows of a table, by the id of its body.
fn table(browser: &Browser, id: &str) -> Vec<Vec<String>> {
    let cells = browser.run(&format!(
        "return [...document.getElementById('{id}').rows].map(row => \
             [...row.cells].map(cell => cell.textContent))"
    ));
    serde_json::from_value(cells).expect("rows of cells")
}

/// The target whose link has the focus, in the overview.
fn focused(browser: &Browser) -> String {
    let target = "return document.activeElement.closest('#targets a')?.textContent ?? ''";
    browser.run(target).as_str().expect("text").to_owned()
}

fn click(browser: &Browser, selector: &str) {
    browser.run(&format!("document.querySelector({selector:?}).click()"));
}

/// The next event of a stream: its id and its data.
fn event(stream: &mut Connection) -> (String, Value) {
    let (mut id, mut data) = (String::new(), Value::Null);
    loop {
        let line = stream.line();
        match line.split_once(": ") {
            Some(("id", value)) => id = value.to_owned(),
            Some(("data", value)) => data = serde_json::from_str(value).expect("JSON"),
            _ if line.is_empty() && !data.is_null() => return (id, data),
            _ => {}
        }
    }
}

fn events(admin: SocketAddr, last: Option<&str>) -> Connection {
    let mut stream = Connection::open(admin);
    let last = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
    stream.send(format!(
        "GET /events HTTP/1.1\r\nHost: caller\r\n{last}\r\n"
    ));
    let head = stream.reply_to_head();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    // The body is in chunks: each begins with a line that has its size, and ends with an empty line.
    stream
}

#[test]
fn the_status_and_the_log_have_the_same_data() {
    let bed = Bed::start(&["backend-1"]);
    let (caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=20ms", "--format=json"]);
    wait_until("a call", TIMEOUT, || status(admin)["ok"] == true);
    let well = status(admin);
    assert_eq!(well["name"], "frontend-1");
    assert_eq!(well["mesh"], false);
    assert_eq!(well["last"]["pod"], "backend-1");
    assert_eq!(well["state"], "working");
    assert_eq!(well["recent"]["failed"], 0);
    assert_eq!(well["calls"][0]["pod"], "backend-1");
    assert_eq!(well["before"], Value::Null);
    assert_eq!(well["next"], Value::Null);
    assert_eq!(well["failures"], Value::Array(Vec::new()));
    assert!(well["last_success"].is_string());

    bed.records.remove(SERVICE);
    // The first call that fails may have sent one query before the removal and one after it.
    let kind = |status: &Value| status["last"]["error"]["kind"].clone();
    wait_until("a failure", TIMEOUT, || {
        kind(&status(admin)) == "dns_nxdomain"
    });
    // A single failure is not an outage.
    wait_until("another failure", TIMEOUT, || {
        status(admin)["recent"]["failed"].as_u64() > Some(1)
    });
    let ill = status(admin);
    let id = ill["last"]["request_id"].as_str().expect("text");
    let logged = caller.wait_for_stdout(id);
    assert_eq!(
        ill["last"],
        serde_json::from_str::<Value>(&logged).expect("JSON")
    );
    assert_eq!(ill["ok"], false);
    assert_eq!(ill["state"], "failing");
    assert_eq!(ill["before"]["state"], "working");
    assert_eq!(ill["before"]["since"], well["state_since"]);
    assert_eq!(ill["before"]["until"], ill["state_since"]);
    assert_eq!(ill["recent"]["failures"][0]["kind"], "dns_nxdomain");
    assert_eq!(
        ill["next"],
        "kubectl get services -n pod-to-pod-communication"
    );
    let first_failure = &ill["failures"][0];
    assert_eq!(ill["since"], first_failure["time"]);
    assert_eq!(ill["state_since"], first_failure["time"]);
    let number = first_failure["number"].as_u64().expect("a number");
    let first_call = ill["first_call"].as_u64().expect("a number");
    let brief = &ill["calls"][usize::try_from(number - first_call).expect("it is there")];
    assert_eq!(brief["time"], first_failure["time"]);
    assert_eq!(brief["result"], first_failure["error"]["kind"]);
    assert_eq!(brief["pod"], Value::Null);

    heal(&bed);
    wait_until("a success", TIMEOUT, || status(admin)["ok"] == true);
    assert!(status(admin)["summary"]["failed"].as_u64() > Some(0));
    wait_until("a recovery", TIMEOUT, || {
        status(admin)["state"] == "working"
    });
    let recovered = status(admin);
    assert_eq!(recovered["state_since"], recovered["since"]);
    assert_eq!(recovered["before"]["state"], "failing");
    assert_eq!(recovered["before"]["since"], ill["since"]);
    // The last call that fails may have sent one query before the repair and one after it.
    assert_eq!(recovered["before"]["kind"], last_error(&recovered)["kind"]);
}

#[test]
fn before_the_first_call_the_status_is_waiting() {
    let bed = Bed::start(&["backend-1"]);
    bed.records.remove(SERVICE);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--wait=1h"]);
    let status = status(admin);
    assert_eq!(status["state"], "waiting");
    assert_eq!(status["state_since"], Value::Null);
    assert_eq!(status["recent"]["calls"], 0);
}

#[test]
fn a_pod_that_fails_now_and_then_is_named() {
    let bed = Bed::start(&[]);
    bed.endpoints.set([one_sick_pod()]);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=20ms"]);
    wait_until("ten calls", TIMEOUT, || {
        status(admin)["recent"]["calls"] == 10
    });
    let status = status(admin);
    assert_eq!(status["state"], "unsteady");
    let failed = &status["recent"]["failed"];
    assert!(*failed == 3 || *failed == 4, "{failed}");
    let failures = status["recent"]["failures"].as_array().expect("a list");
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0]["pod"], "backend-2");
    assert_eq!(failures[0]["status"], 503);
    assert_eq!(failures[0]["calls"], *failed);
    let last = &status["failures"][0];
    assert_eq!(last["pod"], "backend-2");
    assert!(
        last["next"]
            .as_str()
            .is_some_and(|next| next.starts_with("kubectl "))
    );
}

#[test]
fn one_address_of_two_that_refuses_is_named() {
    let bed = Bed::start(&["backend-1"]);
    let addresses = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];
    bed.records.set(SERVICE, addresses.map(IpAddr::from));
    let args = ["--interval=20ms", "--each-address"];
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &args);
    wait_until("ten rounds", TIMEOUT, || {
        status(admin)["recent"]["calls"] == 20
    });
    let status = status(admin);
    assert_eq!(status["state"], "failing");
    assert_eq!(status["recent"]["failed"], 10);
    assert!(status["last_success"].as_str() > status["state_since"].as_str());
    let failure = &status["recent"]["failures"][0];
    let refused = format!("127.0.0.2:{}", bed.service.port());
    assert_eq!(failure["address"], refused);
    assert_eq!(failure["pod"], Value::Null);
    assert_eq!(failure["calls"], 10);
}

#[test]
fn a_change_of_cause_keeps_the_start_of_the_outage() {
    let bed = Bed::start(&["backend-1"]);
    refuse(&bed);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=20ms"]);
    let wait_for = |kind: &str| {
        wait_until(kind, TIMEOUT, || {
            status(admin)["last"]["error"]["kind"] == kind
        });
        status(admin)
    };
    let refused = wait_for("connect_refused");
    assert_eq!(refused["cause_since"], refused["state_since"]);
    bed.records.remove(SERVICE);
    let unknown = wait_for("dns_nxdomain");
    assert_eq!(unknown["state_since"], refused["state_since"]);
    let since = |status: &Value| status["cause_since"].as_str().map(str::to_owned);
    assert!(since(&unknown) > since(&refused));
}

#[test]
fn the_history_is_bounded() {
    let bed = Bed::start(&["backend-1"]);
    bed.records.remove(SERVICE);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=0s"]);
    let calls = || status(admin)["summary"]["calls"].as_u64();
    wait_until("1000 calls", TIMEOUT, || calls() > Some(1000));
    let status = status(admin);
    assert_eq!(status["calls"].as_array().map(Vec::len), Some(360));
    assert_eq!(status["failures"].as_array().map(Vec::len), Some(20));
    let newest = status["failures"][19]["number"].as_u64();
    let first = status["first_call"].as_u64().expect("a number");
    assert_eq!(newest, Some(first + 359));
}

#[test]
fn events_continue_after_the_last_event_id() {
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=20ms"]);
    let mut stream = events(admin, None);
    let (_, first) = event(&mut stream);
    let (id, second) = event(&mut stream);
    let end = |event: &Value| {
        let calls = event["calls"].as_array().expect("a list").len() as u64;
        event["first_call"].as_u64().expect("a number") + calls
    };
    assert_eq!(second["first_call"], end(&first));
    drop(stream);

    // A browser that has lost its connection sends the id of the last event that it got.
    let (_, third) = event(&mut events(admin, Some(&id)));
    assert_eq!(third["first_call"], end(&second));
    // An id of another caller, an invalid one and an empty one start from the beginning; one from the future gets
    // nothing.
    for id in ["0000000000000000:7", "nonsense", ""] {
        assert_eq!(event(&mut events(admin, Some(id))).1["first_call"], 0);
    }
    let (instance, _) = id.split_once(':').expect("it has two parts");
    let future = format!("{instance}:{}", u64::MAX);
    let (_, empty) = event(&mut events(admin, Some(&future)));
    assert_eq!(empty["calls"], Value::Array(Vec::new()));
}

#[test]
fn a_page_too_many_ends_the_oldest_stream_and_leaves_connections_for_probes() {
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=20ms"]);
    let mut streams: Vec<Connection> = (0..17).map(|_| events(admin, None)).collect();
    assert_eq!(get(admin, "/readyz").status(), 200);
    let mut oldest = streams.remove(0);
    // The chunk that ends a body.
    while oldest.line() != "0\r" {}
    for stream in &mut streams {
        // Each goes on.
        let (_, first) = event(stream);
        let (_, second) = event(stream);
        assert_ne!(first["first_call"], second["first_call"]);
    }
}

#[test]
fn the_page_loads_nothing_from_other_servers() {
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &[]);
    let page = get(admin, "/");
    assert_ne!(nonce(&page), nonce(&get(admin, "/")), "it is used once");
    assert!(!page.body.contains("://") || page.body.matches("://").count() == 1);
    assert!(
        page.body.contains("'http://www.w3.org/2000/svg'"),
        "a namespace"
    );
    for path in ["/", "/status.json", "/events"] {
        assert_eq!(
            exchange(
                admin,
                format!("POST {path} HTTP/1.1\r\nHost: caller\r\n\r\n")
            )
            .status(),
            405
        );
    }
}

#[test]
fn a_browser_shows_that_there_was_no_call_yet() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::start(&["backend-1"]);
    bed.records.remove(SERVICE);
    let (caller, admin) = start(&bed, "127.0.0.1:0", &["--wait=1h"]);
    caller.wait_for_stderr("waiting");
    browser.open(&format!("http://{admin}/"));
    browser.wait_for_text("title", "caller in frontend-1");
    assert_eq!(browser.text("verdict"), "Waiting for the first call");
    assert_eq!(browser.title(), "Waiting for the first call – frontend-1");
    assert_eq!(browser.text("why"), "");
    browser.check_layout(PICTURES, "waiting");

    heal(&bed);
    browser.wait_for_text("verdict", "✓ Working");
}

#[test]
fn a_browser_shows_which_pod_is_unsteady() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::start(&[]);
    bed.endpoints.set([one_sick_pod()]);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=100ms"]);
    browser.resize(1280, 900, false);
    browser.open(&format!("http://{admin}/"));

    let verdict = browser.wait_for_text("verdict", "of the last 10 calls failed");
    assert!(verdict.starts_with("! Unsteady: "), "{verdict}");
    assert!(browser.title().starts_with("! Unsteady: "));
    browser.wait_for_text("since", "unsteady since ");
    let recent = browser.text("recent");
    assert!(recent.starts_with("HTTP 503 from backend-2 ("), "{recent}");
    let cause = browser.text("cause");
    assert!(cause.starts_with("Likely cause: "), "{cause}");
    assert_eq!(browser.text("why").matches("ikely").count(), 1, "said once");
    let row = |pod: &str| {
        let rows = browser.text("pods");
        let row = rows.lines().find(|row| row.starts_with(pod));
        let cells = row.map(|row| row.split_whitespace().map(str::to_owned).collect());
        cells.unwrap_or_else(Vec::new)
    };
    // The columns are pod, calls, failed and share.
    let (well, sick) = (row("backend-1"), row("backend-2"));
    assert_eq!(well[2], "0", "{well:?}");
    assert_ne!(sick[2], "0", "{sick:?}");
    assert_eq!(sick[1], sick[2], "{sick:?}");
    browser.wait_for_text("failures", "backend-2");
    browser.check_layout(PICTURES, "unsteady");

    // By keyboard, and without the permission as well.
    let permit = |name: &str, setting: &str| {
        let permission = serde_json::json!({ "name": name, "allowWithoutSanitization": false });
        let params = serde_json::json!({ "permission": permission, "setting": setting });
        browser.devtools("Browser.setPermission", &params);
    };
    permit("clipboard-read", "granted");
    permit("clipboard-write", "granted");
    for _ in 0..10 {
        if browser.run("return document.activeElement.id") == "copy" {
            break;
        }
        browser.press(TAB);
    }
    assert_eq!(browser.run("return document.activeElement.id"), "copy");
    let next = browser.text("next");
    assert!(next.starts_with("kubectl "), "{next}");
    browser.press(ENTER);
    browser.wait_for_text("copied", "Copied");
    let copied = "return navigator.clipboard.readText()";
    assert_eq!(browser.run(copied), next.as_str());
    let selected = "return getSelection().toString()";
    assert_eq!(browser.run(selected), "");
    permit("clipboard-write", "denied");
    browser.press(ENTER);
    wait_until("it is selected", TIMEOUT, || {
        browser.run(selected) == next.as_str()
    });
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_browser_shows_calls_work_fail_recover_and_restart() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::start(&["backend-1", HOSTILE]);
    let (caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=100ms"]);
    let url = format!("http://{admin}/");
    browser.resize(1280, 900, false);
    browser.open(&url);

    // It works, and goes on by itself.
    browser.wait_for_text("verdict", "✓ Working");
    browser.wait_for_text("since", "working since ");
    let calls = || browser.text("calls").parse::<u64>().unwrap_or(0);
    let seen = calls();
    wait_until("another call", TIMEOUT, || calls() > seen + 10);
    browser.wait_for_text("pods", "backend-1");
    browser.wait_for_text("pods", HOSTILE_SHOWN);
    browser.wait_for_text("dns", "backend.pod-to-pod-communication.svc.cluster.local.");
    assert_eq!(browser.text("why"), "");
    assert_eq!(browser.text("before"), "");
    assert_eq!(browser.text("mesh"), "", "it is part of none");
    assert_eq!(browser.title(), "✓ Working – frontend-1");
    browser.wait_for_text("quantiles", "a success took ");
    let everything = "return document.body.innerText";
    let everything = browser.run(everything).as_str().expect("text").to_owned();
    assert_eq!(
        everything.matches("UTC").count(),
        1,
        "said once, at the top"
    );
    browser.check_layout(PICTURES, "working");

    // By keyboard: one call back, which then stays selected; then the newest call again, which is followed.
    let chosen = || {
        browser.run(
            "const c = document.getElementById('cursor'); return [Number(c.value), Number(c.max)]",
        )
    };
    browser.run("document.getElementById('cursor').focus()");
    browser.press(ARROW_LEFT);
    let before = chosen();
    wait_until("a newer call", TIMEOUT, || chosen()[1] != before[1]);
    assert_eq!(chosen()[0], before[0]);
    assert!(browser.text("call").contains(": ok, "));
    browser.press(END);
    wait_until("the newest call", TIMEOUT, || chosen()[0] == chosen()[1]);
    let tree = browser.devtools("Accessibility.getFullAXTree", &serde_json::json!({}));
    let nodes = tree["nodes"].as_array().expect("a list");
    for (role, name) in [
        ("slider", "Look at one call: drag, or use the arrow keys"),
        ("heading", "Who answered these calls"),
        ("status", ""),
        ("region", "What DNS was asked for the last call"),
    ] {
        let found = |node: &&Value| {
            node["role"]["value"] == role && node["name"]["value"].as_str().unwrap_or("") == name
        };
        assert!(nodes.iter().any(|node| found(&node)), "no {role} {name:?}");
    }

    // It fails.
    refuse(&bed);
    browser.wait_for_text("verdict", "✗ Failing: the connection was refused");
    browser.wait_for_text("since", "no success for ");
    browser.wait_for_text("before", "Before that: working ");
    let since = browser.text("since");
    assert!(since.starts_with("failing since "), "{since}");
    assert!(!since.contains("this cause"), "{since}");
    browser.wait_for_text("pods", "nobody at 127.0.0.2:");

    // The kind of failure changes; the page has the same words as the log.
    bed.records.remove(SERVICE);
    browser.wait_for_text("verdict", "✗ Failing: the name does not exist");
    assert_eq!(
        browser.title(),
        "✗ Failing: the name does not exist – frontend-1"
    );
    browser.wait_for_text("since", "; this cause since ");
    assert_eq!(
        browser.text("cause"),
        "Likely cause: no such Service in that namespace"
    );
    let evidence = browser.text("evidence");
    let (_, evidence) = evidence.split_once(": ").expect("when it was seen");
    caller.wait_for_stdout(evidence);
    assert_eq!(
        browser.text("next"),
        "kubectl get services -n pod-to-pod-communication"
    );
    browser.wait_for_text(
        "failures",
        "the name does not exist; likely no such Service in that namespace",
    );
    let gap = "return document.querySelector('svg .gap')?.textContent ?? ''";
    wait_until("the gap in words", TIMEOUT, || {
        let gap = browser.run(gap);
        gap.as_str()
            .is_some_and(|gap| gap.ends_with(" without a success"))
    });
    let numbers = "return [/no success for (.*)/.exec(document.getElementById('since').innerText)?.[1], \
        /(.*) ago/.exec(document.getElementById('last-success').innerText)?.[1], \
        /(.*) without a success/.exec(document.querySelector('svg .gap')?.textContent)?.[1]]";
    wait_until("one number for one outage", TIMEOUT, || {
        let numbers = browser.run(numbers);
        numbers[0].is_string() && numbers[0] == numbers[1] && numbers[1] == numbers[2]
    });
    let hatched = "const [fail, rest, plot] = ['.fail', '.rest', ''].map(part => \
        document.querySelector(`svg${part && ` path${part}`}`)); \
        return [fail.getBBox().height, plot.clientHeight - 36, \
            rest.compareDocumentPosition(fail) === Node.DOCUMENT_POSITION_FOLLOWING]";
    let hatched = browser.run(hatched);
    assert_eq!(hatched[0], hatched[1], "over the whole height");
    assert_eq!(hatched[2], true, "in front of the phases");
    browser.check_layout(PICTURES, "failing");

    // It works again: it is unsteady at first, and then the page shows the earlier outage.
    heal(&bed);
    browser.wait_for_text("verdict", "✓ Working");
    let before = browser.wait_for_text("before", "Before that: failing ");
    let error = last_error(&status(admin))["message"].clone();
    let message = error.as_str().expect("text");
    assert!(before.ends_with(&format!(", {message}")), "{before}");
    browser.check_layout(PICTURES, "recovered");

    assert_eq!(browser.console(), Vec::<String>::new());
    let made = "return document.querySelectorAll('img').length";
    assert_eq!(browser.run(made), 0, "no markup out of data");

    // The caller ends, and the page says that it is out of date. Another caller takes its place.
    drop(caller);
    browser.wait_for_text("lost", "No contact with the caller since ");
    browser.wait_for_text("lost", "kubectl port-forward");
    assert_eq!(browser.text("verdict"), "Unknown: no contact");
    assert_eq!(browser.title(), "Unknown: no contact – frontend-1");
    let since = browser.text("since");
    assert!(since.starts_with("was working until "), "{since}");
    let last = browser.text("last-success");
    assert!(!last.contains("ago"), "{last}");
    browser.check_layout(PICTURES, "lost");
    let (_caller, _) = start(&bed, &admin.to_string(), &["--interval=1h"]);
    browser.wait_for_text("verdict", "✓ Working");
    assert_eq!(browser.text("lost"), "");
    assert_eq!(calls(), 1, "those of the new caller alone");
    assert_eq!(browser.text("failures"), "");
    assert_eq!(browser.text("before"), "");
    browser.check_layout(PICTURES, "restarted");

    assert_eq!(browser.errors(), Vec::<String>::new());
    let elsewhere = |asked: &String| !asked.starts_with(&url) && !asked.starts_with("data:");
    let requests: Vec<String> = browser.requests();
    assert!(requests.contains(&format!("{url}events")), "{requests:?}");
    let elsewhere: Vec<&String> = requests.iter().filter(|asked| elsewhere(asked)).collect();
    assert_eq!(elsewhere, Vec::<&String>::new());
}

#[test]
fn an_old_run_is_shown_with_its_longest_gap_and_the_pods_that_are_gone_last() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=1h"]);
    browser.resize(320, 900, false);
    browser.open(&format!("http://{admin}/"));
    browser.wait_for_text("verdict", "✓ Working");

    // A minute of calls, one a second. One pod is gone, two are not. The longer one of two outages begins so soon
    // after the other that there is room for one label only.
    let mut old = status(admin);
    let call = |second: usize| {
        let failed = (30..33).contains(&second) || (36..50).contains(&second);
        let result = if failed { "connect_refused" } else { "ok" };
        let pod = match second {
            _ if failed => Value::Null,
            0..5 => "backend-a".into(),
            _ if second.is_multiple_of(2) => "backend-c".into(),
            _ => "backend-b".into(),
        };
        serde_json::json!({
            "time": format!("2025-12-10T16:20:{second:02}.000Z"),
            "result": result,
            "pod": pod,
            "address": "10.96.3.4:8080",
            "phases_ms": { "total": if failed { 5000.0 } else { second as f64 } },
        })
    };
    old["calls"] = (0..60).map(call).collect();
    old["first_call"] = 1000.into();
    old["interval_ms"] = 1000.0.into();
    old["time"] = "2025-12-10T16:21:00.000Z".into();
    old["before"] = serde_json::json!({
        "state": "failing",
        "since": "2025-12-09T23:59:58.000Z",
        "until": "2025-12-10T00:00:03.000Z",
        "message": "the connection was refused",
    });
    // In one script, so that no event arrives in between.
    let shown = browser.run(&format!(
        "receive({{ data: {} }}); \
         return [[...document.querySelectorAll('svg .gap')].map(label => label.textContent), \
             [...document.getElementById('pods').rows].map(row => row.cells[0].textContent), \
             document.getElementById('before').textContent, \
             document.getElementById('quantiles').textContent]",
        Value::from(old.to_string())
    ));
    assert_eq!(shown[0], serde_json::json!(["15 s without a success"]));
    assert_eq!(
        shown[1],
        serde_json::json!([
            "backend-b",
            "backend-c",
            "nobody at 10.96.3.4:8080",
            "backend-a"
        ])
    );
    assert_eq!(
        shown[2],
        "Before that: failing 2025-12-09 23:59:58 to 00:00:03, the connection was refused"
    );
    assert_eq!(
        shown[3],
        "Of these calls, a success took 21.0 ms (median), 59.0 ms (99th percentile)."
    );
}

#[test]
fn probes_are_answered_while_the_page_is_flooded_and_every_connection_is_held() {
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=10ms"]);
    // Four times the limit on connections: clients that send nothing, send an incomplete head, or read nothing.
    let heads = [
        "",
        "GET /status.json HTTP/1.1\r\nHost: x\r\n",
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    let _held: Vec<Connection> = (0..256)
        .map(|n| {
            let mut connection = Connection::open(admin);
            connection.send(heads[n % heads.len()]);
            connection
        })
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for path in ["/", "/status.json", "/metrics"] {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    // The connection may be closed to make room for another one.
                    let _ = std::panic::catch_unwind(|| get(admin, path));
                }
            });
        }
        for _ in 0..50 {
            assert_eq!(get(admin, "/livez").status(), 200);
            assert_eq!(get(admin, "/readyz").status(), 200);
        }
        done.store(true, Relaxed);
    });
}

#[test]
fn the_page_answers_to_names_that_only_this_pod_can_have() {
    let bed = Bed::start(&["backend-1"]);
    let args = ["--interval=1h", "--admin-host=caller.example.com"];
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &args);
    let ask = |path: &str, host: &str| {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut connection = Connection::open(admin);
        connection.send(request);
        connection.reply_to_head().status()
    };
    for host in [
        "127.0.0.1:8082",
        "[::1]:8082",
        "localhost:8082",
        "frontend",
        "frontend.pod-to-pod-communication.svc",
        "frontend.pod-to-pod-communication.svc.cluster.local:8082",
        "caller.example.com",
    ] {
        assert_eq!(ask("/", host), 200, "{host}");
        assert_eq!(ask("/status.json", host), 200, "{host}");
    }
    for host in [
        "attacker.example",
        "svc.attacker.example:8082",
        "127.0.0.1.attacker.example",
    ] {
        for path in ["/", "/status.json", "/events"] {
            assert_eq!(ask(path, host), 421, "{host}{path}");
        }
        // Probes and metrics are served under any name.
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(ask(path, host), 200, "{host}{path}");
        }
    }
}

#[test]
fn the_status_of_several_targets_is_an_overview() {
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start_file(&bed, &five(&bed), &["--interval=20ms"]);
    let one = |label: &str| get(admin, &format!("/status.json?target={label}"));
    let states = || {
        let status = status(admin);
        let targets = status["targets"].as_array().expect("a list").iter();
        let state = |target: &Value| target["state"].as_str().expect("text").to_owned();
        targets.map(state).collect::<Vec<_>>()
    };
    wait_until("a call of each", TIMEOUT, || {
        states() == ["working", "working", "failing", "working", "working"]
    });
    let label = format!("http%3A%2F%2F127.0.0.3%3A{}%2F", bed.service.port());
    let refused: Value = serde_json::from_str(&one(&label).body).expect("JSON");
    assert_eq!(refused["expectation"], "connect_refused");
    assert_eq!(refused["calls"][0]["result"], "connect_refused");
    assert_eq!(refused["calls"][0]["as_expected"], true);
    assert_eq!(refused["failures"], Value::Array(Vec::new()));
    assert_eq!(one("nobody").status(), 404);
}

#[test]
fn a_browser_shows_an_overview_and_each_target() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start_file(&bed, &five(&bed), &["--interval=200ms"]);
    let (url, port) = (format!("http://{admin}/"), bed.service.port());
    browser.resize(1280, 900, false);
    browser.open(&url);

    let verdict = "✗ 1 of 5 targets failing: db";
    browser.wait_for_text("verdict", verdict);
    assert_eq!(browser.title(), format!("{verdict} – frontend-1"));
    assert_eq!(browser.text("title"), "caller in frontend-1");
    browser.wait_for_text("what", "calls 5 targets every 0.2 s, started ");
    assert_eq!(browser.text("one"), "");
    assert_eq!(browser.text("path"), "");
    assert_eq!(browser.text("filter"), "", "five are seen at a glance");
    let refused = format!("http://127.0.0.3:{port}/");
    let rows = || {
        let rows = table(&browser, "targets");
        let brief = |row: &Vec<String>| [row[0].clone(), row[1].clone(), row[3].clone()];
        rows.iter().map(brief).collect::<Vec<_>>()
    };
    let expected = [
        [
            "✗ failing",
            &format!("db http://127.0.0.2:{port}/"),
            "the connection was refused",
        ],
        ["✓ working", &format!("backend http://backend:{port}/"), ""],
        [
            "✓ as expected",
            "http://old-name:80/ dns_nxdomain expected",
            "",
        ],
        [
            "✓ as expected",
            &format!("{refused} connect_refused expected"),
            "",
        ],
        ["✓ working", &format!("tcp://127.0.0.1:{port}"), ""],
    ];
    wait_until("a call of each", TIMEOUT, || rows() == expected);
    let calls = |row: usize, column: usize| -> u64 {
        table(&browser, "targets")[row][column].parse().unwrap_or(0)
    };
    let seen = calls(0, 4);
    wait_until("more calls", TIMEOUT, || calls(0, 4) > seen + 10);
    assert_eq!(rows(), expected, "the rows stay where they are");
    assert!(calls(0, 5) > 10);
    assert_eq!(calls(3, 5), 0);
    let since = table(&browser, "targets")[0][2].clone();
    assert!(since.contains(", for "), "{since}");
    browser.check_layout(PICTURES, "targets-5");

    // A click opens a target, and the link leads back.
    click(&browser, "#targets a");
    browser.wait_for_text("verdict", "✗ Failing: the connection was refused");
    assert_eq!(browser.text("path"), "All targets › db");
    let one = "✗ Failing: the connection was refused – db – frontend-1";
    assert_eq!(browser.title(), one);
    assert_eq!(browser.text("all"), "");
    let pods = table(&browser, "pods");
    assert_eq!(pods.len(), 1, "calls of this target alone: {pods:?}");
    assert_eq!(pods[0][0], format!("nobody at 127.0.0.2:{port}"));
    browser.check_layout(PICTURES, "target-of-5");
    click(&browser, "#back");
    browser.wait_for_text("verdict", verdict);

    // By keyboard, from the target that had the focus; and by the browser's own buttons.
    assert_eq!(focused(&browser), "db");
    browser.press('j');
    assert_eq!(focused(&browser), "backend");
    browser.press(ARROW_DOWN);
    browser.press('k');
    browser.press(ENTER);
    browser.wait_for_text("verdict", "✓ Working");
    assert_eq!(browser.text("target"), "backend");
    assert_eq!(table(&browser, "pods")[0][0], "backend-1");
    assert_eq!(browser.text("key-tls"), "");
    assert_eq!(browser.text("tls"), "");
    browser.press(ESCAPE);
    browser.wait_for_text("verdict", verdict);
    assert_eq!(focused(&browser), "backend");
    browser.run("history.back()");
    browser.wait_for_text("target", "backend");
    browser.wait_for_text("verdict", "✓ Working");
    browser.run("history.forward()");
    browser.wait_for_text("verdict", verdict);

    // A target that is refused as expected counts as working.
    click(&browser, "#targets a[href*='127.0.0.3']");
    browser.wait_for_text("verdict", "✓ As expected: connect_refused");
    browser.wait_for_text("what", " and expects connect_refused, started ");
    browser.wait_for_text("since", "as expected since ");
    browser.wait_for_text("call", ": connect_refused, as expected, ");
    browser.wait_for_text("quantiles", "a result as expected took ");
    assert_eq!(browser.text("failed"), "0 (0.0\u{a0}%)");
    assert_eq!(browser.text("failures"), "");
    assert_eq!(browser.text("why"), "");
    browser.check_layout(PICTURES, "target-as-expected");

    // A page that shows one target after another has one stream open, and not one for each.
    for _ in 0..10 {
        for (hash, text) in [("", verdict), ("#target=backend", "✓ Working")] {
            browser.run(&format!("location.hash = '{hash}'"));
            browser.wait_for_text("verdict", text);
        }
    }
    wait_until("the end of abandoned streams", TIMEOUT, || {
        connections(admin) < 10
    });
    assert_eq!(browser.console(), Vec::<String>::new());
    let requests = browser.requests();
    assert!(
        requests.contains(&format!("{url}events?target=db")),
        "{requests:?}"
    );
    let elsewhere = |asked: &&String| !asked.starts_with(&url) && !asked.starts_with("data:");
    let elsewhere: Vec<&String> = requests.iter().filter(elsewhere).collect();
    assert_eq!(elsewhere, Vec::<&String>::new());
}

#[test]
fn a_link_leads_to_a_target_or_says_that_there_is_none() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::start(&["backend-1"]);
    let (caller, admin) = start_file(&bed, &five(&bed), &["--interval=200ms"]);
    let url = format!("http://{admin}/");
    browser.resize(1280, 900, false);
    browser.open(&format!("{url}#target=backend"));
    browser.wait_for_text("verdict", "✓ Working");
    assert_eq!(browser.text("target"), "backend");

    browser.open("about:blank");
    browser.open(&format!("{url}#target=nobody"));
    browser.wait_for_text("lost", "This caller has no target nobody.");
    assert_eq!(browser.text("now"), "");
    assert_eq!(browser.text("one"), "");
    assert_eq!(browser.title(), "No such target – caller");
    browser.check_layout(PICTURES, "target-unknown");
    // The name is shown as text and never as markup.
    browser.run(
        "location.hash = '#target=100%+%3Cimg%20src=x%20onerror=console.error(1)%3E%E2%80%AE'",
    );
    let hostile = "no target 100%+<img src=x onerror=console.error(1)>\\u{202e}.";
    browser.wait_for_text("lost", hostile);
    click(&browser, "#back");
    let verdict = browser.wait_for_text("verdict", "1 of 5 targets");
    assert_eq!(browser.text("lost"), "");

    // The caller ends, and another one with one target takes its place.
    drop(caller);
    browser.wait_for_text("lost", "No contact with the caller since ");
    assert_eq!(browser.text("verdict"), "Unknown: no contact");
    let since = browser.text("since");
    assert!(
        since.starts_with("until ") && since.ends_with(&format!(": {verdict}")),
        "{since}"
    );
    browser.check_layout(PICTURES, "targets-lost");
    let args = ["--interval=1h", &bed.url("backend")];
    let (caller, _) = start(&bed, &admin.to_string(), &args);
    browser.wait_for_text("verdict", "✓ Working");
    assert_eq!(browser.text("all"), "");
    assert_eq!(browser.text("path"), "", "there are no others");

    // The page shows a target that the next caller does not have.
    let label = format!("http%3A%2F%2Fbackend%3A{}%2F", bed.service.port());
    browser.run(&format!("location.hash = '#target={label}'"));
    browser.wait_for_text("verdict", "✓ Working");
    drop(caller);
    browser.wait_for_text("lost", "No contact with the caller since ");
    let args = ["--interval=1h", "http://127.0.0.2/", "http://127.0.0.3/"];
    let (_caller, _) = start(&bed, &admin.to_string(), &args);
    browser.wait_for_text("lost", "This caller has no target http://backend:");
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn a_hundred_targets_can_be_used_on_a_phone() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::start(&["backend-1"]);
    let port = bed.service.port();
    let line = |n: usize| match n {
        // A success that is not expected.
        0 => format!("connect_refused http://backend:{port}/ name=forbidden\n"),
        _ if n.is_multiple_of(10) => format!("ok http://127.0.0.2:{port}/{n} name=broken-{n}\n"),
        _ if n.is_multiple_of(9) => format!(
            "ok http://backend:{port}/{}/{n}\n",
            "a-long-path/".repeat(9)
        ),
        _ => format!("ok tcp://127.0.0.1:{port} name=database-{n}\n"),
    };
    let lines: String = (0..100).map(line).collect();
    let (_caller, admin) = start_file(&bed, &lines, &["--interval=1s"]);
    browser.resize(375, 900, false);
    browser.open(&format!("http://{admin}/"));
    let verdict = "✗ 10 of 100 targets failing: forbidden, broken-10, broken-20 and 7 more";
    browser.wait_for_text("verdict", verdict);
    let working = || {
        let rows = table(&browser, "targets");
        rows.iter().filter(|row| row[0] == "✓ working").count()
    };
    wait_until("a call of each", TIMEOUT, || working() == 90);
    browser.check_layout(PICTURES, "targets-100");

    // The filter finds a target whatever the case of its letters.
    browser.resize(375, 900, false);
    browser.run("document.getElementById('filter').focus()");
    for key in "brOKen-9".chars() {
        browser.press(key);
    }
    let rows = table(&browser, "targets");
    assert_eq!(rows.len(), 1);
    assert!(rows[0][1].starts_with("broken-90 "), "{rows:?}");
    assert_eq!(browser.text("verdict"), verdict, "on all of them");
    browser.press(ESCAPE);
    wait_until("all of them", TIMEOUT, || {
        table(&browser, "targets").len() == 100
    });

    // An unexpected success is shown as such.
    let unexpected = "the call succeeded, though connect_refused was expected";
    assert_eq!(table(&browser, "targets")[0][3], unexpected);
    click(&browser, "#targets a");
    browser.wait_for_text("verdict", &format!("✗ Failing: {unexpected}"));
    let since = browser.text("since");
    assert!(since.contains("; no result as expected for "), "{since}");
    let evidence = browser.text("evidence");
    assert!(evidence.ends_with(": backend-1 answered"), "{evidence}");
    assert_eq!(browser.text("cause"), "");
    assert_eq!(browser.text("next"), "");
    browser.wait_for_text("failures", unexpected);
    browser.wait_for_text("call", ": ok, not as expected, backend-1 at ");
    assert!(browser.text("failed").ends_with("(100.0\u{a0}%)"));
    assert_eq!(browser.text("failed-name"), "Not as expected");
    browser.check_layout(PICTURES, "target-unexpected");
    let one = get(admin, "/status.json?target=forbidden");
    let mut blocked: Value = serde_json::from_str(&one.body).expect("JSON");
    blocked["last"]["control"] = serde_json::json!({ "url": "http://control:80/", "result": "ok" });
    let control = browser.run(&format!(
        "receive({{ data: {} }}); return document.getElementById('control').textContent",
        Value::from(blocked.to_string())
    ));
    assert_eq!(control, "Control of the last call: http://control:80/, ok");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_target_name_is_shown_as_text_and_never_as_markup() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::start(&["backend-1"]);
    // The fields of a file are separated by white space, so this markup has none.
    let name = "<img/src=x/onerror=console.error('injected')>\"'&%41+\u{202e}\u{200b}";
    let shown = "<img/src=x/onerror=console.error('injected')>\"'&%41+\\u{202e}\\u{200b}";
    let port = bed.service.port();
    let lines = format!("ok http://backend:{port}/ name={name}\nok http://127.0.0.2:{port}/");
    let (_caller, admin) = start_file(&bed, &lines, &["--interval=200ms"]);
    browser.resize(1280, 900, false);
    browser.open(&format!("http://{admin}/"));
    browser.wait_for_text("targets", shown);
    browser.wait_for_text("verdict", "✗ 1 of 2 targets failing");
    browser.check_layout(PICTURES, "target-hostile");
    click(&browser, "#targets tr:last-child a");
    browser.wait_for_text("verdict", "✓ Working");
    assert_eq!(browser.text("target"), shown);
    assert_eq!(browser.title(), format!("✓ Working – {shown} – frontend-1"));
    // The link works for somebody else as well.
    let link = browser.run("return location.href");
    browser.open("about:blank");
    browser.open(link.as_str().expect("text"));
    browser.wait_for_text("verdict", "✓ Working");
    assert_eq!(browser.text("target"), shown);
    let made = "return document.querySelectorAll('img').length";
    assert_eq!(browser.run(made), 0, "no markup out of data");
    assert_eq!(browser.console(), Vec::<String>::new());
}

/// Starts an HTTPS server on this machine. Its certificate is valid for nine days, and issued by `ca.pem` in the
/// directory.
fn tls_server(openssl: &Tool) -> (Process, u16, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |args: &str| {
        let mut command = Command::new(openssl);
        command.current_dir(&dir).args(args.split_whitespace());
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args}: {stderr}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    run(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=the-issuer"
    ));
    run(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=the-server"
    ));
    let names = "subjectAltName=IP:127.0.0.1,DNS:the-server.example\n";
    std::fs::write(dir.path().join("names"), names).expect("it can be written");
    run(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 9 -extfile names -out server.pem",
    );
    let mut server = Command::new(openssl);
    let args = "s_server -accept 127.0.0.1:0 -www -key server.key -cert server.pem";
    server.current_dir(&dir).args(args.split_whitespace());
    let server = Process::spawn(&mut server);
    let accepts = server.wait_for_stdout("ACCEPT 127.0.0.1:");
    let (_, port) = accepts.rsplit_once(':').expect("it has a port");
    let port = port.parse().expect("a number");
    (server, port, dir)
}

#[test]
fn a_browser_shows_the_tls_version_and_when_the_certificate_expires() {
    let (Some(browser), Some(openssl)) = (Browser::start(), tool("openssl")) else {
        return;
    };
    let (_server, port, dir) = tls_server(&openssl);
    let bed = Bed::start(&[]);
    let ca = dir.path().join("ca.pem");
    let url = format!("https://127.0.0.1:{port}/");
    let args = [
        "--interval=200ms",
        "--cacert",
        ca.to_str().expect("UTF-8"),
        &url,
    ];
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &args);
    browser.resize(1280, 900, false);
    browser.open(&format!("http://{admin}/"));
    browser.wait_for_text("verdict", "✓ Working");
    let row = || table(&browser, "tls-facts").remove(0);
    let [version, verified, until, names, issuer] = row().try_into().expect("five");
    assert_eq!(version, "TLSv1.3");
    assert_eq!(verified, "✓ verified");
    assert!(
        until.starts_with("! 20") && until.ends_with(", 8 days left"),
        "{until}"
    );
    assert_eq!(names, "127.0.0.1, the-server.example");
    assert_eq!(issuer, "CN=the-issuer");
    assert_eq!(browser.text("key-tls"), "TLS");
    let call = browser.wait_for_text("call", ", tls ");
    assert!(!call.contains("tls –"), "{call}");
    let drawn = "return document.querySelector('path.tls').getBBox().height";
    assert_ne!(browser.run(drawn), 0);
    browser.check_layout(PICTURES, "https");

    // The page shows another certificate.
    let status = status(admin);
    let other = |not_after: &str, verified: bool| {
        let mut status = status.clone();
        status["last"]["tls"]["certificate"]["not_after"] = not_after.into();
        status["last"]["tls"]["verified"] = verified.into();
        let event = Value::from(status.to_string());
        let classes = browser.run(&format!(
            "receive({{ data: {event} }}); \
             const row = document.getElementById('tls-facts').rows[0]; \
             return [...row.cells].slice(1, 3).flatMap(cell => [cell.textContent, cell.className.trim()])"
        ));
        serde_json::from_value::<[String; 4]>(classes).expect("four texts")
    };
    let expired = ["! not verified", "warn", "✗ 2025-12-10, expired", "bad"];
    assert_eq!(other("2025-12-10T16:20:00.000Z", false), expired);
    let [.., until, class] = other("2999-12-10T16:20:00.000Z", true);
    assert!(
        until.starts_with("2999-12-10, ") && class.is_empty(),
        "{until}"
    );
    assert_eq!(browser.console(), Vec::<String>::new());
}
