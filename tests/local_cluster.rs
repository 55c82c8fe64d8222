//! The README's first command.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use test_support::http::get;
use test_support::process::{Process, Signal, run};

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_local-cluster"))
}

#[test]
fn both_frontends_are_answered_by_both_backends() {
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
fn ports_that_are_taken_give_way_and_ctrl_c_ends_it() {
    // Whoever holds these, this test or another program, they are taken.
    let _taken =
        [8080, 8082, 8083, 10053].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
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
fn what_it_suggests_to_use_is_there() {
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
    // That it answers is what the frontends show; over TCP it answers as well.
    std::net::TcpStream::connect(dns).expect("DNS over TCP");
}
