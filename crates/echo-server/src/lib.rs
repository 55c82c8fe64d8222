//! A backend that responds to every request with a fixed text, as hashicorp/http-echo does, names the pod that it
//! runs in, and shuts down without dropping a request.
//!
//! The binary parses its command line with [`cli`] into a [`Config`]. [`bind`] opens the ports and returns every
//! error that can happen at the start, and [`EchoServer::run`] serves until it is told to stop. The server itself,
//! its limits and its drain are those of [`runtime::server`].

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

/// Settings of an echo-server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Body of every response, without the newline that is added to it.
    pub text: Vec<u8>,
    /// Address that requests are accepted at.
    pub listen: ListenAddr,
    /// Status of every response.
    pub status: StatusCode,
    /// Content type of every response; `None` to guess it from the text as Go does.
    pub content_type: Option<HeaderValue>,
    /// Address of the admin port, for probes and scrapers.
    pub admin: AdminListen,
    /// Format of the access log on stdout.
    pub access_log: AccessLogFormat,
    /// Limits on each client, and on all of them together.
    pub limits: Limits,
    /// Graceful-shutdown timing: how long each step takes.
    pub drain: Drain,
    /// The pod that this server runs in, for the headers of responses.
    pub pod: Pod,
    /// Fault injection: which responses are those of a faulty backend.
    pub faults: Faults,
}

/// Address of the admin port, which serves the routes of [`runtime::admin`].
#[derive(Clone, Copy, Debug)]
pub enum AdminListen {
    /// There is no admin port.
    Off,
    /// It listens at this address; if that fails, so does [`bind`].
    At(ListenAddr),
    /// It listens at this address. If that is in use, by another container of the pod or by this server itself,
    /// there is no admin port, and the log has a warning.
    IfFree(ListenAddr),
}

impl AdminListen {
    /// Opens the port, if there is to be one.
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

/// The limit on open files leaves no file descriptor for a connection.
#[derive(Debug, thiserror::Error)]
#[error("needs {needed} open files at least, and is allowed {allowed} (see `ulimit -n`)")]
pub struct TooFewDescriptors {
    needed: usize,
    allowed: usize,
}

impl Config {
    /// Lowers the limit on connections to what a limit of `open_files` open files allows, and logs a warning if that
    /// is less than wanted.
    ///
    /// # Errors
    ///
    /// If not even one connection would be possible.
    pub fn within(mut self, open_files: usize) -> Result<Self, TooFewDescriptors> {
        let admin = match self.admin {
            AdminListen::Off => 0,
            AdminListen::At(_) | AdminListen::IfFree(_) => admin::MAX_CONNECTIONS,
        };
        let others = descriptors::RESERVED + admin;
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

/// Fault injection: which responses are those of a faulty backend. `/health` and the probes never are.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Percentage of the responses that are faulty, 0 to 100.
    pub percent: u8,
    /// Status of a faulty response.
    pub status: StatusCode,
    /// Delay before a faulty response.
    pub delay: Duration,
}

/// The default injects no faults.
impl Default for Faults {
    fn default() -> Self {
        Self {
            percent: 0,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            delay: Duration::ZERO,
        }
    }
}

/// What the downward API tells a pod about itself. A value that is not known is not sent.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Name of the pod, sent as `X-Pod-Name`.
    pub name: Option<HeaderValue>,
    /// Name of its node, sent as `X-Node-Name`.
    pub node: Option<HeaderValue>,
    /// Namespace of the pod, sent as `X-Pod-Namespace`.
    pub namespace: Option<HeaderValue>,
}

/// An echo-server whose ports are open, ready to [run](EchoServer::run).
pub struct EchoServer {
    server: Server,
    admin: Option<Server>,
    readiness: Readiness,
    access_log: AccessLog,
}

/// Opens the ports.
///
/// # Errors
///
/// If a port cannot be opened; the error names its address.
///
/// # Panics
///
/// Outside of a Tokio runtime.
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

/// The socket on which the server listens for requests.
impl AsFd for EchoServer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }
}

impl EchoServer {
    /// The address that requests are accepted at, with the port that the kernel chose where port 0 was asked for.
    ///
    /// # Errors
    ///
    /// The error of `getsockname(2)`.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.server.local_addr()
    }

    /// The address of the admin port; `None` if there is none.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.local_addr().ok()
    }

    /// Serves until `shutdown` completes, drains, and writes the rest of the access log.
    ///
    /// # Errors
    ///
    /// The error of `getsockname(2)`, before anything is served.
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
            // It serves probes during the drain as well, and ends with the process.
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
