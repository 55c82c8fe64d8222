//! A name server whose responses a function makes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use super::wire::Asked;

/// Makes the response to a query: the messages to send, one after another. The second argument is true over TCP.
pub(crate) type Script = dyn Fn(&Asked, bool) -> Vec<Vec<u8>> + Send + Sync;

/// Starts a server on UDP and TCP, which runs until the process ends.
pub(crate) fn server(
    script: impl Fn(&Asked, bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> SocketAddr {
    // A port that is free for UDP may be taken for TCP.
    let bind = |_| {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
        Some((udp, tcp))
    };
    let (udp, tcp) = (0..20).find_map(bind).expect("a free port");
    let addr = udp.local_addr().expect("it is bound");
    let script: Arc<Script> = Arc::new(script);
    let over_tcp = Arc::clone(&script);
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        loop {
            let (len, client) = udp.recv_from(&mut buffer).expect("a packet");
            for message in script(&Asked::read(&buffer[..len]), false) {
                // The client may have closed its socket.
                let _ = udp.send_to(&message, client);
            }
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let (mut stream, script) = (stream.expect("a connection"), Arc::clone(&over_tcp));
            thread::spawn(move || {
                let mut len = [0; 2];
                while stream.read_exact(&mut len).is_ok() {
                    let mut query = vec![0; u16::from_be_bytes(len).into()];
                    stream.read_exact(&mut query).expect("a whole query");
                    for message in script(&Asked::read(&query), true) {
                        let len = u16::try_from(message.len()).expect("it fits");
                        let _ = stream.write_all(&[&len.to_be_bytes()[..], &message].concat());
                    }
                }
            });
        }
    });
    addr
}

/// A command that runs a caller with this resolv.conf and this name server.
pub(crate) fn caller(server: SocketAddr, resolv_conf: &std::path::Path) -> Command {
    let mut command = Command::new(crate::CALLER);
    command
        .env("CALLER_ADMIN_LISTEN", "off")
        .env("CALLER_HOSTS", "/dev/null")
        .env("CALLER_RESOLV_CONF", resolv_conf)
        .env("CALLER_NAMESERVER", server.to_string());
    command
}

/// A temporary file with this text.
pub(crate) fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("it can be written");
    file
}
