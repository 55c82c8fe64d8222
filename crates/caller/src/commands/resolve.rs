//! `caller resolve`: one lookup and every query that it took. The exit code is 0, or that of the failure.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::print;
use crate::dns::Resolver;
use crate::views::resolve::Transcript;

/// What to look up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Resolver settings.
    pub resolver: Resolver,
    /// Name to look up.
    pub name: String,
    /// Longest time for the whole lookup.
    pub timeout: Duration,
}

/// Looks the name up and prints how.
///
/// # Errors
///
/// When stdout cannot be written to.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let Config {
        resolver,
        name,
        timeout,
    } = config;
    let lookup = resolver.lookup(&name, Instant::now() + timeout).await;
    print(&Transcript(&lookup).to_string())?;
    Ok(match &lookup.outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => failure.kind().exit_code().into(),
    })
}
