//! `--wait`: repeats the first call, without output, until it is as expected.
//!
//! When all pods of an application start in the same second, a Service has no endpoints yet when its
//! first client calls it. A Job or an init container waits until its backend responds.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use crate::dns::Lookup;
use crate::probe::Probe;
use crate::report::Report;

/// Time from the end of an attempt to the start of the next.
const PAUSE: Duration = Duration::from_millis(500);

/// Shortest time that is left for an attempt, so that none fails only because its time was too short.
const MIN_ATTEMPT: Duration = Duration::from_millis(250);

/// A round whose calls have ended.
#[derive(Debug)]
pub(super) struct EndedRound {
    pub(super) lookup: Option<Arc<Lookup>>,
    pub(super) reports: Vec<Report>,
}

/// Makes rounds until all calls of one are as expected, for at most `within`, and returns the last one. Another
/// round is started only if at least [`MIN_ATTEMPT`] would be left for it.
pub(super) async fn wait(probe: &Probe, within: Duration) -> EndedRound {
    let start = Instant::now();
    loop {
        let left = within.saturating_sub(start.elapsed());
        let mut round = probe.round_within(left).await;
        let reports = round.calls.all().await;
        let is_met = reports.iter().all(Report::is_as_expected);
        if is_met || start.elapsed() + PAUSE + MIN_ATTEMPT > within {
            let lookup = round.lookup;
            return EndedRound { lookup, reports };
        }
        let result = reports.iter().find_map(Report::kind);
        info!(result = result.map_or("ok", |kind| kind.label()), "waiting");
        sleep(PAUSE).await;
    }
}
