//! ICMP messages about a connection attempt or a datagram, from the socket's error queue (ip(7), `IP_RECVERR`). Only Linux
//! has one, and only newer kernels fill it for TCP; elsewhere no message is reported.

#[cfg(target_os = "linux")]
pub(crate) use self::linux::{received_message, set_error_queue};

#[cfg(not(target_os = "linux"))]
pub(crate) use self::elsewhere::{received_message, set_error_queue};

#[cfg(target_os = "linux")]
mod linux {
    use std::io::IoSliceMut;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::os::fd::{AsFd, AsRawFd};

    use nix::sys::socket::{
        ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
    };

    use crate::failure::Icmp;

    /// Enables or disables the error queue of a socket. If the kernel does not support it, no message is reported.
    pub(crate) fn set_error_queue(socket: &impl AsFd, address: SocketAddr, on: bool) {
        let _ = match address {
            SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &on),
            SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &on),
        };
    }

    /// The ICMP message in the error queue of a socket, if there is one.
    pub(crate) fn received_message(socket: &impl AsRawFd) -> Option<Icmp> {
        let mut packet = [0; 128];
        let mut packet = [IoSliceMut::new(&mut packet)];
        let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let socket = socket.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(socket, &mut packet, Some(&mut space), flags);
        message.ok()?.cmsgs().ok()?.find_map(|part| {
            let (error, from): (_, IpAddr) = match part {
                ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => {
                    let from = Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr));
                    (error, from.into())
                }
                ControlMessageOwned::Ipv6RecvErr(error, Some(from)) => {
                    (error, Ipv6Addr::from(from.sin6_addr.s6_addr).into())
                }
                _ => return None,
            };
            let is_icmp = matches!(
                error.ee_origin,
                libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6
            );
            is_icmp.then_some(Icmp {
                r#type: error.ee_type,
                code: error.ee_code,
                from,
            })
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::net::SocketAddr;

    use crate::failure::Icmp;

    pub(crate) fn set_error_queue<S>(_: &S, _: SocketAddr, _: bool) {}

    pub(crate) fn received_message<S>(_: &S) -> Option<Icmp> {
        None
    }
}
