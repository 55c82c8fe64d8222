//! `--wait`: calls that are tried again, in silence, until one is as expected.
//!
//! In a cluster all pods of a demo start in the same second, and a Service has no endpoints yet when its
//! first client calls; a Job or an init container waits for what it needs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use crate::dns::Lookup;
use crate::probe::Probe;
use crate::report::Report;

/// From the end of an attempt to the start of the next.
const PAUSE: Duration = Duration::from_millis(500);

/// A round whose calls have ended.
#[derive(Debug)]
pub(super) struct EndedRound {
    pub(super) lookup: Option<Arc<Lookup>>,
    pub(super) reports: Vec<Report>,
}

/// Makes rounds until all calls of one are as expected, for at most so long: another begins only where it
/// has some time left to succeed. Gives the last round.
pub(super) async fn wait(probe: &Probe, within: Duration) -> EndedRound {
    let start = Instant::now();
    loop {
        let left = within.saturating_sub(start.elapsed());
        let mut round = probe.round_within(left).await;
        let reports = round.calls.all().await;
        let is_met = reports.iter().all(Report::is_as_expected);
        if is_met || start.elapsed() + 2 * PAUSE > within {
            let lookup = round.lookup;
            return EndedRound { lookup, reports };
        }
        let result = reports.iter().find_map(Report::kind);
        info!(result = result.map_or("ok", |kind| kind.label()), "waiting");
        sleep(PAUSE).await;
    }
}
