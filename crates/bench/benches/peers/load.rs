//! Generates load, with programs that are not ours: wrk for HTTP/1, h2load for HTTP/2 and for a constant rate.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::process::pinned;

/// Duration of each load. Processor time is measured in hundredths of a second, so its error is below one percent.
const SECONDS: u32 = 1;

/// A kind of load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Requests one after another on this many connections, by this many threads.
    KeepAlive { connections: u32, threads: u32 },
    /// A new connection for each request, this many at a time.
    NewConnections { connections: u32 },
    /// HTTP/2: this many connections, with ten concurrent requests on each.
    Http2 { connections: u32 },
}

/// Puts a server under load from these processors for [`SECONDS`], and returns the number of requests.
pub(crate) fn run(load: Load, address: SocketAddr, processors: &str) -> u64 {
    let url = format!("http://{address}/");
    let seconds = SECONDS.to_string();
    let (mut command, is_wrk);
    match load {
        Load::KeepAlive {
            connections,
            threads,
        } => {
            command = Command::new("wrk");
            command
                .arg(format!("-t{threads}"))
                .arg(format!("-c{connections}"));
            command.arg(format!("-d{seconds}s"));
            is_wrk = true;
        }
        Load::NewConnections { connections } => {
            command = Command::new("wrk");
            command
                .arg("-t1")
                .arg(format!("-c{connections}"))
                .arg(format!("-d{seconds}s"));
            command.args(["-H", "Connection: close"]);
            is_wrk = true;
        }
        Load::Http2 { connections } => {
            command = Command::new("h2load");
            command.arg("-c").arg(connections.to_string());
            command.args(["-m", "10", "-D", &seconds]);
            is_wrk = false;
        }
    }
    command.arg(url);
    let output = pinned(&command, processors).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let requests = if is_wrk {
        assert!(!text.contains("Non-2xx"), "{text}");
        let line = text.lines().find(|line| line.contains(" requests in "));
        line.and_then(|line| line.split_whitespace().next())
    } else {
        let line = text.lines().find(|line| line.starts_with("requests: "));
        line.and_then(|line| {
            line.split(", ")
                .find_map(|part| part.strip_suffix(" succeeded"))
        })
    };
    let requests = requests.and_then(|number| number.parse().ok());
    requests.unwrap_or_else(|| panic!("{command:?} said {text}"))
}

/// Sends this many requests a second on 32 connections, and returns the median and the 99th percentile of the response
/// time.
pub(crate) fn latency(rate: f64, address: SocketAddr, processors: &str) -> [Duration; 2] {
    let files = tempfile::tempdir().expect("a directory");
    let log = files.path().join("log");
    let each = (rate / 32.0).max(1.0).round();
    let requests = (rate * f64::from(SECONDS)).round();
    let mut command = Command::new("h2load");
    command
        .args(["--h1", "-c32"])
        .arg(format!("--rps={each}"))
        .arg(format!("-n{requests}"))
        .arg(format!("--log-file={}", log.display()))
        .arg(format!("http://{address}/"));
    let output = pinned(&command, processors).output().expect("it runs");
    let text = fs::read_to_string(log).unwrap_or_default();
    let micros = |line: &str| line.split('\t').nth(2)?.parse().ok();
    let mut times: Vec<u64> = text.lines().filter_map(micros).collect();
    assert!(times.len() > 100, "{command:?} said {output:?}");
    times.sort_unstable();
    [times.len() / 2, times.len() * 99 / 100].map(|at| Duration::from_micros(times[at]))
}
