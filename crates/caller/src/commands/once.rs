//! `caller once`: one call (or with `--wait` as many as it takes), with an exit code: 0 where it came to what was expected, else curl's for the
//! failure, or 1 for a success that was not expected.

use std::process::ExitCode;
use std::time::Duration;

use super::print;
use super::wait::wait;
use crate::expectation::Expectation;
use crate::probe::{Probe, ProbeConfig};
use crate::views::Format;

/// What to call, and what to make of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to call.
    pub probe: ProbeConfig,
    /// How much to say of it.
    pub format: Format,
    /// What makes it a success.
    pub expectation: Expectation,
    /// Call again, in silence, until it is met, for at most so long.
    pub wait: Duration,
}

/// Calls once and prints the report.
///
/// # Errors
///
/// When stdout cannot be written to.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let Config {
        probe,
        format,
        expectation,
        wait: within,
    } = config;
    let probe = Probe::new(probe);
    let reports = match within {
        Duration::ZERO => probe.round().await.calls.all().await,
        within => wait(&probe, expectation, within).await.reports,
    };
    let mut text: String = reports.iter().map(|report| format.report(report)).collect();
    let codes = reports.iter().map(|report| expectation.exit_code(report));
    let code = codes.max().unwrap_or_default();
    if expectation != Expectation::Ok && format != Format::Json {
        let came = reports.iter().find(|report| !expectation.is_met_by(report));
        text += &match came {
            None => format!("Check passed: expected {expectation}\n"),
            Some(report) => format!(
                "Check failed: expected {expectation}, but it was {}\n",
                report.result()
            ),
        };
    }
    print(&text)?;
    Ok(code.into())
}
