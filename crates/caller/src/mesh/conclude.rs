//! What is wrong with a mesh, from its matrix: as few faults as explain what fails, the gravest first, and never more
//! than the rows can know.
//!
//! Nodes that nobody reaches, or that reach nobody, are found first; then groups of nodes that do not reach each
//! other; what is left of pairs that fail stands alone. A failure younger than a minute does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use super::matrix::{COUNTED_AFTER_S, Cell, Matrix};
use crate::failure::FailureKind;

/// A node is said not to be reached where so large a share of those that called it failed: one that still holds a
/// success from before does not hide a fault.
const NEARLY_ALL: f64 = 0.9;

/// The least number of calls from which something is said of a node as a whole, where there are as many others.
const FEW: usize = 2;

/// A node is slow where nearly all of its calls take so many times as long as is usual in the mesh, and so many
/// milliseconds more.
const SLOW_TIMES: f32 = 5.0;
const SLOW_MORE_MS: f32 = 30.0;

/// How many calls of a node have to be known before it is called slow.
const SLOW_CALLS: usize = 4;

/// Something that is wrong. Nodes are numbers in [`Matrix::nodes`].
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// No node reaches any other.
    Nobody {
        /// How many pairs were asked.
        pairs: usize,
        /// Of what calls fail.
        how: How,
    },
    /// A group of nodes and the others do not reach each other.
    Group {
        /// The smaller group.
        nodes: Vec<usize>,
        /// Whether the others do not reach it.
        is_inward: bool,
        /// Whether it does not reach the others.
        is_outward: bool,
        /// Of what calls fail.
        how: How,
    },
    /// Nodes that are not reached.
    NotReached {
        /// The nodes. There are several only where each one's row is missing.
        nodes: Vec<usize>,
        /// How many calls failed, and of how many: of the one node, or of the first.
        failed: (usize, usize),
        /// What is known of the other direction.
        own: OwnView,
        /// Of what calls fail.
        how: How,
    },
    /// A node reaches nobody, and is reached.
    ReachesNobody {
        /// The node.
        node: usize,
        /// How many calls failed, and of how many.
        failed: (usize, usize),
        /// Whether any other row says that it is reached.
        is_reached: bool,
        /// Of what calls fail.
        how: How,
    },
    /// Nodes that cannot look the name up.
    FindsNobody {
        /// The nodes.
        nodes: Vec<usize>,
        /// Of what the lookup of the first fails.
        kind: FailureKind,
    },
    /// A node is not reached by some.
    Partly {
        /// The node.
        node: usize,
        /// Whether it is the node that does not reach some.
        is_outward: bool,
        /// How many calls failed, and of how many.
        failed: (usize, usize),
        /// Of what calls fail.
        how: How,
    },
    /// A pair alone.
    Pair {
        /// Who calls.
        from: usize,
        /// Who is called.
        to: usize,
        /// Whether it fails the other way as well.
        is_mutual: bool,
        /// Of what calls fail.
        how: How,
    },
    /// Nodes whose rows are missing, although they are reached, as far as is known.
    RowsMissing {
        /// The nodes.
        nodes: Vec<usize>,
    },
    /// Calls of a node take long.
    Slow {
        /// The node.
        node: usize,
        /// Whether the calls that it makes take long.
        is_outward: bool,
        /// Whether the calls to it take long.
        is_inward: bool,
        /// The median of its calls, in milliseconds.
        ms: f32,
        /// The median of the mesh, in milliseconds.
        usual_ms: f32,
    },
}

/// What a node that is not reached says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnView {
    /// Its row is missing.
    Missing,
    /// It reaches others.
    Reaches,
    /// It reaches nobody.
    ReachesNobody,
    /// It has called nobody yet.
    Unknown,
}

/// Of what calls fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct How {
    /// The kinds of failure, the most frequent first.
    pub kinds: Vec<FailureKind>,
    /// The largest packet that passes, in bytes, where all of them fail because larger ones are lost.
    pub mtu: Option<NonZeroU16>,
}

impl How {
    /// Whether large packets are lost, and smaller ones pass.
    pub fn is_of_size(&self) -> bool {
        self.kinds == [FailureKind::PathMtu]
    }
}

impl Fault {
    /// Whether it is a fault of a whole node or group, and of large packets alone.
    fn is_of_size(&self) -> bool {
        match self {
            Self::Group { how, .. }
            | Self::NotReached { how, .. }
            | Self::ReachesNobody { how, .. } => how.is_of_size(),
            _ => false,
        }
    }
}

/// What a matrix comes to.
#[derive(Clone, Debug)]
pub struct Conclusion {
    /// What is wrong, the gravest first.
    pub faults: Vec<Fault>,
    /// How many pairs fail for less than a minute, which do not count yet.
    pub failing_briefly: usize,
    /// How many pairs were asked lately, and of how many.
    pub asked: (usize, usize),
    /// The median of the calls that succeeded, in milliseconds.
    pub median_ms: Option<f32>,
}

/// Finds what is wrong.
pub fn conclude(matrix: &Matrix) -> Conclusion {
    let n = matrix.nodes.len();
    let mut all_ms = Vec::new();
    let (mut failing_briefly, mut asked) = (0, 0);
    for cell in (0..n).flat_map(|from| matrix.row(from)) {
        match cell {
            Cell::Ok { ms, .. } => all_ms.push(ms),
            Cell::Failing { .. } if !cell.is_fault() => failing_briefly += 1,
            Cell::Failing { .. } => {}
            Cell::Unknown | Cell::Itself | Cell::Left => continue,
        }
        asked += 1;
    }
    let median_ms = median(&mut all_ms);
    Conclusion {
        faults: Finder::new(matrix).find(median_ms),
        failing_briefly,
        asked: (asked, n * n.saturating_sub(1)),
        median_ms,
    }
}

/// The calls of a node, or those to it.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// Those that fail, with the other node.
    failing: Vec<usize>,
    /// Those that succeed, and have been made since the others began to fail.
    ok: Vec<usize>,
}

impl Tally {
    fn of(cells: impl Iterator<Item = (usize, Cell)>) -> Self {
        let (mut failing, mut ok, mut since) = (Vec::new(), Vec::new(), Vec::new());
        for (other, cell) in cells {
            match cell {
                Cell::Failing { since_s, .. } if cell.is_fault() => {
                    failing.push(other);
                    since.push(since_s);
                }
                Cell::Ok { asked_s, .. } => ok.push((other, asked_s)),
                _ => {}
            }
        }
        since.sort_unstable();
        // Most pairs are called once in N rounds. What was well before the fault began says nothing of it.
        let began_s = since.get(since.len() / 2).copied().unwrap_or(u32::MAX);
        Self {
            failing,
            ok: ok
                .into_iter()
                .filter(|(_, asked_s)| *asked_s < began_s)
                .map(|(other, _)| other)
                .collect(),
        }
    }

    fn known(&self) -> usize {
        self.failing.len() + self.ok.len()
    }

    fn share(&self) -> f64 {
        self.failing.len() as f64 / self.known().max(1) as f64
    }

    /// Whether all calls fail, or as good as all, and there are enough to say so.
    fn is_dead(&self, others: usize) -> bool {
        self.failing.len() >= FEW.min(others).max(1) && self.share() >= NEARLY_ALL
    }
}

struct Finder<'a> {
    matrix: &'a Matrix,
    n: usize,
    inward: Vec<Tally>,
    outward: Vec<Tally>,
    /// Pairs that fail and that no fault explains yet.
    open: BTreeSet<(usize, usize)>,
}

impl<'a> Finder<'a> {
    fn new(matrix: &'a Matrix) -> Self {
        let n = matrix.nodes.len();
        let inward = (0..n).map(|to| Tally::of(matrix.column(to).enumerate()));
        let outward = (0..n).map(|from| Tally::of(matrix.row(from).enumerate()));
        let outward: Vec<Tally> = outward.collect();
        let failing = |(from, tally): (usize, &Tally)| {
            let to = tally.failing.clone().into_iter();
            to.map(move |to| (from, to))
        };
        Self {
            matrix,
            n,
            inward: inward.collect(),
            open: outward.iter().enumerate().flat_map(failing).collect(),
            outward,
        }
    }

    fn find(mut self, median_ms: Option<f32>) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(nobody) = self.nobody() {
            faults.push(nobody);
        } else {
            let groups = self.groups();
            let not_reached = self.not_reached();
            let reaches_nobody = self.reaches_nobody();
            let partly = self.partly();
            faults.extend(groups);
            faults.extend(not_reached);
            faults.extend(reaches_nobody);
            faults.extend(self.finds_nobody());
            // A node that small packets reach is better off than one that nothing reaches.
            faults.sort_by_key(Fault::is_of_size);
            faults.extend(partly);
            faults.extend(self.pairs());
        }
        faults.extend(self.rows_missing(&faults));
        faults.extend(self.slow(median_ms, &faults));
        faults
    }

    fn how(&self, pairs: impl Iterator<Item = (usize, usize)>) -> How {
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
        How {
            kinds: kinds.into_iter().map(|(kind, _)| kind).collect(),
            mtu: mtus.into_iter().min().flatten(),
        }
    }

    fn nobody(&mut self) -> Option<Fault> {
        let pairs: usize = self.outward.iter().map(|tally| tally.failing.len()).sum();
        let calling = self.outward.iter().filter(|tally| tally.known() > 0);
        let is_any_ok = self.outward.iter().any(|tally| !tally.ok.is_empty());
        if pairs < 2 || calling.count() < 2 || is_any_ok {
            return None;
        }
        let how = self.how(self.open.iter().copied());
        self.open.clear();
        Some(Fault::Nobody { pairs, how })
    }

    /// Groups of at least two nodes between which nothing passes in a direction, and within which all do.
    fn groups(&mut self) -> Vec<Fault> {
        let with_rows: Vec<usize> = (0..self.n)
            .filter(|&node| self.matrix.has_row(node))
            .collect();
        let mut groups = self.components(&with_rows);
        groups.retain(|group| group.len() >= 2);
        // The largest one is the mesh, from which the others are apart.
        groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
        let mut faults = Vec::new();
        for group in groups.into_iter().skip(1) {
            let members: BTreeSet<usize> = group.iter().copied().collect();
            let is_crossing =
                |&(from, to): &(usize, usize)| members.contains(&from) != members.contains(&to);
            let is_inward = self.is_cut(&members, false);
            let is_outward = self.is_cut(&members, true);
            if !is_inward && !is_outward {
                continue;
            }
            let crossing: Vec<_> = self.open.iter().copied().filter(is_crossing).collect();
            let how = self.how(crossing.iter().copied());
            for pair in crossing {
                self.open.remove(&pair);
            }
            faults.push(Fault::Group {
                nodes: group,
                is_inward,
                is_outward,
                how,
            });
        }
        faults
    }

    /// Whether nothing passes out of a group, or into it.
    fn is_cut(&self, members: &BTreeSet<usize>, is_outward: bool) -> bool {
        let (mut failing, mut ok) = (0, 0);
        for (from, tally) in self.outward.iter().enumerate() {
            let leaves = |to: &&usize| {
                members.contains(&from) == is_outward && members.contains(*to) != is_outward
            };
            failing += tally.failing.iter().filter(leaves).count();
            ok += tally.ok.iter().filter(leaves).count();
        }
        failing >= FEW && failing as f64 >= NEARLY_ALL * (failing + ok) as f64
    }

    /// Sets of nodes between most pairs of which calls succeed in both directions. A few that do not, or a few that
    /// do between two sets, are noise.
    fn components(&self, nodes: &[usize]) -> Vec<Vec<usize>> {
        let mut components: Vec<Vec<usize>> = Vec::new();
        for &node in nodes {
            let joined = components
                .iter_mut()
                .find(|component| self.is_joined(component, &[node]));
            match joined {
                Some(component) => component.push(node),
                None => components.push(vec![node]),
            }
        }
        // Those that were not known to belong together before there were more of them.
        let mut at = 0;
        while at < components.len() {
            let other = (at + 1..components.len())
                .find(|&other| self.is_joined(&components[at], &components[other]));
            match other {
                Some(other) => {
                    let other = components.swap_remove(other);
                    components[at].extend(other);
                    at = 0;
                }
                None => at += 1,
            }
        }
        for component in &mut components {
            component.sort_unstable();
        }
        components.sort_unstable();
        components
    }

    /// Whether far more calls between two sets succeed than fail, as where one direction fails they do not.
    fn is_joined(&self, some: &[usize], others: &[usize]) -> bool {
        let (mut ok, mut faults) = (0, 0);
        for &a in some {
            for &b in others {
                for cell in [self.matrix.cell(a, b), self.matrix.cell(b, a)] {
                    ok += usize::from(cell.is_ok());
                    faults += usize::from(cell.is_fault());
                }
            }
        }
        ok > 2 * faults
    }

    fn is_open_inward(&self, node: usize) -> bool {
        let mut failing = self.inward[node].failing.iter();
        failing.any(|&from| self.open.contains(&(from, node)))
    }

    fn not_reached(&mut self) -> Vec<Fault> {
        let others = self.n.saturating_sub(1);
        let dead = (0..self.n).filter(|&node| self.inward[node].is_dead(others));
        let dead: Vec<usize> = dead.filter(|&node| self.is_open_inward(node)).collect();
        let (mut silent, mut faults) = (Vec::new(), Vec::new());
        for &node in &dead {
            let pairs = self.inward[node].failing.iter().map(|&from| (from, node));
            let how = self.how(pairs);
            let outward = &self.outward[node];
            let own = match self.matrix.has_row(node) {
                false => OwnView::Missing,
                true if outward.is_dead(others) => OwnView::ReachesNobody,
                true if outward.known() == 0 => OwnView::Unknown,
                true => OwnView::Reaches,
            };
            // One that is reached by small packets has another fault: its row is too large.
            if own == OwnView::Missing && !how.is_of_size() {
                silent.push(node);
                continue;
            }
            faults.push(Fault::NotReached {
                nodes: vec![node],
                failed: self.count(&self.inward[node]),
                own,
                how,
            });
        }
        if let Some(&first) = silent.first() {
            let pairs = silent.iter().flat_map(|&node| {
                self.inward[node]
                    .failing
                    .iter()
                    .map(move |&from| (from, node))
            });
            let fault = Fault::NotReached {
                failed: self.count(&self.inward[first]),
                own: OwnView::Missing,
                how: self.how(pairs),
                nodes: silent,
            };
            faults.insert(0, fault);
        }
        // What such a node says of others is of the same fault.
        self.open
            .retain(|(from, to)| !dead.contains(from) && !dead.contains(to));
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
            let is_open = tally
                .failing
                .iter()
                .any(|&to| self.open.contains(&(node, to)));
            if !tally.is_dead(others) || !is_open {
                continue;
            }
            faults.push(Fault::ReachesNobody {
                node,
                failed: self.count(tally),
                is_reached: !self.inward[node].ok.is_empty(),
                how: self.how(tally.failing.iter().map(|&to| (node, to))),
            });
            self.open.retain(|(from, _)| *from != node);
        }
        faults
    }

    fn finds_nobody(&self) -> Option<Fault> {
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
        Some(Fault::FindsNobody {
            nodes: nodes.collect(),
            kind,
        })
    }

    /// Nodes that at least three, and half of those that call them, do not reach; and the same the other way.
    fn partly(&mut self) -> Vec<Fault> {
        let mut found = Vec::new();
        for node in 0..self.n {
            for is_outward in [false, true] {
                let tally = match is_outward {
                    false => &self.inward[node],
                    true => &self.outward[node],
                };
                // That small packets pass says nothing of large ones.
                let is_of_size = |&other: &usize| {
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
                let is_most = tally.share() >= 0.5 || tally.failing.iter().all(is_of_size);
                if tally.failing.len() >= 3 && is_most {
                    found.push((tally.failing.len(), node, is_outward));
                }
            }
        }
        found.sort_by_key(|(failing, ..)| std::cmp::Reverse(*failing));
        let mut faults = Vec::new();
        for (_, node, is_outward) in found {
            let is_its =
                |&(from, to): &(usize, usize)| (if is_outward { from } else { to }) == node;
            let open: Vec<_> = self.open.iter().copied().filter(is_its).collect();
            if open.len() < 3 {
                continue;
            }
            let tally = match is_outward {
                false => &self.inward[node],
                true => &self.outward[node],
            };
            faults.push(Fault::Partly {
                node,
                is_outward,
                failed: self.count(tally),
                how: self.how(open.iter().copied()),
            });
            for pair in open {
                self.open.remove(&pair);
            }
        }
        faults
    }

    fn pairs(&mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        while let Some((from, to)) = self.open.pop_first() {
            let is_mutual = self.open.remove(&(to, from));
            let both = [(from, to), (to, from)].into_iter();
            faults.push(Fault::Pair {
                from,
                to,
                is_mutual,
                how: self.how(both.take(if is_mutual { 2 } else { 1 })),
            });
        }
        faults
    }

    fn rows_missing(&self, faults: &[Fault]) -> Option<Fault> {
        let mut said = BTreeSet::<usize>::new();
        for fault in faults {
            if let Fault::NotReached { nodes, .. } = fault {
                said.extend(nodes);
            }
        }
        let (leaving, mut nodes): (Vec<usize>, Vec<usize>) = (0..self.n)
            .filter(|node| !self.matrix.has_row(*node) && !said.contains(node))
            .partition(|&node| self.is_leaving(node));
        // A mesh is not well where hardly a row is known.
        if 2 * leaving.len() >= self.n {
            nodes.extend(leaving);
            nodes.sort_unstable();
        }
        (!nodes.is_empty()).then_some(Fault::RowsMissing { nodes })
    }

    /// Whether a node may be about to leave, and its row with it: calls of it fail for less than a minute, and none has
    /// succeeded since.
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

    fn slow(&self, median_ms: Option<f32>, faults: &[Fault]) -> Vec<Fault> {
        let Some(usual_ms) = median_ms else {
            return Vec::new();
        };
        let bound = (usual_ms * SLOW_TIMES).max(usual_ms + SLOW_MORE_MS);
        // The quickest calls but a few have to be slow, and not only the median.
        let slow = |cells: &mut dyn Iterator<Item = Cell>| {
            // A caller that has just started has much to do.
            let ms = |cell| match cell {
                Cell::Ok { ms, since_s, .. } if since_s >= COUNTED_AFTER_S => Some(ms),
                _ => None,
            };
            let mut ms: Vec<f32> = cells.filter_map(ms).collect();
            if ms.len() < SLOW_CALLS.min(self.n.saturating_sub(1)).max(2) {
                return None;
            }
            ms.sort_unstable_by(f32::total_cmp);
            (ms[ms.len() / 5] >= bound).then(|| ms[ms.len() / 2])
        };
        let is_said = |node: usize| {
            faults.iter().any(|fault| match fault {
                Fault::NotReached { nodes, .. } => nodes.contains(&node),
                Fault::ReachesNobody { node: said, .. } => *said == node,
                _ => false,
            })
        };
        let mut found = Vec::new();
        for node in (0..self.n).filter(|&node| !is_said(node)) {
            let outward = slow(&mut self.matrix.row(node));
            let inward = slow(&mut self.matrix.column(node));
            if let Some(ms) = outward.or(inward) {
                found.push(Fault::Slow {
                    node,
                    is_outward: outward.is_some(),
                    is_inward: inward.is_some(),
                    ms,
                    usual_ms,
                });
            }
        }
        found
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
