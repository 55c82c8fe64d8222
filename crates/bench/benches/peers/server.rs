//! The servers that are measured, and how each is started so that it sends the same response.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use test_support::{TIMEOUT, wait_until};

use crate::process::Process;

const TEXT: &str = "Hello from Backend Service!";

/// A server that can be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// `echo-server`, from the binary of the image.
    Echo { binary: PathBuf, threads: u8 },
    /// nginx with one worker, with or without its access log.
    Nginx { binary: PathBuf, log: bool },
    /// The bare epoll loop, as a lower bound.
    EpollLoop,
    /// hashicorp/http-echo, which `echo-server` replaces.
    HttpEcho { binary: PathBuf },
}

/// A server that runs, and its addresses.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    _files: tempfile::TempDir,
}

impl Server {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Echo { .. } => "echo-server",
            Self::Nginx { log: true, .. } => "nginx",
            Self::Nginx { log: false, .. } => "nginx without a log",
            Self::EpollLoop => "a bare epoll loop",
            Self::HttpEcho { .. } => "http-echo",
        }
    }

    pub(crate) fn speaks_http2(&self) -> bool {
        matches!(self, Self::Echo { .. } | Self::Nginx { .. })
    }

    /// Starts the server on these processors, and waits until it responds.
    pub(crate) fn start(&self, processors: &str) -> Running {
        let running = self.spawn(processors);
        wait_until(self.name(), TIMEOUT, || {
            TcpStream::connect(running.address).is_ok()
        });
        running
    }

    /// Starts the server on these processors.
    pub(crate) fn spawn(&self, processors: &str) -> Running {
        let address = free_address();
        let files = tempfile::tempdir().expect("a directory");
        let command = self.command(address, files.path());
        Running {
            process: Process::start(&command, processors),
            address,
            _files: files,
        }
    }

    fn command(&self, address: SocketAddr, files: &Path) -> Command {
        let mut command;
        match self {
            Self::Echo { binary, threads } => {
                command = Command::new(binary);
                command
                    .arg(format!("-text={TEXT}"))
                    .arg(format!("-listen={address}"))
                    .args(["--max-connections=12000", "--admin-listen=off"])
                    .arg(format!("--threads={threads}"));
            }
            Self::Nginx { binary, log } => {
                let log = if *log { "/dev/null" } else { "off" };
                let config = files.join("nginx.conf");
                let user = if rustix::process::geteuid().is_root() {
                    "user root;"
                } else {
                    ""
                };
                let text = format!(
                    "{user} daemon off; worker_processes 1; worker_rlimit_nofile 20000;
                     pid nginx.pid; error_log /dev/null;
                     events {{ worker_connections 12000; }}
                     http {{
                       client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                       uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                       access_log {log}; keepalive_requests 1000000000; default_type text/plain;
                       server {{ listen {address}; location / {{ return 200 '{TEXT}\\n'; }} }}
                       server {{ listen {} http2; location / {{ return 200 '{TEXT}\\n'; }} }}
                     }}",
                    http2_address(address),
                );
                fs::write(&config, text).expect("it can be written");
                command = Command::new(binary);
                command.arg("-p").arg(files).arg("-c").arg(config);
            }
            Self::EpollLoop => {
                command = Command::new(env!("CARGO_BIN_EXE_epoll-loop"));
                command.arg(address.to_string());
            }
            Self::HttpEcho { binary } => {
                command = Command::new(binary);
                command
                    .arg(format!("-text={TEXT}"))
                    .arg(format!("-listen={address}"))
                    .env("GOMAXPROCS", "1");
            }
        }
        command
    }

    /// The address for HTTP/2, for which this nginx needs a port of its own.
    pub(crate) fn http2_address(&self, address: SocketAddr) -> SocketAddr {
        match self {
            Self::Nginx { .. } => http2_address(address),
            _ => address,
        }
    }
}

fn http2_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), address.port()))
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound")
}
