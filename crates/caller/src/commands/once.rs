//! `caller once`: calls each target once, or with `--wait` until the call is as expected, and exits with the
//! result. For one target the exit code is 0 if the call was as expected, else curl's code for the failure
//! (<https://curl.se/libcurl/c/libcurl-errors.html>), or 1 for a success that was not expected; for several
//! targets it is 0 or 1.

use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;

use super::print;
use super::wait::wait;
use crate::probe::{Probe, ProbeConfig};
use crate::report::Report;
use crate::views::OnceFormat;

/// Configuration of `caller once`.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The calls to make, one for each target.
    pub probes: Vec<ProbeConfig>,
    /// Output format of the reports.
    pub format: OnceFormat,
    /// How long to repeat a call, without output, until it is as expected; zero makes one attempt.
    pub wait: Duration,
}

/// Calls each target once, all at the same time, and prints the reports in the order of the targets.
///
/// # Errors
///
/// When stdout cannot be written to.
pub(crate) async fn run(config: Config) -> anyhow::Result<ExitCode> {
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

/// The reports of a target's last round: one, since `once` calls a single address of each name.
async fn call(probe: &Probe, within: Duration) -> Vec<Report> {
    match within {
        Duration::ZERO => probe.round().await.calls.all().await,
        within => wait(probe, within).await.reports,
    }
}
