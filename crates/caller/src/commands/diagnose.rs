//! `caller diagnose`: a call of every address, step by step. The exit code is that of the first failure.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;

use super::print;
use crate::listening;
use crate::probe::{Probe, ProbeConfig};
use crate::report::Report;
use crate::views::diagnose::{Diagnosis, Marks};
use crate::views::listening::Listening;
use crate::views::without_success;

/// Calls every address and prints each step.
///
/// # Errors
///
/// When stdout cannot be written to.
pub async fn run(probe: ProbeConfig) -> anyhow::Result<ExitCode> {
    let reports = Probe::new(probe).round().await.calls.all().await;
    let marks = Marks {
        colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    };
    let diagnosis = Diagnosis {
        reports: &reports,
        marks,
    };
    print(&without_success(diagnosis.to_string(), "\\x20"))?;
    let kind = reports.iter().find_map(Report::kind);
    Ok(kind.map_or(0, |kind| kind.exit_code()).into())
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
