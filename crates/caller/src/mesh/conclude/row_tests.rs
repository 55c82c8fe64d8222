//! Conclusions from meshes whose rows are missing or old: with nodes that may be about to leave, nodes that only small
//! packets reach, and nodes that no longer make calls.

use std::net::IpAddr;

use super::super::matrix::Missing;
use super::super::report::{MeshReport, MeshState};
use super::super::row::{PeerRow, Row};
use super::tests;

const NODES: u8 = 12;

/// The result of a pair, the duration of its calls in milliseconds, for how many seconds it has had this result, and
/// how many seconds ago the last call was made.
type Seen = (&'static str, f32, u32, u32);

const WELL: Seen = ("ok", 0.4, 3600, 5);
const DEAD: Seen = ("connect_timeout", 0.0, 300, 5);
const HOLE: Seen = ("path_mtu", 0.0, 300, 5);

fn address(node: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, node])
}

/// The mesh in which each node sees the others as `seen` says; the rows of the nodes in `missing` are missing.
fn report(missing: &[u8], seen: impl Fn(u8, u8) -> Seen) -> MeshReport {
    let mut rows = Vec::new();
    for from in 1..=NODES {
        let others = (1..=NODES).filter(|to| *to != from);
        let peers: Vec<PeerRow> = others
            .map(|to| {
                let (result, ms, since_s, asked_s) = seen(from, to);
                let ms = (result == "ok").then_some(ms);
                PeerRow(address(to), None, result.to_owned(), ms, since_s, asked_s)
            })
            .collect();
        let holes = peers.iter().filter(|peer| peer.2 == "path_mtu");
        let row = Row {
            version: "0.2.0".to_owned(),
            node: Some(format!("node-{from}")),
            address: Some(address(from)),
            targets: vec!["http://mesh:8080/".to_owned()],
            interval_s: 10.0,
            lookup: None,
            known: peers.len(),
            left_out: 0,
            mtus: holes.map(|peer| (peer.0, 1400)).collect(),
            peers,
        };
        let row = match missing.contains(&from) {
            true => Err(Missing::ResponseTimeout),
            false => Ok(row),
        };
        rows.push((address(from), row));
    }
    tests::report(rows)
}

/// Calls to node 3 have begun to fail for the first eleven callers; the last caller has the result `before`.
fn first_callers_fail(to: u8, from: u8, before: Seen) -> Seen {
    match (to, from) {
        (3, 1..=11) => ("connect_timeout", 0.0, 20, 5),
        (3, _) => before,
        _ => WELL,
    }
}

#[test]
fn a_node_that_was_reached_before_it_began_to_fail_may_be_about_to_leave() {
    let before = ("ok", 0.4, 3600, 20);
    let leaving = report(&[3], |from, to| first_callers_fail(to, from, before));
    assert_eq!(leaving.state(), MeshState::Ok, "{:?}", leaving.sentences());

    // If a node has reached it since, it has not left, and the missing row is a fault.
    let since = ("ok", 0.4, 3600, 19);
    let there = report(&[3], |from, to| first_callers_fail(to, from, since));
    let said = there.sentences();
    assert!(
        said[0].starts_with("the row of 10.0.0.3 is missing (response_timeout)"),
        "{said:?}"
    );
}

#[test]
fn a_mesh_of_which_hardly_a_row_is_known_is_not_well() {
    let brief = ("connect_timeout", 0.0, 20, 5);
    let lonely = |others: &[u8]| {
        let missing = others.to_vec();
        report(others, move |_, to| match missing.contains(&to) {
            true => brief,
            false => WELL,
        })
    };
    let few = lonely(&[8, 9, 10, 11, 12]);
    assert_eq!(few.state(), MeshState::Ok, "{:?}", few.sentences());
    let half = lonely(&[7, 8, 9, 10, 11, 12]).sentences();
    assert!(
        half[0].starts_with("the rows of 6 of 12 nodes "),
        "{half:?}"
    );
}

#[test]
fn a_mesh_in_which_all_calls_have_begun_to_fail_has_called() {
    let all = report(&[], |_, _| ("connect_timeout", 0.0, 59, 5));
    let said = "nothing has failed for a minute: none of 132 pairs called lately succeeds";
    assert_eq!(all.sentences(), [said]);
}

#[test]
fn a_node_that_small_packets_reach_comes_after_one_that_nothing_reaches_and_is_not_one_with_it() {
    let seen = |from, to| match (from, to) {
        (2, _) | (_, 2) => HOLE,
        (_, 5) => DEAD,
        _ => WELL,
    };
    for missing in [&[][..], &[5], &[2, 5]] {
        let said = report(missing, seen).sentences();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("10.0.0.5) is not reached from ") || said[0].starts_with("10.0.0.5 "),
            "{said:?}"
        );
        assert!(
            said[1].starts_with("packets over 1400 bytes to "),
            "{said:?}"
        );
    }
}

#[test]
fn a_path_that_has_not_been_measured_is_of_the_same_fault_as_those_that_have() {
    let said = report(&[], |from, to| match (from, to) {
        (4, 2) => ("response_timeout", 0.0, 300, 5),
        (2, _) | (_, 2) => HOLE,
        _ => WELL,
    });
    let sentence = "packets over 1400 bytes to node-2 (10.0.0.2) are lost from 11 of 11 nodes (path_mtu, \
                    response_timeout), and those of its own, too: the MTU of its network";
    assert_eq!(said.sentences(), [sentence]);
}

#[test]
fn calls_of_the_first_minute_say_nothing_of_slowness_however_long_ago_they_were() {
    let slow = |since_s, asked_s| {
        report(&[], move |from, _| match from {
            3 => ("ok", 40.0, since_s, asked_s),
            _ => WELL,
        })
    };
    // The node made calls for 59 seconds, and none since.
    let stopped = slow(119, 60);
    assert_eq!(stopped.state(), MeshState::Ok, "{:?}", stopped.sentences());
    let said = slow(120, 60).sentences();
    assert!(said[0].starts_with("everything from node-3 "), "{said:?}");
}
