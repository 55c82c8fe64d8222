//! Names that come from the network, in bounded number.

use std::collections::BTreeSet;

/// Names told apart; those that come after share one. Bounds memory and labels whatever backends say.
const MAX_NAMES: usize = 100;

/// The name of those that come after.
const OTHER: &str = "other";

/// The names that have been met.
#[derive(Debug, Default, Clone)]
pub(crate) struct Names(BTreeSet<String>);

impl Names {
    /// The name itself, or `other` for one that is new after so many.
    pub(crate) fn bounded(&mut self, name: String) -> String {
        if self.0.contains(&name) {
            return name;
        }
        if self.0.len() < MAX_NAMES {
            self.0.insert(name.clone());
            return name;
        }
        OTHER.to_owned()
    }
}
