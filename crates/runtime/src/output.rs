//! Output to stdout or stderr that never blocks the program: lines go into a queue of bounded size, which a thread
//! writes.
//!
//! So a reader that is slow, blocked or gone, and a full disk, neither delay nor end the program. Lines that cannot
//! be written are dropped and counted. The thread goes on: as soon as there is room again, new lines are written.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::timeout_at;
use tracing::warn;

use crate::repeated::Repeated;
use crate::unpoisoned::unpoisoned;

/// Limit on the bytes that wait to be written, some thousand lines. The block that exceeds it is still accepted.
const MAX_WAITING: usize = 256 * 1024;

/// Capacity, in bytes, of the buffer that is kept after its lines have been written; most batches fit into it.
const KEPT_CAPACITY: usize = 64 * 1024;

/// Bytes written at a time. A pipe accepts this many at once or none (`PIPE_BUF`), so that a slow reader shows
/// progress and a blocked one none.
const PIECE: usize = 4096;

/// How long to wait for more lines after the first one, so that a busy program writes many at a time.
const GATHER: Duration = Duration::from_millis(5);

/// Pause before a write is retried, on a non-blocking output that is full.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// An output that has accepted nothing for this long counts as stuck, and is not waited for.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Longest time to write the last lines in after [`Lines::limit_flush_time`]: a program whose reader is slow still ends within
/// the grace period of its pod.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// An output and its thread. On drop it accepts no more lines, but does not wait until those it has are written;
/// [`Output::finish`] does.
#[derive(Debug)]
pub struct Output(Arc<Queue>);

/// A handle that appends lines to an [`Output`].
#[derive(Clone, Debug)]
pub struct Lines {
    queue: Arc<Queue>,
    /// Text that is put in front of each line.
    prefix: Option<Arc<str>>,
}

/// What an output, its thread and its handles share.
#[derive(Debug)]
struct Queue {
    /// Name of the output in log events, such as `stdout`.
    name: &'static str,
    state: Mutex<State>,
    /// Notified when the first line is appended to an empty queue, and when the queue is closed.
    appended: Condvar,
    /// Notified when everything has been written.
    written: Condvar,
    /// Notified when the thread has taken the waiting lines, so that there is room.
    taken: Notify,
    /// Number of lines that were not written.
    dropped: Counter,
    /// Longest time to write the last lines in: [`SHUTDOWN_TIMEOUT`].
    shutdown_timeout: Duration,
}

#[derive(Debug)]
struct State {
    /// Lines that the thread has not taken yet.
    waiting: Vec<u8>,
    /// Whether the thread is writing lines.
    writing: bool,
    /// When the output last accepted bytes, or was given the first bytes after a pause.
    progress: Instant,
    /// Number of lines dropped since the thread last read this.
    dropped: u64,
    /// Whether the program is ending, so that a slow reader is no longer waited for.
    shutting_down: bool,
    /// Whether no more lines are accepted.
    closed: bool,
    /// Whether the thread has ended.
    ended: bool,
}

impl Output {
    /// Starts a thread that writes to stdout.
    pub fn stdout() -> Self {
        Self::start("stdout", io::stdout())
    }

    /// Starts a thread that writes to stderr.
    pub fn stderr() -> Self {
        Self::start("stderr", io::stderr())
    }

    /// Starts a thread that writes to a file. `name` is the name of the thread, and of the output in log events.
    pub fn start(name: &'static str, out: impl AsFd + Send + 'static) -> Self {
        Self::start_with(name, out, SHUTDOWN_TIMEOUT)
    }

    fn start_with(
        name: &'static str,
        out: impl AsFd + Send + 'static,
        shutdown_timeout: Duration,
    ) -> Self {
        let queue = Arc::new(Queue {
            name,
            state: Mutex::new(State {
                waiting: Vec::new(),
                writing: false,
                progress: Instant::now(),
                dropped: 0,
                shutting_down: false,
                closed: false,
                ended: false,
            }),
            appended: Condvar::new(),
            written: Condvar::new(),
            taken: Notify::new(),
            dropped: Counter::default(),
            shutdown_timeout,
        });
        let writer = Arc::clone(&queue);
        let thread = thread::Builder::new().name(name.into());
        if thread.spawn(move || writer.write_out(&out)).is_err() {
            // Where no thread can be started, all lines are dropped and counted.
            let mut state = queue.lock();
            (state.closed, state.ended) = (true, true);
        }
        Self(queue)
    }

    /// A handle that appends lines. All handles of an output share its queue.
    pub fn lines(&self) -> Lines {
        Lines {
            queue: Arc::clone(&self.0),
            prefix: None,
        }
    }

    /// Blocks until all lines have been written, or until the output has accepted nothing for a second; after
    /// [`Lines::limit_flush_time`] for 5 seconds at most.
    pub fn flush(&self) {
        let state = self.0.lock();
        let _ = self.0.wait_while(state, |state| {
            !state.ended && (state.writing || !state.waiting.is_empty())
        });
    }

    /// Flushes, and accepts no more lines: from now on, each of them is counted as dropped.
    pub fn finish(self) {
        if !self.close_and_wait() {
            warn!(
                output = self.0.name,
                "output is stuck or too slow: the last lines are lost"
            );
        }
    }

    /// Closes the queue and waits until the thread has ended. Returns `false` if it did not end in time.
    fn close_and_wait(&self) -> bool {
        self.close();
        self.0.wait_while(self.0.lock(), |state| !state.ended)
    }

    fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        if !state.writing && state.waiting.is_empty() {
            // The pause before this says nothing about the output.
            state.progress = Instant::now();
        }
        drop(state);
        self.0.appended.notify_one();
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.close();
    }
}

impl Lines {
    /// Appends the lines that `write` appends to the buffer it is given. They must be complete, each with its
    /// newline, and are written one after another without lines of other handles in between.
    ///
    /// Never blocks. If 256 KiB wait to be written already, the lines are dropped and counted.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.queue.lock();
        let before = state.waiting.len();
        write(&mut state.waiting);
        if before > MAX_WAITING || state.closed {
            let lost = count_lines(&state.waiting[before..]);
            state.waiting.truncate(before);
            state.dropped += lost;
            self.queue.dropped.inc_by(lost);
            return;
        }
        if let Some(prefix) = &self.prefix {
            let block = state.waiting.split_off(before);
            for line in block.split_inclusive(|&byte| byte == b'\n') {
                state.waiting.extend_from_slice(prefix.as_bytes());
                state.waiting.extend_from_slice(line);
            }
        }
        if before == 0 {
            if !state.writing {
                state.progress = Instant::now();
            }
            drop(state);
            self.queue.appended.notify_one();
        }
    }

    /// Limits the time for the last lines to 5 seconds, because the program is ending. From now on nothing
    /// waits for room either.
    pub fn limit_flush_time(&self) {
        self.queue.lock().shutting_down = true;
        self.queue.taken.notify_waiters();
    }

    /// Waits until there is room in the queue. A program that waits here before it appends loses no lines to a slow
    /// reader, because it goes on at the reader's pace. Once the output has accepted nothing for a second, this
    /// returns at once until it accepts something again: then lines are dropped, and the program goes on.
    pub async fn room(&self) {
        loop {
            // Created before the check, so that no notification after the check is missed.
            let taken = self.queue.taken.notified();
            let stuck_at = {
                let state = self.queue.lock();
                if state.waiting.len() <= MAX_WAITING || state.closed || state.shutting_down {
                    return;
                }
                state.progress + STUCK_AFTER
            };
            if stuck_at <= Instant::now() {
                return;
            }
            let _ = timeout_at(stuck_at.into(), taken).await;
        }
    }

    /// The number of lines that were dropped or could not be written.
    pub fn dropped(&self) -> Counter {
        self.queue.dropped.clone()
    }

    /// Puts `prefix` in front of each line: for programs that share an output.
    pub fn prefixed(self, prefix: impl Into<String>) -> Self {
        Self {
            queue: self.queue,
            prefix: Some(prefix.into().into()),
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }

    /// Waits while the condition holds. Returns `false` if it still holds and the output is stuck, or the time of a
    /// shutdown is over.
    fn wait_while<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        mut condition: impl FnMut(&mut State) -> bool,
    ) -> bool {
        let latest = Instant::now() + self.shutdown_timeout;
        while condition(&mut state) {
            let stuck = state.progress + STUCK_AFTER;
            let until = if state.shutting_down {
                stuck.min(latest)
            } else {
                stuck
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.written.wait_timeout(state, left);
            state = unpoisoned(waited).0;
        }
        true
    }

    /// Writes lines until the queue is closed and empty.
    fn write_out(&self, out: &impl AsFd) {
        let mut lines = Vec::new();
        // Whether the last write failed, and whether the bytes written last end within a line.
        let (mut broken, mut cut) = (false, false);
        // Number of dropped lines that no event has reported yet.
        let mut unreported = 0;
        let (drops, errors) = <(Repeated, Repeated)>::default();
        loop {
            let mut state = unpoisoned(self.appended.wait_while(self.lock(), |state| {
                state.waiting.is_empty() && !state.closed
            }));
            if state.waiting.is_empty() {
                state.ended = true;
                self.written.notify_all();
                return;
            }
            let gathered = self
                .appended
                .wait_timeout_while(state, GATHER, |state| !state.closed);
            state = unpoisoned(gathered).0;
            std::mem::swap(&mut lines, &mut state.waiting);
            let dropped = std::mem::take(&mut state.dropped);
            state.writing = true;
            drop(state);
            self.taken.notify_waiters();

            unreported += dropped;
            if unreported > 0 && drops.next().is_some() {
                warn!(
                    output = self.name,
                    lines = unreported,
                    "output lines dropped: it was stuck"
                );
                unreported = 0;
            }
            // Ends the incomplete line, so that it does not become one with the next.
            let mut newline: &[u8] = if cut { b"\n" } else { b"" };
            let mut rest = lines.as_slice();
            let written = self
                .write_all(out, &mut newline)
                .and_then(|()| self.write_all(out, &mut rest));
            cut = match lines.len() - rest.len() {
                0 => !newline.is_empty(),
                taken => lines[taken - 1] != b'\n',
            };
            self.dropped.inc_by(count_lines(rest));
            if let Err(error) = &written
                && !broken
                && errors.next().is_some()
            {
                warn!(output = self.name, %error, "cannot write output");
            }
            broken = written.is_err();
            lines.clear();
            lines.shrink_to(KEPT_CAPACITY);

            let mut state = self.lock();
            state.writing = false;
            state.progress = Instant::now();
            if state.waiting.is_empty() {
                self.written.notify_all();
            }
        }
    }

    /// As `Write::write_all`, also for an output that another process has made non-blocking. After an error, `bytes`
    /// holds what was not written.
    fn write_all(&self, out: &impl AsFd, bytes: &mut &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let piece = &bytes[..bytes.len().min(PIECE)];
            match rustix::io::write(out, piece).map_err(io::Error::from) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    *bytes = &bytes[n..];
                    if !bytes.is_empty() {
                        self.lock().progress = Instant::now();
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The number of newlines.
fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, Read, pipe};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;

    fn to_a_pipe() -> (Output, PipeReader) {
        let (reader, writer) = pipe().expect("a pipe");
        (Output::start("a pipe", writer), reader)
    }

    fn append(lines: &Lines, text: &str) {
        lines.append(|buffer| buffer.extend_from_slice(text.as_bytes()));
    }

    /// Appends a line of 1,000 bytes until the queue accepts no more. Returns how many it has accepted.
    fn fill(lines: &Lines) -> u64 {
        let line = format!("{}\n", "x".repeat(999));
        let mut appended = 0;
        while lines.dropped().get() == 0 {
            append(lines, &line);
            appended += 1;
        }
        appended - 1
    }

    fn read_to_end(mut reader: impl Read) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn lines_appended_together_stay_together_and_each_gets_its_prefix() {
        let (output, reader) = to_a_pipe();
        thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                let lines = output.lines().prefixed(format!("[{name}] "));
                scope.spawn(move || (0..100).for_each(|_| append(&lines, "1\n2\n3\n")));
            }
        });
        output.finish();
        let text = read_to_end(reader);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 900);
        for block in lines.chunks(3) {
            let name = &block[0][..4];
            assert_eq!(block, [1, 2, 3].map(|n| format!("{name}{n}")), "{text}");
        }
    }

    #[test]
    fn lines_are_dropped_and_counted_while_the_reader_is_blocked() {
        let (output, mut reader) = to_a_pipe();
        let lines = output.lines();
        let taken = fill(&lines);
        append(&lines, "lost\nlost too\n");
        assert_eq!(lines.dropped().get(), 3);
        let mut read = vec![0; usize::try_from(taken * 1000).expect("a size")];
        reader.read_exact(&mut read).expect("what was taken");
        // There is room again.
        append(&lines, "last\n");
        output.finish();
        assert_eq!(read_to_end(reader), "last\n");
        assert_eq!(lines.dropped().get(), 3);
    }

    #[test]
    fn finish_returns_although_the_reader_is_blocked() {
        let (output, reader) = to_a_pipe();
        fill(&output.lines());
        output.finish();
        drop(reader);
    }

    #[test]
    fn a_slow_reader_is_waited_for_only_until_the_program_ends() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let output = Output::start_with("a pipe", writer, Duration::from_millis(200));
        let lines = output.lines();
        let taken = fill(&lines);
        lines.limit_flush_time();
        let (hurry, hurried) = mpsc::channel::<()>();
        let (sender, first_read) = mpsc::channel();
        let reading = thread::spawn(move || {
            let (mut n, mut piece) = (0, [0; PIECE]);
            loop {
                match reader.read(&mut piece).expect("it can be read") {
                    0 => return n,
                    more => n += more as u64,
                }
                let _ = sender.send(());
                // All of it would take more than a second.
                let _ = hurried.recv_timeout(Duration::from_millis(20));
            }
        });
        first_read.recv().expect("it is being read");
        assert!(!output.close_and_wait());
        // It was not stuck: the reader was only slow.
        assert!(first_read.try_recv().is_ok());
        drop(hurry);
        drop(output);
        assert_eq!(reading.join().expect("a number"), taken * 1000);
    }

    #[tokio::test]
    async fn nothing_waits_for_room_while_the_program_ends() {
        let (output, _reader) = to_a_pipe();
        let lines = output.lines();
        fill(&lines);
        lines.limit_flush_time();
        tokio::select! {
            biased;
            () = lines.room() => {}
            () = async {} => panic!("it waits"),
        }
        append(&lines, "lost\n");
        assert_eq!(lines.dropped().get(), 2);
    }

    #[test]
    fn an_output_that_had_nothing_to_write_is_not_stuck_at_its_end() {
        let outputs: Vec<_> = (0..50).map(|_| to_a_pipe()).collect();
        // Each of them has accepted nothing for so long.
        thread::sleep(STUCK_AFTER + RETRY_PAUSE);
        for (output, _reader) in outputs {
            assert!(output.close_and_wait());
        }
    }

    #[test]
    fn finish_waits_for_a_slow_reader() {
        let (output, mut reader) = to_a_pipe();
        let taken = fill(&output.lines());
        let reading = thread::spawn(move || {
            let (mut n, mut piece) = (0, [0; 4096]);
            loop {
                match reader.read(&mut piece).expect("it can be read") {
                    0 => return n,
                    more => n += more as u64,
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        output.finish();
        assert_eq!(reading.join().expect("a number"), taken * 1000);
    }

    #[test]
    fn lines_are_counted_as_dropped_on_a_full_disk() {
        let full = File::options().write(true).open("/dev/full");
        let output = Output::start("a full disk", full.expect("Linux has one"));
        let lines = output.lines();
        append(&lines, "1\n2\n");
        output.finish();
        assert_eq!(lines.dropped().get(), 2);
        append(&lines, "after the end\n");
        assert_eq!(lines.dropped().get(), 3);
    }

    #[test]
    fn lines_are_counted_as_dropped_when_the_reader_is_gone() {
        let (output, reader) = to_a_pipe();
        drop(reader);
        let lines = output.lines();
        append(&lines, "1\n");
        output.flush();
        append(&lines, "2\n");
        output.finish();
        assert_eq!(lines.dropped().get(), 2);
    }

    #[test]
    fn a_non_blocking_output_loses_no_line() {
        let (reader, writer) = UnixStream::pair().expect("a pair");
        writer.set_nonblocking(true).expect("it is open");
        let output = Output::start("a socket", writer);
        let lines = output.lines();
        let taken = fill(&lines);
        let reading = thread::spawn(move || read_to_end(reader));
        output.finish();
        let text = reading.join().expect("text");
        assert_eq!(text.len() as u64, taken * 1000);
    }

    #[tokio::test]
    async fn no_line_is_lost_to_a_slow_reader_after_waiting_for_room() {
        let (output, mut reader) = to_a_pipe();
        let reading = thread::spawn(move || {
            let (mut n, mut piece) = (0, vec![0; 64 * 1024]);
            loop {
                match reader.read(&mut piece).expect("it can be read") {
                    0 => return n,
                    more => n += more,
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        let lines = output.lines();
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..2000 {
            lines.room().await;
            append(&lines, &line);
        }
        output.finish();
        assert_eq!(lines.dropped().get(), 0);
        assert_eq!(reading.join().expect("a number"), 2_000_000);
    }

    #[tokio::test]
    async fn waiting_for_room_waits_only_once_for_a_blocked_reader() {
        let (output, _reader) = to_a_pipe();
        let lines = output.lines();
        let line = format!("{}\n", "x".repeat(999));
        // It would take half an hour if each of them waited.
        for _ in 0..3000 {
            lines.room().await;
            append(&lines, &line);
        }
        assert!(lines.dropped().get() >= 2000);
    }
}
