//! The second signal ends a process, whatever the process is doing.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Not a test, but the program that the tests run: its only thread never returns to Tokio.
#[test]
#[ignore = "it is a program for the other tests"]
fn blocked_program() {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tokio.block_on(async {
        let _shutdown = runtime::signals::shutdown_requested().expect("handlers");
        let mut stdout = io::stdout();
        stdout.write_all(b"\nready\n").expect("somebody reads");
        match std::env::var_os("BLOCKED_IN_A_WRITE") {
            None => thread::sleep(Duration::from_secs(3600)),
            // The reader stops after the first line, so this blocks.
            Some(_) => loop {
                let _ = stdout.write_all(&[b'x'; 4096]);
            },
        }
    });
}

/// Starts the program, and waits until its signal handlers are installed.
fn start(blocked_in_a_write: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "blocked_program", "--ignored", "--nocapture"]);
    if blocked_in_a_write {
        command.env("BLOCKED_IN_A_WRITE", "1");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let stdout = child.stdout.as_mut().expect("it is piped");
    let mut lines = BufReader::with_capacity(16, stdout).lines();
    assert!(lines.any(|line| line.expect("a line") == "ready"));
    child
}

/// Sends a signal until the process ends, and returns the exit code. Again and again, because a signal is lost where
/// the one before has not been handled yet.
fn end_with(signal: Signal, mut child: Child) -> Option<i32> {
    let mut sent = 0;
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            assert!(sent > 1, "the first ended it: {status}");
            assert_eq!(status.signal(), None);
            return status.code();
        }
        kill_process(Pid::from_child(&child), signal).expect("it is there");
        sent += 1;
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_second_sigterm_ends_a_program_whose_thread_sleeps() {
    assert_eq!(end_with(Signal::TERM, start(false)), Some(143));
}

#[test]
fn a_second_sigint_ends_a_program_that_is_blocked_in_a_write() {
    assert_eq!(end_with(Signal::INT, start(true)), Some(130));
}

#[test]
fn two_different_signals_end_the_program_as_well() {
    let mut child = start(false);
    for signal in [Signal::TERM, Signal::INT] {
        kill_process(Pid::from_child(&child), signal).expect("it is there");
    }
    // Where both are pending, the kernel chooses which one is delivered first.
    let code = child.wait().expect("it can be waited for").code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}
