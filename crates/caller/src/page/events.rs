//! The status as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Page;
use super::status::Known;

/// At least so long between two events, however fast the calls are.
const PAUSE: Duration = Duration::from_millis(200);

/// At most so long, so that both ends know that the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Sends events until nobody takes them: all that is not `known` at first, then what is new.
pub(super) async fn feed(page: Arc<Page>, mut known: Known, events: mpsc::Sender<Bytes>) {
    let mut changed = page.stats.changes();
    loop {
        let (json, now_known) = page.status(&known);
        known = now_known;
        let event = format!("id: {}\nretry: 1000\ndata: {json}\n\n", known.event_id());
        if events.send(event.into()).await.is_err() {
            return;
        }
        let next = async {
            sleep(PAUSE).await;
            // Without news, an event tells that we are still here.
            let _ = timeout(KEEP_ALIVE, changed.changed()).await;
        };
        tokio::select! {
            () = next => {}
            () = events.closed() => return,
        }
    }
}
