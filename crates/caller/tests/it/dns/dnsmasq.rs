//! Lookups answered by dnsmasq, a name server that is not ours.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;

use test_support::bed::Bed;
use test_support::pki::free_addr;
use test_support::process::{Output, Process, run};
use test_support::{Tool, tool};

const NAMESPACE: &str = "pod-to-pod-communication.svc.cluster.local";

/// Starts a dnsmasq that is authoritative for `cluster.local`, as CoreDNS is.
fn dnsmasq(program: Tool, hosts: &str) -> (Process, SocketAddr) {
    let addr = free_addr();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(hosts.as_bytes()).expect("it can be written");
    let mut command = Command::new(program);
    command
        .args([
            "--keep-in-foreground",
            "--log-facility=-",
            "--pid-file=",
            "--conf-file=/dev/null",
        ])
        .args([
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--listen-address=127.0.0.1",
        ])
        .args(["--user=root", "--local=/cluster.local/", "--addn-hosts"])
        .arg(file.path())
        .arg(format!("--port={}", addr.port()));
    let process = Process::spawn(&mut command);
    process.wait_for_stderr("read ");
    (process, addr)
}

fn call(bed: &Bed, dns: SocketAddr, args: &[&str]) -> Output {
    let mut command = bed.caller(crate::CALLER);
    command.env("CALLER_NAMESERVER", dns.to_string());
    run(command.args(["--count=1", "--format=wide"]).args(args))
}

#[test]
fn dnsmasq_gives_addresses_nxdomain_and_nodata() {
    let Some(program) = tool("dnsmasq") else {
        return;
    };
    let (_dnsmasq, dns) = dnsmasq(program, &format!("127.0.0.1 backend.{NAMESPACE}\n"));
    let bed = Bed::start(&["backend-1"]);
    for name in [
        "backend",
        &format!("backend.{NAMESPACE}"),
        &format!("backend.{NAMESPACE}."),
    ] {
        let output = call(&bed, dns, &[&bed.url(name)]);
        assert!(
            output.stdout.contains("Response received successfully!"),
            "{}",
            output.stdout
        );
    }
    let output = call(&bed, dns, &[&bed.url("nosuch")]);
    assert!(
        output.stdout.contains("NXDOMAIN for nosuch."),
        "{}",
        output.stdout
    );
    let output = call(&bed, dns, &["--ip-family=6"]);
    assert!(
        output.stdout.contains("NODATA for backend."),
        "{}",
        output.stdout
    );
}

#[test]
fn a_truncated_response_is_retried_over_tcp() {
    let Some(program) = tool("dnsmasq") else {
        return;
    };
    // The response has 60 addresses. The Service listens at one of them only, which need not be the first.
    let hosts: Vec<String> = (1..=60)
        .map(|n| format!("127.0.0.{n} backend.{NAMESPACE}\n"))
        .collect();
    let (_dnsmasq, dns) = dnsmasq(program, &hosts.concat());
    let bed = Bed::start(&["backend-1"]);
    let output = call(&bed, dns, &[]);
    assert!(
        output.stdout.contains("pod=backend-1 address=127.0.0.1:"),
        "{}",
        output.stdout
    );
}
