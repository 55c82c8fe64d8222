//! SIGTERM and SIGINT: the first asks the program to finish, the second ends it at once.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// By shell convention a process that a signal ended exits with this plus the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Installs the handlers at once, and returns a future that completes on the first signal.
///
/// A second signal, whenever it comes after the first, ends the process with 128 plus the signal's
/// number (143 for SIGTERM, 130 for SIGINT). The handler itself does that, so that it does not matter
/// what the program is busy with; nothing is flushed or said.
///
/// Must be called inside a Tokio runtime, and before a port is opened: as PID 1 in a container a
/// process without a handler ignores SIGTERM.
///
/// # Errors
///
/// When the operating system refuses a handler.
pub fn shutdown_requested() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    // Before the flag can be set, so that a signal which sets it is heard here as well.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let requested = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGINT] {
        // In this order: the signal that sets the flag must not find it set.
        flag::register_conditional_shutdown(
            number,
            SIGNAL_EXIT_BASE + number,
            Arc::clone(&requested),
        )?;
        flag::register(number, Arc::clone(&requested))?;
    }
    Ok(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal, "shutting down");
    })
}
