//! The rows of all nodes, put together: who reaches whom.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use super::row::{LEFT, OK, Row};
use crate::failure::FailureKind;

/// A failure that is younger is shown and not counted: its peer may be about to leave.
pub const COUNTED_AFTER_S: u32 = 60;

/// The longest name of a node that is shown, in bytes.
const MAX_NAME: usize = 253;

/// Most nodes of a matrix: more than a DNS message holds addresses.
pub const MAX_NODES: usize = 5000;

/// Who reaches whom, as far as the rows tell.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The nodes, sorted by name, and by address where the name is not known.
    pub nodes: Vec<MeshNode>,
    /// One for each ordered pair, row by row.
    cells: Vec<Cell>,
}

/// A node of the mesh.
#[derive(Clone, Debug)]
pub struct MeshNode {
    /// The address of its pod.
    pub address: IpAddr,
    /// Its name, from its own row, or else from what others heard from it before.
    pub name: Option<String>,
    /// Its row, or why there is none.
    pub row: Result<RowFacts, Missing>,
}

/// What a row says beside its cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowFacts {
    /// Why it cannot look its peers up, and for how many seconds.
    pub lookup: Option<(FailureKind, u64)>,
}

/// Why there is no row of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing listens at its port, or a policy rejects.
    Refused,
    /// No route leads to it, or a policy rejects.
    Unreachable,
    /// No connection was made in time.
    ConnectTimeout,
    /// It was connected, and did not answer in time.
    ResponseTimeout,
    /// It answered with this status: 404 is that of a caller without `--sample`.
    Status(u16),
    /// What it answered is not a row, or longer than one is.
    Malformed,
    /// The time for all rows was over before.
    NotAsked,
    /// Something else went wrong on the way.
    Broken,
}

impl Missing {
    /// The word for JSON and text.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "connect_refused",
            Self::Unreachable => "connect_unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::ResponseTimeout => "response_timeout",
            Self::Status(404) => "no_sample",
            Self::Status(_) => "http_status",
            Self::Malformed => "malformed",
            Self::NotAsked => "not_asked",
            Self::Broken => "reset",
        }
    }
}

/// What is known of an ordered pair.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Cell {
    /// It was never asked, or not lately, or the row is missing.
    #[default]
    Unknown,
    /// The node itself.
    Itself,
    /// The last call succeeded.
    Ok {
        /// How long it took, in milliseconds.
        ms: f32,
        /// How many seconds ago it was made.
        asked_s: u32,
    },
    /// The last call failed.
    Failing {
        /// Of what.
        kind: FailureKind,
        /// The largest packet that passes, in bytes, where larger ones are lost.
        mtu: Option<NonZeroU32>,
        /// For how many seconds calls have been failing.
        since_s: u32,
        /// How many seconds ago the last call was made.
        asked_s: u32,
    },
    /// The name no longer has the address.
    Left,
}

impl Cell {
    /// Whether it fails, and has for so long that it counts.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Failing { since_s, .. } if *since_s >= COUNTED_AFTER_S)
    }

    /// Whether the last call succeeded.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok { .. })
    }
}

impl Matrix {
    /// Puts rows together, each fetched from the address beside it.
    pub fn new(rows: Vec<(IpAddr, Result<Row, Missing>)>) -> Self {
        let mut names = HashMap::<IpAddr, String>::new();
        for row in rows.iter().filter_map(|(_, row)| row.as_ref().ok()) {
            for peer in &row.peers {
                if let Some(name) = peer.1.as_ref().filter(|name| name.len() <= MAX_NAME) {
                    names.entry(peer.0).or_insert_with(|| name.to_string());
                }
            }
        }
        let mut rows: Vec<_> = rows
            .into_iter()
            .take(MAX_NODES)
            .map(|(address, row)| {
                let own = row.as_ref().ok().and_then(|row| row.node.clone());
                let own = own.filter(|name| name.len() <= MAX_NAME);
                let heard = || names.get(&address).cloned();
                (own.or_else(heard), address, row)
            })
            .collect();
        rows.sort_by_cached_key(|(name, address, _)| {
            let name = name.clone().unwrap_or_default();
            (name.is_empty(), by_number(&name), *address)
        });
        rows.dedup_by_key(|(_, address, _)| *address);

        let n = rows.len();
        let at: HashMap<IpAddr, usize> = rows
            .iter()
            .enumerate()
            .map(|(number, (_, address, _))| (*address, number))
            .collect();
        let mut cells = vec![Cell::Unknown; n * n];
        let mut nodes = Vec::with_capacity(n);
        for (from, (name, address, row)) in rows.into_iter().enumerate() {
            if let Ok(row) = &row {
                fill(&mut cells[from * n..][..n], row, &at);
            }
            cells[from * n + from] = Cell::Itself;
            let row = row.map(|row| RowFacts {
                lookup: row
                    .lookup
                    .and_then(|(kind, since)| Some((kind.parse().ok()?, since))),
            });
            nodes.push(MeshNode { address, name, row });
        }
        Self { nodes, cells }
    }

    /// What is known of a pair, by the numbers of the nodes.
    pub fn cell(&self, from: usize, to: usize) -> Cell {
        self.cells[from * self.nodes.len() + to]
    }

    /// What a node knows of all others.
    pub fn row(&self, from: usize) -> &[Cell] {
        let n = self.nodes.len();
        &self.cells[from * n..][..n]
    }

    /// What all others know of a node.
    pub fn column(&self, to: usize) -> impl Iterator<Item = Cell> {
        self.cells
            .iter()
            .skip(to)
            .step_by(self.nodes.len())
            .copied()
    }

    /// Whether the node's row is there.
    pub fn has_row(&self, node: usize) -> bool {
        self.nodes[node].row.is_ok()
    }
}

/// Fills the cells of a row.
fn fill(cells: &mut [Cell], row: &Row, at: &HashMap<IpAddr, usize>) {
    let mtus: HashMap<IpAddr, u32> = row.mtus.iter().copied().collect();
    // The walk comes round in as many rounds as there are nodes, and half as many more are allowed for delays.
    let lately = row.interval_s.clamp(0.0, 1e6) * cells.len() as f64 * 1.5;
    let lately = (lately as u32).max(2 * COUNTED_AFTER_S);
    for peer in &row.peers {
        let (Some(&to), result) = (at.get(&peer.0), peer.2.as_str()) else {
            continue;
        };
        let (since_s, asked_s) = (peer.4, peer.5);
        cells[to] = match result {
            _ if asked_s > lately => Cell::Unknown,
            OK => Cell::Ok {
                ms: peer.3.unwrap_or_default().max(0.0),
                asked_s,
            },
            LEFT => Cell::Left,
            kind => match kind.parse() {
                Ok(kind) => Cell::Failing {
                    kind,
                    mtu: mtus.get(&peer.0).and_then(|&mtu| NonZeroU32::new(mtu)),
                    since_s,
                    asked_s,
                },
                // Of another version.
                Err(_) => Cell::Unknown,
            },
        };
    }
}

/// What names are sorted by, so that `node-10` comes after `node-9`.
fn by_number(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (text, tail) = rest.split_at(text);
        let digits = tail
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (digits, tail) = tail.split_at(digits);
        parts.push((text.to_owned(), digits.parse().unwrap_or_default()));
        rest = tail;
    }
    parts
}
