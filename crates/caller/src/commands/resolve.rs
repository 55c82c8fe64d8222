//! `caller resolve`: looks one host up and tells everything that was asked for it; with `--repeat`, how
//! often the queries of such a lookup get lost.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::advice::Service;
use crate::dns::{Host, HostError, Lookup, LookupFailure, Resolver, host_text, parse_host};
use crate::probe;
use crate::verdict::dns;
use crate::views::resolve::{RaceView, Transcript};

/// Looks `host` up and gives what to print and the exit code.
pub async fn run(
    resolver: &Resolver,
    host: &Host,
    timeout: Duration,
    repeat: Option<u32>,
) -> (String, u8) {
    let name = match host {
        Host::Name(name) => name,
        Host::Address { ip, .. } => return (address(*ip), 0),
    };
    let lookup = resolver.lookup(name, Instant::now() + timeout).await;
    let failure = lookup.outcome.as_ref().err();
    let transcript = Transcript {
        lookup: &lookup,
        next: failure.map(|failure| next_command(&lookup, failure)),
    };
    let mut text = transcript.to_string();
    if let Some(rounds) = repeat {
        match resolver.race(&lookup, rounds).await {
            Some(race) => text += &RaceView(&race).to_string(),
            None => text += "\nno query to repeat: DNS was not asked\n",
        }
    }
    (
        text,
        failure.map_or(0, |failure| failure.kind().exit_code()),
    )
}

/// The host in an argument: a name, an address, `HOST:PORT` or a URL.
///
/// # Errors
///
/// When no host can be called that; the error says why.
pub fn parse_argument(text: &str) -> Result<Host, HostError> {
    parse_host(host_text(text))
}

fn address(ip: IpAddr) -> String {
    format!("{ip} is an address: there is nothing to look up\n")
}

fn next_command(lookup: &Lookup, failure: &LookupFailure) -> String {
    dns::next_command(lookup, failure).unwrap_or_else(|| {
        let host = probe::Host::Name(lookup.name.clone());
        Service::of(&host, Some(lookup)).next_command(failure.kind())
    })
}
