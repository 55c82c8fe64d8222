//! The wording of TLS: failed handshakes, and certificates.

use std::borrow::Cow;
use std::fmt;
use std::time::SystemTime;

use tokio_rustls::rustls::{CertificateError, OtherError};

use super::http::starts_as_http1;
use crate::certificate;
use crate::clock;
use crate::dns::Host;
use crate::failure::{Cause, Failure, FailureKind, TlsError};
use crate::report::{Certificate, IssuerSource, Rejected, Report, Tls};

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
            true if names.is_empty() => f.write_str(", self-signed")?,
            true => write!(f, ", self-signed by {subject}")?,
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
        Cause::Tls(TlsError::Signature) => match shown(report) {
            Some(certificate) => {
                format!("{} ({})", error(&TlsError::Signature), Facts(certificate))
            }
            None => error(&TlsError::Signature),
        },
        Cause::Tls(alert @ TlsError::Alert(_)) => error(alert),
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
    if !is_name_sent(report) {
        // The certificate of an address is the right one without a name.
        let is_right = rejected(report).is_some_and(|rejected| rejected.is_for_host);
        text += match &report.target.host {
            Host::Name(_) => {
                " (the server was not told the name, which cannot be sent in TLS here)"
            }
            Host::Address { .. } if is_right => "",
            Host::Address { .. } => " (the server was not told a name: an address sends none)",
        };
    }
    text
}

/// A TLS error in words, without the certificate.
pub(super) fn error(error: &TlsError) -> String {
    match error {
        TlsError::Alert(alert) => format!("TLS alert {alert}"),
        TlsError::Certificate(error) => format!("TLS certificate: {}", reason(error).0),
        TlsError::Signature => {
            "TLS certificate not accepted: its key does not verify the handshake".to_owned()
        }
        TlsError::Handshake(error) => format!("TLS: {error}"),
    }
}

/// The problem of a rejected certificate, and its fields.
fn certificate_problem(report: &Report, failure: &Failure, error: &CertificateError) -> String {
    let Some(certificate) = shown(report) else {
        return format!("TLS certificate: {}", reason(error).0);
    };
    let problem = match (failure.kind, outdated_issuer(report)) {
        (FailureKind::TlsExpired, Some((source, issuer))) => {
            let source = match source {
                IssuerSource::Sent => "that the server sends",
                IssuerSource::Trusted => "that is trusted here",
            };
            let validity = validity(issuer, report.started);
            format!("of a CA {source}, {}, {validity}", issuer.subject)
        }
        (FailureKind::TlsExpired, None) => validity(certificate, report.started),
        (FailureKind::TlsName, _) => format!("not for {}", report.target.host_name()),
        _ if is_untrusted(certificate, error) => "not trusted".to_owned(),
        _ => format!("not accepted: {}", reason(error).0),
    };
    format!("TLS certificate {problem} ({})", Facts(certificate))
}

/// Whether no trusted CA has issued the certificate. webpki does not accept the certificate of a CA as that of a
/// server, and most self-signed certificates are those of a CA.
fn is_untrusted(certificate: &Certificate, error: &CertificateError) -> bool {
    match error {
        CertificateError::UnknownIssuer => true,
        CertificateError::Other(OtherError(error)) => {
            certificate.is_self_signed && error.to_string() == "CaUsedAsEndEntity"
        }
        _ => false,
    }
}

/// Why a certificate was not accepted, in words, and the likely cause. Errors of webpki that rustls has no variant for
/// are known by their text.
fn reason(error: &CertificateError) -> (Cow<'static, str>, Option<&'static str>) {
    let other_key = "an issuer has the right name and another key: that CA was renewed, or is that of another cluster; or its RSA key is shorter than 2048 bits";
    let (reason, likely) = match error {
        CertificateError::BadEncoding => ("it cannot be parsed", "it violates the rules of X.509"),
        CertificateError::BadSignature => (
            "it, or an issuer in its chain, is not signed by the key of its issuer",
            other_key,
        ),
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => (
            "its signature, or that of an issuer in its chain, is not of the kind of the issuer's key",
            other_key,
        ),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. } => (
            "it, or an issuer in its chain, is signed with an algorithm that does not count here",
            "it was signed with SHA-1 or another old algorithm: it has to be issued again",
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            "it, or an issuer in its chain, is not for servers (extended key usage)",
            "it was issued for clients: the server needs one for server authentication",
        ),
        CertificateError::Other(OtherError(error)) => match error.to_string().as_str() {
            "CaUsedAsEndEntity" => (
                "it is the certificate of a CA",
                "the server presents a CA's own certificate: it needs one that the CA has issued",
            ),
            "EndEntityUsedAsCa" => (
                "an issuer in its chain is not a CA",
                "it was issued with the key of a server, or by a CA whose certificate does not say that it is one",
            ),
            "PathLenConstraintViolated" => (
                "an issuer in its chain may not have another CA below it",
                "a CA issued another CA, which its path length does not allow",
            ),
            "NameConstraintViolation" => (
                "a CA in its chain may not issue for its names (name constraints)",
                "the CA is for other names: the certificate has to be issued by another one",
            ),
            "UnsupportedCriticalExtension" => (
                "it, or an issuer in its chain, has a critical extension that is not known here",
                "it has to be issued again, without that extension",
            ),
            "UnsupportedCertVersion" => (
                "it, or an issuer in its chain, is not of version 3 of X.509",
                "it was issued without extensions, as by openssl x509 without -extfile",
            ),
            other => return (other.to_owned().into(), None),
        },
        error => return (error.to_string().into(), None),
    };
    (reason.into(), Some(likely))
}

fn outdated_issuer(report: &Report) -> Option<(IssuerSource, &Certificate)> {
    let (source, issuer) = rejected(report)?.outdated_issuer.as_ref()?;
    Some((*source, issuer))
}

fn rejected(report: &Report) -> Option<&Rejected> {
    report.tls.as_deref()?.rejected.as_deref()
}

/// Whether all names of the certificate are SPIFFE IDs, which name workloads.
fn is_of_workload(certificate: &Certificate) -> bool {
    let mut names = certificate.names.iter();
    !certificate.names.is_empty() && names.all(|name| name.starts_with("spiffe://"))
}

/// The likely cause if a certificate is not trusted.
fn untrusted(report: &Report, error: &CertificateError) -> Option<Cow<'static, str>> {
    let (certificate, rejected) = (shown(report)?, rejected(report)?);
    if !is_untrusted(certificate, error) {
        return reason(error).1.map(Cow::from);
    }
    Some(match certificate.is_self_signed {
        _ if is_of_workload(certificate) => WORKLOAD.into(),
        true if rejected.is_for_host => {
            "the certificate vouches for itself: if it is the right one, --cacert with it".into()
        }
        true => not_for_host(report, certificate).into(),
        false => match rejected.last_issuer.as_deref() {
            None => {
                "its issuer is not among those that are trusted here, and the server did not send the issuer's certificate: --cacert lacks it, or the server has to send its whole chain".into()
            }
            Some("") => return None,
            Some(issuer) => format!(
                "the chain that the server sent ends at {issuer}, which is not among those that are trusted here: --cacert names others, or the server has to send its whole chain"
            )
            .into(),
        },
    })
}

const WORKLOAD: &str = "the certificate is the identity of a workload in a mesh, and names no host: only sidecars of that mesh accept it";

/// What the names of a certificate tell of why it is not for the host of the target, if they do.
fn likely_by_names(report: &Report, certificate: &Certificate) -> Option<&'static str> {
    let is_address_as_name = |name: &String| match &report.target.host {
        Host::Address { ip, .. } => {
            let name = name.strip_prefix(certificate::AS_DNS_NAME);
            name.and_then(|name| name.parse().ok()) == Some(*ip)
        }
        Host::Name(_) => false,
    };
    match certificate {
        _ if is_of_workload(certificate) => Some(WORKLOAD),
        _ if certificate.names.is_empty() => Some(
            "the certificate has no host name in its subjectAltName, and a common name no longer counts",
        ),
        _ if certificate.names.iter().any(is_address_as_name) => Some(
            "the certificate has the address as a DNS name: in the subjectAltName it has to be IP:, not DNS:",
        ),
        _ => None,
    }
}

/// The likely cause if a certificate is not for the host of the target, beside what else is wrong with it.
fn not_for_host(report: &Report, certificate: &Certificate) -> &'static str {
    likely_by_names(report, certificate).unwrap_or("the certificate is not for this host: a default certificate, as of an ingress that has none for it, the wrong Service, or a certificate without the name that is used here")
}

const SERVES_NAMES: &str = "serves host names only (none was sent)";

fn shown(report: &Report) -> Option<&Certificate> {
    report.tls.as_deref()?.certificate.as_ref()
}

fn is_name_sent(report: &Report) -> bool {
    let tls = report.tls.as_deref();
    tls.is_none_or(|tls| tls.is_name_sent)
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
            let is_wanted = is_certificate_wanted(report);
            let likely = likely_by_alert(alert, is_wanted);
            match alert.as_str() {
                // A server that asks for a certificate has chosen its own.
                _ if is_name_sent(report) || is_wanted => likely.into(),
                "unrecognized_name" => format!("the server {SERVES_NAMES}").into(),
                "handshake_failure" | "internal_error" | "access_denied" => {
                    format!("{likely}, or the server {SERVES_NAMES}").into()
                }
                _ => likely.into(),
            }
        }
        (FailureKind::TlsHandshake, _) if starts_as_http1(received) => {
            "the port speaks plain HTTP: http://".into()
        }
        (FailureKind::TlsHandshake, _) if what(failure).is_some() => {
            "the wrong port: another protocol is spoken there".into()
        }
        (FailureKind::TlsHandshake, Cause::Closed | Cause::Os(_)) => {
            let unserved = match is_name_sent(report) {
                true => "does not serve this name",
                false => SERVES_NAMES,
            };
            format!("what listens there hangs up on TLS: it does not speak it, {unserved}, or is a proxy without a backend").into()
        }
        (FailureKind::TlsHandshake, Cause::Tls(TlsError::Handshake(error)))
            if error.contains("incompatible") =>
        {
            "no TLS version or algorithm in common: this side speaks TLS 1.2 and 1.3".into()
        }
        (FailureKind::TlsUntrusted, Cause::Tls(TlsError::Certificate(error))) => {
            untrusted(report, error)?
        }
        (FailureKind::TlsUntrusted, Cause::Tls(TlsError::Signature)) => {
            "its RSA key is shorter than 2048 bits, or the server has the key of another certificate".into()
        }
        (FailureKind::TlsExpired, _) => {
            let (certificate, issuer) = (shown(report)?, outdated_issuer(report));
            let outdated = issuer.map_or(certificate, |(_, issuer)| issuer);
            let likely = match issuer {
                _ if outdated.not_before > report.started => {
                    "the certificate is from the future: the clock here, or where it was issued, is wrong"
                }
                Some((IssuerSource::Sent, _)) => {
                    "the server sends an old chain, or that CA was not renewed"
                }
                Some((IssuerSource::Trusted, _)) => {
                    "--cacert, or the system's store, has an old certificate of that CA, or the CA was not renewed"
                }
                None => super::usual_cause(failure.kind),
            };
            match rejected(report) {
                Some(rejected) if !rejected.is_for_host => {
                    format!("{likely}; and {}", not_for_host(report, certificate)).into()
                }
                _ => likely.into(),
            }
        }
        (FailureKind::TlsName, _) => likely_by_names(report, shown(report)?)?.into(),
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
