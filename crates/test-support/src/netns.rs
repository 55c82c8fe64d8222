//! Network namespaces for tests, so that no packet leaves this machine: a single one; three in a row, in which a router
//! between a client and a backend can drop packets; and many nodes on a bridge.

mod bridged;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use self::bridged::Bridged;
use crate::process::{Output, run};
use crate::tool;

/// The addresses of the client, IPv4 and IPv6.
const CLIENT: [IpAddr; 2] = addresses(1, 2);
/// The addresses of the router on the side of the client.
const ROUTER_AT_CLIENT: [IpAddr; 2] = addresses(1, 1);
/// The addresses of the router on the side of the backend.
const ROUTER_AT_BACKEND: [IpAddr; 2] = addresses(2, 1);
/// The addresses of the backend, IPv4 and IPv6.
pub const BACKEND: [IpAddr; 2] = addresses(2, 2);

/// The addresses of a host in one of the two networks.
const fn addresses(net: u8, host: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(10, 9, net, host)),
        IpAddr::V6(Ipv6Addr::new(
            0xfd09,
            net as u16,
            0,
            0,
            0,
            0,
            0,
            host as u16,
        )),
    ]
}

/// A network namespace with loopback and a table of nftables, `inet test`, whose chains `input`, `forward` and
/// `output` accept everything. It is removed on drop; processes that run in it have to be dropped before.
#[derive(Debug)]
pub struct Netns(String);

impl Netns {
    /// Makes a namespace whose name begins with `test`. Where tools or privileges are missing, prints a line that
    /// the test is skipped, and returns `None`.
    ///
    /// # Panics
    ///
    /// If tools or privileges are missing on CI (where the variable `CI` is set).
    pub fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let _ = (tool("ip")?, tool("nft")?, tool("sysctl")?);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{test}-{}-{number}", std::process::id());
        let made = run(Command::new("ip").args(["netns", "add", &name]));
        if made.code != Some(0) {
            let error = made.stderr.trim_end();
            assert!(
                std::env::var_os("CI").is_none(),
                "CI can make namespaces: {error}"
            );
            let test = thread::current().name().unwrap_or("?").to_owned();
            // Not with `eprintln!`, whose output the test harness hides.
            let _ = writeln!(std::io::stderr(), "skipped {test}: {error}");
            return None;
        }
        let namespace = Self(name);
        let mut script = String::from("ip link set lo up\nnft add table inet test\n");
        for chain in ["input", "forward", "output"] {
            let _ = writeln!(
                script,
                "nft 'add chain inet test {chain} {{ type filter hook {chain} priority 0; }}'"
            );
        }
        namespace.sh(&script);
        Some(namespace)
    }

    /// A command that runs a program in the namespace.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.0])
            .arg(program.as_ref());
        command
    }

    /// Runs a shell script in the namespace, and returns its output.
    ///
    /// # Panics
    ///
    /// If one of its commands fails.
    pub fn sh(&self, script: &str) -> Output {
        let output = run(self.command("sh").args(["-euc", script]));
        assert_eq!(output.code, Some(0), "{script}: {}", output.stderr);
        output
    }

    /// Runs a function in the namespace, on a thread of its own. The sockets that it makes stay in the namespace,
    /// whichever thread uses them later.
    pub fn enter<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.0)).expect("it is there");
        let inside = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).expect("who made it may enter it");
            function()
        };
        let ended = thread::scope(|scope| scope.spawn(inside).join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Adds a rule to a chain (`input`, `forward` or `output`), such as `tcp dport 8080 drop`.
    pub fn rule(&self, chain: &str, rule: &str) {
        self.sh(&format!("nft 'add rule inet test {chain} {rule}'"));
    }

    /// Removes all rules from the chains.
    pub fn flush(&self) {
        self.sh("nft flush table inet test");
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.0]));
    }
}

/// A client and a backend in namespaces of their own, and a router between them. They reach each other over IPv4 and
/// IPv6. Segmentation offloads are off, so that each packet is forwarded as it was sent. All of it is removed on drop.
///
/// ```text
/// client  10.9.1.2    10.9.1.1   router   10.9.2.1     10.9.2.2  backend
///         fd09:1::2   fd09:1::1           fd09:2::1   fd09:2::2
///           "eth0"     "client"           "backend"     "eth0"
/// ```
#[derive(Debug)]
pub struct Routed {
    client: Netns,
    router: Netns,
    backend: Netns,
}

/// One of the three namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The namespace of the client.
    Client,
    /// The namespace of the router between them.
    Router,
    /// The namespace of the backend.
    Backend,
}

/// The direction of packets through the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the backend.
    ToBackend,
    /// From the backend to the client.
    ToClient,
}

impl Routed {
    /// Makes the three namespaces. Where tools or privileges are missing, prints a line that the test is skipped, and
    /// returns `None`.
    ///
    /// # Panics
    ///
    /// If tools or privileges are missing on CI (where the variable `CI` is set).
    pub fn new(test: &str) -> Option<Self> {
        let _ = tool("ethtool")?;
        let routed = Self {
            client: Netns::new(&format!("{test}-client"))?,
            router: Netns::new(&format!("{test}-router"))?,
            backend: Netns::new(&format!("{test}-backend"))?,
        };
        let Self {
            client,
            router,
            backend,
        } = &routed;
        for namespace in [client, router, backend] {
            // Duplicate address detection would keep an IPv6 address unusable for a second.
            namespace.sh("sysctl -qw net.ipv6.conf.default.accept_dad=0");
        }
        router.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        connect(router, "client", ROUTER_AT_CLIENT, client, CLIENT);
        connect(router, "backend", ROUTER_AT_BACKEND, backend, BACKEND);
        Some(routed)
    }

    /// One of the namespaces.
    pub fn at(&self, place: Place) -> &Netns {
        match place {
            Place::Client => &self.client,
            Place::Router => &self.router,
            Place::Backend => &self.backend,
        }
    }

    /// A command that runs a program in the namespace of the client.
    pub fn client(&self, program: impl AsRef<Path>) -> Command {
        self.client.command(program)
    }

    /// A command that runs a program in the namespace of the backend.
    pub fn backend(&self, program: impl AsRef<Path>) -> Command {
        self.backend.command(program)
    }

    /// Adds a rule to a chain of a namespace: see [`Netns::rule`].
    pub fn rule(&self, at: Place, chain: &str, rule: &str) {
        self.at(at).rule(chain, rule);
    }

    /// Removes all rules in all three namespaces.
    pub fn flush(&self) {
        for namespace in [&self.client, &self.router, &self.backend] {
            namespace.flush();
        }
    }

    /// Makes the router drop IP packets of more than `mtu` bytes in one direction without telling the sender, as on a
    /// path that has a smaller MTU than its ends, and on which ICMP is filtered.
    pub fn narrow(&self, direction: Direction, mtu: u16) {
        let device = match direction {
            Direction::ToBackend => "backend",
            Direction::ToClient => "client",
        };
        let rule = format!("oifname \"{device}\" meta length > {mtu} counter drop");
        self.router.rule("forward", &rule);
    }

    /// The number of packets that matched [`Routed::narrow`], or a rule of the router with a `counter`, since the
    /// rules were last removed.
    pub fn counted(&self) -> u64 {
        let rules = self.router.sh("nft list table inet test").stdout;
        let counters = rules.split("counter packets ").skip(1);
        let packets = counters.map(|counter| counter.split(' ').next().unwrap_or_default());
        packets
            .map(|packets| packets.parse::<u64>().expect("a number"))
            .sum()
    }
}

/// Connects a new device of the router with `eth0` of another namespace.
fn connect(router: &Netns, device: &str, at: [IpAddr; 2], end: &Netns, end_at: [IpAddr; 2]) {
    let other = &end.0;
    router.sh(&format!(
        "ip link add {device} type veth peer name eth0 netns {other}"
    ));
    for (namespace, device, [v4, v6]) in [(router, device, at), (end, "eth0", end_at)] {
        namespace.sh(&format!(
            "ethtool -K {device} tso off gso off gro off
             ip link set {device} up
             ip address add {v4}/24 dev {device}
             ip address add {v6}/64 dev {device}"
        ));
    }
    let [v4, v6] = at;
    end.sh(&format!(
        "ip -4 route add default via {v4}
         ip -6 route add default via {v6}"
    ));
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{TIMEOUT, wait_until};

    /// More bytes than fit into one packet.
    const LARGE: [u8; 5000] = [b'x'; 5000];

    /// Both ends of a new connection through the router.
    fn connection(routed: &Routed, to: IpAddr) -> (TcpStream, TcpStream) {
        let listener = routed
            .at(Place::Backend)
            .enter(|| TcpListener::bind((to, 0)));
        let listener = listener.expect("it is the backend's address");
        let addr = listener.local_addr().expect("it is bound");
        let client = routed.at(Place::Client).enter(|| TcpStream::connect(addr));
        let (backend, peer) = listener.accept().expect("a connection");
        assert!(CLIENT.contains(&peer.ip()), "{peer}");
        let client = client.expect("it is reached");
        client.set_read_timeout(Some(TIMEOUT)).expect("not zero");
        backend.set_read_timeout(Some(TIMEOUT)).expect("not zero");
        (client, backend)
    }

    fn assert_passes(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
        from.write_all(bytes).expect("it is connected");
        let mut came = vec![0; bytes.len()];
        to.read_exact(&mut came).expect("they come");
        assert_eq!(came, bytes);
    }

    #[test]
    fn a_narrow_path_drops_larger_packets_in_one_direction_only() {
        let Some(routed) = Routed::new("narrow") else {
            return;
        };
        for (to, header) in BACKEND.into_iter().zip([20 + 32, 40 + 32]) {
            let (mut client, mut backend) = connection(&routed, to);
            assert_passes(&mut client, &mut backend, &LARGE);
            assert_passes(&mut backend, &mut client, &LARGE);
            for direction in [Direction::ToBackend, Direction::ToClient] {
                routed.narrow(direction, 1400);
                let (from, to) = match direction {
                    Direction::ToBackend => (&mut client, &mut backend),
                    Direction::ToClient => (&mut backend, &mut client),
                };
                assert_passes(to, from, &LARGE);
                assert_passes(from, to, &LARGE[..1400 - header]);
                assert_eq!(routed.counted(), 0);

                from.write_all(&LARGE[..1400 - header + 1]).expect("room");
                wait_until("a packet that is dropped", TIMEOUT, || routed.counted() > 0);
                to.set_nonblocking(true).expect("a socket");
                let came = to.read(&mut [0]).map_err(|error| error.kind());
                assert_eq!(came, Err(ErrorKind::WouldBlock), "{direction:?}");
                to.set_nonblocking(false).expect("a socket");
                // The retransmission arrives.
                routed.flush();
                to.read_exact(&mut vec![0; 1400 - header + 1])
                    .expect("all of it");
            }
        }
    }

    #[test]
    fn a_rule_applies_in_its_namespace_and_the_namespaces_are_removed_on_drop() {
        let Some(routed) = Routed::new("rule") else {
            return;
        };
        let [to, _] = BACKEND;
        routed.rule(
            Place::Router,
            "forward",
            "tcp dport 8080 reject with tcp reset",
        );
        let refused = routed
            .at(Place::Client)
            .enter(|| TcpStream::connect((to, 8080)));
        let refused = refused.expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        connection(&routed, to);
        let name = routed.at(Place::Router).0.clone();
        let exists = || Path::new("/run/netns").join(&name).exists();
        assert!(exists());
        drop(routed);
        assert!(!exists());
    }
}
