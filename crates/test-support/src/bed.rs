//! A cluster for a real `caller` to run in: DNS, the Service and two backends, in this process.

use std::fs;
use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use local_cluster::cluster::{AT_ONCE, SEARCH, SERVICE, any_port, backend};
use local_cluster::dns::{Dns, Records};
use local_cluster::service::{Endpoints, Service};
use runtime::listen::ListenAddr;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A running cluster. Dropping it ends it.
pub struct Bed {
    /// What cluster DNS knows; the Service's name at first.
    pub records: Records,
    /// Where cluster DNS listens.
    pub dns: SocketAddr,
    /// Where the Service listens.
    pub service: SocketAddr,
    /// The pods behind the Service.
    pub endpoints: Endpoints,
    files: TempDir,
    _servers: (Dns, Service),
    runtime: Runtime,
}

impl Bed {
    /// Starts a cluster with a pod for each name.
    pub fn start(pods: &[&str]) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let records = Records::default();
        records.set(SERVICE, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        let endpoints = Endpoints::default();
        let (dns, service) = runtime.block_on(async {
            let mut addresses = Vec::new();
            for pod in pods {
                addresses.push(start_pod(pod, any_port()));
            }
            endpoints.set(addresses);
            let dns = Dns::start(0, records.clone()).await.expect("a free port");
            let service = Service::start(0, endpoints.clone()).await;
            (dns, service.expect("a free port"))
        });
        let files = tempfile::tempdir().expect("a directory");
        fs::write(files.path().join("resolv.conf"), SEARCH).expect("it can be written");
        Self {
            records,
            dns: dns.addr,
            service: service.addr,
            endpoints,
            files,
            _servers: (dns, service),
            runtime,
        }
    }

    /// Starts a pod that is behind no Service yet, and gives where it listens.
    pub fn pod(&self, name: &str, listen: SocketAddr) -> SocketAddr {
        let _runtime = self.runtime.enter();
        start_pod(name, listen.into())
    }

    /// The file that a pod has as `/etc/resolv.conf`, without a nameserver.
    pub fn resolv_conf(&self) -> PathBuf {
        self.files.path().join("resolv.conf")
    }

    /// Writes the pods' search list and options anew.
    pub fn set_resolv_conf(&self, text: &str) {
        fs::write(self.resolv_conf(), text).expect("it can be written");
    }

    /// The Service's URL by one of its names.
    pub fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.service.port())
    }

    /// A caller that lives in this cluster.
    pub fn caller(&self, binary: impl AsRef<Path>) -> Command {
        let mut command = Command::new(binary.as_ref());
        command
            .env("CALLER_ADMIN_LISTEN", "off")
            .env("CALLER_RESOLV_CONF", self.resolv_conf())
            .env("CALLER_NAMESERVER", self.dns.to_string())
            .env("CALLER_URL", self.url("backend"));
        command
    }
}

fn start_pod(name: &str, listen: ListenAddr) -> SocketAddr {
    let server = backend(name, listen, AT_ONCE).expect("a free port");
    let addr = server.local_addr().expect("it is bound");
    tokio::spawn(server.run(pending()));
    addr
}
