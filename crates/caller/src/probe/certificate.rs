//! What a certificate says of itself, whether or not it is one to trust.

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

/// Names of a certificate that are kept, and the most bytes of each: it comes from the network.
const MAX_NAMES: usize = 32;
const MAX_NAME: usize = 256;

/// Reads a certificate; `None` if it is not one.
pub(super) fn read(der: &CertificateDer<'_>) -> Option<Certificate> {
    // Leniently: what is odd in it is no reason not to show it.
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
        not_before: moment(&validity.not_before),
        not_after: moment(&validity.not_after),
    })
}

/// The parts of a subject or an issuer that say who it is (RFC 4519), and how they are written. The parser knows
/// many more, by a table that would be a tenth of what TLS costs.
const PARTS: [(ObjectIdentifier, &str); 4] = [
    (ObjectIdentifier::new_unwrap("2.5.4.3"), "CN"),
    (ObjectIdentifier::new_unwrap("2.5.4.10"), "O"),
    (ObjectIdentifier::new_unwrap("2.5.4.11"), "OU"),
    (ObjectIdentifier::new_unwrap("2.5.4.6"), "C"),
];

/// Whose it is or who issued it, such as `CN=kubernetes`.
fn shown(name: &Name) -> String {
    let part = |part: &AttributeTypeAndValue| {
        let (_, key) = PARTS.iter().find(|(oid, _)| *oid == part.oid)?;
        Some(format!(
            "{key}={}",
            String::from_utf8_lossy(part.value.value())
        ))
    };
    let parts: Vec<String> = name.iter().filter_map(part).collect();
    cut(parts.join(", "))
}

/// A name that a server can be known by.
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

/// The parser takes the years 1970 to 9999 alone.
fn moment(time: &Time) -> SystemTime {
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
