//! Sends the status as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use runtime::unpoisoned::unpoisoned;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::Page;
use super::status::Known;
use crate::stats::Stats;

/// Minimum time between two events of a target, however short the interval of the calls is.
const MIN_INTERVAL: Duration = Duration::from_millis(200);

/// Minimum time between two events of the overview, which always contains all targets.
const OVERVIEW_MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum time between two events, so that each side notices when the other is gone.
const MAX_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of open event streams, so that the port has connections left for probes and scrapers.
const MAX_STREAMS: usize = 16;

/// The open event streams, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<VecDeque<AbortHandle>>);

impl Streams {
    /// Opens a stream of one target, or of the overview if `stats` is `None`. If there are too many, the oldest one ends:
    /// its browser may be gone, which is noticed only when events can no longer be sent, and one that is still there
    /// connects again.
    pub(super) fn open(
        &self,
        page: Arc<Page>,
        stats: Option<Arc<Stats>>,
        known: Known,
    ) -> mpsc::Receiver<Bytes> {
        let (sender, events) = mpsc::channel(1);
        let mut open = unpoisoned(self.0.lock());
        open.retain(|stream| !stream.is_finished());
        if open.len() >= MAX_STREAMS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let stream = tokio::spawn(feed(page, stats, known, sender));
        open.push_back(stream.abort_handle());
        events
    }
}

/// Sends events until the receiver is dropped: for one target, first all calls that are not `known`, and then new
/// ones; or, if `stats` is `None`, the overview of all targets.
async fn feed(
    page: Arc<Page>,
    stats: Option<Arc<Stats>>,
    mut known: Known,
    events: mpsc::Sender<Bytes>,
) {
    let mut changed = page.changed.subscribe();
    loop {
        let json = match &stats {
            Some(stats) => {
                let (json, now_known) = page.status(stats, &known);
                known = now_known;
                json
            }
            None => page.overview(),
        };
        let event = format!("id: {}\nretry: 1000\ndata: {json}\n\n", known.event_id());
        if events.send(event.into()).await.is_err() {
            return;
        }
        let next = async {
            sleep(match stats {
                Some(_) => MIN_INTERVAL,
                None => OVERVIEW_MIN_INTERVAL,
            })
            .await;
            let new_call = async {
                // A round of another target does not add a call of this one.
                while changed.changed().await.is_ok() && !has_new_call(stats.as_deref(), &known) {}
            };
            // If there is no new call for so long, an event without calls keeps the connection alive.
            let _ = timeout(MAX_INTERVAL, new_call).await;
        };
        tokio::select! {
            () = next => {}
            () = events.closed() => return,
        }
    }
}

/// Whether there is a call that the client does not know yet; always true for the overview, which each round changes.
fn has_new_call(stats: Option<&Stats>, known: &Known) -> bool {
    stats.is_none_or(|stats| stats.state().history.count > known.number())
}
