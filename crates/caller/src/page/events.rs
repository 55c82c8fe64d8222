//! The status as server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Page;
use super::status::Known;
use crate::stats::Stats;

/// At least so long between two events of a target, however fast the calls are.
const PAUSE: Duration = Duration::from_millis(200);

/// The same for the overview, which always has all targets in it.
const OVERVIEW_PAUSE: Duration = Duration::from_secs(1);

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
            sleep(match stats {
                Some(_) => PAUSE,
                None => OVERVIEW_PAUSE,
            })
            .await;
            let news = async {
                // Rounds of other targets are none to tell of.
                while changed.changed().await.is_ok() && !is_news(stats.as_deref(), &known) {}
            };
            // Without news, an event tells that we are still here.
            let _ = timeout(KEEP_ALIVE, news).await;
        };
        tokio::select! {
            () = next => {}
            () = events.closed() => return,
        }
    }
}

/// Whether the round that has just ended is one to tell of.
fn is_news(stats: Option<&Stats>, known: &Known) -> bool {
    stats.is_none_or(|stats| stats.state().history.count > known.number())
}
