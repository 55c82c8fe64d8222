//! The network path between two pods, with a router that drops, rejects and translates packets: `diagnose` or the
//! call itself reports what is wrong, and reports nothing where the path is intact.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use local_cluster::cluster::{NO_DRAIN_DELAY, backend};
use serde_json::Value;
use test_support::documents::assert_shown;
use test_support::netns::{BACKEND, Direction, Place, Routed};
use test_support::pki::Pki;
use test_support::process::{Output, Process, run};
use test_support::tool;
use tokio::runtime::Runtime;

use crate::CALLER;

const PORT: u16 = 8080;

/// A backend behind a router, and a client on the other side.
struct Path {
    _runtime: Runtime,
    routed: Routed,
}

impl Path {
    /// `None` if tools or privileges are missing: the test is to be skipped, and a line has been printed that says so.
    fn new(test: &str) -> Option<Self> {
        let routed = Routed::new(test)?;
        let runtime = Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        routed.at(Place::Backend).enter(|| {
            let _inside = runtime.enter();
            let listen = SocketAddr::from(([0; 8], PORT)).into();
            let server = backend("backend-1", listen, NO_DRAIN_DELAY).expect("a free port");
            runtime.spawn(server.run(pending()));
        });
        drop(_inside);
        Some(Self {
            _runtime: runtime,
            routed,
        })
    }

    fn caller(&self, args: &[&str]) -> Command {
        let mut command = self.routed.client(CALLER);
        command.env("CALLER_ADMIN_LISTEN", "off").args(args);
        command
    }

    fn diagnose(&self, address: IpAddr, args: &[&str]) -> Output {
        run(self.caller(&["diagnose"]).arg(url(address)).args(args))
    }

    fn once(&self, address: IpAddr, args: &[&str]) -> Output {
        run(self.caller(&["once"]).arg(url(address)).args(args))
    }
}

fn url(address: IpAddr) -> String {
    format!("http://{}/", SocketAddr::new(address, PORT))
}

#[test]
fn an_intact_path_is_reported_without_a_failure() {
    let Some(path) = Path::new("well") else {
        return;
    };
    for address in BACKEND {
        let output = path.diagnose(address, &[]);
        assert_eq!(output.code, Some(0), "{}", output.stdout);
        let last: Vec<&str> = output.stdout.lines().rev().take(2).collect();
        let sizes = "      path         8000 bytes passed each way in one request; the interface's MTU is 1500";
        assert_eq!(last[0], sizes, "{}", output.stdout);
        assert_shown(
            "an_intact_path_is_reported_without_a_failure",
            &output.stdout,
        );
        assert!(
            last[1].ends_with(" as backend-1 sees it, too: no NAT"),
            "{}",
            last[1]
        );
        assert!(!output.stdout.contains("FAIL"), "{}", output.stdout);

        let wide = path.once(address, &["--format=wide"]).stdout;
        let last = wide.lines().last().expect("a fourth line");
        assert!(
            last.contains(" nat=no ") && !last.contains("tcp="),
            "{last}"
        );
        let json = path.once(address, &["--format=json"]).stdout;
        let report: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(report["source"]["nat"], false);
        assert_eq!(report["source"]["address"], report["source"]["seen_as"]);
        assert_eq!(report["resent"], Value::Null);
    }
}

#[test]
fn lost_large_packets_are_reported_with_their_size_and_direction() {
    let Some(path) = Path::new("narrow") else {
        return;
    };
    let [v4, v6] = BACKEND;
    for (address, direction, mtu, lost, words) in [
        (v4, Direction::ToClient, 1400, "back", "on the way back"),
        (
            v4,
            Direction::ToBackend,
            1372,
            "there",
            "on the way to the backend",
        ),
        (v6, Direction::ToClient, 1381, "back", "on the way back"),
    ] {
        path.routed.narrow(direction, mtu);
        let output = path.diagnose(address, &[]);
        assert_eq!(output.code, Some(28), "{}", output.stdout);
        let seen = format!("(packets over {mtu} bytes are lost {words}, smaller ones pass)");
        let step = output
            .stdout
            .lines()
            .find(|line| line.starts_with("FAIL  path "));
        assert!(
            step.is_some_and(|step| step.contains(&seen)),
            "{}",
            output.stdout
        );
        assert!(
            output
                .stdout
                .contains("      likely       an MTU on the way that is smaller")
        );
        if (address, lost) == (v4, "back") {
            assert_shown(
                "lost_large_packets_are_reported_with_their_size_and_direction",
                &output.stdout,
            );
        }

        let output = path.diagnose(address, &["--format=json"]);
        let diagnosis: Value = serde_json::from_str(&output.stdout).expect("JSON");
        assert_eq!(diagnosis["result"], "path_mtu", "{diagnosis}");
        assert_eq!(diagnosis["exit_code"], 28);
        let failed = &diagnosis["path"]["failed"]["error"]["detail"];
        assert_eq!(
            (&failed["path_mtu"], &failed["lost"]),
            (&mtu.into(), &lost.into())
        );

        // Small requests pass, and --no-path and methods other than GET send no large ones.
        let output = path.diagnose(address, &["--no-path"]);
        assert_eq!(output.code, Some(0), "{}", output.stdout);
        assert!(!output.stdout.contains(" path "), "{}", output.stdout);
        let output = path.diagnose(address, &["--method=POST"]);
        assert_eq!(output.code, Some(0), "{}", output.stdout);
        path.routed.flush();
    }
}

/// Starts a web server that is not ours, whose responses take several packets.
fn large_answers(path: &Path, port: u16) -> Process {
    let script = format!(
        "import http.server\n\
         class Handler(http.server.BaseHTTPRequestHandler):\n\
         \x20   def do_GET(self):\n\
         \x20       self.send_response(200); self.send_header('Content-Length', '20000'); self.end_headers()\n\
         \x20       self.wfile.write(b'x' * 20000)\n\
         server = http.server.ThreadingHTTPServer(('0.0.0.0', {port}), Handler)\n\
         print('ready', flush=True); server.serve_forever()\n"
    );
    let server = Process::spawn(path.routed.backend("python3").args(["-c", &script]));
    server.wait_for_stdout("ready");
    server
}

#[test]
fn a_large_response_that_is_lost_is_reported_as_path_mtu() {
    let Some(_) = tool("python3") else { return };
    let Some(path) = Path::new("answers") else {
        return;
    };
    let _server = large_answers(&path, 8090);
    let url = "http://10.9.2.2:8090/";
    let diagnose = || {
        run(path
            .caller(&["diagnose", "--timeout=1s", url])
            .env_remove("CALLER_URL"))
    };
    let well = diagnose();
    assert_eq!(well.code, Some(0), "{}", well.stdout);
    let passed =
        "      path         an answer of 20000 bytes passed; the interface's MTU is 1500\n";
    assert!(well.stdout.ends_with(passed), "{}", well.stdout);

    path.routed.narrow(Direction::ToClient, 1333);
    let lost = diagnose();
    assert_eq!(lost.code, Some(28), "{}", lost.stdout);
    let seen = "no more than 0 bytes of body (packets over 1333 bytes are lost on the way back, smaller ones pass)";
    assert!(lost.stdout.contains(seen), "{}", lost.stdout);
    assert!(
        lost.stdout.contains(" failed: path_mtu "),
        "{}",
        lost.stdout
    );
    assert!(
        lost.stdout
            .contains("      what         large packets are lost on the way\n")
    );
}

/// The certificates of a server are in the first large packets of a connection.
#[test]
fn a_tls_handshake_that_is_lost_is_reported_as_path_mtu() {
    let Some(pki) = Pki::new() else { return };
    let Some(path) = Path::new("handshake") else {
        return;
    };
    let mut server = path.routed.backend("openssl");
    server
        .args([
            "s_server", "-www", "-accept", "8443", "-cert", "good.pem", "-key", "good.key",
        ])
        .current_dir(pki.file(""));
    let server = Process::spawn(&mut server);
    server.wait_for_stdout("ACCEPT");
    let diagnose = || {
        let mut command = path.caller(&["diagnose", "--insecure", "--timeout=1s"]);
        run(command
            .env_remove("CALLER_URL")
            .arg("https://10.9.2.2:8443/"))
    };
    let well = diagnose();
    assert_eq!(well.code, Some(0), "{}", well.stdout);
    path.routed.narrow(Direction::ToClient, 700);
    let lost = diagnose();
    assert_eq!(lost.code, Some(28), "{}", lost.stdout);
    let seen = "no answer in the TLS handshake (packets over 700 bytes are lost on the way back, smaller ones pass)";
    assert!(lost.stdout.contains(seen), "{}", lost.stdout);
}

/// A server with the headers of `echo-server`, whose own tests make its accept queue overflow.
#[test]
fn a_full_accept_queue_of_the_backend_is_reported() {
    let Some(_) = tool("python3") else { return };
    let Some(path) = Path::new("backlog") else {
        return;
    };
    let script = "import http.server\n\
         class Handler(http.server.BaseHTTPRequestHandler):\n\
         \x20   def do_GET(self):\n\
         \x20       self.send_response(200)\n\
         \x20       self.send_header('X-Pod-Name', 'backend-9')\n\
         \x20       self.send_header('X-Request-Id', self.headers['X-Request-Id'])\n\
         \x20       self.send_header('X-Peer-Address', '%s:%d' % self.client_address)\n\
         \x20       if self.headers['X-Want-Listen-Overflows']: self.send_header('X-Listen-Overflows', '3')\n\
         \x20       self.send_header('Content-Length', '0'); self.end_headers()\n\
         server = http.server.HTTPServer(('0.0.0.0', 8090), Handler)\n\
         print('ready', flush=True); server.serve_forever()\n";
    let server = Process::spawn(path.routed.backend("python3").args(["-c", script]));
    server.wait_for_stdout("ready");
    let mut command = path.caller(&["diagnose", "http://10.9.2.2:8090/"]);
    let output = run(command.env_remove("CALLER_URL"));
    let line = "      backlog      3 attempts to connect to backend-9 found its accept queue full and were dropped, since it started\n";
    assert!(output.stdout.contains(line), "{}", output.stdout);
    assert_shown(
        "a_full_accept_queue_of_the_backend_is_reported",
        &output.stdout,
    );
}

#[test]
fn a_backend_that_does_not_respond_is_not_reported_as_path_mtu() {
    let Some(_) = tool("python3") else { return };
    let Some(path) = Path::new("silent") else {
        return;
    };
    let script = "import socket, time\ns = socket.create_server(('0.0.0.0', 8090))\nprint('ready', flush=True)\ntime.sleep(600)";
    let server = Process::spawn(path.routed.backend("python3").args(["-c", script]));
    server.wait_for_stdout("ready");
    let output = run(path
        .caller(&["diagnose", "--timeout=500ms", "http://10.9.2.2:8090/"])
        .env_remove("CALLER_URL"));
    assert_eq!(output.code, Some(28), "{}", output.stdout);
    assert!(
        output.stdout.contains("connected, then no answer after "),
        "{}",
        output.stdout
    );
    assert!(
        !output.stdout.contains("large packets"),
        "{}",
        output.stdout
    );
}

#[test]
fn a_lost_syn_is_reported() {
    let Some(path) = Path::new("syn") else { return };
    // Of all SYNs, the first alone.
    let syn = "tcp dport 8080 tcp flags & (syn | ack) == syn limit rate 1/day burst 1 packets drop";
    for (subcommand, format, expected) in [
        ("once", "wide", " tcp=\"1 SYN lost\""),
        (
            "once",
            "json",
            "\"resent\":{\"syns\":1,\"segments\":0,\"in_this_pod\":false}",
        ),
        ("diagnose", "text", ": 1 SYN lost\n"),
    ] {
        path.routed.rule(Place::Router, "forward", syn);
        let url = url(BACKEND[0]);
        let format = format!("--format={format}");
        let output = run(&mut path.caller(&[subcommand, &format, &url]));
        path.routed.flush();
        assert_eq!(output.code, Some(0), "{}", output.stdout);
        assert!(
            output.stdout.contains(expected),
            "{expected}: {}",
            output.stdout
        );
        if subcommand == "diagnose" {
            assert_shown("a_lost_syn_is_reported", &output.stdout);
        }
    }
}

#[test]
fn an_icmp_rejection_is_reported_with_sender_type_and_code() {
    let Some(path) = Path::new("rejects") else {
        return;
    };
    let [v4, v6] = BACKEND;
    let prohibited = "likely a policy or a firewall at ";
    for (address, reject, evidence, likely) in [
        (
            v4,
            "icmp type admin-prohibited",
            "ICMP 3/13 (prohibited by an administrator) from 10.9.1.1",
            prohibited,
        ),
        (
            v4,
            "icmp type host-prohibited",
            "ICMP 3/10 (prohibited by an administrator) from 10.9.1.1",
            prohibited,
        ),
        (
            v4,
            "icmp type host-unreachable",
            "ICMP 3/1 (host unreachable) from 10.9.1.1",
            "likely 10.9.1.1 finds nobody at that address",
        ),
        (
            v6,
            "icmpv6 type admin-prohibited",
            "ICMP 1/1 (prohibited by an administrator) from fd09:1::1",
            prohibited,
        ),
        (
            v6,
            "icmpv6 type no-route",
            "ICMP 1/0 (no route) from fd09:1::1",
            "likely fd09:1::1 has no route",
        ),
    ] {
        let rule = format!("tcp dport 8080 reject with {reject}");
        path.routed.rule(Place::Router, "forward", &rule);
        let output = path.once(address, &["--expect=connect_unreachable"]);
        assert_eq!(output.code, Some(0), "{reject}: {}", output.stdout);
        assert!(
            output.stdout.contains(evidence),
            "{reject}: {}",
            output.stdout
        );
        assert!(
            output.stdout.contains(likely),
            "{reject}: {}",
            output.stdout
        );
        if reject == "icmp type admin-prohibited" {
            assert_shown(
                "an_icmp_rejection_is_reported_with_sender_type_and_code",
                &output.stdout,
            );
        }
        path.routed.flush();
    }
    // A reset cannot be told from one of the backend.
    path.routed.rule(
        Place::Router,
        "forward",
        "tcp dport 8080 reject with tcp reset",
    );
    let reset = path.once(v4, &[]);
    assert_eq!(reset.code, Some(7), "{}", reset.stdout);
    assert!(!reset.stdout.contains("ICMP"), "{}", reset.stdout);
}

#[test]
fn the_last_hop_that_responds_is_reported_where_packets_are_dropped() {
    let Some(path) = Path::new("dropped") else {
        return;
    };
    for (address, router) in BACKEND.into_iter().zip(["10.9.1.1", "fd09:1::1"]) {
        path.routed
            .rule(Place::Router, "forward", "tcp dport 8080 drop");
        let output = path.diagnose(address, &["--connect-timeout=500ms"]);
        assert_eq!(output.code, Some(28), "{}", output.stdout);
        let last = output.stdout.lines().last().expect("a line");
        let hop = format!(
            "      path         the last hop that answered is number 1, {router}; packets are dropped there or beyond"
        );
        assert!(last.starts_with(&hop), "{}", output.stdout);
        if address.is_ipv4() {
            assert_shown(
                "the_last_hop_that_responds_is_reported_where_packets_are_dropped",
                &output.stdout,
            );
        }
        let without = path.diagnose(address, &["--connect-timeout=500ms", "--no-path"]);
        assert!(!without.stdout.contains(" hop "), "{}", without.stdout);
        path.routed.flush();
    }
    path.routed
        .rule(Place::Client, "output", "tcp dport 8080 drop");
    let output = path.diagnose(BACKEND[0], &["--connect-timeout=300ms"]);
    assert!(
        output.stdout.contains("no hop of 16 answered"),
        "{}",
        output.stdout
    );
}

#[test]
fn nat_is_reported_with_the_address_that_the_backend_sees() {
    let Some(path) = Path::new("nat") else { return };
    path.routed.at(Place::Router).sh(
        "nft add chain inet test nat '{ type nat hook postrouting priority 100 ; }'
         nft add rule inet test nat oifname backend masquerade",
    );
    let output = path.diagnose(BACKEND[0], &[]);
    assert_eq!(output.code, Some(0), "{}", output.stdout);
    let source = "      source       seen by backend-1 as 10.9.2.1: NAT on the way; policies there see that address\n";
    assert!(output.stdout.contains(source), "{}", output.stdout);
    assert_shown(
        "nat_is_reported_with_the_address_that_the_backend_sees",
        &output.stdout,
    );
    let wide = path.once(BACKEND[0], &["--format=wide"]).stdout;
    assert!(wide.contains(" seen_as=10.9.2.1:"), "{wide}");
    let json = path.once(BACKEND[0], &["--format=json"]).stdout;
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["source"]["nat"], true);
}

/// A sidecar accepts the connection, and opens another one to the backend in its pod.
#[test]
fn a_sidecar_of_the_backend_is_not_reported_as_nat() {
    let Some(_) = tool("python3") else { return };
    let Some(path) = Path::new("sidecar") else {
        return;
    };
    let script = "import socket, threading\n\
         def copy(a, b):\n\
         \x20   while data := a.recv(65536): b.sendall(data)\n\
         \x20   b.shutdown(socket.SHUT_WR)\n\
         server = socket.create_server(('0.0.0.0', 15006))\n\
         print('ready', flush=True)\n\
         while True:\n\
         \x20   a, _ = server.accept(); b = socket.create_connection(('127.0.0.1', 8080))\n\
         \x20   for pair in ((a, b), (b, a)): threading.Thread(target=copy, args=pair, daemon=True).start()\n";
    let sidecar = Process::spawn(path.routed.backend("python3").args(["-c", script]));
    sidecar.wait_for_stdout("ready");
    let mut command = path.caller(&["diagnose", "http://10.9.2.2:15006/"]);
    let output = run(command.env_remove("CALLER_URL"));
    assert_eq!(output.code, Some(0), "{}", output.stdout);
    let line = "      source       backend-1 was called by 127.0.0.1 in its own pod, a sidecar or a proxy: what is told of TCP ends there\n";
    assert!(output.stdout.contains(line), "{}", output.stdout);
    assert_shown(
        "a_sidecar_of_the_backend_is_not_reported_as_nat",
        &output.stdout,
    );
}

#[test]
fn diagnose_works_without_proc() {
    let Some(_) = tool("unshare") else { return };
    let Some(path) = Path::new("no-proc") else {
        return;
    };
    path.routed.narrow(Direction::ToBackend, 1400);
    let script = format!(
        "mount -t tmpfs none /proc && mount -t tmpfs none /sys && exec {CALLER} diagnose {}",
        url(BACKEND[0])
    );
    let mut bare = path.routed.client("unshare");
    let output = run(bare.args(["--mount", "sh", "-c", &script]));
    assert_eq!(output.code, Some(28), "{}{}", output.stdout, output.stderr);
    // The MTU of the interface and the retransmissions are not known.
    let seen = "(packets over 1400 bytes are lost on the way to the backend, smaller ones pass)";
    assert!(output.stdout.contains(seen), "{}", output.stdout);
}
