//! Output that cannot hang: lines for stdout or stderr, which one thread of their own writes.
//!
//! Lines are put into a queue of bounded size, so that a reader who is slow, stuck or gone, and a disk
//! that is full, never delay or end the program. What cannot be written is lost, and counted. The thread
//! never gives up: where there is room again, the lines that come then are written.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::timeout_at;
use tracing::warn;

use crate::repeated::Repeated;

/// Most bytes that wait to be written, but for the block that exceeds it: some thousand lines.
const MAX_WAITING: usize = 256 * 1024;

/// Room that is kept for lines when they have been written; most batches fit.
const KEPT_ROOM: usize = 64 * 1024;

/// Bytes written at a time. A pipe takes as many at once, or none (PIPE_BUF), so that a reader who is
/// slow shows progress, and can be told from one who is stuck.
const PIECE: usize = 4096;

/// After the first line, how long to wait for more, so that a busy program writes many at a time.
const GATHER: Duration = Duration::from_millis(5);

/// How long a full output is left alone, where it is set not to block.
const RETRY: Duration = Duration::from_millis(10);

/// An output that has taken nothing for this long is stuck: nobody waits for it any more.
const STUCK: Duration = Duration::from_secs(1);

/// The owning end of an output. Dropping it ends the output as well, but waits for nothing.
#[derive(Debug)]
pub struct Output(Arc<Queue>);

/// Takes lines for an [`Output`].
#[derive(Clone, Debug)]
pub struct Lines {
    queue: Arc<Queue>,
    /// What each line begins with.
    prefix: Option<Arc<str>>,
}

#[derive(Debug)]
struct Queue {
    name: &'static str,
    state: Mutex<State>,
    /// Lines have come where there were none, or the last has.
    came: Condvar,
    /// Everything has been written.
    written: Condvar,
    /// The writer has taken over what was waiting.
    taken: Notify,
    /// Lines that were not written.
    dropped: Counter,
}

#[derive(Debug)]
struct State {
    waiting: Vec<u8>,
    /// Lines are being written.
    writing: bool,
    /// When the output last took something, or was first asked to.
    progress: Instant,
    /// Lines dropped since the writer last looked.
    dropped: u64,
    /// No more lines are taken.
    closed: bool,
    /// The thread has ended.
    ended: bool,
}

impl Output {
    /// Starts to write to stdout.
    pub fn stdout() -> Self {
        Self::start("stdout", io::stdout())
    }

    /// Starts to write to stderr.
    pub fn stderr() -> Self {
        Self::start("stderr", io::stderr())
    }

    /// Starts to write to a file; `name` is that of the thread.
    pub fn start(name: &'static str, out: impl AsFd + Send + 'static) -> Self {
        let queue = Arc::new(Queue {
            name,
            state: Mutex::new(State {
                waiting: Vec::new(),
                writing: false,
                progress: Instant::now(),
                dropped: 0,
                closed: false,
                ended: false,
            }),
            came: Condvar::new(),
            written: Condvar::new(),
            taken: Notify::new(),
            dropped: Counter::default(),
        });
        let writer = Arc::clone(&queue);
        let thread = thread::Builder::new().name(name.into());
        if thread.spawn(move || writer.write_out(&out)).is_err() {
            // A process that may have no more threads goes on without, and counts the lines.
            let mut state = queue.lock();
            (state.closed, state.ended) = (true, true);
        }
        Self(queue)
    }

    /// An end that takes lines. All of an output's ends share its queue.
    pub fn lines(&self) -> Lines {
        Lines {
            queue: Arc::clone(&self.0),
            prefix: None,
        }
    }

    /// Waits until what was appended has been written, as long as some of it is now and then: a reader
    /// who has taken nothing for a second is not waited for.
    pub fn flush(&self) {
        let state = self.0.lock();
        let _ = self.0.wait_while(state, |state| {
            !state.ended && (state.writing || !state.waiting.is_empty())
        });
    }

    /// Flushes, and takes no more lines: from now on, each is counted as dropped.
    pub fn finish(self) {
        self.close();
        if !self.0.wait_while(self.0.lock(), |state| !state.ended) {
            warn!(
                output = self.0.name,
                "output is stuck: the last lines are lost"
            );
        }
    }

    fn close(&self) {
        self.0.lock().closed = true;
        self.0.came.notify_one();
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.close();
    }
}

impl Lines {
    /// Appends what `write` appends to the buffer that it is given: whole lines. They stay together.
    ///
    /// Never blocks. Where too much is waiting already, the lines are dropped, and counted.
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
            self.queue.came.notify_one();
        }
    }

    /// Waits until there is room, so that a program which waits here before it appends runs at the pace
    /// of its reader and loses nothing. A reader who takes nothing for a second is not waited for until
    /// he reads again: then lines are lost, and the program goes on.
    pub async fn room(&self) {
        loop {
            // Before the look, so that what happens right after it is not missed.
            let taken = self.queue.taken.notified();
            let stuck_at = {
                let state = self.queue.lock();
                if state.waiting.len() <= MAX_WAITING || state.closed {
                    return;
                }
                state.progress + STUCK
            };
            if stuck_at <= Instant::now() {
                return;
            }
            let _ = timeout_at(stuck_at.into(), taken).await;
        }
    }

    /// Counts the lines that were lost.
    pub fn dropped(&self) -> Counter {
        self.queue.dropped.clone()
    }

    /// The same, with something before each line: for programs that share an output.
    pub fn prefixed(self, prefix: impl Into<String>) -> Self {
        Self {
            queue: self.queue,
            prefix: Some(prefix.into().into()),
        }
    }
}

impl Queue {
    /// A thread that panicked while it held the lock has left at worst half a line.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the condition holds and the output is not stuck. `false`: it is stuck.
    fn wait_while<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        mut condition: impl FnMut(&mut State) -> bool,
    ) -> bool {
        while condition(&mut state) {
            let left = (state.progress + STUCK).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Writes lines until the queue is closed and empty.
    fn write_out(&self, out: &impl AsFd) {
        let mut lines = Vec::new();
        // The output is broken; and what it took last was no whole line.
        let (mut broken, mut cut) = (false, false);
        // Of the lines dropped, those that nothing was said of yet.
        let mut unsaid = 0;
        let repeated = <(Repeated, Repeated)>::default();
        loop {
            let mut state = self
                .came
                .wait_while(self.lock(), |state| {
                    state.waiting.is_empty() && !state.closed
                })
                .unwrap_or_else(PoisonError::into_inner);
            if state.waiting.is_empty() {
                state.ended = true;
                self.written.notify_all();
                return;
            }
            state = self
                .came
                .wait_timeout_while(state, GATHER, |state| !state.closed)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            std::mem::swap(&mut lines, &mut state.waiting);
            let dropped = std::mem::take(&mut state.dropped);
            state.writing = true;
            drop(state);
            self.taken.notify_waiters();

            unsaid += dropped;
            if unsaid > 0 && repeated.0.next().is_some() {
                warn!(
                    output = self.name,
                    lines = unsaid,
                    "output lines dropped: it was stuck"
                );
                unsaid = 0;
            }
            // Half a line must not become one with the next.
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
                && repeated.1.next().is_some()
            {
                warn!(output = self.name, %error, "cannot write output");
            }
            broken = written.is_err();
            lines.clear();
            lines.shrink_to(KEPT_ROOM);

            let mut state = self.lock();
            state.writing = false;
            state.progress = Instant::now();
            if state.waiting.is_empty() {
                self.written.notify_all();
            }
        }
    }

    /// `Write::write_all`, for an output that another process may have set not to block. After an error
    /// `bytes` are those that were not written.
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
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, Read, pipe};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn to_a_pipe() -> (Output, PipeReader) {
        let (reader, writer) = pipe().expect("a pipe");
        (Output::start("a pipe", writer), reader)
    }

    fn append(lines: &Lines, text: &str) {
        lines.append(|buffer| buffer.extend_from_slice(text.as_bytes()));
    }

    /// Appends a long line until the queue takes no more, and gives how many were taken.
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
    fn a_block_stays_whole_and_every_line_gets_its_prefix() {
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
    fn a_stuck_reader_costs_lines_which_are_counted_and_no_time() {
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
    fn finish_gives_up_on_a_reader_who_takes_nothing() {
        let (output, reader) = to_a_pipe();
        fill(&output.lines());
        output.finish();
        drop(reader);
    }

    #[test]
    fn finish_waits_for_a_reader_who_is_slow() {
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
    fn a_full_disk_loses_lines_and_counts_them() {
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
    fn a_reader_who_has_gone_loses_lines_and_counts_them() {
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
    fn an_output_that_may_not_block_loses_nothing() {
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
    async fn who_waits_for_room_loses_nothing_to_a_slow_reader() {
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
    async fn who_waits_for_room_waits_for_a_stuck_reader_only_once() {
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
