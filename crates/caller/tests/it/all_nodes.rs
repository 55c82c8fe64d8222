//! Meshes of twenty nodes, each in a network namespace of its own with a caller and an echo-server, in which packets are
//! dropped: what `caller mesh` says of each fault, asked in one of the namespaces as `kubectl exec` asks in a pod.
//!
//! Tests start in the order of their names, and the one here takes longest: its name is the first.

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
use test_support::{PATIENCE, Tool, tool, wait_until};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::CALLER;

/// How many nodes a mesh has.
const NODES: u8 = 20;

/// Timeout for a conclusion. A failure counts once it is a minute old, and a pair is met within as many rounds as there
/// are nodes.
const CONCLUDED_WITHIN: Duration = Duration::from_secs(240);

/// Pause between two looks at a mesh.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A mesh in namespaces. What runs in them is dropped before they are.
struct Mesh {
    callers: Vec<Process>,
    servers: Vec<JoinHandle<()>>,
    dnsmasq: Option<Process>,
    runtime: Runtime,
    network: Bridged,
    files: TempDir,
}

/// What `caller mesh` has said, as JSON.
struct Told(Value);

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

    /// Starts cluster DNS where the bridge is.
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

    /// Writes which nodes DNS has behind the name of the mesh, and beside it a name behind which nobody listens.
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
        self.wait_for("names", self.at(1), |told| {
            let node = |number: u8| &told.0["nodes"][usize::from(number) - 1]["node"];
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

    /// Asks in a namespace for the mesh, as it is by default, or for another name.
    fn ask(&self, at: &Netns, args: &[&str]) -> Told {
        let mut command = self.caller(at);
        let output = run(command.args(["mesh", "--format=json"]).args(args));
        let json = serde_json::from_str(&output.stdout);
        let told = Told(json.unwrap_or_else(|error| panic!("{error}: {output:?}")));
        let code = match told.0["state"].as_str() {
            Some("ok") => 0,
            Some("not_ok") => 1,
            Some("no_rows") => 3,
            state => panic!("{state:?}"),
        };
        assert_eq!(output.code, Some(code));
        told
    }

    /// Asks again and again until what is said is as expected.
    fn wait_for(&self, what: &str, at: &Netns, is_so: impl Fn(&Told) -> bool) -> Told {
        let deadline = Instant::now() + CONCLUDED_WITHIN;
        loop {
            let told = self.ask(at, &[]);
            if is_so(&told) {
                return told;
            }
            if Instant::now() > deadline {
                let text = run(self.caller(at).arg("mesh")).stdout;
                panic!("{what} did not come; this did:\n{text}");
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until exactly these faults are told, in this order, in JSON and in text, and the matrix is as expected. In
    /// a fault `*` stands for what differs.
    fn wait_for_faults(&self, at: &Netns, faults: &[&str], is_so: impl Fn(&Told) -> bool) {
        self.wait_for("these faults", at, |told| {
            if told.0["state"] != "not_ok" || !is_like(&told.sentences(), faults) || !is_so(told) {
                return false;
            }
            let output = run(self.caller(at).arg("mesh"));
            let lines = || output.stdout.lines();
            let first = lines().filter_map(|line| line.strip_prefix("NOT OK  "));
            let also = lines().filter_map(|line| line.strip_prefix("also    "));
            // What comes after them is no more than slowness.
            let said = first.chain(also).take(faults.len()).map(str::to_owned);
            let next = told.0["next"].as_str().expect("what to do next");
            let last = lines().last() == Some(&format!("next    {next}"));
            output.code == Some(1) && last && is_like(&said.collect::<Vec<_>>(), faults)
        });
    }
}

/// Sentences but for those of nodes that are slow, as they are on a machine that has other things to do.
fn without_slow(sentences: impl Iterator<Item = String>) -> Vec<String> {
    let rest = sentences.filter(|sentence| !sentence.starts_with("everything from "));
    let rest = rest.filter(|sentence| !sentence.starts_with("everything to "));
    rest.collect()
}

/// Whether sentences are as expected, where `*` stands for any text.
fn is_like(said: &[String], expected: &[&str]) -> bool {
    let is_one_like = |(said, expected): (&String, &&str)| match expected.split_once('*') {
        Some((begin, end)) => said.starts_with(begin) && said.ends_with(end),
        None => said == expected,
    };
    said.len() == expected.len() && said.iter().zip(expected).all(is_one_like)
}

impl Told {
    /// All faults, the gravest first, but for slowness; or the one sentence where there is none.
    fn sentences(&self) -> Vec<String> {
        let also = self.0["also"].as_array().expect("a list");
        let all = [&self.0["sentence"]].into_iter().chain(also);
        let all = all.map(|sentence| sentence.as_str().expect("text").to_owned());
        without_slow(all)
    }

    /// What is known of a pair, by the numbers of the nodes: a character as in the JSON, but for the kinds of failure,
    /// which are given by their names.
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

    /// Whether a pair works.
    fn is_reached(&self, from: u8, to: u8) -> bool {
        self.pair(from, to)
            .chars()
            .all(|cell| cell.is_ascii_digit())
    }

    /// Whether there is a row of a node, or why not.
    fn row(&self, node: u8) -> &str {
        let row = &self.0["nodes"][usize::from(node) - 1]["row"];
        row.as_str().expect("a word")
    }

    /// What is said of a failing pair beside its kind.
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

/// At first it is well, and every pair is met. Then half of it is cut off from the other half.
fn well_and_then_split(mut mesh: Mesh) {
    mesh.start();
    for node in 1..=NODES {
        let rounds = || {
            let admin = SocketAddr::new(Bridged::address(node), 8082);
            let metrics = mesh.at(node).enter(|| get(admin, "/metrics")).body;
            // Of a peer that is called in every round.
            let calls = metrics
                .lines()
                .filter(|line| line.starts_with("caller_mesh_calls_total{"))
                .filter_map(|line| line.rsplit(' ').next()?.parse().ok());
            calls.max().unwrap_or(0)
        };
        wait_until("as many rounds as nodes", 4 * PATIENCE, || {
            rounds() >= NODES.into()
        });
    }
    let said = ["20 nodes reach each other: 380 of 380 pairs called lately, median * ms"];
    let well = mesh.wait_for("a mesh that is well", mesh.at(1), |told| {
        let is_reached = pairs().all(|(from, to)| told.is_reached(from, to));
        told.0["state"] == "ok" && is_like(&told.sentences(), &said) && is_reached
    });
    assert_eq!(well.0["next"], Value::Null);
    let text = run(mesh.caller(mesh.at(1)).arg("mesh")).stdout;
    assert!(
        text.starts_with("OK      20 nodes reach each other: "),
        "{text}"
    );
    assert!(text.contains("\nmilliseconds"), "{text}");

    let quiet = mesh.ask(mesh.at(1), &["http://quiet:8080/"]);
    let said = "none of 1 address has a row (connect_refused): no caller with --sample runs there, or ingress to the \
                port of its page";
    assert_eq!(quiet.sentences(), [said]);
    assert_eq!(quiet.0["state"], "no_rows");
    let nobody = mesh.ask(mesh.at(1), &["http://nobody:8080/"]);
    let said = ["the name nobody cannot be looked up here (dns_nxdomain): *"];
    assert!(is_like(&nobody.sentences(), &said), "{}", nobody.0);
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
        |told| {
            let mut within = pairs().filter(|&(from, to)| half(from) && half(to));
            within.all(|(from, to)| told.is_reached(from, to))
                && (1..=NODES).all(|node| (told.row(node) == "ok") == half(node))
        },
    );
    mesh.wait_for_faults(
        mesh.at(15),
        &["10 of 20 nodes (node-1, node-2, node-3 and 7 more) are not reached from any of the others \
           (connect_timeout), and their rows are missing: those nodes, or the network between them and the others"],
        |_| true,
    );
    // Who reaches both halves.
    mesh.wait_for_faults(
        mesh.network.bridge(),
        &["nobody in the group of 10 of 20 nodes (node-11, node-12, node-13 and 7 more) reaches anybody outside it, nor \
           is reached from there (connect_timeout): the network between the two groups"],
        |told| {
            pairs().all(|(from, to)| told.is_reached(from, to) == (half(from) == half(to)))
                && (1..=NODES).all(|node| told.row(node) == "ok")
        },
    );
}

/// A node that is gone stays in DNS, and another one leaves in time. Two pairs do not reach each other, one of them in
/// one direction.
fn nodes_that_are_gone_and_pairs_that_are_cut(mut mesh: Mesh) {
    mesh.start();
    mesh.servers[19].abort();
    drop(mesh.callers.pop());
    mesh.network.unplug(3);
    mesh.network.lose("ip saddr 10.8.0.7 ip daddr 10.8.0.8");
    mesh.network.lose("ip saddr 10.8.0.8 ip daddr 10.8.0.7");
    mesh.network
        .lose("ip saddr 10.8.0.12 ip daddr 10.8.0.13 tcp dport 8080");
    mesh.wait_for("a failure of the node that leaves", mesh.at(1), |told| {
        (1..NODES).any(|from| told.pair(from, NODES) == "connect_refused")
    });
    mesh.set_records(1..NODES);
    let left = |told: &Told| told.0["nodes"].as_array().map(Vec::len) == Some(19);
    mesh.wait_for("a mesh of one node less", mesh.at(1), left);
    let faults = [
        "node-3 (10.8.0.3) is not reached from 18 of 18 nodes (connect_timeout), and its row is missing: the node, or \
         ingress to it",
        "node-7 (10.8.0.7) and node-8 (10.8.0.8) do not reach each other (connect_timeout): the path between these two \
         alone",
        "node-12 (10.8.0.12) does not reach node-13 (10.8.0.13) (connect_timeout): the path between these two alone",
    ];
    mesh.wait_for_faults(mesh.at(1), &faults, |told| {
        let mut known = pairs().filter(|(from, to)| *from != 3 && from.max(to) < &NODES);
        known.all(|(from, to)| {
            let fails = to == 3 || matches!((from, to), (7, 8) | (8, 7) | (12, 13));
            (told.pair(from, to) == "connect_timeout") == fails
        }) && told.pair(3, 1) == "row missing"
    });
    // From one end of the pair the other one's row cannot be fetched either.
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

/// Nobody reaches a node, which reaches others. Large packets of another node are lost, and between a pair.
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
        |told| {
            let measured = [(1, 15), (6, 16), (16, 6)];
            measured.iter().all(|&(from, to)| {
                told.pair(from, to) == "path_mtu"
                    && told.detail(from, to) == "packets over 1400 bytes are lost"
            }) && (told.row(15), told.row(18)) == ("ok", "connect_timeout")
        },
    );
    // Its own row is what it alone can fetch.
    mesh.wait_for_faults(
        mesh.at(18),
        &[
            "node-18 (10.8.0.18) is not reached from 19 of 19 nodes (connect_timeout), and it reaches others itself: \
             ingress to it",
            narrow,
            pair,
        ],
        |told| {
            let mut others = (1..NODES).filter(|to| ![15, 18].contains(to));
            others.all(|to| told.is_reached(18, to))
        },
    );
}

/// A node reaches nobody, and is reached. Another one does not reach DNS either. The rows of a third are not there.
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
        |told| {
            let mut others = (1..=NODES).filter(|node| ![6, 13, 17].contains(node));
            let rows = (told.row(6), told.row(13), told.row(17));
            rows == ("ok", "connect_timeout", "ok")
                && others.all(|other| {
                    told.pair(6, other) == "connect_timeout"
                        && [6, 13, 17].iter().all(|&to| told.is_reached(other, to))
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
    let nothing = mesh.ask(mesh.at(17), &[]);
    let said = ["the name mesh cannot be looked up here (dns_timeout): *"];
    assert!(is_like(&nothing.sentences(), &said), "{}", nothing.0);
    assert_eq!(nothing.0["state"], "no_rows");
}

/// Breaks a mesh, and checks what is said of it.
type Tell = fn(Mesh);

/// All of them at once, because each takes a good minute, in which it has little to do.
#[test]
fn each_fault_of_a_mesh_is_told_by_its_node_its_direction_and_its_kind() {
    let meshes: [(&str, Tell); 4] = [
        ("split", well_and_then_split),
        ("gone", nodes_that_are_gone_and_pairs_that_are_cut),
        ("ingress", ingress_that_is_blocked_and_paths_that_are_narrow),
        ("egress", egress_that_is_blocked_and_a_row_that_is_missing),
    ];
    thread::scope(|scope| {
        let meshes = meshes.map(|(name, tell)| {
            let run = move || {
                if let Some(mesh) = Mesh::new(name) {
                    tell(mesh);
                }
            };
            let thread = thread::Builder::new().name(name.to_owned());
            thread.spawn_scoped(scope, run).expect("a thread")
        });
        for mesh in meshes {
            if let Err(panic) = mesh.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
