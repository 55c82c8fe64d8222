//! The pairs of one node that succeed and that fail, for the calls that it makes or the calls to it.

use super::{MIN_FAILING, NEARLY_ALL};
use crate::mesh::matrix::Cell;

/// The calls that a node makes, or the calls that are made to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// The other node of each pair that fails, for however short a time.
    pub(super) failing: Vec<usize>,
    /// Whether one of them has been failing for a minute, so that a fault is to be found. The others tell its extent: a
    /// node that dies is met by each of its callers at another time.
    is_fault: bool,
    /// The other node of each pair that succeeded after the failing pairs had begun to fail.
    pub(super) ok: Vec<usize>,
}

impl Tally {
    /// Counts cells, each with the number of the other node.
    pub(super) fn of(cells: impl Iterator<Item = (usize, Cell)>) -> Self {
        let (mut failing, mut ok, mut since) = (Vec::new(), Vec::new(), Vec::new());
        for (other, cell) in cells {
            match cell {
                Cell::Failing { since_s, .. } => {
                    failing.push(other);
                    if cell.is_fault() {
                        since.push(since_s);
                    }
                }
                Cell::Ok { asked_s, .. } => ok.push((other, asked_s)),
                _ => {}
            }
        }
        since.sort_unstable();
        // Most pairs are called once in N rounds. A success from before the fault began says nothing about it.
        let began_s = since.get(since.len() / 2).copied().unwrap_or(u32::MAX);
        Self {
            failing,
            is_fault: !since.is_empty(),
            ok: ok
                .into_iter()
                .filter(|(_, asked_s)| *asked_s < began_s)
                .map(|(other, _)| other)
                .collect(),
        }
    }

    /// Number of pairs with a current result.
    pub(super) fn known(&self) -> usize {
        self.failing.len() + self.ok.len()
    }

    /// Share of these pairs that fail, from 0 to 1.
    pub(super) fn share(&self) -> f64 {
        self.failing.len() as f64 / self.known().max(1) as f64
    }

    /// Whether nearly all pairs fail, and enough of them for a fault of the whole node. `others` is the number of other
    /// nodes.
    pub(super) fn nearly_all_fail(&self, others: usize) -> bool {
        let is_enough = self.failing.len() >= MIN_FAILING.min(others).max(1);
        self.is_fault && is_enough && self.share() >= NEARLY_ALL
    }
}
