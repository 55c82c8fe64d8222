//! The resolver's configuration: `resolv.conf` (resolv.conf(5)), parsed as glibc does (`res_vinit_1` and
//! `res_setoptions` in res_init.c). A file that is missing, or names no name server, is an error: there is no
//! default name server.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

use super::name::{inet_aton, scope_id};

/// The port of a name server, unless another is given.
const DNS_PORT: u16 = 53;

/// Most name servers that are used: glibc's MAXNS.
const MAX_NAMESERVERS: usize = 3;

/// Largest value of `ndots`: glibc's RES_MAXNDOTS.
const MAX_NDOTS: i64 = 15;

/// Largest value of `attempts`: glibc's RES_MAXRETRY.
const MAX_ATTEMPTS: i64 = 5;

/// Largest value of `timeout`, in seconds: glibc's RES_MAXRETRANS.
const MAX_TIMEOUT: i64 = 30;

/// Most ignored lines and options to keep for display.
const MAX_IGNORED: usize = 8;

/// Where the configuration comes from. The file is read again for every lookup, which is cheap, so that the
/// configuration is never out of date.
#[derive(Clone, Debug)]
pub struct ConfSource {
    /// Path of a file in the format of `/etc/resolv.conf`.
    pub path: PathBuf,
    /// Name servers to query instead of those in the file; empty to use the file's.
    pub nameservers: Vec<SocketAddr>,
}

/// The settings of `resolv.conf` that decide which queries are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers, in the order in which they are queried. Never empty after [`ConfSource::read`].
    pub nameservers: Vec<SocketAddr>,
    /// The search list: domains to append to a name with fewer than `ndots` dots. Bytes over 127 are read
    /// as Latin-1.
    pub search: Vec<String>,
    /// A name with at least this many dots is queried as it is before the search list is applied.
    pub ndots: u32,
    /// How many times the servers are queried in turn before the lookup gives up on a name.
    pub attempts: u32,
    /// Timeout of a query, from 1 to 30 seconds; `None` if the file does not set it.
    pub timeout: Option<Duration>,
    /// Whether to start with a random server each time (`rotate`).
    pub rotate: bool,
    /// Whether to allow responses over 512 bytes in one datagram (`edns0`, RFC 6891).
    pub edns: bool,
    /// Whether to send queries over TCP from the start (`use-vc`).
    pub use_tcp: bool,
    /// Whether to send the AAAA query only after the response to the A query (`single-request`).
    pub single_request: bool,
    /// Whether to use a new socket for that AAAA query (`single-request-reopen`).
    pub single_request_reopen: bool,
    /// Whether to query no AAAA records (`no-aaaa`).
    pub no_aaaa: bool,
    /// Whether a name without a dot is queried only with a search domain, if there is any (`no-tld-query`).
    pub no_tld_query: bool,
    /// The first lines and options that have no effect, at most eight: line number and text.
    pub ignored: Vec<(usize, String)>,
}

/// Why there is no usable configuration. There is no fallback to a public name server, whose response would say
/// nothing about the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file names no name server.
    #[error("no nameserver in {path}{}", ignored.as_ref().map(|(line, text)| format!(": line {line} is not one: {text}")).unwrap_or_default())]
    NoNameserver {
        /// Path of the file.
        path: PathBuf,
        /// Number and text of the first `nameserver` line whose value is not an IP address.
        ignored: Option<(usize, String)>,
    },
}

impl ConfError {
    /// Whether the cause is this process and not the file: no file descriptor is left.
    pub(super) fn is_local(&self) -> bool {
        let Self::Unreadable { source, .. } = self else {
            return false;
        };
        matches!(source.raw_os_error(), Some(libc::ENFILE | libc::EMFILE))
    }
}

impl ConfSource {
    /// Reads the configuration. Lines and options that are not understood are ignored, and listed in
    /// [`ResolvConf::ignored`].
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or there is no name server to use.
    pub fn read(&self) -> Result<ResolvConf, ConfError> {
        let text = std::fs::read(&self.path).map_err(|source| ConfError::Unreadable {
            path: self.path.clone(),
            source,
        })?;
        let mut conf = ResolvConf::parse(&text);
        if !self.nameservers.is_empty() {
            conf.nameservers.clone_from(&self.nameservers);
        }
        conf.nameservers.truncate(MAX_NAMESERVERS);
        if conf.nameservers.is_empty() {
            let is_server = |(_, text): &(usize, String)| text.starts_with("nameserver");
            return Err(ConfError::NoNameserver {
                path: self.path.clone(),
                ignored: conf.ignored.into_iter().find(is_server),
            });
        }
        if conf.search.is_empty() {
            conf.search.extend(domain_of_this_host());
        }
        Ok(conf)
    }
}

/// The default search list: what follows the first dot of the host name, as glibc's `domain_from_hostname`.
fn domain_of_this_host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let (_, domain) = name.trim_end().split_once('.')?;
    (!domain.is_empty()).then(|| domain.to_owned())
}

impl ResolvConf {
    /// The defaults of glibc, for settings that are not in the file.
    pub(super) fn new() -> Self {
        Self {
            nameservers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            attempts: 2,
            timeout: None,
            rotate: false,
            edns: false,
            use_tcp: false,
            single_request: false,
            single_request_reopen: false,
            no_aaaa: false,
            no_tld_query: false,
            ignored: Vec::new(),
        }
    }

    fn parse(text: &[u8]) -> Self {
        let mut conf = Self::new();
        for (n, line) in text.split(|&byte| byte == b'\n').enumerate() {
            // To glibc a line is a C string, which ends at its first zero byte.
            let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
            let line: String = line.iter().copied().map(char::from).collect();
            let understood = match line.split_once(BLANK) {
                _ if line.starts_with(['#', ';']) || line.trim().is_empty() => true,
                Some(("domain", rest)) => {
                    if let Some(domain) = words(rest).next() {
                        conf.search = vec![domain.to_owned()];
                    }
                    true
                }
                Some(("search", rest)) => {
                    if words(rest).next().is_some() {
                        conf.search = words(rest).map(ToOwned::to_owned).collect();
                    }
                    true
                }
                Some(("nameserver", rest)) => {
                    let server = nameserver(rest);
                    conf.nameservers.extend(server);
                    server.is_some()
                }
                Some(("options", rest)) => {
                    for option in options(rest) {
                        if !conf.set(option) {
                            conf.ignore(n + 1, option.split(BLANK).next().unwrap_or_default());
                        }
                    }
                    true
                }
                _ => false,
            };
            if !understood {
                conf.ignore(n + 1, &line);
            }
        }
        conf
    }

    fn ignore(&mut self, line: usize, text: &str) {
        if self.ignored.len() < MAX_IGNORED {
            let text = text.trim_matches(BLANK).chars().take(80).collect();
            self.ignored.push((line, text));
        }
    }

    /// Applies an option, and returns whether it has an effect. `option` includes the rest of the line,
    /// since blanks may stand before a number.
    fn set(&mut self, option: &str) -> bool {
        let number = |prefix: &str, max: i64| {
            let digits = option.strip_prefix(prefix)?;
            Some(atoi(digits).min(max))
        };
        if let Some(ndots) = number("ndots:", MAX_NDOTS) {
            // glibc stores it in a field of four bits.
            self.ndots = (ndots & 0xf) as u32;
        } else if let Some(seconds) = number("timeout:", MAX_TIMEOUT) {
            self.timeout = Some(Duration::from_secs(seconds.max(1).unsigned_abs()));
        } else if let Some(attempts) = number("attempts:", MAX_ATTEMPTS) {
            self.attempts = attempts.clamp(1, MAX_ATTEMPTS) as u32;
        } else {
            // As glibc, which compares only the beginning of the word.
            let is = |name: &str| option.starts_with(name);
            match option {
                _ if is("rotate") => self.rotate = true,
                _ if is("edns0") => self.edns = true,
                _ if is("single-request") => {
                    self.single_request = true;
                    self.single_request_reopen |= is("single-request-reopen");
                }
                _ if is("no-tld-query") || is("no_tld_query") => self.no_tld_query = true,
                _ if is("use-vc") => self.use_tcp = true,
                _ if is("no-aaaa") => self.no_aaaa = true,
                _ => return false,
            }
        }
        true
    }
}

const BLANK: [char; 2] = [' ', '\t'];

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(BLANK).filter(|word| !word.is_empty())
}

/// The options of a line, each with the rest of the line (see [`ResolvConf::set`]).
fn options(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let option = text.trim_start_matches(BLANK);
        text = &option[option.find(BLANK).unwrap_or(option.len())..];
        (!option.trim().is_empty()).then_some(option)
    })
}

/// C's atoi(3): blanks, a sign, digits; the rest is ignored.
fn atoi(text: &str) -> i64 {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.chars().map_while(|digit| digit.to_digit(10));
    let number = digits.fold(0_i64, |number, digit| {
        number.saturating_mul(10).saturating_add(digit.into())
    });
    sign * number
}

/// The first word, if it is an address as inet_aton(3) or inet_pton(3) accepts it, with an IPv6 zone or
/// without. As in glibc, a carriage return at its end makes it invalid.
fn nameserver(text: &str) -> Option<SocketAddr> {
    let text = words(text).next()?;
    if let Some(v4) = inet_aton(text) {
        return Some(SocketAddr::new(IpAddr::V4(v4), DNS_PORT));
    }
    let (address, zone) = text.split_once('%').unwrap_or((text, ""));
    let address: Ipv6Addr = address.parse().ok()?;
    // As in glibc, a zone that does not exist is ignored.
    let scope = scope_id(zone).unwrap_or_default();
    Some(SocketAddrV6::new(address, DNS_PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ConfError, ConfSource, ResolvConf, atoi};

    fn read(text: impl AsRef<[u8]>) -> Result<ResolvConf, ConfError> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("it can be written");
        let nameservers = Vec::new();
        let path = file.path().to_owned();
        ConfSource { path, nameservers }.read()
    }

    #[test]
    fn the_resolv_conf_of_a_pod_is_parsed() {
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
        assert_eq!((conf.ndots, conf.attempts, conf.timeout), (5, 2, None));
        assert_eq!(conf.ignored, []);
    }

    #[test]
    fn unknown_lines_and_options_are_ignored_and_listed_with_their_line_number() {
        let conf = read(
            "# comment\nnonsense here\noptions no-such-option ndots:2 edns0 use-vc\n\
             nameserver not-an-address\nnameserver ::1\n",
        )
        .expect("one server is left");
        assert_eq!(conf.nameservers, ["[::1]:53".parse().expect("one")]);
        assert_eq!((conf.ndots, conf.edns, conf.use_tcp), (2, true, true));
        let ignored = [
            (2, "nonsense here"),
            (3, "no-such-option"),
            (4, "nameserver not-an-address"),
        ];
        let seen: Vec<_> = conf.ignored.iter().map(|(n, t)| (*n, t.as_str())).collect();
        assert_eq!(seen, ignored);
    }

    #[test]
    fn options_are_parsed_as_by_glibc() {
        let conf = |options: &str| read(format!("nameserver ::1\noptions {options}\n"));
        let conf = |options: &str| conf(options).expect("it has a server");
        assert_eq!(conf("ndots:99").ndots, 15);
        assert_eq!(conf("ndots: 3").ndots, 3);
        assert_eq!(conf("ndots:").ndots, 0);
        assert_eq!(conf("attempts:9").attempts, 5);
        assert_eq!(conf("timeout:0").timeout, Some(Duration::from_secs(1)));
        assert_eq!(conf("timeout:99").timeout, Some(Duration::from_secs(30)));
        assert!(conf("rotate no-aaaa").rotate);
        assert!(conf("rotate no-aaaa").no_aaaa);
        assert!(conf("single-request-reopen").single_request);
        assert!(!conf("single-request").single_request_reopen);
        assert!(conf("ndots:5\tno-tld-query").no_tld_query);
    }

    #[test]
    fn carriage_returns_are_treated_as_by_glibc() {
        let text = "nameserver 10.0.0.1\r\nsearch a b\r\noptions ndots:5\r\n";
        let error = read(text).expect_err("that is no address").to_string();
        assert!(
            error.ends_with(": line 1 is not one: nameserver 10.0.0.1\r"),
            "{error:?}"
        );
        let conf = read(text.to_owned() + "nameserver ::1\n").expect("it has a server");
        assert_eq!(conf.nameservers, ["[::1]:53".parse().expect("one")]);
        assert_eq!(conf.search, ["a", "b\r"]);
        assert_eq!(conf.ndots, 5);
    }

    #[test]
    fn bytes_that_are_not_ascii_are_kept() {
        let conf = read(b"nameserver ::1\nsearch b\xfccher \n").expect("it has a server");
        assert_eq!(conf.search, ["b\u{fc}cher"]);
    }

    #[test]
    fn the_zone_of_a_nameserver_is_a_number_or_an_interface_and_is_ignored_if_unknown() {
        let conf = read("nameserver fe80::1%7\nnameserver fe80::1%lo\nnameserver fe80::1%nosuch\n");
        let servers = conf.expect("it has servers").nameservers;
        let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(
            servers,
            ["[fe80::1%7]:53", "[fe80::1%1]:53", "[fe80::1]:53"]
        );
    }

    #[test]
    fn the_last_search_or_domain_line_counts_unless_it_is_blank() {
        let search = |text: &str| read(text).expect("it has a server").search;
        assert_eq!(search("nameserver ::1\nsearch a b\ndomain c d\n"), ["c"]);
        assert_eq!(search("nameserver ::1\ndomain c\nsearch a b\n"), ["a", "b"]);
        assert_eq!(search("nameserver ::1\nsearch a b\nsearch \n"), ["a", "b"]);
    }

    #[test]
    fn only_the_first_three_of_ten_thousand_servers_are_used() {
        let conf = read("nameserver 127.0.0.1\n".repeat(10_000));
        assert_eq!(conf.expect("it has servers").nameservers.len(), 3);
    }

    #[test]
    fn a_file_without_a_server_is_an_error_and_gets_no_default() {
        assert!(matches!(
            read("search a\n"),
            Err(ConfError::NoNameserver { .. })
        ));
        let error = read("nameserver nowhere\n").expect_err("that is no address");
        assert!(
            error
                .to_string()
                .ends_with(": line 1 is not one: nameserver nowhere")
        );
    }

    #[test]
    fn numbers_are_parsed_as_by_atoi() {
        assert_eq!(atoi(" +12x"), 12);
        assert_eq!(atoi("-3"), -3);
        assert_eq!(atoi("x"), 0);
    }
}
