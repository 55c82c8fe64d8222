//! Finds what is wrong with a mesh, from its matrix: the fewest faults that explain the failing pairs, the most serious
//! first. Every conclusion is supported by a row.
//!
//! The search goes from the whole mesh to single pairs, and each fault explains the failing pairs that it covers: all
//! pairs fail; groups that do not reach each other; nodes that are not reached; nodes that reach no other; nodes that
//! some others do not reach; pairs. Failures of less than a minute are no fault, but beside one that is older they show
//! how far it extends.

mod groups;
mod slow;
mod tally;

use std::collections::{BTreeMap, BTreeSet};

use self::tally::Tally;
use super::fault::{Fault, OwnView, Symptoms};
use super::matrix::{COUNTED_AFTER_S, Cell, Matrix};
use crate::failure::FailureKind;

/// Share of pairs that must fail for a fault of a whole node or group. It is less than 1, so that a single late success
/// does not hide a fault.
const NEARLY_ALL: f64 = 0.9;

/// Number of pairs that must fail for a fault of a whole node, if the mesh has that many other nodes.
const MIN_FAILING: usize = 2;

/// The faults of a mesh, and how much of it is known.
#[derive(Clone, Debug)]
pub struct Conclusion {
    /// Faults, the most serious first.
    pub faults: Vec<Fault>,
    /// Number of pairs that have been failing for less than a minute, which is not a fault yet.
    pub failing_briefly: usize,
    /// Number of pairs that were called lately, and number of all pairs.
    pub called_pairs: (usize, usize),
    /// Median duration of the pairs whose last call succeeded, in milliseconds; `None` if there are none.
    pub median_ms: Option<f32>,
}

/// Searches a matrix for faults.
pub fn conclude(matrix: &Matrix) -> Conclusion {
    let n = matrix.nodes.len();
    let mut all_ms = Vec::new();
    let (mut failing_briefly, mut called) = (0, 0);
    for cell in (0..n).flat_map(|from| matrix.row(from)) {
        match cell {
            Cell::Ok { ms, .. } => all_ms.push(ms),
            Cell::Failing { .. } if !cell.is_fault() => failing_briefly += 1,
            Cell::Failing { .. } => {}
            Cell::Unknown | Cell::Itself | Cell::Left => continue,
        }
        called += 1;
    }
    let median_ms = median(&mut all_ms);
    Conclusion {
        faults: Finder::new(matrix).find(median_ms),
        failing_briefly,
        called_pairs: (called, n * n.saturating_sub(1)),
        median_ms,
    }
}

struct Finder<'a> {
    matrix: &'a Matrix,
    n: usize,
    inward: Vec<Tally>,
    outward: Vec<Tally>,
    /// Pairs that have been failing for a minute, and that no fault explains yet.
    unexplained: BTreeSet<(usize, usize)>,
}

impl<'a> Finder<'a> {
    fn new(matrix: &'a Matrix) -> Self {
        let n = matrix.nodes.len();
        let inward = (0..n).map(|to| Tally::of(matrix.column(to).enumerate()));
        let outward = (0..n).map(|from| Tally::of(matrix.row(from).enumerate()));
        let pairs = (0..n).flat_map(|from| (0..n).map(move |to| (from, to)));
        Self {
            matrix,
            n,
            inward: inward.collect(),
            outward: outward.collect(),
            unexplained: pairs
                .filter(|&(from, to)| matrix.cell(from, to).is_fault())
                .collect(),
        }
    }

    fn find(mut self, median_ms: Option<f32>) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(fault) = self.all_pairs_fail() {
            faults.push(fault);
        } else {
            let groups = self.groups();
            let not_reached = self.not_reached();
            let reaches_nobody = self.reaches_nobody();
            let partly_connected = self.partly_connected();
            faults.extend(groups);
            faults.extend(not_reached);
            faults.extend(reaches_nobody);
            faults.extend(self.lookup_fails());
            // A fault that concerns only large packets is less serious than one of all packets.
            faults.sort_by_key(Fault::is_path_mtu);
            faults.extend(partly_connected);
            faults.extend(self.pairs());
        }
        faults.extend(self.rows_missing(&faults));
        faults.extend(self.slow(median_ms, &faults));
        faults
    }

    fn symptoms(&self, pairs: impl Iterator<Item = (usize, usize)>) -> Symptoms {
        let mut kinds = BTreeMap::<FailureKind, usize>::new();
        let mut mtus = Vec::new();
        for (from, to) in pairs {
            if let Cell::Failing { kind, mtu, .. } = self.matrix.cell(from, to) {
                *kinds.entry(kind).or_default() += 1;
                mtus.push(mtu);
            }
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Symptoms {
            kinds: kinds.into_iter().map(|(kind, _)| kind).collect(),
            mtu: mtus.into_iter().flatten().min(),
        }
    }

    fn all_pairs_fail(&mut self) -> Option<Fault> {
        let pairs: usize = self.outward.iter().map(|tally| tally.failing.len()).sum();
        let calling = self.outward.iter().filter(|tally| tally.known() > 0);
        let is_any_ok = self.outward.iter().any(|tally| !tally.ok.is_empty());
        if self.unexplained.is_empty() || pairs < 2 || calling.count() < 2 || is_any_ok {
            return None;
        }
        let symptoms = self.symptoms(self.unexplained.iter().copied());
        self.unexplained.clear();
        Some(Fault::AllPairsFail { pairs, symptoms })
    }

    fn is_unexplained_inward(&self, node: usize) -> bool {
        let mut failing = self.inward[node].failing.iter();
        failing.any(|&from| self.unexplained.contains(&(from, node)))
    }

    fn not_reached(&mut self) -> Vec<Fault> {
        let others = self.n.saturating_sub(1);
        let unreached = (0..self.n).filter(|&node| self.inward[node].nearly_all_fail(others));
        let unreached: Vec<usize> = unreached
            .filter(|&node| self.is_unexplained_inward(node))
            .collect();
        let (mut without_row, mut faults) = (Vec::new(), Vec::new());
        for &node in &unreached {
            let pairs = self.inward[node].failing.iter().map(|&from| (from, node));
            let symptoms = self.symptoms(pairs);
            let outward = &self.outward[node];
            let own = match self.matrix.has_row(node) {
                false => OwnView::Missing,
                true if outward.nearly_all_fail(others) => OwnView::ReachesNobody,
                true if outward.known() == 0 => OwnView::Unknown,
                true => OwnView::Reaches,
            };
            // A node that small packets reach is a fault of its own: its row is missing because it is too large.
            if own == OwnView::Missing && !symptoms.is_path_mtu() {
                without_row.push(node);
                continue;
            }
            faults.push(Fault::NotReached {
                nodes: vec![node],
                failed: self.count(&self.inward[node]),
                own,
                symptoms,
            });
        }
        if let Some(&first) = without_row.first() {
            let pairs = without_row.iter().flat_map(|&node| {
                self.inward[node]
                    .failing
                    .iter()
                    .map(move |&from| (from, node))
            });
            let fault = Fault::NotReached {
                failed: self.count(&self.inward[first]),
                own: OwnView::Missing,
                symptoms: self.symptoms(pairs),
                nodes: without_row,
            };
            faults.insert(0, fault);
        }
        // The same fault also explains the failing calls that such a node makes.
        self.unexplained
            .retain(|(from, to)| !unreached.contains(from) && !unreached.contains(to));
        faults
    }

    fn count(&self, tally: &Tally) -> (usize, usize) {
        (tally.failing.len(), tally.known())
    }

    fn reaches_nobody(&mut self) -> Vec<Fault> {
        let others = self.n.saturating_sub(1);
        let mut faults = Vec::new();
        for node in 0..self.n {
            let tally = &self.outward[node];
            let is_unexplained = tally
                .failing
                .iter()
                .any(|&to| self.unexplained.contains(&(node, to)));
            if !tally.nearly_all_fail(others) || !is_unexplained {
                continue;
            }
            faults.push(Fault::ReachesNobody {
                node,
                failed: self.count(tally),
                is_reached: !self.inward[node].ok.is_empty(),
                symptoms: self.symptoms(tally.failing.iter().map(|&to| (node, to))),
            });
            self.unexplained.retain(|(from, _)| *from != node);
        }
        faults
    }

    fn lookup_fails(&self) -> Option<Fault> {
        let mut failing = self
            .matrix
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(number, node)| {
                let (kind, since_s) = node.row.as_ref().ok()?.lookup?;
                (since_s >= u64::from(COUNTED_AFTER_S)).then_some((number, kind))
            });
        let (first, kind) = failing.next()?;
        let nodes = [first].into_iter().chain(failing.map(|(number, _)| number));
        Some(Fault::LookupFails {
            nodes: nodes.collect(),
            kind,
        })
    }

    /// Nodes that at least three others do not reach, and at least half of those that call them; and nodes that do not
    /// reach as many others.
    fn partly_connected(&mut self) -> Vec<Fault> {
        let mut found = Vec::new();
        for node in 0..self.n {
            for is_outward in [false, true] {
                let tally = match is_outward {
                    false => &self.inward[node],
                    true => &self.outward[node],
                };
                // Successful small calls say nothing about large packets, so for those no share is required.
                let is_path_mtu = |&other: &usize| {
                    let (from, to) = if is_outward {
                        (node, other)
                    } else {
                        (other, node)
                    };
                    let cell = self.matrix.cell(from, to);
                    matches!(
                        cell,
                        Cell::Failing {
                            kind: FailureKind::PathMtu,
                            ..
                        }
                    )
                };
                let is_enough = tally.share() >= 0.5 || tally.failing.iter().all(is_path_mtu);
                if tally.failing.len() >= 3 && is_enough {
                    found.push((tally.failing.len(), node, is_outward));
                }
            }
        }
        found.sort_by_key(|(failing, ..)| std::cmp::Reverse(*failing));
        let mut faults = Vec::new();
        for (_, node, is_outward) in found {
            let is_of_node =
                |&(from, to): &(usize, usize)| (if is_outward { from } else { to }) == node;
            let unexplained: Vec<_> = self
                .unexplained
                .iter()
                .copied()
                .filter(is_of_node)
                .collect();
            if unexplained.len() < 3 {
                continue;
            }
            let tally = match is_outward {
                false => &self.inward[node],
                true => &self.outward[node],
            };
            faults.push(Fault::PartlyConnected {
                node,
                is_outward,
                failed: self.count(tally),
                symptoms: self.symptoms(unexplained.iter().copied()),
            });
            for pair in unexplained {
                self.unexplained.remove(&pair);
            }
        }
        faults
    }

    fn pairs(&mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        while let Some((from, to)) = self.unexplained.pop_first() {
            let is_mutual = self.unexplained.remove(&(to, from));
            let both = [(from, to), (to, from)].into_iter();
            faults.push(Fault::Pair {
                from,
                to,
                is_mutual,
                symptoms: self.symptoms(both.take(if is_mutual { 2 } else { 1 })),
            });
        }
        faults
    }

    fn rows_missing(&self, faults: &[Fault]) -> Option<Fault> {
        let mut explained = BTreeSet::<usize>::new();
        for fault in faults {
            if let Fault::NotReached { nodes, .. } = fault {
                explained.extend(nodes);
            }
        }
        let (leaving, mut nodes): (Vec<usize>, Vec<usize>) = (0..self.n)
            .filter(|node| !self.matrix.has_row(*node) && !explained.contains(node))
            .partition(|&node| self.is_leaving(node));
        // If half of the rows or more are missing, too little is known to call the mesh healthy.
        if 2 * leaving.len() >= self.n {
            nodes.extend(leaving);
            nodes.sort_unstable();
        }
        (!nodes.is_empty()).then_some(Fault::RowsMissing { nodes })
    }

    /// Whether a node without a row may be about to leave the mesh: calls to it have been failing for less than a
    /// minute, and none has succeeded since.
    fn is_leaving(&self, node: usize) -> bool {
        let mut began_s = None;
        for cell in self.matrix.column(node) {
            match cell {
                Cell::Left => return true,
                Cell::Failing { since_s, .. } => began_s = began_s.max(Some(since_s)),
                _ => {}
            }
        }
        let is_reached = |cell| matches!(cell, Cell::Ok { asked_s, .. } if Some(asked_s) < began_s);
        began_s.is_some_and(|began_s| began_s < COUNTED_AFTER_S)
            && !self.matrix.column(node).any(is_reached)
    }
}

fn median(values: &mut [f32]) -> Option<f32> {
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
    Some(*median)
}

#[cfg(test)]
mod row_tests;
#[cfg(test)]
mod tests;
