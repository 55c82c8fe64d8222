//! Diagnostics: one line an event on stderr, so that stdout stays the program's own output.

pub use tracing_subscriber::filter::LevelFilter;

/// Starts writing events at `level` and above to stderr.
///
/// Only the first call in a process has an effect; a later one is ignored.
pub fn init(level: LevelFilter) {
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false)
        .try_init();
}
