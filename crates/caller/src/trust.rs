//! TLS settings: the CA certificates to trust and the client certificate, from `--cacert`, `--cert`, `--key` and
//! `--insecure`.
//!
//! Without `--cacert`, the trusted certificates are those of the file in `SSL_CERT_FILE`, as in OpenSSL, or else
//! the system's store, and also the cluster's CA, if a ServiceAccount is mounted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, RootCertStore};

/// Paths at which Linux distributions keep the trusted CA certificates: the files that Go tries
/// (crypto/x509/root_linux.go).
const SYSTEM_STORES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Path at which the kubelet mounts the cluster's CA certificate, with a ServiceAccount.
const CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// The files of the TLS settings, all in PEM.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustFiles {
    /// CA certificates to trust, in place of the default ones.
    pub cacert: Option<PathBuf>,
    /// Client certificate, with its chain.
    pub cert: Option<PathBuf>,
    /// Private key of `cert`, if it is not in the same file.
    pub key: Option<PathBuf>,
    /// Whether to accept any server certificate.
    pub insecure: bool,
}

/// The TLS settings, loaded: the CA certificates to trust and the client certificate.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Verifies that a certificate chain leads to one of `anchors`; `None` if there are none.
    pub(crate) verifier: Option<Arc<WebPkiServerVerifier>>,
    /// The trusted CA certificates.
    pub(crate) anchors: Arc<[CertificateDer<'static>]>,
    /// The client certificate and its key, for servers that request one.
    pub(crate) identity: Option<Arc<CertifiedKey>>,
    /// Whether to accept any server certificate.
    pub(crate) insecure: bool,
}

/// Why the TLS settings cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file is not PEM, or does not contain the certificate or key that it is given for.
    #[error("{}: {problem}", path.display())]
    Content {
        /// Path of the file.
        path: PathBuf,
        /// The problem with the content, in words.
        problem: String,
    },
    /// The private key does not belong to the certificate.
    #[error("{}: the key does not belong to the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// Path of the file with the key.
        key: PathBuf,
        /// Path of the file with the certificate.
        cert: PathBuf,
    },
    /// There is no trusted certificate, although a target needs one.
    #[error(
        "https needs certificates to trust, and this system has none: give --cacert FILE, or set SSL_CERT_FILE"
    )]
    NoAnchors,
}

impl Trust {
    /// Reads the files. The default CA certificates are read only if `is_needed`: if a target is `https`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used, which the error names, or when a target is `https` and there is no
    /// certificate to trust.
    pub(crate) fn load(files: &TrustFiles, is_needed: bool) -> Result<Self, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let anchors = match &files.cacert {
            Some(path) => certificates(path)?,
            None if is_needed && !files.insecure => default_anchors()?,
            None => Vec::new(),
        };
        let verifier = match anchors.is_empty() {
            true => None,
            false => Some(verifier(&anchors, &provider, files)?),
        };
        Ok(Self {
            verifier,
            anchors: anchors.into(),
            identity: identity(files, &provider)?.map(Arc::new),
            insecure: files.insecure,
        })
    }
}

fn verifier(
    anchors: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
    files: &TrustFiles,
) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    let mut roots = RootCertStore::empty();
    // A system's store may contain outdated certificates that cannot be parsed; the others can still be used.
    roots.add_parsable_certificates(anchors.iter().cloned());
    let builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.build().map_err(|error| TrustError::Content {
        path: files.cacert.clone().unwrap_or_default(),
        problem: format!("none of its certificates can be used: {error}"),
    })
}

/// The CA certificates to trust without `--cacert`.
fn default_anchors() -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    let mut anchors = match named {
        Some(path) => certificates(Path::new(&path))?,
        None => {
            let mut stores = SYSTEM_STORES.iter().map(Path::new);
            match stores.find(|path| path.exists()) {
                Some(path) => certificates(path)?,
                None => Vec::new(),
            }
        }
    };
    if Path::new(CLUSTER_CA).exists() {
        anchors.extend(certificates(Path::new(CLUSTER_CA))?);
    }
    match anchors.is_empty() {
        true => Err(TrustError::NoAnchors),
        false => Ok(anchors),
    }
}

/// The client certificate and its private key, if one is given.
fn identity(
    files: &TrustFiles,
    provider: &CryptoProvider,
) -> Result<Option<CertifiedKey>, TrustError> {
    let Some(cert) = &files.cert else {
        return Ok(None);
    };
    let chain = certificates(cert)?;
    let key = files.key.as_ref().unwrap_or(cert);
    let pem = read(key)?;
    let private_key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let problem = match error {
            pem::Error::NoItemsFound => {
                "holds no private key in PEM, or an encrypted one".to_owned()
            }
            error => format!("not PEM: {error}"),
        };
        let path = key.clone();
        TrustError::Content { path, problem }
    })?;
    let identity = CertifiedKey::from_der(chain, private_key, provider);
    identity.map(Some).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TrustError::Mismatch {
            key: key.clone(),
            cert: cert.clone(),
        },
        error => TrustError::Content {
            path: key.clone(),
            problem: format!("the key cannot be used: {error}"),
        },
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let content = |problem| TrustError::Content {
        path: path.to_owned(),
        problem,
    };
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| content(format!("not PEM: {error}")))?;
    match certificates.is_empty() {
        true => Err(content("holds no certificate in PEM".to_owned())),
        false => Ok(certificates),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    std::fs::read(path).map_err(|source| {
        let path = path.to_owned();
        TrustError::Read { path, source }
    })
}
