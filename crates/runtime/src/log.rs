//! Diagnostics: one line an event on stderr, so that stdout stays the program's own output.
//!
//! They go through an [`Output`], so that a stderr which is stuck, full or gone loses lines, and nothing
//! else. What is written last needs [`flush`] before the process ends; [`fatal`] does that by itself.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::OnceLock;

pub use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::output::{Lines, Output};

/// Our own crates. Those of others warn of what any client can provoke, once for each packet.
const OURS: [&str; 4] = ["runtime", "echo_server", "caller", "local_cluster"];

/// Started when it is first written to.
static STDERR: OnceLock<Output> = OnceLock::new();

/// Starts writing events at `level` and above to stderr; those of other people's crates from error on.
///
/// Only the first call in a process has an effect; a later one is ignored.
pub fn init(level: LevelFilter) {
    let lines = stderr().lines();
    let targets = Targets::new()
        .with_targets(OURS.map(|target| (target, level)))
        .with_default(level.min(LevelFilter::ERROR));
    let _ = tracing_subscriber::fmt()
        // What cannot be written is counted by the output; saying so on stderr itself would panic there.
        .log_internal_errors(false)
        .with_writer(move || Writer(lines.clone()))
        .with_max_level(level)
        .with_target(false)
        .finish()
        .with(targets)
        .try_init();
}

/// Waits for the events so far to be written; not for ever, should stderr be stuck.
pub fn flush() {
    if let Some(stderr) = STDERR.get() {
        stderr.flush();
    }
}

/// Writes a line to stderr, as it is and whatever the log's level, and flushes: for the error that ends
/// the process. (`eprintln!` panics where stderr is gone, and waits for ever where it is stuck.)
pub fn fatal(message: impl Display) {
    let stderr = stderr();
    stderr.lines().append(|line| {
        let written = writeln!(line, "{message}");
        debug_assert!(written.is_ok(), "a Vec takes everything");
    });
    stderr.flush();
}

fn stderr() -> &'static Output {
    STDERR.get_or_init(Output::stderr)
}

/// Takes an event at a time.
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
