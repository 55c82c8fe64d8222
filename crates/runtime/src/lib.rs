//! What both binaries, `echo-server` and `caller`, need to run in a pod and what neither is about:
//!
//! - [`server`]: an HTTP server for one port, with limits for every client, that shuts down without dropping a
//!   request; [`body`] is what it sends.
//! - [`admin`]: the probes and the metrics on a port of their own; [`metrics`], [`tcp_counters`] and [`cached`]
//!   belong to it.
//! - [`output`] and [`log`]: stdout and stderr that never block the program, however slow their reader is;
//!   [`escape`] makes text from the network safe to print.
//! - [`signals`]: SIGTERM and SIGINT as the beginning of a graceful shutdown.
//! - [`listen`], [`duration`] and [`environment`]: values of flags and variables, as Go programs and Kubernetes
//!   write them. [`descriptors`]: the limit on open files, and starting Tokio within it.
//!
//! A program with a port that serves requests, probes, and drains on SIGTERM:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use http::Response;
//! use http::request::Parts;
//! use runtime::admin::{self, Admin, Readiness};
//! use runtime::listen::ListenAddr;
//! use runtime::server::{Arrival, Drain, Handler, Limits, Reply, Server};
//!
//! struct Hello;
//!
//! impl Handler for Hello {
//!     fn answer(&self, _: &Parts, arrival: Arrival) -> Reply {
//!         Reply::Now(Response::new(format!("hello, {}\n", arrival.peer).into()))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Errors at the start come from these three; port 0 is any free port.
//! let shutdown = runtime::signals::shutdown_requested()?;
//! let listener = "127.0.0.1:0".parse::<ListenAddr>()?.bind()?;
//! let admin_listener = "127.0.0.1:0".parse::<ListenAddr>()?.bind()?;
//!
//! let limits = Limits {
//!     header_timeout: Duration::from_secs(10),
//!     idle_timeout: Duration::from_secs(60),
//!     max_connections: 1024,
//!     max_body: 1024 * 1024,
//! };
//! let drain = Drain { delay: Duration::from_secs(5), timeout: Duration::from_secs(15) };
//! let server = Server::new(listener, Hello, limits, drain);
//!
//! let mut registry = prometheus_client::registry::Registry::with_prefix("hello");
//! server.register_metrics(&mut registry);
//! let readiness = Readiness::ready();
//! let admin = admin::server(admin_listener, Admin::new(readiness.clone(), registry));
//!
//! // The probes go on through the drain, and end with the process.
//! tokio::spawn(admin.run(std::future::pending()));
//! server.run(async move {
//!     shutdown.await;
//!     readiness.set(false);
//! }).await;
//! # Ok(())
//! # }
//! ```

pub mod admin;
pub mod body;
pub mod cached;
pub mod descriptors;
pub mod duration;
pub mod environment;
pub mod escape;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod output;
mod repeated;
pub mod server;
pub mod signals;
pub mod tcp_counters;
pub mod unpoisoned;
