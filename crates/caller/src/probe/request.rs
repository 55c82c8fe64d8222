//! The request: its headers, and its target as each version of HTTP has it.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Version};
use http_body_util::Empty;

use super::config::HttpConfig;
use crate::target::{self, Target};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("caller/", env!("CARGO_PKG_VERSION")));
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const WANT_LISTEN_OVERFLOWS: HeaderName = HeaderName::from_static("x-want-listen-overflows");
const PADDING: HeaderName = HeaderName::from_static("x-padding");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// What tells one request from another to the same target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// Sent as `X-Request-Id`. Our own server sends it back.
    pub(super) request_id: &'a str,
    /// Bytes that make the request larger, and not its answer.
    pub(super) padding: usize,
    /// Ask our own server what it knows of its own side.
    pub(super) wants_facts: bool,
}

impl<'a> Ask<'a> {
    /// A request as small as it can be.
    pub(super) fn usual(request_id: &'a str) -> Self {
        Self {
            request_id,
            padding: 0,
            wants_facts: false,
        }
    }
}

/// A request without a body.
pub(super) fn request(
    config: &HttpConfig,
    target: &Target,
    ask: Ask<'_>,
    version: Version,
) -> Request<Empty<Bytes>> {
    let Ask {
        request_id,
        padding,
        wants_facts,
    } = ask;
    let mut headers = HeaderMap::new();
    // HTTP/2 has the authority in the URI.
    if version == Version::HTTP_11 {
        headers.insert(HOST, target.authority.clone());
    }
    headers.insert(USER_AGENT, AGENT);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    // <https://www.w3.org/TR/trace-context/>: version, trace, parent, sampled.
    let (trace, parent) = (
        rand::random::<u128>().max(1),
        &request_id[..request_id.len().min(16)],
    );
    let trace = format!("00-{trace:032x}-{parent}-01");
    if let Ok(trace) = HeaderValue::try_from(trace) {
        headers.insert(TRACE_PARENT, trace);
    }
    if wants_facts {
        headers.insert(WANT_LISTEN_OVERFLOWS, HeaderValue::from_static("1"));
    }
    if padding > 0
        && let Ok(value) = HeaderValue::try_from("0".repeat(padding))
    {
        headers.insert(PADDING, value);
    }
    for name in config.headers.keys() {
        headers.remove(name);
    }
    headers.extend(config.headers.clone());
    if let Ok(request_id) = HeaderValue::try_from(request_id) {
        headers.append(REQUEST_ID, request_id);
    }
    let mut request = Request::new(Empty::new());
    *request.method_mut() = config.method.clone();
    *request.uri_mut() = uri(target, version);
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    request
}

fn uri(target: &Target, version: Version) -> Uri {
    let path: PathAndQuery = target.path.clone();
    let authority = Authority::try_from(target.authority.as_bytes());
    match (version, authority) {
        (Version::HTTP_2, Ok(authority)) => {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(match target.scheme {
                target::Scheme::Https => Scheme::HTTPS,
                target::Scheme::Http | target::Scheme::Tcp => Scheme::HTTP,
            });
            parts.authority = Some(authority);
            parts.path_and_query = Some(path);
            Uri::from_parts(parts).unwrap_or_default()
        }
        _ => Uri::from(path),
    }
}
