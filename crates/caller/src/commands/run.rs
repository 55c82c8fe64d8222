//! The loop: calls each target again and again, at a fixed interval.

use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use runtime::admin::{self, Hosts, Readiness};
use runtime::listen::{BindError, ListenAddr};
use runtime::output::Lines;
use runtime::server::Server;
use socket2::SockRef;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::ticker::Ticker;
use super::wait::{EndedRound, wait};
use crate::mesh::node::Node;
use crate::metrics::{MeshMetrics, Metrics, TargetMetrics};
use crate::page::{MeshPage, Page, Routes};
use crate::probe::{Probe, ProbeConfig};
use crate::report::Report;
use crate::stats::{Observer, Stats, Summary};
use crate::views::Format;

/// Configuration of the loop.
#[derive(Clone, Debug)]
pub struct Config {
    /// The calls to make, for each target.
    pub probes: Vec<ProbeConfig>,
    /// How often and for how long each target is called.
    pub schedule: Schedule,
    /// Whether to stop once the pods that responded at first have been replaced by others.
    pub until_replaced: bool,
    /// Output format of each call.
    pub format: Format,
    /// Listen address of the page, the probes and the metrics; `None` disables them.
    pub admin: Option<Admin>,
    /// Host names that the page accepts, besides those that are always accepted.
    pub admin_hosts: Vec<String>,
    /// Port at which the callers of a mesh serve their rows, for the page of the mesh.
    pub rows_port: u16,
    /// Name of this pod, for the page.
    pub name: Option<String>,
}

/// How often and for how long a target is called.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Time from the start of a call to the start of the next; zero means without a pause.
    pub interval: Duration,
    /// How long to repeat the first call, without output, until it is as expected; zero does not repeat it.
    pub wait: Duration,
    /// Number of calls of the target after which the run stops; `None` for no limit.
    pub count: Option<u64>,
    /// Time from the start of the first call until the run stops; `None` for no limit.
    pub duration: Option<Duration>,
}

/// Listen address of the page, the probes and the metrics.
#[derive(Clone, Copy, Debug)]
pub enum Admin {
    /// An address that was given by the user: if it is in use, the program does not start.
    Given(ListenAddr),
    /// `:8082`. If it is in use, for example by another caller in this pod, a run with an end continues without it.
    Default,
}

/// The admin address if none is given.
const DEFAULT_ADMIN: ListenAddr = ListenAddr {
    ip: None,
    port: 8082,
};

/// Maximum segment size (MSS) of the admin port of a caller of a mesh, in bytes. Its packets stay below 1,280 bytes,
/// the minimum MTU of IPv6 (RFC 8200, section 5), so that its row arrives even on a path that loses large packets.
const ROW_MSS: u32 = 1200;

/// A caller that is ready to run: its admin port is open, and no call has been made.
pub struct Caller {
    schedule: Schedule,
    admin: Option<(Server, SocketAddr)>,
    readiness: Readiness,
    target_loops: Vec<TargetLoop>,
    printer: Printer,
}

/// Opens the admin port. Each report will be written to `lines`. Must be called inside a Tokio runtime.
///
/// # Errors
///
/// When the port cannot be opened; the error names the address.
pub fn bind(config: Config, lines: Lines) -> Result<Caller, BindError> {
    let readiness = Readiness::ready();
    let listener = match config.admin {
        None => None,
        Some(Admin::Given(address)) => Some(address.bind()?),
        Some(Admin::Default) => match DEFAULT_ADMIN.bind() {
            Ok(listener) => Some(listener),
            Err(error) if config.has_end() => {
                let error = anyhow::Error::from(error);
                info!("no live page and no metrics: {error:#}");
                None
            }
            Err(error) => return Err(error),
        },
    };
    let interval = config.schedule.interval;
    let probes: Vec<Probe> = config.probes.iter().cloned().map(Probe::new).collect();
    let mesh = mesh_page(&probes, &config);
    if let (Some(listener), Some(_)) = (&listener, &mesh) {
        // If the kernel rejects this option, the row does not arrive on a path that loses large packets.
        let _ = SockRef::from(listener).set_tcp_mss(ROW_MSS);
    }
    // The search list contains the cluster's zone. All targets have the same resolver settings.
    let resolver = config.probes.first().map(|probe| &probe.resolver);
    let conf = resolver.and_then(|resolver| resolver.source.read().ok());
    let search = conf
        .iter()
        .flat_map(|conf| conf.search.iter().map(String::as_str));
    let hosts = Hosts::new(config.admin_hosts, search);
    let (metrics, mut registry) = Metrics::new(lines.dropped());
    let targets = config.probes.len();
    let printer = Printer {
        format: config.format,
        names_target: targets > 1,
        lines,
    };
    let changed = Arc::new(watch::Sender::new(()));
    let nodes: Vec<Arc<Node>> = probes.iter().filter_map(Probe::node).cloned().collect();
    let mut mesh_metrics = match nodes.is_empty() {
        true => Vec::new(),
        false => MeshMetrics::register(&nodes, &mut registry),
    }
    .into_iter();
    let target_loop = |probe: Probe| {
        let check = (Arc::clone(probe.target()), probe.expectation());
        let changed = Arc::clone(&changed);
        TargetLoop {
            metrics: metrics.of(probe.target(), targets),
            mesh: probe.node().cloned().zip(mesh_metrics.next()),
            stats: Arc::new(Stats::new(check, targets, config.until_replaced, changed)),
            probe,
            printer: printer.clone(),
        }
    };
    let target_loops: Vec<TargetLoop> = probes.into_iter().map(target_loop).collect();
    let stats = target_loops.iter().map(|one| Arc::clone(&one.stats));
    let stats = stats.collect();
    let page = Page::new(
        config.name,
        interval,
        stats,
        mesh.is_some(),
        Arc::clone(&changed),
    );
    let admin = admin::Admin::new(readiness.clone(), registry);
    let routes = Routes::new(Arc::new(page), mesh, admin, hosts);
    let admin = listener.and_then(|listener| {
        let server = admin::server(listener, routes);
        let address = server.local_addr().ok()?;
        Some((server, address))
    });
    Ok(Caller {
        schedule: config.schedule,
        admin,
        readiness,
        target_loops,
        printer,
    })
}

/// The pages of the mesh, if targets are sampled.
fn mesh_page(probes: &[Probe], config: &Config) -> Option<MeshPage> {
    let sampled = probes.iter().filter_map(|probe| {
        let node = probe.node()?;
        Some((Arc::clone(probe.target()), Arc::clone(node)))
    });
    let sampled: Vec<_> = sampled.collect();
    // All targets have the same resolver settings.
    let resolver = config.probes.first()?.resolver.clone();
    (!sampled.is_empty()).then(|| {
        let name = config.name.clone();
        MeshPage::new(
            sampled,
            resolver,
            config.rows_port,
            config.schedule.interval,
            name,
        )
    })
}

impl Config {
    /// Whether the run ends without a signal.
    pub fn has_end(&self) -> bool {
        let Schedule {
            count, duration, ..
        } = self.schedule;
        count.is_some() || duration.is_some() || self.until_replaced
    }
}

impl Caller {
    /// The listening socket of the page, the probes and the metrics; `None` if they are disabled.
    pub fn admin_fd(&self) -> Option<BorrowedFd<'_>> {
        self.admin.as_ref().map(|(server, _)| server.as_fd())
    }

    /// The address of the page, the probes and the metrics, with the actual port; `None` if they are disabled.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// Calls until `shutdown` completes or the schedule ends; writes a block for each call, and the summaries
    /// at the end. A round that has started is finished first.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Vec<Summary> {
        let Self {
            schedule,
            admin,
            readiness,
            target_loops,
            printer,
        } = self;
        if let Some((server, address)) = admin {
            info!(%address, "admin is listening");
            tokio::spawn(server.run(std::future::pending()));
        }
        let stats: Vec<_> = target_loops
            .iter()
            .map(|one| Arc::clone(&one.stats))
            .collect();
        let (stop, _) = watch::channel(false);
        let start = Instant::now();
        let targets = target_loops.len() as u32;
        let mut loops = JoinSet::new();
        for (number, target_loop) in (0..).zip(target_loops) {
            // The targets' calls are spread over the interval.
            let first = start + schedule.interval * number / targets;
            loops.spawn(target_loop.run(schedule, start, first, stop.subscribe()));
        }
        let mut shutdown = pin!(shutdown);
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = loops.join_next() => match ended {
                    None => break,
                    Some(Ok(())) => {}
                    Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                },
                () = &mut shutdown, if !stopping => {
                    stopping = true;
                    readiness.set(false);
                    printer.lines.limit_flush_time();
                    stop.send_replace(true);
                }
            }
        }
        let summaries: Vec<Summary> = stats.iter().map(|stats| stats.summary()).collect();
        printer.print(&printer.format.summaries(&summaries)).await;
        summaries
    }
}

/// The calls of one target, and the observers of their reports.
struct TargetLoop {
    probe: Probe,
    stats: Arc<Stats>,
    metrics: TargetMetrics,
    /// The node of the mesh and its metrics, if the target is sampled.
    mesh: Option<(Arc<Node>, MeshMetrics)>,
    printer: Printer,
}

impl TargetLoop {
    /// Calls until `stopping` is set or the schedule ends. `first` is when the first call is due, and `start`
    /// when the run began.
    async fn run(
        self,
        schedule: Schedule,
        start: Instant,
        first: Instant,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut calls = 0;
        let mut begin = start;
        if !schedule.wait.is_zero() {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                waited = wait(&self.probe, schedule.wait) => calls += self.observe(waited),
            }
            begin = Instant::now();
        }
        // The duration counts from each target's own first call.
        let end = schedule
            .duration
            .map(|duration| begin.max(first) + duration);
        let mut stop = pin!(async {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => {}
                () = sleep_until(end.unwrap_or(start)), if end.is_some() => {}
            }
        });
        let mut ticker = Ticker::new(first, schedule.interval);
        if calls > 0 && first <= begin {
            // The call that `wait` has made used up this tick.
            ticker.tick().await;
        }
        let mut is_stopping = false;
        while !is_stopping && schedule.count.is_none_or(|count| calls < count) {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = ticker.tick() => {}
            }
            let mut round = pin!(self.make_round());
            calls += tokio::select! {
                made = &mut round => made,
                () = &mut stop => {
                    is_stopping = true;
                    round.await
                }
            };
            if self.stats.is_rollout_seen() {
                break;
            }
        }
    }

    fn observers(&self) -> impl Iterator<Item = &dyn Observer> {
        let usual: [&dyn Observer; 3] = [&self.metrics, &*self.stats, &self.printer];
        // The node comes before its metrics, which need the name of the peer that it learns from the report.
        let mesh = self.mesh.iter();
        let mesh = mesh.flat_map(|(node, metrics)| [&**node as &dyn Observer, metrics]);
        mesh.chain(usual)
    }

    /// Passes a completed round to the observers, and returns the number of its calls.
    fn observe(&self, EndedRound { lookup, reports }: EndedRound) -> u64 {
        for observer in self.observers() {
            if let Some(lookup) = &lookup {
                observer.lookup(lookup);
            }
            for report in &reports {
                observer.call(report);
            }
            observer.round_ended();
        }
        reports.len() as u64
    }

    /// Makes a round of calls, passes each report to the observers as it comes, and returns the number of calls.
    async fn make_round(&self) -> u64 {
        let mut round = self.probe.round().await;
        if let Some(lookup) = &round.lookup {
            for observer in self.observers() {
                observer.lookup(lookup);
            }
        }
        let mut calls = 0;
        while let Some(mut report) = round.calls.next().await {
            self.printer.lines.room().await;
            if let Some((node, _)) = &self.mesh {
                node.apply_known_hole(&mut report);
                if node.claim_measurement(&report) {
                    tokio::spawn(measure(
                        self.probe.clone(),
                        Arc::clone(node),
                        report.clone(),
                    ));
                }
            }
            for observer in self.observers() {
                observer.call(&report);
            }
            calls += 1;
        }
        for observer in self.observers() {
            observer.round_ended();
        }
        calls
    }
}

/// Measures the largest packet that reaches a peer, after a large call to it has failed. One path is measured at a
/// time.
async fn measure(probe: Probe, node: Arc<Node>, report: Report) {
    let _permit = node.measuring().acquire().await;
    let Some(address) = report.address else {
        return;
    };
    match probe.hole_of_large_call(&report).await {
        Some(hole) => node.set_hole(address.ip(), hole),
        None => node.found_no_hole(address.ip()),
    }
}

/// Writes a block for each call.
#[derive(Clone)]
struct Printer {
    format: Format,
    names_target: bool,
    lines: Lines,
}

impl Printer {
    async fn print(&self, text: &str) {
        self.lines.room().await;
        self.append(text);
    }

    fn append(&self, text: &str) {
        self.lines
            .append(|buffer| buffer.extend_from_slice(text.as_bytes()));
    }
}

impl Observer for Printer {
    fn call(&self, report: &Report) {
        self.append(&self.format.report(report, self.names_target));
    }
}
