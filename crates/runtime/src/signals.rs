//! SIGTERM and SIGINT: the first asks the program to finish, the second ends it at once.

use std::future::Future;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

/// By shell convention a process that a signal ended exits with this plus the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Installs the handlers at once, and returns a future that completes on the first signal.
///
/// A second signal, whenever it comes after the first, ends the process with
/// 128 plus the signal's number (143 for SIGTERM, 130 for SIGINT).
///
/// Must be called inside a Tokio runtime, and before a port is opened: as PID 1 in a container a
/// process without a handler ignores SIGTERM.
///
/// # Errors
///
/// When the operating system refuses a handler.
pub fn shutdown_requested() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let (requested, request) = oneshot::channel();
    // A task of its own hears signals whatever the rest of the program is busy with.
    tokio::spawn(async move {
        let first = signals.next().await;
        info!(signal = first.name, "shutting down");
        // Nobody may be waiting any more; the second signal counts all the same.
        let _ = requested.send(());
        let second = signals.next().await;
        warn!(signal = second.name, "second signal, exiting at once");
        std::process::exit(SIGNAL_EXIT_BASE + second.number);
    });
    Ok(async move {
        // The task ends with the runtime, and then nobody waits here.
        let _ = request.await;
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

struct Received {
    name: &'static str,
    number: i32,
}

impl Signals {
    async fn next(&mut self) -> Received {
        let (name, kind) = tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate()),
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
        };
        Received {
            name,
            number: kind.as_raw_value(),
        }
    }
}
