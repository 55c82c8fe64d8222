//! Targets: `http://HOST[:PORT][/PATH]`, the same with `https`, or `tcp://HOST:PORT`. Without a scheme, `http`
//! is assumed, as by curl.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use http::uri::PathAndQuery;

use crate::dns::{Host, HostError, parse_host};

/// The protocol of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP without encryption, on port 80 by default.
    Http,
    /// HTTP over TLS, on port 443 by default.
    Https,
    /// A TCP connection, on which nothing is sent. It has no default port.
    Tcp,
}

impl Scheme {
    /// All schemes that can be called.
    pub const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Tcp];

    /// The scheme as it is written in a URL.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
        }
    }

    /// The port of a URL that does not name one.
    fn default_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https => Some(443),
            Self::Tcp => None,
        }
    }
}

/// A URL to call, parsed.
#[derive(Clone, Debug)]
pub struct Target {
    /// The protocol to speak.
    pub scheme: Scheme,
    /// The name to resolve, or the address.
    pub host: Host,
    /// The TCP port to connect to.
    pub port: u16,
    /// Whether the URL has a port.
    pub is_port_given: bool,
    /// Path and query of the request.
    pub path: PathAndQuery,
    /// The `Host` header: the host, and the port unless it is the scheme's default.
    pub authority: HeaderValue,
    /// The `Authorization` header, if the URL has a user and a password (RFC 7617).
    pub authorization: Option<HeaderValue>,
    /// The URL without user, password and query, which may hold credentials.
    shown: String,
    /// The name of the target in a file of targets.
    name: Option<String>,
}

/// Why a text is not a target.
#[derive(Debug, thiserror::Error)]
pub enum ParseTargetError {
    /// The scheme is not supported.
    #[error("{0}:// is not supported, only http://, https:// and tcp://")]
    Scheme(String),
    /// The scheme has no default port, and none is given.
    #[error("a port is missing: tcp://HOST:PORT")]
    NoPort,
    /// A `tcp://` URL has a path, a user or a password, for which a TCP connection has no use.
    #[error("tcp:// takes only a host and a port, not {0:?}")]
    NotTcp(String),
    /// The host is not valid.
    #[error("not a URL: {text:?} is no host: {source}")]
    Host {
        /// The text in place of a host.
        text: String,
        /// Why it is not a host.
        source: HostError,
    },
    /// A scheme is followed by one slash, as in `http:/backend`, where the scheme would be taken for a host.
    #[error("not a URL: {0}: has to be followed by two slashes")]
    OneSlash(String),
    /// The port is not a number from 1 to 65535.
    #[error("not a URL: {0:?} is not a port, which is a number from 1 to 65535")]
    Port(String),
    /// Something is wrong with a URL that may hold a password, so the error does not quote it.
    #[error(
        "not a URL: the user and password before its @ have to be percent-encoded, or the host or the port is not valid"
    )]
    Credentials,
    /// The path is not valid.
    #[error("not a URL: {0:?} is not a path")]
    Path(String),
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|error| match text.contains('@') {
            true => ParseTargetError::Credentials,
            false => error,
        })
    }
}

fn parse(text: &str) -> Result<Target, ParseTargetError> {
    let (scheme, rest) = match text.split_once("://") {
        Some((word, rest)) => {
            let mut schemes = Scheme::ALL.into_iter();
            let scheme = schemes.find(|scheme| word.eq_ignore_ascii_case(scheme.label()));
            let unknown = || ParseTargetError::Scheme(word.to_owned());
            (scheme.ok_or_else(unknown)?, rest)
        }
        None => (Scheme::Http, text),
    };
    let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (credentials, host_port) = match authority.rsplit_once('@') {
        Some((credentials, host_port)) => (Some(credentials), host_port),
        None => (None, authority),
    };
    if scheme == Scheme::Tcp && (credentials.is_some() || !matches!(path, "" | "/")) {
        return Err(ParseTargetError::NotTcp(path.to_owned()));
    }
    let (name, port) = split_port(host_port);
    let is_scheme = |scheme: Scheme| name.eq_ignore_ascii_case(scheme.label());
    if port == Some("") && path.starts_with('/') && Scheme::ALL.into_iter().any(is_scheme) {
        return Err(ParseTargetError::OneSlash(name.to_owned()));
    }
    let host = match parse_host(name) {
        // In lower case, as browsers and curl do, since names in DNS are compared without regard to case.
        Ok(Host::Name(name)) => Host::Name(name.to_ascii_lowercase()),
        Ok(address) => address,
        Err(source) => {
            let text = name.to_owned();
            return Err(ParseTargetError::Host { text, source });
        }
    };
    let is_port_given = port.is_some_and(|port| !port.is_empty());
    let port = match port {
        None | Some("") => scheme.default_port().ok_or(ParseTargetError::NoPort)?,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(ParseTargetError::Port(text.to_owned())),
        },
    };
    let path = parse_path(path)?;
    let shown_host = in_url(&host);
    let authority = match scheme.default_port() == Some(port) {
        true => shown_host.clone(),
        false => format!("{shown_host}:{port}"),
    };
    let shown_path = match scheme {
        Scheme::Http | Scheme::Https => path.path(),
        Scheme::Tcp => "",
    };
    // `parse_host` returns only ASCII names.
    let authority = HeaderValue::try_from(authority).expect("a host fits into a header");
    Ok(Target {
        shown: format!("{}://{shown_host}:{port}{shown_path}", scheme.label()),
        scheme,
        name: None,
        host,
        port,
        is_port_given,
        path,
        authority,
        authorization: credentials.and_then(basic_authorization),
    })
}

/// Displays the URL without user, password and query, which may hold credentials.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Target {
    /// The URL without user, password and query, which may hold credentials.
    pub fn as_str(&self) -> &str {
        &self.shown
    }

    /// The host as it is written in a URL.
    pub fn host_name(&self) -> String {
        in_url(&self.host)
    }

    /// The same target with a name.
    pub fn with_name(mut self, name: String) -> Self {
        self.name = Some(name);
        self
    }

    /// The name of the target in a file of targets, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The name, or else the URL. It is unique among the targets of a caller, and the value of the metric label
    /// `target`.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.shown)
    }
}

/// The host as it is written in a URL and in the `Host` header: an IPv6 address has brackets, and no zone,
/// because a zone is valid only on one machine (RFC 6874, section 4).
fn in_url(host: &Host) -> String {
    match host {
        Host::Name(name) => name.clone(),
        Host::Address {
            ip: IpAddr::V4(v4), ..
        } => v4.to_string(),
        Host::Address {
            ip: IpAddr::V6(v6), ..
        } => format!("[{v6}]"),
    }
}

fn split_port(host_port: &str) -> (&str, Option<&str>) {
    // The colons of an IPv6 address are in brackets.
    if host_port.starts_with('[') {
        let end = host_port.find(']').map_or(host_port.len(), |at| at + 1);
        let (host, rest) = host_port.split_at(end);
        return match rest.strip_prefix(':') {
            None if !rest.is_empty() => (host_port, None),
            port => (host, port),
        };
    }
    match host_port.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host_port, None),
    }
}

/// Parses path and query. Characters that are not allowed there are percent-encoded (RFC 3986, sections 2.1,
/// 3.3 and 3.4).
fn parse_path(path: &str) -> Result<PathAndQuery, ParseTargetError> {
    let mut encoded = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        encoded.push('/');
    }
    for byte in path.bytes() {
        match byte {
            b'!' | b'#'..=b';' | b'=' | b'?'..=b'Z' | b'_' | b'a'..=b'z' | b'~' => {
                encoded.push(byte.into());
            }
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
        .try_into()
        .map_err(|_| ParseTargetError::Path(path.to_owned()))
}

fn basic_authorization(credentials: &str) -> Option<HeaderValue> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let decoded = [percent_decoded(user), percent_decoded(password)].join(&b':');
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64.encode(decoded))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Decodes a percent-encoded text (RFC 3986, section 2.1).
pub(crate) fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().iter();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(&byte) = bytes.next() {
        let digits = bytes.as_slice().get(..2);
        let escaped = digits.and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                decoded.push(escaped);
                bytes.nth(1);
            }
            _ => decoded.push(byte),
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Target;

    fn target(text: &str) -> Target {
        text.parse().expect("something to call")
    }

    #[test]
    fn a_url_is_parsed_into_host_port_and_path() {
        for (text, shown, authority, path) in [
            ("backend", "http://backend:80/", "backend", "/"),
            ("HTTP://Backend:80", "http://backend:80/", "backend", "/"),
            (
                "backend:8080/a?b=c#d",
                "http://backend:8080/a",
                "backend:8080",
                "/a?b=c",
            ),
            ("http://backend?q", "http://backend:80/", "backend", "/?q"),
            ("https://backend", "https://backend:443/", "backend", "/"),
            ("https://b:80/a", "https://b:80/a", "b:80", "/a"),
            (
                "TCP://DB.data:5432",
                "tcp://db.data:5432",
                "db.data:5432",
                "/",
            ),
            ("tcp://[::1]:53/", "tcp://[::1]:53", "[::1]:53", "/"),
            ("http://backend:/", "http://backend:80/", "backend", "/"),
            ("http://[::1]:81/", "http://[::1]:81/", "[::1]:81", "/"),
            (
                "http://backend.123:8080/",
                "http://backend.123:8080/",
                "backend.123:8080",
                "/",
            ),
            (
                "http://b/a b\"<é>",
                "http://b:80/a%20b%22%3C%C3%A9%3E",
                "b",
                "/a%20b%22%3C%C3%A9%3E",
            ),
        ] {
            let target = target(text);
            assert_eq!(target.to_string(), shown, "{text}");
            assert_eq!(target.authority, authority, "{text}");
            assert_eq!(target.path.as_str(), path, "{text}");
        }
    }

    #[test]
    fn credentials_are_sent_and_not_shown() {
        let target = target("http://us%40er:se%3Acret@backend/?token=x");
        let sent = target.authorization.as_ref().expect("credentials");
        assert_eq!(sent, "Basic dXNAZXI6c2U6Y3JldA==");
        assert_eq!(target.to_string(), "http://backend:80/");
        assert!(!format!("{target:?}").contains("dXNA"));
    }

    #[test]
    fn an_error_does_not_repeat_a_password() {
        for text in [
            "http://user:s3cret@bad host/",
            "http://user:s3/cret@backend/",
            "http://user:s3cret@backend:99999/",
            "ftp://user:s3cret@backend/",
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(!error.contains("s3"), "{text}: {error}");
        }
    }

    #[test]
    fn an_error_quotes_the_invalid_part() {
        for (text, named) in [
            ("ftp://backend/", "ftp"),
            ("tcp://backend", "a port is missing"),
            ("tcp://backend:", "a port is missing"),
            ("tcp://backend:0", "\"0\""),
            ("tcp://backend:80/path", "\"/path\""),
            ("", "no host"),
            ("http://", "no host"),
            ("http:///path", "no host"),
            ("http://:80/", "no host"),
            ("http://back end/", "\"back end\""),
            ("http://$(reboot)/", "\"$(reboot)\""),
            ("http://backend:0/", "\"0\""),
            ("http://backend:65536/", "\"65536\""),
            ("http://backend:http/", "\"http\""),
            ("http://[::1/", "[::1"),
            ("http://[::1]80/", "\"[::1]80\""),
            ("http://[nonsense]/", "\"[nonsense]\""),
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_a_target_parses_as_displayed(text: String) {
            if let Ok(target) = text.parse::<Target>() {
                let again: Target = target.to_string().parse().expect("its own words");
                prop_assert_eq!(again.to_string(), target.to_string());
            }
        }
    }
}
