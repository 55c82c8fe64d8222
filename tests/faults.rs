//! The fault matrix: every kind of failure, provoked by a real part that misbehaves so. For each
//! fault, `caller once` names it and exits as curl would, and a `caller` that is running while it is
//! mended succeeds again.

#[path = "faults/dns.rs"]
mod dns;
#[path = "faults/http.rs"]
mod http;
#[path = "faults/namespace.rs"]
mod namespace;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use caller::failure::FailureKind as Kind;
use test_support::bed::Bed;
use test_support::process::{Process, run};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");

/// Short enough for a test, and far longer than anything on this machine takes that is well.
const PATIENCE: [&str; 3] = [
    "--timeout=1500ms",
    "--dns-timeout=400ms",
    "--connect-timeout=400ms",
];

/// A caller in `command`'s environment names the fault, and is well again once it is mended.
fn assert_named(
    name: &str,
    command: impl Fn() -> Command,
    kind: Kind,
    evidence: &str,
    mend: impl FnOnce(),
) {
    let output = run(command().arg("once").args(PATIENCE));
    let lines: Vec<&str> = output.stdout.lines().collect();
    let seen = format!("{name}: {}", output.stdout);
    assert_eq!(lines.len(), 3, "{seen}");
    assert!(
        lines[0].starts_with("=== Frontend calling Backend at "),
        "{seen}"
    );
    assert!(lines[1].contains(evidence), "no {evidence:?} in {seen}");
    let verdict = format!(
        "Call failed: {}; likely {}",
        caller::verdict::words(kind),
        caller::verdict::usual_cause(kind)
    );
    assert_eq!(lines[2], verdict, "{seen}");
    assert_eq!(output.code, Some(kind.exit_code().into()), "{seen}");
    let expected = run(command()
        .arg("once")
        .args(PATIENCE)
        .args(["--expect", kind.label()]));
    assert_eq!(expected.code, Some(0), "{seen}");

    let running = Process::spawn(command().args(PATIENCE).arg("--interval=50ms"));
    running.wait_for_stdout("Call failed: ");
    mend();
    running.wait_for_stdout("Response received successfully!");
}

#[test]
fn dns_that_misbehaves() {
    use dns::Mode::*;
    let bed = Bed::start(&["backend-1"]);
    let server = dns::Server::start();
    let host = "backend.pod-to-pod-communication.svc.cluster.local.";
    for (mode, kind, evidence) in [
        (
            NxDomain,
            Kind::DnsNxdomain,
            "NXDOMAIN for backend.pod-to-pod",
        ),
        (NoData, Kind::DnsNodata, "NODATA for backend.pod-to-pod"),
        (
            ServFail,
            Kind::DnsServfail,
            "SERVFAIL for backend.pod-to-pod",
        ),
        (
            ServFailThenNxDomain,
            Kind::DnsServfail,
            "SERVFAIL for backend.pod-to-pod",
        ),
        (
            NxDomainButServFailForTheBareName,
            Kind::DnsNxdomain,
            "NXDOMAIN for backend.pod-to-pod",
        ),
        (
            NotImplemented,
            Kind::DnsServfail,
            "NOTIMP for backend.pod-to-pod",
        ),
        (Refused, Kind::DnsRefused, "REFUSED for backend.pod-to-pod"),
        (Silent, Kind::DnsTimeout, "no answer for backend.pod-to-pod"),
        (SilentForIpv6, Kind::ConnectRefused, "Connection refused"),
        (Late, Kind::DnsTimeout, "no answer for backend.pod-to-pod"),
        (
            WrongId,
            Kind::DnsTimeout,
            "no answer for backend.pod-to-pod",
        ),
        (
            AnotherQuestion,
            Kind::DnsTimeout,
            "no answer for backend.pod-to-pod",
        ),
        (Garbage, Kind::DnsMalformed, "malformed answer"),
        (NotAResponse, Kind::DnsMalformed, "malformed answer"),
        (CnameLoop, Kind::DnsMalformed, "a CNAME loop"),
        (
            TruncatedAndTcpCloses,
            Kind::DnsMalformed,
            "malformed answer",
        ),
        (
            TruncatedAndTcpAnswersAnotherQuestion,
            Kind::DnsMalformed,
            "it answers another question",
        ),
        (
            TruncatedAndTcpSilent,
            Kind::DnsTimeout,
            "no answer for backend.pod-to-pod",
        ),
    ] {
        // Whatever a fault leaves to be called is a closed port.
        let url = match mode {
            SilentForIpv6 => format!("http://backend:{}/", closed_port()),
            _ => bed.url("backend"),
        };
        let command = || {
            let mut command = bed.caller(CALLER);
            command.env("CALLER_NAMESERVER", server.addr.to_string());
            command.env("CALLER_URL", &url);
            command
        };
        server.set(mode);
        if mode == SilentForIpv6 {
            // IPv4's addresses are used all the same; the silence shows in the transcript.
            let output = run(command().args(["once", "--format=json"]).args(PATIENCE));
            assert_eq!(output.code, Some(7), "{}", output.stdout);
            let silent = r#""type":"AAAA","server""#;
            assert!(output.stdout.contains(silent), "{}", output.stdout);
            assert!(
                output.stdout.contains(r#""rcode":"no answer""#),
                "{}",
                output.stdout
            );
            continue;
        }
        assert_named(&format!("{mode:?}"), command, kind, evidence, || {
            server.set(Healthy);
        });
        assert!(server.was_asked_for(host));
    }
}

#[test]
fn dns_that_is_odd_but_right() {
    use dns::Mode::*;
    let bed = Bed::start(&["backend-1"]);
    let server = dns::Server::start();
    for mode in [Healthy, CnameToBackend, TwoHundredAddresses, LostOnce] {
        server.set(mode);
        let mut command = bed.caller(CALLER);
        command.env("CALLER_NAMESERVER", server.addr.to_string());
        let output = run(command.args(["once", "--dns-timeout=400ms", "--timeout=10s"]));
        assert_eq!(output.code, Some(0), "{mode:?}: {}", output.stdout);
    }
}

#[test]
fn a_second_server_is_asked_when_the_first_does_not_know() {
    use dns::Mode::*;
    let bed = Bed::start(&["backend-1"]);
    let first = dns::Server::start();
    for mode in [Silent, ServFail, Refused, Garbage] {
        first.set(mode);
        let mut command = bed.caller(CALLER);
        command.env("CALLER_NAMESERVER", format!("{},{}", first.addr, bed.dns));
        let output = run(command.args(["once", "--format=json"]).args(PATIENCE));
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
    let mut command = bed.caller(CALLER);
    command.env("CALLER_NAMESERVER", format!("{},{}", first.addr, bed.dns));
    assert_eq!(run(command.arg("once").args(PATIENCE)).code, Some(6));
}

#[test]
fn a_dead_dns_costs_one_timeout_and_not_one_for_each_question() {
    let bed = Bed::start(&["backend-1"]);
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = silent.local_addr().expect("it is bound");
    let mut command = bed.caller(CALLER);
    command.env("CALLER_NAMESERVER", format!("{addr},{addr},{addr}"));
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
fn nothing_listens_at_the_nameservers_address() {
    let bed = Bed::start(&["backend-1"]);
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    let closed = closed.expect("a free port");
    let command = || {
        let mut command = bed.caller(CALLER);
        command.env("CALLER_NAMESERVER", closed.to_string());
        command
    };
    let mut mended = None;
    assert_named(
        "closed nameserver",
        command,
        Kind::DnsUnreachable,
        "unreachable (Connection refused",
        || mended = Some(dns::Server::start_at(closed)),
    );
}

#[test]
fn a_resolv_conf_that_is_of_no_use() {
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
    for (name, text, evidence) in [
        ("absent", None, "cannot read "),
        ("empty", Some(&b""[..]), "no nameserver in "),
        (
            "nonsense",
            Some(b"\x00\xff nonsense\nnameserver nowhere\n"),
            "no nameserver in ",
        ),
    ] {
        match text {
            Some(text) => std::fs::write(bed.resolv_conf(), text).expect("it can be written"),
            None => std::fs::remove_file(bed.resolv_conf()).expect("it was there"),
        }
        assert_named(name, command, Kind::ResolvConf, evidence, || {
            bed.set_resolv_conf(&good);
        });
    }
}

#[test]
fn a_backend_that_misbehaves() {
    use http::Mode::*;
    let server = http::Server::start();
    let url = format!("http://{}/", server.addr);
    for (mode, kind, evidence) in [
        (
            ClosesWithoutReading,
            Kind::Reset,
            "Connection reset by peer",
        ),
        (ResetsBeforeTheHead, Kind::Reset, "Connection reset by peer"),
        (ResetsInTheHead, Kind::Reset, "Connection reset by peer"),
        (ResetsInTheBody, Kind::Reset, "Connection reset by peer"),
        (
            ClosesBeforeTheHead,
            Kind::EmptyReply,
            "connection closed before message completed",
        ),
        (
            ClosesInTheHead,
            Kind::EmptyReply,
            "connection closed before message completed",
        ),
        (ClosesInTheBody, Kind::Incomplete, "after 5 bytes of body"),
        (ClosesInAChunk, Kind::Incomplete, "after 5 bytes of body"),
        (BadChunk, Kind::Protocol, "after 0 bytes of body"),
        (Garbage, Kind::Protocol, "invalid HTTP version parsed"),
        (
            AnotherVersion,
            Kind::Protocol,
            "invalid HTTP version parsed",
        ),
        (TlsAlert, Kind::Protocol, "invalid HTTP version parsed"),
        (HugeHead, Kind::Protocol, "message head is too large"),
        (Silent, Kind::ResponseTimeout, "connected, then no answer"),
        (
            AByteAtATimeOfTheHead,
            Kind::ResponseTimeout,
            "connected, then no answer",
        ),
        (
            AByteAtATimeOfTheBody,
            Kind::ResponseTimeout,
            "bytes of body",
        ),
        (
            EndlessBody,
            Kind::BodyTooLarge,
            "over 1048576 bytes of body",
        ),
        (
            ServiceUnavailable,
            Kind::HttpStatus,
            "HTTP 503 Service Unavailable",
        ),
        (NotFound, Kind::HttpStatus, "HTTP 404 Not Found"),
        (Redirect, Kind::HttpStatus, "HTTP 302 Found"),
    ] {
        server.set(mode);
        let command = || {
            let mut command = Command::new(CALLER);
            command
                .env("CALLER_ADMIN_LISTEN", "off")
                .env("CALLER_URL", &url);
            command
        };
        assert_named(&format!("{mode:?}"), command, kind, evidence, || {
            server.set(Healthy);
        });
    }
}

#[test]
fn a_backend_that_hangs_up_at_once_is_never_taken_for_another_protocol() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    // Whether the request was on its way by then is chance; hence so many.
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
fn a_pod_without_file_descriptors() {
    // How many the program has open by itself is its own affair; one of these is one too few.
    let out_of_descriptors = (4..24).any(|limit| {
        let call = format!("ulimit -n {limit}; exec {CALLER} once http://127.0.0.1:1/");
        let output = run(Command::new("sh").args(["-c", &call]));
        let verdict = format!(
            "Call failed: {}; likely {}\n",
            caller::verdict::words(Kind::Local),
            caller::verdict::usual_cause(Kind::Local)
        );
        output.stdout.contains("Too many open files") && output.stdout.ends_with(&verdict)
    });
    assert!(out_of_descriptors);
}

#[test]
fn a_question_that_cannot_be_asked_is_one_failure_and_not_two() {
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
    assert!(
        diagnosis.contains(caller::verdict::words(Kind::Local)),
        "{diagnosis}"
    );
}

#[test]
fn a_port_that_is_closed() {
    let port = closed_port();
    let command = || {
        let mut command = Command::new(CALLER);
        command
            .env("CALLER_ADMIN_LISTEN", "off")
            .env("CALLER_URL", format!("127.0.0.1:{port}"));
        command
    };
    let mut mended = None;
    assert_named(
        "closed port",
        command,
        Kind::ConnectRefused,
        "Connection refused",
        || {
            mended = Some(http::Server::start_at((Ipv4Addr::LOCALHOST, port).into()));
        },
    );
}

fn closed_port() -> u16 {
    let bound =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.expect("a free port").port()
}
