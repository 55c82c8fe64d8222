//! Parses the fields of a certificate, whether or not it is trusted.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::spki::ObjectIdentifier;
use x509_cert::time::Time;

use crate::report::Certificate;

/// Most names of a certificate to keep: it comes from the network.
const MAX_NAMES: usize = 32;

/// Longest name, subject or issuer to keep, in bytes; longer ones are cut.
const MAX_NAME: usize = 256;

/// Parses a certificate; `None` if it is not a valid one.
pub(super) fn read(der: &CertificateDer<'_>) -> Option<Certificate> {
    // Parsing is lenient, because a certificate that violates a rule should still be shown.
    let certificate = CertificateInner::<Raw>::from_der(der).ok()?;
    let certificate = certificate.tbs_certificate();
    let validity = certificate.validity();
    let names = certificate.get_extension::<SubjectAltName>().ok().flatten();
    let names = names.map_or(Vec::new(), |(_, SubjectAltName(names))| names);
    Some(Certificate {
        subject: shown(certificate.subject()),
        names: names.iter().filter_map(name).take(MAX_NAMES).collect(),
        issuer: shown(certificate.issuer()),
        is_self_signed: certificate.subject() == certificate.issuer(),
        not_before: system_time(&validity.not_before),
        not_after: system_time(&validity.not_after),
    })
}

/// The attribute types of a subject or an issuer to show (RFC 4519), and their abbreviations. The parser's
/// own table, which has many more, would add a tenth to the code size of TLS.
const SHOWN_ATTRIBUTES: [(ObjectIdentifier, &str); 4] = [
    (ObjectIdentifier::new_unwrap("2.5.4.3"), "CN"),
    (ObjectIdentifier::new_unwrap("2.5.4.10"), "O"),
    (ObjectIdentifier::new_unwrap("2.5.4.11"), "OU"),
    (ObjectIdentifier::new_unwrap("2.5.4.6"), "C"),
];

/// A subject or an issuer as text, such as `CN=kubernetes`.
fn shown(name: &Name) -> String {
    let part = |part: &AttributeTypeAndValue| {
        let (_, key) = SHOWN_ATTRIBUTES.iter().find(|(oid, _)| *oid == part.oid)?;
        Some(format!(
            "{key}={}",
            String::from_utf8_lossy(part.value.value())
        ))
    };
    let parts: Vec<String> = name.iter().filter_map(part).collect();
    cut(parts.join(", "))
}

/// A DNS name or an IP address of the certificate's subjectAltName; `None` for other types of names.
fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(cut(name.to_string())),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let ip = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            Some(ip.ok()?.to_string())
        }
        _ => None,
    }
}

fn system_time(time: &Time) -> SystemTime {
    // The parser accepts only the years 1970 to 9999, so the sum cannot overflow.
    UNIX_EPOCH + time.to_unix_duration()
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_NAME {
        let mut end = MAX_NAME;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}
