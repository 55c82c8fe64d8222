//! HTTP/1 byte by byte, so that a test sees exactly what is sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::TIMEOUT;

/// A connection to a server. Reads fail after [`TIMEOUT`].
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

/// A response to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The first line, such as `HTTP/1.1 200 OK`.
    pub status_line: String,
    /// Names, in lower case, and values, in the order of the response.
    pub headers: Vec<(String, String)>,
    /// The body: as long as `Content-Length` says, or up to the end of the connection.
    pub body: String,
}

impl Reply {
    /// The status code, such as 200.
    pub fn status(&self) -> u16 {
        let code = self.status_line.split(' ').nth(1).unwrap_or_default();
        code.parse().expect("a status line has a code")
    }

    /// The value of the first header with this name, which has to be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(key, value)| (key == name).then_some(value.as_str()))
    }
}

impl Connection {
    /// Connects to a server.
    pub fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap_or_else(|error| panic!("{addr}: {error}"));
        stream
            .set_read_timeout(Some(TIMEOUT))
            .expect("it is not zero");
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// The address of this end of the connection.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().expect("it is connected")
    }

    /// Sends bytes as they are. Errors are ignored, because the server may have closed the connection already.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.get_mut().write_all(bytes.as_ref());
    }

    /// Shuts down the sending side. The response can still be read.
    pub fn end(&mut self) {
        let ended = self.stream.get_mut().shutdown(Shutdown::Write);
        ended.expect("it is connected");
    }

    /// Reads the response to a request whose method is not HEAD.
    pub fn reply(&mut self) -> Reply {
        let mut reply = self.reply_to_head();
        let mut body = Vec::new();
        let no_content = matches!(reply.status(), 204 | 304);
        match reply.header("content-length") {
            _ if no_content => {}
            Some(length) => {
                body.resize(length.parse().expect("a length"), 0);
                self.stream.read_exact(&mut body).expect("the whole body");
            }
            None => {
                self.stream.read_to_end(&mut body).expect("the whole body");
            }
        }
        reply.body = String::from_utf8(body).expect("text");
        reply
    }

    /// Reads the response to a HEAD request, which has no body whatever its headers say.
    pub fn reply_to_head(&mut self) -> Reply {
        let mut line = || {
            let line = self.line();
            line.strip_suffix('\r').expect("CR LF").to_owned()
        };
        let status_line = line();
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(':') else {
                assert_eq!(line, "", "neither a header nor the end");
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Reply {
            status_line,
            headers,
            body: String::new(),
        }
    }

    /// Reads a line, and returns it without its newline.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        assert_eq!(line.pop(), Some('\n'), "cut short: {line:?}");
        line
    }

    /// Waits until the server closes the connection. Returns whether the server has sent nothing before that.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Sends a request on a new connection, and reads the response.
pub fn exchange(addr: SocketAddr, request: impl AsRef<[u8]>) -> Reply {
    let mut connection = Connection::open(addr);
    connection.send(request);
    connection.reply()
}

/// Sends a GET request for this path on a new connection, and reads the response.
pub fn get(addr: SocketAddr, path: &str) -> Reply {
    exchange(
        addr,
        format!("GET {path} HTTP/1.1\r\nHost: backend:8080\r\n\r\n"),
    )
}

/// The value of a metric at an admin port; `None` if there is no such metric. `name` is its name with its labels, as
/// they are in the text format. The label `target`, which is the first one, may be left out if there is one target.
pub fn metric(admin: SocketAddr, name: &str) -> Option<f64> {
    let text = get(admin, "/metrics").body;
    let value = text.lines().find_map(|line| {
        let (metric, value) = line.rsplit_once(' ')?;
        (metric == name || without_target(metric) == name).then_some(value)
    });
    value.map(|value| value.parse().expect("a number"))
}

/// The name of a metric without its label `target`.
fn without_target(metric: &str) -> String {
    let Some((name, labels)) = metric.split_once("{target=\"") else {
        return metric.to_owned();
    };
    match labels.split_once("\",") {
        Some((_, others)) => format!("{name}{{{others}"),
        None => name.to_owned(),
    }
}
