//! What both binaries need and neither is about: diagnostics, signals, listening
//! addresses, and an HTTP server that knows how to leave without dropping a request.

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
