//! Parses the fields of a certificate, whether or not it is trusted.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{CertificateInner, Raw, TbsCertificateInner};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::spki::ObjectIdentifier;
use x509_cert::time::Time;

use crate::failure::cut;
use crate::report::Certificate;

/// Most names of a certificate to keep: it comes from the network.
const MAX_NAMES: usize = 32;

/// What an address that is given as a DNS name, and so does not count, is shown with.
pub(crate) const AS_DNS_NAME: &str = "DNS:";

/// Most certificates of a chain to look at.
pub(crate) const MAX_CHAIN: usize = 8;

/// Longest name, subject or issuer to keep, in bytes; longer ones are cut.
const MAX_NAME: usize = 256;

/// Parses a certificate; `None` if it is not a valid one.
pub(crate) fn read(der: &CertificateDer<'_>) -> Option<Certificate> {
    let certificate = parse(der)?;
    let validity = certificate.validity();
    let names = names(&certificate);
    Some(Certificate {
        subject: shown(certificate.subject()),
        names: names.iter().filter_map(name).take(MAX_NAMES).collect(),
        issuer: shown(certificate.issuer()),
        is_self_signed: certificate.subject() == certificate.issuer(),
        not_before: system_time(&validity.not_before),
        not_after: system_time(&validity.not_after),
    })
}

/// Whether the certificate is for this DNS name: its subjectAltName has the name, or a wildcard for the leftmost
/// label of it. For names that webpki does not accept.
pub(crate) fn is_for(der: &CertificateDer<'_>, host: &str) -> bool {
    let parent = host.split_once('.').map_or("", |(_, parent)| parent);
    parse(der).is_some_and(|certificate| {
        names(&certificate).iter().any(|name| match name {
            GeneralName::DnsName(name) => match name.as_str().strip_prefix("*.") {
                // As in OpenSSL, a wildcard stands for one label out of at least three.
                Some(rest) => rest.contains('.') && rest.eq_ignore_ascii_case(parent),
                None => name.as_str().eq_ignore_ascii_case(host),
            },
            _ => false,
        })
    })
}

/// The issuer at which the chain of the server's certificate ends: that of the last certificate which was sent. `None`
/// if no certificate of the first issuer was sent; others may have been, such as the server's own once more.
pub(crate) fn last_issuer(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Option<String> {
    let sent = intermediates.iter().take(MAX_CHAIN);
    let sent: Vec<_> = sent.filter_map(parse).collect();
    let mut issuer = parse(end_entity)?.issuer().clone();
    sent.iter().find(|sent| *sent.subject() == issuer)?;
    for _ in &sent {
        let mut next = sent.iter();
        let next = next.find(|next| *next.subject() == issuer && *next.issuer() != issuer);
        match next {
            Some(next) => issuer = next.issuer().clone(),
            None => break,
        }
    }
    Some(shown(&issuer))
}

/// Parsing is lenient, because a certificate that violates a rule should still be shown.
fn parse(der: &CertificateDer<'_>) -> Option<TbsCertificateInner<Raw>> {
    let certificate = CertificateInner::<Raw>::from_der(der).ok()?;
    Some(certificate.tbs_certificate().clone())
}

/// The names in the certificate's subjectAltName.
fn names(certificate: &TbsCertificateInner<Raw>) -> Vec<GeneralName> {
    let names = certificate.get_extension::<SubjectAltName>().ok().flatten();
    names.map_or(Vec::new(), |(_, SubjectAltName(names))| names)
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
    cut(parts.join(", "), MAX_NAME)
}

/// A DNS name, an IP address or a URI of the certificate's subjectAltName; `None` for other types of names.
fn name(name: &GeneralName) -> Option<String> {
    match name {
        // An address has to be in a name of its own type, which is not shown like this.
        GeneralName::DnsName(name) if name.as_str().parse::<IpAddr>().is_ok() => {
            Some(format!("{AS_DNS_NAME}{}", name.as_str()))
        }
        GeneralName::DnsName(name) => Some(cut(name.to_string(), MAX_NAME)),
        // As in the certificate of a workload of a mesh: spiffe://...
        GeneralName::UniformResourceIdentifier(uri) => Some(cut(uri.to_string(), MAX_NAME)),
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
