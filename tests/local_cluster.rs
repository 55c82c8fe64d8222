//! The binary `local-cluster`, which is the first command in the README.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use test_support::http::get;
use test_support::process::{Process, Signal, run};

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_local-cluster"))
}

#[test]
fn both_frontends_reach_both_backends() {
    let output = run(command().args(["--count=20", "--interval=10ms"]));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(output.stderr, "");
    for frontend in ["frontend-1", "frontend-2"] {
        let prefix = format!("[pod/{frontend}/caller] ");
        let lines: Vec<&str> = output
            .stdout
            .lines()
            .filter_map(|line| line.strip_prefix(&prefix))
            .collect();
        assert!(
            lines[0].starts_with("=== Frontend calling Backend at "),
            "{lines:#?}"
        );
        assert_eq!(lines[1], "Hello from Backend Service!");
        assert_eq!(lines[2], "Response received successfully!");
        for backend in ["backend-1", "backend-2"] {
            let answered = |line: &&str| line.starts_with(&format!("pod={backend} "));
            assert!(lines.iter().any(answered), "{lines:#?}");
        }
    }
}

#[test]
fn other_ports_replace_those_in_use_and_ctrl_c_ends_the_cluster() {
    // If this fails, another process has the ports, which is just as good.
    let _taken =
        [18080, 18082, 18083, 10053].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    let cluster = Process::spawn(command().arg("--interval=1h"));
    let service = cluster.wait_for_stdout("Service ");
    let (_, service) = service.split_once("-> ").expect("an address");
    let service = service.parse().expect("an address");
    cluster.wait_for_stdout("[pod/frontend-2/caller] Response received successfully!");
    assert_eq!(get(service, "/").body, "Hello from Backend Service!\n");
    let page = cluster.wait_for_stdout("frontend-1, live page at http://");
    let (_, page) = page.split_once("http://").expect("a URL");
    let (page, _) = page.split_once('/').expect("a path");
    assert_eq!(
        get(page.parse().expect("an address"), "/readyz").status(),
        200
    );
    cluster.signal(Signal::INT);
    let output = cluster.finish();
    assert_eq!(output.code, Some(0));
    assert!(
        output
            .stdout
            .contains("[pod/frontend-1/caller] 1 calls, 1 ok"),
        "{}",
        output.stdout
    );
}

#[test]
fn the_printed_addresses_can_be_used() {
    let cluster = Process::spawn(command().arg("--interval=1h"));
    let suggestion = cluster.wait_for_stdout("--nameserver");
    let value = |flag: &str| {
        let mut words = suggestion
            .split_whitespace()
            .skip_while(|word| *word != flag);
        words.nth(1).expect("a value").to_owned()
    };
    let resolv_conf = std::fs::read_to_string(value("--resolv-conf")).expect("it is there");
    assert!(resolv_conf.contains("search pod-to-pod-communication.svc.cluster.local "));
    let dns: std::net::SocketAddr = value("--nameserver").parse().expect("an address");
    // The frontends use it over UDP; it accepts TCP as well.
    std::net::TcpStream::connect(dns).expect("DNS over TCP");
}

#[test]
fn the_printed_command_runs_unchanged() {
    let cluster = Process::spawn(command().arg("--interval=1h"));
    let suggestion = cluster.wait_for_stdout(" caller diagnose ");
    let (_, suggestion) = suggestion.split_once("try ").expect("a suggestion");
    let output = run(Command::new("sh").args(["-c", suggestion.trim()]));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(
        output
            .stdout
            .contains("ok    HTTP         200 from backend-"),
        "{}",
        output.stdout
    );
}

#[test]
fn a_missing_part_of_the_cluster_is_named_as_the_cause() {
    for (part, verdict) in [
        ("service", "Call failed: the name does not exist; likely "),
        (
            "backends",
            "Call failed: the connection was refused; likely ",
        ),
        ("dns", "Call failed: DNS cannot be reached; likely "),
    ] {
        let output = run(command().args(["--count=1", "--without", part]));
        assert_eq!(output.code, Some(1), "{}", output.stderr);
        assert_eq!(
            output.stdout.matches(verdict).count(),
            2,
            "{}",
            output.stdout
        );
    }
    let output = run(command().args(["--without=kubelet"]));
    assert_eq!(output.code, Some(2));
}

#[test]
fn a_faulty_pod_is_started_beside_a_healthy_one() {
    let output = run(command().args(["--count=40", "--interval=5ms", "--fault-percent=100"]));
    assert_eq!(output.code, Some(1));
    let pod = |name: &str, line: &str| {
        let pods = output.stdout.matches(&format!("] pod={name} ")).count();
        assert_eq!(
            output.stdout.matches(line).count(),
            pods,
            "{}",
            output.stdout
        );
        assert!(pods > 0);
    };
    pod("backend-1", "HTTP 503 Service Unavailable");
    pod("backend-2", "Response received successfully!");
}
