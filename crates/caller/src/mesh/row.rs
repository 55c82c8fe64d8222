//! A node's own view as JSON, which `/mesh.json` serves and others collect:
//!
//! ```json
//! {"version":"0.2.0","node":"node-1","address":"10.0.1.7","targets":["http://mesh:8080/"],"interval_s":10.0,
//!  "lookup":null,"known":2,"left_out":0,
//!  "peers":[["10.0.3.7","node-3","path_mtu",null,312,4],["10.0.2.7","node-2","ok",0.41,3600,4]],
//!  "mtus":[["10.0.3.7",1400]]}
//! ```
//!
//! A peer is its address, its node (`null` where it has never said so), the result of the last call, how many
//! milliseconds the quickest of the last three took without DNS, for how many seconds it has been failing or well, and
//! how many seconds ago it was called. A result is `ok`, the label of a kind of failure, or `left`: the name no longer
//! has the address. A peer that has not been called yet is not there. `mtus` are the sizes in bytes of the largest
//! packets that pass, where larger ones are lost. `lookup` is `["dns_timeout",12]` while the name has not resolved for
//! 12 seconds.
//!
//! A row has at most [`MAX_BYTES`]. Names of peers that are well are left out first, because those tell them
//! themselves, and then peers that are well, whose number is `left_out`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::node::{Node, Peer, View};

/// The longest row, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// The result of a call that succeeded.
pub const OK: &str = "ok";

/// The result of a peer that has left.
pub const LEFT: &str = "left";

/// A node's own view.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Row {
    /// The version of the caller.
    pub version: String,
    /// The node that the caller is on, where that is known.
    pub node: Option<String>,
    /// The caller's own address, where that is known.
    pub address: Option<IpAddr>,
    /// The targets whose addresses are sampled.
    pub targets: Vec<String>,
    /// From the start of a round to the start of the next, in seconds.
    pub interval_s: f64,
    /// Why a name could not be resolved, and for how many seconds.
    pub lookup: Option<(String, u64)>,
    /// How many peers there are.
    pub known: usize,
    /// How many peers that are well are not among `peers`, for want of space.
    pub left_out: usize,
    /// What is known of each peer that has been called.
    pub peers: Vec<PeerRow>,
    /// The largest packets that pass to a peer, in bytes, where larger ones are lost.
    pub mtus: Vec<(IpAddr, u32)>,
}

/// What is known of a peer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PeerRow(
    /// Its address.
    pub IpAddr,
    /// The node that it is on, where that is known.
    pub Option<Box<str>>,
    /// The result of the last call.
    pub String,
    /// How long the quickest of the last calls took, in milliseconds.
    pub Option<f32>,
    /// For how many seconds it has been so.
    pub u32,
    /// How many seconds ago the last call was made.
    pub u32,
);

impl Row {
    /// The view of all nodes of a caller, one for each target that it samples.
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
        row.peers.sort_by_key(|peer| (peer.is_well(), peer.0));
        row
    }

    /// The row as JSON of at most [`MAX_BYTES`].
    pub fn to_json(mut self) -> String {
        let json = |row: &Self| serde_json::to_string(row).expect("a row has keys of text");
        let mut text = json(&self);
        if text.len() > MAX_BYTES {
            for peer in self.peers.iter_mut().filter(|peer| peer.is_well()) {
                peer.1 = None;
            }
            text = json(&self);
        }
        while text.len() > MAX_BYTES && !self.peers.is_empty() {
            // Peers are of much the same length, and those that fail stand first.
            let share = MAX_BYTES as f64 / text.len() as f64 * 0.98;
            let kept = (self.peers.len() as f64 * share) as usize;
            self.left_out += self.peers.len() - kept;
            self.peers.truncate(kept);
            text = json(&self);
        }
        text
    }
}

impl PeerRow {
    fn is_well(&self) -> bool {
        self.2 == OK
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
    // To the microsecond; more would be so many more bytes.
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
