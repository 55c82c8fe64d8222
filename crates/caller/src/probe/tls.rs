//! The TLS handshake on a connection that stands, and what the server showed of itself in it.
//!
//! The certificate is looked at before it is verified, so that one which is refused can be shown.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
use crate::failure::{Cause, FailureKind, Received, TlsError};
use crate::report::{Certificate, Tls};
use crate::target::Target;
use crate::trust::Trust;

/// How TLS is spoken to a target.
#[derive(Clone, Debug)]
pub(super) struct Client {
    config: ClientConfig,
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

/// A handshake that has ended.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) took: Duration,
    /// What the server showed of itself.
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
    /// Prepares for handshakes. Over HTTP/2 that is the one protocol which is offered.
    pub(super) fn new(trust: Trust, http2: bool) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let peer = Arc::new(Peer::new(trust.clone(), Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&peer) as _)
            .with_client_cert_resolver(peer);
        config.alpn_protocols = vec![match http2 {
            true => b"h2".to_vec(),
            false => b"http/1.1".to_vec(),
        }];
        // Each call shows what a new client would meet.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config,
            trust,
            provider,
        })
    }

    /// Whether TLS is spoken there, whatever comes of it.
    pub(super) async fn is_spoken(
        &self,
        stream: TcpStream,
        target: &Target,
        deadline: Instant,
    ) -> bool {
        let Handshake { outcome, .. } = self.handshake(stream, target, deadline).await;
        match outcome {
            Ok(_) => true,
            Err(HandshakeError { received, .. }) => received.starts_as_tls(),
        }
    }

    /// Makes a connection one of TLS, until `deadline`.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        target: &Target,
        deadline: Instant,
    ) -> Handshake {
        let start = Instant::now();
        let peer = Arc::new(Peer::new(self.trust.clone(), Arc::clone(&self.provider)));
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = Arc::clone(&peer) as _;
        let verifier = Arc::clone(&peer) as _;
        config.dangerous().set_certificate_verifier(verifier);
        let (tap, evidence) = Tap::new(stream, Received::KEPT);
        let connector = TlsConnector::from(Arc::new(config));
        let connecting = connector.connect(server_name(target), tap);
        let connected = timeout_at(deadline, connecting).await;
        let took = start.elapsed();
        let mut tls = peer.shown();
        match connected {
            Ok(Ok(stream)) => {
                let (_, connection) = stream.get_ref();
                let version = connection.protocol_version();
                tls.version = version.and_then(version_name);
                tls.protocol = connection.alpn_protocol().map(text);
                tls.is_verified = !self.trust.insecure;
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

/// What a handshake that broke off means.
fn conclude(error: Option<&Error>, end: Option<End>) -> (FailureKind, Cause) {
    match (error, end) {
        (Some(error), _) => {
            let cause = Cause::Tls(what(error));
            match error {
                Error::InvalidCertificate(error) => (verdict(error), cause),
                _ => (FailureKind::TlsHandshake, cause),
            }
        }
        (None, Some(End::Failed(error))) => (FailureKind::TlsHandshake, Cause::Os(error)),
        (None, _) => (FailureKind::TlsHandshake, Cause::Closed),
    }
}

/// The error of TLS in one of reading or writing, if it is one.
pub(super) fn tls_error(error: &std::io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What is kept of an error of TLS.
pub(super) fn what(error: &Error) -> TlsError {
    match error {
        Error::AlertReceived(alert) => TlsError::Alert(snake_case(&format!("{alert:?}"))),
        Error::InvalidCertificate(error) => TlsError::Certificate(error.to_string()),
        error => TlsError::Handshake(error.to_string()),
    }
}

fn verdict(error: &CertificateError) -> FailureKind {
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

/// Who the server is to be: the host of the URL.
fn server_name(target: &Target) -> ServerName<'static> {
    match &target.host {
        Host::Address { ip, .. } => ServerName::IpAddress((*ip).into()),
        Host::Name(name) => {
            let name = name.strip_suffix('.').unwrap_or(name).to_owned();
            // A name that no certificate can have is verified as an address that none has.
            ServerName::try_from(name).unwrap_or(ServerName::IpAddress(
                std::net::Ipv4Addr::UNSPECIFIED.into(),
            ))
        }
    }
}

/// As OpenSSL and curl write it.
fn version_name(version: ProtocolVersion) -> Option<&'static str> {
    match version {
        ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
        ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
        _ => None,
    }
}

/// The name of an alert as the RFC writes it: rustls has it in camel case.
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

/// The server of one handshake: verifies its certificate, shows it ours, and remembers what it said.
#[derive(Debug)]
struct Peer {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    certificate: Mutex<Option<Certificate>>,
    wants_certificate: AtomicBool,
}

impl Peer {
    fn new(trust: Trust, provider: Arc<CryptoProvider>) -> Self {
        Self {
            trust,
            provider,
            certificate: Mutex::default(),
            wants_certificate: AtomicBool::new(false),
        }
    }

    /// What it has shown of itself.
    fn shown(&self) -> Tls {
        let certificate = self.certificate.lock();
        Tls {
            version: None,
            protocol: None,
            certificate: certificate.unwrap_or_else(PoisonError::into_inner).take(),
            is_verified: false,
            wants_certificate: self.wants_certificate.load(Ordering::Relaxed),
        }
    }
}

impl ResolvesClientCert for Peer {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.wants_certificate.store(true, Ordering::Relaxed);
        self.trust.identity.clone()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for Peer {
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
        seen.unwrap_or_else(PoisonError::into_inner)
            .clone_from(&certificate);
        if self.trust.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        // A certificate that is trusted itself needs no issuer, as with OpenSSL; webpki takes none that
        // could issue others, as one that signed itself usually could.
        if self.trust.anchors.iter().any(|anchor| anchor == end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return match certificate {
                Some(certificate) => valid_at(&certificate, now),
                None => Err(CertificateError::BadEncoding.into()),
            };
        }
        match &self.trust.verifier {
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
        // A certificate that cannot even be read by webpki is one of those that are to be accepted.
        if self.trust.insecure {
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
        // A certificate that cannot even be read by webpki is one of those that are to be accepted.
        if self.trust.insecure {
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
