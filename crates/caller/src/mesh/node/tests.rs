//! The view that a node has of its peers after calls with given results, on a clock that the tests advance.

use http::StatusCode;
use std::sync::Arc;
use tokio::time::advance;

use super::*;
use crate::dns::{LookupFailure, Source};
use crate::failure::FailureKind::{ConnectRefused, ConnectTimeout, PathMtu, ResponseTimeout};
use crate::failure::{Cause, Failure, Stage};
use crate::mesh::row::Row;
use crate::report::{Outcome, Response};

const HOLE: Hole = Hole {
    mtu: 1400,
    direction: None,
};

pub(in crate::mesh) const SMALL: bool = false;
pub(in crate::mesh) const LARGE: bool = true;

pub(in crate::mesh) fn ip(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

/// A node at address 0 that calls one peer in every round, and one in turn. It knows the peers from 1 to `peers`.
pub(in crate::mesh) fn node(peers: u16) -> Node {
    let node = Node::new(SampleConfig {
        count: 1,
        own: Some(ip(0)),
        node: Some("node-0".to_owned()),
    });
    round(&node, 1..=peers);
    node
}

/// Begins a round in which the name has the addresses of these peers and that of the node itself. Returns the addresses
/// to call, and whether with a large call.
pub(in crate::mesh) fn round(
    node: &Node,
    peers: impl IntoIterator<Item = u16>,
) -> Vec<(IpAddr, bool)> {
    let addresses = [0].into_iter().chain(peers);
    let addresses: Vec<_> = addresses.map(|peer| (ip(peer), 8080).into()).collect();
    let picks = node.choose(&addresses).into_iter();
    picks
        .map(|(address, sampled)| (address.ip(), sampled.is_large))
        .collect()
}

/// The report of a call to a peer, which failed if `kind` is given.
pub(in crate::mesh) fn report(peer: u16, is_large: bool, kind: Option<FailureKind>) -> Report {
    let mut report = Report::of_outcome(match kind {
        None => Outcome::Answered(Response::of_status(StatusCode::OK)),
        Some(kind) => {
            let after = Duration::ZERO;
            Outcome::Failed(Failure::new(Stage::Http, kind, Cause::Timeout, after), None)
        }
    });
    report.address = Some((ip(peer), 8080).into());
    report.sampled = Some(Sampled {
        is_large,
        is_steady: false,
    });
    report
}

pub(in crate::mesh) fn call(node: &Node, peer: u16, is_large: bool, kind: Option<FailureKind>) {
    node.call(&report(peer, is_large, kind));
}

/// A small call that succeeded, and whose response names the peer's node.
pub(in crate::mesh) fn named_call(node: &Node, peer: u16, name: &str) {
    let mut response = Response::of_status(StatusCode::OK);
    response.node = Some(name.to_owned());
    let mut report = report(peer, SMALL, None);
    report.outcome = Outcome::Answered(response);
    node.call(&report);
}

/// The entry of a peer in the row: the result, for how many seconds, and how many seconds ago it was called.
fn row(node: &Arc<Node>, peer: u16) -> Option<(String, u32, u32)> {
    let targets = [("mesh".to_owned(), Arc::clone(node))];
    let row = Row::of(&targets, Duration::from_secs(10));
    let mut peers = row.peers.into_iter();
    let peer = peers.find(|row| row.0 == ip(peer))?;
    Some((peer.2, peer.4, peer.5))
}

fn peer(node: &Node, peer: u16) -> Peer {
    let mut peers = node.view().peers.into_iter();
    let found = peers.find(|(address, _)| *address == ip(peer));
    found.expect("it has been met").1
}

async fn seconds(seconds: u64) {
    advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_failing_or_well_since_the_first_call_that_was_so() {
    let node = Arc::new(node(2));
    let seen = |result: &str, since, asked| Some((result.to_owned(), since, asked));
    assert_eq!(row(&node, 1), None, "it has not been called");
    seconds(7).await;
    call(&node, 1, SMALL, None);
    assert_eq!(row(&node, 1), seen("ok", 0, 0));
    seconds(10).await;
    call(&node, 1, SMALL, None);
    seconds(3).await;
    assert_eq!(row(&node, 1), seen("ok", 13, 3));
    call(&node, 1, SMALL, Some(ConnectRefused));
    seconds(10).await;
    call(&node, 1, SMALL, Some(ConnectTimeout));
    seconds(2).await;
    // The kind of failure has changed, but the peer has been failing since the first one.
    assert_eq!(row(&node, 1), seen("connect_timeout", 12, 2));
    call(&node, 1, SMALL, None);
    assert_eq!(row(&node, 1), seen("ok", 0, 0));
    assert_eq!(row(&node, 2), None, "nor has this one");
}

#[tokio::test(start_paused = true)]
async fn the_quickest_of_the_last_three_successes_counts_without_dns() {
    let node = node(1);
    let ms = Duration::from_millis;
    let took = |dns, total, kind| {
        let mut report = report(1, SMALL, kind);
        report.timings[Phase::Dns] = Some(ms(dns));
        report.timings[Phase::Total] = Some(ms(total));
        node.call(&report);
        peer(&node, 1).took()
    };
    assert_eq!(took(0, 10, Some(ConnectRefused)), None);
    assert_eq!(took(90, 120, None), Some(ms(30)));
    assert_eq!(took(0, 10, None), Some(ms(10)));
    assert_eq!(took(0, 40, None), Some(ms(10)));
    // A failed call is not one of the three.
    assert_eq!(took(0, 1, Some(ConnectRefused)), Some(ms(10)));
    assert_eq!(took(0, 50, None), Some(ms(10)));
    assert_eq!(took(0, 60, None), Some(ms(40)));
}

#[tokio::test(start_paused = true)]
async fn a_large_call_that_is_lost_counts_until_a_large_call_passes() {
    let node = node(1);
    let failure = || peer(&node, 1).failure();
    call(&node, 1, SMALL, None);
    call(&node, 1, LARGE, Some(ResponseTimeout));
    assert_eq!(failure(), Some(ResponseTimeout));
    let since = peer(&node, 1).since;
    seconds(10).await;
    call(&node, 1, SMALL, None);
    assert_eq!(failure(), Some(ResponseTimeout));
    node.set_hole(ip(1), HOLE);
    assert_eq!(failure(), Some(PathMtu));
    // A failing small call takes precedence, and a successful one says nothing about large calls.
    call(&node, 1, SMALL, Some(ConnectRefused));
    assert_eq!(failure(), Some(ConnectRefused));
    call(&node, 1, SMALL, None);
    assert_eq!(failure(), Some(PathMtu));
    assert_eq!(
        peer(&node, 1).since,
        since,
        "it has been failing throughout"
    );
    call(&node, 1, LARGE, None);
    assert_eq!(failure(), None);
    assert_eq!(peer(&node, 1).hole, None);
}

#[tokio::test(start_paused = true)]
async fn a_large_call_that_cannot_connect_says_nothing_of_large_packets() {
    let node = node(1);
    call(&node, 1, LARGE, Some(ConnectRefused));
    assert_eq!(peer(&node, 1).failure(), Some(ConnectRefused));
    call(&node, 1, SMALL, None);
    assert_eq!(peer(&node, 1).failure(), None);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_for_a_proxy_says_nothing() {
    for status in [400, 413, 431] {
        let node = node(1);
        let refused = |is_large| {
            let status = StatusCode::from_u16(status).expect("a status");
            let mut report = report(1, is_large, Some(FailureKind::HttpStatus));
            let failure = report.failure().expect("it failed").clone();
            report.outcome = Outcome::Failed(failure, Some(Response::of_status(status)));
            node.call(&report);
        };
        refused(LARGE);
        assert!(peer(&node, 1).asked.is_none(), "{status}");
        call(&node, 1, LARGE, Some(ResponseTimeout));
        refused(LARGE);
        assert_eq!(peer(&node, 1).failure(), Some(ResponseTimeout));
        call(&node, 1, LARGE, None);
        refused(SMALL);
        assert_eq!(peer(&node, 1).failure(), Some(FailureKind::HttpStatus));
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_is_measured_once_an_outage() {
    let node = node(1);
    let ended = |is_large, kind| {
        let report = report(1, is_large, kind);
        let is_to_be = node.claim_measurement(&report);
        node.call(&report);
        is_to_be
    };
    for _ in 0..2 {
        assert!(!ended(SMALL, Some(ResponseTimeout)));
        assert!(!ended(LARGE, Some(ConnectTimeout)));
        assert!(ended(LARGE, Some(ResponseTimeout)));
        assert!(!ended(LARGE, Some(ResponseTimeout)));
        assert!(!ended(SMALL, None));
        assert!(!ended(LARGE, Some(ResponseTimeout)));
        assert!(!ended(LARGE, None));
    }
    let stranger = report(9, LARGE, Some(ResponseTimeout));
    assert!(!node.claim_measurement(&stranger));
}

#[tokio::test(start_paused = true)]
async fn a_path_on_which_no_hole_was_found_is_measured_again_and_three_times_at_most() {
    let node = node(1);
    let silent = report(1, LARGE, Some(ResponseTimeout));
    for _ in 0..2 {
        for _ in 0..3 {
            assert!(node.claim_measurement(&silent));
            assert!(!node.claim_measurement(&silent), "it is being measured");
            node.call(&silent);
            node.found_no_hole(ip(1));
        }
        assert!(!node.claim_measurement(&silent));
        call(&node, 1, LARGE, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hole_is_kept_while_large_calls_fail_and_explains_the_next_one() {
    let node = node(2);
    let explained = |is_large| {
        let mut report = report(1, is_large, Some(ResponseTimeout));
        node.apply_known_hole(&mut report);
        let hole = report.failure().expect("it failed").detail.hole;
        (report.kind().expect("it failed"), hole)
    };
    // A limit is ignored if large calls succeed by the time it was found.
    call(&node, 1, SMALL, None);
    node.set_hole(ip(1), HOLE);
    assert_eq!(explained(LARGE), (ResponseTimeout, None));
    call(&node, 1, LARGE, Some(ResponseTimeout));
    node.set_hole(ip(1), HOLE);
    node.set_hole(ip(9), HOLE);
    assert_eq!(explained(LARGE), (PathMtu, Some(HOLE)));
    assert_eq!(explained(SMALL), (ResponseTimeout, None));
    call(&node, 1, LARGE, Some(PathMtu));
    assert_eq!(peer(&node, 1).failure(), Some(PathMtu));
    assert_eq!(peer(&node, 2).failure(), None);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_fails_is_called_again_in_the_next_round() {
    let node = node(60);
    let is_called = |peer, is_large| round(&node, 1..=60).contains(&(ip(peer), is_large));
    // The walk begins with the first peer, and does not reach these peers in this test.
    let usual = round(&node, 1..=60);
    let is_usual = |peer: &u16| usual.iter().any(|(address, _)| *address == ip(*peer));
    let mut others = (40..=60).filter(|peer| !is_usual(peer));
    let (small, large) = (others.next(), others.next());
    let (small, large) = (small.expect("one"), large.expect("another"));
    assert!(!is_called(small, SMALL));
    call(&node, small, SMALL, Some(ConnectRefused));
    assert!(is_called(small, SMALL) && is_called(small, SMALL));
    call(&node, small, SMALL, None);
    assert!(!is_called(small, SMALL));
    call(&node, large, LARGE, Some(ResponseTimeout));
    assert!(is_called(large, LARGE));
    // Of the failing peers, only the one whose last call was longest ago is called: as many as there are steady peers.
    for peer in others.chain([small]) {
        seconds(1).await;
        call(&node, peer, SMALL, Some(ConnectRefused));
    }
    assert!(is_called(large, LARGE) && !is_called(small, SMALL));
    call(&node, large, LARGE, None);
    assert!(!is_called(small, SMALL));
    // A peer that has left is not called again.
    call(&node, small, SMALL, Some(ConnectRefused));
    let called = round(&node, (1..40).chain([small]));
    assert!(called.contains(&(ip(small), SMALL)));
    let called = round(&node, 1..40);
    assert!(!called.contains(&(ip(small), SMALL)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_is_remembered_for_a_minute() {
    let node = Arc::new(node(2));
    call(&node, 1, SMALL, Some(ConnectTimeout));
    call(&node, 2, SMALL, None);
    seconds(5).await;
    round(&node, [2]);
    assert_eq!(node.peer_count(), 1);
    let left = |since, asked| Some(("left".to_owned(), since, asked));
    assert_eq!(row(&node, 1), left(0, 5));
    // The result of a call that was still running does not change that.
    call(&node, 1, SMALL, Some(ConnectTimeout));
    seconds(59).await;
    round(&node, [2]);
    assert_eq!(row(&node, 1), left(59, 59));
    seconds(1).await;
    round(&node, [2]);
    assert_eq!(row(&node, 1), None);
    assert_eq!(node.view().peers.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_known_of_an_address_that_comes_back() {
    let node = Arc::new(node(2));
    call(&node, 1, SMALL, Some(ConnectTimeout));
    round(&node, [2]);
    seconds(5).await;
    round(&node, [1, 2]);
    assert_eq!(node.peer_count(), 2);
    assert_eq!(row(&node, 1), None);
    call(&node, 1, SMALL, None);
    assert_eq!(row(&node, 1), Some(("ok".to_owned(), 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_does_not_resolve_is_told_until_it_does() {
    let node = node(1);
    let lookup = |outcome| Lookup {
        name: "mesh".to_owned(),
        source: Source::Dns,
        conf: None,
        queries: Vec::new(),
        answered: None,
        duration: Duration::ZERO,
        outcome,
    };
    let failure = || {
        let (kind, since) = node.view().lookup_failure?;
        Some((kind, since.elapsed().as_secs()))
    };
    assert_eq!(failure(), None);
    node.lookup(&lookup(Err(LookupFailure::OutOfTime)));
    seconds(10).await;
    node.lookup(&lookup(Err(LookupFailure::InvalidName)));
    seconds(2).await;
    let kind = LookupFailure::InvalidName.kind();
    assert_eq!(failure(), Some((kind, 12)));
    node.lookup(&lookup(Ok(vec![ip(1)])));
    assert_eq!(failure(), None);
}

#[tokio::test(start_paused = true)]
async fn a_peer_has_the_name_that_it_told_last() {
    let node = node(1);
    let told = |name: &str| {
        named_call(&node, 1, name);
        node.name_of(ip(1))
    };
    call(&node, 1, SMALL, None);
    assert_eq!(node.name_of(ip(1)), "10.0.0.1");
    assert_eq!(told("node-1"), "node-1");
    call(&node, 1, SMALL, None);
    assert_eq!(node.name_of(ip(1)), "node-1");
    assert_eq!(told("\x1b[2J"), "\\x1b[2J");
    assert_eq!(told(&"x".repeat(254)), "\\x1b[2J");
    assert_eq!(node.name_of(ip(9)), "10.0.0.9");
}
