//! Compares lookups by `caller` with those by the glibc of this machine, in thousands of random worlds.
//!
//! A world is a resolv.conf, a hosts file and up to three name servers with random responses, valid and invalid.
//! `getaddrinfo` (called by python3, in a mount namespace with these files) and `Resolver::lookup` look up the same
//! names, and must return the same addresses or fail with the same error.
//!
//! These cases are left out, because the two differ on purpose:
//!
//! - no nameserver (glibc queries 127.0.0.1), `attempts:0` (glibc sends no query)
//! - addresses of another class than IN (glibc accepts them)
//! - `localhost` and names below it (glibc queries DNS)
//! - a server that does not respond for one name but does for the next, beside another server with other data (ours
//!   queries it last from then on); `rotate` with servers that have different data
//! - lookups of IPv6 only with `no-aaaa`: a response of a bare header, and servers that do not respond (glibc queries
//!   A then, and parses the response)
//! - a response over 2,048 bytes that is discarded because the TCP connection of the other one is closed (glibc uses
//!   the code of an older response)
//! - over TCP: a response to another question (glibc accepts it), no response (glibc waits for ever)
//! - times
//!
//! A failed lookup of a Service is compared by its error in glibc. Its kind depends on the zone of the cluster,
//! whatever the other search domains respond; how often the two disagree is printed.
//!
//! `DNS_SEED=N DNS_CASES=1` repeats one world. The test runs its own binary again in a network namespace, so it is a
//! test binary of its own.

mod server;
#[path = "../it/dns/wire.rs"]
mod wire;
mod world;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caller::dns::{ConfSource, Families, GaiError, LookupFailure, Resolver};
use caller::failure::FailureKind;
use tempfile::TempDir;
use test_support::tool;
use tokio::time::Instant;

use crate::server::Servers;
use crate::world::{Question, World};

/// Number of worlds at the same time. Most of their time is spent waiting for servers that do not respond.
const WORKERS: u64 = 24;

/// Number of worlds. Each has several names.
const CASES: u64 = 1200;

/// Variable that is set for the process in the namespace.
const INSIDE: &str = "DNS_DIFFERENTIAL_INSIDE";

/// The errors EAI_NONAME and EAI_NODATA, which are not told apart.
const NOT_FOUND: &str = "not found";

/// A program that calls getaddrinfo for each line of questions, and prints the results as JSON.
const PYTHON: &str = r#"
import json, socket, sys
for line in sys.stdin:
    results = []
    for name, family in json.loads(line):
        family = {"4": socket.AF_INET, "6": socket.AF_INET6}.get(family, socket.AF_UNSPEC)
        try:
            found = socket.getaddrinfo(name.encode("latin1"), 80, family, socket.SOCK_STREAM)
            results.append(sorted({a[4][0] for a in found}))
        except socket.gaierror as error:
            results.append(error.errno)
    print(json.dumps(results), flush=True)
"#;

#[test]
fn lookups_have_the_outcomes_of_glibc() {
    let tools = ["unshare", "mount", "ip", "python3"].map(tool);
    if tools.iter().any(Option::is_none) {
        return;
    }
    let rights = [
        &["--mount", "--net"][..],
        &["--mount", "--net", "--map-root-user"],
    ];
    let may = |args: &&&[&str]| {
        let tried = Command::new("unshare").args(**args).arg("true").output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(rights) = rights.iter().find(may) else {
        assert!(std::env::var_os("CI").is_none(), "CI can make namespaces");
        let _ = writeln!(
            std::io::stderr(),
            "skipped dns_differential: no right to make namespaces"
        );
        return;
    };
    let this = std::env::current_exe().expect("this test");
    let status = Command::new("unshare")
        .args(*rights)
        .args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(this)
        .args(["--ignored", "--exact", "inside", "--nocapture"])
        .env(INSIDE, "1")
        .env_remove("LOCALDOMAIN")
        .env_remove("RES_OPTIONS")
        .status();
    assert!(status.expect("it runs").success());
}

#[test]
#[ignore = "runs in the namespace that the other test makes"]
fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("DNS_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let cases = number("DNS_CASES").unwrap_or(CASES);
    let (next, lookups, differing_kinds) = <(AtomicU64, AtomicU64, AtomicU64)>::default();
    let start = Instant::now();
    let mistakes: Vec<String> = std::thread::scope(|scope| {
        let worker = |n: u64| {
            let mut side_by_side = SideBySide::start(n);
            let mut mistakes = Vec::new();
            while mistakes.len() < 3 {
                let case = next.fetch_add(1, Ordering::Relaxed);
                if case >= cases {
                    break;
                }
                let world = World::new(seed + case);
                let mut seen = side_by_side.compare(&world);
                // On a busy machine, a response may arrive too late for one of the two.
                for _ in 0..2 {
                    if seen.mistake.is_some() {
                        seen = side_by_side.compare(&world);
                    }
                }
                lookups.fetch_add(seen.lookups, Ordering::Relaxed);
                differing_kinds.fetch_add(seen.differing_kinds, Ordering::Relaxed);
                mistakes.extend(seen.mistake);
            }
            mistakes
        };
        let workers = (0..WORKERS.min(cases)).map(|n| scope.spawn(move || worker(n)));
        let workers: Vec<_> = workers.collect();
        let done = workers
            .into_iter()
            .map(|worker| worker.join().expect("no worker panics"));
        done.flatten().collect()
    });
    let _ = writeln!(
        std::io::stderr(),
        "dns_differential: seed {seed}, {cases} worlds, {} lookups in {:.1?}; {} kinds go by the cluster's zone",
        lookups.into_inner(),
        start.elapsed(),
        differing_kinds.into_inner(),
    );
    assert!(
        mistakes.is_empty(),
        "{} of them differ:\n\n{}",
        mistakes.len(),
        mistakes.join("\n")
    );
}

/// The results of comparing one world.
#[derive(Default)]
struct Seen {
    lookups: u64,
    differing_kinds: u64,
    mistake: Option<String>,
}

/// glibc, and a resolver of `caller`, with the same files and name servers.
struct SideBySide {
    files: TempDir,
    last_len: usize,
    servers: Servers,
    python: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    runtime: tokio::runtime::Runtime,
}

impl SideBySide {
    fn start(worker: u64) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            ("resolv.conf", ""),
            ("hosts", ""),
            ("nsswitch.conf", "hosts: files dns\n"),
        ] {
            std::fs::write(files.path().join(name), text).expect("it can be written");
        }
        let mounts = "for f in resolv.conf hosts nsswitch.conf; do mount --bind $0/$f /etc/$f; done && exec python3 -c \"$1\"";
        let mut python = Command::new("unshare")
            .args(["--mount", "sh", "-c", mounts])
            .arg(files.path())
            .arg(PYTHON)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        Self {
            files,
            last_len: 0,
            servers: Servers::start(worker),
            questions: python.stdin.take().expect("it is piped"),
            answers: BufReader::new(python.stdout.take().expect("it is piped")),
            python,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
        }
    }

    fn compare(&mut self, world: &World) -> Seen {
        let mut conf = world.resolv_conf(&self.servers.addresses);
        // glibc reads the file again when its time or its length has changed, and file times are coarse.
        if conf.len() == self.last_len {
            conf.extend_from_slice(b"#\n");
        }
        self.last_len = conf.len();
        std::fs::write(self.path("resolv.conf"), &conf).expect("it can be written");
        std::fs::write(self.path("hosts"), &world.hosts).expect("it can be written");
        self.servers.set(world.clone());
        let theirs = self.glibc(&world.questions);
        self.servers.take_log();
        let mut seen = Seen::default();
        for (question, theirs) in world.questions.iter().zip(theirs) {
            let (ours, kind) = self.ours(question);
            let log = self.servers.take_log();
            seen.lookups += 1;
            let is_not_found = ours == Outcome::Error(NOT_FOUND);
            let says_not_found = matches!(
                kind,
                Some(FailureKind::DnsNxdomain | FailureKind::DnsNodata)
            );
            seen.differing_kinds += u64::from(kind.is_some() && is_not_found != says_not_found);
            if ours != theirs && seen.mistake.is_none() {
                seen.mistake = Some(format!(
                    "DNS_SEED={} DNS_CASES=1: {question:?}\n  glibc {theirs:?}\n  ours  {ours:?}\n{}{}\n{log}",
                    world.seed,
                    String::from_utf8_lossy(&conf).replace("# filler\n", ""),
                    String::from_utf8_lossy(&world.hosts),
                ));
            }
        }
        seen
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn glibc(&mut self, questions: &[Question]) -> Vec<Outcome> {
        let line: Vec<_> = questions.iter().map(|q| (&q.name, q.family)).collect();
        let line = serde_json::to_string(&line).expect("it can be written");
        writeln!(self.questions, "{line}").expect("python reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("python answers");
        let results: Vec<serde_json::Value> = serde_json::from_str(&answer).expect("JSON");
        results.iter().map(Outcome::of_python).collect()
    }

    fn ours(&self, question: &Question) -> (Outcome, Option<FailureKind>) {
        let resolver = Resolver {
            hosts: self.path("hosts"),
            source: ConfSource {
                path: self.path("resolv.conf"),
                nameservers: Vec::new(),
            },
            families: match question.family {
                "4" => Families::V4,
                "6" => Families::V6,
                _ => Families::Auto,
            },
            query_timeout: Duration::from_secs(1),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let lookup = self
            .runtime
            .block_on(resolver.lookup(&question.name, deadline));
        match lookup.outcome {
            Ok(addresses) => (Outcome::Addresses(addresses.into_iter().collect()), None),
            Err(failure) => {
                let kind = failure.kind();
                let error = match failure {
                    LookupFailure::InvalidName => NOT_FOUND,
                    LookupFailure::Answered { glibc, .. } | LookupFailure::Forbidden { glibc } => {
                        match glibc {
                            GaiError::NoName | GaiError::NoData => NOT_FOUND,
                            GaiError::Again => "EAI_AGAIN",
                        }
                    }
                    other => panic!("{question:?}: {other:?}"),
                };
                (Outcome::Error(error), Some(kind))
            }
        }
    }
}

impl Drop for SideBySide {
    fn drop(&mut self) {
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Addresses(BTreeSet<IpAddr>),
    Error(&'static str),
}

impl Outcome {
    fn of_python(result: &serde_json::Value) -> Self {
        match result.as_i64() {
            Some(-2 | -5) => Self::Error(NOT_FOUND),
            Some(-3) => Self::Error("EAI_AGAIN"),
            Some(_) => Self::Error("another"),
            None => {
                let addresses = result.as_array().expect("a list").iter();
                let addresses = addresses.map(|ip| ip.as_str().expect("text").parse());
                Self::Addresses(addresses.map(|ip| ip.expect("an address")).collect())
            }
        }
    }
}
