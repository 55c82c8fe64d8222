//! Limits the number of distinct names that come from the network.

use std::collections::BTreeSet;

/// Maximum number of distinct names, for one target.
const MAX_NAMES: usize = 100;

/// Maximum number of distinct names of all targets together, except that each target may have [`MIN_NAMES`].
const MAX_IN_ALL: usize = 1000;

/// Number of distinct names that each target may have, however many targets there are.
const MIN_NAMES: usize = 10;

/// Stands for all names beyond the limit.
const OTHER: &str = "other";

/// The distinct names so far. It limits memory and the number of metric labels, whatever backends send.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    seen: BTreeSet<String>,
    max: usize,
}

impl Names {
    /// An empty set for one target out of `targets`.
    pub(crate) fn for_one_of(targets: usize) -> Self {
        Self {
            seen: BTreeSet::new(),
            max: (MAX_IN_ALL / targets.max(1)).clamp(MIN_NAMES, MAX_NAMES),
        }
    }

    /// Returns the name itself, or `other` if it is a new one beyond the limit.
    pub(crate) fn bounded(&mut self, name: String) -> String {
        if self.seen.contains(&name) {
            return name;
        }
        if self.seen.len() < self.max {
            self.seen.insert(name.clone());
            return name;
        }
        OTHER.to_owned()
    }
}
