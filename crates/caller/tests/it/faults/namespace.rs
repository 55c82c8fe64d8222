//! Dropped and rejected packets, and missing routes, in a network namespace with nftables, so that no packet leaves
//! this machine.

use std::process::Command;

use caller::failure::FailureKind;
use caller::verdict;
use test_support::netns::{BACKEND, Netns, Place, Routed};
use test_support::process::{Process, run};
use test_support::tool;

use super::{Expected, assert_reported};
use crate::CALLER;

/// A network namespace. `None` if tools or privileges are missing: the test is to be skipped, and a line has been
/// printed that says so.
fn namespace(test: &str) -> Option<Netns> {
    let _ = tool("python3")?;
    Netns::new(test)
}

/// A web server that is not ours, in the namespace.
fn web_server(namespace: &Netns, address: &str, port: &str) -> Process {
    let mut command = namespace.command("python3");
    command.args(["-u", "-m", "http.server", port, "--bind", address]);
    let server = Process::spawn(command.current_dir("/proc/self/net"));
    server.wait_for_stdout("Serving HTTP");
    server
}

/// A backend at this address of the namespace.
fn backend(namespace: &Netns, address: &str) -> Process {
    web_server(namespace, address, "8080")
}

/// A caller in the namespace.
fn caller(namespace: &Netns, url: &str) -> Command {
    let mut command = namespace.command(CALLER);
    command
        .env("CALLER_ADMIN_LISTEN", "off")
        .env("CALLER_URL", url);
    command
}

/// A test for each rule that keeps packets from a backend. The last part of a row says whether the result counts as
/// blocked by a policy.
macro_rules! policies {
    ($($test:ident: $chain:literal $rule:literal, $kind:ident, $evidence:literal, $likely:expr, $blocked:literal;)*) => {
        $(#[test]
        fn $test() {
            let expected = Expected { kind: FailureKind::$kind, evidence: $evidence, likely: $likely };
            assert_policy(stringify!($test), $chain, $rule, &expected, $blocked);
        })*
    };
}

policies! {
    packets_are_dropped: "input" "tcp dport 8080 drop",
        ConnectTimeout, "connecting: no answer", None, true;
    packets_are_rejected: "input" "tcp dport 8080 reject with icmpx type host-unreachable",
        ConnectUnreachable, "connecting: No route to host", None, true;
    packets_are_forbidden: "input" "tcp dport 8080 reject with icmpx type admin-prohibited",
        ConnectUnreachable, "connecting: No route to host", None, true;
    packets_are_rejected_before_they_leave: "output" "tcp dport 8080 reject with icmpx type no-route",
        ConnectUnreachable, "connecting: Network is unreachable", None, true;
    packets_are_reset: "input" "tcp dport 8080 reject with tcp reset",
        ConnectRefused, "connecting: Connection refused", Some("nothing in this pod listens at that port"), false;
    packets_may_not_be_sent: "output" "tcp dport 8080 tcp flags syn drop",
        ConnectTimeout, "connecting: no answer", None, true;
    a_connection_is_reset_while_it_is_made:
        "input" "tcp dport 8080 tcp flags & (syn | ack) == ack reject with tcp reset",
        Reset, "connecting: Connection reset by peer", Some("hangs up as soon as it is connected"), false;
}

fn assert_policy(test: &str, chain: &str, rule: &str, expected: &Expected, is_blocked: bool) {
    let Some(namespace) = namespace(test) else {
        return;
    };
    let _backend = backend(&namespace, "127.0.0.1");
    namespace.rule(chain, rule);
    let command = || caller(&namespace, "http://127.0.0.1:8080/");
    let blocked = run(command().args(["once", "--connect-timeout=300ms", "--expect=blocked"]));
    assert_eq!(blocked.code == Some(0), is_blocked, "{}", blocked.stdout);
    assert_reported(command, expected, || namespace.flush());
}

#[test]
fn blocked_is_proved_only_if_the_control_responds() {
    let Some(namespace) = namespace("control") else {
        return;
    };
    let (_backend, control) = (
        backend(&namespace, "127.0.0.1"),
        web_server(&namespace, "127.0.0.1", "8081"),
    );
    let files = tempfile::tempdir().expect("a directory");
    let file = files.path().join("targets");
    let once = |control: &str| {
        let line = format!("blocked http://127.0.0.1:8080/ name=payments {control}\n");
        std::fs::write(&file, line).expect("it can be written");
        let mut command = namespace.command(CALLER);
        command.args(["once", "--connect-timeout=300ms", "--targets"]);
        run(command.arg(&file))
    };
    let control_at = "control=http://127.0.0.1:8081/";

    let open = once(control_at);
    assert_eq!(open.code, Some(1), "{}", open.stdout);
    let not = "Response received successfully! (not as expected: blocked)\n";
    assert!(open.stdout.contains(not), "{}", open.stdout);

    for rule in ["drop", "reject with icmpx type admin-prohibited"] {
        namespace.rule("input", &format!("tcp dport 8080 {rule}"));
        for control in [control_at, "control=tcp://127.0.0.1:8081", ""] {
            let blocked = once(control);
            assert_eq!(blocked.code, Some(0), "{}", blocked.stdout);
            assert!(
                blocked.stdout.contains(" (as expected: blocked)\n"),
                "{}",
                blocked.stdout
            );
            let answered = "; the control http://127.0.0.1:8081/ answered\n";
            let is_told = blocked.stdout.contains(answered);
            assert_eq!(is_told, control == control_at, "{}", blocked.stdout);
        }
        namespace.flush();
    }

    // The policy is in force, but the control fails, in three ways.
    namespace.rule("input", "tcp dport 8080 drop");
    let unproven = |control: &str, evidence: &str| {
        let unproven = once(control);
        assert_eq!(unproven.code, Some(1), "{}", unproven.stdout);
        let lines: Vec<&str> = unproven.stdout.lines().collect();
        assert!(
            lines[1].starts_with("127.0.0.1:8080: connecting: no answer after "),
            "{}",
            lines[1]
        );
        assert!(lines[1].contains(evidence), "{}", lines[1]);
        let likely = verdict::usual_cause(FailureKind::Unproven);
        let verdict = format!(
            "Call failed: blocked, but the control did not answer either; likely {likely} (not as expected: blocked)"
        );
        assert_eq!(lines[2], verdict);
        let check = "Check failed: expected blocked, but it was unproven";
        assert_eq!(lines[3], check);
    };
    unproven(
        "control=http://127.0.0.1:8081/nosuch",
        "; the control http://127.0.0.1:8081/nosuch failed: 127.0.0.1:8081: HTTP 404",
    );
    drop(control);
    unproven(
        control_at,
        " failed: 127.0.0.1:8081: connecting: Connection refused",
    );
    namespace.rule("input", "tcp dport 8081 drop");
    unproven(control_at, " failed: 127.0.0.1:8081: connecting: no answer");
}

#[test]
fn a_name_is_blocked_only_if_all_of_its_addresses_are() {
    let Some(namespace) = namespace("some-blocked") else {
        return;
    };
    let _backend = backend(&namespace, "127.0.0.4");
    let files = tempfile::tempdir().expect("a directory");
    let hosts = files.path().join("hosts");
    let names = "127.0.0.1 shop\n127.0.0.2 shop\n127.0.0.3 shop\n127.0.0.4 shop\n";
    std::fs::write(&hosts, names).expect("it can be written");
    let once = || {
        let mut command = caller(&namespace, "http://shop:8080/");
        command.args([
            "once",
            "--expect=blocked",
            "--connect-timeout=500ms",
            "--timeout=1s",
            "--hosts",
        ]);
        run(command.arg(&hosts))
    };
    namespace.rule("input", "ip daddr 127.0.0.1-127.0.0.3 tcp dport 8080 drop");
    let open = once();
    assert_eq!(open.code, Some(1), "{}", open.stdout);
    assert!(
        open.stdout
            .contains("Response received successfully! (not as expected: blocked)"),
        "{}",
        open.stdout
    );
    namespace.rule("input", "ip daddr 127.0.0.4 tcp dport 8080 drop");
    let blocked = once();
    assert_eq!(blocked.code, Some(0), "{}", blocked.stdout);
    // A pod without an address to call from does not prove a policy.
    let nowhere =
        run(caller(&namespace, "http://[fe80::1]:8080/").args(["once", "--expect=blocked"]));
    assert_eq!(nowhere.code, Some(7), "{}", nowhere.stdout);
}

#[test]
fn after_a_reset_while_connecting_the_next_address_is_tried() {
    let Some(namespace) = namespace("next-address") else {
        return;
    };
    let _backend = backend(&namespace, "127.0.0.2");
    let reset =
        "ip daddr 127.0.0.1 tcp dport 8080 tcp flags & (syn | ack) == ack reject with tcp reset";
    namespace.rule("input", reset);
    let _listener = backend(&namespace, "127.0.0.1");
    let mut dns = namespace.command("dnsmasq");
    let Some(_) = tool("dnsmasq") else { return };
    dns.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--log-facility=-",
    ])
    .args(["--listen-address=127.0.0.1", "--pid-file=", "--user=root"])
    .args([
        "--host-record=backend.,127.0.0.1",
        "--host-record=backend.,127.0.0.2",
    ]);
    let dns = Process::spawn(&mut dns);
    dns.wait_for_stderr("started");
    for _ in 0..4 {
        let mut command = caller(&namespace, "http://backend.:8080/");
        let output = run(command.args(["once", "--nameserver=127.0.0.1"]));
        assert_eq!(output.code, Some(0), "{}", output.stdout);
    }
}

#[test]
fn a_missing_ipv6_address_is_reported() {
    let Some(namespace) = namespace("no-ipv6") else {
        return;
    };
    namespace.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    let output = run(caller(&namespace, "http://[fd00::10]:8080/").arg("once"));
    assert_eq!(output.code, Some(7), "{}", output.stdout);
    let likely = "Call failed: the address cannot be reached; likely this pod has no IPv6 address to call from\n";
    assert!(output.stdout.ends_with(likely), "{}", output.stdout);
}

#[test]
fn a_lack_of_local_ports_is_reported() {
    let Some(namespace) = namespace("ports") else {
        return;
    };
    namespace.sh("sysctl -qw net.ipv4.ip_local_port_range='50000 50000'");
    let script = format!(
        "import socket, subprocess\n\
         l = socket.socket(); l.bind(('127.0.0.1', 8080)); l.listen()\n\
         c = socket.create_connection(('127.0.0.1', 8080))\n\
         subprocess.run(['{CALLER}', 'once', 'http://127.0.0.1:8080/'])\n"
    );
    let output = run(namespace.command("python3").args(["-c", &script]));
    let likely = "likely this pod is short of local ports for that address\n";
    assert!(output.stdout.ends_with(likely), "{}", output.stdout);
}

#[test]
fn a_missing_route_is_reported_and_does_not_count_as_blocked() {
    let Some(namespace) = namespace("route") else {
        return;
    };
    // The namespace has no route to these addresses (RFC 5737, RFC 3849), so no packet is sent.
    for (address, family) in [("192.0.2.1", "IPv4"), ("[2001:db8::1]", "IPv6")] {
        for args in [&["once"][..], &["once", "--expect=blocked"]] {
            let url = format!("http://{address}:8080/");
            let output = run(caller(&namespace, &url).args(args));
            assert_eq!(output.code, Some(7), "{}", output.stdout);
            let evidence = format!("{address}:8080: connecting: Network is unreachable");
            assert!(output.stdout.contains(&evidence), "{}", output.stdout);
            let likely = format!("this pod has no route to it, and sent nothing: no {family} here");
            assert!(output.stdout.contains(&likely), "{}", output.stdout);
        }
    }
}

/// A hosts file that gives `shop` these addresses.
fn shop_at(addresses: &[&str]) -> tempfile::NamedTempFile {
    let hosts = tempfile::NamedTempFile::new().expect("a file");
    let lines = addresses.iter().map(|address| format!("{address} shop\n"));
    let lines: String = lines.collect();
    std::fs::write(hosts.path(), lines).expect("it can be written");
    hosts
}

#[test]
fn of_several_addresses_the_telling_failure_is_reported_and_the_others_are_named() {
    let Some(namespace) = namespace("telling") else {
        return;
    };
    namespace.rule("input", "ip daddr 127.0.0.2 tcp dport 8080 drop");
    let once = |addresses: &[&str], args: &[&str]| {
        let hosts = shop_at(addresses);
        let mut command = caller(&namespace, "http://shop:8080/");
        command.args(["once", "--connect-timeout=300ms", "--hosts"]);
        let output = run(command.arg(hosts.path()).args(args));
        let evidence = output.stdout.lines().nth(1).expect("evidence").to_owned();
        (output.code, evidence)
    };
    // The namespace has no route to this address (RFC 3849).
    let no_route = "2001:db8::1";
    let (code, evidence) = once(&[no_route, "127.0.0.2"], &[]);
    assert_eq!(code, Some(28), "{evidence}");
    assert!(
        evidence.starts_with("127.0.0.2:8080: connecting: no answer after "),
        "{evidence}"
    );
    let other = "; also [2001:db8::1]:8080: Network is unreachable (os error 101)";
    assert!(evidence.contains(other), "{evidence}");
    let (code, evidence) = once(&[no_route, "127.0.0.2"], &["--expect=blocked"]);
    assert_eq!(code, Some(0), "{evidence}");

    let (code, evidence) = once(&["127.0.0.1", "127.0.0.2"], &[]);
    assert_eq!(code, Some(7), "{evidence}");
    assert!(
        evidence.contains("; also 127.0.0.2:8080: no answer"),
        "{evidence}"
    );

    let many: Vec<String> = (1..=6).map(|n| format!("127.0.1.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (_, evidence) = once(&many, &[]);
    let end = "; also 127.0.1.4:8080: Connection refused (os error 111) and 2 more";
    assert!(evidence.ends_with(end), "{evidence}");
}

#[test]
fn diagnose_notes_addresses_of_a_family_without_a_route_and_judges_the_others() {
    let Some(namespace) = namespace("families") else {
        return;
    };
    let _backend = backend(&namespace, "127.0.0.1");
    let diagnose = |addresses: &[&str]| {
        let hosts = shop_at(addresses);
        let mut command = caller(&namespace, "http://shop:8080/");
        command.args(["diagnose", "--hosts"]);
        run(command.arg(hosts.path()))
    };
    // The namespace has no route to this address (RFC 3849).
    let no_route = "2001:db8::1";
    let note = "      note         [2001:db8::1]:8080: connecting: Network is unreachable";
    let works = diagnose(&[no_route, "127.0.0.1"]);
    assert_eq!(works.code, Some(0), "{}", works.stdout);
    assert!(works.stdout.contains(note), "{}", works.stdout);
    assert!(!works.stdout.contains("FAIL"), "{}", works.stdout);

    let refused = diagnose(&[no_route, "127.0.0.2"]);
    assert_eq!(refused.code, Some(7), "{}", refused.stdout);
    assert!(refused.stdout.contains(note), "{}", refused.stdout);
    let what = "what         the connection was refused\n";
    assert!(refused.stdout.contains(what), "{}", refused.stdout);

    let alone = diagnose(&[no_route]);
    assert_eq!(alone.code, Some(7), "{}", alone.stdout);
}

#[test]
fn a_policy_that_drops_or_forbids_dns_is_reported() {
    let Some(namespace) = namespace("dns") else {
        return;
    };
    for (chain, kind, evidence) in [
        ("input", FailureKind::DnsTimeout, "no answer for backend."),
        (
            "output",
            FailureKind::DnsUnreachable,
            "unreachable (Operation not permitted",
        ),
    ] {
        namespace.rule(chain, "udp dport 53 drop");
        let mut command = caller(&namespace, "http://backend:8080/");
        command.args([
            "once",
            "--nameserver=127.0.0.1",
            "--dns-timeout=200ms",
            "--timeout=1s",
        ]);
        let output = run(&mut command);
        assert_eq!(output.code, Some(6), "{}", output.stdout);
        assert!(output.stdout.contains(evidence), "{}", output.stdout);
        let verdict = format!(
            "Call failed: {}; likely {}\n",
            verdict::words(kind),
            verdict::usual_cause(kind)
        );
        assert!(output.stdout.contains(&verdict), "{}", output.stdout);
        namespace.flush();
    }
}

#[test]
fn a_rejected_dns_query_is_reported_with_the_icmp_message() {
    let Some(namespace) = namespace("dns-icmp") else {
        return;
    };
    for (reason, evidence) in [
        (
            "host-unreachable",
            "No route to host (os error 113), ICMP 3/1 (host unreachable)",
        ),
        (
            "net-unreachable",
            "Network is unreachable (os error 101), ICMP 3/0 (network unreachable)",
        ),
        (
            "prot-unreachable",
            "Protocol not available (os error 92), ICMP 3/2 (protocol unreachable)",
        ),
    ] {
        namespace.rule(
            "input",
            &format!("udp dport 53 reject with icmp type {reason}"),
        );
        let mut command = caller(&namespace, "http://backend:8080/");
        let output = run(command.args(["once", "--nameserver=127.0.0.1"]));
        assert_eq!(output.code, Some(6), "{}", output.stdout);
        assert!(output.stdout.contains(evidence), "{}", output.stdout);
        let usual = verdict::usual_cause(FailureKind::DnsUnreachable);
        let verdict = format!("Call failed: DNS cannot be reached; likely {usual}\n");
        assert!(output.stdout.ends_with(&verdict), "{}", output.stdout);
        namespace.flush();
    }
}

#[test]
fn a_router_that_rejects_dns_queries_is_named() {
    let Some(routed) = Routed::new("dns-router") else {
        return;
    };
    let rule = "udp dport 53 reject with icmpx type admin-prohibited";
    routed.rule(Place::Router, "forward", rule);
    for (server, router) in BACKEND.into_iter().zip(["10.9.1.1", "fd09:1::1"]) {
        let mut command = routed.client(CALLER);
        command.args(["once", "http://backend:8080/", "--nameserver"]);
        let output = run(command.arg(server.to_string()));
        let likely = format!("likely a policy or a firewall at {router} rejects\n");
        assert!(output.stdout.ends_with(&likely), "{}", output.stdout);
    }
}

#[test]
fn a_nameserver_without_a_route_is_reported() {
    let Some(namespace) = namespace("dns-route") else {
        return;
    };
    let resolve = |server: &str, family: &str| {
        let mut command = caller(&namespace, "http://backend:8080/");
        let output = run(command.args(["once", "--nameserver", server]));
        assert_eq!(output.code, Some(6), "{}", output.stdout);
        let likely = format!(
            "Call failed: DNS cannot be reached; likely this pod has no {family} address or route to that nameserver\n"
        );
        assert!(output.stdout.ends_with(&likely), "{}", output.stdout);
    };
    resolve("192.0.2.1", "IPv4");
    resolve("fd00::10", "IPv6");
    namespace.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    resolve("fd00::10", "IPv6");
    resolve("::1", "IPv6");
}

#[test]
fn diagnose_listening_tells_which_sockets_other_pods_can_reach() {
    let Some(namespace) = namespace("listening") else {
        return;
    };
    let empty = run(namespace.command(CALLER).args(["diagnose", "--listening"]));
    let nothing = "nothing in this pod listens for TCP connections\n";
    assert_eq!((empty.code, empty.stdout.as_str()), (Some(0), nothing));

    let script = format!(
        "import socket, subprocess\n\
         a = socket.create_server(('127.0.0.1', 8080))\n\
         b = socket.create_server(('::', 9090), family=socket.AF_INET6, dualstack_ipv6=True)\n\
         subprocess.run(['{CALLER}', 'diagnose', '--listening'])\n"
    );
    let output = run(namespace.command("python3").args(["-c", &script]));
    assert_eq!(
        output.stdout,
        "LISTEN  127.0.0.1:8080  this pod alone: bound to 127.0.0.1, so that no other pod and no Service can reach it\n\
         LISTEN  [::]:9090       every pod that policies let through\n"
    );
}

/// `kubectl debug` runs the image in another pod: with its network, its resolv.conf and its hosts file.
#[test]
fn diagnose_works_in_the_namespaces_of_another_pod() {
    let Some(namespace) = namespace("debug") else {
        return;
    };
    let Some(_) = tool("unshare") else { return };
    let _backend = backend(&namespace, "127.0.0.1");
    let files = tempfile::tempdir().expect("a directory");
    for (name, text) in [
        (
            "resolv.conf",
            "search shop.svc.cluster.local\nnameserver 127.0.0.1\noptions ndots:5\n",
        ),
        ("hosts", "127.0.0.1 localhost\n127.0.0.1 payments.prod\n"),
    ] {
        std::fs::write(files.path().join(name), text).expect("it can be written");
    }
    let in_place = |arguments: &str| {
        let script = format!(
            "mount --bind resolv.conf /etc/resolv.conf && mount --bind hosts /etc/hosts && \
             exec {CALLER} {arguments}"
        );
        let mut command = namespace.command("unshare");
        command
            .args(["--mount", "sh", "-c", &script])
            .current_dir(files.path());
        run(&mut command)
    };
    let found = in_place("diagnose http://payments.prod:8080/");
    assert_eq!(found.code, Some(0), "{}{}", found.stdout, found.stderr);
    let hosts = "payments.prod is 127.0.0.1 in ";
    assert!(found.stdout.contains(hosts), "{}", found.stdout);
    assert!(found.stdout.contains("in /etc/hosts\n"), "{}", found.stdout);

    // No name server listens in the network of this pod.
    let missing = in_place("diagnose http://orders:8080/");
    assert_eq!(missing.code, Some(6), "{}", missing.stdout);
    let asked = "for orders.shop.svc.cluster.local. from 127.0.0.1:53";
    assert!(missing.stdout.contains(asked), "{}", missing.stdout);
}
