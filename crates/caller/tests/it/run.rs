//! `caller` without a subcommand: repeated calls, their end, and how it starts.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use test_support::bed::Bed;
use test_support::http::{get, metric};
use test_support::process::{Process, Signal, run};
use test_support::{TIMEOUT, tool, wait_until};

use crate::CALLER;

#[test]
fn twenty_calls_reach_both_pods() {
    let bed = Bed::start(&["backend-1", "backend-2"]);
    let output = run(bed.caller(CALLER).args(["--count=20", "--interval=0s"]));
    assert_eq!(output.code, Some(0));
    for line in [
        "\n20 calls, 20 ok, 0 failed (0.0%), in ",
        "\nanswered by: backend-1 ",
        "\nanswered by: backend-2 ",
        "\nlongest gap without a success: ",
    ] {
        assert!(
            output.stdout.contains(line),
            "no {line:?} in\n{}",
            output.stdout
        );
    }
}

#[test]
fn a_failed_call_exits_1_and_its_kind_is_in_the_summary() {
    let bed = Bed::start(&["backend-1"]);
    let output = run(bed
        .caller(CALLER)
        .args(["--count=2", "--interval=0s", &bed.url("nosuch")]));
    assert_eq!(output.code, Some(1));
    let summary = "2 calls, 0 ok, 2 failed (100.0%), in ";
    assert!(output.stdout.contains(summary), "{}", output.stdout);
    let kind = "failed: 2 dns_nxdomain (the name does not exist)\n";
    assert!(output.stdout.contains(kind), "{}", output.stdout);
}

#[test]
fn the_run_ends_after_the_duration() {
    let bed = Bed::start(&["backend-1"]);
    let output = run(bed
        .caller(CALLER)
        .args(["--duration=200ms", "--interval=10ms"]));
    assert_eq!(output.code, Some(0));
    assert!(
        output.stdout.contains(" 0 failed (0.0%)"),
        "{}",
        output.stdout
    );
}

#[test]
fn sigterm_and_sigint_end_the_run_with_the_summary_and_exit_code_0() {
    let bed = Bed::start(&["backend-1"]);
    for signal in [Signal::TERM, Signal::INT] {
        let caller = Process::spawn(bed.caller(CALLER).arg("--interval=1h"));
        caller.wait_for_stdout("Response received successfully!");
        caller.signal(signal);
        let output = caller.finish();
        assert_eq!(output.code, Some(0));
        let summary = "1 calls, 1 ok, 0 failed";
        assert!(output.stdout.contains(summary), "{}", output.stdout);
    }
}

#[test]
fn a_call_in_progress_is_finished_after_a_signal() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    let mut command = Command::new(CALLER);
    command.args([
        "--admin-listen=127.0.0.1:0",
        "--log-level=info",
        "--timeout=1m",
        &url,
    ]);
    let caller = Process::spawn(&mut command);
    let admin = caller.wait_for_admin();
    let (mut stream, _) = listener.accept().expect("a call");
    let mut request = [0; 1024];
    let n = stream.read(&mut request).expect("a request");
    let request = String::from_utf8_lossy(&request[..n]).to_lowercase();
    assert!(request.contains("\r\nx-request-id: "), "{request}");
    let agent = concat!("\r\nuser-agent: caller/", env!("CARGO_PKG_VERSION"), "\r\n");
    assert!(request.contains(agent), "{request}");
    caller.signal(Signal::TERM);
    caller.wait_for_stderr("shutting down");
    assert_eq!(get(admin, "/livez").status(), 200);
    assert_eq!(get(admin, "/readyz").status(), 503);
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        .expect("it waits");
    let output = caller.finish();
    assert_eq!(output.code, Some(0));
    let block = "\nlate\nResponse received successfully!\n";
    assert!(output.stdout.contains(block), "{}", output.stdout);
}

#[test]
fn probes_succeed_while_the_caller_runs() {
    let bed = Bed::start(&["backend-1"]);
    let mut command = bed.caller(CALLER);
    command
        .env("CALLER_ADMIN_LISTEN", "127.0.0.1:0")
        .arg("--log-level=info");
    let caller = Process::spawn(&mut command);
    let admin = caller.wait_for_admin();
    assert_eq!(get(admin, "/livez").status(), 200);
    assert_eq!(get(admin, "/readyz").status(), 200);
}

#[test]
fn a_bad_value_exits_2_and_names_the_flag() {
    for (args, named) in [
        (&["ftp://backend/"][..], "[TARGET]"),
        (&["http://"], "[TARGET]"),
        (&["--targets=/nosuch"], "--targets"),
        (&["--key=/nosuch"], "--cert"),
        (&["--interval=x"], "--interval"),
        (&["--timeout=0s"], "--timeout"),
        (&["--count=0"], "--count"),
        (&["--format=xml"], "--format"),
        (&["--ip-family=5"], "--ip-family"),
        (&["--nameserver=dns"], "--nameserver"),
        (&["--admin-listen=x"], "--admin-listen"),
        (&["--nosuch"], "--nosuch"),
    ] {
        let output = run(Command::new(CALLER).args(args));
        assert_eq!(output.code, Some(2), "{args:?}");
        assert!(output.stderr.contains(named), "{args:?}: {}", output.stderr);
    }
}

#[test]
fn an_admin_address_in_use_exits_1_and_is_named_in_the_error() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = taken.local_addr().expect("it is bound").to_string();
    let output = run(Command::new(CALLER).args(["--admin-listen", &addr]));
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains(&addr), "{}", output.stderr);
}

#[test]
fn a_run_with_a_count_ignores_a_default_admin_port_in_use() {
    let bed = Bed::start(&["backend-1"]);
    // If this fails, another process has the port, which is just as good.
    let _taken = TcpListener::bind(("0.0.0.0", 8082));
    let mut command = bed.caller(CALLER);
    command.env_remove("CALLER_ADMIN_LISTEN");
    let output = run(command.arg("--count=1"));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(output.stderr, "");
    // Without a count, the port is needed for the probes.
    let mut command = bed.caller(CALLER);
    command.env_remove("CALLER_ADMIN_LISTEN");
    let output = run(&mut command);
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains(":8082"), "{}", output.stderr);
}

#[test]
fn idle_admin_clients_do_not_delay_calls() {
    let bed = Bed::start(&["backend-1"]);
    let mut command = bed.caller(CALLER);
    command
        .env("CALLER_ADMIN_LISTEN", "127.0.0.1:0")
        .args(["--log-level=info", "--interval=10ms"]);
    let caller = Process::spawn(&mut command);
    let admin = caller.wait_for_admin();
    let hung: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(admin).expect("it listens"))
        .collect();
    let calls = || caller.stdout().matches("successfully").count();
    let before = calls();
    while calls() < before + 20 {
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(hung);
    caller.signal(Signal::TERM);
    assert_eq!(caller.finish().code, Some(0));
}

#[test]
fn calls_go_on_while_stdout_is_full_or_closed() {
    let bed = Bed::start(&["backend-1"]);
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("it is there");
    let (reader, closed) = std::io::pipe().expect("a pipe");
    drop(reader);
    for (stdout, word) in [
        (Stdio::from(full), "No space left on device"),
        (closed.into(), "Broken pipe"),
    ] {
        let output = bed
            .caller(CALLER)
            .args(["--count=3", "--interval=0s"])
            .stdout(stdout)
            .output()
            .expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
}

#[test]
fn calls_probes_and_shutdown_work_while_stdout_is_not_read() {
    let bed = Bed::start(&["backend-1"]);
    let mut command = bed.caller(CALLER);
    command.env("CALLER_ADMIN_LISTEN", "127.0.0.1:0").args([
        "--log-level=info",
        "--interval=0s",
        "--format=json",
    ]);
    let caller = Process::spawn_unread(&mut command);
    let admin = caller.wait_for_admin();
    let dropped = "caller_output_dropped_total";
    wait_until("lines to be lost", TIMEOUT, || {
        metric(admin, dropped) > Some(100.0)
    });
    let calls = || metric(admin, "caller_calls_total{result=\"ok\"}");
    let before = calls();
    wait_until("calls to go on", TIMEOUT, || calls() > before);
    assert_eq!(get(admin, "/livez").status(), 200);
    caller.signal(Signal::TERM);
    assert_eq!(caller.finish().code, Some(0));
}

#[test]
fn no_line_is_lost_to_a_slow_reader_of_stdout() {
    let bed = Bed::start(&["backend-1"]);
    let mut command = bed.caller(CALLER);
    command.args(["--interval=0s", "--count=3000", "--format=json"]);
    let mut slow = Command::new("sh");
    // At first it reads nothing for a while, so that the queue fills up.
    slow.args(["-c", "sleep 0.5; wc -l"]);
    let mut caller = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let stdout = caller.stdout.take().expect("it is piped");
    let lines = slow.stdin(stdout).output().expect("it runs").stdout;
    assert_eq!(String::from_utf8_lossy(&lines).trim(), "3001");
    assert_eq!(caller.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_jump_of_the_clock_changes_only_the_printed_dates() {
    let Some(_) = tool("faketime") else { return };
    // Debian and Ubuntu have it in a folder named after the architecture.
    let library = std::fs::read_dir("/usr/lib")
        .expect("it is there")
        .find_map(|entry| {
            let library = entry.ok()?.path().join("faketime/libfaketime.so.1");
            library.is_file().then_some(library)
        });
    let bed = Bed::start(&["backend-1"]);
    let clock = bed.resolv_conf().with_file_name("clock");
    std::fs::write(&clock, "+0").expect("it can be written");
    let mut command = bed.caller(CALLER);
    command
        .arg("--interval=20ms")
        .env("LD_PRELOAD", library.expect("it comes with faketime"))
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        // Intervals and durations use the monotonic clock, which never jumps.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1");
    let caller = Process::spawn(&mut command);
    caller.wait_for_stdout("Response received successfully!");
    for (jump, since) in [
        ("@2001-06-01 12:00:00", " UTC 2001 ==="),
        ("@2046-06-01 12:00:00", " UTC 2046 ==="),
    ] {
        std::fs::write(&clock, jump).expect("it can be written");
        caller.wait_for_stdout(since);
    }
    caller.signal(Signal::TERM);
    let output = caller.finish();
    let (_, summary) = output.stdout.rsplit_once("\n--- ").expect("a summary");
    assert!(summary.contains(" 0 failed (0.0%)"), "{summary}");
    let gap = summary
        .lines()
        .find_map(|line| line.strip_prefix("longest gap without a success: "));
    assert!(gap.is_some_and(|gap| gap.ends_with("ms")), "{summary}");
}

#[test]
fn variables_may_end_with_a_newline_or_be_empty_and_errors_name_them() {
    let bed = Bed::start(&["backend-1"]);
    let with = |variables: &[(&str, &str)]| {
        let mut command = bed.caller(CALLER);
        for (name, value) in variables {
            command.env(name, value);
        }
        run(command.arg("--count=1"))
    };
    // From a Secret that was made from a file, and from an optional key that is missing.
    let url = format!("{}\n", bed.url("backend"));
    let odd = [
        ("CALLER_URL", url.as_str()),
        ("CALLER_INTERVAL", "5ms\n"),
        ("CALLER_KEEP_ALIVE", "false\n"),
        ("CALLER_TIMEOUT", ""),
        ("CALLER_DURATION", " "),
        ("CALLER_FORMAT", "json\r\n"),
    ];
    let output = with(&odd);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(output.stdout.starts_with('{'), "{}", output.stdout);
    for (name, value) in [
        ("CALLER_TIMEOUT", "soon"),
        ("CALLER_INTERVAL", "5 parsecs\n"),
        ("CALLER_NAMESERVER", "dns"),
        ("CALLER_URL", "ftp://backend/"),
    ] {
        let output = with(&[(name, value)]);
        assert_eq!(output.code, Some(2), "{name}");
        let named = format!("from the variable {name}: ");
        assert!(output.stderr.contains(&named), "{}", output.stderr);
    }
    // A bad value from the command line is not attributed to the variable.
    let mut command = bed.caller(CALLER);
    command.env("CALLER_TIMEOUT", "5s").arg("--timeout=soon");
    let output = run(&mut command);
    assert!(!output.stderr.contains("the variable"), "{}", output.stderr);
}

#[test]
fn a_value_that_is_not_utf_8_is_named_by_its_flag_or_variable() {
    let not_utf8 = OsStr::from_bytes(b"\xff");
    let said = |command: &mut Command| {
        // A path need not be UTF-8.
        let output = run(command.env("CALLER_CACERT", not_utf8).arg("--count=1"));
        assert_eq!(output.code, Some(2), "{}", output.stderr);
        output.stderr
    };
    let variable = said(Command::new(CALLER).env("CALLER_INTERVAL", not_utf8));
    assert_eq!(
        variable,
        "error: invalid value for the variable CALLER_INTERVAL: it is not UTF-8\n"
    );
    let flag = "error: invalid value for '--interval': it is not UTF-8\n";
    let mut with_equals = OsString::from("--interval=");
    with_equals.push(not_utf8);
    assert_eq!(said(Command::new(CALLER).arg(with_equals)), flag);
    let mut apart = Command::new(CALLER);
    assert_eq!(said(apart.arg("--interval").arg(not_utf8)), flag);
}
