//! `caller diagnose`: calls every address of each target, and prints each step. The exit code is that of the
//! first call that was not as expected.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::print;
use crate::listening;
use crate::probe::{Probe, ProbeConfig};
use crate::report::Report;
use crate::views::diagnose::Diagnosis;
use crate::views::listening::Listening;
use crate::views::without_success;

/// Number of calls if the name has one address: behind a Service's address there are several pods, and one
/// call that succeeds says nothing about the others.
const CALLS: usize = 8;

/// Time after which no further call of this kind is started.
const CALLS_TIME: Duration = Duration::from_secs(3);

/// Configuration of `caller diagnose`.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The calls to make, for each target.
    pub probes: Vec<ProbeConfig>,
    /// Whether to test the network path as well, which takes additional connections.
    pub path: bool,
    /// Whether to print a JSON object for each target in place of text.
    pub json: bool,
}

/// Calls every address of each target, one target after the other, and prints each step.
///
/// # Errors
///
/// When stdout cannot be written to.
pub(crate) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let Config { probes, path, json } = config;
    let mut code = 0;
    for (number, probe) in probes.into_iter().enumerate() {
        if number > 0 && !json {
            print("\n")?;
        }
        let target_code = diagnose(&Probe::new(probe), path, json).await?;
        code = if code == 0 { target_code } else { code };
    }
    Ok(code.into())
}

/// Prints each step of a target's calls, and returns the exit code.
async fn diagnose(probe: &Probe, tests_path: bool, json: bool) -> anyhow::Result<u8> {
    let start = Instant::now();
    let mut reports = probe.round().await.calls.all().await;
    let mut repeated = Vec::new();
    if let [report] = reports.as_slice()
        && report.address.is_some()
    {
        while repeated.len() + 1 < CALLS && start.elapsed() < CALLS_TIME {
            repeated.extend(probe.round().await.calls.all().await);
        }
    }
    let path = match (tests_path, of_interest(&reports)) {
        (true, Some(report)) => Some(probe.path(report).await),
        _ => None,
    };
    if let Some(hole) = path.as_ref().and_then(|path| path.hole) {
        let address = of_interest(&reports).and_then(|report| report.address);
        let calls = reports.iter_mut().chain(&mut repeated);
        let same_path = calls.filter(|report| report.address == address);
        same_path.for_each(|report| report.reclassify_as_path_mtu(hole));
    }
    let diagnosis = Diagnosis {
        target: probe.target(),
        reports: &reports,
        repeated: &repeated,
        path: path.as_ref(),
    };
    let text = match json {
        true => without_success(diagnosis.to_json(), "\\u0020"),
        false => {
            let is_terminal = std::io::stdout().is_terminal();
            let colour = is_terminal && std::env::var_os("NO_COLOR").is_none();
            without_success(diagnosis.to_text(colour), "\\x20")
        }
    };
    print(&text)?;
    Ok(diagnosis.exit_code())
}

/// The call whose network path is tested: the first that failed, or else the first. An address of a family that is not
/// used here does not count.
fn of_interest(reports: &[Report]) -> Option<&Report> {
    let mut counted = reports
        .iter()
        .filter(|report| !report.is_of_unused_family(reports));
    let first = counted.clone().next();
    counted.find(|report| !report.is_ok()).or(first)
}

/// Prints the listening sockets of this pod.
///
/// # Errors
///
/// When the sockets cannot be read from `/proc`, or stdout cannot be written to.
pub(crate) fn listening() -> anyhow::Result<ExitCode> {
    let sockets = listening::sockets().context("cannot read the listening sockets of this pod")?;
    print(&Listening(&sockets).to_string())?;
    Ok(ExitCode::SUCCESS)
}
