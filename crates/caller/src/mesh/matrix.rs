//! The rows of all nodes, put together: who reaches whom.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU16;

use super::row::{LEFT, OK, Row};
use crate::failure::FailureKind;

/// A failure that is younger is shown and not counted: its peer may be about to leave.
pub const COUNTED_AFTER_S: u32 = 60;

/// The longest name of a node that is shown, in bytes.
const MAX_NAME: usize = 253;

/// Most nodes of a matrix, so that it fits into the memory of a caller in a cluster (64 MiB): a pair takes 12 bytes.
/// A larger mesh has several names, and is looked at name by name.
pub const MAX_NODES: usize = 1500;

/// Who reaches whom, as far as the rows tell.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The nodes, sorted by name, and by address where the name is not known.
    pub nodes: Vec<MeshNode>,
    /// How many more there are, for which there is no space.
    pub left_out: usize,
    /// Where a node stands in `cells`, whose rows and columns are sorted by address.
    order: Vec<usize>,
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
    /// The diagonal: a node does not call itself.
    Itself,
    /// The last call succeeded.
    Ok {
        /// How long it took, in milliseconds.
        ms: f32,
        /// For how many seconds calls have been succeeding.
        since_s: u32,
        /// How many seconds ago it was made.
        asked_s: u32,
    },
    /// The last call failed.
    Failing {
        /// Kind of the last failure.
        kind: FailureKind,
        /// The largest packet that passes, in bytes, where larger ones are lost.
        mtu: Option<NonZeroU16>,
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

/// Puts rows together as they come, so that no more than one of them is kept as it came.
#[derive(Debug)]
pub struct MatrixBuilder {
    addresses: Vec<IpAddr>,
    at: HashMap<IpAddr, usize>,
    own_names: Vec<Option<String>>,
    heard_names: Vec<Option<String>>,
    rows: Vec<Result<RowFacts, Missing>>,
    cells: Vec<Cell>,
    left_out: usize,
}

impl MatrixBuilder {
    /// Begins with no row of these addresses. Of more than [`MAX_NODES`] the rest is left out.
    pub fn new(addresses: BTreeSet<IpAddr>) -> Self {
        let left_out = addresses.len().saturating_sub(MAX_NODES);
        let addresses: Vec<IpAddr> = addresses.into_iter().take(MAX_NODES).collect();
        let n = addresses.len();
        let mut cells = vec![Cell::Unknown; n * n];
        for node in 0..n {
            cells[node * n + node] = Cell::Itself;
        }
        let number = |(number, &address): (usize, &IpAddr)| (address, number);
        Self {
            at: addresses.iter().enumerate().map(number).collect(),
            own_names: vec![None; n],
            heard_names: vec![None; n],
            rows: vec![Err(Missing::NotAsked); n],
            addresses,
            cells,
            left_out,
        }
    }

    /// The addresses whose rows are to be fetched.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.clone()
    }

    /// Takes in the row that was fetched from an address, or why there is none.
    pub fn add(&mut self, address: IpAddr, row: Result<Row, Missing>) {
        let Some(&from) = self.at.get(&address) else {
            return;
        };
        let row = match row {
            Ok(row) => row,
            Err(missing) => {
                self.rows[from] = Err(missing);
                return;
            }
        };
        for peer in &row.peers {
            if let (Some(&to), Some(name)) = (self.at.get(&peer.0), &peer.1)
                && self.heard_names[to].is_none()
                && is_name(name)
            {
                self.heard_names[to] = Some(name.to_string());
            }
        }
        let n = self.addresses.len();
        fill(&mut self.cells[from * n..][..n], &row, &self.at);
        self.cells[from * n + from] = Cell::Itself;
        self.own_names[from] = row.node.filter(|name| is_name(name));
        let lookup = row.lookup;
        self.rows[from] = Ok(RowFacts {
            lookup: lookup.and_then(|(kind, since)| Some((kind.parse().ok()?, since))),
        });
    }

    /// The matrix of the rows that were added.
    pub fn finish(self) -> Matrix {
        let Self {
            addresses,
            at: _,
            own_names,
            heard_names,
            rows,
            cells,
            left_out,
        } = self;
        let names = own_names.into_iter().zip(heard_names);
        let names: Vec<_> = names.map(|(own, heard)| own.or(heard)).collect();
        let mut order: Vec<usize> = (0..addresses.len()).collect();
        order.sort_by_cached_key(|&node| {
            let name = names[node].as_deref().unwrap_or_default();
            (name.is_empty(), by_number(name), addresses[node])
        });
        let nodes = order.iter().map(|&node| MeshNode {
            address: addresses[node],
            name: names[node].clone(),
            row: rows[node].clone(),
        });
        Matrix {
            nodes: nodes.collect(),
            left_out,
            order,
            cells,
        }
    }
}

impl Matrix {
    /// What is known of a pair, by the numbers of the nodes.
    pub fn cell(&self, from: usize, to: usize) -> Cell {
        let n = self.nodes.len();
        self.cells[self.order[from] * n + self.order[to]]
    }

    /// What a node knows of all others.
    pub fn row(&self, from: usize) -> impl Iterator<Item = Cell> {
        (0..self.nodes.len()).map(move |to| self.cell(from, to))
    }

    /// What all others know of a node.
    pub fn column(&self, to: usize) -> impl Iterator<Item = Cell> {
        (0..self.nodes.len()).map(move |from| self.cell(from, to))
    }

    /// Whether the node's row is there.
    pub fn has_row(&self, node: usize) -> bool {
        self.nodes[node].row.is_ok()
    }
}

/// Whether a name is one to show.
fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= MAX_NAME
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
                since_s,
                asked_s,
            },
            LEFT => Cell::Left,
            kind => match kind.parse() {
                Ok(kind) => Cell::Failing {
                    kind,
                    mtu: mtus
                        .get(&peer.0)
                        .and_then(|&mtu| NonZeroU16::new(u16::try_from(mtu).unwrap_or(u16::MAX))),
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
