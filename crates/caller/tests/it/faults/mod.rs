//! The fault matrix: every kind of failure, caused by a real component that misbehaves in this way. `caller once` names
//! each fault and has the exit code of curl, and a running `caller` succeeds again when the fault is repaired.

mod dns;
mod http;
mod namespace;
mod tls;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use caller::failure::FailureKind;
use caller::verdict;
use test_support::bed::Bed;
use test_support::pki::free_addr;
use test_support::process::{Output, Process, run};

use crate::CALLER;

/// Timeouts that are short enough for a test, and far longer than anything takes without a fault.
const TIMEOUTS: [&str; 3] = [
    "--timeout=1500ms",
    "--dns-timeout=400ms",
    "--connect-timeout=400ms",
];

/// A command that runs a caller in this cluster with these name servers.
fn caller(bed: &Bed, nameservers: String) -> Command {
    let mut command = bed.caller(CALLER);
    command.env("CALLER_NAMESERVER", nameservers);
    command
}

/// How a fault is expected to be reported.
struct Expected {
    kind: FailureKind,
    /// Text that the second line contains.
    evidence: &'static str,
    /// Text that the likely cause in the third line contains; `None` for the usual cause of the kind.
    likely: Option<&'static str>,
}

impl Expected {
    /// The output of `caller once` is as expected.
    fn assert_once(&self, output: &Output) {
        let Self {
            kind,
            evidence,
            likely,
        } = *self;
        let lines: Vec<&str> = output.stdout.lines().collect();
        let seen = &output.stdout;
        assert_eq!(lines.len(), 3, "{seen}");
        assert!(
            lines[0].starts_with("=== Frontend calling Backend at "),
            "{seen}"
        );
        assert!(lines[1].contains(evidence), "no {evidence:?} in {seen}");
        let (what, cause) = lines[2].split_once("; likely ").expect("a likely cause");
        assert!(what.starts_with("Call failed: "), "{seen}");
        match likely {
            Some(likely) => assert!(cause.contains(likely), "no {likely:?} in {seen}"),
            None => assert_eq!(cause, verdict::usual_cause(kind), "{seen}"),
        }
        assert_eq!(output.code, Some(kind.exit_code().into()), "{seen}");
    }
}

/// The caller that `command` runs reports the fault, and succeeds after `repair`.
fn assert_reported(command: impl Fn() -> Command, expected: &Expected, repair: impl FnOnce()) {
    expected.assert_once(&run(command().arg("once").args(TIMEOUTS)));
    let met = run(command()
        .arg("once")
        .args(TIMEOUTS)
        .args(["--expect", expected.kind.label()]));
    assert_eq!(met.code, Some(0), "{}", met.stdout);

    let running = Process::spawn(command().args(TIMEOUTS).arg("--interval=50ms"));
    running.wait_for_stdout("Call failed: ");
    repair();
    running.wait_for_stdout("Response received successfully!");
}

/// A test for each way in which a name server misbehaves.
macro_rules! dns_faults {
    ($($test:ident: $mode:ident, $kind:ident, $evidence:literal $(, $likely:literal)?;)*) => {
        $(#[test]
        fn $test() {
            let likely = None::<&str>$(.or(Some($likely)))?;
            dns_fault(dns::Mode::$mode, FailureKind::$kind, $evidence, likely);
        })*
    };
}

dns_faults! {
    dns_nx_domain: NxDomain, DnsNxdomain, "NXDOMAIN for backend.pod-to-pod";
    dns_no_data: NoData, DnsNodata, "NODATA for backend.pod-to-pod";
    dns_serv_fail: ServFail, DnsServfail, "SERVFAIL for backend.pod-to-pod";
    dns_serv_fail_then_nx_domain: ServFailThenNxDomain, DnsServfail, "SERVFAIL for backend.pod-to-pod";
    dns_nx_domain_but_serv_fail_for_the_bare_name: NxDomainButServFailForTheBareName, DnsNxdomain, "NXDOMAIN for backend.pod-to-pod";
    dns_not_implemented: NotImplemented, DnsServfail, "NOTIMP for backend.pod-to-pod";
    dns_refused: Refused, DnsRefused, "REFUSED for backend.pod-to-pod";
    dns_silent: Silent, DnsTimeout, "no answer for backend.pod-to-pod";
    dns_late: Late, DnsTimeout, "no answer for backend.pod-to-pod";
    dns_wrong_id: WrongId, DnsTimeout, "no answer for backend.pod-to-pod", "datagrams came that answer no query";
    dns_another_question: AnotherQuestion, DnsTimeout, "no answer for backend.pod-to-pod", "datagrams came that answer no query";
    dns_garbage: Garbage, DnsMalformed, "malformed answer";
    dns_not_a_response: NotAResponse, DnsMalformed, "malformed answer";
    dns_cname_loop: CnameLoop, DnsMalformed, "a CNAME loop", "leads to itself";
    dns_truncated_and_tcp_closes: TruncatedAndTcpCloses, DnsMalformed, "connection closed without an answer for backend.pod-to-pod", "too large for UDP, and TCP to port 53";
    dns_truncated_and_tcp_answers_another_question: TruncatedAndTcpAnswersAnotherQuestion, DnsMalformed, "it answers another question";
    dns_truncated_and_tcp_silent: TruncatedAndTcpSilent, DnsTimeout, "(A, AAAA over TCP, truncated over UDP)", "too large for UDP, and TCP to port 53";
}

fn dns_fault(
    mode: dns::Mode,
    kind: FailureKind,
    evidence: &'static str,
    likely: Option<&'static str>,
) {
    let bed = Bed::start(&["backend-1"]);
    let server = dns::Server::start();
    server.set(mode);
    let expected = Expected {
        kind,
        evidence,
        likely,
    };
    let command = || caller(&bed, server.addr.to_string());
    assert_reported(command, &expected, || server.set(dns::Mode::Healthy));
    assert!(server.was_asked_for("backend.pod-to-pod-communication.svc.cluster.local."));
}

#[test]
fn dns_that_responds_for_one_family_only_gives_its_addresses() {
    let bed = Bed::start(&["backend-1"]);
    let server = dns::Server::start();
    server.set(dns::Mode::SilentForIpv6);
    let mut command = caller(&bed, server.addr.to_string());
    // The address that is left is called at a closed port.
    let url = format!("http://backend:{}/", free_addr().port());
    let output = run(command.args(["once", "--format=json", &url]).args(TIMEOUTS));
    assert_eq!(output.code, Some(7), "{}", output.stdout);
    let silent = r#""type":"AAAA","server""#;
    assert!(output.stdout.contains(silent), "{}", output.stdout);
    let no_answer = r#""rcode":"no answer""#;
    assert!(output.stdout.contains(no_answer), "{}", output.stdout);
}

#[test]
fn unusual_but_valid_dns_responses_are_accepted() {
    use dns::Mode::*;
    let bed = Bed::start(&["backend-1"]);
    let server = dns::Server::start();
    for mode in [Healthy, CnameToBackend, TwoHundredAddresses, LostOnce] {
        server.set(mode);
        let mut command = caller(&bed, server.addr.to_string());
        let output = run(command.args(["once", "--dns-timeout=400ms", "--timeout=10s"]));
        assert_eq!(output.code, Some(0), "{mode:?}: {}", output.stdout);
    }
}

#[test]
fn the_second_name_server_is_queried_when_the_first_fails() {
    use dns::Mode::*;
    let bed = Bed::start(&["backend-1"]);
    let first = dns::Server::start();
    for mode in [Silent, ServFail, Refused, Garbage] {
        first.set(mode);
        let mut command = caller(&bed, format!("{},{}", first.addr, bed.dns));
        let output = run(command.args(["once", "--format=json"]).args(TIMEOUTS));
        assert_eq!(output.code, Some(0), "{mode:?}: {}", output.stdout);
        let asked = |server: SocketAddr| output.stdout.find(&format!("\"server\":\"{server}\""));
        assert!(
            asked(first.addr) < asked(bed.dns),
            "{mode:?}: {}",
            output.stdout
        );
    }
    // NXDOMAIN is an answer.
    first.set(NxDomain);
    let mut command = caller(&bed, format!("{},{}", first.addr, bed.dns));
    assert_eq!(run(command.arg("once").args(TIMEOUTS)).code, Some(6));
}

#[test]
fn a_dead_name_server_costs_one_timeout_and_not_one_for_each_query() {
    let bed = Bed::start(&["backend-1"]);
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = silent.local_addr().expect("it is bound");
    let mut command = caller(&bed, format!("{addr},{addr},{addr}"));
    let output = run(command.args([
        "once",
        "--format=json",
        "--timeout=500ms",
        "--dns-timeout=200ms",
    ]));
    // Three servers, two attempts, two types and four names: 48 questions without a deadline.
    let questions = output.stdout.matches("\"rcode\":\"no answer\"").count();
    assert_eq!((output.code, questions), (Some(6), 6), "{}", output.stdout);
}

#[test]
fn a_closed_dns_port_is_reported() {
    let bed = Bed::start(&["backend-1"]);
    let closed = free_addr();
    let command = || caller(&bed, closed.to_string());
    let mut repaired = None;
    let expected = Expected {
        kind: FailureKind::DnsUnreachable,
        evidence: "unreachable (Connection refused",
        likely: None,
    };
    assert_reported(command, &expected, || {
        repaired = Some(dns::Server::start_at(closed));
    });
}

#[test]
fn a_missing_empty_or_invalid_resolv_conf_is_reported() {
    let bed = Bed::start(&["backend-1"]);
    let dns = dns::Server::start_on_port_53();
    let Some(dns) = dns else { return };
    let good = format!(
        "nameserver {}\nsearch pod-to-pod-communication.svc.cluster.local\noptions ndots:5 no-such-option\n",
        dns.addr.ip()
    );
    let command = || {
        let mut command = bed.caller(CALLER);
        command.env_remove("CALLER_NAMESERVER");
        command
    };
    for (text, evidence) in [
        (None, "cannot read "),
        (Some(&b""[..]), "no nameserver in "),
        (
            Some(b"\x00\xff nonsense\nnameserver nowhere\n"),
            "no nameserver in ",
        ),
    ] {
        match text {
            Some(text) => std::fs::write(bed.resolv_conf(), text).expect("it can be written"),
            None => std::fs::remove_file(bed.resolv_conf()).expect("it was there"),
        }
        let expected = Expected {
            kind: FailureKind::ResolvConf,
            evidence,
            likely: None,
        };
        assert_reported(command, &expected, || bed.set_resolv_conf(&good));
    }
}

#[test]
fn a_backend_that_closes_at_once_is_never_reported_as_another_protocol() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    // Whether the request has been sent by then is chance, so many calls are made.
    let mut command = Command::new(CALLER);
    command.args([
        "--admin-listen=off",
        "--count=300",
        "--interval=0s",
        "--format=json",
    ]);
    let output = run(command.arg(format!("http://{addr}/")));
    for line in output
        .stdout
        .lines()
        .filter(|line| line.contains("\"result\""))
    {
        let named = ["reset", "empty_reply"].map(|kind| format!("\"result\":\"{kind}\""));
        assert!(named.iter().any(|kind| line.contains(kind)), "{line}");
    }
    assert_eq!(output.stdout.lines().count(), 301);
}

#[test]
fn a_lack_of_file_descriptors_is_reported() {
    // How many descriptors the program needs is not known here; one of these limits is one too low.
    let out_of_descriptors = (4..24).any(|limit| {
        let call = format!("ulimit -n {limit}; exec {CALLER} once http://127.0.0.1:1/");
        let output = run(Command::new("sh").args(["-c", &call]));
        let verdict = "Call failed: the call could not be made from here; likely this pod is short of file descriptors\n";
        output.stdout.contains("Too many open files") && output.stdout.ends_with(verdict)
    });
    assert!(out_of_descriptors);
}

#[test]
fn a_start_without_enough_file_descriptors_is_an_error_and_not_a_panic() {
    let starts = (4..24).map(|limit| {
        let call = format!("ulimit -n {limit}; exec {CALLER} once http://127.0.0.1:1/");
        run(Command::new("sh").args(["-c", &call]))
    });
    let mut failed = 0;
    for Output { code, stderr, .. } in starts {
        assert!(!stderr.contains("panicked"), "{stderr}");
        let error = "caller: cannot start: Too many open files (os error 24)\n";
        failed += u32::from(code == Some(1) && stderr == error);
    }
    assert!(failed > 0);
}

#[test]
fn a_query_without_a_file_descriptor_is_reported_once() {
    let bed = Bed::start(&["backend-1"]);
    let diagnoses = (4..24).map(|limit| {
        let call = format!("ulimit -n {limit}; exec {CALLER} diagnose");
        let mut limited = Command::new("sh");
        for (name, value) in bed.caller(CALLER).get_envs() {
            limited.env(name, value.expect("it is set"));
        }
        run(limited.args(["-c", &call])).stdout
    });
    let mut unasked = diagnoses.filter(|text| text.contains("resolv.conf: Too many open files"));
    let diagnosis = unasked.next().expect("one limit is too low");
    assert_eq!(diagnosis.matches("FAIL").count(), 1, "{diagnosis}");
    let likely = "likely       this pod is short of file descriptors\n";
    for text in [verdict::words(FailureKind::Local), likely] {
        assert!(diagnosis.contains(text), "{diagnosis}");
    }
}

#[test]
fn a_closed_port_is_reported() {
    let addr = free_addr();
    let command = || {
        let mut command = Command::new(CALLER);
        command
            .env("CALLER_ADMIN_LISTEN", "off")
            .env("CALLER_URL", addr.to_string());
        command
    };
    let mut repaired = None;
    let expected = Expected {
        kind: FailureKind::ConnectRefused,
        evidence: "connecting: Connection refused",
        likely: Some("nothing in this pod listens at that port"),
    };
    assert_reported(command, &expected, || {
        repaired = Some(http::Server::start_at(addr));
    });
}
