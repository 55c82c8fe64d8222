//! The status as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Page;
use super::status::Known;
use crate::stats::Stats;

/// At least so long between two events, however fast the calls are.
const PAUSE: Duration = Duration::from_millis(200);

/// At most so long, so that both ends know that the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Sends events until nobody takes them: of one target all that is not `known` at first, then what is new;
/// or the overview of all targets (`None`).
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
