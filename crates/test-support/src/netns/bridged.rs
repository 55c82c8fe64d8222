use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::Netns;
use crate::tool;

/// The last byte of the bridge's address, where a node has its number.
const BRIDGE: u8 = 254;

/// Nodes in namespaces of their own, and a bridge between them in another. They reach each other and the bridge over
/// IPv4. Segmentation offloads are off, so that each packet is forwarded as it was sent. All of it is removed on drop.
///
/// ```text
/// node 1    10.8.0.1  "eth0" -- "node-1"
/// node 2    10.8.0.2  "eth0" -- "node-2"   "bridge"  10.8.0.254
///  ...
/// ```
#[derive(Debug)]
pub struct Bridged {
    bridge: Netns,
    nodes: Vec<Netns>,
}

impl Bridged {
    /// The address of the bridge.
    pub const BRIDGE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 8, 0, BRIDGE));

    /// Makes the bridge and this many nodes, at most 250. Where tools or privileges are missing, prints a line that the
    /// test is skipped, and returns `None`.
    ///
    /// # Panics
    ///
    /// If tools or privileges are missing on CI (where the variable `CI` is set).
    pub fn new(test: &str, nodes: u8) -> Option<Self> {
        let _ = tool("ethtool")?;
        let namespace = |name| Netns::new(&format!("{test}-{name}"));
        let bridge = namespace("bridge".to_owned())?;
        let nodes = (1..=nodes).map(|node| namespace(format!("node-{node}")));
        let nodes = nodes.collect::<Option<Vec<_>>>()?;
        let mut script = String::from(
            "sysctl -qw net.ipv6.conf.default.disable_ipv6=1
             ip link add bridge type bridge
             nft add table bridge test
             nft 'add chain bridge test forward { type filter hook forward priority 0; }'\n",
        );
        for (node, namespace) in (1..).zip(&nodes) {
            let _ = writeln!(
                script,
                "ip link add node-{node} type veth peer name eth0 netns {}
                 ethtool -K node-{node} tso off gso off gro off
                 ip link set node-{node} master bridge up",
                namespace.0
            );
        }
        bridge.sh(&script);
        let numbers = (1..).take(nodes.len()).chain([BRIDGE]);
        let devices = nodes.iter().map(|node| (node, "eth0"));
        for (own, (namespace, device)) in numbers.clone().zip(devices.chain([(&bridge, "bridge")]))
        {
            // The kernel keeps at most 1024 neighbours for all namespaces together, not counting permanent ones.
            let others = numbers.clone().filter(|other| *other != own).map(|other| {
                format!(
                    "neighbour add {} lladdr {} nud permanent dev {device}\n",
                    Self::address(other),
                    link_address(other)
                )
            });
            namespace.sh(&format!(
                "sysctl -qw net.ipv6.conf.all.disable_ipv6=1
                 ethtool -K {device} tso off gso off gro off
                 ip -batch - <<END
link set {device} address {} up
address add {}/24 dev {device}
{}END",
                link_address(own),
                Self::address(own),
                others.collect::<String>()
            ));
        }
        Some(Self { bridge, nodes })
    }

    /// The address of a node, by its number from 1.
    pub fn address(node: u8) -> IpAddr {
        IpAddr::from([10, 8, 0, node])
    }

    /// The namespace of a node, by its number from 1.
    pub fn node(&self, node: u8) -> &Netns {
        &self.nodes[usize::from(node) - 1]
    }

    /// The namespace of the bridge.
    pub fn bridge(&self) -> &Netns {
        &self.bridge
    }

    /// Lets the bridge silently drop the packets between nodes that match a rule of nftables, such as
    /// `ip daddr 10.8.0.1 meta length > 1400`.
    pub fn lose(&self, packets: &str) {
        let rule = format!("nft 'add rule bridge test forward {packets} drop'");
        self.bridge.sh(&rule);
    }

    /// Disconnects a node from the bridge.
    pub fn unplug(&self, node: u8) {
        self.bridge.sh(&format!("ip link set node-{node} down"));
    }
}

fn link_address(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::TIMEOUT;

    #[test]
    fn nodes_reach_each_other_until_packets_are_dropped_or_one_is_unplugged() {
        let Some(network) = Bridged::new("bridged", 3) else {
            return;
        };
        let socket = |node| {
            let bind = || UdpSocket::bind((Bridged::address(node), 8080));
            let socket = network.node(node).enter(bind).expect("its own address");
            socket.set_read_timeout(Some(TIMEOUT)).expect("not zero");
            socket
        };
        let [first, second, third] = [1, 2, 3].map(socket);
        let sent = |from: &UdpSocket, text: &str| {
            let to = (Bridged::address(2), 8080);
            from.send_to(text.as_bytes(), to).expect("it is sent");
        };
        let came = || {
            let mut text = [0; 2000];
            let (length, from) = second.recv_from(&mut text).expect("a packet");
            (length, from.ip())
        };
        sent(&first, "1");
        assert_eq!(came(), (1, Bridged::address(1)));

        // Of these two packets, the larger one is dropped: the first to arrive is the smaller one.
        network.lose("ip saddr 10.8.0.1 meta length > 1400");
        sent(&first, &"x".repeat(1400 - 28 + 1));
        sent(&first, &"x".repeat(1400 - 28));
        assert_eq!(came(), (1400 - 28, Bridged::address(1)));

        network.unplug(1);
        sent(&first, "1");
        sent(&third, "3");
        assert_eq!(came(), (1, Bridged::address(3)));
    }
}
