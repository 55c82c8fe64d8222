//! Makes the TCP connection to one address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::failure::{Cause, FailureKind, Icmp};
use crate::socket_error::{self, icmp};

/// Socket options of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// Maximum segment size in both directions, in bytes; `None` leaves it to the kernel.
    pub(super) mss: Option<u32>,
    /// Time to live of packets, in hops; `None` leaves it to the kernel.
    pub(super) hops: Option<u8>,
    /// Source address; `None` leaves it to the kernel.
    pub(super) source: Option<IpAddr>,
}

/// A failed attempt to connect, and how long it took.
#[derive(Debug)]
pub(super) struct ConnectError {
    pub(super) kind: FailureKind,
    pub(super) cause: Cause,
    pub(super) icmp: Option<Icmp>,
    /// Whether this pod has no source address or no route for the address, so that no packet was sent.
    pub(super) lacks_route: bool,
    pub(super) took: Duration,
}

/// Connects to `address`. Returns the connection and the time that the handshake took.
///
/// # Errors
///
/// When the connection fails, or is not made within `within`. The error has the kind, the cause, the ICMP message
/// if one was received, and the time that the attempt took.
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
        lacks_route: false,
        took: start.elapsed(),
    };
    let stream = begin(address, options).map_err(|error| ConnectError {
        lacks_route: socket_error::lacks_route(&error, address),
        ..failed(
            socket_error::kind(&error, address),
            Cause::Os((&error).into()),
            None,
        )
    })?;
    match timeout(within, handshake(&stream)).await {
        Ok(Ok(())) => {
            let took = start.elapsed();
            // On an established connection, the error queue would turn ICMP messages into errors that TCP
            // recovers from by itself.
            icmp::set_error_queue(&stream, address, false);
            Ok((stream, took))
        }
        Ok(Err(error)) => {
            let cause = Cause::Os((&error).into());
            Err(failed(
                socket_error::kind(&error, address),
                cause,
                icmp::received_message(&stream),
            ))
        }
        Err(_) => Err(failed(
            FailureKind::ConnectTimeout,
            Cause::Timeout,
            icmp::received_message(&stream),
        )),
    }
}

/// Creates a socket and sends the SYN. `TcpStream::connect` would close a socket that fails, and lose what
/// the kernel knows about the failure.
fn begin(address: SocketAddr, options: Options) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // A request fits into one packet, which Nagle's algorithm should not delay.
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
    // If the kernel cannot queue ICMP messages, none are reported.
    icmp::set_error_queue(&socket, address, true);
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    TcpStream::from_std(socket.into())
}

/// Waits until the handshake succeeds or fails.
async fn handshake(stream: &TcpStream) -> io::Result<()> {
    let outcome = || match stream.take_error()? {
        Some(error) => Err(error),
        // A spurious wakeup: the handshake has not ended.
        None => match stream.peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            connected => connected.map(drop),
        },
    };
    stream.async_io(Interest::WRITABLE, outcome).await
}
