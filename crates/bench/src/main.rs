//! The smallest HTTP server on epoll, with which `cargo bench` compares `echo-server`: it reads to the end of a
//! request, and writes a fixed response. It parses, logs and limits nothing, so it is a lower bound and not a usable
//! server.
//!
//! `epoll-loop ADDRESS`. The benchmarks themselves are in `benches/peers`.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nx-app-name: epoll-loop\r\nx-app-version: 0.1.0\r\n\
content-type: text/plain; charset=utf-8\r\ncontent-length: 28\r\n\
date: Wed, 10 Dec 2025 16:20:00 GMT\r\n\r\nHello from Backend Service!\n";

const CLOSE: &[u8] = b"\r\nConnection: close\r\n";

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_default();
    let address: SocketAddr = address.parse().expect("the one argument is an address");
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: HashMap<Token, TcpStream> = HashMap::new();
    let mut next = 0;
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let token = Token(next);
                    next += 1;
                    poll.registry()
                        .register(&mut stream, token, Interest::READABLE)?;
                    connections.insert(token, stream);
                }
            } else if let Some(stream) = connections.get_mut(&event.token())
                && !serve(stream)
            {
                connections.remove(&event.token());
            }
        }
    }
}

/// Responds to the requests that have arrived. Returns whether the connection stays open.
fn serve(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            // The load generators send a request in one piece.
            Ok(n) if buffer[..n].ends_with(b"\r\n\r\n") => {
                if stream.write_all(RESPONSE).is_err() || contains(&buffer[..n], CLOSE) {
                    return false;
                }
            }
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
