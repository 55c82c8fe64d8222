//! Packets that are dropped or rejected, and routes that are missing: in a network namespace of the
//! test's own, with nftables, so that nothing leaves this machine.

use std::path::Path;
use std::process::Command;

use caller::failure::FailureKind as Kind;
use test_support::process::{Process, run};
use test_support::tool;

use crate::{CALLER, assert_named};

/// A network namespace with nothing but loopback, removed when dropped.
struct Namespace(String);

impl Namespace {
    /// `None`: there are not the tools, or not the rights, and a line has said so.
    fn new(test: &str) -> Option<Self> {
        let _ = (tool("ip")?, tool("nft")?, tool("python3")?);
        let name = format!("caller-test-{test}-{}", std::process::id());
        let made = run(Command::new("ip").args(["netns", "add", &name]));
        if made.code != Some(0) {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI can make namespaces: {}",
                made.stderr
            );
            return None;
        }
        let namespace = Self(name);
        namespace.succeed(&["ip", "link", "set", "lo", "up"]);
        namespace.succeed(&["nft", "add", "table", "inet", "test"]);
        for chain in ["input", "output"] {
            let hook = format!("{{ type filter hook {chain} priority 0 ; }}");
            namespace.succeed(&["nft", "add", "chain", "inet", "test", chain, &hook]);
        }
        Some(namespace)
    }

    /// A command inside.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.0])
            .arg(program.as_ref());
        command
    }

    fn succeed(&self, args: &[&str]) {
        let output = run(self.command(args[0]).args(&args[1..]));
        assert_eq!(output.code, Some(0), "{args:?}: {}", output.stderr);
    }

    /// Adds a rule to the chain of what comes in, as a policy works outside of the pod, or of what
    /// goes out, which the sender hears of.
    fn rule(&self, chain: &str, rule: &[&str]) {
        self.succeed(&[&["nft", "add", "rule", "inet", "test", chain], rule].concat());
    }

    fn without_rules(&self) {
        self.succeed(&["nft", "flush", "table", "inet", "test"]);
    }

    /// A web server that nobody here wrote.
    fn backend(&self) -> Process {
        let mut command = self.command("python3");
        command.args(["-u", "-m", "http.server", "8080", "--bind", "127.0.0.1"]);
        let backend = Process::spawn(command.current_dir("/proc/self/net"));
        backend.wait_for_stdout("Serving HTTP");
        backend
    }

    fn caller(&self, url: &str) -> Command {
        let mut command = self.command(CALLER);
        command
            .env("CALLER_ADMIN_LISTEN", "off")
            .env("CALLER_URL", url);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.0]));
    }
}

#[test]
fn packets_that_a_policy_drops_or_rejects() {
    let Some(namespace) = Namespace::new("policy") else {
        return;
    };
    let _backend = namespace.backend();
    for (rule, kind, evidence) in [
        (
            &["tcp", "dport", "8080", "drop"][..],
            Kind::ConnectTimeout,
            "connecting: no answer",
        ),
        (
            &[
                "tcp",
                "dport",
                "8080",
                "reject",
                "with",
                "icmpx",
                "type",
                "host-unreachable",
            ],
            Kind::ConnectUnreachable,
            "connecting: No route to host",
        ),
        (
            &["tcp", "dport", "8080", "reject", "with", "tcp", "reset"],
            Kind::ConnectRefused,
            "connecting: Connection refused",
        ),
    ] {
        namespace.rule("input", rule);
        let command = || namespace.caller("http://127.0.0.1:8080/");
        let blocked = run(command().args(["once", "--connect-timeout=300ms", "--expect=blocked"]));
        let counts_as_blocked = kind != Kind::ConnectRefused;
        assert_eq!(
            blocked.code == Some(0),
            counts_as_blocked,
            "{}",
            blocked.stdout
        );
        assert_named(&rule.join(" "), command, kind, evidence, || {
            namespace.without_rules();
        });
    }
}

#[test]
fn an_address_that_no_route_leads_to() {
    let Some(namespace) = Namespace::new("route") else {
        return;
    };
    // Inside there is no way to this address (RFC 5737), so no packet is ever sent.
    let command = namespace
        .caller("http://192.0.2.1:8080/")
        .arg("once")
        .output();
    let output = command.expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(
        text.contains("192.0.2.1:8080: connecting: Network is unreachable"),
        "{text}"
    );
    assert!(
        text.contains("Call failed: the address cannot be reached; likely no route"),
        "{text}"
    );
}

#[test]
fn dns_that_a_policy_drops_or_forbids() {
    let Some(namespace) = Namespace::new("dns") else {
        return;
    };
    for (chain, kind, evidence) in [
        ("input", Kind::DnsTimeout, "no answer for backend."),
        (
            "output",
            Kind::DnsUnreachable,
            "unreachable (Operation not permitted",
        ),
    ] {
        namespace.rule(chain, &["udp", "dport", "53", "drop"]);
        let mut command = namespace.caller("http://backend:8080/");
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
            caller::verdict::words(kind),
            caller::verdict::usual_cause(kind)
        );
        assert!(output.stdout.contains(&verdict), "{}", output.stdout);
        namespace.without_rules();
    }
}
