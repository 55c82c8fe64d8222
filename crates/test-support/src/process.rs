//! Processes whose output can be waited for while they run.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, kill_process};

use crate::TIMEOUT;

pub use rustix::process::Signal;

/// A running process, which is killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
}

/// The output and the exit code of a process that has ended.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` if a signal has ended the process.
    pub code: Option<i32>,
    /// All of its stdout; empty if that was left unread.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
}

/// One of the output streams of a process, which a thread collects.
#[derive(Debug, Default)]
struct Stream {
    state: Mutex<Text>,
    /// Notified when text is appended, and at the end.
    grew: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    text: String,
    /// Whether the stream has ended.
    ended: bool,
}

impl Stream {
    /// Starts to read a stream.
    fn collect(mut source: impl Read + Send + 'static) -> Arc<Self> {
        let stream = Arc::<Self>::default();
        let writer = Arc::clone(&stream);
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let n = source.read(&mut buffer).unwrap_or(0);
                let mut state = writer.state.lock().expect("no reader panics");
                state.text += &String::from_utf8_lossy(&buffer[..n]);
                state.ended = n == 0;
                writer.grew.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        stream
    }

    /// Waits for a complete line for which `find` returns something.
    fn wait_for<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + TIMEOUT;
        let mut state = self.state.lock().expect("no reader panics");
        loop {
            let whole = state.text.rfind('\n').map_or("", |end| &state.text[..end]);
            if let Some(found) = whole.lines().find_map(&find) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                let came = state.text.clone();
                drop(state);
                panic!("{what} did not come; this did:\n{came}");
            }
            state = self
                .grew
                .wait_timeout(state, left)
                .expect("no reader panics")
                .0;
        }
    }

    /// Waits for the end of the stream, and returns all of it.
    fn all(&self) -> String {
        let state = self.state.lock().expect("no reader panics");
        let (state, _) = self
            .grew
            .wait_timeout_while(state, TIMEOUT, |state| !state.ended)
            .expect("no reader panics");
        state.text.clone()
    }
}

impl Process {
    /// Starts a process whose output is collected.
    pub fn spawn(command: &mut Command) -> Self {
        let mut process = Self::spawn_unread(command);
        let stdout = process.child.stdout.take().expect("it is piped");
        process.stdout = Stream::collect(stdout);
        process
    }

    /// Starts a process whose stdout is not read until [`Process::read_stdout`] is called.
    pub fn spawn_unread(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stderr = Stream::collect(child.stderr.take().expect("it is piped"));
        Self {
            child,
            stdout: Arc::default(),
            stderr,
        }
    }

    /// Starts to read the stdout of [`Process::spawn_unread`].
    pub fn read_stdout(&mut self) {
        let stdout = self.child.stdout.take().expect("it was left unread");
        self.stdout = Stream::collect(stdout);
    }

    /// Waits for a line of stdout that contains `what`, and returns the line.
    pub fn wait_for_stdout(&self, what: &str) -> String {
        let find = |line: &str| line.contains(what).then(|| line.to_owned());
        self.stdout.wait_for(what, find)
    }

    /// Waits for a line of stderr that contains `what`, and returns the line.
    pub fn wait_for_stderr(&self, what: &str) -> String {
        let find = |line: &str| line.contains(what).then(|| line.to_owned());
        self.stderr.wait_for(what, find)
    }

    /// Waits for a line of stderr that contains `what`, and returns the value of `key=VALUE` in it.
    pub fn wait_for_field(&self, what: &str, key: &str) -> String {
        let line = self.wait_for_stderr(what);
        let mut words = line.split_whitespace();
        let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value
            .unwrap_or_else(|| panic!("no {key} in {line:?}"))
            .to_owned()
    }

    /// Waits until the log on stderr, at the level `info`, tells the address of the admin port, and returns it.
    pub fn wait_for_admin(&self) -> SocketAddr {
        let addr = self.wait_for_field("admin is listening", "address");
        addr.parse().expect("an address")
    }

    /// The process id, as a number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The resident memory of the process in KiB, from `/proc`.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.expect("a size").parse().expect("a number")
    }

    /// The text of stdout so far.
    pub fn stdout(&self) -> String {
        let state = self.stdout.state.lock().expect("no reader panics");
        state.text.clone()
    }

    /// The process id, for system calls.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it still runs");
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("it can be waited for")
            .is_some()
    }

    /// Waits until the process ends, for at most [`TIMEOUT`].
    pub fn finish(mut self) -> Output {
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            match self.child.try_wait().expect("it can be waited for") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it did not end: {self:?}"),
            }
            thread::sleep(std::time::Duration::from_millis(2));
        };
        let unread = self.child.stdout.is_some();
        Output {
            code: status.code(),
            stdout: match unread {
                true => String::new(),
                false => self.stdout.all(),
            },
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a process, and waits until it ends.
pub fn run(command: &mut Command) -> Output {
    Process::spawn(command).finish()
}

/// Starts an echo-server at a free port of 127.0.0.1, and returns its address. Its log level has to be `info`.
pub fn echo_server(command: &mut Command) -> (Process, SocketAddr) {
    let process = Process::spawn(command.env("ECHO_LISTEN", "127.0.0.1:0"));
    let addr = process.wait_for_field("server is listening", "address");
    (process, addr.parse().expect("an address"))
}

/// Starts a caller, and returns the address of its admin port.
pub fn caller(command: &mut Command) -> (Process, SocketAddr) {
    let process = Process::spawn(command.env("CALLER_LOG_LEVEL", "info"));
    let admin = process.wait_for_admin();
    (process, admin)
}
