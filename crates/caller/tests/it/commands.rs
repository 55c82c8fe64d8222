//! The subcommands of `caller`, and the flags that change how it calls.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::thread;

use serde_json::Value;
use test_support::bed::Bed;
use test_support::pki::free_addr;
use test_support::process::{Output, run};
use test_support::tool;

use crate::{CALLER, server};

const SERVICE: &str = "backend.pod-to-pod-communication.svc.cluster.local";

fn caller(bed: &Bed, args: &[&str]) -> Output {
    run(bed.caller(CALLER).args(args))
}

/// The objects that `--format=json` prints, one on each line.
fn json(bed: &Bed, args: &[&str]) -> Vec<Value> {
    let output = caller(bed, &[args, &["--format=json"]].concat());
    let lines = output.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect()
}

/// Starts a server that responds to each request with 404, and passes the requests on.
fn recorder() -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    let (requests, received) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 4096];
            let n = stream.read(&mut request).expect("a request");
            let request = String::from_utf8_lossy(&request[..n]).into_owned();
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            if requests.send(request).is_err() {
                return;
            }
        }
    });
    (addr, received)
}

#[test]
fn resolve_prints_the_configuration_and_every_query() {
    let bed = Bed::start(&["backend-1"]);
    let output = caller(&bed, &["resolve"]);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let dns = bed.dns;
    assert_eq!(
        lines[..3],
        [
            format!("nameserver {dns}"),
            "search     pod-to-pod-communication.svc.cluster.local svc.cluster.local cluster.local"
                .to_owned(),
            "options    ndots:5 attempts:2".to_owned(),
        ]
    );
    assert!(
        lines[4].starts_with(&format!("{SERVICE}.  A     {dns}  udp  ")),
        "{lines:#?}"
    );
    assert!(
        lines[4].ends_with("NOERROR  ttl 30  127.0.0.1"),
        "{lines:#?}"
    );
    assert!(
        lines[5].starts_with(&format!("{SERVICE}.  AAAA  {dns}  udp  ")),
        "{lines:#?}"
    );
    assert!(lines[5].ends_with("NODATA"), "{lines:#?}");
    assert!(
        lines[7].starts_with("backend is 127.0.0.1, found in "),
        "{lines:#?}"
    );
    assert_eq!(lines[8], "asked      2 queries, none of them in vain");
    assert_eq!((output.code, lines.len()), (Some(0), 9));
}

#[test]
fn resolve_exits_6_when_there_is_no_address() {
    let bed = Bed::start(&["backend-1"]);
    let output = caller(&bed, &["resolve", "nosuch"]);
    assert_eq!(output.code, Some(6));
    assert_eq!(
        output.stdout.matches("  NXDOMAIN\n").count(),
        8,
        "{}",
        output.stdout
    );
    let verdict =
        "\nLookup failed: the name does not exist; likely no such Service in that namespace\n";
    assert!(output.stdout.contains(verdict), "{}", output.stdout);
    let after = "glibc says Name or service not known\n\
                 next       kubectl get services -n pod-to-pod-communication\n\
                 asked      8 queries\n";
    assert!(output.stdout.ends_with(after), "{}", output.stdout);
}

/// The marks and the names of the steps in a diagnosis.
fn steps(output: &Output) -> Vec<String> {
    let step = |line: &str| {
        line.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let is_step = |line: &&str| {
        ["ok ", "slow", "FAIL"]
            .iter()
            .any(|mark| line.starts_with(mark))
    };
    output.stdout.lines().filter(is_step).map(step).collect()
}

#[test]
fn diagnose_prints_the_steps_of_a_successful_call() {
    let bed = Bed::start(&["backend-1"]);
    let output = caller(&bed, &["diagnose"]);
    assert_eq!(output.code, Some(0), "{}", output.stdout);
    assert_eq!(
        steps(&output),
        ["ok resolv.conf", "ok DNS", "ok TCP", "ok HTTP", "ok calls"]
    );
    assert!(
        output
            .stdout
            .contains("200 from backend-1, first byte after ")
    );
}

#[test]
fn diagnose_stops_at_the_failure_and_names_the_next_command() {
    let bed = Bed::start(&["backend-1"]);
    let namespace = "-n pod-to-pod-communication";
    let failed = |args: &[&str]| {
        let output = caller(&bed, &[&["diagnose"], args].concat());
        let next = output
            .stdout
            .lines()
            .find_map(|line| line.trim_start().strip_prefix("next"));
        (
            steps(&output),
            next.unwrap_or_default().trim().to_owned(),
            output.code,
        )
    };

    let (steps, next, code) = failed(&[&bed.url("nosuch")]);
    assert_eq!(steps[..2], ["ok resolv.conf", "FAIL DNS"]);
    assert_eq!(
        (next, code),
        (format!("kubectl get services {namespace}"), Some(6))
    );

    let (steps, next, code) = failed(&[&bed.url("backend.elsewhere")]);
    assert_eq!(steps[..2], ["ok resolv.conf", "FAIL DNS"]);
    assert_eq!(
        (next.as_str(), code),
        ("kubectl get services -n elsewhere", Some(6))
    );

    let url = format!("http://backend:{}/", free_addr().port());
    let (steps, next, code) = failed(&[&url]);
    assert_eq!(steps[..3], ["ok resolv.conf", "ok DNS", "FAIL TCP"]);
    let service = format!("kubectl describe service {namespace} backend");
    assert_eq!((next, code), (service, Some(7)));

    let (addr, _requests) = recorder();
    let (steps, next, code) = failed(&[&format!("http://backend:{}/", addr.port())]);
    assert_eq!(
        steps[..4],
        ["ok resolv.conf", "ok DNS", "ok TCP", "FAIL HTTP"]
    );
    let logs = format!("kubectl logs {namespace} service/backend --all-pods --prefix --tail=50");
    assert_eq!((next, code), (logs, Some(22)));

    let (steps, _, code) = failed(&["--resolv-conf=/nonexistent"]);
    assert_eq!((steps[0].as_str(), code), ("FAIL resolv.conf", Some(6)));
}

#[test]
fn colour_is_printed_only_to_a_terminal_without_no_color() {
    let Some(script) = tool("script") else { return };
    let bed = Bed::start(&["backend-1"]);
    let on_a_terminal = |no_color: bool| {
        let mut command = Command::new(&script);
        let environment = bed.caller(CALLER);
        for (name, value) in environment.get_envs() {
            command.env(name, value.expect("it is set"));
        }
        if no_color {
            command.env("NO_COLOR", "1");
        } else {
            command.env_remove("NO_COLOR");
        }
        run(command.args(["-qec", &format!("{CALLER} diagnose"), "/dev/null"])).stdout
    };
    assert!(on_a_terminal(false).contains("\x1b[32mok"));
    assert!(!on_a_terminal(true).contains('\x1b'));
    assert!(!caller(&bed, &["diagnose"]).stdout.contains('\x1b'));
}

#[test]
fn once_exits_0_only_if_the_expectation_is_met() {
    let bed = Bed::start(&["backend-1"]);
    let code = |args: &[&str]| caller(&bed, &[&["once"], args].concat()).code;
    let nosuch = bed.url("nosuch");
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["--expect=ok"]), Some(0));
    assert_eq!(code(&["--expect=blocked"]), Some(1));
    assert_eq!(code(&[&nosuch]), Some(6));
    assert_eq!(code(&["--expect=dns_nxdomain", &nosuch]), Some(0));
    assert_eq!(code(&["--expect=connect_refused", &nosuch]), Some(6));
    assert_eq!(code(&["--expect=nonsense"]), Some(2));
    let last_line = |args: &[&str]| {
        let output = caller(&bed, &[&["once"], args].concat());
        output.stdout.lines().last().expect("a line").to_owned()
    };
    assert_eq!(
        last_line(&["--expect=blocked"]),
        "Check failed: expected blocked, but it was ok"
    );
    assert_eq!(
        last_line(&["--expect=dns_nxdomain", &nosuch]),
        "Check passed: expected dns_nxdomain"
    );
}

#[test]
fn json_has_all_data_of_a_call() {
    let bed = Bed::start(&["backend-1"]);
    let objects = json(&bed, &["--count=2", "--interval=0s"]);
    assert_eq!(objects.len(), 3);
    let call = &objects[0];
    assert_eq!(call["result"], "ok");
    assert_eq!(call["pod"], "backend-1");
    assert_eq!(call["status"], 200);
    assert_eq!(call["address"], bed.service.to_string());
    assert_eq!(
        (&call["body"], &call["body_bytes"]),
        (&"Hello from Backend Service!\n".into(), &28.into())
    );
    let question = &call["dns"]["questions"][0];
    assert_eq!(question["name"], format!("{SERVICE}."));
    assert_eq!(
        (&question["type"], &question["rcode"]),
        (&"A".into(), &"NOERROR".into())
    );
    assert_eq!(
        (&question["ttl"], &question["addresses"][0]),
        (&30.into(), &"127.0.0.1".into())
    );
    for phase in ["dns", "connect", "first_byte", "total"] {
        assert!(call["phases_ms"][phase].is_f64(), "{call:#}");
    }
    let summary = &objects[2]["summary"];
    assert_eq!(
        (&summary["calls"], &summary["ok"], &summary["failed"]),
        (&2.into(), &2.into(), &0.into())
    );
    assert_eq!(summary["answered_by"]["backend-1"], 2);
    assert!(summary["phases_ms"]["total"]["p99"].is_f64());
    assert!(summary["longest_gap_ms"].is_f64());
}

#[test]
fn json_has_all_data_of_a_failure() {
    let bed = Bed::start(&["backend-1"]);
    let objects = json(&bed, &["--count=1", &bed.url("nosuch")]);
    let error = &objects[0]["error"];
    assert_eq!(objects[0]["result"], "dns_nxdomain");
    assert_eq!(
        (&error["kind"], &error["exit_code"]),
        (&"dns_nxdomain".into(), &6.into())
    );
    assert_eq!(error["likely"], "no such Service in that namespace");
    assert_eq!(
        objects[0]["dns"]["questions"]
            .as_array()
            .expect("a list")
            .len(),
        8
    );
    assert!(objects[0]["status"].is_null() && objects[0]["body"].is_null());
    assert_eq!(objects[1]["summary"]["failed_by_kind"]["dns_nxdomain"], 1);
}

#[test]
fn json_escapes_control_characters() {
    let bed = Bed::start(&["backend-1"]);
    let body = "a\x1b[2J\u{9b}2J\u{202e}b";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let url = format!("http://{}/", server(head + body));
    let output = caller(&bed, &["once", "--format=json", &url]);
    assert!(
        !output
            .stdout
            .trim_end()
            .contains(|c: char| c.is_control() || c == '\u{202e}')
    );
    let call: Value = serde_json::from_str(&output.stdout).expect("an object");
    assert_eq!(call["body"], body);
}

#[test]
fn each_address_of_a_headless_service_is_called() {
    let bed = Bed::start(&[]);
    // As in a cluster, the pods have the same port and addresses of their own.
    let first = bed.pod("backend-1", free_addr());
    bed.pod(
        "backend-2",
        (Ipv4Addr::new(127, 0, 0, 2), first.port()).into(),
    );
    let gone = Ipv4Addr::new(127, 0, 0, 3);
    let addresses = [
        Ipv4Addr::new(127, 0, 0, 1),
        Ipv4Addr::new(127, 0, 0, 2),
        gone,
    ];
    bed.records.set(
        "backend-headless.pod-to-pod-communication.svc.cluster.local",
        addresses.map(IpAddr::from),
    );
    let url = format!("http://backend-headless:{}/", first.port());
    let mut objects = json(&bed, &["--count=1", "--each-address", &url]);
    let summary = objects.pop().expect("the summary");
    let mut results: Vec<_> = objects
        .iter()
        .map(|call| {
            (
                call["address"].as_str().expect("one"),
                call["result"].as_str().expect("one"),
            )
        })
        .collect();
    results.sort_unstable();
    let port = first.port();
    let expected = [(1, "ok"), (2, "ok"), (3, "connect_refused")]
        .map(|(n, result)| (format!("127.0.0.{n}:{port}"), result));
    assert_eq!(
        results,
        expected
            .each_ref()
            .map(|(address, result)| (address.as_str(), *result))
    );
    assert_eq!(
        summary["summary"]["answered_by"],
        serde_json::json!({"backend-1": 1, "backend-2": 1})
    );
    // Without the flag, one address is called, and one that refuses is skipped.
    bed.records.set(
        "backend-headless.pod-to-pod-communication.svc.cluster.local",
        [gone.into(), addresses[1].into()],
    );
    assert_eq!(json(&bed, &["once", &url])[0]["pod"], "backend-2");
}

#[test]
fn each_call_opens_a_connection_unless_keep_alive_is_set() {
    let bed = Bed::start(&["backend-1", "backend-2"]);
    let connects = |args: &[&str]| {
        let calls = json(&bed, &[args, &["--count=20", "--interval=0s"]].concat());
        assert_eq!(calls[20]["summary"]["ok"], 20);
        calls
            .iter()
            .filter(|call| call["phases_ms"]["connect"].is_f64())
            .count()
    };
    assert_eq!(connects(&[]), 20);
    assert_eq!(connects(&["--keep-alive"]), 1);
    assert_eq!(connects(&["--http2"]), 20);
    assert_eq!(connects(&["--http2", "--keep-alive"]), 1);
}

#[test]
fn a_kept_connection_that_the_backend_closes_is_opened_again() {
    let bed = Bed::start(&["backend-1"]);
    // The server closes the connection although nothing in the response says so.
    let url = format!(
        "http://{}/",
        server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    );
    let calls = json(
        &bed,
        &["--keep-alive", "--count=5", "--interval=50ms", &url],
    );
    assert_eq!(calls[5]["summary"]["ok"], 5, "{calls:#?}");
}

#[test]
fn a_failure_on_a_kept_connection_names_its_idle_time() {
    let bed = Bed::start(&["backend-1"]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            // The second request is on its way when the connection is closed.
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    let calls = json(&bed, &["--keep-alive", "--count=2", "--interval=0s", &url]);
    let error = &calls[1]["error"];
    assert_eq!(error["kind"], "empty_reply", "{calls:#?}");
    assert!(error["detail"]["idle_ms"].is_f64(), "{error:#}");
    let text = |field: &str| error[field].as_str().expect("text").to_owned();
    assert!(text("evidence").contains("on a connection that had been idle for"));
    assert!(text("likely").starts_with("the connection was closed while it was idle"));
    // The first call, on a new connection, has succeeded.
    assert_eq!(calls[0]["result"], "ok");
}

#[test]
fn json_has_the_evidence_of_a_failure_as_data() {
    let bed = Bed::start(&["backend-1"]);
    let url = format!("http://{}/", free_addr());
    let error = &json(&bed, &["once", &url])[0]["error"];
    assert_eq!(
        (&error["stage"], &error["detail"]["errno"]),
        (&"connect".into(), &111.into())
    );

    let error = &json(&bed, &["once", &bed.url("nosuch")])[0]["error"];
    assert_eq!(
        (&error["stage"], &error["detail"]["cause"]),
        (&"dns".into(), &"lookup".into())
    );

    let (addr, _requests) = recorder();
    let error = &json(&bed, &["once", &format!("http://{addr}/")])[0]["error"];
    let detail = &error["detail"];
    assert_eq!(
        (&error["stage"], &detail["status"]),
        (&"http".into(), &404.into())
    );
    assert_eq!(detail["received_bytes"], 45);
}

#[test]
fn diagnose_shows_the_body_of_an_error_and_the_target_of_a_redirect() {
    let bed = Bed::start(&["backend-1"]);
    for (reply, shown) in [
        (
            "HTTP/1.1 503 Service Unavailable\r\nServer: envoy\r\nContent-Length: 19\r\n\r\nno healthy upstream",
            "HTTP 503 Service Unavailable by Envoy (server: envoy) after ",
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\n\r\nout of paper",
            ": out of paper\n",
        ),
        (
            "HTTP/1.1 301 Moved Permanently\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n",
            "HTTP 301 Moved Permanently, Location: https://elsewhere/ after ",
        ),
    ] {
        let url = format!("http://{}/", server(reply));
        let output = caller(&bed, &["diagnose", &url]);
        assert!(output.stdout.contains(shown), "{}", output.stdout);
    }
}

#[test]
fn diagnose_marks_a_slow_step() {
    let bed = Bed::start(&["backend-1"]);
    // The first server does not respond, which costs a timeout; the second one does.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = silent.local_addr().expect("it is bound");
    let output = run(bed
        .caller(CALLER)
        .env("CALLER_NAMESERVER", format!("{addr},{}", bed.dns))
        .args(["diagnose", "--dns-timeout=200ms"]));
    assert_eq!(output.code, Some(0), "{}", output.stdout);
    assert_eq!(
        steps(&output),
        [
            "ok resolv.conf",
            "slow DNS",
            "ok TCP",
            "ok HTTP",
            "ok calls"
        ]
    );
}

#[test]
fn the_request_has_the_given_method_path_and_headers() {
    let bed = Bed::start(&["backend-1"]);
    let (addr, requests) = recorder();
    let url = format!("http://backend:{}/path?q=1", addr.port());
    let args = [
        "once",
        "--method=PUT",
        "--header=X-One: 1",
        "--header=x-two:2",
        "--expect-status=200,404",
    ];
    let output = caller(&bed, &[&args[..], &[&url]].concat());
    assert_eq!(output.code, Some(0), "{}", output.stdout);
    let request = requests.recv().expect("a request");
    let (line, headers) = request.split_once("\r\n").expect("lines");
    assert_eq!(line, "PUT /path?q=1 HTTP/1.1");
    let traceparent = headers
        .lines()
        .find_map(|line| line.strip_prefix("traceparent: 00-"));
    assert_eq!(
        traceparent.map(str::len),
        Some(32 + 1 + 16 + 3),
        "{headers}"
    );
    for header in [
        "x-one: 1\r\n",
        "x-two: 2\r\n",
        &format!("host: backend:{}\r\n", addr.port()),
    ] {
        assert!(headers.contains(header), "no {header:?} in {headers:?}");
    }
    // Every call has an id of its own.
    caller(&bed, &["once", &url]);
    let id = |request: &str| {
        let mut lines = request.lines();
        lines
            .find_map(|line| line.strip_prefix("x-request-id: "))
            .expect("an id")
            .to_owned()
    };
    assert_ne!(id(&request), id(&requests.recv().expect("a request")));
}

#[test]
fn a_flag_before_a_subcommand_exits_2_with_advice() {
    for command in ["once", "resolve", "diagnose", "mesh"] {
        let advice = format!("flags go after the subcommand: `caller {command} --flag`");
        for before in ["--timeout=1s", "once"] {
            let output = run(Command::new(CALLER).args([before, command]));
            assert_eq!(output.code, Some(2));
            assert!(output.stderr.contains(&advice), "{}", output.stderr);
        }
    }
}

#[test]
fn a_misspelt_subcommand_exits_2_with_a_suggestion() {
    for (word, meant) in [
        ("diag", "diagnose"),
        ("diagnoze", "diagnose"),
        ("onse", "once"),
        ("onc", "once"),
        ("ocne", "once"),
        ("reslove", "resolve"),
        ("resolv", "resolve"),
        ("resolver", "resolve"),
        ("mes", "mesh"),
        ("mehs", "mesh"),
        ("mash", "mesh"),
    ] {
        let output = run(Command::new(CALLER).arg(word));
        assert_eq!(output.code, Some(2), "{word}");
        let advice = format!("did you mean {meant}? For a host: http://{word}/");
        assert!(output.stderr.contains(&advice), "{}", output.stderr);
    }
}

#[test]
fn a_password_is_never_shown() {
    let bed = Bed::start(&["backend-1"]);
    for url in [
        "http://u:s3cret@bad_host:99999/",
        "http://u:s3/cret@backend/",
    ] {
        let given = caller(&bed, &["once", url]);
        let from_variable = run(bed.caller(CALLER).env("CALLER_URL", url).arg("--count=1"));
        for output in [given, from_variable] {
            assert_eq!(output.code, Some(2));
            assert!(!output.stderr.contains("s3"), "{}", output.stderr);
        }
    }
    let redirect = "Location: http://u:s3cret@elsewhere/";
    let response = format!("HTTP/1.1 302 Found\r\n{redirect}\r\nContent-Length: 0\r\n\r\n");
    let url = format!("http://{}/", server(response));
    let output = caller(&bed, &["once", &url]);
    let location = "Location: http://elsewhere/ after ";
    assert!(output.stdout.contains(location), "{}", output.stdout);
}

#[test]
fn a_single_failing_pod_is_not_compared_with_others() {
    let bed = Bed::start(&[]);
    let (flaky, _requests) = recorder();
    bed.endpoints.set([flaky]);
    let output = caller(&bed, &["diagnose", "--expect-status=200"]);
    assert!(output.stdout.contains("8 of 8 failed"), "{}", output.stdout);
    assert!(
        !output.stdout.contains("others are well"),
        "{}",
        output.stdout
    );
}

#[test]
fn resolve_without_a_name_looks_up_the_host_of_the_target() {
    let bed = Bed::start(&["backend-1"]);
    let mut command = bed.caller(CALLER);
    let output = run(command.env("CALLER_URL", bed.url("nosuch")).arg("resolve"));
    assert_eq!(output.code, Some(6));
    assert!(
        output.stdout.contains("\nnosuch: NXDOMAIN"),
        "{}",
        output.stdout
    );
}

#[test]
fn diagnose_makes_several_calls_and_names_the_pods_that_failed() {
    let bed = Bed::start(&["backend-1"]);
    let (sick, _requests) = recorder();
    let well = bed.pod("backend-2", (Ipv4Addr::LOCALHOST, 0).into());
    // Once in 128 times, all eight calls reach the same pod by chance.
    let output = (0..20).find_map(|_| {
        bed.endpoints.set([sick, well]);
        let output = caller(&bed, &["diagnose"]);
        (output.stdout.contains("backend-2") && output.code == Some(22)).then_some(output)
    });
    let output = output.expect("one of many").stdout;
    let share = output.lines().find(|line| line.contains("calls  "));
    let share = share.expect("a line");
    assert!(share.starts_with("FAIL  calls        "), "{output}");
    assert!(share.contains(" of 8 failed: http_status "), "{output}");
    assert!(share.contains("backend-2 "), "{output}");
    assert!(
        // The response names no pod, so it may be one of the same pod.
        output.contains("likely       some of the pods do not serve the request, or the backend "),
        "{output}"
    );
}

#[test]
fn diagnose_names_the_target_first_and_notes_a_missing_port() {
    let bed = Bed::start(&["backend-1"]);
    let output = caller(&bed, &["diagnose", "http://127.0.0.7"]);
    let first = "      target       http://127.0.0.7:80/\n";
    assert!(output.stdout.starts_with(first), "{}", output.stdout);
    let port = "FAIL  TCP          127.0.0.7:80 (the URL names no port): connecting: ";
    assert!(output.stdout.contains(port), "{}", output.stdout);
    let next = "next         caller diagnose --listening\n";
    assert!(output.stdout.contains(next), "{}", output.stdout);
}

#[test]
fn localhost_is_not_looked_up_in_dns() {
    let bed = Bed::start(&["backend-1"]);
    assert_eq!(caller(&bed, &["once", &bed.url("localhost")]).code, Some(0));
}

#[test]
fn help_names_flags_and_never_the_values_of_variables() {
    for (args, named) in [
        (&["--help"][..], "--interval"),
        (&["once", "--help"], "--expect"),
        (&["resolve", "--help"], "--nameserver"),
        (&["diagnose", "--help"], "--connect-timeout"),
        (&["mesh", "--help"], "--rows-port"),
        (
            &["mesh", "--help"],
            "Exit code: 0 if all is well, 1 if not, 3 if no caller of the mesh gave its results.",
        ),
    ] {
        let output = run(Command::new(CALLER)
            .args(args)
            .env("CALLER_HEADER", "Authorization: secret"));
        assert_eq!(output.code, Some(0));
        assert!(output.stdout.contains(named), "{}", output.stdout);
        assert!(!output.stdout.contains("secret"), "{}", output.stdout);
    }
}
