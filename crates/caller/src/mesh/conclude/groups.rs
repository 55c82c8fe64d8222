//! Groups of nodes that do not reach each other, such as two zones.

use std::collections::BTreeSet;

use super::{Finder, MIN_FAILING, NEARLY_ALL};
use crate::mesh::fault::Fault;

impl Finder<'_> {
    /// Finds groups of at least two nodes that reach each other, but do not reach the rest of the mesh, or are not
    /// reached from it.
    pub(super) fn groups(&mut self) -> Vec<Fault> {
        let with_rows: Vec<usize> = (0..self.n)
            .filter(|&node| self.matrix.has_row(node))
            .collect();
        let mut groups = self.components(&with_rows);
        groups.retain(|group| group.len() >= 2);
        // The largest group counts as the mesh from which the others are separated.
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
            let crossing: Vec<_> = self
                .unexplained
                .iter()
                .copied()
                .filter(is_crossing)
                .collect();
            if crossing.is_empty() {
                continue;
            }
            let symptoms = self.symptoms(crossing.iter().copied());
            for pair in crossing {
                self.unexplained.remove(&pair);
            }
            faults.push(Fault::Group {
                nodes: group,
                is_inward,
                is_outward,
                symptoms,
            });
        }
        faults
    }

    /// Whether nearly all calls out of a group fail, or nearly all calls into it.
    fn is_cut(&self, members: &BTreeSet<usize>, is_outward: bool) -> bool {
        let (mut failing, mut ok) = (0, 0);
        for (from, tally) in self.outward.iter().enumerate() {
            let leaves = |to: &&usize| {
                members.contains(&from) == is_outward && members.contains(*to) != is_outward
            };
            failing += tally.failing.iter().filter(leaves).count();
            ok += tally.ok.iter().filter(leaves).count();
        }
        failing >= MIN_FAILING && failing as f64 >= NEARLY_ALL * (failing + ok) as f64
    }

    /// Sets of nodes that mostly reach each other in both directions. A few failing calls within a set, and a few
    /// successful ones between two sets, are tolerated.
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
        // Merges sets whose first members alone did not show that they belong together.
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

    /// Whether more than twice as many pairs between two sets succeed as fail. If one direction fails, only as many
    /// succeed as fail.
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
}
