//! Names that come from the network, in bounded number.

use std::collections::BTreeSet;

/// Names told apart by a caller of one target.
const MAX_NAMES: usize = 100;

/// Names told apart by a caller in all, if it has many targets, but for [`MIN_NAMES`] of each.
const MAX_IN_ALL: usize = 1000;

/// Names told apart of each target, however many there are.
const MIN_NAMES: usize = 10;

/// The name of those that come after.
const OTHER: &str = "other";

/// The names that have been met. Bounds memory and labels whatever backends say.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    met: BTreeSet<String>,
    most: usize,
}

impl Names {
    /// For one of so many targets.
    pub(crate) fn for_one_of(targets: usize) -> Self {
        Self {
            met: BTreeSet::new(),
            most: (MAX_IN_ALL / targets.max(1)).clamp(MIN_NAMES, MAX_NAMES),
        }
    }

    /// The name itself, or `other` for one that is new after so many.
    pub(crate) fn bounded(&mut self, name: String) -> String {
        if self.met.contains(&name) {
            return name;
        }
        if self.met.len() < self.most {
            self.met.insert(name.clone());
            return name;
        }
        OTHER.to_owned()
    }
}
