//! Errors of sockets as evidence: which kind of failure an error is, whether the pod lacks a route, and the ICMP message
//! that caused it.

pub(crate) mod icmp;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::failure::FailureKind;

/// The kind of failure for an error of connect(2), or for one that the kernel reports about the handshake.
pub(crate) fn kind(error: &io::Error, address: SocketAddr) -> FailureKind {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => FailureKind::ConnectRefused,
        Some(libc::ETIMEDOUT) => FailureKind::ConnectTimeout,
        // The handshake had succeeded, but the peer closed the connection before this side noticed.
        Some(libc::ECONNRESET | libc::ECONNABORTED | libc::EPIPE) => FailureKind::Reset,
        // If this pod has an address of that family, all local ports for this destination are in use.
        Some(libc::EADDRNOTAVAIL) if has_source_for(address) => FailureKind::Local,
        // EPERM and EACCES result from a network policy on this side. Linux reports the less common ICMP
        // rejections as EPROTO, ENOPROTOOPT, EOPNOTSUPP and EHOSTDOWN.
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

/// Whether connect(2) failed with this error because this pod has no source address or no route for the destination.
/// A policy that rejects packets at once may cause ENETUNREACH as well, but then there is a route.
pub(crate) fn lacks_route(error: &io::Error, address: SocketAddr) -> bool {
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EAFNOSUPPORT) => true,
        Some(libc::EADDRNOTAVAIL | libc::ENETUNREACH) => !has_source_for(address),
        _ => false,
    }
}

/// Whether this pod has a route and a source address for this destination. Connecting a UDP socket selects both, but
/// sends nothing.
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
    fn each_errno_of_connect_has_its_kind_of_failure() {
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
            // Loopback always has a source address, so that the ports are what is exhausted.
            (libc::EADDRNOTAVAIL, Local),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let loopback = ([127, 0, 0, 1], 80).into();
            assert_eq!(kind(&error, loopback), expected, "{error}");
        }
    }
}
