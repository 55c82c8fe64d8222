//! The live page: what it is made of, over the wire; and in a real browser, what a person sees of
//! calls that work, fail, work again, and come from a caller that was restarted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

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

fn heal(bed: &Bed) {
    bed.records
        .set(SERVICE, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
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
    assert_eq!(well["next"], Value::Null);
    assert_eq!(well["failures"], Value::Array(Vec::new()));
    assert!(well["last_success"].is_string());

    bed.records.remove(SERVICE);
    // The first call that fails may have asked one question before and one after.
    let kind = |status: &Value| status["last"]["error"]["kind"].clone();
    wait_until("a failure", PATIENCE, || {
        kind(&status(admin)) == "dns_nxdomain"
    });
    let ill = status(admin);
    let id = ill["last"]["request_id"].as_str().expect("text");
    let logged = caller.wait_for_stdout(id);
    assert_eq!(
        ill["last"],
        serde_json::from_str::<Value>(&logged).expect("JSON")
    );
    assert_eq!(ill["ok"], false);
    assert_eq!(
        ill["next"],
        "kubectl get services -n pod-to-pod-communication"
    );
    let first_failure = &ill["failures"][0];
    assert_eq!(ill["since"], first_failure["time"]);
    let number = first_failure["number"].as_u64().expect("a number");
    let first_call = ill["first_call"].as_u64().expect("a number");
    let brief = &ill["calls"][usize::try_from(number - first_call).expect("it is there")];
    assert_eq!(brief["time"], first_failure["time"]);
    assert_eq!(brief["result"], first_failure["error"]["kind"]);
    assert_eq!(brief["backend"], Value::Null);

    heal(&bed);
    wait_until("a success", PATIENCE, || status(admin)["ok"] == true);
    assert!(status(admin)["summary"]["failed"].as_u64() > Some(0));
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
fn a_browser_sees_calls_work_fail_recover_and_begin_anew() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bed = Bed::start(&["backend-1", HOSTILE]);
    let (caller, admin) = start(&bed, "127.0.0.1:0", &["--interval=100ms"]);
    let url = format!("http://{admin}/");
    let picture = |name: &str| {
        browser.screenshot(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    };
    browser.resize(1100, 1500, false);
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
    picture("healthy.png");

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

    // It fails, in the words of the log.
    bed.records.remove(SERVICE);
    browser.wait_for_text("verdict", "✗ Failing: the name does not exist");
    browser.wait_for_text("since", "failing since ");
    let cause = browser.text("cause");
    caller.wait_for_stdout(&cause);
    caller.wait_for_stdout(&browser.text("evidence"));
    assert!(
        cause.ends_with("likely no such Service in that namespace"),
        "{cause}"
    );
    assert_eq!(
        browser.text("next"),
        "kubectl get services -n pod-to-pod-communication"
    );
    wait_until("the gap in words", PATIENCE, || {
        browser.run("return document.querySelector('svg .gap')?.textContent") != Value::Null
    });
    picture("failing.png");

    // Without a mouse or a wide screen, and in the dark.
    browser.resize(375, 800, true);
    let too_wide = "return document.documentElement.scrollWidth > innerWidth";
    assert_eq!(browser.run(too_wide), false);
    picture("phone.png");
    browser.resize(1100, 1500, false);

    heal(&bed);
    browser.wait_for_text("verdict", "✓ Working");
    assert!(
        browser
            .text("failures")
            .contains("Call failed: the name does not exist")
    );
    picture("recovered.png");

    assert_eq!(browser.console(), Vec::<String>::new());
    let made = "return document.querySelectorAll('img').length";
    assert_eq!(browser.run(made), 0, "no markup out of data");

    // The caller dies: what is seen is no longer how it is. Another takes its place.
    drop(caller);
    browser.wait_for_text("lost", "No contact with the caller since ");
    assert_eq!(browser.text("verdict"), "Unknown");
    picture("lost.png");
    let (_caller, _) = start(&bed, &admin.to_string(), &["--interval=1h"]);
    browser.wait_for_text("verdict", "✓ Working");
    assert_eq!(browser.text("lost"), "");
    assert_eq!(calls(), 1, "those of the new caller alone");
    assert_eq!(browser.text("failures"), "");

    // That the stream broke off, and that nobody listened for a while.
    let dead = ["ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_REFUSED"];
    let unexpected = |line: &String| !dead.iter().any(|error| line.contains(error));
    let errors: Vec<String> = browser.console().into_iter().filter(unexpected).collect();
    assert_eq!(errors, Vec::<String>::new());
    let elsewhere = |asked: &String| !asked.starts_with(&url) && !asked.starts_with("data:");
    let requests: Vec<String> = browser.requests();
    assert!(requests.contains(&format!("{url}events")), "{requests:?}");
    let elsewhere: Vec<&String> = requests.iter().filter(|asked| elsewhere(asked)).collect();
    assert_eq!(elsewhere, Vec::<&String>::new());
}
