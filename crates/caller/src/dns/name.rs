//! The host part of a target, as people write it: a name, an address, a name in their own script.
//!
//! The rule for URLs on the web is not for here: it takes `backend.123` for an IPv4 address and refuses
//! it, though a namespace may well be a number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::idn;

/// The longest name, with its dots and without the final one (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// The longest label.
const MAX_LABEL: usize = 63;

/// A host to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// To be resolved; in ASCII.
    Name(String),
    /// Not to be resolved.
    Address {
        /// The address.
        ip: IpAddr,
        /// The interface of a link-local IPv6 address (`fe80::1%eth0`); 0 where there is none.
        scope_id: u32,
    },
}

/// The text is not a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// There is nothing.
    #[error("the host is missing")]
    Empty,
    /// Between two dots, or before the first one, there is nothing.
    #[error("an empty label: two dots in a row, or one at the beginning")]
    EmptyLabel,
    /// No host name has this character.
    #[error("{0:?} cannot be in a host name")]
    Character(char),
    /// glibc takes no answer for such a name.
    #[error("a label of a host name cannot begin with '-'")]
    Hyphen,
    /// A label is too long for DNS.
    #[error("a label of {0} bytes: DNS has at most 63")]
    LongLabel(usize),
    /// The name is too long for DNS.
    #[error("a name of {0} bytes: DNS has at most 253")]
    LongName(usize),
    /// In brackets or with a colon, and not an IPv6 address.
    #[error("not an IPv6 address")]
    NotIpv6,
    /// The zone of an IPv6 address is no interface here.
    #[error("there is no interface {0:?} here")]
    Zone(String),
}

/// Reads a host. An address may have any form that `inet_aton` takes (`127.1`), and IPv6 may stand in
/// brackets and have a zone.
///
/// # Errors
///
/// When no host can be called that; the error says why.
pub fn parse_host(text: &str) -> Result<Host, HostError> {
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
        // In a URL the percent sign is escaped itself (RFC 6874).
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

/// Letters, digits, hyphens and underscores, as glibc's `__res_binary_hnok` has them.
fn check(name: &str) -> Result<(), HostError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    let is_odd = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if let Some(odd) = name.chars().find(is_odd) {
        return Err(HostError::Character(odd));
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

/// The host in what people paste: a URL, `HOST:PORT`, or the host itself.
pub fn host_text(text: &str) -> &str {
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

/// IPv4 in the forms that C takes: one to four numbers, decimal, octal (`0…`) or hexadecimal (`0x…`), of
/// which the last fills what is left.
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
    // A sign is none of C's digits here.
    let first = digits.chars().next()?;
    first
        .is_digit(radix)
        .then(|| u32::from_str_radix(digits, radix).ok())?
}

/// The number of an interface, which a zone names by its number or its name.
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
    fn names_that_people_have_are_names() {
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
    fn an_address_has_every_form_that_c_takes() {
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
    fn what_is_refused_says_why() {
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
    fn the_host_is_found_in_what_people_paste() {
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
