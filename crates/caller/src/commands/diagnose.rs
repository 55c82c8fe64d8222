//! `caller diagnose`: a call of every address, step by step. The exit code is that of the first failure.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::print;
use crate::failure::FailureKind;
use crate::listening;
use crate::probe::{Probe, ProbeConfig};
use crate::report::Report;
use crate::views::diagnose::{Diagnosis, Marks};
use crate::views::listening::Listening;
use crate::views::without_success;

/// Calls in all, where there is one address: behind a Service's are several pods, and one call that
/// succeeds says nothing about the others.
const CALLS: usize = 8;

/// No further call begins after so long.
const CALLS_TIME: Duration = Duration::from_secs(3);

/// Calls every address of each target, one target after the other, and prints each step.
///
/// # Errors
///
/// When stdout cannot be written to.
pub async fn run(probes: Vec<ProbeConfig>) -> anyhow::Result<ExitCode> {
    let mut kind = None;
    for (number, probe) in probes.into_iter().enumerate() {
        if number > 0 {
            print("\n")?;
        }
        let failed = diagnose(&Probe::new(probe)).await?;
        kind = kind.or(failed);
    }
    Ok(kind.map_or(0, FailureKind::exit_code).into())
}

/// Prints each step of a target's calls, and gives the kind of the first failure.
async fn diagnose(probe: &Probe) -> anyhow::Result<Option<FailureKind>> {
    let start = Instant::now();
    let reports = probe.round().await.calls.all().await;
    let mut again = Vec::new();
    if let [report] = reports.as_slice()
        && report.address.is_some()
    {
        while again.len() + 1 < CALLS && start.elapsed() < CALLS_TIME {
            again.extend(probe.round().await.calls.all().await);
        }
    }
    let marks = Marks {
        colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    let diagnosis = Diagnosis {
        target: probe.target(),
        reports: &reports,
        again: &again,
        marks,
    };
    print(&without_success(diagnosis.to_string(), "\\x20"))?;
    Ok(reports.iter().chain(&again).find_map(Report::kind))
}

/// Shows what this pod listens at.
///
/// # Errors
///
/// When the system does not tell, or stdout cannot be written to.
pub fn listening() -> anyhow::Result<ExitCode> {
    let sockets = listening::sockets().context("cannot tell what this pod listens at")?;
    print(&Listening(&sockets).to_string())?;
    Ok(ExitCode::SUCCESS)
}
