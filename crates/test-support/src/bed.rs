//! A test bed: a cluster in this process for a real `caller` to run in, with DNS, the Service `backend` and its pods.

use std::fs;
use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use local_cluster::cluster::{NO_DRAIN_DELAY, SEARCH, SERVICE, any_port, backend};
use local_cluster::dns::{Dns, Records};
use local_cluster::service::{Endpoints, Service};
use runtime::listen::ListenAddr;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A running cluster, which ends on drop.
pub struct Bed {
    /// The records of cluster DNS; at first, the name of the Service.
    pub records: Records,
    /// Address of cluster DNS.
    pub dns: SocketAddr,
    /// Address of the Service.
    pub service: SocketAddr,
    /// The addresses of the pods behind the Service.
    pub endpoints: Endpoints,
    files: TempDir,
    _servers: (Dns, Service),
    runtime: Runtime,
}

impl Bed {
    /// Starts a cluster whose Service has a pod for each of these names.
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

    /// Starts a pod that is not behind the Service, and returns its address.
    pub fn pod(&self, name: &str, listen: SocketAddr) -> SocketAddr {
        let _runtime = self.runtime.enter();
        start_pod(name, listen.into())
    }

    /// Starts the echo-server of a node of a mesh, `mesh-NODE` on `node-NODE`.
    pub fn mesh_pod(&self, node: u16, listen: SocketAddr) {
        let _runtime = self.runtime.enter();
        let server = local_cluster::mesh::server(node, listen.into()).expect("a free port");
        tokio::spawn(server.run(pending()));
    }

    /// The path of the pods' `/etc/resolv.conf`, which names no name server.
    pub fn resolv_conf(&self) -> PathBuf {
        self.files.path().join("resolv.conf")
    }

    /// Replaces the text of the pods' `/etc/resolv.conf`: the search list and options.
    pub fn set_resolv_conf(&self, text: &str) {
        fs::write(self.resolv_conf(), text).expect("it can be written");
    }

    /// The URL of the Service under one of its names.
    pub fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.service.port())
    }

    /// A command that runs a `caller` in this cluster, with the Service as its target and without an admin port.
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

/// Starts a pod in the current Tokio runtime, and returns its address.
fn start_pod(name: &str, listen: ListenAddr) -> SocketAddr {
    let server = backend(name, listen, NO_DRAIN_DELAY).expect("a free port");
    let addr = server.local_addr().expect("it is bound");
    tokio::spawn(server.run(pending()));
    addr
}
