//! A mesh of many nodes in one process, compared with a mesh of two: the processor time of a call, the memory of a
//! node, and how long it takes to collect the matrix of all rows.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use local_cluster::mesh::{NAME, address};
use test_support::http::{get, metric};
use test_support::wait_until;

use crate::process::Process;

/// Number of peers that each node calls in every round, as in the manifest of the mesh.
const SAMPLE: u16 = 10;

/// Timeout for a mesh to start and for a million calls.
const TIMEOUT: Duration = Duration::from_secs(900);

/// The costs of a mesh.
pub(crate) struct Costs {
    /// Processor time of a call, for both ends and the lookup.
    pub(crate) call: Duration,
    /// Number of calls that all nodes together make in a round.
    pub(crate) calls: u64,
    /// Resident memory for each node, in bytes.
    pub(crate) memory: u64,
    /// Size of the DNS response with the addresses of all nodes, in bytes.
    pub(crate) dns: u64,
    /// The costs of the matrix of all rows.
    pub(crate) matrix: Matrix,
}

/// The costs of the matrix of all rows.
pub(crate) struct Matrix {
    /// Time that it took to collect the rows.
    pub(crate) took: Duration,
    /// Number of pairs with a known result.
    pub(crate) pairs: usize,
    /// Size of a row, in bytes.
    pub(crate) row: usize,
    /// Size of the JSON that the page is drawn from, in bytes.
    pub(crate) page: usize,
}

/// A running `local-cluster --nodes`.
struct Running {
    process: Process,
    program: String,
    files: tempfile::TempDir,
    dns: SocketAddr,
    rows_port: u16,
    target: String,
}

/// Measures a mesh of this many nodes over this many rounds, each `interval` after the one before.
pub(crate) fn costs(binaries: &Path, nodes: u16, interval: Duration, rounds: u32) -> Costs {
    let mesh = Running::start(binaries, nodes, SAMPLE, interval);
    // The first rounds cost more than the later ones.
    std::thread::sleep(interval * 2);
    let (calls, cpu) = (mesh.calls(), mesh.process.cpu());
    std::thread::sleep(interval * rounds);
    let (calls, cpu) = (mesh.calls() - calls, mesh.process.cpu() - cpu);
    let all = (calls * f64::from(nodes)).max(1.0);
    Costs {
        call: cpu.div_f64(all),
        calls: (all / f64::from(rounds)).round() as u64,
        memory: mesh.process.memory() / u64::from(nodes),
        dns: dns_response_size(mesh.dns),
        matrix: mesh.matrix(),
    }
}

/// Measures the matrix of a mesh in which every node has called every other one.
pub(crate) fn full_matrix(binaries: &Path, nodes: u16, interval: Duration) -> Matrix {
    let mesh = Running::start(binaries, nodes, nodes.min(1000), interval);
    // The callers start one after another, over the first interval, and the last one does not answer before it starts.
    std::thread::sleep(interval);
    for node in [1, nodes] {
        wait_until("a row of all peers", TIMEOUT, || {
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
        let printed = files.path().join("printed");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "exec {} --nodes {nodes} --sample {sample} --interval {}ms > {}",
            program.display(),
            interval.as_millis(),
            printed.display(),
        ));
        let process = Process::start(&command, "0-1");
        let mut hint = None;
        wait_until("a mesh", TIMEOUT, || {
            let printed = std::fs::read_to_string(&printed).unwrap_or_default();
            let line = printed.split_once("try ").map(|(_, rest)| rest.to_owned());
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

    /// Number of successful calls of the first node so far.
    fn calls(&self) -> f64 {
        let calls = metric(self.page_of(1), "caller_calls_total{result=\"ok\"}");
        calls.expect("a caller counts")
    }

    /// Collects the matrix three times, each in a process of its own, and returns the median time.
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

/// Size in bytes of the response to a query for the addresses of the mesh, over TCP (RFC 1035, section 4).
fn dns_response_size(server: SocketAddr) -> u64 {
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in NAME.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let mut stream = TcpStream::connect(server).expect("it listens");
    let length = (query.len() as u16).to_be_bytes();
    let sent = stream.write_all(&[&length[..], &query].concat());
    sent.expect("it reads");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("it answers");
    u16::from_be_bytes(length).into()
}
