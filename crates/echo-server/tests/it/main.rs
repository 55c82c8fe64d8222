//! The `echo-server` binary, over real sockets.
//!
//! These tests are one binary, because every binary has to be linked with all crates. They run at the same time, as
//! threads of one process, so none of them may change what belongs to the process: the environment, the current
//! directory, limits. A test that has to is a binary of its own beside this one.

mod access_log;
mod command_line;
mod fault_injection;
mod hostile;
mod metrics;
mod output;
mod responses;
mod rfc9112;
mod shutdown;

/// The binary that is tested.
const ECHO_SERVER: &str = env!("CARGO_BIN_EXE_echo-server");
