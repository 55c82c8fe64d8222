//! A process that is measured: its processor time and its memory, including those of its children.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Clock ticks a second in `/proc/PID/stat` (proc_pid_stat(5)), whatever the tick of the kernel.
const TICKS_PER_SECOND: u64 = 100;

/// A running process, which is killed on drop.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a command on these processors, and discards its output.
    pub(crate) fn start(command: &Command, processors: &str) -> Self {
        let child = pinned(command, processors)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    /// The processor time so far, in user mode and in the kernel, including that of children that have ended.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks = self.tree().into_iter().map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The name, in parentheses, may contain spaces.
            let (_, rest) = stat.rsplit_once(") ").unwrap_or_default();
            let times = rest.split(' ').skip(11).take(4);
            times
                .filter_map(|ticks| ticks.parse::<u64>().ok())
                .sum::<u64>()
        });
        Duration::from_millis(ticks.sum::<u64>() * 1000 / TICKS_PER_SECOND)
    }

    /// The resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:").sum()
    }

    /// The peak of the resident memory of a single process, in bytes; 0 if the process has ended.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:").max().unwrap_or(0)
    }

    /// A size, in bytes, of each process.
    fn status(&self, key: &str) -> impl Iterator<Item = u64> {
        self.tree().into_iter().map(move |pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|line| line.split_whitespace().next());
            kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
        })
    }

    /// The name of the program that the process runs now.
    pub(crate) fn name(&self) -> String {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.0.id()));
        name.unwrap_or_default().trim_end().to_owned()
    }

    fn tree(&self) -> Vec<u32> {
        let mut tree = vec![self.0.id()];
        let mut at = 0;
        while let Some(pid) = tree.get(at) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.unwrap_or_default();
            tree.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
            at += 1;
        }
        tree
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for pid in self.tree() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.0.wait();
    }
}

/// A command that runs on these processors only.
pub(crate) fn pinned(command: &Command, processors: &str) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", processors]).arg(command.get_program());
    pinned.args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            pinned.env(name, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        pinned.current_dir(dir);
    }
    pinned
}
