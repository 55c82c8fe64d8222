//! `caller once`: one call of each target (or with `--wait` as many as it takes), with an exit code. For one
//! target that is 0 where the call came to what was expected, else curl's for the failure, or 1 for a success
//! that was not expected; for several it is 0 or 1.

use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;

use super::print;
use super::wait::wait;
use crate::probe::{Probe, ProbeConfig};
use crate::report::Report;
use crate::views::OnceFormat;

/// What to call, and what to make of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to call, for each target.
    pub probes: Vec<ProbeConfig>,
    /// How much to say of it, and to whom.
    pub format: OnceFormat,
    /// Call again, in silence, until the expectation is met, for at most so long.
    pub wait: Duration,
}

/// Calls each target once, all at the same time, and prints the reports in the order of the targets.
///
/// # Errors
///
/// When stdout cannot be written to.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let Config {
        probes,
        format,
        wait: within,
    } = config;
    let mut calls = JoinSet::new();
    for (number, probe) in probes.into_iter().enumerate() {
        calls.spawn(async move { (number, call(&Probe::new(probe), within).await) });
    }
    let mut ended = calls.join_all().await;
    ended.sort_by_key(|(number, _)| *number);
    let reports = ended.into_iter().flat_map(|(_, reports)| reports);
    let reports: Vec<Report> = reports.collect();
    print(&format.reports(&reports))?;
    Ok(match reports.as_slice() {
        [report] => report.exit_code().into(),
        reports => match reports.iter().all(Report::is_as_expected) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
    })
}

/// The call of a target, or the last of them; with one report, as calls of a name's first address have.
async fn call(probe: &Probe, within: Duration) -> Vec<Report> {
    match within {
        Duration::ZERO => probe.round().await.calls.all().await,
        within => wait(probe, within).await.reports,
    }
}
