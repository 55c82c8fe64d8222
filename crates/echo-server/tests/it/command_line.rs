//! The command line of `echo-server`: what http-echo was observed to do with its arguments.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use test_support::http::get;
use test_support::process::{Process, echo_server, run};

use crate::ECHO_SERVER;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(ECHO_SERVER);
    command.args(args).env("ECHO_ADMIN_LISTEN", "off");
    command
}

/// The body of a response of this server.
fn body(command: &mut Command) -> String {
    let (_server, addr) = echo_server(command);
    get(addr, "/").body
}

#[test]
fn all_four_go_flag_spellings_are_accepted() {
    for args in [
        &["-text=x"][..],
        &["-text", "x"],
        &["--text=x"],
        &["--text", "x"],
    ] {
        assert_eq!(body(&mut command(args)), "x\n");
    }
}

#[test]
fn the_value_of_a_flag_may_look_like_a_flag() {
    assert_eq!(body(&mut command(&["-text", "-listen=:1"])), "-listen=:1\n");
}

#[test]
fn the_text_comes_from_the_environment_when_no_flag_has_one() {
    assert_eq!(body(command(&[]).env("ECHO_TEXT", "env")), "env\n");
    assert_eq!(body(command(&["-text="]).env("ECHO_TEXT", "env")), "env\n");
    assert_eq!(
        body(command(&["-text=flag"]).env("ECHO_TEXT", "env")),
        "flag\n"
    );
}

#[test]
fn the_last_of_two_equal_flags_wins() {
    assert_eq!(body(&mut command(&["-text=a", "-text=b"])), "b\n");
}

#[test]
fn the_text_may_be_any_bytes() {
    let text = std::ffi::OsStr::from_bytes(b"\xc3\x28 raw");
    let (_server, addr) = echo_server(command(&["-text"]).arg(text));
    let reply = get_bytes(addr);
    assert!(reply.ends_with(b"\r\n\r\n\xc3\x28 raw\n"));
}

/// A response as it is sent.
fn get_bytes(addr: SocketAddr) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(addr).expect("it listens");
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("it reads");
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).expect("it answers");
    reply
}

#[test]
fn a_missing_text_exits_127_with_the_message_of_http_echo() {
    let words = "Missing -text option or ECHO_TEXT env var!\n";
    for mut command in [
        command(&[]),
        command(&["-text="]),
        command(&["left", "over"]),
    ] {
        let output = run(&mut command);
        assert_eq!((output.code, output.stderr.as_str()), (Some(127), words));
    }
}

#[test]
fn arguments_left_over_exit_127_with_the_message_of_http_echo() {
    for args in [
        &["-text=x", "y"][..],
        &["-text=x", "--", "y"],
        &["-text=x", "--", "-listen=:1"],
        &["-text=x", "y", "-nosuch"],
    ] {
        let output = run(&mut command(args));
        assert_eq!(
            (output.code, output.stderr.as_str()),
            (Some(127), "Too many arguments!\n")
        );
    }
}

#[test]
fn an_unknown_flag_or_a_bad_value_exits_2_and_names_the_flag() {
    for (args, named) in [
        (&["-nosuch=1"][..], "--nosuch"),
        (&["-status-code=abc"], "--status-code"),
        (&["-status-code=99"], "--status-code"),
        (&["-status-code=199"], "--status-code"),
        (&["-status-code=600"], "--status-code"),
        (&["-listen=nowhere"], "--listen"),
        (&["-listen=:65536"], "--listen"),
        (&["-listen"], "--listen"),
        (&["-admin-listen=x"], "--admin-listen"),
        (&["-access-log=xml"], "--access-log"),
        (&["-drain-delay=soon"], "--drain-delay"),
        (&["-content-type=a\nb"], "--content-type"),
        (&["-max-connections=0"], "--max-connections"),
        (&["-max-connections=99999999999"], "--max-connections"),
        (&["-idle-timeout=0s"], "--idle-timeout"),
        (&["-header-timeout=0s"], "--header-timeout"),
        (&["-threads=0"], "--threads"),
        (&["-log-level=loud"], "--log-level"),
        (&["-version=maybe"], "--version"),
    ] {
        let output = run(command(args).env("ECHO_TEXT", "x"));
        assert_eq!(output.code, Some(2), "{args:?}");
        assert!(output.stderr.contains(named), "{args:?}: {}", output.stderr);
        assert_eq!(output.stdout, "", "{args:?}");
    }
}

#[test]
fn a_bad_value_in_the_environment_exits_2_and_names_the_flag() {
    let output = run(command(&["-text=x"]).env("ECHO_STATUS_CODE", "abc"));
    assert_eq!(output.code, Some(2));
    assert!(output.stderr.contains("--status-code"), "{}", output.stderr);
}

#[test]
fn the_version_is_printed_to_stdout() {
    let version = concat!("echo-server ", env!("CARGO_PKG_VERSION"), "\n");
    for arg in ["-version", "--version", "-version=true"] {
        let output = run(&mut command(&[arg]));
        assert_eq!((output.code, output.stdout.as_str()), (Some(0), version));
    }
    assert_eq!(body(&mut command(&["-version=false", "-text=x"])), "x\n");
}

#[test]
fn help_names_flags_and_variables_but_not_the_values_of_variables() {
    for arg in ["-h", "-help", "--help"] {
        let output = run(command(&[arg]).env("ECHO_TEXT", "a secret"));
        assert_eq!(output.code, Some(0));
        for name in [
            "--text",
            "ECHO_TEXT",
            "--drain-delay",
            "ECHO_DRAIN_DELAY",
            "5s",
        ] {
            assert!(
                output.stdout.contains(name),
                "{name} is not in:\n{}",
                output.stdout
            );
        }
        assert!(!output.stdout.contains("a secret"));
    }
}

#[test]
fn an_address_in_use_exits_1_and_is_named_in_the_error() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let addr = taken.local_addr().expect("it is bound").to_string();
    for args in [["-text=x", "-listen"], ["-text=x", "-admin-listen"]] {
        let output = run(command(&args).arg(&addr).env("ECHO_LISTEN", "127.0.0.1:0"));
        assert_eq!(output.code, Some(1));
        assert!(output.stderr.contains(&addr), "{}", output.stderr);
        assert!(output.stderr.contains("in use"), "{}", output.stderr);
    }
}

#[test]
fn a_port_without_an_address_listens_on_ipv4_and_ipv6() {
    let server = Process::spawn(&mut command(&["-text=x", "-listen=:0"]));
    let addr = server.wait_for_field("server is listening", "address");
    let port = addr.parse::<SocketAddr>().expect("an address").port();
    assert_eq!(get((Ipv4Addr::LOCALHOST, port).into(), "/").body, "x\n");
    // Where IPv6 is disabled on this machine, there is nothing to test.
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        assert_eq!(get((Ipv6Addr::LOCALHOST, port).into(), "/").body, "x\n");
    }
}

#[test]
fn the_default_admin_port_in_use_is_a_warning_and_a_given_one_an_error() {
    // If this fails, another process has the port, which is just as good.
    let _held = TcpListener::bind("[::]:8081");
    let (server, addr) = echo_server(command(&["-text=x"]).env_remove("ECHO_ADMIN_LISTEN"));
    let line = server.wait_for_stderr("the default admin port is in use");
    assert!(line.contains("WARN") && line.contains(":8081"), "{line}");
    assert_eq!(get(addr, "/").status(), 200);
    for asked in ["-admin-listen=:8081", "--admin-listen=0.0.0.0:8081"] {
        let output = run(&mut command(&["-text=x", "-listen=127.0.0.1:0", asked]));
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains(":8081"), "{output:?}");
    }
}

#[test]
fn durations_over_the_range_of_the_clock_exit_2_and_name_the_flag() {
    for flag in [
        "drain-delay",
        "drain-timeout",
        "header-timeout",
        "idle-timeout",
        "fault-delay",
    ] {
        for value in ["584542046090y", "18446744073709551615s"] {
            let output = run(&mut command(&["-text=x", &format!("-{flag}={value}")]));
            assert_eq!(output.code, Some(2), "{output:?}");
            assert!(output.stderr.contains(flag), "{output:?}");
        }
    }
    // A very long duration within the range works.
    let longest = "--header-timeout=1000000000y";
    let (_server, addr) = echo_server(&mut command(&["-text=x", longest]));
    assert_eq!(get(addr, "/").status(), 200);
}

#[test]
fn too_little_memory_for_the_threads_exits_1() {
    // A thread reserves two megabytes for its stack, and here there is room for some of them.
    let script = format!(
        "ulimit -v 200000; exec {ECHO_SERVER} -text=x -listen=127.0.0.1:0 -admin-listen=off --threads=500"
    );
    let output = run(Command::new("sh").args(["-c", &script]));
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    assert!(
        output.stderr.contains("echo-server: cannot start: "),
        "{}",
        output.stderr
    );
}
