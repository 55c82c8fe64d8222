//! A mesh of many nodes in one process, beside one of a single pair: what a call costs, what a node takes, and how long
//! the matrix of all rows is in coming.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use local_cluster::mesh::{NAME, address};
use test_support::http::{get, metric};
use test_support::wait_until;

use crate::process::Process;

/// How many of the others each node calls in every round, by default.
const SAMPLE: u16 = 10;

/// Long enough for a million calls.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a mesh costs.
pub(crate) struct Costs {
    /// Processor time of both ends for each call, with the lookups.
    pub(crate) call: Duration,
    /// Calls of all nodes in a round.
    pub(crate) calls: u64,
    /// Resident memory for each node, in bytes.
    pub(crate) memory: u64,
    /// The answer of cluster DNS with all addresses, in bytes.
    pub(crate) dns: u64,
    /// The matrix of all rows.
    pub(crate) matrix: Matrix,
}

/// What it takes to get the matrix of all rows.
pub(crate) struct Matrix {
    /// How long it took.
    pub(crate) took: Duration,
    /// How many pairs are known.
    pub(crate) pairs: usize,
    /// The length of a row, in bytes.
    pub(crate) row: usize,
    /// The length of what the page is drawn from, in bytes.
    pub(crate) page: usize,
}

/// A `local-cluster --nodes` that runs.
struct Running {
    process: Process,
    program: String,
    files: tempfile::TempDir,
    dns: SocketAddr,
    rows_port: u16,
    target: String,
}

/// Measures a mesh of so many nodes over some rounds, with `interval` from one to the next.
pub(crate) fn costs(binaries: &Path, nodes: u16, interval: Duration, rounds: u32) -> Costs {
    let mesh = Running::start(binaries, nodes, SAMPLE, interval);
    // The first rounds have more to do.
    std::thread::sleep(interval * 2);
    let (calls, cpu) = (mesh.calls(), mesh.process.cpu());
    std::thread::sleep(interval * rounds);
    let (calls, cpu) = (mesh.calls() - calls, mesh.process.cpu() - cpu);
    let all = (calls * f64::from(nodes)).max(1.0);
    Costs {
        call: cpu.div_f64(all),
        calls: (all / f64::from(rounds)).round() as u64,
        memory: mesh.process.memory() / u64::from(nodes),
        dns: dns_answer(mesh.dns),
        matrix: mesh.matrix(),
    }
}

/// The matrix of a mesh in which every node has called every other.
pub(crate) fn full_matrix(binaries: &Path, nodes: u16, interval: Duration) -> Matrix {
    let mesh = Running::start(binaries, nodes, nodes.min(1000), interval);
    for node in [1, nodes] {
        wait_until("a row of all peers", PATIENCE, || {
            let row = get(mesh.page_of(node), "/mesh.json");
            row.body.matches(",\"ok\",").count() >= usize::from(nodes) - 1
        });
    }
    mesh.matrix()
}

impl Running {
    fn start(binaries: &Path, nodes: u16, sample: u16, interval: Duration) -> Self {
        let program = binaries.join("release/local-cluster");
        let files = tempfile::tempdir().expect("a directory");
        let said = files.path().join("said");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "exec {} --nodes {nodes} --sample {sample} --interval {}ms > {}",
            program.display(),
            interval.as_millis(),
            said.display(),
        ));
        let process = Process::start(&command, "0-1");
        let mut hint = None;
        wait_until("a mesh", PATIENCE, || {
            let said = std::fs::read_to_string(&said).unwrap_or_default();
            let line = said.split_once("try ").map(|(_, rest)| rest.to_owned());
            hint = line.and_then(|rest| Some(rest.split_once('\n')?.0.to_owned()));
            hint.is_some()
        });
        let hint = hint.unwrap_or_default();
        let after = |flag: &str| {
            let rest = hint.split_once(flag).expect("it is in the line").1;
            let word = rest.split_whitespace().next();
            word.expect("it has a value").to_owned()
        };
        Self {
            process,
            program: program.display().to_string(),
            dns: after("--nameserver ").parse().expect("an address"),
            rows_port: after("--rows-port ").parse().expect("a port"),
            target: hint
                .split_whitespace()
                .last()
                .unwrap_or_default()
                .to_owned(),
            files,
        }
    }

    fn page_of(&self, node: u16) -> SocketAddr {
        SocketAddr::new(address(node).into(), self.rows_port)
    }

    /// Calls of the first node so far.
    fn calls(&self) -> f64 {
        let calls = metric(self.page_of(1), "caller_calls_total{result=\"ok\"}");
        calls.expect("a caller counts")
    }

    /// The matrix, in a process of its own; the median of three times.
    fn matrix(&self) -> Matrix {
        let resolv_conf = self.files.path().join("resolv.conf");
        std::fs::write(&resolv_conf, local_cluster::cluster::SEARCH).expect("it can be written");
        let mut took = Vec::new();
        let mut page = String::new();
        for _ in 0..3 {
            let start = Instant::now();
            let output = Command::new(&self.program)
                .args(["caller", "mesh", "--format", "json", "--resolv-conf"])
                .arg(&resolv_conf)
                .args(["--nameserver", &self.dns.to_string()])
                .args(["--rows-port", &self.rows_port.to_string(), &self.target])
                .output();
            took.push(start.elapsed());
            page = String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned();
        }
        took.sort_unstable();
        let cells = page.split_once("\"cells\":[").map(|(_, cells)| cells);
        let cells = cells.and_then(|cells| Some(cells.split_once(']')?.0));
        let is_known = |cell: &char| cell.is_ascii_alphanumeric();
        Matrix {
            took: took[1],
            pairs: cells.unwrap_or_default().chars().filter(is_known).count(),
            row: get(self.page_of(1), "/mesh.json").body.len(),
            page: page.len(),
        }
    }
}

/// The length of the answer to a question for the addresses of the mesh, over TCP (RFC 1035, section 4).
fn dns_answer(server: SocketAddr) -> u64 {
    let mut question = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in NAME.split('.') {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut stream = TcpStream::connect(server).expect("it listens");
    let length = (question.len() as u16).to_be_bytes();
    let sent = stream.write_all(&[&length[..], &question].concat());
    sent.expect("it reads");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("it answers");
    u16::from_be_bytes(length).into()
}
