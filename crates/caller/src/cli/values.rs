//! Parsers for the values of flags.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::{HeaderName, HeaderValue};

use crate::dns::Families;
use crate::target::{ParseTargetError, Target};

/// The address of a name server; the port is 53 if none is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameServer(pub(super) SocketAddr);

impl FromStr for NameServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)))
            .map(Self)
            .map_err(|_| "expected IP or IP:PORT, such as 10.96.0.10, 127.0.0.1:5353 or [::1]:53")
    }
}

impl FromStr for Families {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "4" => Ok(Self::V4),
            "6" => Ok(Self::V6),
            _ => Err("expected auto, 4 or 6"),
        }
    }
}

/// A header field on the command line, `NAME: VALUE`.
#[derive(Clone, Debug)]
pub(crate) struct Header(pub(crate) HeaderName, pub(crate) HeaderValue);

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
        let name = name.trim().parse().map_err(|_| "not a valid header name")?;
        let value = value
            .trim()
            .parse()
            .map_err(|_| "not a valid header value")?;
        Ok(Self(name, value))
    }
}

/// The names of the subcommands. Asking clap for them would build the whole command again for each target.
pub(super) const SUBCOMMANDS: [&str; 4] = ["once", "resolve", "diagnose", "mesh"];

/// Parses a target. To clap, a subcommand after a flag or with a typing error is a target; it is rejected with a
/// hint, since hardly any host has such a name.
pub(super) fn parse_target(text: &str) -> Result<Target, String> {
    if ["help", "version"].contains(&text) {
        return Err(format!("did you mean --{text}? For a host: http://{text}/"));
    }
    for command in SUBCOMMANDS {
        if text == command {
            return Err(format!(
                "flags go after the subcommand: `caller {text} --flag`; a host of that name is http://{text}/"
            ));
        }
        if (text.len() >= 3 && command.starts_with(text)) || is_one_letter_off(text, command) {
            return Err(format!(
                "did you mean {command}? For a host: http://{text}/"
            ));
        }
    }
    text.parse()
        .map_err(|error: ParseTargetError| error.to_string())
}

/// Whether one letter is missing, added or replaced, or two neighbouring ones are swapped.
fn is_one_letter_off(text: &str, word: &str) -> bool {
    let same_start = text
        .bytes()
        .zip(word.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let (text, word) = (
        &text.as_bytes()[same_start..],
        &word.as_bytes()[same_start..],
    );
    match (text, word) {
        ([], [_]) | ([_], []) => true,
        ([_, text @ ..], [_, word @ ..]) if text == word => true,
        // Two neighbouring letters are swapped.
        ([a, b, text @ ..], [c, d, word @ ..]) if (a, b) == (d, c) && text == word => true,
        ([_, text @ ..], word) if text == word => true,
        (text, [_, word @ ..]) => text == word,
        _ => false,
    }
}
