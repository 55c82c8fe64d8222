//! The listening TCP sockets of this pod, from `/proc/self/net/tcp` and `tcp6` (proc_pid_net(5)), which any
//! process may read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a listening socket in these tables (`TCP_LISTEN` in Linux's include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// The local addresses of all listening sockets in this network namespace, sorted by port.
///
/// # Errors
///
/// When the table cannot be read, for example on a system other than Linux.
pub(crate) fn sockets() -> io::Result<Vec<SocketAddr>> {
    let v4 = std::fs::read_to_string("/proc/self/net/tcp")?;
    // A system without IPv6 has no such table.
    let v6 = std::fs::read_to_string("/proc/self/net/tcp6").unwrap_or_default();
    let mut sockets: Vec<SocketAddr> = v4.lines().chain(v6.lines()).filter_map(listening).collect();
    sockets.sort_by_key(|address| (address.port(), address.ip()));
    sockets.dedup();
    Ok(sockets)
}

/// The local address in a line such as `0: 0100007F:1F90 00000000:0000 0A ...`, if the socket is listening.
fn listening(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_whitespace();
    let (local, state) = (fields.nth(1)?, fields.nth(1)?);
    if state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // The address is written as words of 32 bits, each in the byte order of the machine.
    let mut bytes = Vec::new();
    for word in address.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip: IpAddr = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::sockets;

    #[test]
    fn a_listening_socket_is_found_and_a_closed_one_is_not() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                // There is no IPv6 on this machine.
                continue;
            };
            let local = listener.local_addr().expect("it is bound");
            assert!(sockets().expect("Linux").contains(&local), "{local}");
            drop(listener);
            assert!(!sockets().expect("Linux").contains(&local), "{local}");
        }
    }
}
