//! Several targets at once: each has its own calls, its name in every output, and its expectation.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use local_cluster::cluster::SERVICE;
use serde_json::Value;
use tempfile::TempDir;
use test_support::bed::Bed;
use test_support::http::{get, metric};
use test_support::pki::free_addr;
use test_support::process::{Output, Process, Signal, caller, run};
use test_support::{TIMEOUT, tool, wait_until};

use crate::{CALLER, server};

/// A file of targets, and a cluster in which they are called.
struct Check {
    bed: Bed,
    files: TempDir,
    /// An address at which nothing listens.
    closed: SocketAddr,
}

impl Check {
    /// Writes the targets to the file. `PORT` stands for the port of the Service, `CLOSED` for one at which nothing
    /// listens.
    fn new(targets: &str) -> Self {
        let check = Self {
            bed: Bed::start(&["backend-1"]),
            files: tempfile::tempdir().expect("a directory"),
            closed: free_addr(),
        };
        let targets = targets
            .replace("PORT", &check.bed.service.port().to_string())
            .replace("CLOSED", &check.closed.port().to_string());
        fs::write(check.file(), targets).expect("it can be written");
        check
    }

    fn file(&self) -> PathBuf {
        self.files.path().join("targets")
    }

    fn caller(&self) -> Command {
        let mut command = self.bed.caller(CALLER);
        command
            .env_remove("CALLER_URL")
            .env("CALLER_TARGETS", self.file());
        command
    }

    fn once(&self, args: &[&str]) -> Output {
        run(self.caller().arg("once").args(args))
    }
}

/// Three targets whose expectation is met, and two whose expectation is not.
const MIXED: &str = "\
# expectation    target                   options
ok               http://backend:PORT/     name=backend
ok               tcp://backend:PORT
connect_refused  tcp://backend:CLOSED     name=closed<&>#1
ok               http://backend:CLOSED/
dns_nxdomain     http://backend:PORT/     name=there
";

const LABELS: [&str; 5] = [
    "backend",
    "tcp://backend:PORT",
    "closed<&>#1",
    "http://backend:CLOSED/",
    "there",
];

#[test]
fn the_table_has_a_line_for_each_target_and_the_next_command_for_unmet_ones() {
    let check = Check::new(MIXED);
    let output = check.once(&[]);
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let words = |line: &str| -> String {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        words.join(" ")
    };
    let port = check.bed.service.port();
    let closed = check.closed.port();
    assert_eq!(words(lines[0]), "TARGET EXPECTED RESULT");
    assert_eq!(words(lines[1]), "ok backend ok ok:");
    assert!(
        lines[1].contains("HTTP 200 from backend-1 in "),
        "{}",
        lines[1]
    );
    assert_eq!(words(lines[2]), format!("ok tcp://backend:{port} ok ok:"));
    assert!(
        lines[2].contains("ok: Connected to 127.0.0.1:"),
        "{}",
        lines[2]
    );
    assert_eq!(
        words(lines[3]),
        "ok closed<&>#1 connect_refused connect_refused:"
    );
    assert_eq!(
        words(lines[4]),
        format!("FAIL http://backend:{closed}/ ok connect_refused:")
    );
    assert_eq!(
        lines[5],
        "      likely  no ready endpoints, or the wrong port"
    );
    assert!(lines[6].starts_with("      next    kubectl describe service -n "));
    assert_eq!(words(lines[7]), "FAIL there dns_nxdomain ok:");
    assert_eq!(lines[8..], ["3 of 5 as expected"]);
}

#[test]
fn several_targets_that_meet_their_expectations_exit_0() {
    let check = Check::new("ok http://backend:PORT/\nconnect_refused tcp://backend:CLOSED\n");
    for format in ["text", "wide", "json", "tap", "junit"] {
        let output = check.once(&["--format", format]);
        assert_eq!(output.code, Some(0), "{}", output.stdout);
        assert!(!output.stdout.contains("not ok"), "{}", output.stdout);
    }
}

/// The events that a TAP parser reads from an output. It is Perl's, which knows version 13.
fn tap_events(tap: &str) -> Vec<String> {
    let script = r#"
        use TAP::Parser;
        local $/; my $tap = <STDIN>; $tap =~ s/^TAP version 14$/TAP version 13/m;
        my $parser = TAP::Parser->new({ tap => $tap });
        while (my $result = $parser->next) {
            print $result->is_test ? join("|", $result->is_ok ? "ok" : "not ok", $result->number, $result->description, $result->has_todo || $result->has_skip ? "directive" : "") : $result->type, "\n";
        }
        print "error: $_\n" for $parser->parse_errors;
    "#;
    let mut perl = Command::new("perl")
        .args(["-e", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = perl.stdin.take().expect("it is piped");
    stdin.write_all(tap.as_bytes()).expect("it is read");
    drop(stdin);
    let output = perl.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn tap_output_is_read_by_a_tap_parser() {
    let Some(_) = tool("perl") else { return };
    let check = Check::new(MIXED);
    let output = check.once(&["--format=tap"]);
    assert_eq!(output.code, Some(1));
    assert!(
        output.stdout.starts_with("TAP version 14\n1..5\n"),
        "{}",
        output.stdout
    );
    let (port, closed) = (check.bed.service.port(), check.closed.port());
    let expected = [
        "version".to_owned(),
        "plan".to_owned(),
        "ok|1|- backend is ok|".to_owned(),
        format!("ok|2|- tcp://backend:{port} is ok|"),
        "ok|3|- closed<&>\\#1 is connect_refused|".to_owned(),
        format!("not ok|4|- http://backend:{closed}/ is ok|"),
        "yaml".to_owned(),
        "not ok|5|- there is dns_nxdomain|".to_owned(),
        "yaml".to_owned(),
    ];
    assert_eq!(tap_events(&output.stdout), expected, "{}", output.stdout);
    assert!(output.stdout.contains("  result: \"connect_refused\"\n"));
    assert!(
        output
            .stdout
            .contains("  likely: \"no ready endpoints, or the wrong port\"\n")
    );
}

#[test]
fn junit_output_is_valid_by_the_schema_of_jenkins() {
    let Some(_) = tool("xmllint") else { return };
    let check = Check::new(MIXED);
    let output = check.once(&["--format=junit"]);
    assert_eq!(output.code, Some(1));
    let file = check.files.path().join("report.xml");
    fs::write(&file, &output.stdout).expect("it can be written");
    let count = |query: &str| {
        let xpath = format!("count({query})");
        let output = run(Command::new("xmllint").args(["--xpath", &xpath]).arg(&file));
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        output.stdout.trim().to_owned()
    };
    assert_eq!(
        count("//testsuite[@tests='5'][@failures='2'][@errors='0']/testcase"),
        "5"
    );
    assert_eq!(
        count("//testcase[@name='closed<&>#1 is connect_refused'][not(failure)]"),
        "1"
    );
    assert_eq!(
        count("//testcase[@name='there is dns_nxdomain']/failure[@type='ok']"),
        "1"
    );
    assert_eq!(
        count("//failure[contains(., 'next: kubectl describe service')]"),
        "1"
    );
    let Some(schema) = std::env::var_os("JUNIT_XSD") else {
        assert!(std::env::var_os("CI").is_none(), "CI has the schema");
        eprintln!("not validated: JUNIT_XSD does not name the schema");
        return;
    };
    let mut xmllint = Command::new("xmllint");
    let valid = run(xmllint.args(["--noout", "--schema"]).arg(schema).arg(&file));
    assert_eq!(valid.code, Some(0), "{}", valid.stderr);
}

fn objects(output: &Output) -> Vec<Value> {
    let lines = output.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn json_has_the_target_and_whether_its_expectation_was_met() {
    let check = Check::new(MIXED);
    let output = check.once(&["--format=json"]);
    let told: Vec<_> = objects(&output)
        .iter()
        .map(|object| {
            let text = |field: &str| object[field].as_str().expect("text").to_owned();
            (
                text("target"),
                text("expectation"),
                text("result"),
                object["as_expected"].clone(),
            )
        })
        .collect();
    let expected = [
        ("ok", "ok", true),
        ("ok", "ok", true),
        ("connect_refused", "connect_refused", true),
        ("ok", "connect_refused", false),
        ("dns_nxdomain", "ok", false),
    ];
    let (port, closed) = (check.bed.service.port(), check.closed.port());
    for ((label, (expectation, result, met)), told) in LABELS.iter().zip(expected).zip(&told) {
        let label = label
            .replace("PORT", &port.to_string())
            .replace("CLOSED", &closed.to_string());
        let expected = (label, expectation.to_owned(), result.to_owned(), met.into());
        assert_eq!(*told, expected);
    }
}

#[test]
fn the_log_names_the_target_and_whether_a_failure_was_expected() {
    let check = Check::new(MIXED);
    let output = run(check.caller().args(["--count=1", "--interval=0s"]));
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let block = |label: &str| {
        let first = format!("=== Frontend calling {label} at ");
        let at = lines.iter().position(|line| line.starts_with(&first));
        lines[at.unwrap_or_else(|| panic!("no {first} in {}", output.stdout))..][1..3].to_vec()
    };
    assert_eq!(block("backend")[1], "Response received successfully!");
    let tcp = block(&format!("tcp://backend:{}", check.bed.service.port()));
    assert!(tcp[0].starts_with("Connected to 127.0.0.1:"), "{tcp:?}");
    assert_eq!(tcp[1], "Response received successfully!");
    let closed = block("closed<&>#1")[1];
    assert!(
        closed.starts_with("Call failed: the connection was refused; likely "),
        "{closed}"
    );
    assert!(
        closed.ends_with(" (as expected: connect_refused)"),
        "{closed}"
    );
    let there = block("there")[1];
    assert_eq!(
        there,
        "Response received successfully! (not as expected: dns_nxdomain)"
    );
    let total =
        "--- 5 targets ---\n5 calls, 3 ok, 2 failed\nas expected throughout: 3 of 5 targets\n";
    assert!(output.stdout.contains(total), "{}", output.stdout);
    assert!(
        output
            .stdout
            .ends_with("not as expected: there (dns_nxdomain), 1 of 1 calls\n")
    );
}

#[test]
fn the_exit_code_of_a_run_depends_on_expectations() {
    let check = Check::new("ok http://backend:PORT/\nconnect_refused tcp://backend:CLOSED\n");
    let args = ["--count=3", "--interval=0s", "--format=json"];
    let well = run(check.caller().args(args));
    assert_eq!(well.code, Some(0), "{}", well.stdout);
    let last = objects(&well).pop().expect("a total");
    let total = serde_json::json!({"total": {
        "targets": 2, "calls": 6, "failed": 3, "unexpected": 0, "not_as_expected": [],
    }});
    assert_eq!(last, total);
    let _listener = TcpListener::bind(check.closed).expect("it is free");
    let open = run(check.caller().args(args));
    assert_eq!(open.code, Some(1), "{}", open.stdout);
}

#[test]
fn a_tcp_target_that_closes_at_once_is_a_success() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let check = Check::new("");
    let url = format!("tcp://{addr}");
    let output = run(check
        .bed
        .caller(CALLER)
        .args(["once", "--format=json", &url]));
    assert_eq!(output.code, Some(0), "{}", output.stdout);
    let report = &objects(&output)[0];
    assert_eq!(report["url"], url.as_str());
    let phases = report["phases_ms"].as_object().expect("an object");
    let phases: Vec<&str> = phases.keys().map(String::as_str).collect();
    assert_eq!(phases, ["connect", "total"]);
}

#[test]
fn a_slow_target_does_not_delay_another() {
    // It accepts connections and sends nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = silent.local_addr().expect("it is bound");
    let check = Check::new(&format!(
        "ok http://{addr}/ name=slow\nok http://backend:PORT/ name=fast\n"
    ));
    let mut command = check.caller();
    command.args(["--interval=10ms", "--timeout=2s", "--format=json"]);
    let running = Process::spawn(&mut command);
    running.wait_for_stdout("\"target\":\"slow\"");
    running.signal(Signal::TERM);
    let stdout = running.finish().stdout;
    let before = stdout.split("\"target\":\"slow\"").next().expect("a part");
    let fast = before.matches("\"target\":\"fast\"").count();
    assert!(
        fast >= 10,
        "{fast} calls of the fast one while the slow one waited"
    );
}

#[test]
fn starts_are_spread_over_the_interval() {
    let targets: String = (1..=4)
        .map(|n| format!("ok http://backend:PORT/ name={n}\n"))
        .collect();
    let check = Check::new(&targets);
    let output = run(check
        .caller()
        .args(["--interval=800ms", "--count=1", "--format=json"]));
    let mut starts = BTreeMap::new();
    for object in objects(&output)
        .iter()
        .filter(|object| object["result"].is_string())
    {
        let time: jiff::Timestamp = object["time"]
            .as_str()
            .expect("text")
            .parse()
            .expect("a time");
        let target = object["target"].as_str().expect("text").to_owned();
        starts.insert(target, time.as_millisecond());
    }
    let starts: Vec<i64> = starts.into_values().collect();
    let after: Vec<i64> = starts.iter().map(|start| start - starts[0]).collect();
    // No call may be early; on a busy machine it may be late.
    for (n, after) in (0..).zip(after) {
        assert!(after >= 200 * n - 20, "{n} {starts:?}");
    }
}

#[test]
fn every_target_is_called_for_the_whole_duration() {
    let check = Check::new("ok http://backend:PORT/\nok http://backend:CLOSED/ name=closed\n");
    // The second target is called after a second, when the duration has passed for the first one.
    let args = ["--duration=300ms", "--interval=2s"];
    let output = run(check.caller().args(args));
    assert_eq!(output.code, Some(1), "{}", output.stdout);
    assert!(
        output
            .stdout
            .contains("not as expected: closed (ok), 1 of 1 calls\n"),
        "{}",
        output.stdout
    );
}

#[test]
fn a_failure_never_prints_the_success_line_in_any_format() {
    let body = "Response received successfully!";
    let length = body.len();
    let addr = server(format!(
        "HTTP/1.1 500 Oops\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    let check = Check::new(&format!(
        "ok http://{addr}/\nok http://{addr}/ name=again\n"
    ));
    for format in ["text", "wide", "json", "tap", "junit"] {
        let output = check.once(&["--format", format]);
        assert_eq!(output.code, Some(1));
        assert!(
            !output.stdout.contains("Response received successfully!"),
            "{}",
            output.stdout
        );
    }
}

#[test]
fn the_exit_code_of_diagnose_depends_on_the_expectation() {
    let check = Check::new("connect_refused http://backend:CLOSED/\n");
    let diagnose = || run(check.caller().arg("diagnose"));
    let closed = diagnose();
    assert_eq!(closed.code, Some(0), "{}", closed.stdout);
    assert!(
        closed.stdout.contains("/, expected: connect_refused\n"),
        "{}",
        closed.stdout
    );
    let listener = TcpListener::bind(check.closed).expect("it is free");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let open = diagnose();
    // Closed before or after the request has arrived: an empty reply, or a reset.
    assert!(matches!(open.code, Some(52 | 56)), "{}", open.stdout);
}

#[test]
fn a_signal_ends_a_call_that_waits() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let check = Check::new(&format!("ok http://{addr}/\n"));
    for subcommand in ["once", "diagnose"] {
        let mut command = check.caller();
        command
            .arg(subcommand)
            .env("CALLER_WAIT", "60s")
            .env("CALLER_TIMEOUT", "60s");
        let waiting = Process::spawn(&mut command);
        let _silent = listener.accept().expect("a connection");
        waiting.signal(Signal::TERM);
        assert_eq!(waiting.finish().code, Some(143));
    }
}

#[test]
fn metrics_have_a_label_for_the_target() {
    let check = Check::new(MIXED);
    let mut command = check.caller();
    command.env("CALLER_ADMIN_LISTEN", "127.0.0.1:0");
    let (_caller, admin) = caller(command.args(["--interval=50ms"]));
    let closed = "caller_calls_total{target=\"closed<&>#1\",result=\"connect_refused\"}";
    wait_until("calls", TIMEOUT, || metric(admin, closed) >= Some(2.0));
    let there = "caller_expectation_met{target=\"there\"}";
    wait_until("a verdict", TIMEOUT, || metric(admin, there).is_some());
    for (name, expected) in [
        ("caller_expectation_met{target=\"closed<&>#1\"}", 1.0),
        (there, 0.0),
        (
            "caller_unexpected_results_total{target=\"closed<&>#1\"}",
            0.0,
        ),
        (
            "caller_calls_total{target=\"backend\",result=\"connect_refused\"}",
            0.0,
        ),
    ] {
        assert_eq!(metric(admin, name), Some(expected), "{name}");
    }
    let port = check.bed.service.port();
    // A TCP target has no response, and so no time to the first byte.
    let phase = format!(
        "caller_phase_duration_seconds_count{{target=\"tcp://backend:{port}\",phase=\"first_byte\"}}"
    );
    assert_eq!(metric(admin, &phase), None);
    let answered = format!(
        "caller_responses_total{{target=\"tcp://backend:{port}\",pod=\"127.0.0.1:{port}\",result=\"ok\"}}"
    );
    assert!(metric(admin, &answered) >= Some(1.0));
}

#[test]
fn the_status_page_has_an_overview_and_each_target() {
    let check = Check::new(MIXED);
    let mut command = check.caller();
    command.env("CALLER_ADMIN_LISTEN", "127.0.0.1:0");
    let (_caller, admin) = caller(command.args(["--interval=50ms"]));
    let status = |path: &str| -> Value {
        let response = get(admin, path);
        assert_eq!(response.status(), 200, "{path}");
        serde_json::from_str(&response.body).expect("JSON")
    };
    let states = || {
        let overview = status("/status.json");
        let targets = overview["targets"].as_array().expect("a list").clone();
        let states = targets
            .iter()
            .map(|target| target["state"].as_str().expect("text").to_owned());
        states.collect::<Vec<_>>()
    };
    let expected = ["working", "working", "working", "failing", "failing"];
    wait_until("verdicts", TIMEOUT, || states() == expected);
    let overview = status("/status.json");
    assert_eq!(
        overview["targets"][3]["message"],
        "the connection was refused"
    );
    assert_eq!(overview["targets"][4]["message"], "the call succeeded");

    let closed = status("/status.json?target=closed%3C%26%3E%231");
    assert_eq!(
        (&closed["target"], &closed["state"]),
        (&"closed<&>#1".into(), &"working".into())
    );
    assert_eq!(closed["failures"], serde_json::json!([]));
    assert_eq!(closed["calls"][0]["as_expected"], true);
    let there = status("/status.json?target=there");
    assert_eq!(there["failures"][0]["error"], Value::Null);
    assert_eq!(there["recent"]["failures"][0]["kind"], "ok");
    for path in ["/status.json?target=nosuch", "/events?target=nosuch"] {
        assert_eq!(get(admin, path).status(), 404);
    }
}

#[test]
fn targets_come_from_the_command_line_the_variable_or_a_file() {
    let check = Check::new("ok http://backend:PORT/ name=file\n");
    let port = check.bed.service.port();
    let labels = |command: &mut Command| -> Vec<String> {
        let output = run(command.args(["--count=1", "--interval=0s", "--format=json"]));
        let objects = objects(&output);
        let calls = objects.iter().filter(|object| object["result"].is_string());
        let mut labels: Vec<String> = calls
            .map(|call| {
                call["target"]
                    .as_str()
                    .or(call["url"].as_str())
                    .expect("text")
                    .to_owned()
            })
            .collect();
        labels.sort();
        labels
    };
    let (one, two) = (
        format!("http://backend:{port}/1"),
        format!("http://backend:{port}/2"),
    );
    // Targets on the command line override the variables.
    assert_eq!(
        labels(check.caller().args([&two, &one])),
        [one.clone(), two.clone()]
    );
    let variable = format!(" {one}\n\t{two}\n");
    let both = || {
        let mut command = check.caller();
        command.env("CALLER_URL", &variable);
        command
    };
    assert_eq!(labels(&mut both()), ["file", &one, &two]);
    assert_eq!(labels(both().arg("--targets").arg(check.file())), ["file"]);
    assert_eq!(labels(both().arg(&two)), [two.as_str()]);
    assert_eq!(labels(both().env_remove("CALLER_TARGETS")), [one, two]);
    assert_eq!(labels(&mut check.caller()), ["file"]);
}

#[test]
fn the_target_lists_in_the_manifests_are_read_and_met_without_policies() {
    let components = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kustomize/components");
    let list = |component: &str| {
        let path = format!("{components}/{component}/targets");
        let list = fs::read_to_string(path).expect("it is there");
        list.replace(":8080", ":PORT")
            .replace(":8079", ":CLOSED")
            .replace(":8081", ":PORT")
    };
    let run_list = |component: &str| {
        let check = Check::new(&list(component));
        let local = [Ipv4Addr::LOCALHOST.into()];
        check
            .bed
            .records
            .set(&SERVICE.replace("backend", "backend-pods"), local);
        check.once(&["--format=json"])
    };
    let plain = run_list("check");
    assert_eq!(plain.code, Some(0), "{}{}", plain.stdout, plain.stderr);
    // Without policies, the admin port can be reached.
    let hardened = run_list("check-hardened");
    assert_eq!(
        hardened.code,
        Some(1),
        "{}{}",
        hardened.stdout,
        hardened.stderr
    );
    let results: Vec<_> = objects(&hardened)
        .iter()
        .map(|object| object["as_expected"].clone())
        .collect();
    assert_eq!(results, [true, false]);
}

#[test]
fn invalid_targets_exit_2_and_are_named_with_their_line() {
    let check = Check::new("");
    for (text, named) in [
        ("# nothing\n", "has no target"),
        (
            "ok http://a/\nok ftp://b/\n",
            "line 2: ftp:// is not supported, only http://, https:// and tcp://",
        ),
        (
            "ok http://a/\n\nok http://a/\n",
            "line 3: http://a:80/ is the target of line 1 as well",
        ),
        (
            "ok http:/a\n",
            "line 1: not a URL: http: has to be followed by two slashes",
        ),
        ("ok tcp://a:0\n", "line 1: not a URL: \"0\" is not a port"),
        ("ok http://u:s3cret@a:x/\n", "line 1: not a URL"),
        ("ok http://u:s3cret word@a/\n", "line 1: not a URL"),
    ] {
        fs::write(check.file(), text).expect("it can be written");
        for args in [&["once"][..], &["diagnose"], &["--count=1"]] {
            let output = run(check.caller().args(args));
            assert_eq!(
                (output.code, output.stdout.as_str()),
                (Some(2), ""),
                "{text}"
            );
            assert!(output.stderr.contains(named), "{}", output.stderr);
            assert!(output.stderr.contains("targets"), "{}", output.stderr);
            assert!(!output.stderr.contains("s3cret"), "{}", output.stderr);
        }
    }
    let mut split = check.bed.caller(CALLER);
    split
        .env("CALLER_URL", "http://u:s3cret word@a/")
        .arg("once");
    let split = run(&mut split);
    assert_eq!(split.code, Some(2));
    assert!(
        split.stderr.contains("CALLER_URL") && !split.stderr.contains("s3cret"),
        "{}",
        split.stderr
    );
    let twice = run(check.bed.caller(CALLER).args(["once", "a", "http://A:80/"]));
    assert_eq!(twice.code, Some(2));
    assert!(
        twice.stderr.contains("http://a:80/ is given twice"),
        "{}",
        twice.stderr
    );
    let many: Vec<String> = (1..=101).map(|port| format!("tcp://a:{port}")).collect();
    let many = run(check.bed.caller(CALLER).arg("once").args(&many));
    assert_eq!(many.code, Some(2));
    assert!(
        many.stderr.contains("101 targets are too many"),
        "{}",
        many.stderr
    );
    fs::write(check.file(), "ok http://a/\n").expect("it can be written");
    let expected = run(check.caller().args(["once", "--expect=blocked"]));
    assert_eq!(expected.code, Some(2));
    assert!(expected.stderr.contains("--expect"), "{}", expected.stderr);
    let replaced = [
        "--until-replaced",
        "--interval=1s",
        "http://a/",
        "http://b/",
    ];
    let replaced = run(check.bed.caller(CALLER).args(replaced));
    assert_eq!(replaced.code, Some(2));
    assert!(
        replaced.stderr.contains("one target"),
        "{}",
        replaced.stderr
    );
}

#[test]
fn a_hundred_targets_are_called() {
    let targets: String = (1..=100)
        .map(|n| format!("ok http://backend:PORT/ name={n}\n"))
        .collect();
    let check = Check::new(&targets);
    let mut command = check.caller();
    command.args(["--interval=1s", "--count=2", "--format=json"]);
    let output = run(&mut command);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let last = objects(&output).pop().expect("a total");
    assert_eq!(last["total"]["calls"], 200);
}

#[test]
fn each_target_is_waited_for_by_itself() {
    let check = Check::new(
        "ok tcp://backend:CLOSED name=late\nconnect_refused http://127.0.0.1:1/ name=early\n",
    );
    let mut command = check.caller();
    command.args(["--wait=30s", "--interval=1h"]);
    let waiting = Process::spawn(&mut command);
    waiting.wait_for_stdout("=== Frontend calling early at ");
    assert!(
        !waiting.stdout().contains("calling late"),
        "nothing listens there yet"
    );
    let _listener = TcpListener::bind(check.closed).expect("it is free");
    waiting.wait_for_stdout("=== Frontend calling late at ");
    waiting.wait_for_stdout("Response received successfully!");
}
