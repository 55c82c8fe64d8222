//! A stdout or stderr that is blocked, full or closed: `echo-server` loses lines, and nothing else happens.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use test_support::http::{Connection, get, metric};
use test_support::pki::free_addr;
use test_support::process::echo_server;
use test_support::{TIMEOUT, wait_until};

use crate::ECHO_SERVER;

/// An echo-server whose output is not collected, so that its addresses are given to it.
struct Server {
    child: Child,
    addr: SocketAddr,
    admin: SocketAddr,
}

fn start(args: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Server {
    let [addr, admin] = [free_addr(), free_addr()];
    let child = Command::new(ECHO_SERVER)
        .args(["-text=x", "--threads=1", "--drain-delay=1s"])
        .arg(format!("-listen={addr}"))
        .arg(format!("-admin-listen={admin}"))
        .args(args)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .expect("it starts");
    wait_until("the admin port", TIMEOUT, || {
        TcpStream::connect(admin).is_ok()
    });
    Server { child, addr, admin }
}

impl Server {
    fn assert_serves(&self) {
        assert_eq!(get(self.addr, "/").body, "x\n");
        assert_eq!(get(self.admin, "/livez").status(), 200);
    }

    fn lines_lost(&self) -> f64 {
        lines_lost(self.admin)
    }

    fn assert_ends_cleanly(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it is there");
        self.assert_serves();
        let status = self.child.wait().expect("it can be waited for");
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_lost(admin: SocketAddr) -> f64 {
    let lost = metric(admin, "echo_server_access_log_dropped_total");
    lost.expect("it is counted")
}

/// A device that is always full.
fn full() -> File {
    let full = File::options().write(true).open("/dev/full");
    full.expect("Linux has one")
}

/// A full pipe. It blocks while the reader is not dropped.
fn blocked() -> (PipeReader, impl Into<Stdio>) {
    let (reader, mut writer) = pipe().expect("a pipe");
    writer.write_all(&[b'x'; 64 * 1024]).expect("its capacity");
    (reader, writer)
}

/// A pipe whose reader is gone.
fn closed() -> impl Into<Stdio> {
    pipe().expect("a pipe").1
}

#[test]
fn a_full_stderr_does_not_end_the_server() {
    let server = start(&[], Stdio::null(), full());
    server.assert_serves();
    server.assert_ends_cleanly();
}

#[test]
fn a_closed_stderr_does_not_end_the_server() {
    let server = start(&["--log-level=debug"], Stdio::null(), closed());
    server.assert_serves();
    server.assert_ends_cleanly();
}

#[test]
fn a_blocked_stderr_does_not_end_the_server() {
    let (_reader, stderr) = blocked();
    let server = start(&["--log-level=trace"], Stdio::null(), stderr);
    // At this level each of them is logged, and there are more than the queue holds.
    for _ in 0..4000 {
        Connection::open(server.addr).send("no HTTP\r\n\r\n");
    }
    server.assert_serves();
    server.assert_ends_cleanly();
}

#[test]
fn a_failed_start_has_its_exit_code_although_stderr_cannot_be_written() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("it is bound");
    for (args, code) in [
        (
            &["-text=x", "-admin-listen=off", &format!("-listen={taken}")][..],
            1,
        ),
        (&["-text=x", "-nosuch"], 2),
        (&[], 127),
    ] {
        let (_reader, blocked) = blocked();
        for stderr in [Stdio::from(full()), closed().into(), blocked.into()] {
            let mut command = Command::new(ECHO_SERVER);
            let status = command.args(args).stderr(stderr).status();
            assert_eq!(status.expect("it starts").code(), Some(code), "{args:?}");
        }
    }
}

#[test]
fn lines_are_counted_as_lost_where_stdout_is_full_or_closed() {
    for stdout in [Stdio::from(full()), closed().into()] {
        let server = start(&[], stdout, Stdio::null());
        server.assert_serves();
        wait_until("the lost line", TIMEOUT, || server.lines_lost() == 1.0);
        server.assert_ends_cleanly();
    }
}

#[test]
fn lines_are_written_again_when_stdout_has_a_reader_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("fifo");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("coreutils").success());
    // Opened for reading and writing, so that opening does not block.
    let reader = File::options().read(true).write(true).open(&path);
    let stdout = File::options().write(true).open(&path).expect("a reader");
    drop(reader);
    let server = start(&[], stdout, Stdio::null());
    server.assert_serves();
    wait_until("the lost line", TIMEOUT, || server.lines_lost() == 1.0);
    let reader = File::open(&path).expect("a writer");
    let mut lines = BufReader::new(reader).lines();
    server.assert_serves();
    let line = lines.next().expect("a line").expect("text");
    assert!(line.contains("\"GET / HTTP/1.1\" 200"), "{line}");
    assert_eq!(server.lines_lost(), 1.0);
    server.assert_ends_cleanly();
}

#[test]
fn a_client_cannot_cause_a_log_line_for_each_packet() {
    let (server, addr) = echo_server(Command::new(ECHO_SERVER).args([
        "-text=x",
        "-admin-listen=off",
        "-access-log=off",
        "--drain-delay=0s",
    ]));
    // Acknowledgements of PING that nobody sent, of which h2 warns.
    let mut frames =
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
    for _ in 0..2000 {
        frames.extend_from_slice(b"\x00\x00\x08\x06\x01\x00\x00\x00\x0012345678");
    }
    let mut flood = Connection::open(addr);
    flood.send(&frames);
    let mut garbage = Connection::open(addr);
    garbage.send(b"\x00\x01\x02\r\n\r\n");
    assert_eq!(get(addr, "/").status(), 200);
    server.signal(Signal::TERM);
    let stderr = server.finish().stderr;
    assert!(stderr.lines().count() < 10, "{stderr}");
}

#[test]
fn a_file_at_the_limit_on_its_size_does_not_end_the_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let script = format!(
        "ulimit -f 1; exec {ECHO_SERVER} -text=x -admin-listen=127.0.0.1:0 >{}",
        path.display()
    );
    let (server, addr) = echo_server(Command::new("sh").args(["-c", &script]));
    // A line has about 100 bytes, and the unit of the limit is 512 or 1024.
    for _ in 0..40 {
        assert_eq!(get(addr, "/").body, "x\n");
    }
    let admin = server.wait_for_admin();
    wait_until("the lost lines", TIMEOUT, || {
        let log = fs::read_to_string(&path).expect("it is there");
        assert!(log.len() <= 1024, "{log}");
        let complete = log.matches('\n').count();
        complete < 40 && lines_lost(admin) == (40 - complete) as f64
    });
    server.signal(Signal::TERM);
    assert_eq!(server.finish().code, Some(0));
}
