//! The samples and the sentences about a mesh in the pages are what the program prints for such a mesh.

use std::net::IpAddr;

use caller::mesh::collect::Collected;
use caller::mesh::matrix::{MatrixBuilder, Missing};
use caller::mesh::report::MeshReport;
use caller::views;
use serde_json::{Value, json};
use test_support::documents::{assert_shown, page};

/// The result of a call, and its duration in milliseconds.
type Seen = (&'static str, f32);

const OK: Seen = ("ok", 0.4);
const SLOW: Seen = ("ok", 80.0);
const LOST: Seen = ("connect_timeout", 0.0);
const LARGE_LOST: Seen = ("path_mtu", 0.0);

/// The faults of a mesh.
struct Faults {
    rows_missing: &'static [u8],
    /// The nodes whose lookup of the mesh's name fails.
    without_dns: &'static [u8],
    /// The result of the calls from one node to another, by their numbers.
    seen: fn(u8, u8) -> Seen,
}

const NO_FAULTS: Faults = Faults {
    rows_missing: &[],
    without_dns: &[],
    seen: |_, _| OK,
};

fn address(node: u8) -> IpAddr {
    IpAddr::from([10, 0, node, 7])
}

/// The report of a mesh that has had these faults for five minutes, from rows as they are sent over the network.
fn mesh(nodes: u8, faults: &Faults) -> MeshReport {
    let mut matrix = MatrixBuilder::new((1..=nodes).map(address).collect());
    for from in 1..=nodes {
        let others = (1..=nodes).filter(|to| *to != from);
        let peers = others.map(|to| {
            let (result, ms) = (faults.seen)(from, to);
            json!([address(to), format!("node-{to}"), result, ms, 300, 5])
        });
        let holes = (1..=nodes).filter(|to| (faults.seen)(from, *to) == LARGE_LOST);
        let row = json!({
            "version": "0.2.0",
            "node": format!("node-{from}"),
            "address": address(from),
            "targets": ["http://mesh:8080/"],
            "interval_s": 10.0,
            "lookup": faults.without_dns.contains(&from).then_some(("dns_timeout", 300)),
            "known": nodes - 1,
            "left_out": 0,
            "peers": peers.collect::<Value>(),
            "mtus": holes.map(|to| json!([address(to), 1400])).collect::<Value>(),
        });
        let row = match faults.rows_missing.contains(&from) {
            true => Err(Missing::ConnectTimeout),
            false => Ok(serde_json::from_value(row).expect("a row")),
        };
        matrix.add(address(from), row);
    }
    MeshReport::new(Collected {
        matrix: matrix.finish(),
        failed_lookups: Vec::new(),
    })
}

#[test]
fn a_mesh_is_shown_as_in_the_docs() {
    let dead = Faults {
        rows_missing: &[3],
        seen: |_, to| if to == 3 { LOST } else { OK },
        ..NO_FAULTS
    };
    let text = views::mesh::text(&mesh(4, &dead));
    assert_shown("a_mesh_is_shown_as_in_the_docs", &text);
}

#[test]
fn sentences_about_a_mesh_are_those_of_the_program() {
    let seen = |seen| Faults { seen, ..NO_FAULTS };
    // In the order of the table in docs/mesh.md.
    let meshes = [
        NO_FAULTS,
        seen(|_, _| LOST),
        seen(|from, to| if (from <= 4) != (to <= 4) { LOST } else { OK }),
        seen(|_, to| if to == 3 { LOST } else { OK }),
        Faults {
            rows_missing: &[3, 4],
            ..seen(|_, to| if to == 3 || to == 4 { LOST } else { OK })
        },
        seen(|from, _| if from == 3 { LOST } else { OK }),
        Faults {
            without_dns: &[3],
            ..NO_FAULTS
        },
        seen(|from, to| if to == 3 && from > 6 { LOST } else { OK }),
        seen(|from, to| if (from, to) == (1, 3) { LOST } else { OK }),
        seen(|from, to| {
            if from + to == 4 && from != to {
                LOST
            } else {
                OK
            }
        }),
        seen(|_, to| if to == 3 { LARGE_LOST } else { OK }),
        Faults {
            rows_missing: &[3],
            ..NO_FAULTS
        },
        seen(|from, _| if from == 3 { SLOW } else { OK }),
        Faults {
            rows_missing: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
            ..NO_FAULTS
        },
    ];
    let text = page("docs/mesh.md");
    let (_, table) = text.split_once("\n| sentence |").expect("a table");
    let rows = table.lines().skip(2);
    let rows: Vec<&str> = rows.take_while(|row| row.starts_with('|')).collect();
    assert_eq!(rows.len(), meshes.len());
    for (row, wrong) in rows.iter().zip(&meshes) {
        let beginning = row.split('`').nth(1).expect("it is quoted");
        let sentences = mesh(12, wrong).sentences();
        assert!(
            sentences[0].starts_with(beginning) && sentences.len() == 1,
            "{beginning}: {sentences:?}"
        );
    }
}
