//! A mesh of nodes on loopback addresses. As with the DaemonSet of `kustomize/components/mesh`, each node has an
//! echo-server and a caller at an address of its own, and one headless name has the addresses of all nodes.
//!
//! A node can be broken: the kernel then drops its packets, by a filter on listening sockets, so that connections time
//! out as they do behind a NetworkPolicy. That begins after two rounds, when the nodes know each other by name. Only
//! Linux has such filters, and all of 127.0.0.0/8 as loopback addresses.

use std::fs::File;
use std::future::Future;
use std::io;
use std::iter::once;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use caller::commands::run;
use caller::mesh::collect::Collector;
use caller::mesh::node::SampleConfig;
use caller::mesh::report::{MeshReport, MeshState};
use caller::target::Target;
use echo_server::{EchoServer, Pod};
use http::HeaderValue;
use runtime::listen::ListenAddr;
use runtime::output::Output;
use socket2::{SockFilter, SockRef};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cluster::{
    NAMESPACE, NO_DRAIN_DELAY, caller_config, echo_config, until_set, write_resolv_conf,
};
use crate::dns::{Dns, Records};

/// The headless name of all nodes.
pub const NAME: &str = "mesh.pod-to-pod-communication.svc.cluster.local";

/// Limit on the number of nodes: a DNS message holds some 4,000 addresses.
pub const MAX_NODES: u16 = 4000;

/// Ports of the echo-servers and of the callers if they are free on all nodes: the same as those of the demo.
const PORT: u16 = 18080;
const ROWS_PORT: u16 = 18082;

/// How many other pairs of ports are tried if those are in use.
const PORT_TRIES: usize = 20;

/// Shortest interval between two collections of all rows; each node adds [`COLLECT_PAUSE_PER_NODE`] to it, because its
/// row takes about a millisecond.
const COLLECT_PAUSE: Duration = Duration::from_secs(5);
const COLLECT_PAUSE_PER_NODE: Duration = Duration::from_millis(30);

/// Settings of a mesh.
#[derive(Clone, Debug)]
pub struct Config {
    /// Number of nodes of the mesh.
    pub nodes: u16,
    /// Number of peers that each node calls in every round; it calls one more in turn.
    pub sample: u16,
    /// Time from the start of a round to the start of the next.
    pub interval: Duration,
    /// The nodes to break, after two rounds.
    pub breaks: Vec<Break>,
}

/// A node to break, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// The number of the node, from 1.
    pub node: u16,
    /// Whether packets to it are dropped.
    pub inward: bool,
    /// Whether packets from it to the other nodes are dropped.
    pub outward: bool,
}

/// The text does not name a node to break.
#[derive(Debug, thiserror::Error)]
#[error("expected NODE, NODE:in or NODE:out, where NODE is a number from 1, or node-1")]
pub struct ParseBreakError;

impl FromStr for Break {
    type Err = ParseBreakError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (node, direction) = match text.split_once(':') {
            Some((node, direction)) => (node, Some(direction)),
            None => (text, None),
        };
        let number = node.strip_prefix("node-").unwrap_or(node);
        let node = number.parse().map_err(|_| ParseBreakError)?;
        let (inward, outward) = match direction {
            None => (true, true),
            Some("in") => (true, false),
            Some("out") => (false, true),
            Some(_) => return Err(ParseBreakError),
        };
        match node {
            0 => Err(ParseBreakError),
            node => Ok(Self {
                node,
                inward,
                outward,
            }),
        }
    }
}

/// A mesh whose ports are open and whose pods have not started.
pub struct Mesh {
    dns: Dns,
    nodes: Vec<(EchoServer, run::Caller)>,
    breakage: Breakage,
    interval: Duration,
    collector: Collector,
    /// The output of the callers, which goes to `/dev/null`.
    discarded: Output,
    /// Holds the pods' resolv.conf; removed when dropped.
    files: TempDir,
}

/// The address of a node, by its number from 1.
pub fn address(node: u16) -> Ipv4Addr {
    let number = node - 1;
    let [net, host] = [number / 250, number % 250 + 1];
    Ipv4Addr::new(127, 0, 1 + net as u8, host as u8)
}

/// The echo-server of a node, by its number from 1.
///
/// # Errors
///
/// When the address cannot be listened at.
pub fn server(node: u16, listen: ListenAddr) -> anyhow::Result<EchoServer> {
    let mut config = echo_config(listen, NO_DRAIN_DELAY);
    config.pod = Pod {
        name: Some(HeaderValue::from_str(&format!("mesh-{node}"))?),
        node: Some(HeaderValue::from_str(&format!("node-{node}"))?),
        namespace: Some(HeaderValue::from_static(NAMESPACE)),
    };
    Ok(echo_server::bind(config)?)
}

impl Mesh {
    /// Opens all ports.
    ///
    /// # Errors
    ///
    /// When a port cannot be opened, too few open files are allowed, a node to break does not exist, or the system is
    /// not Linux.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let Config {
            nodes,
            sample,
            interval,
            breaks,
        } = config;
        if !cfg!(target_os = "linux") {
            bail!("a mesh needs a loopback of many addresses, which Linux has");
        }
        if let Some(broken) = breaks.iter().find(|broken| broken.node > nodes) {
            bail!("there is no node-{} to break: {nodes} nodes", broken.node);
        }
        let files_allowed = runtime::descriptors::raise_limit();
        let files_needed = usize::from(nodes) * 4 + 256;
        if files_allowed < files_needed {
            bail!(
                "{nodes} nodes need {files_needed} open files, and {files_allowed} are allowed (see `ulimit -n`)"
            );
        }
        let records = Records::default();
        let all: Vec<IpAddr> = (1..=nodes).map(|node| address(node).into()).collect();
        records.set(NAME, all);
        let dns = Dns::start(0, records).await.context("cluster DNS")?;
        let files = tempfile::tempdir().context("cannot make a directory for resolv.conf")?;
        let source = write_resolv_conf(files.path(), dns.addr)?;
        let discarded = Output::start("callers", File::options().write(true).open("/dev/null")?);
        let ports = free_ports(nodes);
        let mut opened = Vec::with_capacity(nodes.into());
        for node in 1..=nodes {
            let at = |port| ListenAddr {
                ip: Some(address(node).into()),
                port,
            };
            let name = format!("node-{node}");
            let server = server(node, at(ports.0)).with_context(|| name.clone())?;
            let mut config = caller_config(&format!("http://mesh:{}/", ports.0), &source)?;
            config.schedule.interval = interval;
            config.rows_port = ports.1;
            config.admin = Some(run::Admin::Given(at(ports.1)));
            config.name = Some(format!("mesh-{node}"));
            config.probes[0].each_address = true;
            config.probes[0].sample = Some(SampleConfig {
                count: sample.into(),
                own: Some(address(node).into()),
                node: Some(name.clone()),
            });
            let caller = run::bind(config, discarded.lines()).with_context(|| name)?;
            opened.push((server, caller));
        }
        let breakage = Breakage::new(&breaks, &opened)?;
        let config = caller_config(&format!("http://mesh:{}/", ports.0), &source)?;
        let probe = config.probes.into_iter().next().context("a target")?;
        Ok(Self {
            dns,
            nodes: opened,
            breakage,
            interval,
            collector: Collector {
                targets: vec![Arc::new(probe.check.target)],
                resolver: probe.resolver,
                port: ports.1,
            },
            discarded,
            files,
        })
    }

    /// The address at which the first node serves the page of the mesh.
    pub fn page(&self) -> SocketAddr {
        SocketAddr::new(address(1).into(), self.collector.port)
    }

    /// The address of cluster DNS.
    pub fn dns_addr(&self) -> SocketAddr {
        self.dns.addr
    }

    /// The target that every node calls.
    pub fn target(&self) -> &Target {
        &self.collector.targets[0]
    }

    /// The path of the pods' `resolv.conf`, which exists as long as the mesh.
    pub fn resolv_conf(&self) -> PathBuf {
        resolv_conf(self.files.path())
    }

    /// The collector of all rows.
    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Runs the pods until `shutdown` completes. Collects their rows now and then, and calls `on_change` with the
    /// report whenever its conclusion has changed; if that is `None`, no rows are collected.
    ///
    /// # Errors
    ///
    /// When a pod panics, or the operating system cannot tell the addresses of an echo-server.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
        on_change: Option<fn(&MeshReport)>,
    ) -> anyhow::Result<()> {
        let Self {
            dns: _dns,
            nodes,
            breakage,
            interval: every,
            collector,
            discarded,
            files: _files,
        } = self;
        let stop = watch::Sender::new(false);
        let mut servers = JoinSet::new();
        let mut callers = JoinSet::new();
        let count = u32::try_from(nodes.len())?;
        for (number, (server, caller)) in (0..).zip(nodes) {
            servers.spawn(server.run(until_set(stop.subscribe())));
            // The callers call at different times, as pods do that have started at different times.
            let stopped = until_set(stop.subscribe());
            callers.spawn(async move {
                sleep(every * number / count).await;
                caller.run(stopped).await
            });
        }
        let watching = async {
            match on_change {
                Some(on_change) => {
                    // The first round of the last caller begins just before the second round of the first caller.
                    sleep(every + every / 2).await;
                    let pause = COLLECT_PAUSE + COLLECT_PAUSE_PER_NODE * count;
                    watch_for_changes(&collector, every.max(pause), on_change).await;
                }
                None => std::future::pending().await,
            }
        };
        let break_later = async {
            sleep(every * 2).await;
            match breakage.begin() {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = watching => {}
            error = break_later => return Err(error),
        }
        stop.send_replace(true);
        callers.abort_all();
        while let Some(ended) = servers.join_next().await {
            ended??;
        }
        discarded.finish();
        Ok(())
    }
}

/// Collects all rows again and again, and calls `on_change` when the conclusion has changed.
async fn watch_for_changes(collector: &Collector, every: Duration, on_change: fn(&MeshReport)) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = None;
    loop {
        ticks.tick().await;
        let report = MeshReport::new(collector.collect().await);
        let sentences = match report.state() {
            // The figures of a healthy mesh change all the time.
            MeshState::Ok => Vec::new(),
            MeshState::NotOk | MeshState::NoRows => report.sentences(),
        };
        let now = (sentences, report.conclusion.failing_briefly > 0);
        if before.as_ref() != Some(&now) {
            on_change(&report);
            before = Some(now);
        }
    }
}

fn resolv_conf(files: &Path) -> PathBuf {
    files.join("resolv.conf")
}

/// The ports of all nodes: the usual ones, or others if one of those is in use on any of the nodes.
fn free_ports(nodes: u16) -> (u16, u16) {
    let is_free = |port: u16| {
        let mut opened = (1..=nodes).map(|node| TcpListener::bind((address(node), port)));
        opened.all(|opened| opened.is_ok())
    };
    // Below the ports that the kernel chooses for outgoing connections, such as those of another mesh.
    let others = (0..PORT_TRIES).map(|_| rand::random_range(20_000..32_000));
    let mut pairs = once((PORT, ROWS_PORT)).chain(others.map(|port| (port, port + 1)));
    let free = pairs.find(|(port, rows)| is_free(*port) && is_free(*rows));
    // If none are free, opening the usual ones fails with an error that names the address.
    free.unwrap_or((PORT, ROWS_PORT))
}

/// Instructions of the classic packet filter (<https://www.kernel.org/doc/html/latest/networking/filter.html>).
mod bpf {
    /// Loads a word of the packet: BPF_LD, BPF_W, BPF_ABS.
    pub(super) const LOAD: u16 = 0x20;
    /// Jumps if the loaded word equals a constant: BPF_JMP, BPF_JEQ, BPF_K.
    pub(super) const JUMP_IF_EQUAL: u16 = 0x15;
    /// Ends the filter, and keeps this many bytes of the packet; 0 drops it: BPF_RET, BPF_K.
    pub(super) const RETURN: u16 = 0x06;
    /// Offset of the IP header: SKF_NET_OFF.
    pub(super) const NETWORK: u32 = 0xfff0_0000;
    /// Offset of the source address in an IPv4 header.
    pub(super) const SOURCE: u32 = NETWORK + 12;
}

/// The sockets of the nodes to break, each with the filter that drops its packets.
struct Breakage(Vec<(OwnedFd, Vec<SockFilter>)>);

impl Breakage {
    /// Makes the filters; they have no effect before [`Breakage::begin`]. `nodes` are in the order of their numbers.
    fn new(breaks: &[Break], nodes: &[(EchoServer, run::Caller)]) -> io::Result<Self> {
        let mut filters = Vec::new();
        for (node, (server, caller)) in (1..).zip(nodes) {
            let mut own = breaks.iter().filter(|broken| broken.node == node);
            if own.any(|broken| broken.inward) {
                let sockets = [Some(server.as_fd()), caller.admin_fd()];
                for socket in sockets.into_iter().flatten() {
                    filters.push((socket.try_clone_to_owned()?, drop_all()));
                }
                continue;
            }
            let others = breaks
                .iter()
                .filter(|broken| broken.outward && broken.node != node);
            let sources: Vec<Ipv4Addr> = others.map(|broken| address(broken.node)).collect();
            if !sources.is_empty() {
                filters.push((server.as_fd().try_clone_to_owned()?, drop_from(&sources)));
            }
        }
        Ok(Self(filters))
    }

    /// Attaches the filters: from now on packets are dropped.
    fn begin(&self) -> anyhow::Result<()> {
        for (socket, filter) in &self.0 {
            SockRef::from(socket)
                .attach_filter(filter)
                .context("cannot break a node: the kernel takes no packet filter")?;
        }
        Ok(())
    }
}

/// A filter that drops every packet.
fn drop_all() -> Vec<SockFilter> {
    vec![SockFilter::new(bpf::RETURN, 0, 0, 0)]
}

/// A filter that drops the packets from these addresses.
fn drop_from(sources: &[Ipv4Addr]) -> Vec<SockFilter> {
    let mut filter = vec![SockFilter::new(bpf::LOAD, 0, 0, bpf::SOURCE)];
    for &source in sources {
        filter.push(SockFilter::new(bpf::JUMP_IF_EQUAL, 0, 1, source.into()));
        filter.push(SockFilter::new(bpf::RETURN, 0, 0, 0));
    }
    filter.push(SockFilter::new(bpf::RETURN, 0, 0, u32::MAX));
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_an_address_of_its_own() {
        let all: std::collections::BTreeSet<_> = (1..=MAX_NODES).map(address).collect();
        assert_eq!(all.len(), usize::from(MAX_NODES));
        assert_eq!(address(1), Ipv4Addr::new(127, 0, 1, 1));
        assert_eq!(address(1000), Ipv4Addr::new(127, 0, 4, 250));
    }

    #[test]
    fn a_broken_node_is_named_by_its_number_or_its_name() {
        let both = Break {
            node: 3,
            inward: true,
            outward: true,
        };
        for (text, inward, outward) in [
            ("3", true, true),
            ("node-3:in", true, false),
            ("3:out", false, true),
        ] {
            let parsed: Break = text.parse().expect(text);
            assert_eq!(
                parsed,
                Break {
                    inward,
                    outward,
                    ..both
                }
            );
        }
        for text in ["", "0", "x", "3:", "3:up", "node-", "70000"] {
            assert!(text.parse::<Break>().is_err(), "{text}");
        }
    }
}
