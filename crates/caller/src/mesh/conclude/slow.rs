//! Slow nodes: nearly all calls from them, or to them, take much longer than calls in this mesh usually do.

use super::Finder;
use crate::mesh::fault::Fault;
use crate::mesh::matrix::{COUNTED_AFTER_S, Cell};

/// A node is slow if its calls take at least this many times the median of the mesh.
const SLOW_TIMES: f32 = 5.0;

/// A node is slow if its calls take at least this many milliseconds longer than the median of the mesh: the durations
/// of fast calls vary by a large factor.
const SLOW_MORE_MS: f32 = 30.0;

/// Number of pairs of a node whose durations must be known before it counts as slow.
const SLOW_CALLS: usize = 4;

impl Finder<'_> {
    /// Finds slow nodes among those that no other fault explains. `median_ms` is the median of the whole mesh.
    pub(super) fn slow(&self, median_ms: Option<f32>, faults: &[Fault]) -> Vec<Fault> {
        let Some(usual_ms) = median_ms else {
            return Vec::new();
        };
        let bound = (usual_ms * SLOW_TIMES).max(usual_ms + SLOW_MORE_MS);
        // All but the fastest fifth have to be slow: a few slow peers do not make a slow node.
        let slow = |cells: &mut dyn Iterator<Item = Cell>| {
            // A caller that has just started is busy, so the first minute of its calls does not count.
            let ms = |cell| match cell {
                Cell::Ok {
                    ms,
                    since_s,
                    asked_s,
                } if since_s >= asked_s.saturating_add(COUNTED_AFTER_S) => Some(ms),
                _ => None,
            };
            let mut ms: Vec<f32> = cells.filter_map(ms).collect();
            if ms.len() < SLOW_CALLS.min(self.n.saturating_sub(1)).max(2) {
                return None;
            }
            ms.sort_unstable_by(f32::total_cmp);
            (ms[ms.len() / 5] >= bound).then(|| ms[ms.len() / 2])
        };
        let is_explained = |node: usize| {
            faults.iter().any(|fault| match fault {
                Fault::NotReached { nodes, .. } => nodes.contains(&node),
                Fault::ReachesNobody {
                    node: explained, ..
                } => *explained == node,
                _ => false,
            })
        };
        let mut found = Vec::new();
        for node in (0..self.n).filter(|&node| !is_explained(node)) {
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
