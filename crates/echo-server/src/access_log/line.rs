//! The lines of the access log. Every response has one, so the text format is written without `format!`, which takes
//! three times as long.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HOST, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{StatusCode, Version};
use runtime::escape::{Escaped, EscapedJson};
use runtime::server::Arrival;
use serde::Serialize;

use crate::append::{append_address, append_display, append_number};

/// Limit on the bytes of a path, a user agent and a request id, so that a client cannot make a line any longer.
const MAX_FIELD: usize = 1024;

/// What a line says about a request and its response.
pub(crate) struct Entry<'a> {
    pub(crate) head: &'a Parts,
    pub(crate) request_id: Option<&'a HeaderValue>,
    pub(crate) arrival: Arrival,
    pub(crate) status: StatusCode,
    pub(crate) bytes: usize,
}

/// Appends a line in the format of <https://github.com/hashicorp/http-echo>, with the parts that a client chooses
/// escaped.
pub(super) fn append_text(line: &mut Vec<u8>, entry: &Entry<'_>) {
    let head = entry.head;
    append_now(line);
    line.push(b' ');
    Escaped::quoted(host(head)).append_to(line);
    line.push(b' ');
    append_address(line, entry.arrival.peer);
    line.extend_from_slice(b" \"");
    line.extend_from_slice(head.method.as_str().as_bytes());
    line.push(b' ');
    Escaped::quoted(cut(head.uri.path().as_bytes())).append_to(line);
    line.push(b' ');
    line.extend_from_slice(protocol(head).as_bytes());
    line.extend_from_slice(b"\" ");
    append_number(line, entry.status.as_u16());
    line.push(b' ');
    append_number(line, entry.bytes);
    line.extend_from_slice(b" \"");
    Escaped::quoted(cut(header(head, USER_AGENT))).append_to(line);
    line.extend_from_slice(b"\" ");
    append_duration(line, entry.arrival.at.elapsed());
    line.push(b'\n');
}

/// Appends a duration as Go and Rust's `Debug` write it: `11.547µs`, `1.5ms`, `2s`.
fn append_duration(line: &mut Vec<u8>, duration: Duration) {
    let nanos = duration.subsec_nanos();
    let (unit, in_unit, digits) = match nanos {
        _ if duration.as_secs() > 0 => return append_display(line, format_args!("{duration:?}")),
        0..1_000 => ("ns", 1, 0),
        1_000..1_000_000 => ("µs", 1_000, 3),
        _ => ("ms", 1_000_000, 6),
    };
    append_number(line, nanos / in_unit);
    let mut fraction = nanos % in_unit;
    if fraction > 0 {
        line.push(b'.');
        let start = line.len();
        line.resize(start + digits, b'0');
        for digit in line[start..].iter_mut().rev() {
            *digit += (fraction % 10) as u8;
            fraction /= 10;
        }
        let end = line.iter().rposition(|&digit| digit != b'0');
        line.truncate(end.map_or(start, |last| last + 1));
    }
    line.extend_from_slice(unit.as_bytes());
}

#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    host: String,
    client: SocketAddr,
    method: &'a str,
    path: String,
    protocol: &'static str,
    status: u16,
    bytes: usize,
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    duration_us: f64,
}

/// Appends a line with a JSON object.
pub(super) fn append_json(line: &mut Vec<u8>, entry: &Entry<'_>) {
    let head = entry.head;
    let text = |bytes: &[u8]| String::from_utf8_lossy(cut(bytes)).into_owned();
    let json = serde_json::to_string(&JsonLine {
        time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        host: text(host(head)),
        client: entry.arrival.peer,
        method: head.method.as_str(),
        path: text(head.uri.path().as_bytes()),
        protocol: protocol(head),
        status: entry.status.as_u16(),
        bytes: entry.bytes,
        user_agent: text(header(head, USER_AGENT)),
        request_id: entry.request_id.map(|id| text(id.as_bytes())),
        duration_us: entry.arrival.at.elapsed().as_nanos() as f64 / 1e3,
    })
    .unwrap_or_default();
    append_display(line, format_args!("{}\n", EscapedJson(&json)));
}

/// The host of a request: HTTP/2 and absolute targets have it in the target, other requests in a header.
fn host(head: &Parts) -> &[u8] {
    match head.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => header(head, HOST),
    }
}

/// The value of a header, empty if it is missing.
fn header(head: &Parts, name: http::HeaderName) -> &[u8] {
    head.headers.get(name).map_or(b"", HeaderValue::as_bytes)
}

/// The part of a field that is logged: its first [`MAX_FIELD`] bytes.
fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(MAX_FIELD)]
}

fn protocol(head: &Parts) -> &'static str {
    match head.version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// Appends the time as Go's package `log` writes it, in UTC: `2026/11/22 12:22:53`.
fn append_now(line: &mut Vec<u8>) {
    thread_local! {
        /// The current second and its text, which most lines share.
        static NOW: Cell<(u64, [u8; 19])> = const { Cell::new((u64::MAX, [b' '; 19])) };
    }
    let now = SystemTime::now();
    let age = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (second, mut text) = NOW.get();
    if second != age.as_secs() {
        let rfc3339 = humantime::format_rfc3339_seconds(now).to_string();
        for (to, from) in text.iter_mut().zip(rfc3339.bytes()) {
            *to = match from {
                b'-' => b'/',
                b'T' => b' ',
                other => other,
            };
        }
        NOW.set((age.as_secs(), text));
    }
    line.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::append_duration;

    proptest! {
        #[test]
        fn a_duration_is_written_as_its_debug_format(nanos in 0_u64..3_000_000_000, scale in 0_u32..4) {
            let duration = Duration::from_nanos(nanos / 1000_u64.pow(scale));
            let mut line = Vec::new();
            append_duration(&mut line, duration);
            prop_assert_eq!(String::from_utf8_lossy(&line), format!("{duration:?}"));
        }
    }
}
