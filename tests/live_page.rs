//! The live page: what it is made of, over the wire; and in a real browser, what a person sees of
//! calls that are waited for, work, fail now and then, fail, work again, and come from a caller that was
//! restarted. Each of these is looked at on a phone and on a desk, by day and by night; the pictures are
//! in the target directory.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use local_cluster::cluster::SERVICE;
use serde_json::Value;
use test_support::bed::Bed;
use test_support::browser::Browser;
use test_support::http::{Connection, exchange, get};
use test_support::process::{Process, caller};
use test_support::{PATIENCE, wait_until};

/// Keys, as WebDriver numbers them.
const ARROW_LEFT: char = '\u{e012}';
const END: char = '\u{e010}';
const ENTER: char = '\u{e007}';
const TAB: char = '\u{e004}';

/// What is wrong with the page as it is laid out and coloured now.
const FAULTS: &str = include_str!("live_page_faults.js");

/// A pod's name that would do harm if it were taken for markup.
const HOSTILE: &str = "<img src=x onerror=console.error('injected')>\u{202e}";

fn start(bed: &Bed, admin: &str, args: &[&str]) -> (Process, SocketAddr) {
    let mut command = bed.caller(env!("CARGO_BIN_EXE_caller"));
    command
        .env("CALLER_ADMIN_LISTEN", admin)
        .env("POD_NAME", "frontend-1")
        .args(args);
    caller(&mut command)
}

fn status(admin: SocketAddr) -> Value {
    serde_json::from_str(&get(admin, "/status.json").body).expect("JSON")
}

/// The error of the newest failure that a status has.
fn last_error(status: &Value) -> &Value {
    let failures = status["failures"].as_array().expect("a list");
    &failures.last().expect("one call failed")["error"]
}

fn heal(bed: &Bed) {
    bed.records
        .set(SERVICE, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
}

/// Lets the Service lead to where nothing listens.
fn refuse(bed: &Bed) {
    bed.records
        .set(SERVICE, [IpAddr::from(Ipv4Addr::new(127, 0, 0, 2))]);
}

/// Two pods behind one address: of three requests, two are answered by `backend-1`, and the third by
/// `backend-2` with an error.
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

/// Looks at the page in several sizes, by day and by night, and leaves pictures of it.
fn look(browser: &Browser, name: &str) {
    for width in [320, 375, 1280] {
        for dark in [false, true] {
            browser.resize(width, 900, dark);
            let faults = browser.run(FAULTS);
            let scheme = if dark { "dark" } else { "light" };
            assert_eq!(faults, Value::Array(Vec::new()), "{name} {width} {scheme}");
            let height = browser.run("return document.documentElement.scrollHeight");
            let height = u32::try_from(height.as_u64().expect("a number")).expect("it is small");
            browser.resize(width, height, dark);
            let picture = format!("{name}-{width}-{scheme}.png");
            browser.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(picture));
        }
    }
    browser.resize(1280, 900, false);
}

fn title(browser: &Browser) -> String {
    let title = browser.run("return document.title");
    title.as_str().expect("text").to_owned()
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
    // Its body is in chunks: each begins with a line that is its size, and ends with one that is empty.
    stream
}

#[test]
fn the_status_says_what_the_log_says() {
    let bed = Bed::start(&["backend-1"]);
    let (caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=20ms", "--format=json"]);
    wait_until("a call", PATIENCE, || status(admin)["ok"] == true);
    let well = status(admin);
    assert_eq!(well["name"], "frontend-1");
    assert_eq!(well["last"]["pod"], "backend-1");
    assert_eq!(well["state"], "working");
    assert_eq!(well["recent"]["failed"], 0);
    assert_eq!(well["calls"][0]["pod"], "backend-1");
    assert_eq!(well["before"], Value::Null);
    assert_eq!(well["next"], Value::Null);
    assert_eq!(well["failures"], Value::Array(Vec::new()));
    assert!(well["last_success"].is_string());

    bed.records.remove(SERVICE);
    // The first call that fails may have asked one question before and one after.
    let kind = |status: &Value| status["last"]["error"]["kind"].clone();
    wait_until("a failure", PATIENCE, || {
        kind(&status(admin)) == "dns_nxdomain"
    });
    // One that is alone would be no outage.
    wait_until("another failure", PATIENCE, || {
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
    wait_until("a success", PATIENCE, || status(admin)["ok"] == true);
    assert!(status(admin)["summary"]["failed"].as_u64() > Some(0));
    wait_until("it is sure", PATIENCE, || {
        status(admin)["state"] == "working"
    });
    let recovered = status(admin);
    assert_eq!(recovered["state_since"], recovered["since"]);
    assert_eq!(recovered["before"]["state"], "failing");
    assert_eq!(recovered["before"]["since"], ill["since"]);
    // The last call that fails may have asked one question before and one after.
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
    wait_until("ten calls", PATIENCE, || {
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
    wait_until("ten rounds", PATIENCE, || {
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
fn a_cause_that_changes_within_an_outage_is_younger_than_the_outage() {
    let bed = Bed::start(&["backend-1"]);
    refuse(&bed);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=20ms"]);
    let wait_for = |kind: &str| {
        wait_until(kind, PATIENCE, || {
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
fn what_is_remembered_is_bounded() {
    let bed = Bed::start(&["backend-1"]);
    bed.records.remove(SERVICE);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=0s"]);
    let calls = || status(admin)["summary"]["calls"].as_u64();
    wait_until("1000 calls", PATIENCE, || calls() > Some(1000));
    let status = status(admin);
    assert_eq!(status["calls"].as_array().map(Vec::len), Some(360));
    assert_eq!(status["failures"].as_array().map(Vec::len), Some(20));
    let newest = status["failures"][19]["number"].as_u64();
    let first = status["first_call"].as_u64().expect("a number");
    assert_eq!(newest, Some(first + 359));
}

#[test]
fn events_go_on_from_the_last_one_that_was_seen() {
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

    // A browser that lost its connection.
    let (_, third) = event(&mut events(admin, Some(&id)));
    assert_eq!(third["first_call"], end(&second));
    // One that knew a caller that is gone, one whose memory makes no sense, and one from the future.
    for id in ["0000000000000000:7", "nonsense", ""] {
        assert_eq!(event(&mut events(admin, Some(id))).1["first_call"], 0);
    }
    let (instance, _) = id.split_once(':').expect("it has two parts");
    let future = format!("{instance}:{}", u64::MAX);
    let (_, empty) = event(&mut events(admin, Some(&future)));
    assert_eq!(empty["calls"], Value::Array(Vec::new()));
}

#[test]
fn pages_that_are_open_leave_room_for_probes() {
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=20ms"]);
    let streams: Vec<Connection> = (0..16).map(|_| events(admin, None)).collect();
    assert_eq!(get(admin, "/events").status(), 503);
    assert_eq!(get(admin, "/readyz").status(), 200);
    drop(streams);
    wait_until("room for another page", PATIENCE, || {
        let mut stream = Connection::open(admin);
        stream.send("GET /events HTTP/1.1\r\nHost: caller\r\n\r\n");
        stream.reply_to_head().status() == 200
    });
}

#[test]
fn the_page_admits_nothing_from_elsewhere() {
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &[]);
    let page = get(admin, "/");
    assert_eq!(page.status(), 200);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let (_, nonce) = policy.split_once("'nonce-").expect("a nonce");
    let (nonce, _) = nonce.split_once('\'').expect("it ends");
    assert_eq!(page.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(!get(admin, "/").body.contains(nonce), "it is used once");
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
fn a_browser_is_told_that_the_first_call_is_waited_for() {
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
    assert_eq!(title(&browser), "Waiting for the first call – frontend-1");
    assert_eq!(browser.text("why"), "");
    look(&browser, "waiting");

    heal(&bed);
    browser.wait_for_text("verdict", "✓ Working");
}

#[test]
fn a_browser_sees_who_fails_now_and_then() {
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
    assert!(title(&browser).starts_with("! Unsteady: "));
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
    // Pod, calls, failed, share.
    let (well, sick) = (row("backend-1"), row("backend-2"));
    assert_eq!(well[2], "0", "{well:?}");
    assert_ne!(sick[2], "0", "{sick:?}");
    assert_eq!(sick[1], sick[2], "{sick:?}");
    browser.wait_for_text("failures", "backend-2");
    look(&browser, "unsteady");

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
    wait_until("it is selected", PATIENCE, || {
        browser.run(selected) == next.as_str()
    });
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn a_browser_sees_calls_work_fail_recover_and_begin_anew() {
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
    wait_until("another call", PATIENCE, || calls() > seen + 10);
    browser.wait_for_text("pods", "backend-1");
    browser.wait_for_text(
        "pods",
        "<img src=x onerror=console.error('injected')>\\u{202e}",
    );
    browser.wait_for_text("dns", "backend.pod-to-pod-communication.svc.cluster.local.");
    assert_eq!(browser.text("why"), "");
    assert_eq!(browser.text("before"), "");
    assert_eq!(title(&browser), "✓ Working – frontend-1");
    browser.wait_for_text("quantiles", "a success took ");
    let everything = "return document.body.innerText";
    let everything = browser.run(everything).as_str().expect("text").to_owned();
    assert_eq!(
        everything.matches("UTC").count(),
        1,
        "said once, at the top"
    );
    look(&browser, "working");

    // By keyboard: one call back, which then stays; and to the newest again, which follows.
    let chosen = || {
        browser.run(
            "const c = document.getElementById('cursor'); return [Number(c.value), Number(c.max)]",
        )
    };
    browser.run("document.getElementById('cursor').focus()");
    browser.press(ARROW_LEFT);
    let before = chosen();
    wait_until("a newer call", PATIENCE, || chosen()[1] != before[1]);
    assert_eq!(chosen()[0], before[0]);
    assert!(browser.text("call").contains(": ok, "));
    browser.press(END);
    wait_until("the newest call", PATIENCE, || chosen()[0] == chosen()[1]);
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

    // It fails otherwise, in the words of the log.
    bed.records.remove(SERVICE);
    browser.wait_for_text("verdict", "✗ Failing: the name does not exist");
    assert_eq!(
        title(&browser),
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
    wait_until("the gap in words", PATIENCE, || {
        let gap = browser.run(gap);
        gap.as_str()
            .is_some_and(|gap| gap.ends_with(" without a success"))
    });
    let numbers = "return [/no success for (.*)/.exec(document.getElementById('since').innerText)?.[1], \
        /(.*) ago/.exec(document.getElementById('last-success').innerText)?.[1], \
        /(.*) without a success/.exec(document.querySelector('svg .gap')?.textContent)?.[1]]";
    wait_until("one number for one outage", PATIENCE, || {
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
    look(&browser, "failing");

    // It works again: unsteady at first, and then with what was before.
    heal(&bed);
    browser.wait_for_text("verdict", "✓ Working");
    let before = browser.wait_for_text("before", "Before that: failing ");
    let error = last_error(&status(admin))["message"].clone();
    let message = error.as_str().expect("text");
    assert!(before.ends_with(&format!(", {message}")), "{before}");
    look(&browser, "recovered");

    assert_eq!(browser.console(), Vec::<String>::new());
    let made = "return document.querySelectorAll('img').length";
    assert_eq!(browser.run(made), 0, "no markup out of data");

    // The caller dies: what is seen is no longer how it is. Another takes its place.
    drop(caller);
    browser.wait_for_text("lost", "No contact with the caller since ");
    browser.wait_for_text("lost", "kubectl port-forward");
    assert_eq!(browser.text("verdict"), "Unknown: no contact");
    assert_eq!(title(&browser), "Unknown: no contact – frontend-1");
    let since = browser.text("since");
    assert!(since.starts_with("was working until "), "{since}");
    let last = browser.text("last-success");
    assert!(!last.contains("ago"), "{last}");
    look(&browser, "lost");
    let (_caller, _) = start(&bed, &admin.to_string(), &["--interval=1h"]);
    browser.wait_for_text("verdict", "✓ Working");
    assert_eq!(browser.text("lost"), "");
    assert_eq!(calls(), 1, "those of the new caller alone");
    assert_eq!(browser.text("failures"), "");
    assert_eq!(browser.text("before"), "");
    look(&browser, "restarted");

    // That the stream broke off, and that nobody listened for a while.
    let dead = [
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
        "ERR_CONNECTION_RESET",
        "ERR_CONNECTION_REFUSED",
    ];
    let unexpected = |line: &String| !dead.iter().any(|error| line.contains(error));
    let errors: Vec<String> = browser.console().into_iter().filter(unexpected).collect();
    assert_eq!(errors, Vec::<String>::new());
    let elsewhere = |asked: &String| !asked.starts_with(&url) && !asked.starts_with("data:");
    let requests: Vec<String> = browser.requests();
    assert!(requests.contains(&format!("{url}events")), "{requests:?}");
    let elsewhere: Vec<&String> = requests.iter().filter(|asked| elsewhere(asked)).collect();
    assert_eq!(elsewhere, Vec::<&String>::new());
}

#[test]
fn an_old_run_is_shown_by_what_matters_most() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::start(&["backend-1"]);
    let (_caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=1h"]);
    browser.resize(320, 900, false);
    browser.open(&format!("http://{admin}/"));
    browser.wait_for_text("verdict", "✓ Working");

    // A minute of calls, one a second: a pod that is gone, two that are not, and two outages, the longer
    // one so soon after the other that there is room for one label.
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
    // At one go, so that no event comes in between.
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
    // Four times as many as may be open: silent, in the middle of a head, and reading nothing.
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
                    // It may be closed to make room for another.
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
        // A kubelet or a scraper may call it what it likes.
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(ask(path, host), 200, "{host}{path}");
        }
    }
}
