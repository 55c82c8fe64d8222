//! `cargo bench`: compares the cost of `echo-server` and `caller` with that of similar programs. Prints a Markdown
//! table on stdout, and its progress on stderr. It builds the binaries as the images have them, and then takes a
//! quarter of an hour. `cargo bench -p bench -- mesh` (or `servers`, or `callers`) measures that part alone.
//!
//! Absolute times on a shared machine mean little. So everything is measured in turn in the same run, and the results
//! are the ratios of medians, of processor time for each request rather than of requests a second. A server runs on the
//! first processor, and the load on the second. Programs that are not installed are left out; `HTTP_ECHO_BIN` names a
//! binary of hashicorp/http-echo.

mod callers;
mod load;
mod mesh;
mod process;
mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use test_support::tool;

use crate::load::Load;
use crate::server::Server;

const SERVER_CPU: &str = "0";
const LOAD_CPU: &str = "1";

/// How often each measurement is made, in turn with the others.
const TURNS: usize = 5;

/// Number of idle connections, below the usual limit on file descriptors.
const IDLE: usize = 9500;

/// The parts of the table, which can be named on the command line.
const PARTS: [&str; 3] = ["servers", "callers", "mesh"];

fn main() {
    // Cargo adds `--bench`.
    let named = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let named: Vec<String> = named.collect();
    if let Some(unknown) = named.iter().find(|part| !PARTS.contains(&part.as_str())) {
        eprintln!("{unknown} is not a part of the table: {}", PARTS.join(", "));
        std::process::exit(2);
    }
    let is_measured = |part: &str| named.is_empty() || named.iter().any(|named| named == part);
    let binaries = build();
    println!("| what | ours | beside it | ratio | bar |\n|---|---|---|---|---|");
    if is_measured("servers") {
        all_of_servers(&binaries);
    }
    if is_measured("callers") {
        callers(&binaries);
    }
    if is_measured("mesh") {
        meshes(&binaries);
    }
    println!("\nMeasured on {}.", machine());
}

fn all_of_servers(binaries: &Path) {
    let servers = servers(binaries);
    if tool("wrk").is_some() {
        requests(&servers);
        threads(binaries);
    }
    if tool("h2load").is_some() {
        http2(&servers);
        if tool("wrk").is_some() {
            latency(&servers);
        }
    }
    memory(&servers);
    start(&servers);
}

/// Builds the binaries of the images, and returns the folder that has them as `caller/caller`, `release/echo-server`
/// and `release/local-cluster`.
fn build() -> PathBuf {
    let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/static");
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    for (package, profile) in [
        ("echo-server", "release"),
        ("caller", "caller"),
        ("local-cluster", "release"),
    ] {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--profile", profile, "-p", package])
            .args(["--target", &triple])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env("CARGO_TARGET_DIR", target)
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "{package} does not build"
        );
    }
    Path::new(target).join(triple)
}

fn servers(binaries: &Path) -> Vec<Server> {
    let mut servers = vec![echo_server(binaries, 1)];
    if let Some(binary) = tool("nginx") {
        for log in [true, false] {
            servers.push(Server::Nginx {
                binary: binary.clone(),
                log,
            });
        }
    }
    match std::env::var_os("HTTP_ECHO_BIN") {
        Some(binary) => servers.push(Server::HttpEcho {
            binary: binary.into(),
        }),
        None => eprintln!("left out http-echo: HTTP_ECHO_BIN is not set"),
    }
    servers.push(Server::EpollLoop);
    servers
}

fn echo_server(binaries: &Path, threads: u8) -> Server {
    Server::Echo {
        binary: binaries.join("release/echo-server"),
        threads,
    }
}

/// Makes the measurements in turn, and returns the median of each.
fn medians<T>(of: &[T], mut measure: impl FnMut(&T) -> f64) -> Vec<f64> {
    let mut all = vec![Vec::new(); of.len()];
    for _ in 0..TURNS {
        for (item, values) in of.iter().zip(&mut all) {
            values.push(measure(item));
        }
    }
    all.into_iter().map(median).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints a row for each server but ours, which is the first. `bar` is the wanted ratio to a peer.
fn rows(
    what: &str,
    unit: &str,
    servers: &[Server],
    values: &[f64],
    bar: impl Fn(&Server) -> Option<f64>,
) {
    for (server, value) in servers.iter().zip(values).skip(1) {
        let ratio = values[0] / value;
        let bar = match bar(server) {
            Some(bar) if ratio > bar => format!("≤ {bar}: **missed**"),
            Some(bar) => format!("≤ {bar}"),
            None => String::new(),
        };
        let (ours, theirs, name) = (values[0], value, server.name());
        println!("| {what} | {ours:.1} {unit} | {name} {theirs:.1} {unit} | {ratio:.2} | {bar} |");
    }
}

/// Compares the processor time of each request, in microseconds.
fn cost(server: &Server, load: Load) -> f64 {
    let running = server.start(SERVER_CPU);
    let address = match load {
        Load::Http2 { .. } => server.http2_address(running.address),
        _ => running.address,
    };
    let before = running.process.cpu();
    let requests = load::run(load, address, LOAD_CPU);
    (running.process.cpu() - before).as_secs_f64() * 1e6 / requests as f64
}

fn requests(servers: &[Server]) {
    for connections in [1, 32, 256] {
        eprintln!("{connections} keep-alive connections");
        let load = Load::KeepAlive {
            connections,
            threads: 1,
        };
        let costs = medians(servers, |server| cost(server, load));
        let what = format!("CPU per request, {connections} keep-alive connections");
        rows(&what, "µs", servers, &costs, |server| match server {
            _ if connections != 32 => None,
            Server::Nginx { log: true, .. } => Some(0.95),
            Server::HttpEcho { .. } => Some(0.55),
            Server::EpollLoop => Some(1.15),
            _ => None,
        });
    }
    eprintln!("a connection for each request");
    let load = Load::NewConnections { connections: 32 };
    let costs = medians(servers, |server| cost(server, load));
    let what = "CPU per request, a new connection for each";
    rows(what, "µs", servers, &costs, |server| match server {
        Server::Nginx { log: true, .. } => Some(1.0),
        Server::HttpEcho { .. } => Some(0.6),
        _ => None,
    });
}

fn http2(servers: &[Server]) {
    eprintln!("HTTP/2");
    let servers: Vec<Server> = servers
        .iter()
        .filter(|s| s.speaks_http2())
        .cloned()
        .collect();
    let load = Load::Http2 { connections: 32 };
    let costs = medians(&servers, |server| cost(server, load));
    rows(
        "CPU per request, h2c, 32 connections",
        "µs",
        &servers,
        &costs,
        |_| None,
    );
}

/// Compares one and two threads on both processors, which the load has to share.
fn threads(binaries: &Path) {
    eprintln!("one thread and two");
    let servers = [2, 1].map(|threads| echo_server(binaries, threads));
    let load = Load::KeepAlive {
        connections: 32,
        threads: 1,
    };
    let rates = medians(&servers, |server| {
        let running = server.start("0-1");
        load::run(load, running.address, "0-1") as f64 / 1000.0
    });
    let [two, one] = rates[..] else { return };
    println!(
        "| requests in 1 s, two threads | {two:.0} thousand | one thread {one:.0} thousand | {:.2} | |",
        two / one
    );
}

/// Compares response times at half of the highest rate of ours.
fn latency(servers: &[Server]) {
    eprintln!("time to the answer");
    let running = servers[0].start(SERVER_CPU);
    let load = Load::KeepAlive {
        connections: 32,
        threads: 1,
    };
    let rate = load::run(load, running.address, LOAD_CPU) as f64 / 2.0;
    drop(running);
    let mut late = vec![Vec::new(); servers.len()];
    let mut turn = (0..servers.len()).cycle();
    let middle = medians(servers, |server| {
        let running = server.start(SERVER_CPU);
        let [median, p99] = load::latency(rate, running.address, LOAD_CPU);
        late[turn.next().unwrap_or(0)].push(p99.as_secs_f64() * 1e6);
        median.as_secs_f64() * 1e6
    });
    let late: Vec<f64> = late.into_iter().map(self::median).collect();
    for (which, times) in [("median", middle), ("99th percentile", late)] {
        let what = format!("time to the answer at {rate:.0} requests a second, {which}");
        rows(&what, "µs", servers, &times, |_| None);
    }
}

fn memory(servers: &[Server]) {
    eprintln!("memory");
    let mut idle = Vec::new();
    let mut each = Vec::new();
    for server in servers {
        let running = server.start(SERVER_CPU);
        get(&mut TcpStream::connect(running.address).expect("it listens"));
        let before = running.process.memory();
        let connections: Vec<TcpStream> = (0..IDLE)
            .map(|_| {
                let mut stream = TcpStream::connect(running.address).expect("it listens");
                get(&mut stream);
                stream
            })
            .collect();
        let after = running.process.memory();
        drop(connections);
        idle.push(before as f64 / 1e6);
        each.push((after - before) as f64 / 1e3 / IDLE as f64);
    }
    rows("memory, idle (bar: 3.0 MB)", "MB", servers, &idle, |_| None);
    rows(
        "memory per idle connection, 9,500 of them (bar: 2.5 KB)",
        "KB",
        servers,
        &each,
        |_| None,
    );
}

/// Compares the time from exec to the first response.
fn start(servers: &[Server]) {
    eprintln!("start");
    let times = medians(servers, |server| {
        let one = |_| {
            let start = Instant::now();
            let running = server.spawn(SERVER_CPU);
            loop {
                if let Ok(mut stream) = TcpStream::connect(running.address) {
                    get(&mut stream);
                    return start.elapsed().as_secs_f64() * 1e3;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        };
        median((0..10).map(one).collect())
    });
    rows("exec to the first 200", "ms", servers, &times, |server| {
        matches!(server, Server::HttpEcho { .. }).then_some(1.0)
    });
}

/// Sends a request, and reads its response, which arrives in one piece.
fn get(stream: &mut TcpStream) {
    let request = b"GET / HTTP/1.1\r\nHost: backend\r\n\r\n";
    stream.write_all(request).expect("it reads");
    let mut answer = [0; 1024];
    let n = stream.read(&mut answer).expect("it answers");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", &answer[..n]);
}

fn callers(binaries: &Path) {
    eprintln!("caller");
    let bed = callers::Bed::start(
        &binaries.join("caller/caller"),
        &binaries.join("release/echo-server"),
    );
    let has_curl = tool("curl").is_some();
    let (mut ours, mut curls) = (Vec::new(), Vec::new());
    let (mut peak, mut curl_peak) = (0, 0);
    for _ in 0..3 {
        let (cpu, memory) = bed.caller(1, 5000);
        ours.push(cpu.as_secs_f64() * 1e6);
        peak = peak.max(memory);
        if has_curl {
            let (cpu, memory) = bed.curl_loop(100);
            curls.push(cpu.as_secs_f64() * 1e6);
            curl_peak = curl_peak.max(memory);
        }
    }
    let ours = median(ours);
    if has_curl {
        let curl = median(curls);
        let ratio = ours / curl;
        let missed = if ratio > 0.05 { ": **missed**" } else { "" };
        println!(
            "| CPU per call, DNS and all | {ours:.0} µs | curl loop without DNS {curl:.0} µs | {ratio:.3} | ≤ 0.05{missed} |"
        );
        let [peak, curl_peak] = [peak, curl_peak].map(|bytes| bytes as f64 / 1e6);
        println!(
            "| memory, peak (bar: 6 MB) | {peak:.1} MB | curl alone {curl_peak:.1} MB | {:.2} | |",
            peak / curl_peak
        );
    }
    let over_tls = || callers::over_tls(&binaries.join("caller/caller"), 1000, 100);
    let (tls, curl): (Vec<f64>, Vec<f64>) = (0..3)
        .filter_map(|_| over_tls())
        .map(|(ours, curl)| (ours.as_secs_f64() * 1e6, curl.as_secs_f64() * 1e6))
        .unzip();
    if !tls.is_empty() {
        let (tls, curl) = (median(tls), median(curl));
        let ratio = tls / curl;
        println!(
            "| CPU per https call, a handshake for each | {tls:.0} µs | curl {curl:.0} µs | {ratio:.3} | |"
        );
    }
    for addresses in [10, 100, 1000] {
        let (cpu, memory) = bed.caller(addresses, 5000);
        let cpu = cpu.as_secs_f64() * 1e6;
        let memory = memory as f64 / 1e6;
        println!(
            "| CPU per call, {addresses} addresses in turn | {cpu:.0} µs, {memory:.1} MB | one address {ours:.0} µs | {:.2} | |",
            cpu / ours
        );
    }
}

fn meshes(binaries: &Path) {
    eprintln!("mesh");
    let pair = mesh::costs(binaries, 2, Duration::from_millis(20), 200);
    let micros = |cost: Duration| cost.as_secs_f64() * 1e6;
    for (nodes, interval, rounds) in [(100, 2, 5), (1000, 10, 3)] {
        let costs = mesh::costs(binaries, nodes, Duration::from_secs(interval), rounds);
        let (call, of_pair) = (micros(costs.call), micros(pair.call));
        let ratio = call / of_pair;
        let missed = if ratio > 1.5 { ": **missed**" } else { "" };
        println!(
            "| mesh of {nodes} nodes, CPU per call, both ends, DNS and all | {call:.0} µs | one pair {of_pair:.0} µs | {ratio:.2} | ≤ 1.5{missed} |"
        );
        println!(
            "| mesh of {nodes} nodes, calls a round | {} | all pairs {} | {:.3} | |",
            costs.calls,
            u32::from(nodes) * u32::from(nodes - 1),
            costs.calls as f64 / f64::from(nodes) / f64::from(nodes - 1)
        );
        println!(
            "| mesh of {nodes} nodes, memory a node, both ends | {:.0} KB | one pair {:.0} KB | {:.2} | |",
            costs.memory as f64 / 1e3,
            pair.memory as f64 / 1e3,
            costs.memory as f64 / pair.memory as f64
        );
        println!(
            "| mesh of {nodes} nodes, answer of DNS | {:.1} KB | one pair {:.1} KB | {:.0} | |",
            costs.dns as f64 / 1e3,
            pair.dns as f64 / 1e3,
            costs.dns as f64 / pair.dns as f64
        );
        matrix(nodes, &costs.matrix);
    }
    eprintln!("a mesh in which all pairs have been called");
    // The pairs of 1,000 nodes, one after another, would fill the kernel's table of connections (nf_conntrack).
    let nodes = 500;
    let full = mesh::full_matrix(binaries, nodes, Duration::from_secs(240));
    matrix(nodes, &full);
}

fn matrix(nodes: u16, matrix: &mesh::Matrix) {
    let took = matrix.took.as_secs_f64();
    let missed = if took > 2.0 { ": **missed**" } else { "" };
    println!(
        "| matrix of {nodes} nodes, {} pairs known | {took:.2} s | a row {:.1} KB, the page's data {:.0} KB | | ≤ 2 s{missed} |",
        matrix.pairs,
        matrix.row as f64 / 1e3,
        matrix.page as f64 / 1e3
    );
}

/// The date, the processor and the kernel of this run.
fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("an unknown processor", |model| {
        model.trim_start_matches([' ', '\t', ':'])
    });
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The suffix of a distribution is of no use to a reader.
    let kernel = kernel.split('-').next().unwrap_or_default();
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d");
    format!(
        "{today}: {cores} cores of {model}, Linux {}",
        kernel.trim_end()
    )
}
