//! More clients than there is room for, and clients that are slow on purpose: good ones are served
//! all the while.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;

use rustix::process::{Resource, getrlimit, setrlimit};
use test_support::http::{Connection, get};
use test_support::process::{Process, echo_server};
use test_support::tool;

/// How many connections wait between two requests.
const IDLE: usize = 9_500;

/// Slow clients of each sort.
const SLOW: usize = 500;

fn start(args: &[&str]) -> (Process, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo-server"));
    command.args(["-text=x", "-admin-listen=off", "-access-log=off"]);
    echo_server(command.args(args))
}

/// Lets this process, and those that it starts, have so many files open. `false`: it may not, and a
/// line has been printed that says so.
fn allow_files(wanted: u64) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    let allowed = limit.maximum.is_none_or(|maximum| maximum >= wanted);
    if !allowed {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI allows {wanted} open files"
        );
        let _ = writeln!(
            std::io::stderr(),
            "skipped a test: {wanted} open files are not allowed"
        );
        return false;
    }
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        setrlimit(Resource::Nofile, limit).expect("it is below the maximum");
    }
    true
}

fn request(connection: &mut Connection) -> u16 {
    connection.send("GET / HTTP/1.1\r\nHost: b\r\n\r\n");
    connection.reply().status()
}

#[test]
fn thousands_of_idle_connections_leave_room_for_good_clients() {
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
    // Twice what it is: this is to notice a second buffer, not to measure.
    assert!(each < 26 * 1024, "{each} bytes for each idle connection");
    for _ in 0..200 {
        assert_eq!(get(addr, "/").status(), 200);
    }
    // They were kept, and not closed to make room.
    for connection in idle.iter_mut().step_by(97) {
        assert_eq!(request(connection), 200);
    }
}

#[test]
fn slow_clients_are_cut_off_and_good_ones_never_wait_for_them() {
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
    // A byte now and then buys no time.
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
fn clients_over_the_limit_wait_their_turn_and_are_served() {
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

#[test]
fn without_file_descriptors_it_backs_off_and_goes_on_when_there_are_some() {
    let server = env!("CARGO_BIN_EXE_echo-server");
    let limited = format!("ulimit -n 40; exec {server} -text=x -admin-listen=off -access-log=off");
    let start = || echo_server(Command::new("sh").args(["-c", &limited]));
    let (server, addr) = start();
    let connections: Vec<Connection> = (0..100).map(|_| Connection::open(addr)).collect();
    assert!(
        server
            .wait_for_stderr("failed to accept")
            .contains("Too many open files")
    );
    drop(connections);
    assert_eq!(get(addr, "/").status(), 200);
    drop(server);
    // A busy loop would have said so thousands of times.
    let (server, addr) = start();
    let _connections: Vec<Connection> = (0..100).map(|_| Connection::open(addr)).collect();
    std::thread::sleep(std::time::Duration::from_secs(1));
    server.signal(test_support::process::Signal::KILL);
    let attempts = server.finish().stderr.matches("failed to accept").count();
    assert!((1..50).contains(&attempts), "{attempts} attempts");
}

#[test]
fn slowhttptest_keeps_no_good_client_waiting() {
    let Some(program) = tool("slowhttptest") else {
        return;
    };
    if !allow_files(4 * SLOW as u64) {
        return;
    }
    // Slow heads, slow bodies, slow reading.
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
