//! Which of the addresses behind a name are called in a round.
//!
//! With N nodes each caller makes K + 1 calls in a round, so that a round of the mesh costs O(N·K):
//!
//! - K peers are chosen by rendezvous hashing (<https://en.wikipedia.org/wiki/Rendezvous_hashing>) of the caller's and
//!   the peer's address. They stay the same from round to round, at most one of them changes when a node comes or goes,
//!   and every node has about K callers, without any coordination.
//! - One peer is the next of all peers in the order of their addresses, so that every ordered pair is called within N
//!   rounds. Its call is a large one, because some paths pass small packets and lose large ones.
//! - Peers whose last call failed are called again, at most K of them, so that the end of a failure is noticed before
//!   the walk comes to them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// A peer that is called in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Address of the peer to call.
    pub ip: IpAddr,
    /// Properties of the call.
    pub sampled: Sampled,
}

/// Properties of a call of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// Whether request and response are large.
    pub is_large: bool,
    /// Whether the peer is one of the K that are called in every round.
    pub is_steady: bool,
}

/// Position of the walk: the peer that was called last.
#[derive(Debug, Default)]
pub struct Walk(Option<IpAddr>);

impl Walk {
    /// The next peer in the order of addresses. The first one follows `own`, so that not all callers begin with the
    /// same peer. `peers` must be sorted.
    fn next(&mut self, own: IpAddr, peers: &[IpAddr]) -> Option<IpAddr> {
        let last = self.0.unwrap_or(own);
        let after = peers.partition_point(|peer| *peer <= last);
        let next = peers.get(after).or_else(|| peers.first())?;
        self.0 = Some(*next);
        Some(*next)
    }
}

/// Chooses the calls of a round. `own` is the caller's address, `count` is K, and `peers` are the addresses of all
/// others, which must be sorted. `failing` are the peers whose last call failed, the one called longest ago first, and
/// whether the call that failed was a large one.
pub fn choose(
    own: IpAddr,
    count: usize,
    peers: &[IpAddr],
    walk: &mut Walk,
    failing: &[(IpAddr, bool)],
) -> Vec<Pick> {
    let mut by_score: Vec<_> = peers.iter().map(|&peer| (score(own, peer), peer)).collect();
    if by_score.len() > count {
        by_score.select_nth_unstable_by(count, |a, b| b.cmp(a));
        by_score.truncate(count);
    }
    let pick = |ip, is_large, is_steady| Pick {
        ip,
        sampled: Sampled {
            is_large,
            is_steady,
        },
    };
    let steady = by_score.into_iter().map(|(_, ip)| pick(ip, false, true));
    let mut picks: Vec<Pick> = steady.collect();
    if let Some(ip) = walk.next(own, peers) {
        match picks.iter_mut().find(|pick| pick.ip == ip) {
            Some(pick) => pick.sampled.is_large = true,
            None => picks.push(pick(ip, true, false)),
        }
    }
    let mut repeated = 0;
    for &(ip, is_large) in failing {
        if repeated == count || peers.binary_search(&ip).is_err() {
            continue;
        }
        match picks.iter_mut().find(|pick| pick.ip == ip) {
            Some(pick) => pick.sampled.is_large |= is_large,
            None => {
                picks.push(pick(ip, is_large, false));
                repeated += 1;
            }
        }
    }
    picks
}

fn score(own: IpAddr, peer: IpAddr) -> u64 {
    // `DefaultHasher::new` has fixed keys, so a caller that restarts calls the same peers.
    let mut hasher = DefaultHasher::new();
    (own, peer).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn address(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    fn peers(of: u16, without: u16) -> Vec<IpAddr> {
        let others = (0..of).filter(|&number| number != without);
        others.map(address).collect()
    }

    fn steady(picks: &[Pick]) -> BTreeSet<IpAddr> {
        let steady = picks.iter().filter(|pick| pick.sampled.is_steady);
        steady.map(|pick| pick.ip).collect()
    }

    #[test]
    fn a_round_has_k_calls_and_one_more_and_all_pairs_are_met_within_n_rounds() {
        let (n, k) = (50, 10);
        let peers = peers(n, 7);
        let mut walk = Walk::default();
        let (mut met, mut met_by_large) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..n {
            let picks = choose(address(7), k, &peers, &mut walk, &[]);
            let calls = picks.len();
            assert!(calls == k + 1 || calls == k, "{calls}");
            assert_eq!(steady(&picks).len(), k);
            let large = picks.iter().filter(|pick| pick.sampled.is_large);
            assert_eq!(large.clone().count(), 1);
            met_by_large.extend(large.map(|pick| pick.ip));
            met.extend(picks.iter().map(|pick| pick.ip));
        }
        assert_eq!(met, peers.iter().copied().collect());
        assert_eq!(met_by_large, met);
        assert!(!met.contains(&address(7)));
    }

    #[test]
    fn a_node_that_goes_takes_one_peer_of_some_and_none_of_the_others() {
        let (n, k) = (200, 10);
        for own in 1..n {
            let all = peers(n, own);
            let before = choose(address(own), k, &all, &mut Walk::default(), &[]);
            let rest: Vec<_> = all.into_iter().filter(|ip| *ip != address(0)).collect();
            let after = choose(address(own), k, &rest, &mut Walk::default(), &[]);
            let (before, after) = (steady(&before), steady(&after));
            let lost: Vec<_> = before.difference(&after).collect();
            let expected: &[_] = if before.contains(&address(0)) {
                &[&address(0)]
            } else {
                &[]
            };
            assert_eq!(lost, expected);
        }
    }

    #[test]
    fn every_node_has_about_k_callers() {
        let (n, k) = (300, 10);
        let mut callers = BTreeMap::<IpAddr, usize>::new();
        for own in 0..n {
            let picks = choose(address(own), k, &peers(n, own), &mut Walk::default(), &[]);
            for ip in steady(&picks) {
                *callers.entry(ip).or_default() += 1;
            }
        }
        assert_eq!(callers.len(), usize::from(n));
        let (least, most) = (callers.values().min(), callers.values().max());
        assert!(least >= Some(&1) && most <= Some(&30), "{least:?} {most:?}");
    }

    #[test]
    fn callers_do_not_walk_in_step() {
        let n = 40;
        let first = |own| {
            let picks = choose(address(own), 1, &peers(n, own), &mut Walk::default(), &[]);
            let mut large = picks.iter().filter(|pick| pick.sampled.is_large);
            large.next().map(|pick| pick.ip)
        };
        let firsts: BTreeSet<_> = (0..n).map(first).collect();
        assert_eq!(firsts.len(), usize::from(n));
    }

    #[test]
    fn a_peer_that_fails_is_called_again_and_no_more_than_k_of_them() {
        let (n, k) = (100, 5);
        let peers = peers(n, 0);
        let before = choose(address(0), k, &peers, &mut Walk::default(), &[]);
        let called = |ip: &IpAddr| before.iter().any(|pick| pick.ip == *ip);
        let failing: Vec<_> = peers.iter().filter(|ip| !called(ip)).collect();
        let failing: Vec<_> = failing.into_iter().map(|ip| (*ip, false)).collect();
        let picks = choose(address(0), k, &peers, &mut Walk::default(), &failing);
        assert_eq!(picks.len(), before.len() + k);
        assert_eq!(picks[before.len()].ip, failing[0].0);
        // A peer that has left is not called. One of the K gets a large call, if a large call to it failed.
        let ip = before[0].ip;
        let failing = [(address(1000), false), (ip, true)];
        let picks = choose(address(0), k, &peers, &mut Walk::default(), &failing);
        assert_eq!(picks.len(), before.len());
        let again = picks.iter().find(|pick| pick.ip == ip).expect("of the K");
        assert!(again.sampled.is_large && again.sampled.is_steady);
    }

    #[test]
    fn a_mesh_of_one_or_two_has_nobody_or_one_to_call() {
        let alone = choose(address(0), 10, &[], &mut Walk::default(), &[]);
        assert_eq!(alone, []);
        let two = choose(address(0), 10, &peers(2, 0), &mut Walk::default(), &[]);
        assert_eq!(two.len(), 1);
        assert!(two[0].sampled.is_large);
    }
}
