//! `caller` under the name `curl`, compared with the real curl: the same body and the same exit code.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use test_support::bed::Bed;
use test_support::pki::{Pki, free_addr};
use test_support::process::{Output, run};
use test_support::tool;

use crate::{CALLER, server};

/// A link named `curl` to the binary, as the image has it.
struct Link {
    folder: TempDir,
}

impl Link {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        symlink(CALLER, folder.path().join("curl")).expect("it can be linked");
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("curl")
    }

    fn run(&self, args: &[&str]) -> Output {
        run(Command::new(self.path()).args(args))
    }
}

/// With these arguments, both programs print the same on stdout and exit with the same code.
fn assert_same(reply: &'static str, args: &[&str]) {
    let Some(real) = tool("curl") else { return };
    let url = format!("http://{}/path?q=1", server(reply));
    let args = [args, &[&url]].concat();
    let theirs = run(Command::new(real).args(&args));
    let ours = Link::new().run(&args);
    let seen = format!("{args:?}: {ours:?} and not {theirs:?}");
    assert_eq!(
        (&ours.stdout, ours.code),
        (&theirs.stdout, theirs.code),
        "{seen}"
    );
}

const OK: &str = "HTTP/1.1 200 OK\r\nServer: Odd\r\nX-One: 1\r\nContent-Length: 6\r\nConnection: close\r\n\r\nHello\n";
const MISSING: &str =
    "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\nnope\n";

macro_rules! same_as_curl {
    ($($test:ident: $reply:expr, $args:expr;)*) => {
        $(#[test]
        fn $test() {
            assert_same($reply, &$args);
        })*
    };
}

same_as_curl! {
    the_body_is_printed: OK, ["-s"];
    no_newline_is_added_to_the_body: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", ["-sS"];
    i_prints_the_head_unchanged: OK, ["-si"];
    head_requests_print_the_head: OK, ["-sI"];
    an_error_status_exits_0: MISSING, ["-s"];
    an_error_status_with_fail_exits_22: MISSING, ["-sf"];
    the_head_of_an_error_is_printed_with_fail: MISSING, ["-sf", "-i"];
    head_has_no_body_with_any_method: OK, ["-sI", "-X", "GET"];
    write_out_prints_the_exit_code: MISSING, ["-sf", "-w", "%{exitcode}"];
    a_redirect_is_not_followed: "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 3\r\n\r\ngo\n", ["-s"];
    write_out_prints_the_status: MISSING, ["-s", "-o", "/dev/null", "-w", "%{http_code}\\n"];
    write_out_prints_percent_signs: OK, ["-s", "-w", "%%{http_code} 1% %% %{http_code}\\n"];
    write_out_prints_sizes_and_addresses: OK, ["-s", "-w", "[%{size_download} %{remote_ip} %{exitcode}]"];
    an_empty_reply_exits_52: "", ["-s"];
    an_incomplete_body_is_printed_and_exits_18: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nHello", ["-s"];
    a_chunked_body_is_printed: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n0\r\n\r\n", ["-s"];
    a_method_and_a_header_are_sent: OK, ["-s", "-X", "PUT", "-H", "X-Two: 2"];
}

#[test]
fn exit_codes_of_failures_are_those_of_curl() {
    let Some(real) = tool("curl") else { return };
    let closed = format!("http://{}/", free_addr());
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let silent = format!("http://{}/", silent.local_addr().expect("it is bound"));
    let link = Link::new();
    for args in [
        &["-s", &closed][..],
        &["-s", "-m", "0.3", &silent],
        &["-s", "http://a b/"],
        &["-s", "ftpx://backend/"],
        &["-s"],
        &["--no-such-option", &closed],
        &["-m", "x", &closed],
    ] {
        let theirs = run(Command::new(&real).args(args));
        let ours = link.run(args);
        assert_eq!(ours.code, theirs.code, "{args:?}: {ours:?}");
        assert_eq!(ours.stdout, "", "{args:?}");
    }
}

#[test]
fn errors_name_a_likely_cause_and_s_suppresses_them() {
    let link = Link::new();
    let closed = format!("http://{}/", free_addr());
    let loud = link.run(&[&closed]);
    assert!(
        loud.stderr.starts_with("curl: (7) 127.0.0.1:"),
        "{}",
        loud.stderr
    );
    let likely =
        "curl: the connection was refused; likely nothing in this pod listens at that port\n";
    assert!(loud.stderr.ends_with(likely), "{}", loud.stderr);
    assert_eq!(link.run(&["-s", &closed]).stderr, "");
    assert_eq!(link.run(&["-sS", &closed]).stderr.lines().count(), 2);
}

#[test]
fn over_tls_bodies_and_exit_codes_are_those_of_curl() {
    let Some(real) = tool("curl") else { return };
    let Some(pki) = Pki::new() else { return };
    let path = |file: &str| pki.file(file).to_string_lossy().into_owned();
    let trusted = ["--cacert", &path("ca.pem")];
    let plain = server("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    for (certificate, args, code) in [
        ("good", &trusted[..], 0),
        ("good", &["-k"], 0),
        ("expired", &["-k"], 0),
        ("good", &["--cacert", &path("stranger.pem")], 60),
        ("expired", &trusted, 60),
        ("other", &trusted, 60),
        ("self", &trusted, 60),
        ("good", &["--cacert", "/nosuch.pem"], 77),
        ("", &trusted, 35),
    ] {
        let addr = match certificate {
            "" => plain,
            _ => free_addr(),
        };
        let _server = (!certificate.is_empty()).then(|| pki.serve(addr, certificate, &[]));
        let url = format!("https://127.0.0.1:{}/", addr.port());
        let args = [args, &["-s", "-o", "/dev/null", "-w", "%{http_code}", &url]].concat();
        let theirs = run(Command::new(&real).args(&args));
        let ours = Link::new().run(&args);
        let seen = format!("{certificate} {args:?}: {ours:?} and not {theirs:?}");
        assert_eq!(ours.code, theirs.code, "{seen}");
        // The file cannot be read, and so nothing is requested.
        if code != 77 {
            assert_eq!(ours.stdout, theirs.stdout, "{seen}");
        }
        assert_eq!(ours.code, Some(code), "{seen}");
    }
}

#[test]
fn unsupported_schemes_and_options_are_refused_by_name() {
    let link = Link::new();
    for url in ["tcp://backend:1", "ftp://backend/"] {
        let other = link.run(&[url]);
        assert_eq!(other.code, Some(1), "{url}");
        assert!(other.stderr.contains(&url[..3]), "{}", other.stderr);
    }
    let two = link.run(&["http://backend/", "http://backend/"]);
    assert!(
        two.stderr.starts_with("curl: this curl takes one URL\n"),
        "{}",
        two.stderr
    );
    for option in ["-L", "--location", "-d", "--resolve"] {
        let output = link.run(&[option, "http://backend/"]);
        assert_eq!(output.code, Some(2));
        let named = format!("curl: option {option}: this curl does not have it\n");
        assert!(output.stderr.starts_with(&named), "{}", output.stderr);
    }
}

#[test]
fn the_command_of_the_original_demo_works() {
    let bed = Bed::start(&["backend-1"]);
    let link = Link::new();
    // The demo runs `curl http://backend:8080` in a pod of the namespace.
    let mut command = bed.caller(link.path());
    let url = format!("http://backend:{}", bed.service.port());
    let output = run(command.arg(&url));
    assert_eq!(output.stdout, "Hello from Backend Service!\n");
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));

    let output = run(bed.caller(link.path()).args(["-v", &url]));
    for line in [
        "* backend is 127.0.0.1\n",
        "> GET / HTTP/1.1\n",
        &format!("> host: backend:{}\n", bed.service.port()),
        "< HTTP/1.1 200 OK\n",
        "< x-pod-name: backend-1\n",
    ] {
        assert!(
            output.stderr.contains(line),
            "no {line:?} in {}",
            output.stderr
        );
    }
}

#[test]
fn a_failure_leaves_the_output_file_unchanged_and_passwords_are_hidden() {
    let link = Link::new();
    let file = link.folder.path().join("body");
    std::fs::write(&file, "before").expect("it can be written");
    let url = format!("http://user:s3cret@{}/", server(MISSING));
    let output = link.run(&["-f", "-v", "-o", file.to_str().expect("text"), &url]);
    assert_eq!(output.code, Some(22));
    assert_eq!(
        std::fs::read_to_string(&file).expect("it is there"),
        "before"
    );
    assert!(
        output.stderr.contains("> authorization: [hidden]\n"),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("s3cret"), "{}", output.stderr);
}
