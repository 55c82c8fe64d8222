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
    ResolvesClientCert, Resumption, WebPkiServerVerifier, verify_server_name,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, SignatureScheme,
};

use super::certificate;
use super::tap::{End, Tap};
use crate::clock;
use crate::dns::Host;
use crate::failure::{Cause, FailureKind, Received, TlsError, TlsPort};
use crate::report::{Certificate, Tls};
use crate::target::Target;
use crate::trust::{TlsSettings, Trust};

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
        let callbacks = Arc::new(HandshakeCallbacks::new(
            trust.current(),
            Arc::clone(&provider),
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
        let callbacks = Arc::new(HandshakeCallbacks::new(
            settings,
            Arc::clone(&self.provider),
        ));
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = Arc::clone(&callbacks) as _;
        let verifier = Arc::clone(&callbacks) as _;
        config.dangerous().set_certificate_verifier(verifier);
        let (tap, evidence) = Tap::new(stream, Received::KEPT);
        let connector = TlsConnector::from(Arc::new(config));
        let connecting = connector.connect(server_name(target), tap);
        let connected = timeout_at(deadline, connecting).await;
        let took = start.elapsed();
        let mut tls = callbacks.shown();
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
                    Ok(error) => conclude(error.err().as_ref().and_then(tls_error), end),
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

/// Kind and cause of a handshake that failed.
fn conclude(error: Option<&Error>, end: Option<End>) -> (FailureKind, Cause) {
    match (error, end) {
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
        Error::InvalidCertificate(error) => TlsError::Certificate(error.to_string()),
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

/// The name that the certificate is verified for: the host of the URL.
fn server_name(target: &Target) -> ServerName<'static> {
    match &target.host {
        Host::Address { ip, .. } => ServerName::IpAddress((*ip).into()),
        Host::Name(name) => {
            let name = name.strip_suffix('.').unwrap_or(name).to_owned();
            // A host that is not a valid name in a certificate is replaced by an address that no certificate
            // has, so that verification fails.
            ServerName::try_from(name).unwrap_or(ServerName::IpAddress(
                std::net::Ipv4Addr::UNSPECIFIED.into(),
            ))
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
    certificate: Mutex<Option<Certificate>>,
    wants_certificate: AtomicBool,
}

impl HandshakeCallbacks {
    fn new(settings: Arc<TlsSettings>, provider: Arc<CryptoProvider>) -> Self {
        Self {
            settings,
            provider,
            certificate: Mutex::default(),
            wants_certificate: AtomicBool::new(false),
        }
    }

    /// The certificate that the server has presented so far, and whether it has requested one.
    fn shown(&self) -> Tls {
        let certificate = self.certificate.lock();
        Tls {
            version: None,
            protocol: None,
            certificate: unpoisoned(certificate).take(),
            is_verified: false,
            wants_certificate: self.wants_certificate.load(Ordering::Relaxed),
        }
    }
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
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = certificate::read(end_entity);
        let seen = self.certificate.lock();
        unpoisoned(seen).clone_from(&certificate);
        if self.settings.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        // A certificate that is itself a trust anchor needs no issuer, as in OpenSSL. webpki does not accept a CA
        // certificate as that of a server, and most self-signed certificates are CA certificates.
        if self
            .settings
            .anchors
            .iter()
            .any(|anchor| anchor == end_entity)
        {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return match certificate {
                Some(certificate) => valid_at(&certificate, now),
                None => Err(CertificateError::BadEncoding.into()),
            };
        }
        match &self.settings.verifier {
            Some(verifier) => WebPkiServerVerifier::verify_server_cert(
                verifier,
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
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

fn valid_at(certificate: &Certificate, now: UnixTime) -> Result<ServerCertVerified, Error> {
    if now.as_secs() < clock::since_epoch(certificate.not_before).as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > clock::since_epoch(certificate.not_after).as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(ServerCertVerified::assertion())
}
