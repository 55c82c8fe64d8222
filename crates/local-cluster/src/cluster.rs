//! The demo that `kubectl apply -k kustomize` deploys, in one process: cluster DNS, the Service, and the pods of
//! both Deployments.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use caller::commands::run;
use caller::dns::{ConfSource, Families, Resolver};
use caller::expectation::Expectation;
use caller::expected_status::ExpectedStatus;
use caller::probe::{CaptureLimits, HttpConfig, ProbeConfig};
use caller::stats::Summary;
use caller::targets::Check;
use caller::trust::Trust;
use caller::views::Format;
use echo_server::{AccessLogFormat, AdminListen, EchoServer, Faults, Pod};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use runtime::listen::ListenAddr;
use runtime::output::{Lines, Output};
use runtime::server::{Drain, Limits};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dns::{Dns, Records};
use crate::service::{Endpoints, Service};

/// The namespace of the demo.
pub const NAMESPACE: &str = "pod-to-pod-communication";

/// The Service's full name, as cluster DNS knows it.
pub const SERVICE: &str = "backend.pod-to-pod-communication.svc.cluster.local";

/// The `resolv.conf` that the kubelet writes into each pod of the namespace, without the nameserver.
pub const SEARCH: &str = "search pod-to-pod-communication.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";

/// Ports to use if they are free: those in a cluster plus 10,000, so that they do not collide with
/// `kubectl port-forward` to a real cluster.
const SERVICE_PORT: u16 = 18080;
const DNS_PORT: u16 = 10053;
const ADMIN_PORT: u16 = 18082;

/// Number of pods of each Deployment.
const REPLICAS: u16 = 2;

/// Graceful-shutdown timing of a backend whose callers have already stopped: it need not wait for them.
pub const NO_DRAIN_DELAY: Drain = Drain {
    delay: Duration::ZERO,
    timeout: Duration::from_secs(1),
};

/// Configuration of the demo.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Time from the start of a call to the start of the next.
    pub interval: Duration,
    /// Number of calls of each frontend to stop after; `None`: no limit.
    pub count: Option<NonZeroU64>,
    /// Output format of each call.
    pub format: Format,
    /// Fault injection of the first backend; the second one has no faults.
    pub faults: Faults,
    /// The part to leave out, if any.
    pub without: Option<Without>,
}

/// A part of the demo that can be left out, to see how calls fail without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// The Service: its name does not exist in DNS.
    Service,
    /// The backends: connections to the Service are refused.
    Backends,
    /// Cluster DNS: nothing listens at its address.
    Dns,
}

/// The text does not name a part that can be left out.
#[derive(Debug, thiserror::Error)]
#[error("expected service, backends or dns")]
pub struct ParseWithoutError;

impl FromStr for Without {
    type Err = ParseWithoutError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "service" => Ok(Self::Service),
            "backends" => Ok(Self::Backends),
            "dns" => Ok(Self::Dns),
            _ => Err(ParseWithoutError),
        }
    }
}

/// A cluster whose ports are open and whose pods have not started.
pub struct Cluster {
    dns: Option<Dns>,
    dns_addr: SocketAddr,
    service: Service,
    backends: Vec<(String, EchoServer)>,
    frontends: Vec<(String, run::Caller)>,
    output: Output,
    /// Holds the pods' resolv.conf; removed when dropped.
    files: TempDir,
}

impl Cluster {
    /// Opens all ports: the usual ones, or free ones if those are in use.
    ///
    /// # Errors
    ///
    /// When no port can be opened, or the pods' `resolv.conf` cannot be written.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let records = Records::default();
        if config.without != Some(Without::Service) {
            records.set(SERVICE, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        }
        let without_dns = config.without == Some(Without::Dns);
        let dns_port = if without_dns { 0 } else { DNS_PORT };
        let dns = Dns::start(dns_port, records).await.context("cluster DNS")?;
        let dns_addr = dns.addr;
        // Without DNS its port is closed again, which gives an address at which nothing listens.
        let dns = (!without_dns).then_some(dns);

        let endpoints = Endpoints::default();
        let service = match config.without {
            Some(Without::Backends) => Service::without_endpoints(),
            _ => Service::start(SERVICE_PORT, endpoints.clone()).await,
        };
        let service = service.context("the Service")?;

        let backends = (1..=REPLICAS)
            .map(|n| {
                let name = format!("backend-{n}");
                let faults = match n {
                    1 => config.faults,
                    _ => Faults::default(),
                };
                let server = faulty_backend(&name, any_port(), NO_DRAIN_DELAY, faults);
                let server = server.with_context(|| name.clone())?;
                Ok((name, server))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let addresses: io::Result<Vec<SocketAddr>> = backends
            .iter()
            .map(|(_, server)| server.local_addr())
            .collect();
        endpoints.set(addresses?);

        let files = tempfile::tempdir().context("cannot make a directory for resolv.conf")?;
        let source = write_resolv_conf(files.path(), dns_addr)?;
        let output = Output::stdout();
        let frontends = (1..=REPLICAS)
            .map(|n| {
                let name = format!("frontend-{n}");
                // As `kubectl logs --prefix` writes it.
                let lines = output.lines().prefixed(format!("[pod/{name}/caller] "));
                let frontend = |admin| {
                    let lines = lines.clone();
                    frontend(&name, service.addr.port(), &source, admin, lines, config)
                };
                let usual = ListenAddr {
                    port: ADMIN_PORT + n - 1,
                    ..any_port()
                };
                let caller = frontend(usual).or_else(|_| frontend(any_port()));
                let caller = caller.with_context(|| name.clone())?;
                Ok((name, caller))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self {
            dns,
            dns_addr,
            service,
            backends,
            frontends,
            output,
            files,
        })
    }

    /// Runs the pods until `shutdown` completes, or every frontend has made its number of calls. Returns whether
    /// all calls succeeded.
    ///
    /// # Errors
    ///
    /// When a pod panics, or the operating system cannot tell the addresses of a backend.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<bool> {
        let Self {
            dns: _dns,
            service: _service,
            dns_addr: _,
            backends,
            frontends,
            output,
            files: _files,
        } = self;
        let mut servers = JoinSet::new();
        let stop_backends = watch::Sender::new(false);
        for (_, server) in backends {
            servers.spawn(server.run(until_set(stop_backends.subscribe())));
        }
        let mut callers = JoinSet::new();
        let stop_frontends = watch::Sender::new(false);
        for (_, caller) in frontends {
            callers.spawn(caller.run(until_set(stop_frontends.subscribe())));
        }
        tokio::spawn(async move {
            shutdown.await;
            stop_frontends.send_replace(true);
        });

        let mut failed = 0;
        while let Some(ended) = callers.join_next().await {
            failed += ended?.iter().map(Summary::failed).sum::<u64>();
        }
        stop_backends.send_replace(true);
        while let Some(ended) = servers.join_next().await {
            ended??;
        }
        output.finish();
        Ok(failed == 0)
    }

    /// Path of the pods' `resolv.conf`, which exists as long as the cluster.
    fn resolv_conf(&self) -> PathBuf {
        self.files.path().join("resolv.conf")
    }
}

/// Displays the addresses of all parts, and commands to try.
impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dns, service) = (self.dns_addr, self.service.addr);
        let missing = |is_there| {
            if is_there {
                ""
            } else {
                ", where nothing listens"
            }
        };
        let dns_missing = missing(self.dns.is_some());
        writeln!(f, "cluster DNS  {dns} (udp and tcp){dns_missing}")?;
        let service_broken = missing(self.service.has_endpoints());
        writeln!(
            f,
            "Service      {SERVICE}:{} -> {service}{service_broken}",
            service.port()
        )?;
        for (name, server) in &self.backends {
            if let Ok(addr) = server.local_addr() {
                write!(f, "pod          {name} at {addr}")?;
                if let Some(admin) = server.admin_addr() {
                    write!(f, ", metrics at http://{admin}/metrics")?;
                }
                writeln!(f)?;
            }
        }
        for (name, caller) in &self.frontends {
            if let Some(addr) = caller.admin_addr() {
                writeln!(f, "pod          {name}, live page at http://{addr}/")?;
            }
        }
        let program = program();
        writeln!(f, "try          curl http://{service}/")?;
        writeln!(
            f,
            "try          {program} caller diagnose --resolv-conf {} --nameserver {dns} http://backend:{}/",
            self.resolv_conf().display(),
            service.port(),
        )
    }
}

/// The path of this program, relative to the current folder if it is below that.
pub fn program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "local-cluster".into());
    let here = std::env::current_dir().unwrap_or_default();
    program
        .strip_prefix(here)
        .unwrap_or(&program)
        .display()
        .to_string()
}

/// A backend pod of this name.
///
/// # Errors
///
/// When the address cannot be listened at, or the name is not valid in a header.
pub fn backend(name: &str, listen: ListenAddr, drain: Drain) -> anyhow::Result<EchoServer> {
    faulty_backend(name, listen, drain, Faults::default())
}

fn faulty_backend(
    name: &str,
    listen: ListenAddr,
    drain: Drain,
    faults: Faults,
) -> anyhow::Result<EchoServer> {
    let mut config = echo_config(listen, drain);
    config.admin = AdminListen::At(any_port());
    config.pod = Pod {
        name: Some(HeaderValue::from_str(name)?),
        node: None,
        namespace: Some(HeaderValue::from_static(NAMESPACE)),
    };
    config.faults = faults;
    Ok(echo_server::bind(config)?)
}

/// The configuration of an echo-server without an admin port and without the name of a pod.
pub(crate) fn echo_config(listen: ListenAddr, drain: Drain) -> echo_server::Config {
    echo_server::Config {
        text: b"Hello from Backend Service!".to_vec(),
        listen,
        status: StatusCode::OK,
        content_type: None,
        admin: AdminListen::Off,
        access_log: AccessLogFormat::Off,
        limits: Limits {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            max_connections: 1024,
            max_body: 1024 * 1024,
        },
        drain,
        pod: Pod::default(),
        faults: Faults::default(),
    }
}

/// Writes the pods' `resolv.conf` as the kubelet would, and returns the resolver settings that use it.
pub(crate) fn write_resolv_conf(
    folder: &Path,
    nameserver: SocketAddr,
) -> anyhow::Result<ConfSource> {
    let path = folder.join("resolv.conf");
    let text = format!("nameserver {}\n{SEARCH}", nameserver.ip());
    std::fs::write(&path, text).context("cannot write the pods' resolv.conf")?;
    Ok(ConfSource {
        path,
        nameservers: vec![nameserver],
    })
}

fn frontend(
    name: &str,
    port: u16,
    source: &ConfSource,
    admin: ListenAddr,
    lines: Lines,
    config: Config,
) -> anyhow::Result<run::Caller> {
    let Config {
        interval,
        count,
        format,
        faults: _,
        without: _,
    } = config;
    let mut config = caller_config(&format!("http://backend:{port}/"), source)?;
    config.schedule.interval = interval;
    config.schedule.count = count.map(NonZeroU64::get);
    config.format = format;
    config.admin = Some(run::Admin::Given(admin));
    config.name = Some(name.to_owned());
    Ok(run::bind(config, lines)?)
}

/// The caller's default configuration, but without an admin port.
pub(crate) fn caller_config(target: &str, source: &ConfSource) -> anyhow::Result<run::Config> {
    Ok(run::Config {
        probes: vec![ProbeConfig {
            check: Check {
                target: target.parse()?,
                expectation: Expectation::Ok,
                control: None,
            },
            trust: Trust::default(),
            resolver: Resolver {
                hosts: "/etc/hosts".into(),
                source: source.clone(),
                families: Families::Auto,
                query_timeout: Duration::from_secs(2),
            },
            http: HttpConfig {
                method: Method::GET,
                headers: HeaderMap::new(),
                expected_status: ExpectedStatus::default(),
                http2: false,
                keep_alive: false,
                connect_timeout: Duration::from_secs(2),
                capture: CaptureLimits::default(),
            },
            timeout: Duration::from_secs(5),
            each_address: false,
            sample: None,
        }],
        schedule: run::Schedule {
            interval: Duration::from_secs(10),
            wait: Duration::ZERO,
            count: None,
            duration: None,
        },
        until_replaced: false,
        format: Format::default(),
        admin: None,
        admin_hosts: Vec::new(),
        rows_port: caller::mesh::collect::DEFAULT_PORT,
        name: None,
    })
}

/// A free port of 127.0.0.1, which the operating system chooses.
pub fn any_port() -> ListenAddr {
    ListenAddr {
        ip: Some(Ipv4Addr::LOCALHOST.into()),
        port: 0,
    }
}

/// Waits until the flag is set.
pub(crate) async fn until_set(mut flag: watch::Receiver<bool>) {
    // An error means that the sender is gone, so that the flag can no longer be set: that ends the wait, too.
    let _ = flag.wait_for(|set| *set).await;
}
