//! The rows of all nodes, put together: which node reaches which.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU16;

use super::row::{LEFT, OK, Row};
use crate::failure::FailureKind;

/// Seconds after which a failure counts as a fault. Until then it is only shown, because its peer may be about to
/// leave.
pub const COUNTED_AFTER_S: u32 = 60;

/// Longest name of a node that is shown, in bytes.
const MAX_NAME: usize = 253;

/// Most nodes of a matrix, so that it fits into the memory of a caller in a cluster (64 MiB): a pair takes 12 bytes.
/// A larger mesh has several names, each with a matrix of its own.
pub const MAX_NODES: usize = 1500;

/// Which node reaches which, as far as the rows show.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The nodes, sorted by name; those without a name come last, sorted by address.
    pub nodes: Vec<MeshNode>,
    /// Number of nodes that are left out, because there are more than [`MAX_NODES`].
    pub left_out: usize,
    /// The row and column in `cells` of each node in `nodes`: `cells` is sorted by address.
    order: Vec<usize>,
    /// A cell for each ordered pair of nodes, row by row.
    cells: Vec<Cell>,
}

/// A node of the mesh.
#[derive(Clone, Debug)]
pub struct MeshNode {
    /// The address of its pod.
    pub address: IpAddr,
    /// Its name, from its own row, or else from the row of another node.
    pub name: Option<String>,
    /// The other data of its row, or why the row is missing.
    pub row: Result<RowFacts, Missing>,
}

/// The data of a row other than its cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowFacts {
    /// The kind of failure of its lookups, if they fail, and for how many seconds they have been failing.
    pub lookup: Option<(FailureKind, u64)>,
}

/// Why the row of a node is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The connection was refused: nothing listens at the port, or a policy rejects it.
    Refused,
    /// The address is unreachable: there is no route to it, or a policy rejects the connection.
    Unreachable,
    /// The TCP handshake did not complete in time.
    ConnectTimeout,
    /// The connection was made, but no complete response came in time.
    ResponseTimeout,
    /// The response has this HTTP status; a caller without `--sample` responds with 404.
    Status(u16),
    /// The response is not a row, or is longer than a row can be.
    Malformed,
    /// The timeout of all rows expired before this row was requested or received.
    NotAsked,
    /// The request failed in another way, such as a reset connection.
    Broken,
}

impl Missing {
    /// The word for this reason in JSON and text.
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

/// The result of the calls of an ordered pair of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Cell {
    /// The pair was never called, or not lately, or the row is missing.
    #[default]
    Unknown,
    /// The diagonal: a node does not call itself.
    Itself,
    /// The last call succeeded.
    Ok {
        /// Duration of the fastest of the last three successful calls, in milliseconds.
        ms: f32,
        /// For how many seconds calls have been succeeding.
        since_s: u32,
        /// How many seconds ago the last call was made.
        asked_s: u32,
    },
    /// The last call failed.
    Failing {
        /// Kind of the last failure.
        kind: FailureKind,
        /// Size of the largest packet that passes, in bytes, if larger ones are lost.
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
    /// Whether calls have been failing for at least [`COUNTED_AFTER_S`], so that the failure counts.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Failing { since_s, .. } if *since_s >= COUNTED_AFTER_S)
    }

    /// Whether the last call succeeded.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok { .. })
    }
}

/// Puts rows together as they arrive, so that only one of them at a time is in memory in its JSON form.
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
    /// Starts with these addresses and no rows. Addresses beyond [`MAX_NODES`] are left out.
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

    /// Adds the row that was fetched from an address, or the reason why it is missing.
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
            (name.is_empty(), numeric_sort_key(name), addresses[node])
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
    /// The result of a pair, by the indices of its nodes in [`Matrix::nodes`].
    pub fn cell(&self, from: usize, to: usize) -> Cell {
        let n = self.nodes.len();
        self.cells[self.order[from] * n + self.order[to]]
    }

    /// The results of the calls that a node makes.
    pub fn row(&self, from: usize) -> impl Iterator<Item = Cell> {
        (0..self.nodes.len()).map(move |to| self.cell(from, to))
    }

    /// The results of the calls that others make to a node.
    pub fn column(&self, to: usize) -> impl Iterator<Item = Cell> {
        (0..self.nodes.len()).map(move |from| self.cell(from, to))
    }

    /// Whether the node's row was collected.
    pub fn has_row(&self, node: usize) -> bool {
        self.nodes[node].row.is_ok()
    }
}

/// Whether a name can be shown: it is neither blank nor too long.
fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= MAX_NAME
}

/// Fills the cells of a node from its row.
fn fill(cells: &mut [Cell], row: &Row, at: &HashMap<IpAddr, usize>) {
    let mtus: HashMap<IpAddr, u32> = row.mtus.iter().copied().collect();
    // The walk calls each peer once in as many rounds as there are nodes; half as many rounds again allow for delays.
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
                // The row comes from another version, which has another kind of failure.
                Err(_) => Cell::Unknown,
            },
        };
    }
}

/// The sort key of a name, by which `node-10` comes after `node-9`.
fn numeric_sort_key(name: &str) -> Vec<(String, u64)> {
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
