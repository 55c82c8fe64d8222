//! The host of a target as a user writes it: a name, in any script, or an address.
//!
//! The host parser of the WHATWG URL standard is not used: it takes `backend.123` for an IPv4 address and
//! rejects it, but a namespace may be called `123`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::idn;

/// Longest name in bytes, with its dots but without the final one (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// Longest label in bytes (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// A host to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name to resolve, in ASCII.
    Name(String),
    /// An address, which needs no lookup.
    Address {
        /// The IP address, without an interface.
        ip: IpAddr,
        /// The index of the interface of a link-local IPv6 address (`fe80::1%eth0`); 0 if there is none.
        scope_id: u32,
    },
}

/// Why a text is not a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The text is empty.
    #[error("the host is missing")]
    Empty,
    /// A label is empty: there are two dots in a row, or one at the beginning.
    #[error("a label is empty: there are two dots in a row, or one at the beginning")]
    EmptyLabel,
    /// This character is not allowed in a host name.
    #[error("{0:?} cannot be in a host name")]
    Character(char),
    /// A label begins with a hyphen: glibc accepts no address for such a name (`__res_binary_hnok`).
    #[error("a label of a host name cannot begin with '-'")]
    Hyphen,
    /// A label is too long for DNS; its length in bytes.
    #[error("a label is {0} bytes long; DNS allows at most 63")]
    LongLabel(usize),
    /// The name is too long for DNS; its length in bytes.
    #[error("a name is {0} bytes long; DNS allows at most 253")]
    LongName(usize),
    /// The text is in brackets or has a colon, but is not an IPv6 address.
    #[error("not an IPv6 address")]
    NotIpv6,
    /// The zone of an IPv6 address is not an interface of this pod.
    #[error("there is no interface {0:?} here")]
    Zone(String),
}

/// Parses a host. An IPv4 address may have any form that inet_aton(3) accepts (`127.1`); an IPv6 address
/// may be in brackets and have a zone.
///
/// # Errors
///
/// When the text is neither a valid host name nor an address; the error says why.
pub(crate) fn parse_host(text: &str) -> Result<Host, HostError> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if bracketed.is_some() || text.contains(':') {
        return ipv6(bracketed.unwrap_or(text));
    }
    if let Some(v4) = inet_aton(text) {
        let ip = v4.into();
        return Ok(Host::Address { ip, scope_id: 0 });
    }
    let name = idn::to_ascii(text).ok_or(HostError::LongLabel(text.len()))?;
    check(&name)?;
    Ok(Host::Name(name))
}

fn ipv6(text: &str) -> Result<Host, HostError> {
    let (address, zone) = match text.split_once('%') {
        // In a URL the percent sign is itself escaped, as `%25` (RFC 6874).
        Some((address, zone)) => (address, Some(zone.strip_prefix("25").unwrap_or(zone))),
        None => (text, None),
    };
    let ip: Ipv6Addr = address.parse().map_err(|_| HostError::NotIpv6)?;
    let scope_id = match zone {
        Some(zone) => scope_id(zone).ok_or_else(|| HostError::Zone(zone.to_owned()))?,
        None => 0,
    };
    let ip = ip.into();
    Ok(Host::Address { ip, scope_id })
}

/// Checks that the labels consist of letters, digits, hyphens and underscores, as glibc's
/// `__res_binary_hnok` does, and are not too long for DNS.
fn check(name: &str) -> Result<(), HostError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    let is_invalid = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if let Some(invalid) = name.chars().find(is_invalid) {
        return Err(HostError::Character(invalid));
    }
    for label in name.split('.') {
        match label.len() {
            0 => return Err(HostError::EmptyLabel),
            len if len > MAX_LABEL => return Err(HostError::LongLabel(len)),
            _ if label.starts_with('-') => return Err(HostError::Hyphen),
            _ => {}
        }
    }
    match name.len() {
        len if len > MAX_NAME => Err(HostError::LongName(len)),
        _ => Ok(()),
    }
}

/// The host in a text that a user may have pasted: a URL, `HOST:PORT`, or the host itself.
pub(crate) fn host_text(text: &str) -> &str {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split(['/', '?', '#']).next().unwrap_or_default();
    let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
    match text.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (host.ends_with(']') || !host.contains(':')) =>
        {
            host
        }
        _ => text,
    }
}

/// An IPv4 address in any form of inet_aton(3): one to four numbers, decimal, octal (`0…`) or hexadecimal
/// (`0x…`), of which the last one fills the remaining bytes.
pub(super) fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let (last, bytes) = parts.split_last()?;
    if bytes.len() > 3 {
        return None;
    }
    let mut address = 0;
    for (n, byte) in bytes.iter().enumerate() {
        let byte = number(byte).filter(|&byte| byte <= 0xff)?;
        address |= byte << (24 - 8 * n);
    }
    let rest = number(last)?;
    let max = u32::MAX >> (8 * bytes.len());
    (rest <= max).then(|| Ipv4Addr::from_bits(address | rest))
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // Rust's parser would accept a sign, inet_aton does not.
    let first = digits.chars().next()?;
    first
        .is_digit(radix)
        .then(|| u32::from_str_radix(digits, radix).ok())?
}

/// The index of the interface that an IPv6 zone gives by index or by name.
pub(super) fn scope_id(zone: &str) -> Option<u32> {
    if let Ok(number) = zone.parse() {
        return Some(number);
    }
    let is_name = !zone.is_empty() && !zone.starts_with('.') && !zone.contains('/');
    let index =
        is_name.then(|| std::fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")))?;
    index.ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Host, HostError, host_text, parse_host};

    fn parsed(text: &str) -> String {
        match parse_host(text) {
            Ok(Host::Name(name)) => name,
            Ok(Host::Address { ip, scope_id: 0 }) => format!("<{ip}>"),
            Ok(Host::Address { ip, scope_id }) => format!("<{ip}%{scope_id}>"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_with_digits_underscores_and_unicode_are_accepted() {
        for name in [
            "backend",
            "backend.123",
            "backend.0x7f.svc.cluster.local.",
            "_http._tcp.backend",
            "a_b",
            "1.2.3.4.5",
            "localhost",
        ] {
            assert_eq!(parsed(name), name);
        }
        assert_eq!(parsed("b\u{fc}cher.example"), "xn--bcher-kva.example");
    }

    #[test]
    fn an_address_is_accepted_in_every_form_of_inet_aton_and_with_an_ipv6_zone() {
        for (text, address) in [
            ("10.96.0.10", "<10.96.0.10>"),
            ("127.1", "<127.0.0.1>"),
            ("0x7f.0.0.01", "<127.0.0.1>"),
            ("2130706433", "<127.0.0.1>"),
            ("1.2.3", "<1.2.0.3>"),
            ("::1", "<::1>"),
            ("[::1]", "<::1>"),
            ("fe80::1%lo", "<fe80::1%1>"),
            ("[fe80::1%25lo]", "<fe80::1%1>"),
            ("fe80::1%7", "<fe80::1%7>"),
        ] {
            assert_eq!(parsed(text), address, "{text}");
        }
    }

    #[test]
    fn an_invalid_host_is_rejected_with_the_reason() {
        let long = "l".repeat(64);
        let longer = format!("{}x", "l.".repeat(127));
        for (text, error) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            ("a..b", HostError::EmptyLabel),
            (".a", HostError::EmptyLabel),
            ("a b", HostError::Character(' ')),
            ("-a", HostError::Hyphen),
            (&long, HostError::LongLabel(64)),
            (&longer, HostError::LongName(255)),
            ("[backend]", HostError::NotIpv6),
            ("fe80::1%nosuch", HostError::Zone("nosuch".into())),
        ] {
            assert_eq!(parse_host(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_host_is_found_in_a_url_and_in_host_and_port() {
        for (text, host) in [
            ("backend", "backend"),
            (" backend:8080\n", "backend"),
            ("http://backend.123:8080/path?a:b", "backend.123"),
            ("https://user:secret@backend/", "backend"),
            ("tcp://db.data:5432", "db.data"),
            ("[::1]:53", "[::1]"),
            ("::1", "::1"),
            ("http://[fe80::1%25lo]:80/", "[fe80::1%25lo]"),
        ] {
            assert_eq!(host_text(text), host, "{text}");
        }
    }
}
