//! Sends the status as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
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

/// Sends events until the receiver is dropped: for one target, first all calls that are not `known`, and then new
/// ones; or, if `stats` is `None`, the overview of all targets.
pub(super) async fn feed(
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
