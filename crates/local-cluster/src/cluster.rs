//! The whole: what `kubectl apply -k kustomize` deploys, in one process.

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use caller::dns::{ConfSource, Families, Resolver};
use caller::http::HttpConfig;
use caller::probe::ProbeConfig;
use caller::status::ExpectedStatus;
use caller::view::Format;
use echo_server::{AccessLogFormat, AdminListen, EchoServer, Faults, Pod};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use runtime::listen::ListenAddr;
use runtime::server::{Drain, Limits};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dns::{Dns, Records};
use crate::service::{Endpoints, Service};

/// The demo's namespace.
pub const NAMESPACE: &str = "pod-to-pod-communication";

/// The Service's full name, as cluster DNS knows it.
pub const SERVICE: &str = "backend.pod-to-pod-communication.svc.cluster.local";

/// What the kubelet writes into each pod of the namespace, without the nameserver.
pub const SEARCH: &str = "search pod-to-pod-communication.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";

/// Ports to take if they are free: the Service's and the page's own; DNS's with a 100 before it.
const SERVICE_PORT: u16 = 8080;
const DNS_PORT: u16 = 10053;
const ADMIN_PORT: u16 = 8082;

/// Pods of each Deployment.
const REPLICAS: u16 = 2;

/// How a backend leaves when nobody has to hear of it: the callers have left before.
pub const AT_ONCE: Drain = Drain {
    delay: Duration::ZERO,
    timeout: Duration::from_secs(1),
};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// From the start of a call to the start of the next.
    pub interval: Duration,
    /// Stop after this many calls of each frontend.
    pub count: Option<NonZeroU64>,
    /// How much to say of each call.
    pub format: Format,
}

/// A cluster whose ports are open and whose pods have not started.
pub struct Cluster {
    dns: Dns,
    service: Service,
    backends: Vec<(String, EchoServer)>,
    frontends: Vec<(String, caller::Caller)>,
    /// Holds the pods' resolv.conf; removed when dropped.
    files: TempDir,
}

impl Cluster {
    /// Opens all ports. Those that are usually taken give way to free ones.
    ///
    /// # Errors
    ///
    /// When no ports can be had, or the pods' `resolv.conf` cannot be written.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        let records = Records::default();
        records.set(SERVICE, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        let dns = Dns::start(DNS_PORT, records).await.context("cluster DNS")?;
        let endpoints = Endpoints::default();
        let service = Service::start(SERVICE_PORT, endpoints.clone())
            .await
            .context("the Service")?;

        let backends = (1..=REPLICAS)
            .map(|n| {
                let name = format!("backend-{n}");
                let server = backend(&name, any_port(), AT_ONCE).with_context(|| name.clone())?;
                Ok((name, server))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let addresses: io::Result<Vec<SocketAddr>> = backends
            .iter()
            .map(|(_, server)| server.local_addr())
            .collect();
        endpoints.set(addresses?);

        let files = tempfile::tempdir().context("cannot make a directory for resolv.conf")?;
        let resolv_conf = files.path().join("resolv.conf");
        let text = format!("nameserver {}\n{SEARCH}", dns.addr.ip());
        std::fs::write(&resolv_conf, text).context("cannot write the pods' resolv.conf")?;
        let source = ConfSource {
            path: resolv_conf,
            nameservers: vec![dns.addr],
        };
        let frontends = (1..=REPLICAS)
            .map(|n| {
                let name = format!("frontend-{n}");
                let frontend = |admin| frontend(&name, service.addr.port(), &source, admin, config);
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
            service,
            backends,
            frontends,
            files,
        })
    }

    /// Runs the pods until `shutdown` completes, or until every frontend has called often enough.
    /// Returns whether no call failed.
    ///
    /// # Errors
    ///
    /// When stdout cannot be written to.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<bool> {
        let Self {
            dns: _dns,
            service: _service,
            backends,
            frontends,
            files: _files,
        } = self;
        let mut servers = JoinSet::new();
        let stop_backends = watch::Sender::new(false);
        for (_, server) in backends {
            servers.spawn(server.run(until_set(stop_backends.subscribe())));
        }
        let mut callers = JoinSet::new();
        let stop_frontends = watch::Sender::new(false);
        for (name, caller) in frontends {
            let out = Prefixed(format!("[pod/{name}/caller] "));
            callers.spawn(caller.run(until_set(stop_frontends.subscribe()), out));
        }
        tokio::spawn(async move {
            shutdown.await;
            stop_frontends.send_replace(true);
        });

        let mut failed = 0;
        while let Some(ended) = callers.join_next().await {
            failed += ended?.context("cannot write to stdout")?.failed();
        }
        stop_backends.send_replace(true);
        while let Some(ended) = servers.join_next().await {
            ended??;
        }
        Ok(failed == 0)
    }

    /// Where the pods' `resolv.conf` is, while the cluster lives.
    fn resolv_conf(&self) -> PathBuf {
        self.files.path().join("resolv.conf")
    }
}

/// Says what runs where, and what to try.
impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service.addr;
        writeln!(f, "cluster DNS  {} (udp and tcp)", self.dns.addr)?;
        writeln!(f, "Service      {SERVICE}:{} -> {service}", service.port())?;
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
        writeln!(f, "try          curl http://{service}/")?;
        writeln!(
            f,
            "try          cargo run -p caller -- diagnose --resolv-conf {} --nameserver {} http://backend:{}/",
            self.resolv_conf().display(),
            self.dns.addr,
            service.port(),
        )
    }
}

/// A backend pod of this name.
///
/// # Errors
///
/// When the address cannot be had, or a header cannot hold the name.
pub fn backend(name: &str, listen: ListenAddr, drain: Drain) -> anyhow::Result<EchoServer> {
    let server = echo_server::bind(echo_server::Config {
        text: b"Hello from Backend Service!".to_vec(),
        listen,
        status: StatusCode::OK,
        content_type: None,
        admin: AdminListen::At(any_port()),
        access_log: AccessLogFormat::Off,
        limits: Limits {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            max_connections: 1024,
            max_body: 1024 * 1024,
        },
        drain,
        pod: Pod {
            name: Some(HeaderValue::from_str(name)?),
            node: None,
            namespace: Some(HeaderValue::from_static(NAMESPACE)),
        },
        faults: Faults::default(),
    })?;
    Ok(server)
}

fn frontend(
    name: &str,
    port: u16,
    source: &ConfSource,
    admin: ListenAddr,
    config: Config,
) -> anyhow::Result<caller::Caller> {
    let Config {
        interval,
        count,
        format,
    } = config;
    let caller = caller::bind(caller::Config {
        probe: ProbeConfig {
            target: format!("http://backend:{port}/").parse()?,
            resolver: Resolver {
                source: source.clone(),
                families: Families::Auto,
                question_timeout: Duration::from_secs(2),
            },
            http: HttpConfig {
                method: Method::GET,
                headers: HeaderMap::new(),
                expected_status: ExpectedStatus::default(),
                http2: false,
                keep_alive: false,
                connect_timeout: Duration::from_secs(2),
            },
            timeout: Duration::from_secs(5),
            each_address: false,
        },
        interval,
        count: count.map(NonZeroU64::get),
        duration: None,
        format,
        admin: Some(admin),
        name: Some(name.to_owned()),
    })?;
    Ok(caller)
}

/// A free port of 127.0.0.1.
pub fn any_port() -> ListenAddr {
    ListenAddr {
        ip: Some(Ipv4Addr::LOCALHOST.into()),
        port: 0,
    }
}

async fn until_set(mut flag: watch::Receiver<bool>) {
    // An error means that nobody is left to set it: then, too, it is time to go.
    let _ = flag.wait_for(|set| *set).await;
}

/// Stdout, with a word before each line, as `kubectl logs --prefix` writes it. A block stays whole.
struct Prefixed(String);

impl Write for Prefixed {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut lines = Vec::with_capacity(text.len() * 2);
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            lines.extend_from_slice(self.0.as_bytes());
            lines.extend_from_slice(line);
        }
        io::stdout().lock().write_all(&lines)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
