//! What the pages say of a mesh is what the program concludes from the rows of one.

use std::net::IpAddr;

use caller::mesh::collect::Collected;
use caller::mesh::matrix::{MatrixBuilder, Missing};
use caller::mesh::report::MeshReport;
use caller::views;
use serde_json::{Value, json};
use test_support::documents::{assert_shown, page};

/// The result of a call, and how many milliseconds it took.
type Seen = (&'static str, f32);

const OK: Seen = ("ok", 0.4);
const SLOW: Seen = ("ok", 80.0);
const LOST: Seen = ("connect_timeout", 0.0);
const LARGE_LOST: Seen = ("path_mtu", 0.0);

/// What is wrong with a mesh.
struct Wrong {
    rows_missing: &'static [u8],
    /// Nodes that cannot look the name up.
    without_dns: &'static [u8],
    /// What a node sees of another, by their numbers.
    seen: fn(u8, u8) -> Seen,
}

const NOTHING: Wrong = Wrong {
    rows_missing: &[],
    without_dns: &[],
    seen: |_, _| OK,
};

fn address(node: u8) -> IpAddr {
    IpAddr::from([10, 0, node, 7])
}

/// A mesh that has been as it is for five minutes, from rows as they come over the network.
fn mesh(nodes: u8, wrong: &Wrong) -> MeshReport {
    let mut matrix = MatrixBuilder::new((1..=nodes).map(address).collect());
    for from in 1..=nodes {
        let others = (1..=nodes).filter(|to| *to != from);
        let peers = others.map(|to| {
            let (result, ms) = (wrong.seen)(from, to);
            json!([address(to), format!("node-{to}"), result, ms, 300, 5])
        });
        let holes = (1..=nodes).filter(|to| (wrong.seen)(from, *to) == LARGE_LOST);
        let row = json!({
            "version": "0.2.0",
            "node": format!("node-{from}"),
            "address": address(from),
            "targets": ["http://mesh:8080/"],
            "interval_s": 10.0,
            "lookup": wrong.without_dns.contains(&from).then_some(("dns_timeout", 300)),
            "known": nodes - 1,
            "left_out": 0,
            "peers": peers.collect::<Value>(),
            "mtus": holes.map(|to| json!([address(to), 1400])).collect::<Value>(),
        });
        let row = match wrong.rows_missing.contains(&from) {
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
    let dead = Wrong {
        rows_missing: &[3],
        seen: |_, to| if to == 3 { LOST } else { OK },
        ..NOTHING
    };
    let text = views::mesh::text(&mesh(4, &dead));
    assert_shown("a_mesh_is_shown_as_in_the_docs", &text);
}

#[test]
fn sentences_about_a_mesh_are_those_of_the_program() {
    let seen = |seen| Wrong { seen, ..NOTHING };
    // In the order of the table.
    let meshes = [
        NOTHING,
        seen(|_, _| LOST),
        seen(|from, to| if (from <= 4) != (to <= 4) { LOST } else { OK }),
        seen(|_, to| if to == 3 { LOST } else { OK }),
        Wrong {
            rows_missing: &[3, 4],
            ..seen(|_, to| if to == 3 || to == 4 { LOST } else { OK })
        },
        seen(|from, _| if from == 3 { LOST } else { OK }),
        Wrong {
            without_dns: &[3],
            ..NOTHING
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
        Wrong {
            rows_missing: &[3],
            ..NOTHING
        },
        seen(|from, _| if from == 3 { SLOW } else { OK }),
        Wrong {
            rows_missing: &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
            ..NOTHING
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
