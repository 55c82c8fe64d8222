//! A caller's own view of the mesh: the result of the last call to each peer. Memory is bounded by the number of
//! addresses of the name: a DNS message holds about 4,000.

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

/// Most measurements of a path during one outage. Something else may have disturbed the first measurement.
const MAX_MEASUREMENTS: u8 = 3;

/// Longest name of a node that is kept, in bytes: the longest name in DNS (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// Settings of a caller that is part of a mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleConfig {
    /// Number of peers that are called in every round (K).
    pub count: usize,
    /// Address of this pod; if it is `None`, the address among those of the name that an interface of this pod has.
    pub own: Option<IpAddr>,
    /// Name of the node that this pod runs on, if it is known.
    pub node: Option<String>,
}

/// The results of a caller's calls to the peers behind one name.
#[derive(Debug)]
pub struct Node {
    config: SampleConfig,
    state: Mutex<State>,
    /// Has one permit, because paths are measured one at a time.
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

/// The results of the calls to a peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Name of the node that the peer runs on, once a response has contained it.
    pub(super) node: Option<Box<str>>,
    /// Kind of failure of the last small call, if it failed.
    small: Option<FailureKind>,
    /// Kind of failure of the last large call, if it failed.
    large: Option<FailureKind>,
    /// The packet size limit that was measured after a large call had failed.
    pub(super) hole: Option<Hole>,
    /// Whether the packet size limit is being measured, or has been, during this outage.
    is_measured: bool,
    /// Number of measurements that found no such limit.
    found_no_hole: u8,
    /// When the peer began to fail, or to succeed.
    pub(super) since: Instant,
    /// When the peer was last called; `None` if it has not been called yet.
    pub(super) asked: Option<Instant>,
    /// Durations of the last calls that succeeded, without DNS, the newest first.
    took: [Option<Duration>; 3],
    /// When the address was first missing from the name; `None` while the name has it.
    pub(super) left: Option<Instant>,
}

/// The data of a row.
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

    /// Duration of the fastest of the last three successful calls, without DNS. A busy processor makes one of them
    /// slow; a slow path makes all of them slow.
    pub(super) fn took(&self) -> Option<Duration> {
        self.took.into_iter().flatten().min()
    }

    /// Kind of failure, if calls to the peer fail. A failing small call takes precedence over a failing large one.
    pub(super) fn failure(&self) -> Option<FailureKind> {
        self.small.or(match self.hole {
            Some(_) => Some(FailureKind::PathMtu),
            None => self.large,
        })
    }
}

impl Node {
    /// Creates a view without peers.
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

    /// Name of the node that this pod runs on, if it is known.
    pub fn name(&self) -> Option<&str> {
        self.config.node.as_deref()
    }

    /// Address of this pod, if it is known.
    pub fn own(&self) -> Option<IpAddr> {
        self.state().own
    }

    /// Number of other addresses that the name has.
    pub fn peer_count(&self) -> usize {
        let state = self.state();
        let here = state.peers.values().filter(|peer| peer.left.is_none());
        here.count()
    }

    /// Chooses the calls of a round from the addresses that the name has now.
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
            // Without calls nothing is printed, so the reason is logged.
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
        // If the own address is not known, this one takes its place in the hash and in the walk.
        let own = state.own.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let picks = choose(own, self.config.count, &ips, &mut state.walk, &failing);
        let picks = picks.into_iter().filter_map(|pick| {
            let at = by_ip.binary_search_by_key(&pick.ip, |(ip, _)| *ip).ok()?;
            Some((by_ip[at].1, pick.sampled))
        });
        picks.collect()
    }

    /// Changes the failure of a large call that timed out to [`FailureKind::PathMtu`], if the packet size limit of the
    /// path has been measured.
    pub(crate) fn apply_known_hole(&self, report: &mut Report) {
        let Some((ip, Sampled { is_large: true, .. })) = sampled_peer(report) else {
            return;
        };
        let hole = self.state().peers.get(&ip).and_then(|peer| peer.hole);
        if let Some(hole) = hole {
            report.reclassify_as_path_mtu(hole);
        }
    }

    /// Name of the node that a peer runs on, or else the peer's address.
    pub(crate) fn name_of(&self, ip: IpAddr) -> String {
        let state = self.state();
        let name = state.peers.get(&ip).and_then(|peer| peer.node.as_deref());
        match name {
            Some(name) => Escaped::new(name.as_bytes()).to_string(),
            None => ip.to_string(),
        }
    }

    /// Whether to measure the path to a peer, because this large call to it timed out. Returns true once in an outage,
    /// and again after each measurement that found no limit, at most [`MAX_MEASUREMENTS`] times; the path then counts
    /// as measured.
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

    /// The semaphore of measurements: a permit allows measuring a path.
    pub(crate) fn measuring(&self) -> &Semaphore {
        &self.measuring
    }

    /// Records the packet size limit of the path to a peer, unless a large call has succeeded in the meantime.
    pub(crate) fn set_hole(&self, ip: IpAddr, hole: Hole) {
        if let Some(peer) = self.state().peers.get_mut(&ip)
            && peer.large.is_some()
        {
            peer.hole = Some(hole);
        }
    }

    /// Records that no packet size limit was found on the path to a peer. The path may be measured again, at most
    /// [`MAX_MEASUREMENTS`] times.
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

    /// The results. A poisoned lock is ignored: a thread that panicked has at worst left an old result.
    fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }
}

impl State {
    /// Adds new peers, and removes those that have left. `ips` are the addresses that the name has now, sorted.
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
            // A proxy rejects a head of this size, so this call says nothing about the path.
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
            // Any other result of a large call says nothing about large packets.
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

/// The peer that was called, and the properties of the call; `None` for a call that is not part of a sample.
fn sampled_peer(report: &Report) -> Option<(IpAddr, Sampled)> {
    Some((report.address?.ip(), report.sampled?))
}

/// The address among `addresses` that an interface of this pod has.
fn own_address_among(addresses: &[SocketAddr]) -> Option<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let mut own = interfaces.filter_map(|interface| crate::probe::ip_of(&interface));
    own.find(|ip| addresses.iter().any(|address| address.ip() == *ip))
}

#[cfg(test)]
pub(super) mod tests;
