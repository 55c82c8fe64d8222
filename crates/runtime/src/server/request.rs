//! The head of a request: which heads are refused, and which parts are kept while the body is received.

use std::net::Ipv6Addr;

use http::header::{
    ACCEPT, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT,
};
use http::request::Parts;
use http::{Method, Request, StatusCode, Uri, Version};

/// Fields that are kept while a body is received. See [`super::Handler::answer`].
const KEPT: [HeaderName; 4] = [
    HOST,
    ACCEPT,
    USER_AGENT,
    HeaderName::from_static("x-request-id"),
];

/// Longest target, in bytes, that is kept as it is.
const MAX_TARGET: usize = 2048;

/// Bytes that are kept of the path of a longer target.
const CUT_PATH: usize = 1024;

/// Longest host and port, in bytes: a DNS name has at most 253.
const MAX_HOST: usize = 260;

/// Longest method, in bytes: the longest registered one has 17.
const MAX_METHOD: usize = 64;

/// Longest value of Accept and of User-Agent, in bytes, that is kept as it is. The access log shows no more.
const MAX_VALUE: usize = 1024;

/// Refuses heads that hyper accepts although RFC 9112 requires a server to refuse them, and methods that are so long
/// that they would take memory and lines of a log. The error is the response, whose text begins with its status.
pub(super) fn check(head: &Parts) -> Result<(), (StatusCode, &'static str)> {
    if head.method.as_str().len() > MAX_METHOD {
        // Section 3.
        return Err((
            StatusCode::NOT_IMPLEMENTED,
            "501 Not Implemented: the method is too long\n",
        ));
    }
    check_host_and_target(head).map_err(|reason| (StatusCode::BAD_REQUEST, reason))
}

fn check_host_and_target(head: &Parts) -> Result<(), &'static str> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => {}
        // Section 3.2. In HTTP/2 the target has the host.
        (None, None) if head.version != Version::HTTP_11 => {}
        _ => return Err("400 Bad Request: exactly one valid Host header is required\n"),
    }
    if !is_target(head) {
        return Err("400 Bad Request: the request target has a form that is not served\n");
    }
    Ok(())
}

/// Refuses transfer codings other than `chunked` alone (RFC 9112, section 6.1). Hyper has checked that the last
/// one is `chunked`.
pub(super) fn check_body(head: &Parts) -> Result<(), &'static str> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err("400 Bad Request: no transfer coding but chunked is understood\n"),
    }
}

/// Whether the target has one of the four forms of RFC 9112, section 3.2: a path; an absolute URL; an authority,
/// for CONNECT only; `*`, for OPTIONS only.
fn is_target(head: &Parts) -> bool {
    let Parts { method, uri, .. } = head;
    match (uri.scheme(), uri.authority()) {
        (None, Some(authority)) => {
            method == Method::CONNECT && is_host(authority.as_str().as_bytes())
        }
        (None, None) if uri.path() == "*" => method == Method::OPTIONS,
        (None, None) => uri.path().starts_with('/') && method != Method::CONNECT,
        (Some(_), Some(authority)) => {
            !authority.host().is_empty() && is_host(authority.as_str().as_bytes())
        }
        (Some(_), None) => false,
    }
}

/// Whether the text is `uri-host [ ":" port ]` (RFC 3986, section 3.2.2). An empty host is valid.
fn is_host(host: &[u8]) -> bool {
    if host.len() > MAX_HOST {
        return false;
    }
    if let Some(literal) = host.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|&byte| byte == b']') else {
            return false;
        };
        let ip = str::from_utf8(&literal[..end]).unwrap_or_default();
        return ip.parse::<Ipv6Addr>().is_ok() && is_port(&literal[end + 1..]);
    }
    let end = host.iter().position(|&byte| !NAME_BYTES[usize::from(byte)]);
    let (mut name, port) = host.split_at(end.unwrap_or(host.len()));
    while let Some(at) = name.iter().position(|&byte| byte == b'%') {
        let [_, a, b, rest @ ..] = &name[at..] else {
            return false;
        };
        if !a.is_ascii_hexdigit() || !b.is_ascii_hexdigit() {
            return false;
        }
        name = rest;
    }
    is_port(port)
}

/// The characters of a name: unreserved, sub-delims, and `%`. This is a table because every request has a host:
/// searching in a list, and for transfer codings in every head, took 3 % of the instructions of a request.
const NAME_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=%";
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether the text is empty, or a colon and digits.
fn is_port(port: &[u8]) -> bool {
    match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

/// Copies the parts of a head that are kept while its body is received or its response is not ready;
/// [`Handler::answer`](super::Handler::answer) says which. It is a copy because the parts of a head share one
/// buffer, and any of them keeps all of it in memory.
pub fn keep_head(head: &Parts) -> Parts {
    let (mut kept, ()) = Request::new(()).into_parts();
    kept.method = head.method.clone();
    kept.version = head.version;
    kept.uri = keep_target(&head.uri);
    kept.headers = HeaderMap::with_capacity(KEPT.len());
    for name in KEPT {
        let value = head.headers.get(&name).map(|value| cut(&name, value));
        if let Some(Ok(value)) = value.map(HeaderValue::from_bytes) {
            kept.headers.insert(name, value);
        }
    }
    kept
}

/// About how many bytes [`keep_head`] would copy.
pub(super) fn size_to_keep(head: &Parts) -> usize {
    let fields = KEPT.into_iter();
    let fields = fields.filter_map(|name| Some(cut(&name, head.headers.get(&name)?).len()));
    MAX_TARGET.min(head.uri.path().len()) + fields.sum::<usize>()
}

/// The part of a field's value that is kept: all of X-Request-Id, which goes back to the client, and of Host, which
/// is short.
fn cut<'a>(name: &HeaderName, value: &'a HeaderValue) -> &'a [u8] {
    let value = value.as_bytes();
    match *name == ACCEPT || *name == USER_AGENT {
        true => &value[..value.len().min(MAX_VALUE)],
        false => value,
    }
}

/// The target, cut to the beginning of its path where it is long.
fn keep_target(target: &Uri) -> Uri {
    let mut text = target.to_string();
    if text.len() > MAX_TARGET {
        let path = target.path();
        let mut end = path.len().min(CUT_PATH);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        text = path[..end].to_owned();
    }
    text.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("it can be written").into_parts().0
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in [
            "",
            "b",
            "b:8080",
            "b:",
            "b_1.demo.svc",
            "10.0.0.1:80",
            "[::1]",
            "[fe80::1]:80",
            "a%20b",
            "a,b",
        ] {
            assert!(is_host(host.as_bytes()), "{host:?}");
        }
        for host in [
            "a b",
            "a/b",
            "u@b",
            "b:port",
            "b:80:80",
            "a,b c",
            "[::1",
            "::1",
            "[b]",
            "[::1]x",
            "a%2",
            "a%zz",
            "b\t",
            "b#",
            "b?",
            "\u{e9}",
            "[fe80::1%25eth0]",
            "a\\b",
            "\"b\"",
        ] {
            assert!(!is_host(host.as_bytes()), "{host:?}");
        }
        assert!(!is_host(&[b'a'; MAX_HOST + 1]));
    }

    #[test]
    fn each_form_of_a_target_is_accepted_for_its_methods_only() {
        let host = &[("host", "b")];
        for (method, target) in [
            ("GET", "/"),
            ("OPTIONS", "*"),
            ("OPTIONS", "/"),
            ("GET", "http://b/x"),
            ("CONNECT", "b:80"),
        ] {
            assert_eq!(
                check(&head(method, target, host)),
                Ok(()),
                "{method} {target}"
            );
        }
        for (method, target) in [
            ("GET", "*"),
            ("GET", "b:80"),
            ("GET", "b"),
            ("CONNECT", "/"),
            ("GET", "http://u:p@b/"),
        ] {
            assert!(
                check(&head(method, target, host)).is_err(),
                "{method} {target}"
            );
        }
    }

    #[test]
    fn keep_head_keeps_four_fields_and_cuts_a_long_target() {
        let long = "x".repeat(5000);
        let fields = [("host", "b"), ("x-other", &long), ("user-agent", "t/1")];
        let kept = keep_head(&head("POST", &format!("/{long}?{long}"), &fields));
        assert_eq!(kept.headers.len(), 2);
        assert_eq!(kept.uri.path().len(), CUT_PATH);
        let kept = keep_head(&head("POST", "http://b/a?q=1", &fields));
        assert_eq!(kept.uri, "http://b/a?q=1");
    }

    #[test]
    fn keep_head_cuts_long_fields_but_for_the_request_id() {
        let long = "x".repeat(5000);
        let fields = ["accept", "user-agent", "x-request-id"].map(|name| (name, long.as_str()));
        let head = head("POST", "/", &fields);
        let kept = keep_head(&head);
        let lengths = fields.map(|(name, _)| kept.headers[name].len());
        assert_eq!(lengths, [MAX_VALUE, MAX_VALUE, 5000]);
        assert_eq!(size_to_keep(&head), 1 + 2 * MAX_VALUE + 5000);
    }

    #[test]
    fn a_long_method_is_refused() {
        let check = |length| check(&head(&"M".repeat(length), "/", &[("host", "b")]));
        assert_eq!(check(MAX_METHOD), Ok(()));
        let refused = check(MAX_METHOD + 1).expect_err("it is too long");
        assert_eq!(refused.0, StatusCode::NOT_IMPLEMENTED);
    }
}
