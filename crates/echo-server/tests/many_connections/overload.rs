//! More clients than the limits allow, and clients that are slow on purpose: ordinary ones are served all the time.

use std::net::SocketAddr;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use test_support::http::{Connection, get};
use test_support::process::{Process, Signal, echo_server, run};
use test_support::tool;

use crate::{ECHO_SERVER, allow_files};

/// Number of connections that are idle between two requests.
const IDLE: usize = 9_500;

/// Number of slow clients of each kind.
const SLOW: usize = 500;

fn start(args: &[&str]) -> (Process, SocketAddr) {
    let mut command = Command::new(ECHO_SERVER);
    command.args(["-text=x", "-admin-listen=off", "-access-log=off"]);
    echo_server(command.args(args))
}

/// Sends a request, and returns the status of the response.
fn request(connection: &mut Connection) -> u16 {
    connection.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    connection.reply().status()
}

#[test]
fn thousands_of_idle_connections_are_kept_while_others_are_served() {
    if !allow_files(2 * IDLE as u64) {
        return;
    }
    let (server, addr) = start(&["--max-connections=10000"]);
    get(addr, "/");
    let before = server.memory();
    let mut idle: Vec<Connection> = (0..IDLE).map(|_| Connection::open(addr)).collect();
    for connection in &mut idle {
        assert_eq!(request(connection), 200);
    }
    let each = (server.memory() - before) * 1024 / IDLE as u64;
    println!("{each} bytes for each idle connection");
    // Well above what it takes: this is to notice a buffer that is kept, not to measure.
    assert!(each < 6 * 1024, "{each} bytes for each idle connection");
    for _ in 0..200 {
        assert_eq!(get(addr, "/").status(), 200);
    }
    // They were kept, and not closed to make room.
    for connection in idle.iter_mut().step_by(97) {
        assert_eq!(request(connection), 200);
    }
}

#[test]
fn slow_clients_are_disconnected_and_others_do_not_wait_for_them() {
    if !allow_files(4 * SLOW as u64) {
        return;
    }
    let (_server, addr) = start(&["--header-timeout=3s"]);
    let slow = |first: &str| -> Vec<Connection> {
        let open = |_| {
            let mut connection = Connection::open(addr);
            connection.send(first);
            connection
        };
        (0..SLOW).map(open).collect()
    };
    let mut heads = slow("GET / HTTP/1.1\r\nHost: b\r\nX-Slow: ");
    let mut bodies = slow("POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 1000\r\n\r\n");
    for round in 0..100 {
        assert_eq!(get(addr, "/").status(), 200);
        let sender = round * 5 % SLOW;
        heads[sender].send("x");
        bodies[sender].send("x");
    }
    // Sending a byte now and then does not extend the timeout.
    for connection in &mut heads {
        assert!(connection.is_closed());
    }
    for connection in &mut bodies {
        assert_eq!(connection.reply().status(), 408);
        assert!(connection.is_closed());
    }
    assert_eq!(get(addr, "/").status(), 200);
}

#[test]
fn clients_over_the_limit_on_connections_are_served_in_turn() {
    let (_server, addr) = start(&["--max-connections=4", "--idle-timeout=300ms"]);
    let mut holders: Vec<Connection> = (0..4).map(|_| Connection::open(addr)).collect();
    for holder in &mut holders {
        assert_eq!(request(holder), 200);
    }
    let mut waiting: Vec<Connection> = (0..20).map(|_| Connection::open(addr)).collect();
    for connection in &mut waiting {
        connection.send("GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n");
    }
    for connection in &mut waiting {
        assert_eq!(connection.reply().status(), 200);
    }
}

/// A command that starts an echo-server with this limit on open files.
fn start_limited(open_files: u32, args: &str) -> Command {
    let limited =
        format!("ulimit -n {open_files}; exec {ECHO_SERVER} -text=x -access-log=off {args}");
    let mut command = Command::new("sh");
    command.args(["-c", &limited]);
    command
}

#[test]
fn a_low_limit_on_open_files_lowers_the_limit_on_connections() {
    let (server, addr) = echo_server(&mut start_limited(40, "-admin-listen=off"));
    let line = server.wait_for_stderr("lowering --max-connections");
    assert!(line.contains("possible=24"), "{line}");
    let connections: Vec<Connection> = (0..100).map(|_| Connection::open(addr)).collect();
    assert_eq!(get(addr, "/").status(), 200);
    drop(connections);
    assert_eq!(get(addr, "/").status(), 200);
    server.signal(Signal::KILL);
    assert!(!server.finish().stderr.contains("failed to accept"));
}

#[test]
fn the_soft_limit_on_open_files_is_raised_to_the_hard_one() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let enough = hard.is_none_or(|hard| hard >= 256);
    assert!(enough, "{hard:?} open files are too few for this test");
    let mut command = start_limited(40, "-admin-listen=off --max-connections=100");
    let args = command.get_args().nth(1).expect("a script").to_owned();
    let script = args.to_str().expect("text").replace("ulimit", "ulimit -S");
    command = Command::new("sh");
    let (server, addr) = echo_server(command.args(["-c", &script]));
    let mut held: Vec<Connection> = (0..90).map(|_| Connection::open(addr)).collect();
    for connection in &mut held {
        assert_eq!(request(connection), 200);
    }
    server.signal(Signal::KILL);
    assert!(!server.finish().stderr.contains("lowering"));
}

#[test]
fn a_limit_on_open_files_that_leaves_no_connection_exits_1() {
    for open_files in [10, 16, 50] {
        let output = run(&mut start_limited(
            open_files,
            "-listen=127.0.0.1:0 -admin-listen=127.0.0.1:0",
        ));
        assert_eq!(output.code, Some(1), "{output:?}");
        let why = format!("echo-server: needs 81 open files at least, and is allowed {open_files}");
        assert!(output.stderr.starts_with(&why), "{output:?}");
    }
}

#[test]
fn accepting_is_retried_and_logged_rarely_while_there_are_no_file_descriptors() {
    let (server, addr) = start(&[]);
    assert_eq!(get(addr, "/").status(), 200);
    // Lowers the limit while the server runs.
    let few = Rlimit {
        current: Some(20),
        maximum: Some(20),
    };
    prlimit(Some(server.pid()), Resource::Nofile, few).expect("it is ours");
    let connections: Vec<Connection> = (0..100).map(|_| Connection::open(addr)).collect();
    let line = server.wait_for_stderr("failed to accept");
    assert!(line.contains("Too many open files"), "{line}");
    drop(connections);
    assert_eq!(get(addr, "/").status(), 200);
    server.signal(Signal::KILL);
    let stderr = server.finish().stderr;
    assert!(stderr.matches("failed to accept").count() < 5, "{stderr}");
}

#[test]
fn clients_that_send_nothing_are_replaced_by_others() {
    let (_server, addr) = start(&["--max-connections=50", "--header-timeout=1h"]);
    let _silent: Vec<Connection> = (0..200).map(|_| Connection::open(addr)).collect();
    for _ in 0..20 {
        assert_eq!(get(addr, "/").status(), 200);
    }
}

#[test]
fn only_the_connection_that_was_idle_longest_is_closed_for_another() {
    let (_server, addr) = start(&["--max-connections=10"]);
    let mut held: Vec<Connection> = (0..10).map(|_| Connection::open(addr)).collect();
    for connection in &mut held {
        assert_eq!(request(connection), 200);
        std::thread::sleep(std::time::Duration::from_millis(15));
    }
    // Now the first connection is the one with the latest request.
    assert_eq!(request(&mut held[0]), 200);
    std::thread::sleep(std::time::Duration::from_millis(15));
    let mut other = Connection::open(addr);
    assert_eq!(request(&mut other), 200);
    assert!(held.remove(1).is_closed());
    for connection in &mut held {
        assert_eq!(request(connection), 200);
    }
}

#[test]
fn a_connection_that_sends_nothing_is_closed_at_the_header_timeout() {
    let (_server, addr) = start(&["--header-timeout=100ms", "--idle-timeout=1h"]);
    let mut kept = Connection::open(addr);
    assert_eq!(request(&mut kept), 200);
    assert!(Connection::open(addr).is_closed());
    assert_eq!(request(&mut kept), 200);
}

#[test]
fn only_a_quarter_of_the_connections_may_be_in_the_middle_of_a_request() {
    let (_server, addr) = start(&["--max-connections=400", "--header-timeout=1h"]);
    let mut idle = Connection::open(addr);
    assert_eq!(request(&mut idle), 200);
    // A hundred of them may be in the middle of a request.
    let mut slow: Vec<Connection> = (0..150).map(|_| Connection::open(addr)).collect();
    for (n, connection) in slow.iter_mut().enumerate() {
        connection.send(match n % 2 {
            0 => "GET / HTTP/1.1\r\nHost: b\r\nX-Slow: ",
            _ => "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 10\r\n\r\n",
        });
        // Makes sure that the server reads them in this order.
        get(addr, "/");
    }
    for connection in &mut slow[..45] {
        assert!(connection.is_closed());
    }
    for connection in slow[60..].iter_mut().skip(1).step_by(2) {
        connection.send("0123456789");
        assert_eq!(connection.reply().status(), 200);
    }
    assert_eq!(request(&mut idle), 200);
}

#[test]
fn clients_are_served_during_the_attacks_of_slowhttptest() {
    let Some(program) = tool("slowhttptest") else {
        return;
    };
    if !allow_files(4 * SLOW as u64) {
        return;
    }
    // Slow heads, slow bodies, and slow reading of responses.
    for attack in ["-H", "-B", "-X"] {
        let (_server, addr) = start(&["--header-timeout=3s"]);
        let mut command = Command::new(&program);
        command
            .args([
                attack,
                "-c",
                &SLOW.to_string(),
                "-r",
                "500",
                "-i",
                "1",
                "-l",
                "4",
                "-p",
                "2",
                "-u",
            ])
            .arg(format!("http://{addr}/"));
        let attack = Process::spawn(&mut command);
        attack.wait_for_stdout("service available");
        for _ in 0..200 {
            assert_eq!(get(addr, "/").status(), 200);
        }
        attack.finish();
        assert_eq!(get(addr, "/").status(), 200);
    }
}
