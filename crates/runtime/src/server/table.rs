//! The table of a port's open connections, and which of them to close to make room for another:
//!
//! 1. The one that has kept the server waiting longest, if that is longer than [`MIN_WAIT`].
//! 2. Where all are busy: the one that has its next response first. That response asks its client to connect anew,
//!    so no request is lost; and because a connection is served once before it is closed, clients take turns.
//! 3. Where no response comes either: the one whose response is due or streamed for longest.
//!
//! So a full port still answers, and neither idle nor busy connections keep a probe out.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use slab::Slab;
use tokio::task::AbortHandle;

use super::activity::Activity;
use super::limits::Limits;
use crate::unpoisoned::unpoisoned;

/// A scan of the table finds one connection in this many to evict; the next evictions need no scan of their own.
const SCAN_SHARE: usize = 64;

/// A connection that the server has waited for no longer than this is not evicted for a new one: its request is
/// probably on the way. A port at its limit accepts at most `max_connections` connections in this time.
const MIN_WAIT: Duration = Duration::from_millis(10);

/// A connection whose response is due for no longer than this is not evicted. Responses that take that long are
/// those of fault injection, and those that a program makes by asking others.
const MIN_DUE: Duration = Duration::from_millis(100);

/// The open connections of a port.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    entries: Mutex<Entries>,
    /// The connection that has a response next is to end with it.
    evict_next: AtomicBool,
    /// Sum of the weights of the connections in the middle of a request.
    pending: AtomicUsize,
    /// Limit on the sum in `pending`.
    max_pending: usize,
}

#[derive(Debug, Default)]
struct Entries {
    all: Slab<Entry>,
    /// Candidates for eviction among all connections.
    longest: Longest,
    /// Candidates for eviction among those in the middle of a request.
    longest_pending: Longest,
}

/// One connection: what it is doing, and the task to abort when it is evicted; `None` until that is started.
#[derive(Debug)]
struct Entry {
    activity: Arc<Activity>,
    task: Option<AbortHandle>,
}

/// Start of a wait in milliseconds, and key of the connection; sorted, with the longest wait last.
type Longest = Vec<(u64, usize)>;

/// A connection's slot in the table.
pub(super) struct Slot {
    activity: Arc<Activity>,
    key: usize,
}

/// A connection counts as in the middle of a request until this is dropped.
pub(super) struct Pending<'a> {
    table: &'a ConnectionTable,
    activity: &'a Activity,
}

impl ConnectionTable {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            entries: Mutex::default(),
            evict_next: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            max_pending: limits.max_pending(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        unpoisoned(self.entries.lock())
    }

    /// Adds a connection, whose task `spawn` starts with its slot.
    pub(super) fn add(&self, activity: Arc<Activity>, spawn: impl FnOnce(Slot) -> AbortHandle) {
        let key = self.lock().all.insert(Entry {
            activity: Arc::clone(&activity),
            task: None,
        });
        let slot = Slot {
            activity: Arc::clone(&activity),
            key,
        };
        // Not under the lock: a runtime that is ending drops the task at once, and with it the slot.
        let task = spawn(slot);
        let mut entries = self.lock();
        let entry = entries.all.get_mut(key);
        if let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.activity, &activity)) {
            entry.task = Some(task);
        }
    }

    /// Removes a connection that has ended, unless it was evicted.
    pub(super) fn remove(&self, slot: &Slot) {
        let mut entries = self.lock();
        let entry = entries.all.get(slot.key);
        // Another connection may have the key of one that was evicted.
        if entry.is_some_and(|entry| Arc::ptr_eq(&entry.activity, &slot.activity)) {
            entries.all.remove(slot.key);
        }
    }

    /// Makes room for one connection. Returns whether one was closed for it; where it was not, one ends with its next
    /// response, or a later call closes one.
    pub(super) fn evict(&self) -> bool {
        let Entries { all, longest, .. } = &mut *self.lock();
        let waits = |activity: &Activity| {
            let since = activity.waiting_since_millis();
            since.filter(|_| activity.has_waited(MIN_WAIT))
        };
        if evict(all, longest, waits).is_some() {
            return true;
        }
        if !self.evict_next.swap(true, Relaxed) {
            return false;
        }
        // There was no response since the last call.
        evict(all, &mut Longest::new(), |activity| {
            activity.due_since_millis(MIN_DUE)
        })
        .is_some()
    }

    /// A connection has ended: no other one is to end with its next response.
    pub(super) fn cancel_eviction(&self) {
        self.evict_next.store(false, Relaxed);
    }

    /// Whether the connection that has a response now is to end with it. If so, no other one is.
    pub(super) fn claim_eviction(&self, activity: &Activity) -> bool {
        // A load first: it costs less than a swap, and every response comes here.
        self.evict_next.load(Relaxed)
            && !activity.is_shutdown_requested()
            && self.evict_next.swap(false, Relaxed)
    }

    /// Whether more connections are in the middle of a request than may be: some are evicted and have not ended
    /// yet.
    pub(super) fn is_over_limit(&self) -> bool {
        self.pending.load(Relaxed) > self.max_pending
    }

    /// Counts a connection as in the middle of a request. Where there are too many of them, evicts those that have
    /// kept the server waiting longest, and returns how many it has evicted.
    pub(super) fn begin_pending<'a>(
        &'a self,
        activity: &'a Activity,
        weight: usize,
    ) -> (Pending<'a>, u64) {
        let pending = self.pending.fetch_add(weight, Relaxed) + weight;
        let over = pending.saturating_sub(self.max_pending).min(weight);
        let (mut freed, mut evicted) = (0, 0);
        while freed < over {
            let Entries {
                all,
                longest_pending,
                ..
            } = &mut *self.lock();
            let pending = |activity: &Activity| {
                let since = activity.waiting_since_millis();
                since.filter(|_| activity.weight() > 0)
            };
            let due = |activity: &Activity| {
                let since = activity.due_since_millis(Duration::ZERO);
                since.filter(|_| activity.weight() > 0)
            };
            let victim = evict(all, longest_pending, pending);
            let Some(victim) = victim.or_else(|| evict(all, &mut Longest::new(), due)) else {
                break;
            };
            freed += victim.weight();
            evicted += 1;
        }
        activity.set_weight(weight);
        (
            Pending {
                table: self,
                activity,
            },
            evicted,
        )
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.table
            .pending
            .fetch_sub(self.activity.weight(), Relaxed);
        self.activity.set_weight(0);
    }
}

/// Removes the connection with the earliest start of a wait, of those for which `since` returns one, and aborts its
/// task.
fn evict(
    all: &mut Slab<Entry>,
    longest: &mut Longest,
    since: impl Fn(&Activity) -> Option<u64>,
) -> Option<Arc<Activity>> {
    let waiting_since = |entry: &Entry| {
        entry.task.as_ref()?;
        since(&entry.activity)
    };
    loop {
        while let Some((since, key)) = longest.pop() {
            // No other connection has waited longer, unless this one has sent something since the scan.
            if all.get(key).and_then(&waiting_since) == Some(since) {
                let Entry { activity, task } = all.remove(key);
                task?.abort();
                return Some(activity);
            }
        }
        longest.extend(
            all.iter()
                .filter_map(|(key, entry)| Some((waiting_since(entry)?, key))),
        );
        if longest.is_empty() {
            return None;
        }
        let found = 1 + longest.len() / SCAN_SHARE;
        longest.select_nth_unstable(found - 1);
        longest.truncate(found);
        longest.sort_unstable_by_key(|&wait| Reverse(wait));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use tokio::runtime::Builder;

    use super::*;

    /// Removes its slot, as the guard of a connection does.
    struct Guard(Arc<ConnectionTable>, Slot);

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.remove(&self.1);
        }
    }

    #[test]
    fn a_connection_that_comes_while_the_runtime_ends_does_not_hold_it_up() {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let ended = runtime.handle().clone();
        drop(runtime);
        let table = Arc::new(ConnectionTable::new(&Limits {
            header_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            max_connections: 1,
            max_body: 0,
        }));
        let (sender, added) = mpsc::channel();
        let at = Arc::clone(&table);
        thread::spawn(move || {
            let _inside = ended.enter();
            at.add(Arc::new(Activity::new()), |slot| {
                let guard = Guard(Arc::clone(&at), slot);
                tokio::spawn(async move { drop(guard) }).abort_handle()
            });
            sender.send(())
        });
        let added = added.recv_timeout(Duration::from_secs(30));
        added.expect("it is done with, and not waiting for itself");
        assert!(table.lock().all.is_empty());
    }
}
