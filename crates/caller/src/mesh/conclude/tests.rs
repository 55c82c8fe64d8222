//! Conclusions from matrices that are built from rows, as they are received over the network.

use std::net::IpAddr;

use proptest::prelude::*;

use super::super::collect::Collected;
use super::super::matrix::{Matrix, MatrixBuilder, Missing};
use super::super::report::{MeshReport, MeshState};
use super::super::row::{PeerRow, Row};

/// The result of a pair, the duration of its calls in milliseconds, for how many seconds it has had this result, and
/// how many seconds ago the last call was made.
type Seen = (&'static str, f32, u32, u32);

const WELL: Seen = ("ok", 0.4, 3600, 5);
const DEAD: Seen = ("connect_timeout", 0.0, 300, 5);

fn address(node: usize) -> IpAddr {
    IpAddr::from([10, 0, (node / 250) as u8, (node % 250) as u8 + 1])
}

/// A mesh of the nodes 1 to `n`. `seen` returns the result of the calls from one node to another, by their numbers, or
/// `None` if there was no call. The rows of the nodes in `missing` are missing.
fn mesh(
    n: usize,
    missing: &[usize],
    seen: impl Fn(usize, usize) -> Option<Seen>,
) -> Vec<(IpAddr, Result<Row, Missing>)> {
    let row = |from: usize| {
        let peers = (1..=n).filter(|&to| to != from).filter_map(|to| {
            let (result, ms, since_s, asked_s) = seen(from, to)?;
            Some(PeerRow(
                address(to),
                Some(format!("node-{to}").into()),
                result.to_owned(),
                (result == "ok").then_some(ms),
                since_s,
                asked_s,
            ))
        });
        let peers: Vec<PeerRow> = peers.collect();
        let losing_large_packets = peers.iter().filter(|peer| peer.2 == "path_mtu");
        Row {
            version: "0.2.0".to_owned(),
            node: Some(format!("node-{from}")),
            address: Some(address(from)),
            targets: vec!["http://mesh:8080/".to_owned()],
            interval_s: 10.0,
            lookup: None,
            known: n - 1,
            left_out: 0,
            mtus: losing_large_packets.map(|peer| (peer.0, 1400)).collect(),
            peers,
        }
    };
    let rows = (1..=n).map(|node| {
        let row = match missing.contains(&node) {
            true => Err(Missing::ConnectTimeout),
            false => Ok(row(node)),
        };
        (address(node), row)
    });
    rows.collect()
}

fn matrix(rows: Vec<(IpAddr, Result<Row, Missing>)>) -> Matrix {
    let addresses = rows.iter().map(|(address, _)| *address);
    let mut builder = MatrixBuilder::new(addresses.collect());
    for (address, row) in rows {
        builder.add(address, row);
    }
    builder.finish()
}

pub(super) fn report(rows: Vec<(IpAddr, Result<Row, Missing>)>) -> MeshReport {
    MeshReport::new(Collected {
        matrix: matrix(rows),
        failed_lookups: Vec::new(),
    })
}

fn sentences(
    n: usize,
    missing: &[usize],
    seen: impl Fn(usize, usize) -> Option<Seen>,
) -> Vec<String> {
    let report = report(mesh(n, missing, seen));
    assert_eq!(report.state(), MeshState::NotOk, "{:?}", report.sentences());
    report.sentences()
}

#[test]
fn all_is_well_and_how_much_of_it_is_known_is_said() {
    let well = report(mesh(20, &[], |_, _| Some(WELL)));
    assert_eq!(well.state(), MeshState::Ok);
    let sentence = "20 nodes reach each other: 380 of 380 pairs called lately, median 0.4 ms";
    assert_eq!(well.sentences(), [sentence]);
    assert_eq!(well.next_command(), None);
    let starting = report(mesh(20, &[], |from, to| {
        (to == from % 20 + 1).then_some(WELL)
    }));
    assert_eq!(starting.state(), MeshState::Ok);
    assert!(starting.sentences()[0].contains("20 of 380 pairs called lately"));
    let alone = report(mesh(1, &[], |_, _| None));
    assert_eq!(alone.sentences(), ["1 node, and no other to reach"]);
}

#[test]
fn a_dead_node_is_not_reached_and_its_row_is_missing() {
    let said = sentences(12, &[3], |_, to| Some(if to == 3 { DEAD } else { WELL }));
    let sentence = "node-3 (10.0.0.4) is not reached from 11 of 11 nodes (connect_timeout), and its row is missing: the \
                    node, or ingress to it";
    assert_eq!(said, [sentence]);
}

#[test]
fn a_node_whose_ingress_is_blocked_reaches_others_itself() {
    let said = sentences(12, &[], |_, to| Some(if to == 3 { DEAD } else { WELL }));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].ends_with("and it reaches others itself: ingress to it"),
        "{said:?}"
    );
}

#[test]
fn a_node_whose_egress_is_blocked_reaches_nobody_and_is_reached() {
    let said = sentences(12, &[], |from, _| Some(if from == 3 { DEAD } else { WELL }));
    let sentence = "node-3 (10.0.0.4) reaches nobody, 11 of 11 calls fail (connect_timeout), and it is reached: egress of it";
    assert_eq!(said, [sentence]);
}

#[test]
fn a_node_that_is_cut_off_both_ways_is_one_fault() {
    let said = sentences(12, &[], |from, to| {
        Some(if from == 3 || to == 3 { DEAD } else { WELL })
    });
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("is not reached from 11 of 11 nodes"),
        "{said:?}"
    );
    assert!(
        said[0].ends_with("and it reaches nobody: the network of that node"),
        "{said:?}"
    );
}

#[test]
fn asked_from_a_node_that_reaches_nobody_no_more_is_said_than_its_row_knows() {
    let others: Vec<usize> = (2..=12).collect();
    let said = sentences(12, &others, |_, _| Some(DEAD));
    assert!(
        said[0].starts_with("node-1 (10.0.0.2) reaches nobody, 11 of 11 calls fail"),
        "{said:?}"
    );
    assert!(
        said[0].contains("no other row says whether it is reached"),
        "{said:?}"
    );
    assert!(
        said[1].starts_with(
            "the rows of 11 of 12 nodes (node-2, node-3, node-4 and 8 more) are missing"
        ),
        "{said:?}"
    );
}

#[test]
fn half_that_is_split_from_half_is_seen_from_either_and_from_both() {
    let is_cut = |from: usize, to: usize| (from <= 10) != (to <= 10);
    let seen = |from, to| Some(if is_cut(from, to) { DEAD } else { WELL });
    let both = sentences(20, &[], seen);
    assert_eq!(both.len(), 1, "{both:?}");
    assert!(
        both[0].starts_with(
            "nobody in the group of 10 of 20 nodes (node-11, node-12, node-13 and 7 more) reaches anybody outside it, nor is \
             reached from there (connect_timeout)"
        ),
        "{both:?}"
    );
    let far: Vec<usize> = (11..=20).collect();
    let near = sentences(20, &far, seen);
    assert_eq!(near.len(), 1, "{near:?}");
    assert!(
        near[0].starts_with(
            "10 of 20 nodes (node-11, node-12, node-13 and 7 more) are not reached from any of the others (connect_timeout), \
             and their rows are missing"
        ),
        "{near:?}"
    );
}

#[test]
fn a_group_that_is_cut_one_way_is_told_from_one_that_is_cut_both_ways() {
    let into = sentences(20, &[], |from, to| {
        Some(if from > 6 && to <= 6 { DEAD } else { WELL })
    });
    assert_eq!(into.len(), 1, "{into:?}");
    assert!(
        into[0].contains(
            "6 of 20 nodes (node-1, node-2, node-3 and 3 more) is not reached from outside it"
        ),
        "{into:?}"
    );
    assert!(into[0].ends_with("ingress to the group"), "{into:?}");
    let out = sentences(20, &[], |from, to| {
        Some(if from <= 6 && to > 6 { DEAD } else { WELL })
    });
    assert_eq!(out.len(), 1, "{out:?}");
    assert!(
        out[0].starts_with("nobody in the group of 6 of 20 nodes"),
        "{out:?}"
    );
    assert!(out[0].ends_with("egress of the group"), "{out:?}");
}

#[test]
fn a_pair_alone_is_named_in_the_direction_that_fails() {
    let one = sentences(12, &[], |from, to| {
        Some(if (from, to) == (1, 2) { DEAD } else { WELL })
    });
    let sentence = "node-1 (10.0.0.2) does not reach node-2 (10.0.0.3) (connect_timeout): the path between these two alone";
    assert_eq!(one, [sentence]);
    let both = sentences(12, &[], |from, to| {
        Some(if from.min(to) == 1 && from.max(to) == 2 {
            DEAD
        } else {
            WELL
        })
    });
    assert_eq!(both.len(), 1, "{both:?}");
    assert!(
        both[0].contains("node-1 (10.0.0.2) and node-2 (10.0.0.3) do not reach each other"),
        "{both:?}"
    );
}

#[test]
fn a_row_that_is_missing_from_a_node_that_is_reached_is_a_fault_of_its_own() {
    let said = sentences(12, &[3], |_, _| Some(WELL));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("the row of node-3 (10.0.0.4) is missing (connect_timeout)"),
        "{said:?}"
    );
}

#[test]
fn nobody_reaches_anybody_is_one_sentence() {
    let said = sentences(12, &[], |_, _| Some(("connect_refused", 0.0, 100, 5)));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("nobody reaches anybody, all of 132 pairs fail (connect_refused)"),
        "{said:?}"
    );
}

#[test]
fn large_packets_that_are_lost_are_told_with_their_size() {
    let hole: Seen = ("path_mtu", 0.0, 300, 5);
    let pair = sentences(12, &[], |from, to| {
        Some(if (from, to) == (1, 2) { hole } else { WELL })
    });
    assert_eq!(pair.len(), 1, "{pair:?}");
    assert!(
        pair[0].starts_with("packets over 1400 bytes from node-1 (10.0.0.2) to node-2 (10.0.0.3) are lost (path_mtu)"),
        "{pair:?}"
    );
    let node = sentences(12, &[], |from, to| {
        Some(if from == 3 || to == 3 { hole } else { WELL })
    });
    assert_eq!(node.len(), 1, "{node:?}");
    assert!(
        node[0].starts_with("packets over 1400 bytes to node-3 (10.0.0.4) are lost from 11 of 11 nodes (path_mtu), and those of its own"),
        "{node:?}"
    );
    // In a large mesh, only a few pairs have been called with large packets since the fault began.
    let found = |from: usize, to: usize| from == 3 && [4, 5, 6, 7].contains(&to);
    let few = sentences(100, &[], |from, to| {
        Some(if found(from, to) { hole } else { WELL })
    });
    assert_eq!(few.len(), 1, "{few:?}");
    assert!(
        few[0].starts_with("packets over 1400 bytes from node-3 (10.0.0.4) are lost to 4 nodes"),
        "{few:?}"
    );
}

#[test]
fn a_node_far_from_all_others_is_slow_and_one_slow_pair_is_not() {
    let slow: Seen = ("ok", 120.0, 3600, 5);
    let said = sentences(12, &[], |from, to| {
        Some(if from == 3 || to == 3 { slow } else { WELL })
    });
    assert_eq!(
        said,
        ["everything from and to node-3 (10.0.0.4) is slow: 120 ms, where 0.4 ms is usual"]
    );
    let out = sentences(12, &[], |from, _| Some(if from == 3 { slow } else { WELL }));
    assert_eq!(
        out,
        ["everything from node-3 (10.0.0.4) is slow: 120 ms, where 0.4 ms is usual"]
    );
    let pair = report(mesh(12, &[], |from, to| {
        Some(if (from, to) == (3, 4) { slow } else { WELL })
    }));
    assert_eq!(pair.state(), MeshState::Ok, "{:?}", pair.sentences());
}

#[test]
fn a_failure_younger_than_a_minute_is_shown_and_does_not_count() {
    let young: Seen = ("connect_timeout", 0.0, 59, 5);
    let brief = report(mesh(12, &[3], |_, to| {
        Some(if to == 3 { young } else { WELL })
    }));
    assert_eq!(brief.state(), MeshState::Ok, "{:?}", brief.sentences());
    assert_eq!(brief.conclusion.failing_briefly, 11);
    let sentence =
        "nothing has failed for a minute: 110 of 132 pairs called lately succeed, median 0.4 ms";
    assert_eq!(brief.sentences(), [sentence]);
    let left: Seen = ("left", 0.0, 10, 70);
    let gone = report(mesh(12, &[3], |_, to| {
        Some(if to == 3 { left } else { WELL })
    }));
    assert_eq!(gone.state(), MeshState::Ok, "{:?}", gone.sentences());
}

#[test]
fn as_soon_as_one_pair_counts_the_younger_failures_tell_the_extent_of_the_fault() {
    // Each of the callers has met the fault at a time of its own.
    let since = |from: usize, to: usize| 49 + ((from + to) % 12) as u32;
    let failing = |from, to| ("connect_timeout", 0.0, since(from, to), 5);
    for (is_cut, start, missing) in [
        (
            (|_, to| to == 3) as IsFault,
            "node-3 (10.0.0.4) is not reached from 11 of 11 nodes",
            &[3][..],
        ),
        (
            |from, _| from == 3,
            "node-3 (10.0.0.4) reaches nobody, 11 of 11 calls fail",
            &[],
        ),
        (
            |from, to| (from <= 6) != (to <= 6),
            "nobody in the group of 6 of 12 nodes",
            &[],
        ),
        (
            |_, _| true,
            "nobody reaches anybody, all of 132 pairs fail",
            &[],
        ),
    ] {
        let said = sentences(12, missing, |from, to| {
            Some(if is_cut(from, to) {
                failing(from, to)
            } else {
                WELL
            })
        });
        assert!(said[0].starts_with(start), "{said:?}");
        assert_eq!(said.len(), 1, "{said:?}");
    }
}

#[test]
fn a_success_from_before_the_fault_does_not_hide_it() {
    // Ten of a hundred nodes have called node 3 since it died; the others called it 20 minutes ago.
    let said = sentences(100, &[3], |from, to| {
        Some(match to {
            3 if from <= 11 => DEAD,
            3 => ("ok", 0.4, 7200, 1200),
            _ => WELL,
        })
    });
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("node-3 (10.0.0.4) is not reached from 10 of 10 nodes"),
        "{said:?}"
    );
}

#[test]
fn several_faults_are_told_the_gravest_first() {
    let said = sentences(20, &[3], |from, to| {
        Some(match (from, to) {
            (_, 3) => DEAD,
            (7, _) => ("connect_unreachable", 0.0, 100, 5),
            (1, 2) => ("reset", 0.0, 100, 5),
            _ => WELL,
        })
    });
    let starts: Vec<&str> = said
        .iter()
        .filter_map(|said| said.split(' ').next())
        .collect();
    assert_eq!(starts, ["node-3", "node-7", "node-1"], "{said:?}");
}

#[test]
fn a_node_that_cannot_look_the_others_up_says_so_itself() {
    let mut rows = mesh(12, &[], |from, _| (from != 3).then_some(WELL));
    if let Ok(row) = &mut rows[2].1 {
        row.lookup = Some(("dns_timeout".to_owned(), 300));
    }
    let report = report(rows);
    let sentence =
        "node-3 (10.0.0.4) cannot look the others up (dns_timeout): cluster DNS, or egress to it";
    assert_eq!(report.sentences(), [sentence]);
}

#[test]
fn names_and_results_that_are_no_such_thing_do_no_harm() {
    let mut rows = mesh(4, &[], |_, _| Some(WELL));
    if let Ok(row) = &mut rows[1].1 {
        row.node = Some("\u{1b}[31m$(reboot)\n".to_owned());
        row.interval_s = f64::NAN;
        row.peers[0].2 = "Response received successfully!".to_owned();
        row.peers[1].2 = "connect_timeout".to_owned();
        row.peers[1].4 = u32::MAX;
        row.peers[2].3 = Some(f32::NAN);
    }
    let report = report(rows);
    let said = report.sentences().concat() + &report.next_command().unwrap_or_default();
    assert!(!said.contains('\u{1b}') && !said.contains('\n'), "{said}");
    let next = report.next_command().unwrap_or_default();
    assert!(!next.contains("reboot"), "{next}");
}

/// Whether calls from one node to another fail.
type IsFault = fn(usize, usize) -> bool;

/// A fault, and the start of its sentence.
fn faults() -> Vec<(IsFault, &'static str)> {
    vec![
        (|_, to| to == 3, "node-3 (10.0.0.4) is not reached from"),
        (|from, _| from == 3, "node-3 (10.0.0.4) reaches nobody"),
        (
            |from, to| (from <= 10) != (to <= 10),
            "nobody in the group of 10 of 20 nodes (node-11,",
        ),
        (
            |from, to| (from, to) == (5, 6),
            "node-5 (10.0.0.6) does not reach node-6",
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_does_not_hide_a_fault(which in 0..4_usize, noise in prop::collection::vec((1..=20_usize, 1..=20_usize, 0..4_u8), 0..12)) {
        let (is_fault, start) = faults()[which];
        let report = report(mesh(20, &[], |from, to| {
            let disturbed = noise.iter().find(|(a, b, _)| (*a, *b) == (from, to));
            let usual = if is_fault(from, to) { DEAD } else { WELL };
            match disturbed {
                // The pair was not called, was called long ago, has just failed, or was slow once.
                Some((.., 0)) if (from, to) != (5, 6) => None,
                Some((.., 1)) if !is_fault(from, to) => Some(("ok", 0.4, 9000, 9000)),
                Some((.., 2)) if !is_fault(from, to) => Some(("reset", 0.0, 3, 3)),
                Some((.., 3)) if !is_fault(from, to) => Some(("ok", 900.0, 3, 3)),
                _ => Some(usual),
            }
        }));
        let said = report.sentences();
        prop_assert!(said[0].starts_with(start), "{:?}", said);
        prop_assert_eq!(said.len(), 1, "{:?}", said);
    }

    #[test]
    fn on_a_healthy_mesh_noise_is_no_fault(n in 2..30_usize, noise in prop::collection::vec((1..30_usize, 1..30_usize, 0..3_u8), 0..12)) {
        let report = report(mesh(n, &[], |from, to| {
            match noise.iter().find(|(a, b, _)| (*a, *b) == (from, to)) {
                Some((.., 0)) => None,
                Some((.., 1)) => Some(("reset", 0.0, 3, 3)),
                _ => Some(WELL),
            }
        }));
        prop_assert_eq!(report.state(), MeshState::Ok, "{:?}", report.sentences());
    }

    #[test]
    fn no_matrix_is_too_odd(
        n in 0..9_usize,
        missing in prop::collection::vec(1..9_usize, 0..9),
        cells in prop::collection::vec((0..5_usize, 0..200_u32, 0..200_u32), 81),
    ) {
        let results = ["ok", "connect_timeout", "path_mtu", "left", "nonsense"];
        let report = report(mesh(n, &missing, |from, to| {
            let (result, since_s, asked_s) = cells[(from - 1) * 9 + to - 1];
            Some((results[result], 1.0, since_s, asked_s))
        }));
        let has_faults = !report.conclusion.faults.is_empty();
        let has_rows = (0..n).any(|node| report.matrix.has_row(node));
        let expected = match (has_rows, has_faults) {
            (false, _) => MeshState::NoRows,
            (true, true) => MeshState::NotOk,
            (true, false) => MeshState::Ok,
        };
        prop_assert_eq!(report.state(), expected);
        prop_assert_eq!(report.next_command().is_some(), expected != MeshState::Ok);
        // If any pair fails, there is a fault that covers it.
        let failing = (0..n).any(|from| report.matrix.row(from).any(|cell| cell.is_fault()));
        prop_assert!(!failing || has_faults);
    }
}
