//! All connections of a port, and who of them has kept us waiting longest: he makes room for another,
//! so that a port which is full still answers, and a probe is never shut out by those who say nothing.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::task::AbortHandle;

use super::activity::Activity;
use super::limits::Limits;

/// One of so many is found in one look at all of them; the others' turn comes without another look.
const SHARE_PER_LOOK: usize = 64;

/// Those who have been waited for no longer than this keep their connections: what they have to say is
/// probably on the way. At the limit, so many as may be open are accepted in this time.
const FRESH: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Crowd {
    members: Mutex<Members>,
    /// Connections in the middle of a request, by weight.
    pending: AtomicUsize,
    max_pending: usize,
}

#[derive(Debug, Default)]
struct Members {
    all: Slab<Member>,
    /// Of all, those who have waited longest; and of those in the middle of a request.
    longest: Longest,
    longest_pending: Longest,
}

#[derive(Debug)]
struct Member {
    activity: Arc<Activity>,
    task: AbortHandle,
}

/// Since when, and who: the longest wait last.
type Longest = Vec<(u64, usize)>;

/// A connection's place among the others, until dropped.
pub(super) struct Place {
    activity: Arc<Activity>,
    key: usize,
}

/// A connection's share of those that may be in the middle of a request.
pub(super) struct Pending<'a> {
    crowd: &'a Crowd,
    activity: &'a Activity,
}

impl Crowd {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            members: Mutex::default(),
            pending: AtomicUsize::new(0),
            max_pending: limits.max_pending(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection, which `spawn` starts with its place.
    pub(super) fn add(&self, activity: Arc<Activity>, spawn: impl FnOnce(Place) -> AbortHandle) {
        let mut members = self.lock();
        let entry = members.all.vacant_entry();
        let place = Place {
            activity: Arc::clone(&activity),
            key: entry.key(),
        };
        let task = spawn(place);
        entry.insert(Member { activity, task });
    }

    pub(super) fn remove(&self, place: &Place) {
        let mut members = self.lock();
        let member = members.all.get(place.key);
        // Another may have the place of one who was evicted.
        if member.is_some_and(|member| Arc::ptr_eq(&member.activity, &place.activity)) {
            members.all.remove(place.key);
        }
    }

    /// Closes the connection that has kept us waiting longest. `false`: there is none, or all of them
    /// have only just begun to.
    pub(super) fn evict(&self) -> bool {
        let Members { all, longest, .. } = &mut *self.lock();
        evict(all, longest, |activity| activity.waits_for(FRESH)).is_some()
    }

    /// Too many are in the middle of a request: some are evicted, but not gone yet.
    pub(super) fn is_over(&self) -> bool {
        self.pending.load(Relaxed) > self.max_pending
    }

    /// Counts a connection as in the middle of a request, and evicts those who have been there longest
    /// where there are too many. Gives how many were evicted.
    pub(super) fn enter<'a>(&'a self, activity: &'a Activity, weight: usize) -> (Pending<'a>, u64) {
        let pending = self.pending.fetch_add(weight, Relaxed) + weight;
        let over = pending.saturating_sub(self.max_pending).min(weight);
        let (mut freed, mut evicted) = (0, 0);
        while freed < over {
            let Members {
                all,
                longest_pending,
                ..
            } = &mut *self.lock();
            let Some(victim) = evict(all, longest_pending, |activity| activity.weight() > 0) else {
                break;
            };
            freed += victim.weight();
            evicted += 1;
        }
        activity.set_weight(weight);
        (
            Pending {
                crowd: self,
                activity,
            },
            evicted,
        )
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.crowd
            .pending
            .fetch_sub(self.activity.weight(), Relaxed);
        self.activity.set_weight(0);
    }
}

fn evict(
    all: &mut Slab<Member>,
    longest: &mut Longest,
    eligible: impl Fn(&Activity) -> bool,
) -> Option<Arc<Activity>> {
    let waits = |member: &Member| {
        let activity = &*member.activity;
        activity.waits_since().filter(|_| eligible(activity))
    };
    loop {
        while let Some((since, key)) = longest.pop() {
            // Nobody else has waited longer, unless this one is not waiting any more.
            if all.get(key).and_then(&waits) == Some(since) {
                let Member { activity, task } = all.remove(key);
                task.abort();
                return Some(activity);
            }
        }
        longest.extend(
            all.iter()
                .filter_map(|(key, member)| Some((waits(member)?, key))),
        );
        if longest.is_empty() {
            return None;
        }
        let found = 1 + longest.len() / SHARE_PER_LOOK;
        longest.select_nth_unstable(found - 1);
        longest.truncate(found);
        longest.sort_unstable_by_key(|&wait| Reverse(wait));
    }
}
