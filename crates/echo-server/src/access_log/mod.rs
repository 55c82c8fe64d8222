//! The access log: a line on stdout for each answer, in http-echo's own form or as JSON.
//!
//! ```text
//! 2026/11/22 12:22:53 backend:8080 127.0.0.1:42176 "GET /any/path HTTP/1.1" 200 28 "t/1" 11.547µs
//! ```
//!
//! Lines are put into a buffer of bounded size which one thread writes out, so that a reader of
//! stdout who is slow, or stuck, never delays an answer. What does not fit is dropped and counted.

mod line;

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tracing::warn;

use self::line::Clock;
pub(crate) use self::line::Entry;

/// Most bytes of lines that wait to be written: some thousand lines.
const MAX_WAITING: usize = 256 * 1024;

/// After the first line, how long to wait for more, so that a busy server writes many at a time.
const GATHER: Duration = Duration::from_millis(5);

/// How long a stdout that is full is left alone, where it is set not to block.
const RETRY: Duration = Duration::from_millis(10);

/// How long the last lines may take on the way out.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// http-echo's own.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// No lines.
    Off,
}

/// The text is not a form of the access log.
#[derive(Debug, thiserror::Error)]
#[error("expected text, json or off")]
pub struct ParseFormatError;

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "off" => Ok(Self::Off),
            _ => Err(ParseFormatError),
        }
    }
}

/// The log's writing end: started once, finished once.
#[derive(Debug)]
pub(crate) struct AccessLog {
    lines: Lines,
}

/// Takes the lines.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    format: Format,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Lines have come, or the last has.
    came: Condvar,
    /// The last line has been written.
    gone: Condvar,
    /// Lines that were not written.
    dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Of the lines dropped, those that nothing was said of yet.
    dropped: u64,
    clock: Clock,
    /// No more lines will come.
    closed: bool,
    /// Nothing is left to write.
    done: bool,
}

impl AccessLog {
    pub(crate) fn start(format: Format) -> Self {
        let queue = Arc::<Queue>::default();
        if format == Format::Off {
            queue.lock().done = true;
        } else {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name("access-log".into())
                .spawn(move || queue.write_out())
                .expect("a thread can be started");
        }
        Self {
            lines: Lines { format, queue },
        }
    }

    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    pub(crate) fn register_metrics(&self, registry: &mut Registry) {
        registry.register(
            "access_log_dropped",
            "Lines of the access log that were not written, because stdout was stuck or gone",
            self.lines.queue.dropped.clone(),
        );
    }

    /// Waits for the lines to be written, but not for ever: nobody may be reading.
    pub(crate) fn finish(self) {
        let queue = self.lines.queue;
        let mut state = queue.lock();
        state.closed = true;
        queue.came.notify_one();
        let (state, _) = queue
            .gone
            .wait_timeout_while(state, FINISH_TIMEOUT, |state| !state.done)
            .unwrap_or_else(PoisonError::into_inner);
        if !state.done {
            warn!("stdout is stuck: the last access log lines are lost");
        }
    }
}

impl Lines {
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        let append = match self.format {
            Format::Text => line::append_text,
            Format::Json => line::append_json,
            Format::Off => return,
        };
        let mut state = self.queue.lock();
        let before = state.waiting.len();
        if before > MAX_WAITING {
            state.dropped += 1;
            self.queue.dropped.inc();
            return;
        }
        let State { waiting, clock, .. } = &mut *state;
        append(waiting, clock, entry);
        drop(state);
        if before == 0 {
            self.queue.came.notify_one();
        }
    }
}

impl Queue {
    /// A thread that panicked while it held the lock has left at worst half a line.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines until the queue is closed and empty.
    fn write_out(&self) {
        // The file itself: `io::stdout` would buffer once more, line by line.
        let mut stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        let mut lines = Vec::new();
        let mut broken = false;
        loop {
            let mut state = self
                .came
                .wait_while(self.lock(), |state| {
                    state.waiting.is_empty() && !state.closed
                })
                .unwrap_or_else(PoisonError::into_inner);
            if !state.closed {
                drop(state);
                thread::sleep(GATHER);
                state = self.lock();
            }
            std::mem::swap(&mut lines, &mut state.waiting);
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);

            if dropped > 0 {
                warn!(
                    lines = dropped,
                    "access log lines dropped: stdout was stuck"
                );
            }
            let mut rest = lines.as_slice();
            let written = match &mut stdout {
                Ok(stdout) => write_all(stdout, &mut rest),
                Err(error) => Err(io::Error::from(error.kind())),
            };
            let lost = rest.iter().filter(|&&byte| byte == b'\n').count();
            self.dropped.inc_by(lost as u64);
            if let Err(error) = &written
                && !broken
            {
                warn!(%error, "cannot write the access log");
            }
            broken = written.is_err();
            lines.clear();

            let mut state = self.lock();
            if state.closed && state.waiting.is_empty() {
                state.done = true;
                self.gone.notify_all();
                return;
            }
        }
    }
}

/// `Write::write_all`, for a stdout that another process may have set not to block. After an error
/// `bytes` are those that were not written.
fn write_all(out: &mut File, bytes: &mut &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => *bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
