//! A fixed text for every request, as hashicorp/http-echo gives it, from a server that says which
//! pod it runs in and that leaves without dropping a request.
//!
//! [`Config`] says what to do, [`bind`] surfaces everything that can go wrong at the start, and
//! [`EchoServer::run`] serves until it is told to stop.

mod accept_queue;
mod access_log;
mod append;
pub mod cli;
mod echo;
mod sniff;

use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use prometheus_client::registry::Registry;
use runtime::admin::{self, Admin, Readiness};
use runtime::descriptors;
use runtime::listen::{BindError, ListenAddr};
use runtime::metrics::register_build_info;
use runtime::server::{Drain, Limits, Server};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::access_log::AccessLog;
pub use crate::access_log::Format as AccessLogFormat;
use crate::echo::Echo;

/// What an echo-server does.
#[derive(Clone, Debug)]
pub struct Config {
    /// The body of every answer, without the newline that ends it.
    pub text: Vec<u8>,
    /// Where requests come in.
    pub listen: ListenAddr,
    /// The status of every answer.
    pub status: StatusCode,
    /// `None`: as Go would guess it from the text.
    pub content_type: Option<HeaderValue>,
    /// Where probes and scrapers come in.
    pub admin: AdminListen,
    /// How answers are logged on stdout.
    pub access_log: AccessLogFormat,
    /// Limits for each client, and for all of them.
    pub limits: Limits,
    /// Graceful-shutdown timing.
    pub drain: Drain,
    /// Who answers, for the answer's headers.
    pub pod: Pod,
    /// Fault injection.
    pub faults: Faults,
}

/// The admin port.
#[derive(Clone, Copy, Debug)]
pub enum AdminListen {
    /// There is none.
    Off,
    /// This one.
    At(ListenAddr),
    /// This one, unless somebody else has it: another container of the pod, or this server itself.
    IfFree(ListenAddr),
}

impl AdminListen {
    fn bind(self) -> Result<Option<TcpListener>, BindError> {
        match self {
            Self::Off => Ok(None),
            Self::At(addr) => addr.bind().map(Some),
            Self::IfFree(addr) => match addr.bind() {
                Err(error) if error.is_in_use() => {
                    let error = error.to_string();
                    warn!(
                        error,
                        "the default admin port is in use: there are no probes and no metrics"
                    );
                    Ok(None)
                }
                bound => bound.map(Some),
            },
        }
    }
}

/// There are not enough file descriptors for even one connection.
#[derive(Debug, thiserror::Error)]
#[error("needs {needed} open files at least, and is allowed {allowed} (see `ulimit -n`)")]
pub struct TooFewDescriptors {
    needed: usize,
    allowed: usize,
}

impl Config {
    /// Lowers the limit on connections to what the limit on open files allows, and says so.
    ///
    /// # Errors
    ///
    /// When there would be no connection at all.
    pub fn within(mut self, open_files: usize) -> Result<Self, TooFewDescriptors> {
        let admin = match self.admin {
            AdminListen::Off => 0,
            AdminListen::At(_) | AdminListen::IfFree(_) => admin::MAX_CONNECTIONS,
        };
        let others = descriptors::OWN + admin;
        if open_files <= others {
            return Err(TooFewDescriptors {
                needed: others + 1,
                allowed: open_files,
            });
        }
        let possible = open_files - others;
        let wanted = &mut self.limits.max_connections;
        if *wanted > possible {
            warn!(
                wanted = *wanted,
                possible, open_files, "lowering --max-connections: too few open files are allowed"
            );
            *wanted = possible;
        }
        Ok(self)
    }
}

/// Which answers are to be those of a sick backend; `/health` and the probes never are.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// How many of a hundred, 0 to 100.
    pub percent: u8,
    /// Their status.
    pub status: StatusCode,
    /// How late they come.
    pub delay: Duration,
}

/// A backend in good health.
impl Default for Faults {
    fn default() -> Self {
        Self {
            percent: 0,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            delay: Duration::ZERO,
        }
    }
}

/// What the downward API tells a pod of itself. What is not known is not sent.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// `X-Pod-Name`
    pub name: Option<HeaderValue>,
    /// `X-Node-Name`
    pub node: Option<HeaderValue>,
    /// `X-Pod-Namespace`
    pub namespace: Option<HeaderValue>,
}

/// An echo-server whose ports are open.
pub struct EchoServer {
    server: Server,
    admin: Option<Server>,
    readiness: Readiness,
    access_log: AccessLog,
}

/// Opens the ports. Must be called inside a Tokio runtime.
///
/// # Errors
///
/// When a port cannot be opened; the error names it.
pub fn bind(config: Config) -> Result<EchoServer, BindError> {
    let Config {
        text,
        listen,
        status,
        content_type,
        admin,
        access_log,
        limits,
        drain,
        pod,
        faults,
    } = config;
    let listener = listen.bind()?;
    let admin_listener = admin.bind()?;
    let access_log = AccessLog::start(access_log);
    let echo = Echo::new(text, status, content_type, pod, faults, access_log.lines());
    let server = Server::new(listener, echo, limits, drain).with_http2();
    let mut registry = Registry::with_prefix("echo_server");
    server.register_metrics(&mut registry);
    access_log.register_metrics(&mut registry);
    accept_queue::register_metrics(&mut registry);
    register_build_info(&mut registry, env!("CARGO_PKG_VERSION"));
    let readiness = Readiness::ready();
    let admin = Admin::new(readiness.clone(), registry);
    let admin = admin_listener.map(|listener| admin::server(listener, admin));
    Ok(EchoServer {
        server,
        admin,
        readiness,
        access_log,
    })
}

/// The socket that listens for requests.
impl AsFd for EchoServer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }
}

impl EchoServer {
    /// The address that requests come in at.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.server.local_addr()
    }

    /// Where probes and scrapers come in.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// Serves until `shutdown` completes, drains, and writes out the access log.
    ///
    /// # Errors
    ///
    /// When the operating system cannot tell the addresses that are listened on.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
        let Self {
            server,
            admin,
            readiness,
            access_log,
        } = self;
        info!(address = %server.local_addr()?, "server is listening");
        if let Some(admin) = admin {
            info!(address = %admin.local_addr()?, "admin is listening");
            // It goes on through the drain, and ends with the process.
            tokio::spawn(admin.run(std::future::pending()));
        }
        let shutdown = async {
            shutdown.await;
            readiness.set(false);
        };
        server.run(shutdown).await;
        access_log.finish();
        Ok(())
    }
}
