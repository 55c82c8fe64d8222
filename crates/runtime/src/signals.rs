//! SIGTERM and SIGINT: the first signal starts a graceful shutdown, the second one ends the process at once.
//! SIGXFSZ is ignored: a write over the file size limit fails instead.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// By the convention of shells, the exit code of a process that a signal has ended is this plus its number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Installs the signal handlers, and returns a future that completes on the first SIGTERM or SIGINT.
///
/// A second signal ends the process with the exit code 128 plus its number: 143 for SIGTERM, 130 for SIGINT. The
/// signal handler does that, whatever the program is doing; nothing is flushed or logged.
///
/// From then on a write over the limit on the size of a file (`ulimit -f`) fails, and does not end the process: where
/// the output is such a file, it loses lines, as it does where the disk is full.
///
/// Call it before a port is opened: a process with PID 1, as in a container, ignores SIGTERM while it has no
/// handler.
///
/// # Errors
///
/// If the operating system refuses a handler.
///
/// # Panics
///
/// Outside of a Tokio runtime.
pub fn shutdown_requested() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    // Before the flag can be set, so that the signal that sets it is received here as well.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let requested = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGINT] {
        // In this order, because the handlers run in it: the signal that sets the flag must not find it set.
        flag::register_conditional_shutdown(
            number,
            SIGNAL_EXIT_BASE + number,
            Arc::clone(&requested),
        )?;
        flag::register(number, Arc::clone(&requested))?;
    }
    // With any handler, the write returns EFBIG and the process lives.
    flag::register(SIGXFSZ, Arc::default())?;
    Ok(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal, "shutting down");
    })
}
