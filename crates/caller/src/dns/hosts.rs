//! The hosts file (hosts(5)), which is consulted before DNS (`hosts: files dns` in nsswitch.conf(5)), and
//! parsed as glibc's `_nss_files_gethostbyname4_r` does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::query::Family;

/// Every address that the file has for exactly `name`: the search list is not applied, and a final dot is
/// part of the name. Empty if the file cannot be read.
pub(super) fn find(path: &Path, name: &str, families: &[Family]) -> Vec<IpAddr> {
    let text = std::fs::read(path).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
        let mut fields = line.split(space).filter(|field| !field.is_empty());
        let Some(address) = fields.next() else {
            continue;
        };
        if !fields.any(|alias| alias.eq_ignore_ascii_case(name.as_bytes())) {
            continue;
        }
        let address = std::str::from_utf8(address).ok();
        let address = address.and_then(|text| text.parse::<IpAddr>().ok());
        if let Some(address) = address.and_then(|address| of_family(address, families))
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// The address, if its family is wanted. If only IPv4 is wanted, an IPv6 loopback or IPv4-mapped address
/// becomes the IPv4 address that it stands for.
fn of_family(address: IpAddr, families: &[Family]) -> Option<IpAddr> {
    let is_wanted = match address {
        IpAddr::V4(_) => families.contains(&Family::V4),
        IpAddr::V6(_) => families.contains(&Family::V6),
    };
    match address {
        address if is_wanted => Some(address),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map(IpAddr::V4),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Family, find};

    const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn look(text: impl AsRef<[u8]>, name: &str, families: &[Family]) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        let found = find(file.path(), name, families);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_line_with_the_name_in_any_case_counts() {
        let text = "10.0.0.1 a b\n# 10.0.0.2 b\n  10.0.0.3\tB # c\n10.0.0.4 ab\n::5 b\n";
        assert_eq!(look(text, "b", &BOTH), ["10.0.0.1", "10.0.0.3", "::5"]);
        assert_eq!(look(text, "b", &[Family::V6]), ["::5"]);
        assert!(look(text, "c", &BOTH).is_empty());
        assert!(look(text, "b.", &BOTH).is_empty());
    }

    #[test]
    fn ipv6_loopback_becomes_ipv4_loopback_if_only_ipv4_is_wanted() {
        assert_eq!(look("::1 b\n", "b", &[Family::V4]), ["127.0.0.1"]);
        assert_eq!(
            look("::ffff:10.0.0.1 b\n", "b", &[Family::V4]),
            ["10.0.0.1"]
        );
        assert_eq!(look("::1 b\n", "b", &BOTH), ["::1"]);
    }

    #[test]
    fn malformed_lines_are_ignored() {
        let text = b"\xff\xfe\n10.0.0.300 b\n10.1 b\nfe80::1%lo b\n10.0.0.9\r\n10.0.0.1 b\r\n";
        assert_eq!(look(text, "b", &BOTH), ["10.0.0.1"]);
    }

    #[test]
    fn a_missing_file_has_no_names() {
        assert!(find(std::path::Path::new("/nonexistent"), "b", &BOTH).is_empty());
    }
}
