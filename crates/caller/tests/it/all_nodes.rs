//! Meshes of twenty nodes in which packets are dropped, and what `caller mesh` reports of each fault. Each node is a
//! network namespace with a caller and an echo-server. `caller mesh` runs in one of the namespaces, as `kubectl exec`
//! runs it in a pod.
//!
//! Tests start in the order of their names. The one here takes longest, so this module's name sorts first.

use std::fs;
use std::future::pending;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use local_cluster::cluster::{NAMESPACE, SEARCH};
use local_cluster::mesh::{NAME, server};
use serde_json::Value;
use tempfile::TempDir;
use test_support::http::get;
use test_support::netns::{Bridged, Netns};
use test_support::process::{Process, Signal, run};
use test_support::{TIMEOUT, Tool, tool, wait_until};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::CALLER;

/// Number of nodes of a mesh.
const NODES: u8 = 20;

/// Timeout for a conclusion. A failure counts once it is a minute old, and every pair is called within as many rounds
/// as there are nodes.
const CONCLUDED_WITHIN: Duration = Duration::from_secs(240);

/// Pause between two runs of `caller mesh`.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A mesh in namespaces. The fields are in the order in which they have to be dropped: first what runs in the
/// namespaces.
struct Mesh {
    callers: Vec<Process>,
    servers: Vec<JoinHandle<()>>,
    dnsmasq: Option<Process>,
    runtime: Runtime,
    network: Bridged,
    files: TempDir,
}

/// The report of `caller mesh`, as JSON.
struct Report(Value);

impl Mesh {
    /// Makes a mesh whose callers have not started. `None` if tools or privileges are missing: the test is to be
    /// skipped, and a line has been printed that says so.
    fn new(name: &str) -> Option<Self> {
        let dnsmasq = tool("dnsmasq")?;
        let mut mesh = Self {
            callers: Vec::new(),
            servers: Vec::new(),
            dnsmasq: None,
            runtime: Runtime::new().expect("a runtime"),
            network: Bridged::new(&format!("mesh-{name}"), NODES)?,
            files: tempfile::tempdir().expect("a directory"),
        };
        mesh.start_dns(dnsmasq);
        for node in 1..=NODES {
            let listening = mesh.network.node(node).enter(|| {
                let _inside = mesh.runtime.enter();
                let listen = SocketAddr::from(([0; 8], 8080)).into();
                server(node.into(), listen).expect("a free port")
            });
            let running = async { listening.run(pending()).await.expect("it runs") };
            mesh.servers.push(mesh.runtime.spawn(running));
        }
        Some(mesh)
    }

    /// Starts cluster DNS in the namespace of the bridge.
    fn start_dns(&mut self, dnsmasq: Tool) {
        self.set_records(1..=NODES);
        let resolv_conf = format!("nameserver {}\n{SEARCH}", Bridged::BRIDGE);
        fs::write(self.files.path().join("resolv.conf"), resolv_conf).expect("it can be written");
        let mut command = self.network.bridge().command(dnsmasq);
        command
            .args(["--keep-in-foreground", "--log-facility=-", "--pid-file="])
            .args(["--conf-file=/dev/null", "--no-resolv", "--no-hosts"])
            .args(["--user=root", "--local=/cluster.local/", "--addn-hosts"])
            .arg(self.files.path().join("hosts"));
        let dnsmasq = Process::spawn(&mut command);
        dnsmasq.wait_for_stderr("read ");
        self.dnsmasq = Some(dnsmasq);
    }

    /// Gives the name of the mesh the addresses of these nodes. The name `quiet` has an address at which nothing
    /// listens.
    fn set_records(&self, nodes: impl Iterator<Item = u8>) {
        let nodes = nodes.map(|node| format!("{} {NAME}\n", Bridged::address(node)));
        let quiet = format!("{} quiet.{NAMESPACE}.svc.cluster.local\n", Bridged::BRIDGE);
        let hosts = nodes.chain([quiet]).collect::<String>();
        fs::write(self.files.path().join("hosts"), hosts).expect("it can be written");
        if let Some(dnsmasq) = &self.dnsmasq {
            dnsmasq.signal(Signal::HUP);
        }
    }

    /// Starts the callers, and waits until all nodes are known by their names.
    fn start(&mut self) {
        for node in 1..=NODES {
            let mut command = self.caller(self.network.node(node));
            command
                .args(["--each-address", "--sample=10", "--interval=1s"])
                .args(["--timeout=2s", "--connect-timeout=500ms"])
                .arg("http://mesh:8080/")
                .env("CALLER_LOG_LEVEL", "info")
                .env("POD_IP", Bridged::address(node).to_string())
                .env("NODE_NAME", format!("node-{node}"))
                .env("POD_NAME", format!("mesh-{node}"));
            self.callers.push(Process::spawn(&mut command));
        }
        for caller in &self.callers {
            caller.wait_for_admin();
        }
        self.wait_for("names of all nodes", self.at(1), |report| {
            let node = |number: u8| &report.0["nodes"][usize::from(number) - 1]["node"];
            (1..=NODES).all(|number| *node(number) == format!("node-{number}"))
        });
    }

    /// The namespace of a node.
    fn at(&self, node: u8) -> &Netns {
        self.network.node(node)
    }

    /// A caller in a namespace.
    fn caller(&self, at: &Netns) -> Command {
        let mut command = at.command(CALLER);
        command.env("CALLER_RESOLV_CONF", self.files.path().join("resolv.conf"));
        command
    }

    /// Runs `caller mesh` in a namespace, and checks that its exit code fits its report.
    fn report(&self, at: &Netns, args: &[&str]) -> Report {
        let mut command = self.caller(at);
        let output = run(command.args(["mesh", "--format=json"]).args(args));
        let json = serde_json::from_str(&output.stdout);
        let report = Report(json.unwrap_or_else(|error| panic!("{error}: {output:?}")));
        let code = match report.0["state"].as_str() {
            Some("ok") => 0,
            Some("not_ok") => 1,
            Some("no_rows") => 3,
            state => panic!("{state:?}"),
        };
        assert_eq!(output.code, Some(code));
        report
    }

    /// Runs `caller mesh` until its report is as expected.
    fn wait_for(&self, what: &str, at: &Netns, is_so: impl Fn(&Report) -> bool) -> Report {
        let deadline = Instant::now() + CONCLUDED_WITHIN;
        loop {
            let report = self.report(at, &[]);
            if is_so(&report) {
                return report;
            }
            if Instant::now() > deadline {
                let text = run(self.caller(at).arg("mesh")).stdout;
                panic!("no {what}, but this:\n{text}");
            }
            thread::sleep(RETRY_PAUSE);
        }
    }

    /// Waits until exactly these faults are reported, in this order, in JSON and in text, and the matrix is as
    /// expected. A `*` in a fault stands for any text.
    fn wait_for_faults(&self, at: &Netns, faults: &[&str], is_so: impl Fn(&Report) -> bool) {
        self.wait_for("such faults", at, |report| {
            if report.0["state"] != "not_ok"
                || !is_like(&report.sentences(), faults)
                || !is_so(report)
            {
                return false;
            }
            let output = run(self.caller(at).arg("mesh"));
            let lines = || output.stdout.lines();
            let first = lines().filter_map(|line| line.strip_prefix("NOT OK  "));
            let also = lines().filter_map(|line| line.strip_prefix("also    "));
            // Any further faults are about slow nodes.
            let sentences = first.chain(also).take(faults.len()).map(str::to_owned);
            let next = report.0["next"].as_str().expect("what to do next");
            let last = lines().last() == Some(&format!("next    {next}"));
            output.code == Some(1) && last && is_like(&sentences.collect::<Vec<_>>(), faults)
        });
    }
}

/// Leaves out sentences about slow nodes: on a busy machine there may be some.
fn without_slow(sentences: impl Iterator<Item = String>) -> Vec<String> {
    let rest = sentences.filter(|sentence| !sentence.starts_with("everything from "));
    let rest = rest.filter(|sentence| !sentence.starts_with("everything to "));
    rest.collect()
}

/// Whether sentences are as expected, where `*` stands for any text.
fn is_like(sentences: &[String], expected: &[&str]) -> bool {
    let is_one_like = |(sentence, expected): (&String, &&str)| match expected.split_once('*') {
        Some((begin, end)) => sentence.starts_with(begin) && sentence.ends_with(end),
        None => sentence == expected,
    };
    sentences.len() == expected.len() && sentences.iter().zip(expected).all(is_one_like)
}

impl Report {
    /// The sentences of all faults except slowness, the gravest first; without a fault, the sentence that says so.
    fn sentences(&self) -> Vec<String> {
        let also = self.0["also"].as_array().expect("a list");
        let all = [&self.0["sentence"]].into_iter().chain(also);
        let all = all.map(|sentence| sentence.as_str().expect("text").to_owned());
        without_slow(all)
    }

    /// The result of a pair, by the numbers of the nodes: the name of its kind of failure, or else the character that
    /// the JSON has for it.
    fn pair(&self, from: u8, to: u8) -> String {
        let row = self.0["cells"][usize::from(from) - 1].as_str();
        let cell = row.and_then(|row| row.chars().nth(usize::from(to) - 1));
        match cell {
            None => "row missing".to_owned(),
            Some(cell) if cell.is_ascii_alphabetic() => {
                let number = cell.to_ascii_uppercase() as usize - 'A' as usize;
                let kind = self.0["failures"][number].as_str();
                kind.expect("a kind of failure").to_owned()
            }
            Some(cell) => cell.to_string(),
        }
    }

    /// Whether calls of a pair succeed.
    fn is_reached(&self, from: u8, to: u8) -> bool {
        self.pair(from, to)
            .chars()
            .all(|cell| cell.is_ascii_digit())
    }

    /// `ok` if the row of a node is there, or else why it is missing.
    fn row(&self, node: u8) -> &str {
        let row = &self.0["nodes"][usize::from(node) - 1]["row"];
        row.as_str().expect("a word")
    }

    /// The detail of a failing pair; empty if there is none.
    fn detail(&self, from: u8, to: u8) -> &str {
        let pairs = self.0["pairs"].as_array().expect("a list");
        let is_it = |pair: &&Value| pair["from"] == from - 1 && pair["to"] == to - 1;
        let detail = pairs
            .iter()
            .find(is_it)
            .and_then(|pair| pair["detail"].as_str());
        detail.unwrap_or_default()
    }
}

/// All ordered pairs of nodes, by their numbers.
fn pairs() -> impl Iterator<Item = (u8, u8)> {
    let pairs = (1..=NODES).flat_map(|from| (1..=NODES).map(move |to| (from, to)));
    pairs.filter(|(from, to)| from != to)
}

/// A healthy mesh, in which every pair is called. Then one half is cut off from the other half.
fn a_healthy_mesh_and_then_a_split_one(mut mesh: Mesh) {
    mesh.start();
    for node in 1..=NODES {
        let rounds = || {
            let admin = SocketAddr::new(Bridged::address(node), 8082);
            let metrics = mesh.at(node).enter(|| get(admin, "/metrics")).body;
            // The largest count is that of a peer that is called in every round.
            let calls = metrics
                .lines()
                .filter(|line| line.starts_with("caller_mesh_calls_total{"))
                .filter_map(|line| line.rsplit(' ').next()?.parse().ok());
            calls.max().unwrap_or(0)
        };
        wait_until("as many rounds as nodes", 4 * TIMEOUT, || {
            rounds() >= NODES.into()
        });
    }
    let expected = ["20 nodes reach each other: 380 of 380 pairs called lately, median * ms"];
    let well = mesh.wait_for("healthy mesh", mesh.at(1), |report| {
        let is_reached = pairs().all(|(from, to)| report.is_reached(from, to));
        report.0["state"] == "ok" && is_like(&report.sentences(), &expected) && is_reached
    });
    assert_eq!(well.0["next"], Value::Null);
    let text = run(mesh.caller(mesh.at(1)).arg("mesh")).stdout;
    assert!(
        text.starts_with("OK      20 nodes reach each other: "),
        "{text}"
    );
    assert!(text.contains("\nmilliseconds"), "{text}");

    let quiet = mesh.report(mesh.at(1), &["http://quiet:8080/"]);
    let expected = "none of 1 address has a row (connect_refused): no caller with --sample runs there, or ingress to the \
                port of its page";
    assert_eq!(quiet.sentences(), [expected]);
    assert_eq!(quiet.0["state"], "no_rows");
    let nobody = mesh.report(mesh.at(1), &["http://nobody:8080/"]);
    let expected = ["the name nobody cannot be looked up here (dns_nxdomain): *"];
    assert!(is_like(&nobody.sentences(), &expected), "{}", nobody.0);
    assert_eq!(nobody.0["state"], "no_rows");

    let (some, others) = ("10.8.0.1-10.8.0.10", "10.8.0.11-10.8.0.20");
    mesh.network
        .lose(&format!("ip saddr {some} ip daddr {others}"));
    mesh.network
        .lose(&format!("ip saddr {others} ip daddr {some}"));
    let half = |node: u8| node <= 10;
    mesh.wait_for_faults(
        mesh.at(1),
        &["10 of 20 nodes (node-11, node-12, node-13 and 7 more) are not reached from any of the others \
           (connect_timeout), and their rows are missing: those nodes, or the network between them and the others"],
        |report| {
            let mut within = pairs().filter(|&(from, to)| half(from) && half(to));
            within.all(|(from, to)| report.is_reached(from, to))
                && (1..=NODES).all(|node| (report.row(node) == "ok") == half(node))
        },
    );
    mesh.wait_for_faults(
        mesh.at(15),
        &["10 of 20 nodes (node-1, node-2, node-3 and 7 more) are not reached from any of the others \
           (connect_timeout), and their rows are missing: those nodes, or the network between them and the others"],
        |_| true,
    );
    // The namespace of the bridge reaches both halves.
    mesh.wait_for_faults(
        mesh.network.bridge(),
        &["nobody in the group of 10 of 20 nodes (node-11, node-12, node-13 and 7 more) reaches anybody outside it, nor \
           is reached from there (connect_timeout): the network between the two groups"],
        |report| {
            pairs().all(|(from, to)| report.is_reached(from, to) == (half(from) == half(to)))
                && (1..=NODES).all(|node| report.row(node) == "ok")
        },
    );
}

/// One node is down and stays in DNS, another one is removed in time. Two pairs are cut, one of them in one direction
/// only.
fn nodes_that_are_gone_and_pairs_that_are_cut(mut mesh: Mesh) {
    mesh.start();
    mesh.servers[19].abort();
    drop(mesh.callers.pop());
    mesh.network.unplug(3);
    mesh.network.lose("ip saddr 10.8.0.7 ip daddr 10.8.0.8");
    mesh.network.lose("ip saddr 10.8.0.8 ip daddr 10.8.0.7");
    mesh.network
        .lose("ip saddr 10.8.0.12 ip daddr 10.8.0.13 tcp dport 8080");
    mesh.wait_for("failure of the node that leaves", mesh.at(1), |report| {
        (1..NODES).any(|from| report.pair(from, NODES) == "connect_refused")
    });
    mesh.set_records(1..NODES);
    let left = |report: &Report| report.0["nodes"].as_array().map(Vec::len) == Some(19);
    mesh.wait_for("mesh of one node less", mesh.at(1), left);
    let faults = [
        "node-3 (10.8.0.3) is not reached from 18 of 18 nodes (connect_timeout), and its row is missing: the node, or \
         ingress to it",
        "node-7 (10.8.0.7) and node-8 (10.8.0.8) do not reach each other (connect_timeout): the path between these two \
         alone",
        "node-12 (10.8.0.12) does not reach node-13 (10.8.0.13) (connect_timeout): the path between these two alone",
    ];
    mesh.wait_for_faults(mesh.at(1), &faults, |report| {
        let mut known = pairs().filter(|(from, to)| *from != 3 && from.max(to) < &NODES);
        known.all(|(from, to)| {
            let fails = to == 3 || matches!((from, to), (7, 8) | (8, 7) | (12, 13));
            (report.pair(from, to) == "connect_timeout") == fails
        }) && report.pair(3, 1) == "row missing"
    });
    // At one end of a pair that is cut, the row of the other end cannot be fetched either.
    let [gone, pair, direction] = faults;
    let pair = pair
        .replace(" and ", " does not reach ")
        .replace(" do not reach each other", "");
    let row = "the row of node-8 (10.8.0.8) is missing (connect_timeout), so that what it reaches is not known: its \
               caller, or ingress to the port of its page";
    mesh.wait_for_faults(
        mesh.at(7),
        &[&gone.replace("18 of 18", "17 of 17"), &pair, direction, row],
        |_| true,
    );
}

/// One node is not reached but reaches others. Large packets from another node are lost, and so are those between a
/// pair.
fn ingress_that_is_blocked_and_paths_that_are_narrow(mut mesh: Mesh) {
    mesh.network.lose("ip saddr 10.8.0.15 meta length > 1400");
    mesh.network
        .lose("ip saddr 10.8.0.6 ip daddr 10.8.0.16 meta length > 1400");
    mesh.start();
    let ingress = "iifname eth0 tcp dport { 8080, 8082 } drop";
    mesh.at(18).rule("input", ingress);
    let narrow = "packets over 1400 bytes to node-15 (10.8.0.15) are lost from * nodes (path_mtu), and those of its \
                  own, too: the MTU of its network";
    let pair = "packets over 1400 bytes between node-6 (10.8.0.6) and node-16 (10.8.0.16) are lost (path_mtu): the MTU \
                of the path between these two";
    mesh.wait_for_faults(
        mesh.at(1),
        &[
            "node-18 (10.8.0.18) is not reached from 19 of 19 nodes (connect_timeout), and its row is missing: the \
             node, or ingress to it",
            narrow,
            pair,
        ],
        |report| {
            let measured = [(1, 15), (6, 16), (16, 6)];
            measured.iter().all(|&(from, to)| {
                report.pair(from, to) == "path_mtu"
                    && report.detail(from, to) == "packets over 1400 bytes are lost"
            }) && (report.row(15), report.row(18)) == ("ok", "connect_timeout")
        },
    );
    // Only node 18 itself can fetch its row.
    mesh.wait_for_faults(
        mesh.at(18),
        &[
            "node-18 (10.8.0.18) is not reached from 19 of 19 nodes (connect_timeout), and it reaches others itself: \
             ingress to it",
            narrow,
            pair,
        ],
        |report| {
            let mut others = (1..NODES).filter(|to| ![15, 18].contains(to));
            others.all(|to| report.is_reached(18, to))
        },
    );
}

/// One node is reached but reaches nobody, another one does not reach DNS either, and the row of a third is missing.
fn egress_that_is_blocked_and_a_row_that_is_missing(mut mesh: Mesh) {
    mesh.start();
    let egress = "oifname eth0 tcp dport { 8080, 8082 } drop";
    mesh.at(6).rule("output", egress);
    let page = "iifname eth0 tcp dport 8082 drop";
    mesh.at(13).rule("input", page);
    mesh.network
        .lose("ip saddr 10.8.0.17 tcp dport { 8080, 8082 }");
    mesh.network
        .bridge()
        .rule("input", "ip saddr 10.8.0.17 drop");
    mesh.wait_for_faults(
        mesh.at(1),
        &[
            "node-6 (10.8.0.6) reaches nobody, 19 of 19 calls fail (connect_timeout), and it is reached: egress of it",
            "node-17 (10.8.0.17) cannot look the others up (dns_timeout): cluster DNS, or egress to it",
            "the row of node-13 (10.8.0.13) is missing (connect_timeout), so that what it reaches is not known: its \
             caller, or ingress to the port of its page",
        ],
        |report| {
            let mut others = (1..=NODES).filter(|node| ![6, 13, 17].contains(node));
            let rows = (report.row(6), report.row(13), report.row(17));
            rows == ("ok", "connect_timeout", "ok")
                && others.all(|other| {
                    report.pair(6, other) == "connect_timeout"
                        && [6, 13, 17].iter().all(|&to| report.is_reached(other, to))
                })
        },
    );
    mesh.wait_for_faults(
        mesh.at(6),
        &[
            "node-6 (10.8.0.6) reaches nobody, 19 of 19 calls fail (connect_timeout), and no other row says whether it \
             is reached: egress of it, or all the others",
            "the rows of 19 of 20 nodes (node-1, node-2, node-3 and 16 more) are missing (connect_timeout), so that what \
             they reach is not known: their callers, or ingress to the port of their pages",
        ],
        |_| true,
    );
    let nothing = mesh.report(mesh.at(17), &[]);
    let expected = ["the name mesh cannot be looked up here (dns_timeout): *"];
    assert!(is_like(&nothing.sentences(), &expected), "{}", nothing.0);
    assert_eq!(nothing.0["state"], "no_rows");
}

/// Breaks a mesh, and checks what is reported.
type Scenario = fn(Mesh);

/// The scenarios run at the same time, because each takes over a minute, most of which it waits.
#[test]
fn each_fault_of_a_mesh_is_reported_with_its_node_direction_and_kind() {
    let meshes: [(&str, Scenario); 4] = [
        ("split", a_healthy_mesh_and_then_a_split_one),
        ("gone", nodes_that_are_gone_and_pairs_that_are_cut),
        ("ingress", ingress_that_is_blocked_and_paths_that_are_narrow),
        ("egress", egress_that_is_blocked_and_a_row_that_is_missing),
    ];
    thread::scope(|scope| {
        let threads = meshes.map(|(name, scenario)| {
            let run = move || {
                if let Some(mesh) = Mesh::new(name) {
                    scenario(mesh);
                }
            };
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn_scoped(scope, run).expect("a thread")
        });
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
