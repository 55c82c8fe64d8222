//! The TLS handshake on an established connection, and the certificate and settings that the server presents.
//!
//! The certificate is recorded before it is verified, so that a rejected one can be shown.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::unpoisoned::unpoisoned;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{
    ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, RootCertStore,
    SignatureScheme,
};

use super::tap::{End, Tap};
use crate::certificate;
use crate::clock;
use crate::dns::Host;
use crate::failure::{Cause, FailureKind, Received, TlsError, TlsPort};
use crate::report::{Certificate, IssuerSource, Rejected, Tls};
use crate::target::Target;
use crate::trust::{Anchor, TlsSettings, Trust};

/// TLS client settings of a target.
#[derive(Clone, Debug)]
pub(super) struct Client {
    config: ClientConfig,
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

/// Result of a handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) took: Duration,
    /// The settings and the certificate that the server presented.
    pub(super) tls: Arc<Tls>,
    pub(super) outcome: Result<TlsStream<Tap<TcpStream>>, HandshakeError>,
}

/// Why a handshake failed.
#[derive(Debug)]
pub(super) struct HandshakeError {
    pub(super) kind: FailureKind,
    pub(super) cause: Cause,
    pub(super) received: Received,
}

impl Client {
    /// Prepares for handshakes. The only protocol offered in ALPN is HTTP/2 or HTTP/1.1.
    ///
    /// # Errors
    ///
    /// If the cryptography provider does not support the default TLS versions.
    pub(super) fn new(trust: Trust, http2: bool) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        // A configuration cannot be built without callbacks; each handshake replaces these with its own.
        let callbacks = Arc::new(HandshakeCallbacks::new(
            trust.current(),
            Arc::clone(&provider),
            None,
        ));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&callbacks) as _)
            .with_client_cert_resolver(callbacks);
        config.alpn_protocols = vec![match http2 {
            true => b"h2".to_vec(),
            false => b"http/1.1".to_vec(),
        }];
        // Without resumption, each call sees the handshake of a new client.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config,
            trust,
            provider,
        })
    }

    /// The TLS that the server speaks, if it does: even if the handshake fails, as long as it responds with a TLS
    /// record.
    pub(super) async fn spoken_by_server(
        &self,
        stream: TcpStream,
        target: &Target,
        deadline: Instant,
    ) -> Option<TlsPort> {
        let Handshake { outcome, tls, .. } = self.handshake(stream, target, deadline).await;
        let is_tls = match outcome {
            Ok(_) => true,
            Err(HandshakeError { received, .. }) => received.starts_as_tls(),
        };
        is_tls.then_some(match tls.wants_certificate {
            true => TlsPort::Mutual,
            false => TlsPort::Server,
        })
    }

    /// Performs the handshake, until `deadline`.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        target: &Target,
        deadline: Instant,
    ) -> Handshake {
        let start = Instant::now();
        let settings = self.trust.current();
        let is_verified = !settings.insecure;
        let (server_name, unusual_name) = server_name(target);
        let callbacks = Arc::new(HandshakeCallbacks::new(
            settings,
            Arc::clone(&self.provider),
            unusual_name,
        ));
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = Arc::clone(&callbacks) as _;
        let verifier = Arc::clone(&callbacks) as _;
        config.dangerous().set_certificate_verifier(verifier);
        let (tap, evidence) = Tap::new(stream, Received::KEPT);
        let connector = TlsConnector::from(Arc::new(config));
        let is_name_sent = matches!(server_name, ServerName::DnsName(_));
        let connecting = connector.connect(server_name, tap);
        let connected = timeout_at(deadline, connecting).await;
        let took = start.elapsed();
        let mut tls = callbacks.take_tls();
        tls.is_name_sent = is_name_sent;
        match connected {
            Ok(Ok(stream)) => {
                let (_, connection) = stream.get_ref();
                let version = connection.protocol_version();
                tls.version = version.and_then(version_name);
                tls.protocol = connection.alpn_protocol().map(text);
                tls.is_verified = is_verified;
                Handshake {
                    took,
                    tls: Arc::new(tls),
                    outcome: Ok(stream),
                }
            }
            failed => {
                let (received, end) = evidence.get();
                let (kind, cause) = match failed {
                    Err(_) => (FailureKind::ResponseTimeout, Cause::Timeout),
                    Ok(error) => {
                        let error = error.err();
                        let error = error.as_ref().and_then(tls_error);
                        conclude(error, end, tls.rejected.is_some())
                    }
                };
                Handshake {
                    took,
                    tls: Arc::new(tls),
                    outcome: Err(HandshakeError {
                        kind,
                        cause,
                        received,
                    }),
                }
            }
        }
    }
}

/// Kind and cause of a handshake that failed. `is_rejected` is whether the certificate was not accepted.
fn conclude(error: Option<&Error>, end: Option<End>, is_rejected: bool) -> (FailureKind, Cause) {
    match (error, end) {
        (Some(Error::InvalidCertificate(_)), _) if !is_rejected => {
            (FailureKind::TlsUntrusted, Cause::Tls(TlsError::Signature))
        }
        (Some(error), _) => {
            let cause = Cause::Tls(to_evidence(error));
            match error {
                Error::InvalidCertificate(error) => (certificate_failure(error), cause),
                _ => (FailureKind::TlsHandshake, cause),
            }
        }
        (None, Some(End::Failed(error))) => (FailureKind::TlsHandshake, Cause::Os(error)),
        (None, _) => (FailureKind::TlsHandshake, Cause::Closed),
    }
}

/// The TLS error inside of an I/O error, if there is one.
pub(super) fn tls_error(error: &std::io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Converts a TLS error into evidence.
pub(super) fn to_evidence(error: &Error) -> TlsError {
    match error {
        Error::AlertReceived(alert) => TlsError::Alert(snake_case(&format!("{alert:?}"))),
        Error::InvalidCertificate(error) => TlsError::Certificate(error.clone()),
        error => TlsError::Handshake(error.to_string()),
    }
}

fn certificate_failure(error: &CertificateError) -> FailureKind {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => FailureKind::TlsExpired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            FailureKind::TlsName
        }
        _ => FailureKind::TlsUntrusted,
    }
}

/// The name that is sent to the server and that its certificate is verified for: the host of the URL. The second part
/// is a host name that is not one for rustls, such as `backend.123`: an address, which is not sent, stands in for it.
fn server_name(target: &Target) -> (ServerName<'static>, Option<String>) {
    match &target.host {
        Host::Address { ip, .. } => (ServerName::IpAddress((*ip).into()), None),
        Host::Name(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            match ServerName::try_from(name.to_owned()) {
                Ok(server_name @ ServerName::DnsName(_)) => (server_name, None),
                _ => {
                    let address = std::net::Ipv4Addr::UNSPECIFIED.into();
                    (ServerName::IpAddress(address), Some(name.to_owned()))
                }
            }
        }
    }
}

/// The version as OpenSSL and curl write it.
fn version_name(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}

/// The name of an alert as RFC 8446 writes it, from the camel case of rustls.
fn snake_case(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    let mut was_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && was_lower {
            text.push('_');
        }
        was_lower = c.is_ascii_lowercase();
        text.push(c.to_ascii_lowercase());
    }
    text.replace("unrecognised", "unrecognized")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The callbacks of one handshake: they verify and record the server's certificate, and provide the client's.
#[derive(Debug)]
struct HandshakeCallbacks {
    settings: Arc<TlsSettings>,
    provider: Arc<CryptoProvider>,
    /// The host name of the target, if webpki cannot verify it.
    unusual_name: Option<String>,
    certificate: Mutex<Option<Certificate>>,
    rejected: Mutex<Option<Box<Rejected>>>,
    wants_certificate: AtomicBool,
}

impl HandshakeCallbacks {
    fn new(
        settings: Arc<TlsSettings>,
        provider: Arc<CryptoProvider>,
        unusual_name: Option<String>,
    ) -> Self {
        Self {
            settings,
            provider,
            unusual_name,
            certificate: Mutex::default(),
            rejected: Mutex::default(),
            wants_certificate: AtomicBool::new(false),
        }
    }

    /// What the server has presented and the verdict on it, which are taken out: the certificate, why it was rejected,
    /// and whether the server has requested a client certificate.
    fn take_tls(&self) -> Tls {
        let certificate = self.certificate.lock();
        Tls {
            version: None,
            protocol: None,
            certificate: unpoisoned(certificate).take(),
            is_verified: false,
            wants_certificate: self.wants_certificate.load(Ordering::Relaxed),
            is_name_sent: false,
            rejected: unpoisoned(self.rejected.lock()).take(),
        }
    }

    /// Verifies that the chain leads to a trusted certificate that is not out of date. If it leads to one that is, the
    /// error comes with that one.
    fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), (Error, Option<&Anchor>)> {
        let TlsSettings { roots, anchors, .. } = &*self.settings;
        // A certificate that is itself a trust anchor needs no issuer, as in OpenSSL. webpki does not accept a CA
        // certificate as that of a server, and most self-signed certificates are CA certificates.
        if let Some(anchor) = anchors.iter().find(|anchor| anchor.der == *end_entity) {
            return anchor
                .check_validity(now)
                .map_err(|error| (error.into(), None));
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity).map_err(|error| (error, None))?;
        let verify = |roots: &RootCertStore| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                algorithms,
            )
        };
        let store = |anchors: &[&Anchor]| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(anchors.iter().map(|anchor| anchor.der.clone()));
            roots
        };
        let is_valid = |anchor: &&Anchor| anchor.check_validity(now).is_ok();
        let (valid, outdated): (Vec<_>, Vec<_>) = anchors.iter().partition(is_valid);
        let verified = match outdated.is_empty() {
            true => verify(roots),
            false => verify(&store(&valid)),
        };
        let Err(error) = verified else { return Ok(()) };
        for anchor in outdated {
            if verify(&store(&[anchor])).is_ok() {
                let is_valid = anchor.check_validity(now);
                return is_valid.map_err(|error| (error.into(), Some(anchor)));
            }
        }
        Err((error, None))
    }

    fn verify_name(
        &self,
        end_entity: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
    ) -> Result<(), Error> {
        match &self.unusual_name {
            None => verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name),
            Some(name) if certificate::is_for(end_entity, name) => Ok(()),
            Some(_) => Err(CertificateError::NotValidForName.into()),
        }
    }
}

/// The certificate of an issuer that was sent and because of which the chain is out of date: the one with the date
/// in the error, unless that is the date of the server's own certificate.
fn outdated(
    error: &Error,
    own: Option<&Certificate>,
    intermediates: &[CertificateDer<'_>],
) -> Option<Certificate> {
    let unix = |time| clock::since_epoch(time).as_secs();
    let is_meant = |certificate: &Certificate| match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            unix(certificate.not_after) == not_after.as_secs()
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            unix(certificate.not_before) == not_before.as_secs()
        }
        _ => false,
    };
    if own.is_some_and(is_meant) {
        return None;
    }
    let sent = intermediates.iter().take(certificate::MAX_CHAIN);
    sent.filter_map(certificate::read).find(is_meant)
}

impl ResolvesClientCert for HandshakeCallbacks {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.wants_certificate.store(true, Ordering::Relaxed);
        self.settings.identity.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for HandshakeCallbacks {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = certificate::read(end_entity);
        let seen = self.certificate.lock();
        unpoisoned(seen).clone_from(&certificate);
        if self.settings.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        let is_for_host = self.verify_name(end_entity, server_name);
        let verified = self.verify_chain(end_entity, intermediates, now);
        let verified = verified.and_then(|()| is_for_host.clone().map_err(|error| (error, None)));
        verified.map_err(|(error, anchor)| {
            let trusted = anchor.and_then(|anchor| certificate::read(&anchor.der));
            let trusted = trusted.map(|trusted| (IssuerSource::Trusted, trusted));
            let rejected = Rejected {
                is_for_host: is_for_host.is_ok(),
                last_issuer: certificate::last_issuer(end_entity, intermediates),
                outdated_issuer: trusted.or_else(|| {
                    let sent = outdated(&error, certificate.as_ref(), intermediates)?;
                    Some((IssuerSource::Sent, sent))
                }),
            };
            *unpoisoned(self.rejected.lock()) = Some(Box::new(rejected));
            error
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // `--insecure` also accepts certificates that webpki cannot parse.
        if self.settings.insecure {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // `--insecure` also accepts certificates that webpki cannot parse.
        if self.settings.insecure {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
