//! A backend that misbehaves as it is told to.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// Between two bytes of a slow answer.
const SLOW: Duration = Duration::from_millis(20);

/// A slow answer ends after this many bytes, if nobody has hung up before.
const SLOW_BYTES: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Healthy,
    ClosesWithoutReading,
    ResetsBeforeTheHead,
    ResetsInTheHead,
    ResetsInTheBody,
    ClosesBeforeTheHead,
    ClosesInTheHead,
    ClosesInTheBody,
    ClosesInAChunk,
    BadChunk,
    Garbage,
    AnotherVersion,
    TlsAlert,
    HugeHead,
    Silent,
    AByteAtATimeOfTheHead,
    AByteAtATimeOfTheBody,
    EndlessBody,
    ServiceUnavailable,
    NotFound,
    Redirect,
}

/// A server on TCP, for as long as the test runs.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    mode: Arc<Mutex<Mode>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    pub(crate) fn start_at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let mode = Arc::new(Mutex::new(Mode::Healthy));
        let current = Arc::clone(&mode);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let mode = *current.lock().expect("no server panics");
                thread::spawn(move || serve(stream, mode));
            }
        });
        Self { addr, mode }
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().expect("no server panics") = mode;
    }
}

fn serve(mut stream: TcpStream, mode: Mode) {
    if mode == Mode::ClosesWithoutReading {
        // Once the request is here, so that closing is sure to reset.
        let _ = stream.peek(&mut [0; 1]);
        return;
    }
    let _ = stream.read(&mut [0; 4096]);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    // The client may hang up at any point of what follows.
    let mut send = |text: &str| stream.write_all(text.as_bytes()).is_ok();
    match mode {
        Mode::Healthy => {
            send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
        }
        Mode::ClosesWithoutReading | Mode::ClosesBeforeTheHead => {}
        Mode::ResetsBeforeTheHead => reset(&stream),
        Mode::ResetsInTheHead => {
            send(&head[..20]);
            reset(&stream);
        }
        Mode::ResetsInTheBody => {
            send(head);
            send("Hello");
            // A reset overtakes what has not been read, and the head is to be read.
            thread::sleep(SLOW * 5);
            reset(&stream);
        }
        Mode::ClosesInTheHead => {
            send(&head[..20]);
        }
        Mode::ClosesInTheBody => {
            send(&format!("{head}Hello"));
        }
        Mode::ClosesInAChunk => {
            send(&format!("{chunked}a\r\nHello"));
        }
        Mode::BadChunk => {
            send(&format!("{chunked}no number\r\nHello"));
        }
        Mode::Garbage => {
            send("220 mail.example ESMTP ready\r\n");
        }
        Mode::AnotherVersion => {
            send("HTTP/9.9 200 OK\r\n\r\n");
        }
        Mode::TlsAlert => {
            // What a TLS server says to plain text: a fatal alert, unexpected_message.
            send("\x15\x03\x01\x00\x02\x02\x0a");
        }
        Mode::HugeHead => {
            send("HTTP/1.1 200 OK\r\n");
            while send(&format!("X-Filler: {}\r\n", "x".repeat(4000))) {}
        }
        Mode::Silent => {
            // Until the client has had enough.
            let _ = stream.read(&mut [0; 1]);
        }
        Mode::AByteAtATimeOfTheHead => {
            send("HTTP/1.1 200 OK\r\nX-Slow: ");
            trickle(&mut stream);
        }
        Mode::AByteAtATimeOfTheBody => {
            send("HTTP/1.1 200 OK\r\n\r\n");
            trickle(&mut stream);
        }
        Mode::EndlessBody => {
            send("HTTP/1.1 200 OK\r\n\r\n");
            while send(&"x".repeat(4096)) {}
        }
        Mode::ServiceUnavailable => {
            send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nbusy\n");
        }
        Mode::NotFound => {
            send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
        Mode::Redirect => {
            send("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
        }
    }
}

/// Makes closing the connection a reset.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn trickle(stream: &mut TcpStream) {
    for _ in 0..SLOW_BYTES {
        if stream.write_all(b"x").is_err() {
            return;
        }
        thread::sleep(SLOW);
    }
}
