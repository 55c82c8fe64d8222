//! Log events: one line for each on stderr, so that stdout is left to the program's own output.
//!
//! They go through an [`Output`]: if stderr blocks, is full or is closed, lines are lost, and nothing else happens.
//! The last events need [`flush`] before the process ends; [`fatal`] flushes by itself.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::OnceLock;

pub use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::output::{Lines, Output};

/// The crates of this workspace. Other crates warn of what any client can provoke, once for each packet.
const OURS: [&str; 4] = ["runtime", "echo_server", "caller", "local_cluster"];

/// The output to stderr, which starts when it is first used.
static STDERR: OnceLock<Output> = OnceLock::new();

/// Starts to write events of `level` and above to stderr; of crates outside of this workspace, errors only.
///
/// Only the first call in a process has an effect.
pub fn init(level: LevelFilter) {
    let lines = stderr().lines();
    let targets = Targets::new()
        .with_targets(OURS.map(|target| (target, level)))
        .with_default(level.min(LevelFilter::ERROR));
    let _ = tracing_subscriber::fmt()
        // The output counts what cannot be written. The default, to say so on stderr, would panic.
        .log_internal_errors(false)
        .with_writer(move || Writer(lines.clone()))
        .with_max_level(level)
        .with_target(false)
        .finish()
        .with(targets)
        .try_init();
}

/// Waits until the events so far are written, or until stderr has accepted nothing for a second.
pub fn flush() {
    if let Some(stderr) = STDERR.get() {
        stderr.flush();
    }
}

/// Writes a line to stderr, without a time and at any log level, and flushes: for the error that ends the process.
/// (`eprintln!` panics if stderr is closed, and blocks for ever if nobody reads it.)
pub fn fatal(message: impl Display) {
    let stderr = stderr();
    stderr.lines().append(|line| {
        let written = writeln!(line, "{message}");
        debug_assert!(written.is_ok(), "a Vec takes everything");
    });
    stderr.flush();
}

/// The output to stderr.
fn stderr() -> &'static Output {
    STDERR.get_or_init(Output::stderr)
}

/// Passes each event, which the subscriber writes in one call, to the output.
struct Writer(Lines);

impl Write for Writer {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.append(|lines| lines.extend_from_slice(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
