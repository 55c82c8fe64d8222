//! local-cluster: runs the demo on one machine (see `local-cluster --help`).
//!
//! Exit codes: 0; 1 if a call failed in a run with `--count`, or the program could not start; 2 for an unknown
//! flag or an invalid value.

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use caller::views;
use caller::views::Format;
use clap::Parser;
use echo_server::Faults;
use http::StatusCode;
use local_cluster::cluster::{Cluster, Config, Without, program};
use local_cluster::mesh::{self, Break, MAX_NODES, Mesh};
use runtime::log::LevelFilter;

/// Runs the demo on this machine without Kubernetes: cluster DNS, the backend Service, two backends, two callers.
///
/// Everything listens on 127.0.0.1, at fixed ports, or at free ones if those are in use. Every line of output has
/// the name of its pod as a prefix, as `kubectl logs --prefix` writes it. Ctrl-C stops everything.
///
/// `local-cluster caller ARGUMENTS...` runs the caller itself, for example against the running demo: see
/// `local-cluster caller --help`.
#[derive(Debug, Parser)]
#[command(name = "local-cluster", version, verbatim_doc_comment)]
struct Args {
    /// Time from the start of a call to the start of the next
    #[arg(long, default_value = "10s", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    interval: Duration,

    /// Stop after this many calls of each frontend; exit 0 if none failed, else 1
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,

    /// Output of each call: text (three lines), wide (a fourth line with pod, address and the duration of each
    /// phase) or json (an object on one line)
    #[arg(long, default_value = "wide")]
    format: Format,

    /// Percentage of faulty responses of backend-1; backend-2 has no faults
    #[arg(long, default_value = "0", value_name = "PERCENT",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    fault_percent: u8,

    /// Status of a faulty response, 200 to 599
    #[arg(long, default_value = "503", value_name = "CODE",
          value_parser = clap::value_parser!(u16).range(200..=599))]
    fault_status: u16,

    /// Delay before a faulty response
    #[arg(long, default_value = "0s", value_name = "DURATION",
          value_parser = humantime::parse_duration)]
    fault_delay: Duration,

    /// Leave out a part, to see how calls fail without it: service (the name does not exist), backends
    /// (connections are refused) or dns (nothing listens at the name server's address)
    #[arg(long, value_name = "PART")]
    without: Option<Without>,

    /// Run a mesh of this many nodes instead of the demo: an echo-server and a caller on each, at an address of its
    /// own in 127.0.0.0/8. Prints the address of its page, and the state of the mesh whenever it changes (Linux)
    #[arg(long, value_name = "N", conflicts_with_all = ["count", "format", "fault_percent", "without"],
          value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_NODES)))]
    nodes: Option<u16>,

    /// Break a node of the mesh: drop packets to it (NODE:in), packets from it (NODE:out), or both (NODE); may be
    /// repeated
    #[arg(long = "break", value_name = "NODE[:in|out]", requires = "nodes")]
    breaks: Vec<Break>,

    /// Number of other nodes that each node of the mesh calls in every round
    #[arg(long, default_value = "10", value_name = "K", requires = "nodes",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    sample: u16,

    /// Log level on stderr: error, warn, info, debug, trace or off
    #[arg(long, default_value = "warn", value_name = "LEVEL")]
    log_level: LevelFilter,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "caller") {
        return caller::program::main(std::iter::once("caller".into()).chain(words));
    }
    let args = Args::parse();
    runtime::log::init(args.log_level);
    let tokio = runtime::descriptors::start_tokio().context("cannot start");
    let code = match tokio.and_then(|tokio| tokio.block_on(run(args))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            runtime::log::fatal(format_args!("local-cluster: {error:#}"));
            ExitCode::FAILURE
        }
    };
    runtime::log::flush();
    code
}

/// Runs the demo or the mesh, and returns whether that was a success.
async fn run(args: Args) -> anyhow::Result<bool> {
    let Args {
        interval,
        count,
        format,
        fault_percent,
        fault_status,
        fault_delay,
        without,
        nodes,
        breaks,
        sample,
        log_level: _,
    } = args;
    let shutdown = runtime::signals::shutdown_requested().context("cannot handle signals")?;
    if let Some(nodes) = nodes {
        let mesh = Mesh::bind(mesh::Config {
            nodes,
            sample,
            interval,
            breaks,
        });
        run_mesh(mesh.await?, shutdown).await?;
        return Ok(true);
    }
    let cluster = Cluster::bind(Config {
        interval,
        count,
        format,
        faults: Faults {
            percent: fault_percent,
            status: StatusCode::from_u16(fault_status)?,
            delay: fault_delay,
        },
        without,
    })
    .await?;
    print!("{cluster}");
    println!();
    let none_failed = cluster.run(shutdown).await?;
    Ok(none_failed || count.is_none())
}

/// Prints the addresses of the mesh, runs it, and prints its state whenever it changes.
async fn run_mesh(
    mesh: Mesh,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let (dns, target) = (mesh.dns_addr(), mesh.target());
    println!("cluster DNS  {dns} (udp and tcp)");
    println!("nodes        {} at {}", mesh::NAME, target.port);
    println!("mesh, page at http://{}/mesh", mesh.page());
    println!(
        "try          {} caller mesh --resolv-conf {} --nameserver {dns} --rows-port {} {target}",
        program(),
        mesh.resolv_conf().display(),
        mesh.page().port(),
    );
    let changed = |report: &_| print!("\n{}", views::mesh::text(report));
    mesh.run(shutdown, Some(changed)).await
}
