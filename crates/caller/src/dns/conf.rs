//! The resolver's configuration: `resolv.conf`, read leniently, and never made up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use resolv_conf::ScopedIp;

/// Where a name server listens unless told otherwise.
const DNS_PORT: u16 = 53;

/// glibc's MAXNS: it never asks a fourth server.
const MAX_NAMESERVERS: usize = 3;

/// glibc's RES_MAXRETRY.
const MAX_ATTEMPTS: u32 = 5;

/// Where the configuration comes from. It is read anew for every lookup: that is cheap, and
/// nothing is ever out of date.
#[derive(Clone, Debug)]
pub struct ConfSource {
    /// A file in the form of `/etc/resolv.conf`.
    pub path: PathBuf,
    /// Asked instead of the file's servers, unless empty.
    pub nameservers: Vec<SocketAddr>,
}

/// The parts of `resolv.conf` that decide what is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// In the order in which they are asked. Never empty.
    pub nameservers: Vec<SocketAddr>,
    /// Domains to try under a name with few dots.
    pub search: Vec<String>,
    /// A name with at least this many dots is tried as it is first.
    pub ndots: u32,
    /// How often each server is asked before it counts as silent.
    pub attempts: u32,
    /// Allow answers over 512 bytes in one packet.
    pub edns: bool,
    /// Ask over TCP from the start.
    pub use_tcp: bool,
}

/// There is no usable configuration. No server is asked in its stead: an answer from elsewhere
/// would say nothing about the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file names no server.
    #[error("no nameserver in {path}")]
    NoNameserver {
        /// The file.
        path: PathBuf,
    },
}

impl ConfSource {
    /// Reads the configuration. Lines and options that are not understood are passed over, as glibc
    /// does (resolv.conf(5)).
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or there is no server to ask.
    pub fn read(&self) -> Result<ResolvConf, ConfError> {
        let text = std::fs::read(&self.path).map_err(|source| ConfError::Unreadable {
            path: self.path.clone(),
            source,
        })?;
        let (file, _) = resolv_conf::Config::parse_with_errors(&text);
        let nameservers: Vec<SocketAddr> = match self.nameservers.as_slice() {
            [] => file.nameservers.iter().filter_map(nameserver).collect(),
            given => given.to_vec(),
        };
        if nameservers.is_empty() {
            let path = self.path.clone();
            return Err(ConfError::NoNameserver { path });
        }
        Ok(ResolvConf {
            nameservers: nameservers.into_iter().take(MAX_NAMESERVERS).collect(),
            search: file.get_last_search_or_domain().cloned().collect(),
            ndots: file.ndots,
            attempts: file.attempts.clamp(1, MAX_ATTEMPTS),
            edns: file.edns0,
            use_tcp: file.use_vc,
        })
    }
}

/// A link-local server with a zone (`fe80::1%eth0`) is passed over: the zone's number is not ours
/// to know.
fn nameserver(ip: &ScopedIp) -> Option<SocketAddr> {
    match ip {
        ScopedIp::V6(_, Some(_)) => None,
        ip => Some(SocketAddr::new(IpAddr::from(ip), DNS_PORT)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{ConfError, ConfSource, ResolvConf};

    fn read(text: &str) -> Result<ResolvConf, ConfError> {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("it can be written");
        let nameservers = Vec::new();
        let path = file.path().to_owned();
        ConfSource { path, nameservers }.read()
    }

    #[test]
    fn a_pods_file_is_understood() {
        let conf = read(
            "search demo.svc.cluster.local svc.cluster.local cluster.local\n\
             nameserver 10.96.0.10\noptions ndots:5\n",
        )
        .expect("it is a pod's");
        assert_eq!(conf.nameservers, ["10.96.0.10:53".parse().expect("one")]);
        let search = [
            "demo.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
        ];
        assert_eq!(conf.search, search);
        assert_eq!((conf.ndots, conf.attempts), (5, 2));
    }

    #[test]
    fn what_is_unknown_is_passed_over() {
        let conf = read(
            "# comment\nnonsense here\noptions no-such-option ndots:2 edns0 use-vc\n\
             nameserver not-an-address\nnameserver fe80::1%eth0\nnameserver ::1\n",
        )
        .expect("one server is left");
        assert_eq!(conf.nameservers, ["[::1]:53".parse().expect("one")]);
        assert_eq!((conf.ndots, conf.edns, conf.use_tcp), (2, true, true));
    }

    #[test]
    fn the_last_of_search_and_domain_counts() {
        let search = |text: &str| read(text).expect("it has a server").search;
        assert_eq!(search("nameserver ::1\nsearch a b\ndomain c\n"), ["c"]);
        assert_eq!(search("nameserver ::1\ndomain c\nsearch a b\n"), ["a", "b"]);
    }

    #[test]
    fn no_server_is_an_error_and_never_a_default() {
        assert!(matches!(
            read("search a\n"),
            Err(ConfError::NoNameserver { .. })
        ));
    }
}
