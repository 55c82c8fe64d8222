//! The wording of TLS: failed handshakes, and certificates.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use super::http::starts_as_http1;
use crate::clock;
use crate::failure::{Cause, Failure, FailureKind, TlsError};
use crate::report::{Certificate, Report, Tls};

/// Maximum number of a certificate's names to show.
const MAX_NAMES: usize = 8;

/// Displays the fields of a certificate: its names, its issuer and its validity.
#[derive(Debug)]
pub struct Facts<'a>(
    /// The certificate whose fields are displayed.
    pub &'a Certificate,
);

impl fmt::Display for Facts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Certificate {
            subject,
            names,
            issuer,
            is_self_signed,
            not_before,
            not_after,
        } = self.0;
        match names.as_slice() {
            [] => write!(f, "for no host name, subject {subject}")?,
            [shown @ .., _, _] if shown.len() >= MAX_NAMES => {
                let shown = &names[..MAX_NAMES];
                write!(
                    f,
                    "for {} and {} more",
                    shown.join(", "),
                    names.len() - MAX_NAMES
                )?;
            }
            names => write!(f, "for {}", names.join(", "))?,
        }
        match is_self_signed {
            true => f.write_str(", self-signed")?,
            false => write!(f, ", issued by {issuer}")?,
        }
        write!(
            f,
            ", valid from {} to {}",
            clock::to_the_minute(*not_before),
            clock::to_the_minute(*not_after)
        )
    }
}

/// In how much time a certificate expires, how long ago it expired, or when it becomes valid, in words.
pub fn validity(certificate: &Certificate, now: SystemTime) -> String {
    match (certificate.not_before > now, certificate.not_after < now) {
        (true, _) => format!(
            "not valid for another {}",
            span(now, certificate.not_before)
        ),
        (_, true) => format!("expired {} ago", span(certificate.not_after, now)),
        _ => format!("expires in {}", span(now, certificate.not_after)),
    }
}

fn span(from: SystemTime, to: SystemTime) -> String {
    let seconds = clock::since_epoch(to).as_secs() - clock::since_epoch(from).as_secs();
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        3_600.. => format!("{} h", seconds / 3_600),
        _ => format!("{} min", seconds / 60),
    }
}

pub(super) fn evidence(report: &Report, failure: &Failure) -> String {
    let received = &failure.detail.received;
    let mut text = match &failure.detail.cause {
        Cause::Tls(TlsError::Certificate(error)) => certificate_problem(report, failure, error),
        Cause::Tls(error @ TlsError::Alert(_)) => self::error(error),
        Cause::Tls(TlsError::Handshake(error)) => {
            format!(
                "TLS handshake: {error}{}",
                super::http::first_bytes(received)
            )
        }
        Cause::Os(error) => format!("TLS handshake: {error}"),
        Cause::Timeout => "connected, then no answer in the TLS handshake".to_owned(),
        _ => match received.bytes {
            0 => "TLS handshake: closed without an answer".to_owned(),
            bytes => format!("TLS handshake: closed after {bytes} bytes"),
        },
    };
    if let Some(hole) = failure.detail.hole {
        text += &format!(" ({})", super::path::hole(hole));
    }
    if is_certificate_wanted(report) && failure.kind == FailureKind::TlsHandshake {
        text += " (it asked for a client certificate)";
    }
    text
}

/// A TLS error in words, without the certificate.
pub(super) fn error(error: &TlsError) -> String {
    match error {
        TlsError::Alert(alert) => format!("TLS alert {alert}"),
        TlsError::Certificate(error) => format!("TLS certificate: {error}"),
        TlsError::Handshake(error) => format!("TLS: {error}"),
    }
}

/// The problem of a rejected certificate, and its fields.
fn certificate_problem(report: &Report, failure: &Failure, error: &str) -> String {
    let Some(certificate) = shown(report) else {
        return format!("TLS certificate: {error}");
    };
    let problem = match failure.kind {
        FailureKind::TlsExpired => validity(certificate, report.started),
        FailureKind::TlsName => format!("not for {}", report.target.host_name()),
        _ if is_untrusted(error) => "not trusted".to_owned(),
        _ => format!("not accepted: {error}"),
    };
    format!("TLS certificate {problem} ({})", Facts(certificate))
}

/// Whether no trusted CA has issued the certificate, judged by the text of rustls's error. webpki does not accept
/// a CA certificate as that of a server.
fn is_untrusted(error: &str) -> bool {
    error == "UnknownIssuer" || error.contains("CaUsedAsEndEntity")
}

fn shown(report: &Report) -> Option<&Certificate> {
    report.tls.as_deref()?.certificate.as_ref()
}

fn is_certificate_wanted(report: &Report) -> bool {
    let tls = report.tls.as_deref();
    tls.is_some_and(|tls: &Tls| tls.wants_certificate)
}

pub(super) fn what(failure: &Failure) -> Option<&'static str> {
    let received = &failure.detail.received;
    match (failure.kind, &failure.detail.cause) {
        (FailureKind::ResponseTimeout, _) => Some("connected, but no answer in the TLS handshake"),
        (FailureKind::TlsHandshake, _) if received.bytes > 0 && !received.starts_as_tls() => {
            Some("what answered does not speak TLS")
        }
        _ => None,
    }
}

pub(super) fn likely(report: &Report, failure: &Failure) -> Option<Cow<'static, str>> {
    let received = &failure.detail.received;
    Some(match (failure.kind, &failure.detail.cause) {
        (FailureKind::TlsHandshake, Cause::Tls(TlsError::Alert(alert))) => {
            likely_by_alert(alert, is_certificate_wanted(report)).into()
        }
        (FailureKind::TlsHandshake, _) if starts_as_http1(received) => {
            "the port speaks plain HTTP: http://".into()
        }
        (FailureKind::TlsHandshake, _) if what(failure).is_some() => {
            "the wrong port: another protocol is spoken there".into()
        }
        (FailureKind::TlsHandshake, Cause::Closed | Cause::Os(_)) => {
            "what listens there hangs up on TLS: it does not speak it, does not serve this name, or is a proxy without a backend".into()
        }
        (FailureKind::TlsHandshake, Cause::Tls(TlsError::Handshake(error)))
            if error.contains("incompatible") =>
        {
            "no TLS version or algorithm in common: this side speaks TLS 1.2 and 1.3".into()
        }
        (FailureKind::TlsUntrusted, _) => match shown(report) {
            Some(certificate)
                if certificate.is_self_signed
                    && matches!(&failure.detail.cause, Cause::Tls(TlsError::Certificate(error)) if is_untrusted(error)) =>
            {
                "the certificate vouches for itself: if it is the right one, --cacert with it".into()
            }
            _ => return None,
        },
        (FailureKind::TlsExpired, _) => match shown(report) {
            Some(certificate) if certificate.not_before > report.started => {
                "the certificate is from the future: the clock here, or where it was issued, is wrong".into()
            }
            _ => return None,
        },
        (FailureKind::TlsName, _) if shown(report).is_some_and(|c| c.names.is_empty()) => {
            "the certificate has no subjectAltName, and a common name no longer counts".into()
        }
        (FailureKind::ResponseTimeout, _) => {
            "the backend is overloaded or stuck, or waits for a client that speaks first in another protocol".into()
        }
        _ => return None,
    })
}

/// The likely cause of an alert (RFC 8446, section 6.2).
fn likely_by_alert(alert: &str, is_certificate_wanted: bool) -> &'static str {
    match alert {
        "certificate_required" => "the server wants a client certificate: --cert and --key",
        "handshake_failure" | "bad_certificate" if is_certificate_wanted => {
            "the server wants a client certificate that it accepts: --cert and --key"
        }
        "unknown_ca"
        | "bad_certificate"
        | "certificate_unknown"
        | "certificate_expired"
        | "certificate_revoked"
        | "unsupported_certificate"
        | "access_denied"
            if is_certificate_wanted =>
        {
            "the server does not accept this client's certificate"
        }
        "protocol_version" | "handshake_failure" | "insufficient_security" => {
            "no TLS version or algorithm in common: this side speaks TLS 1.2 and 1.3"
        }
        "no_application_protocol" => {
            "no protocol in common: --http2 where the server speaks HTTP/2 alone, and without it where it does not"
        }
        "unrecognized_name" => "the server has no certificate for this host name",
        "internal_error" => "a fault of the server's own: it may have no certificate",
        _ => "the port speaks TLS, and the server ended the handshake: its log may say why",
    }
}
