//! The TCP connection to one address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::icmp;
use crate::failure::{Cause, FailureKind, Icmp};

/// How a connection is made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// Largest segment in either direction, in bytes; `None` leaves it to the kernel.
    pub(super) mss: Option<u32>,
    /// Hops after which a packet is discarded; `None` leaves it to the kernel.
    pub(super) hops: Option<u8>,
    /// The address to call from; `None` leaves it to the kernel.
    pub(super) source: Option<IpAddr>,
}

/// An attempt to connect that failed, and how long it took.
#[derive(Debug)]
pub(super) struct ConnectError {
    pub(super) kind: FailureKind,
    pub(super) cause: Cause,
    pub(super) icmp: Option<Icmp>,
    pub(super) took: Duration,
}

/// Connects to `address`, for at most so long. Gives the connection and the time that the handshake
/// took.
pub(super) async fn connect(
    address: SocketAddr,
    options: Options,
    within: Duration,
) -> Result<(TcpStream, Duration), ConnectError> {
    let start = Instant::now();
    let failed = |kind, cause, icmp| ConnectError {
        kind,
        cause,
        icmp,
        took: start.elapsed(),
    };
    let begun = begin(address, options);
    let stream =
        begun.map_err(|error| failed(kind(&error, address), Cause::Os((&error).into()), None))?;
    match timeout(within, handshake(&stream)).await {
        Ok(Ok(())) => {
            let took = start.elapsed();
            // On a connection that stands it would make an error of what TCP gets over.
            icmp::queue(&stream, address, false);
            Ok((stream, took))
        }
        Ok(Err(error)) => {
            let cause = Cause::Os((&error).into());
            Err(failed(kind(&error, address), cause, icmp::last(&stream)))
        }
        Err(_) => Err(failed(
            FailureKind::ConnectTimeout,
            Cause::Timeout,
            icmp::last(&stream),
        )),
    }
}

/// Sends the SYN, on a socket of our own, because `TcpStream::connect` closes one that fails, and with it what
/// the kernel knows of the failure.
fn begin(address: SocketAddr, options: Options) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // A request is one packet, and it is not to wait for another.
    socket.set_tcp_nodelay(true)?;
    if let Some(mss) = options.mss {
        socket.set_tcp_mss(mss)?;
    }
    match (options.hops, address) {
        (Some(hops), SocketAddr::V4(_)) => socket.set_ttl_v4(hops.into())?,
        (Some(hops), SocketAddr::V6(_)) => socket.set_unicast_hops_v6(hops.into())?,
        (None, _) => {}
    }
    if let Some(source) = options.source
        && source.is_ipv4() == address.is_ipv4()
    {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    // Where the kernel does not queue these, nothing is told of them.
    icmp::queue(&socket, address, true);
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    TcpStream::from_std(socket.into())
}

/// Waits for the end of the handshake.
async fn handshake(stream: &TcpStream) -> io::Result<()> {
    let outcome = || match stream.take_error()? {
        Some(error) => Err(error),
        // Woken although the handshake has not ended.
        None => match stream.peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            connected => connected.map(drop),
        },
    };
    stream.async_io(Interest::WRITABLE, outcome).await
}

/// What an error of connect(2), or one that the kernel reports of a handshake, means.
fn kind(error: &io::Error, address: SocketAddr) -> FailureKind {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => FailureKind::ConnectRefused,
        Some(libc::ETIMEDOUT) => FailureKind::ConnectTimeout,
        // The handshake had ended, and the peer hung up before this side heard of it.
        Some(libc::ECONNRESET | libc::ECONNABORTED | libc::EPIPE) => FailureKind::Reset,
        // All ports to this destination are taken; or this pod has no address of that family.
        Some(libc::EADDRNOTAVAIL) if has_source_for(address) => FailureKind::Local,
        // EPERM and EACCES are how a policy on this side of the network shows; EPROTO, ENOPROTOOPT,
        // EOPNOTSUPP and EHOSTDOWN are how Linux reports the rarer of ICMP's rejections.
        Some(
            libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::EPERM
            | libc::EACCES
            | libc::EADDRNOTAVAIL
            | libc::EINVAL
            | libc::EAFNOSUPPORT
            | libc::EPROTONOSUPPORT
            | libc::ENOPROTOOPT
            | libc::EPROTO
            | libc::EOPNOTSUPP,
        ) => FailureKind::ConnectUnreachable,
        #[cfg(target_os = "linux")]
        Some(libc::ENONET) => FailureKind::ConnectUnreachable,
        _ => FailureKind::Local,
    }
}

/// Whether this pod has an address from which it could call this one. Connecting a UDP socket chooses
/// the source address, and sends nothing.
fn has_source_for(address: SocketAddr) -> bool {
    let any = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0));
    socket.is_ok_and(|socket| socket.connect(address).is_ok())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{FailureKind, kind};

    #[test]
    fn every_errno_of_connect_is_named_by_what_it_means() {
        use FailureKind::*;
        for (errno, expected) in [
            (libc::ECONNREFUSED, ConnectRefused),
            (libc::ETIMEDOUT, ConnectTimeout),
            (libc::ECONNRESET, Reset),
            (libc::ECONNABORTED, Reset),
            (libc::EHOSTUNREACH, ConnectUnreachable),
            (libc::ENETUNREACH, ConnectUnreachable),
            (libc::EPERM, ConnectUnreachable),
            (libc::EINVAL, ConnectUnreachable),
            (libc::EAFNOSUPPORT, ConnectUnreachable),
            (libc::ENOPROTOOPT, ConnectUnreachable),
            (libc::EMFILE, Local),
            (libc::ENFILE, Local),
            (libc::ENOBUFS, Local),
            (libc::ENOMEM, Local),
            (libc::EAGAIN, Local),
            // Loopback has a source address, so that only its ports can be lacking.
            (libc::EADDRNOTAVAIL, Local),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let loopback = ([127, 0, 0, 1], 80).into();
            assert_eq!(kind(&error, loopback), expected, "{error}");
        }
    }
}
