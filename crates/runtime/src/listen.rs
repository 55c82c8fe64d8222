//! Listening addresses as Go programs write them: `:8080`, `127.0.0.1:8080`, `[::1]:8080`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// Connections the kernel may hold for us before we accept them; it caps this at `somaxconn`.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel may hold for a connection, each way; it doubles this for its own bookkeeping.
const KERNEL_BUFFER: usize = 16 * 1024;

/// Where to listen. `:PORT` means every address of the machine, IPv6 and IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// `None`: every address.
    pub ip: Option<IpAddr>,
    /// 0: a free port of the kernel's choice.
    pub port: u16,
}

/// An address that can be switched off with the word `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalListenAddr(
    /// `None`: do not listen.
    pub Option<ListenAddr>,
);

/// The text is not a listening address.
#[derive(Debug, thiserror::Error)]
#[error("expected [IP]:PORT, such as :8080, 127.0.0.1:8080 or [::1]:8080")]
pub struct ParseListenAddrError;

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}")]
pub struct BindError {
    addr: ListenAddr,
    source: io::Error,
}

impl BindError {
    /// Whether it is only that somebody else listens there.
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

impl FromStr for ListenAddr {
    type Err = ParseListenAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(ParseListenAddrError)?;
        let port = port.parse().map_err(|_| ParseListenAddrError)?;
        let ip = match host {
            "" => None,
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            _ => Some(parse_ip(host).ok_or(ParseListenAddrError)?),
        };
        Ok(Self { ip, port })
    }
}

/// IPv6 only in brackets, as in a URL, so that the port's colon is never in doubt.
fn parse_ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

impl FromStr for OptionalListenAddr {
    type Err = ParseListenAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self(None)),
            _ => text.parse().map(|addr| Self(Some(addr))),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(addr: SocketAddr) -> Self {
        Self {
            ip: Some(addr.ip()),
            port: addr.port(),
        }
    }
}

impl ListenAddr {
    /// Opens the port. `:PORT` is one IPv6 socket that takes IPv4 too, or, where the machine has
    /// no IPv6, an IPv4 socket.
    ///
    /// Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// When the address is in use, not this machine's, or not permitted.
    pub fn bind(self) -> Result<TcpListener, BindError> {
        let opened =
            match self.ip {
                Some(ip) => open(SocketAddr::new(ip, self.port)),
                None => open(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port)).or_else(
                    |error| match error.kind() {
                        // A port in use is in use for IPv4 as well: that error is the one to show.
                        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                        _ => open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.port)),
                    },
                ),
            };
        opened.map_err(|source| BindError { addr: self, source })
    }
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit this, which saves a system call for each connection.
    socket.set_tcp_nodelay(true)?;
    // As do they these: what the kernel holds for a client who does not read, or who is not read, counts
    // as this process's memory in a container, and would be megabytes.
    socket.set_recv_buffer_size(KERNEL_BUFFER)?;
    socket.set_send_buffer_size(KERNEL_BUFFER)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ListenAddr, OptionalListenAddr};

    #[test]
    fn addresses_are_taken_as_go_writes_them() {
        for (text, shown) in [
            (":8080", ":8080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:80", "127.0.0.1:80"),
        ] {
            let addr: ListenAddr = text.parse().expect("it is well formed");
            assert_eq!(addr.to_string(), shown);
        }
        for text in [
            "",
            "8080",
            ":",
            ":65536",
            "::1:80",
            "[1.2.3.4]:80",
            "host:80",
            ":80 ",
            ":-1",
        ] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text:?}");
        }
        assert_eq!("off".parse::<OptionalListenAddr>().expect("a word").0, None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text: String) {
            if let Ok(addr) = text.parse::<ListenAddr>() {
                prop_assert_eq!(addr.to_string().parse::<ListenAddr>().expect("its own words"), addr);
            }
        }
    }
}
