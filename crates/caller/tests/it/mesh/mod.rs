//! A mesh of real callers on loopback. Each node has an address of its own, at which an echo-server and a caller
//! listen, at the same two ports on all nodes. The headless name `mesh` has the addresses of the nodes.

mod collect;
mod hostile;
mod pages;
mod row;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;

use local_cluster::mesh::NAME;
use serde_json::{Value, json};
use test_support::bed::Bed;
use test_support::http::get;
use test_support::pki::free_addr;
use test_support::process::{Output, Process, caller, run};
use test_support::{TIMEOUT, wait_until};

use crate::CALLER;

pub(crate) struct Mesh {
    bed: Bed,
    /// The third byte of the addresses of its nodes; the fourth is the number of the node.
    net: u8,
    /// The port of the echo-servers.
    port: u16,
    /// The port of the callers' rows.
    rows_port: u16,
}

impl Mesh {
    /// Starts the echo-servers of these nodes. Their callers are started later.
    pub(crate) fn of(nodes: impl IntoIterator<Item = u8> + Clone) -> Self {
        static NET: AtomicU8 = AtomicU8::new(7);
        let mesh = Self {
            bed: Bed::start(&[]),
            net: NET.fetch_add(1, Ordering::Relaxed),
            port: free_addr().port(),
            rows_port: free_addr().port(),
        };
        for node in nodes.clone() {
            mesh.start_server(node);
        }
        mesh.resolves_to(nodes);
        mesh
    }

    fn start_server(&self, node: u8) {
        self.bed.mesh_pod(node.into(), self.server(node));
    }

    /// Gives the name the addresses of these nodes from now on.
    fn resolves_to(&self, nodes: impl IntoIterator<Item = u8>) {
        let addresses = nodes.into_iter().map(|node| self.ip(node));
        self.bed.records.set(NAME, addresses.collect::<Vec<_>>());
    }

    fn ip(&self, node: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, self.net, node).into()
    }

    /// The address of the echo-server of a node.
    fn server(&self, node: u8) -> SocketAddr {
        (self.ip(node), self.port).into()
    }

    /// The address at which a node serves its row.
    pub(crate) fn rows(&self, node: u8) -> SocketAddr {
        (self.ip(node), self.rows_port).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://mesh:{}/", self.port)
    }

    /// The command of the caller of a node, with short rounds. In each it calls the same two peers, and one in turn.
    pub(crate) fn caller(&self, node: u8) -> Command {
        let mut command = self.bed.caller(CALLER);
        command
            .env("CALLER_URL", self.url())
            .env("CALLER_SAMPLE", "2")
            .env("CALLER_INTERVAL", "20ms")
            .env("CALLER_ADMIN_LISTEN", self.rows(node).to_string())
            .env("CALLER_ROWS_PORT", self.rows_port.to_string())
            .env("POD_IP", self.ip(node).to_string())
            .env("POD_NAME", format!("mesh-{node}"))
            .env("NODE_NAME", format!("node-{node}"));
        command
    }

    fn start(&self, node: u8) -> Node {
        Node::start(&mut self.caller(node))
    }

    /// Starts callers on nodes, and waits until each has called all of its peers.
    fn start_all<const N: usize>(&self, nodes: [u8; N]) -> [Node; N] {
        let callers = nodes.map(|node| self.start(node));
        for caller in &callers {
            caller.wait_for_row("a row of all", |row| {
                let called = count(&row["peers"]);
                called > 0 && row["known"] == called
            });
        }
        callers
    }

    /// Runs `caller mesh` in a pod that is not part of the mesh.
    fn collect(&self, args: &[&str]) -> Output {
        let rows_port = format!("--rows-port={}", self.rows_port);
        let mut command = self.bed.caller(CALLER);
        command.env_remove("CALLER_URL").arg("mesh");
        run(command.arg(rows_port).arg(self.url()).args(args))
    }

    /// The JSON output of `caller mesh`, and its exit code.
    fn matrix(&self) -> (Value, Option<i32>) {
        let output = self.collect(&["--format=json"]);
        let matrix = serde_json::from_str(&output.stdout);
        (matrix.expect("an object"), output.code)
    }

    /// `ok` if the row of a node is there, or else why it is missing.
    fn row_of<'a>(&self, node: u8, matrix: &'a Value) -> &'a str {
        let node = &matrix["nodes"][self.place(node, matrix)];
        node["row"].as_str().expect("text")
    }

    /// The index of a node in a matrix.
    fn place(&self, node: u8, matrix: &Value) -> usize {
        let ip = self.ip(node).to_string();
        let mut nodes = matrix["nodes"].as_array().expect("a list").iter();
        let place = nodes.position(|node| node["address"] == ip);
        place.unwrap_or_else(|| panic!("no {ip} in {matrix:#}"))
    }

    /// A fabricated row of a node that has called these peers, with these results.
    fn fabricated_row(&self, node: u8, peers: &[(u8, &str)]) -> Value {
        let peers = peers.iter().map(|(peer, result)| {
            let ms = (*result == "ok").then_some(0.4);
            json!([self.ip(*peer), format!("node-{peer}"), result, ms, 3600, 4])
        });
        let peers: Vec<Value> = peers.collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"), "node": format!("node-{node}"), "address": self.ip(node), "targets": [self.url()],
            "interval_s": 10.0, "lookup": null, "known": peers.len(), "left_out": 0, "peers": peers, "mtus": [],
        })
    }
}

/// The running caller of a node.
struct Node {
    _process: Process,
    admin: SocketAddr,
}

impl Node {
    fn start(command: &mut Command) -> Self {
        let (process, admin) = caller(command);
        Self {
            _process: process,
            admin,
        }
    }

    fn row(&self) -> Value {
        let row = get(self.admin, "/mesh.json");
        serde_json::from_str(&row.body).expect("an object")
    }

    fn wait_for_row(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut row = self.row();
        wait_until(what, TIMEOUT, || {
            row = self.row();
            is_so(&row)
        });
        row
    }
}

/// The result that a row has for a peer.
fn result(row: &Value, ip: IpAddr) -> Option<&str> {
    let mut peers = row["peers"].as_array().expect("a list").iter();
    let peer = peers.find(|peer| peer[0] == ip.to_string())?;
    peer[2].as_str()
}

/// The number of elements of a list.
fn count(list: &Value) -> u64 {
    list.as_array().expect("a list").len() as u64
}

/// Starts a server that reads the request of each connection and then calls `respond`. Returns the number of its
/// connections.
fn serve(
    addr: SocketAddr,
    respond: impl Fn(&mut TcpStream) + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(addr).expect("a free port");
    let (respond, connections) = (Arc::new(respond), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            let (mut stream, respond) = (stream.expect("a connection"), Arc::clone(&respond));
            thread::spawn(move || {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    match stream.read(&mut byte) {
                        Ok(1) => request.push(byte[0]),
                        _ => return,
                    }
                }
                respond(&mut stream);
            });
        }
    });
    connections
}

/// A response with this status line, these header lines and this body.
fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A function that sends these bytes. Errors are ignored, because the client may have closed the connection.
fn sends(bytes: Vec<u8>) -> impl Fn(&mut TcpStream) + Send + Sync + 'static {
    move |stream| drop(stream.write_all(&bytes))
}
