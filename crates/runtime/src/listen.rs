//! Listen addresses as Go programs write them: `:8080`, `127.0.0.1:8080`, `[::1]:8080`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel may hold before they are accepted; it limits this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel may hold for a connection in each direction; it doubles this for its bookkeeping.
const KERNEL_BUFFER: usize = 16 * 1024;

/// An address to listen on. `:PORT` means every address of the machine, IPv6 and IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// The IP address; `None` means every address of the machine.
    pub ip: Option<IpAddr>,
    /// The port; 0 lets the kernel choose a free one.
    pub port: u16,
}

/// A listen address, or `off` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalListenAddr(
    /// The address; `None` disables what would listen there.
    pub Option<ListenAddr>,
);

/// The text is not a listen address.
#[derive(Debug, thiserror::Error)]
#[error("expected [IP]:PORT, such as :8080, 127.0.0.1:8080 or [::1]:8080")]
pub struct ParseListenAddrError;

/// Listening on the address failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}")]
pub struct BindError {
    addr: ListenAddr,
    source: io::Error,
}

impl BindError {
    /// Whether the reason is that another socket listens there (`EADDRINUSE`).
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

/// Parses an IP address. IPv6 is accepted in brackets only, as in a URL, so that the colon of the port is clear.
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
    /// Opens the port. For `:PORT` this is one IPv6 socket that accepts IPv4 too, or, where the machine has no IPv6,
    /// an IPv4 socket.
    ///
    /// # Errors
    ///
    /// If the address is in use, does not belong to this machine, or is not permitted.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn bind(self) -> Result<TcpListener, BindError> {
        let opened =
            match self.ip {
                Some(ip) => open(SocketAddr::new(ip, self.port)),
                None => open(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port)).or_else(
                    |error| match error.kind() {
                        // IPv4 would fail in the same way, or hide that the port is in use for IPv6.
                        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                        _ => open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.port)),
                    },
                ),
            };
        opened.map_err(|source| BindError { addr: self, source })
    }
}

/// Opens a listening socket.
fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit this option, which saves a system call for each connection.
    socket.set_tcp_nodelay(true)?;
    // They inherit these, too. What the kernel holds for a client that does not read, or that is not read, counts
    // as memory of the container, and would be megabytes by default.
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
    fn addresses_are_parsed_as_go_programs_write_them() {
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
        fn an_address_that_is_parsed_is_displayed_as_one_that_parses_alike(text: String) {
            if let Ok(addr) = text.parse::<ListenAddr>() {
                prop_assert_eq!(addr.to_string().parse::<ListenAddr>().expect("its own words"), addr);
            }
        }
    }
}
