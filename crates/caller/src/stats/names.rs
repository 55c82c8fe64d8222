//! Limits the number of distinct names that come from the network.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Maximum number of distinct names, for one target.
const MAX_NAMES: usize = 100;

/// Maximum number of distinct names of all targets together, except that each target may have [`MIN_NAMES`].
const MAX_IN_ALL: usize = 1000;

/// Number of distinct names that each target may have, however many targets there are.
const MIN_NAMES: usize = 10;

/// Stands for all names beyond the limit.
pub(crate) const OTHER: &str = "other";

/// Time after which a name that has not been seen again may make room for a new one: names of pods change with each rollout.
/// So names that are made up cost a metrics database at most [`MAX_NAMES`] new series in this time.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// The recent names, each with the time when it was last seen. It limits memory and the number of metric labels,
/// whatever backends send.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    seen: BTreeMap<String, Instant>,
    max: usize,
}

/// A name within the limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bounded {
    /// The name itself, or [`OTHER`] if it is a new one beyond the limit.
    pub(crate) name: String,
    /// The name that has made room for it.
    pub(crate) forgotten: Option<String>,
}

impl Names {
    /// An empty set for one target out of `targets`.
    pub(crate) fn for_one_of(targets: usize) -> Self {
        Self {
            seen: BTreeMap::new(),
            max: (MAX_IN_ALL / targets.max(1)).clamp(MIN_NAMES, MAX_NAMES),
        }
    }

    /// Bounds a name that is seen now.
    pub(crate) fn bounded(&mut self, name: String) -> Bounded {
        let mut forgotten = None;
        if !self.seen.contains_key(&name) && self.seen.len() >= self.max {
            forgotten = self.forget();
            if forgotten.is_none() {
                let name = OTHER.to_owned();
                return Bounded { name, forgotten };
            }
        }
        self.seen.insert(name.clone(), Instant::now());
        Bounded { name, forgotten }
    }

    /// Removes the name that has not been seen for longest, if that is long enough.
    fn forget(&mut self) -> Option<String> {
        let (name, last) = self.seen.iter().min_by_key(|(_, last)| **last)?;
        if last.elapsed() < FORGET_AFTER {
            return None;
        }
        let name = name.clone();
        self.seen.remove(&name);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn bounded(name: &str, forgotten: Option<&str>) -> Bounded {
        Bounded {
            name: name.to_owned(),
            forgotten: forgotten.map(str::to_owned),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_name_takes_the_place_of_one_that_was_not_seen_for_an_hour() {
        let mut names = Names::for_one_of(1);
        for number in 0..100 {
            names.bounded(format!("pod-{number}"));
            advance(Duration::from_secs(1)).await;
        }
        let mut after = async |seconds, name: &str| {
            advance(Duration::from_secs(seconds)).await;
            names.bounded(name.to_owned())
        };
        assert_eq!(after(3000, "pod-0").await, bounded("pod-0", None));
        assert_eq!(after(500, "new").await, bounded("other", None));
        assert_eq!(after(1, "new").await, bounded("new", Some("pod-1")));
        assert_eq!(after(0, "newer").await, bounded("other", None));
        assert_eq!(after(0, "pod-0").await, bounded("pod-0", None));
    }
}
