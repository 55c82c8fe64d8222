//! Measures `caller`, and the shell loop around curl that it replaces.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use local_cluster::cluster::{SEARCH, SERVICE};
use local_cluster::dns::{Dns, Records};
use test_support::pki::{Pki, free_addr};
use test_support::{tool, wait_until};
use tokio::runtime::Runtime;

use crate::process::Process;

/// Timeout for any of these measurements.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A cluster DNS, and a backend at every address of 127.0.0.0/8, for callers to call.
pub(crate) struct Bed {
    records: Records,
    dns: Dns,
    _backends: [Process; 2],
    ports: [u16; 2],
    files: tempfile::TempDir,
    caller: PathBuf,
    _runtime: Runtime,
}

impl Bed {
    pub(crate) fn start(caller: &Path, echo_server: &Path) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let records = Records::default();
        let dns = runtime.block_on(Dns::start(0, records.clone()));
        let files = tempfile::tempdir().expect("a directory");
        std::fs::write(files.path().join("resolv.conf"), SEARCH).expect("it can be written");
        let ports = [(); 2].map(|()| {
            let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0));
            listener
                .and_then(|l| l.local_addr())
                .expect("a free port")
                .port()
        });
        let backend = |port: u16, more: &[&str]| {
            let mut command = Command::new(echo_server);
            command.args(["-text=Hello from Backend Service!", "--admin-listen=off"]);
            command.arg(format!("-listen=0.0.0.0:{port}")).args(more);
            Process::start(&command, "0-1")
        };
        let bed = Self {
            _backends: [
                backend(ports[0], &[]),
                backend(ports[1], &["--fault-percent=100", "--fault-delay=1h"]),
            ],
            dns: dns.expect("a free port"),
            records,
            ports,
            files,
            caller: caller.to_owned(),
            _runtime: runtime,
        };
        for port in ports {
            wait_until("a backend", TIMEOUT, || {
                std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
            });
        }
        bed
    }

    /// The processor time of each of this many calls by `caller`, to this many addresses, and its peak memory in bytes.
    pub(crate) fn caller(&self, addresses: u16, calls: u32) -> (Duration, u64) {
        let [high, low] = addresses.to_be_bytes();
        let last = u32::from(Ipv4Addr::new(127, 1, high, low));
        let first = last - u32::from(addresses) + 1;
        let all: Vec<IpAddr> = (first..=last).map(|ip| Ipv4Addr::from(ip).into()).collect();
        self.records.set(SERVICE, all);
        let rounds = calls.div_ceil(addresses.into());
        let caller = format!(
            "{} --admin-listen=off --interval=0s --count={calls} {} --timeout=60s \
             --resolv-conf={} --nameserver={} http://backend:{}/",
            self.caller.display(),
            if addresses > 1 { "--each-address" } else { "" },
            self.files.path().join("resolv.conf").display(),
            self.dns.addr,
            self.ports[0],
        );
        let (cpu, peak) = run(&caller);
        (cpu / (rounds * u32::from(addresses)), peak)
    }

    /// The processor time of each of this many rounds of the loop, which looks up no name here, and the peak memory of
    /// curl in bytes.
    pub(crate) fn curl_loop(&self, rounds: u32) -> (Duration, u64) {
        let url = format!("http://127.0.0.1:{}/", self.ports[0]);
        let round = format!("date; curl -s {url}; echo; sleep 0");
        let (cpu, _) = run(&format!(
            "i=0; while [ $i -lt {rounds} ]; do {round}; i=$((i+1)); done"
        ));
        let slow = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[1]));
        let mut curl = Command::new("curl");
        let curl = Process::start(curl.arg("-s").arg(format!("http://{slow}/")), "0-1");
        // Once curl waits for its response, its memory no longer grows, and two readings are the same.
        let mut peak = 0;
        wait_until("a curl that waits", TIMEOUT, || {
            let before = std::mem::replace(&mut peak, curl.peak_memory());
            before == peak && curl.name() == "curl"
        });
        (cpu / rounds, peak)
    }
}

/// The processor time of each call over TLS with a handshake: of `caller`, and of a new curl for each call. `None` if
/// tools are missing.
pub(crate) fn over_tls(caller: &Path, calls: u32, rounds: u32) -> Option<(Duration, Duration)> {
    let _ = tool("curl")?;
    let pki = Pki::new()?;
    let addr = free_addr();
    let _server = pki.serve(addr, "good", &[]);
    let ca = pki.file("ca.pem");
    let (ca, url) = (ca.display(), format!("https://{addr}/"));
    let (ours, _) = run(&format!(
        "{} --admin-listen=off --interval=0s --count={calls} --cacert={ca} {url}",
        caller.display()
    ));
    let (theirs, _) = run(&format!(
        "i=0; while [ $i -lt {rounds} ]; do curl -s --cacert {ca} {url}; i=$((i+1)); done"
    ));
    Some((ours / calls, theirs / rounds))
}

/// Runs a script, and returns its processor time and the peak memory of the programs that it runs.
fn run(script: &str) -> (Duration, u64) {
    let mut shell = Command::new("sh");
    // A shell whose processor time, with that of its children, can be read at the end.
    shell.arg("-c").arg(format!("{script}; exec sleep 1h"));
    let process = Process::start(&shell, "0-1");
    let mut peak = 0;
    wait_until(script, TIMEOUT, || {
        let done = process.name() == "sleep";
        if !done {
            peak = peak.max(process.peak_memory());
        }
        done
    });
    (process.cpu(), peak)
}
