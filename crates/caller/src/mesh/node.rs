//! A node's own view of the mesh: the result of the last call to each peer. Memory is bounded by the number of addresses
//! of the name, of which a DNS message holds some 4,000.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use runtime::escape::Escaped;
use runtime::unpoisoned::unpoisoned;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::warn;

use super::sample::{Sampled, Walk, choose};
use crate::dns::Lookup;
use crate::failure::{FailureKind, Hole};
use crate::report::{Phase, Report};
use crate::stats::Observer;

/// How long a peer that has left is remembered.
const LEFT_FOR: Duration = Duration::from_secs(60);

/// How often a path is measured in an outage at most: something else may have disturbed the first time.
const MAX_MEASUREMENTS: u8 = 3;

/// The longest name of a node that is kept, in bytes: as long as DNS has them.
const MAX_NAME: usize = 253;

/// What a caller samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleConfig {
    /// How many peers are called in every round.
    pub count: usize,
    /// The own address. `None`: the one among the peers' addresses that an interface of this pod has.
    pub own: Option<IpAddr>,
    /// The node that this pod is on, where that is known.
    pub node: Option<String>,
}

/// What a caller knows of the peers behind one name.
#[derive(Debug)]
pub struct Node {
    config: SampleConfig,
    state: Mutex<State>,
    /// Paths are measured one at a time.
    measuring: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    own: Option<IpAddr>,
    walk: Walk,
    peers: HashMap<IpAddr, Peer>,
    lookup_failure: Option<(FailureKind, Instant)>,
    /// Whether the name had no other address when it was last looked up.
    is_alone: bool,
}

/// What is known of a peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The node that it is on, once it has said so.
    pub(super) node: Option<Box<str>>,
    /// Kind of failure of the last small call, if it failed.
    small: Option<FailureKind>,
    /// Kind of failure of the last large call, if it failed.
    large: Option<FailureKind>,
    /// The hole that was found after a large call had failed.
    pub(super) hole: Option<Hole>,
    /// Whether that is being looked for, or has been, in this outage.
    is_measured: bool,
    /// Number of measurements that found no hole.
    found_no_hole: u8,
    /// When the peer began to fail, or to succeed.
    pub(super) since: Instant,
    /// When it was last called; `None` for one that has not been.
    pub(super) asked: Option<Instant>,
    /// How long the last calls took that succeeded, without DNS; the newest is first.
    took: [Option<Duration>; 3],
    /// When the name no longer had its address.
    pub(super) left: Option<Instant>,
}

/// All that a row is made of.
pub(super) struct View {
    pub(super) own: Option<IpAddr>,
    pub(super) peers: Vec<(IpAddr, Peer)>,
    pub(super) lookup_failure: Option<(FailureKind, Instant)>,
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self {
            node: None,
            small: None,
            large: None,
            hole: None,
            is_measured: false,
            found_no_hole: 0,
            since: now,
            asked: None,
            took: [None; 3],
            left: None,
        }
    }

    /// How long the quickest of the last calls took, without DNS: a process that had to wait for a processor made one
    /// of them slow, and a slow path makes all of them slow.
    pub(super) fn took(&self) -> Option<Duration> {
        self.took.into_iter().flatten().min()
    }

    /// Kind of failure of the peer, if it fails. A failing small call is more significant than a failing large one.
    pub(super) fn failure(&self) -> Option<FailureKind> {
        self.small.or(match self.hole {
            Some(_) => Some(FailureKind::PathMtu),
            None => self.large,
        })
    }
}

impl Node {
    /// A view in which no peer is known yet.
    pub fn new(config: SampleConfig) -> Self {
        let own = config.own;
        Self {
            config,
            state: Mutex::new(State {
                own,
                ..State::default()
            }),
            measuring: Semaphore::new(1),
        }
    }

    /// The node that this pod is on, where that is known.
    pub fn name(&self) -> Option<&str> {
        self.config.node.as_deref()
    }

    /// The own address, where it is known.
    pub fn own(&self) -> Option<IpAddr> {
        self.state().own
    }

    /// How many other addresses the name has.
    pub fn peer_count(&self) -> usize {
        let state = self.state();
        let here = state.peers.values().filter(|peer| peer.left.is_none());
        here.count()
    }

    /// Chooses whom to call of the addresses that the name has now.
    pub fn choose(&self, addresses: &[SocketAddr]) -> Vec<(SocketAddr, Sampled)> {
        let now = Instant::now();
        let mut state = self.state();
        let state = &mut *state;
        if state.own.is_none() {
            state.own = own_address_among(addresses);
        }
        let mut by_ip: Vec<(IpAddr, SocketAddr)> = addresses
            .iter()
            .map(|address| (address.ip(), *address))
            .filter(|(ip, _)| Some(*ip) != state.own)
            .collect();
        by_ip.sort_unstable();
        by_ip.dedup_by_key(|(ip, _)| *ip);
        let ips: Vec<IpAddr> = by_ip.iter().map(|(ip, _)| *ip).collect();
        state.update_peers(&ips, now);
        if ips.is_empty() && !state.is_alone {
            // Nothing is called, and so nothing printed.
            warn!("there is nobody else behind the name to call");
        }
        state.is_alone = ips.is_empty();

        let mut failing: Vec<_> = state
            .peers
            .iter()
            .filter(|(_, peer)| peer.failure().is_some() && peer.left.is_none())
            .map(|(&ip, peer)| (peer.asked, ip, peer.small.is_none()))
            .collect();
        failing.sort_unstable();
        let failing: Vec<_> = failing
            .into_iter()
            .map(|(_, ip, is_large)| (ip, is_large))
            .collect();
        // Without an address of its own it is still a caller, with nobody to be told from.
        let own = state.own.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let picks = choose(own, self.config.count, &ips, &mut state.walk, &failing);
        let picks = picks.into_iter().filter_map(|pick| {
            let at = by_ip.binary_search_by_key(&pick.ip, |(ip, _)| *ip).ok()?;
            Some((by_ip[at].1, pick.sampled))
        });
        picks.collect()
    }

    /// Makes of a large call that was not answered one whose packets were too large, where that is known of the path.
    pub(crate) fn apply_known_hole(&self, report: &mut Report) {
        let Some((ip, Sampled { is_large: true, .. })) = sampled_peer(report) else {
            return;
        };
        let hole = self.state().peers.get(&ip).and_then(|peer| peer.hole);
        if let Some(hole) = hole {
            report.reclassify_as_path_mtu(hole);
        }
    }

    /// The node that a peer is on, or else its address.
    pub(crate) fn name_of(&self, ip: IpAddr) -> String {
        let state = self.state();
        let name = state.peers.get(&ip).and_then(|peer| peer.node.as_deref());
        match name {
            Some(name) => Escaped::new(name.as_bytes()).to_string(),
            None => ip.to_string(),
        }
    }

    /// Whether the path to a peer is to be measured, now that a large call has failed: that is done
    /// once an outage, and again where it has found nothing.
    pub(crate) fn claim_measurement(&self, report: &Report) -> bool {
        let Some((ip, sampled)) = sampled_peer(report) else {
            return false;
        };
        let mut state = self.state();
        let Some(peer) = state.peers.get_mut(&ip) else {
            return false;
        };
        let is_new = sampled.is_large
            && report.kind() == Some(FailureKind::ResponseTimeout)
            && !peer.is_measured;
        peer.is_measured |= is_new;
        is_new
    }

    /// Lets one path be measured at a time.
    pub(crate) fn measuring(&self) -> &Semaphore {
        &self.measuring
    }

    /// A hole has been found on the path to a peer.
    pub(crate) fn set_hole(&self, ip: IpAddr, hole: Hole) {
        if let Some(peer) = self.state().peers.get_mut(&ip)
            && peer.large.is_some()
        {
            peer.hole = Some(hole);
        }
    }

    /// No hole has been found on the path to a peer, which may be measured again if it has not been too often.
    pub(crate) fn found_no_hole(&self, ip: IpAddr) {
        if let Some(peer) = self.state().peers.get_mut(&ip) {
            peer.found_no_hole += 1;
            peer.is_measured = peer.found_no_hole >= MAX_MEASUREMENTS;
        }
    }

    pub(super) fn view(&self) -> View {
        let state = self.state();
        let peers = state.peers.iter().map(|(&ip, peer)| (ip, peer.clone()));
        View {
            own: state.own,
            peers: peers.collect(),
            lookup_failure: state.lookup_failure,
        }
    }

    /// A thread that panicked while it held the lock has left at worst an old result.
    fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }
}

impl State {
    /// Takes in which peers there are now. `ips` are sorted.
    fn update_peers(&mut self, ips: &[IpAddr], now: Instant) {
        self.peers.retain(|ip, peer| {
            if ips.binary_search(ip).is_err() {
                let left = *peer.left.get_or_insert(now);
                return now.duration_since(left) < LEFT_FOR;
            }
            if peer.left.is_some() {
                // Another pod may have the address by now.
                *peer = Peer::new(now);
            }
            true
        });
        for &ip in ips {
            self.peers.entry(ip).or_insert_with(|| Peer::new(now));
        }
    }
}

impl Observer for Node {
    fn lookup(&self, lookup: &Lookup) {
        let mut state = self.state();
        let failure = lookup.outcome.as_ref().err();
        state.lookup_failure = failure.map(|failure| {
            let before = state.lookup_failure;
            (
                failure.kind(),
                before.map_or(Instant::now(), |(_, since)| since),
            )
        });
    }

    fn call(&self, report: &Report) {
        let Some((ip, sampled)) = sampled_peer(report) else {
            return;
        };
        let now = Instant::now();
        let mut state = self.state();
        let Some(peer) = state.peers.get_mut(&ip) else {
            return;
        };
        let kind = report.kind();
        let status = report.response().map(|response| response.status.as_u16());
        if sampled.is_large && matches!(status, Some(400 | 413 | 431)) {
            // A proxy that refuses so large a head: it has been reached.
            return;
        }
        let failed_before = peer.failure().is_some();
        match (sampled.is_large, kind) {
            (true, None) => {
                (peer.small, peer.large, peer.hole) = (None, None, None);
                (peer.is_measured, peer.found_no_hole) = (false, 0);
            }
            (true, Some(FailureKind::ResponseTimeout | FailureKind::PathMtu)) => {
                peer.large = Some(FailureKind::ResponseTimeout);
            }
            // Whether large packets pass is not known then.
            (_, kind) => peer.small = kind,
        }
        if peer.failure().is_some() != failed_before || peer.asked.is_none() {
            peer.since = now;
        }
        peer.asked = Some(now);
        if kind.is_none() {
            let resolved = report.timings[Phase::Dns].unwrap_or_default();
            let total = report.timings[Phase::Total].unwrap_or_default();
            let [last, before, _] = peer.took;
            peer.took = [Some(total.saturating_sub(resolved)), last, before];
        }
        let node = report
            .response()
            .and_then(|response| response.node.as_deref());
        if let Some(node) = node.filter(|node| node.len() <= MAX_NAME)
            && peer.node.as_deref() != Some(node)
        {
            peer.node = Some(node.into());
        }
    }
}

/// Whom a call of a sample was for.
fn sampled_peer(report: &Report) -> Option<(IpAddr, Sampled)> {
    Some((report.address?.ip(), report.sampled?))
}

/// The address that an interface of this pod has.
fn own_address_among(addresses: &[SocketAddr]) -> Option<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let mut own = interfaces.filter_map(|interface| crate::probe::ip_of(&interface));
    own.find(|ip| addresses.iter().any(|address| address.ip() == *ip))
}

#[cfg(test)]
pub(super) mod tests;
