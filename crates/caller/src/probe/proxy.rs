//! Distinguishes a response that a proxy generated from a response of the backend.
//!
//! A proxy that cannot reach its backend, or is not allowed to, responds in the backend's place, with 502,
//! 503, 504 or 403. It is recognized by the header fields or the body of the response. An error status that
//! the backend itself sent through a proxy is not a proxy's error.

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue, SERVER, VIA};
use runtime::escape::Escaped;

use crate::report::Proxy;

/// Header fields that a proxy sets only on the responses that it generates, and the proxy's name.
const PROXY_FIELDS: [(&str, &str); 6] = [
    // Set on errors that the proxy generated: <https://linkerd.io/2/reference/proxy-metrics/>.
    ("l5d-proxy-error", "Linkerd"),
    ("l5d-proxy-connection", "Linkerd"),
    ("x-envoy-overloaded", "Envoy"),
    ("x-envoy-local-overloaded", "Envoy"),
    ("x-envoy-immediate-health-check-fail", "Envoy"),
    ("x-squid-error", "Squid"),
];

/// Beginnings of the `Server` header field in lower case, and the proxy's name.
const SERVERS: [(&str, &str); 16] = [
    ("envoy", "Envoy"),
    ("istio-envoy", "Istio's Envoy"),
    ("nginx", "nginx"),
    ("openresty", "nginx"),
    ("awselb/", "an AWS load balancer"),
    ("haproxy", "HAProxy"),
    ("traefik", "Traefik"),
    ("kong/", "Kong"),
    ("caddy", "Caddy"),
    ("varnish", "Varnish"),
    ("cloudflare", "Cloudflare"),
    ("microsoft-azure-application-gateway", "an Azure gateway"),
    ("google frontend", "a Google load balancer"),
    ("apache", "Apache"),
    ("squid", "Squid"),
    ("linkerd", "Linkerd"),
];

/// Beginnings of the bodies of responses that proxies generate, and the proxy's name. The same words further on in a
/// body may be those of a backend, about a call of its own.
const BODY_STARTS: [(&str, &str); 11] = [
    (
        "upstream connect error or disconnect/reset before headers",
        "Envoy",
    ),
    ("no healthy upstream", "Envoy"),
    ("upstream request timeout", "Envoy"),
    ("RBAC: access denied", "Envoy"),
    ("local_rate_limited", "Envoy"),
    ("envoy overloaded", "Envoy"),
    ("no available server", "Traefik"),
    ("default backend - 404", "an ingress controller"),
    ("error trying to reach service", "the API server's proxy"),
    (
        "no endpoints available for service",
        "the API server's proxy",
    ),
    ("response 404 (backend NotFound)", "a Google load balancer"),
];

/// What precedes the message in an error of the API server.
const API_STATUS: &str =
    r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":""#;

/// Phrases in pages and JSON that proxies generate, and the proxy's name.
const BODY_PARTS: [(&str, &str); 7] = [
    ("No server is available to handle this request", "HAProxy"),
    ("failure to get a peer from the ring-balancer", "Kong"),
    (
        "An invalid response was received from the upstream server",
        "Kong",
    ),
    ("Backend fetch failed", "Varnish"),
    ("Application is not available", "OpenShift's router"),
    ("no Route matched with those values", "Kong"),
    ("<h1>Error: Server Error</h1>", "a Google load balancer"),
];

/// The end of nginx's own error pages. Behind an ingress, it is often the only sign of nginx.
const NGINX_PAGE: &str = "<hr><center>nginx";

/// Envoy sets this field on responses of its upstream, and not on those that it generates.
const ENVOY_UPSTREAM_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// AWS gateways set this field on errors that they generate, and AWS services on all of theirs.
const AWS_ERROR: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// echo-server sets this field: a response that has it is from the backend.
const APP_NAME: HeaderName = HeaderName::from_static("x-app-name");

/// Maximum number of bytes of a header field to show.
const MAX_SHOWN: usize = 128;

/// The proxy that generated this response; `None` if the backend did.
pub(super) fn author(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Proxy> {
    if headers.contains_key(APP_NAME) || status.is_success() || status.is_redirection() {
        return None;
    }
    let by_field = PROXY_FIELDS
        .iter()
        .find(|(field, _)| headers.contains_key(*field))
        .map(|(_, name)| *name);
    let by_body = by_body(body);
    let named = by_field.or_else(|| by_status(status, headers, body, by_body))?;
    Some(Proxy {
        name: named,
        headers: evidence(headers),
        may_pass_on: by_field.or(by_body).is_none(),
    })
}

fn by_body(body: &[u8]) -> Option<&'static str> {
    let body = String::from_utf8_lossy(body);
    let text = body.trim_start();
    let text = text.strip_prefix(API_STATUS).unwrap_or(text);
    let by_start = BODY_STARTS
        .iter()
        .find(|(words, _)| text.starts_with(words));
    let by_part = || BODY_PARTS.iter().find(|(words, _)| body.contains(words));
    by_start.or_else(by_part).map(|(_, name)| *name)
}

fn by_status(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    by_body: Option<&'static str>,
) -> Option<&'static str> {
    // This response was sent to the Envoy that names itself as `Server`. A second one, in the backend's pod, may have
    // generated it: only the body tells.
    let is_of_upstream = headers.contains_key(ENVOY_UPSTREAM_TIME);
    let server = headers.get(SERVER).map_or(&b""[..], HeaderValue::as_bytes);
    let server = String::from_utf8_lossy(server).to_ascii_lowercase();
    let by_server = SERVERS.iter().find(|(start, _)| server.starts_with(start));
    let by_server = by_server.filter(|_| !is_of_upstream);
    let of_aws = headers.contains_key(AWS_ERROR).then_some("an AWS gateway");
    let by_server = of_aws.or(by_server.map(|(_, name)| *name));
    match status.as_u16() {
        // Only a gateway sends 502 and 504 (RFC 9110, sections 15.6.3 and 15.6.5), and 520 to 527 are
        // Cloudflare's own.
        502 | 504 | 520..=527 => by_server
            .or(by_body)
            .or((!is_of_upstream).then_some("a gateway")),
        503 => by_server.or(by_body).or_else(|| {
            let is_page = String::from_utf8_lossy(body).contains(NGINX_PAGE);
            (is_page && !headers.contains_key(SERVER)).then_some("nginx")
        }),
        // Only a proxy sends 407 (RFC 9110, section 15.5.8) and 511 (RFC 6585, section 6).
        407 | 511 => by_server.or(by_body).or(Some("a proxy")),
        // nginx, Apache and Caddy may be the web server itself, which denies access to its own files.
        403 if matches!(by_server, Some("nginx" | "Apache" | "Caddy")) => by_body,
        403 => by_server.or(by_body),
        // Envoy responds with an empty 404 if it has no route for a request.
        404 if body.is_empty() && by_server.is_some_and(|name| name.ends_with("Envoy")) => {
            by_server
        }
        429 => of_aws.or(by_body),
        404 | 408 | 426 => by_body,
        _ => None,
    }
}

/// The header fields that show who responded and why, as evidence.
fn evidence(headers: &HeaderMap) -> Vec<String> {
    let is_evidence = |name: &HeaderName| {
        let name_str = name.as_str();
        *name == SERVER
            || *name == VIA
            || *name == AWS_ERROR
            || name_str.starts_with("x-envoy-")
            || PROXY_FIELDS.iter().any(|(field, _)| *field == name_str)
    };
    headers
        .iter()
        .filter(|(name, _)| is_evidence(name))
        .take(4)
        .map(|(name, value)| {
            let value = &value.as_bytes()[..value.len().min(MAX_SHOWN)];
            format!("{name}: {}", Escaped::new(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::header::{HeaderMap, HeaderName, HeaderValue};

    use super::author;

    /// The fields that Envoy adds to a response of its upstream.
    const BEHIND_ENVOY: &[(&str, &str)] = &[
        ("server", "istio-envoy"),
        ("x-envoy-upstream-service-time", "57"),
    ];

    fn named(
        status: u16,
        fields: &[(&'static str, &'static str)],
        body: &str,
    ) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let status = StatusCode::from_u16(status).expect("a status");
        author(status, &headers, body.as_bytes()).map(|proxy| proxy.name)
    }

    #[test]
    fn proxies_are_recognized_by_their_header_fields_and_bodies() {
        let connect = "upstream connect error or disconnect/reset before headers. reset reason: connection failure";
        for (status, fields, body, name) in [
            (503, &[("server", "envoy")][..], connect, "Envoy"),
            (503, &[], "no healthy upstream", "Envoy"),
            (
                504,
                &[("server", "istio-envoy")],
                "upstream request timeout",
                "Istio's Envoy",
            ),
            (
                403,
                &[("server", "istio-envoy")],
                "RBAC: access denied",
                "Istio's Envoy",
            ),
            (
                502,
                &[("l5d-proxy-error", "connect timed out")],
                "",
                "Linkerd",
            ),
            (
                403,
                &[("l5d-proxy-error", "client not authorized")],
                "",
                "Linkerd",
            ),
            (
                502,
                &[("server", "nginx/1.27.0")],
                "<center>nginx</center>",
                "nginx",
            ),
            (
                503,
                &[("server", "nginx")],
                "<h1>503 Service Temporarily Unavailable</h1>",
                "nginx",
            ),
            (504, &[("server", "awselb/2.0")], "", "an AWS load balancer"),
            (
                503,
                &[],
                "<h1>503</h1>\nNo server is available to handle this request.\n",
                "HAProxy",
            ),
            (502, &[], "Bad Gateway", "a gateway"),
            (404, &[("server", "istio-envoy")], "", "Istio's Envoy"),
            (503, BEHIND_ENVOY, connect, "Envoy"),
            (403, BEHIND_ENVOY, "RBAC: access denied", "Envoy"),
            (504, BEHIND_ENVOY, "upstream request timeout", "Envoy"),
            (429, &[("server", "envoy")], "local_rate_limited", "Envoy"),
            (503, BEHIND_ENVOY, "envoy overloaded", "Envoy"),
            (503, &[], "<hr><center>nginx</center>\r\n</body>", "nginx"),
            (
                404,
                &[("server", "kong/3.4.0")],
                r#"{"message":"no Route matched with those values"}"#,
                "Kong",
            ),
            (
                404,
                &[("via", "1.1 google")],
                "response 404 (backend NotFound), service rules for the path non-existent \n",
                "a Google load balancer",
            ),
            (
                503,
                &[("via", "1.1 google")],
                "<h1>Error: Server Error</h1>\n<h2>The service you requested is not available at this time.",
                "a Google load balancer",
            ),
            (503, &[], "\n no available server\n", "Traefik"),
            (
                503,
                &[],
                r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no endpoints available for service \"backend\"","reason":"ServiceUnavailable","code":503}"#,
                "the API server's proxy",
            ),
            (
                429,
                &[("x-amzn-errortype", "TooManyRequestsException")],
                "{}",
                "an AWS gateway",
            ),
            (
                403,
                &[("x-amzn-errortype", "MissingAuthenticationTokenException")],
                "{}",
                "an AWS gateway",
            ),
            (407, &[], "", "a proxy"),
            (407, &[("server", "squid/5.7")], "", "Squid"),
            (511, &[], "login", "a proxy"),
        ] {
            assert_eq!(
                named(status, fields, body),
                Some(name),
                "{status} {fields:?} {body}"
            );
        }
    }

    #[test]
    fn a_response_of_the_backend_through_a_proxy_is_not_a_proxy_error() {
        for (status, fields, body) in [
            (503, BEHIND_ENVOY, "busy"),
            (502, BEHIND_ENVOY, "busy"),
            (403, BEHIND_ENVOY, "Forbidden"),
            // nginx is the backend here: the Envoy before it says whose response it is.
            (503, BEHIND_ENVOY, "<hr><center>nginx</center>"),
            // Google's load balancer adds Via to every response.
            (503, &[("via", "1.1 google")], "busy"),
            (502, &[("x-app-name", "echo-server")][..], "injected fault"),
            (503, &[], "busy"),
            // These are errors of AWS services.
            (400, &[("x-amzn-errortype", "ValidationException")], "{}"),
            (500, &[("x-amzn-errortype", "InternalFailure")], "{}"),
            // These are the words of another proxy, which the backend passes on.
            (
                503,
                &[],
                r#"{"error":"call to payment failed: no healthy upstream"}"#,
            ),
            (
                502,
                BEHIND_ENVOY,
                r#"{"error":"payment: upstream connect error or disconnect/reset before headers"}"#,
            ),
            (404, &[], "see also: default backend - 404"),
            (500, &[("server", "nginx")], "oops"),
            (403, &[("server", "nginx")], "Forbidden"),
            (404, &[("server", "envoy")], "no such page"),
            (404, &[("server", "nginx")], ""),
            (200, &[("server", "envoy")], "no healthy upstream"),
        ] {
            assert_eq!(
                named(status, fields, body),
                None,
                "{status} {fields:?} {body}"
            );
        }
    }
}
