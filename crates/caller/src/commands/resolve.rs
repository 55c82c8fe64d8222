//! `caller resolve`: looks up one host and prints every query sent; with `--repeat` also how many responses of
//! repeated queries are lost. The exit code is 0, or that of the failure.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::print;
use crate::dns::{Host, HostError, Resolver, host_text, parse_host};
use crate::verdict;
use crate::views::resolve::{RaceView, Transcript};
use crate::views::without_success;

/// Configuration of `caller resolve`.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Settings of the resolver, such as its name servers.
    pub resolver: Resolver,
    /// Host to look up.
    pub host: Host,
    /// Timeout of the whole lookup.
    pub timeout: Duration,
    /// How many times to repeat the queries, from one socket and from two, to count lost responses.
    pub repeat: Option<u32>,
}

/// Looks up the host, and prints the configuration, the queries and the result.
///
/// # Errors
///
/// When stdout cannot be written to.
pub(crate) async fn run(config: Config) -> anyhow::Result<ExitCode> {
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
            None => "\nno query to repeat: DNS was not queried\n".to_owned(),
        };
    }
    if failure.is_some() {
        text = without_success(text, "\\x20");
    }
    print(&text)?;
    let code = failure.map_or(0, |failure| failure.kind().exit_code());
    Ok(code.into())
}

/// The host in an argument: a name, an address, `HOST:PORT` or a URL.
///
/// # Errors
///
/// When the text is not a valid host; the error says why.
pub(crate) fn parse_argument(text: &str) -> Result<Host, HostError> {
    parse_host(host_text(text))
}
