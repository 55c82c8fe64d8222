//! A caller's own view of the mesh as JSON, which `/mesh.json` serves and other callers collect:
//!
//! ```json
//! {"version":"0.2.0","node":"node-1","address":"10.0.1.7","targets":["http://mesh:8080/"],"interval_s":10.0,
//!  "lookup":null,"known":2,"left_out":0,
//!  "peers":[["10.0.3.7","node-3","path_mtu",null,312,4],["10.0.2.7","node-2","ok",0.41,3600,4]],
//!  "mtus":[["10.0.3.7",1400]]}
//! ```
//!
//! Each peer is a list: its address; its node (`null` if no response has named it); the result of the last call; the
//! duration of the fastest of the last three successful calls in milliseconds, without DNS; for how many seconds calls
//! have been failing or succeeding; and how many seconds ago the last call was made. A result is `ok`, the label of a
//! kind of failure, or `left` if the name no longer has the address. A peer that has not been called yet is left out.
//! `mtus` has the size in bytes of the largest packet that passes, for each peer to which larger packets are lost.
//! `lookup` is `["dns_timeout",12]` if the name has not resolved for 12 seconds.
//!
//! A row has at most [`MAX_BYTES`] bytes. If it would be longer, the node names of peers that do not fail are left out
//! first, because the rows of these peers contain them; then peers that have left, then peers whose calls succeed, and
//! last those that fail. `left_out` is the number of peers that are left out.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::node::{Node, Peer, View};

/// Length of the longest row, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// The result of a call that succeeded.
pub const OK: &str = "ok";

/// The result of a peer that has left.
pub const LEFT: &str = "left";

/// A caller's own view of the mesh.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// The version of the caller.
    pub version: String,
    /// Name of the node that the caller runs on, if it is known.
    pub node: Option<String>,
    /// The caller's own address, if it is known.
    pub address: Option<IpAddr>,
    /// The targets whose addresses are sampled.
    pub targets: Vec<String>,
    /// Time from the start of a round to the start of the next, in seconds.
    pub interval_s: f64,
    /// The kind of failure of the last lookup, if it failed, and for how many seconds lookups have been failing.
    pub lookup: Option<(String, u64)>,
    /// Number of peers that the names have.
    pub known: usize,
    /// Number of peers that are not among `peers`, because the row would be too long.
    pub left_out: usize,
    /// The results of each peer that has been called.
    pub peers: Vec<PeerRow>,
    /// Size of the largest packet that passes to a peer, in bytes, if larger ones are lost.
    pub mtus: Vec<(IpAddr, u32)>,
}

/// The results of the calls to a peer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PeerRow(
    /// Address of the peer's pod.
    pub IpAddr,
    /// Name of the node that the peer runs on, if it is known.
    pub Option<Box<str>>,
    /// The result of the last call.
    pub String,
    /// Duration of the fastest of the last three successful calls, in milliseconds.
    pub Option<f32>,
    /// For how many seconds calls have been failing or succeeding, or the peer has been gone.
    pub u32,
    /// How many seconds ago the last call was made.
    pub u32,
);

impl Row {
    /// The row of a caller, from one [`Node`] for each target that it samples.
    pub fn of(targets: &[(String, Arc<Node>)], interval: Duration) -> Self {
        let now = Instant::now();
        let ago = |at: Instant| now.saturating_duration_since(at).as_secs();
        let mut row = Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: None,
            address: None,
            targets: targets.iter().map(|(label, _)| label.clone()).collect(),
            interval_s: interval.as_secs_f64(),
            lookup: None,
            known: 0,
            left_out: 0,
            peers: Vec::new(),
            mtus: Vec::new(),
        };
        for (_, node) in targets {
            let View {
                own,
                peers,
                lookup_failure,
            } = node.view();
            row.node = row.node.or_else(|| node.name().map(str::to_owned));
            row.address = row.address.or(own);
            row.lookup = row
                .lookup
                .or_else(|| lookup_failure.map(|(kind, since)| (kind.to_string(), ago(since))));
            for (ip, peer) in peers {
                row.known += usize::from(peer.left.is_none());
                if let Some(hole) = peer.hole {
                    row.mtus.push((ip, hole.mtu));
                }
                row.peers.extend(peer_row(ip, &peer, ago));
            }
        }
        row.peers.sort_by_key(|peer| (peer.rank(), peer.0));
        row.mtus.sort_unstable();
        row
    }

    /// The row as JSON of at most [`MAX_BYTES`].
    pub fn to_json(mut self) -> String {
        let json = |row: &Self| serde_json::to_string(row).expect("all keys are strings");
        let mut text = json(&self);
        if text.len() > MAX_BYTES {
            for peer in self.peers.iter_mut().filter(|peer| peer.rank() > FAILING) {
                peer.1 = None;
            }
            text = json(&self);
        }
        while text.len() > MAX_BYTES && !self.peers.is_empty() {
            // The entries of peers have similar lengths, and those of failing peers come first.
            let share = MAX_BYTES as f64 / text.len() as f64 * 0.98;
            let kept = (self.peers.len() as f64 * share) as usize;
            let left_out: HashSet<IpAddr> = self.peers.drain(kept..).map(|peer| peer.0).collect();
            self.left_out += left_out.len();
            self.mtus.retain(|(ip, _)| !left_out.contains(ip));
            text = json(&self);
        }
        text
    }
}

/// The rank of peers that fail, which are left out last.
const FAILING: u8 = 0;

impl PeerRow {
    /// If the row would be too long, peers of the highest rank are left out first.
    fn rank(&self) -> u8 {
        match self.2.as_str() {
            LEFT => 2,
            OK => 1,
            _ => FAILING,
        }
    }
}

fn peer_row(ip: IpAddr, peer: &Peer, ago: impl Fn(Instant) -> u64) -> Option<PeerRow> {
    let seconds = |at| u32::try_from(ago(at)).unwrap_or(u32::MAX);
    let asked = peer.asked?;
    let (result, since) = match (peer.left, peer.failure()) {
        (Some(left), _) => (LEFT, left),
        (None, Some(kind)) => (kind.label(), peer.since),
        (None, None) => (OK, peer.since),
    };
    // Rounded to microseconds: more digits would make the row longer.
    let ms = |took: Duration| (took.as_secs_f32() * 1e6).round() / 1e3;
    Some(PeerRow(
        ip,
        peer.node.clone(),
        result.to_owned(),
        peer.took().filter(|_| result == OK).map(ms),
        seconds(since),
        seconds(asked),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::node::tests::{LARGE, SMALL, call, ip, named_call, node, round};
    use super::*;
    use crate::failure::FailureKind::{ConnectTimeout, ResponseTimeout};
    use crate::failure::{FailureKind, Hole};

    /// Numbers of a node's peers by result, in the order of their addresses. Each has a name of 50 characters.
    #[derive(Default)]
    struct Peers {
        left: u16,
        well: u16,
        failing: u16,
        losing_large_packets: u16,
    }

    impl Peers {
        /// The row of these peers, as other callers parse it.
        fn read(self) -> Row {
            let Self {
                left,
                well,
                failing,
                losing_large_packets,
            } = self;
            let mut ends = [left, well, failing, losing_large_packets];
            for at in 1..ends.len() {
                ends[at] += ends[at - 1];
            }
            let node = node(ends[3]);
            for peer in 1..=ends[3] {
                named_call(&node, peer, &format!("{peer:0>50}"));
            }
            for peer in ends[1] + 1..=ends[2] {
                call(&node, peer, SMALL, Some(ConnectTimeout));
            }
            for peer in ends[2] + 1..=ends[3] {
                call(&node, peer, LARGE, Some(ResponseTimeout));
                let (mtu, direction) = (1400, None);
                node.set_hole(ip(peer), Hole { mtu, direction });
            }
            round(&node, left + 1..=ends[3]);
            let targets = [("http://mesh:8080/".to_owned(), Arc::new(node))];
            let json = Row::of(&targets, Duration::from_secs(10)).to_json();
            assert!(json.len() <= MAX_BYTES, "{} bytes", json.len());
            serde_json::from_str(&json).expect("a row")
        }
    }

    impl Row {
        /// Number of peers with this result, and number of those among them that have a name.
        fn count(&self, result: &str) -> (usize, usize) {
            let peers = self.peers.iter().filter(|peer| peer.2 == result);
            let named = peers.clone().filter(|peer| peer.1.is_some());
            (peers.count(), named.count())
        }
    }

    const TIMEOUT: &str = "connect_timeout";

    #[test]
    fn a_row_of_few_peers_has_all_of_them_with_their_names() {
        let row = Peers {
            left: 10,
            well: 400,
            failing: 20,
            losing_large_packets: 2,
        }
        .read();
        assert_eq!(row.count(OK), (400, 400));
        assert_eq!(row.count(TIMEOUT), (20, 20));
        assert_eq!(row.count(LEFT), (10, 10));
        assert_eq!(row.count(FailureKind::PathMtu.label()), (2, 2));
        assert_eq!(row.mtus, [(ip(431), 1400), (ip(432), 1400)]);
        assert_eq!((row.known, row.left_out), (422, 0));
        assert_eq!(row.address, Some(ip(0)));
        assert_eq!(row.targets, ["http://mesh:8080/"]);
    }

    #[test]
    fn names_of_peers_that_are_well_are_left_out_first() {
        let (well, failing) = (1000, 20);
        let row = Peers {
            well,
            failing,
            ..Peers::default()
        }
        .read();
        assert_eq!(row.count(OK), (1000, 0));
        assert_eq!(row.count(TIMEOUT), (20, 20));
        assert_eq!(row.left_out, 0);
    }

    #[test]
    fn then_peers_that_are_well_are_left_out_and_counted() {
        let (well, failing) = (4800, 200);
        let row = Peers {
            well,
            failing,
            ..Peers::default()
        }
        .read();
        assert_eq!(row.count(TIMEOUT), (200, 200));
        let (well, named) = row.count(OK);
        assert_eq!((well + row.left_out, named, row.known), (4800, 0, 5000));
        // No more peers are left out than necessary.
        assert!(well > 800, "{well}");
    }

    #[test]
    fn peers_that_have_left_do_not_take_the_space_of_others() {
        let (left, well, failing) = (2000, 500, 300);
        let row = Peers {
            left,
            well,
            failing,
            ..Peers::default()
        }
        .read();
        assert_eq!(row.count(TIMEOUT), (300, 300));
        assert_eq!(row.count(OK), (500, 0));
    }

    #[test]
    fn a_row_is_read_where_more_fail_than_there_is_space_for() {
        let row = Peers {
            losing_large_packets: 5000,
            ..Peers::default()
        }
        .read();
        assert_eq!(row.peers.len() + row.left_out, 5000);
        assert_eq!(row.mtus.len(), row.peers.len());
        assert!(row.peers.len() > 400, "{}", row.peers.len());
    }
}
