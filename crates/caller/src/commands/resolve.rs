//! `caller resolve`: looks one host up and tells every query that it took; with `--repeat`, how often the
//! queries of such a lookup get lost. The exit code is 0, or that of the failure.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::print;
use crate::dns::{Host, HostError, Resolver, host_text, parse_host};
use crate::verdict;
use crate::views::resolve::{RaceView, Transcript};

/// What to look up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Resolver settings.
    pub resolver: Resolver,
    /// Host to look up.
    pub host: Host,
    /// Longest time for the whole lookup.
    pub timeout: Duration,
    /// How often to ask again, from one socket and from two, to count what is lost.
    pub repeat: Option<u32>,
}

/// Looks the host up and prints how.
///
/// # Errors
///
/// When stdout cannot be written to.
pub async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let Config {
        resolver,
        host,
        timeout,
        repeat,
    } = config;
    let name = match host {
        Host::Name(name) => name,
        Host::Address { ip, .. } => {
            print(&format!(
                "{ip} is an address: there is nothing to look up\n"
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let lookup = resolver.lookup(&name, Instant::now() + timeout).await;
    let failure = lookup.outcome.as_ref().err();
    let transcript = Transcript {
        lookup: &lookup,
        next: failure.map(|failure| verdict::after_lookup(&lookup, failure)),
    };
    let mut text = transcript.to_string();
    if let Some(rounds) = repeat {
        text += &match resolver.race(&lookup, rounds).await {
            Some(race) => RaceView(&race).to_string(),
            None => "\nno query to repeat: DNS was not asked\n".to_owned(),
        };
    }
    print(&text)?;
    let code = failure.map_or(0, |failure| failure.kind().exit_code());
    Ok(code.into())
}

/// The host in an argument: a name, an address, `HOST:PORT` or a URL.
///
/// # Errors
///
/// When no host can be called that; the error says why.
pub fn parse_argument(text: &str) -> Result<Host, HostError> {
    parse_host(host_text(text))
}
