//! Which certificates TLS trusts, and which one it shows: what `--cacert`, `--cert`, `--key` and
//! `--insecure` name.
//!
//! Without `--cacert` that is the file in `SSL_CERT_FILE`, as in OpenSSL, or else the system's store. The CA
//! of the cluster is trusted as well then, where a ServiceAccount is mounted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, RootCertStore};

/// Where Linux distributions keep the CAs that they trust, as Go looks for them
/// (crypto/x509/root_linux.go).
const SYSTEM_STORES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where the kubelet mounts the CA of the cluster with a ServiceAccount.
const CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// The files that TLS is configured by.
#[derive(Clone, Debug, Default)]
pub struct TrustFiles {
    /// Certificates to trust, in place of the default ones.
    pub cacert: Option<PathBuf>,
    /// The certificate chain to show to servers that ask for one.
    pub cert: Option<PathBuf>,
    /// Its private key, where that is not in the same file.
    pub key: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// Whom TLS trusts, and who it is itself.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Verifies chains that lead to one of `anchors`; `None` if there is none.
    pub(crate) verifier: Option<Arc<WebPkiServerVerifier>>,
    /// The trusted certificates themselves.
    pub(crate) anchors: Arc<[CertificateDer<'static>]>,
    /// What is shown to servers that ask for a certificate.
    pub(crate) identity: Option<Arc<CertifiedKey>>,
    /// Accept any certificate.
    pub(crate) insecure: bool,
}

/// Why TLS cannot be configured so.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not PEM, or lacks what it is named for.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The key is not the certificate's.
    #[error("{}: the key does not fit the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The file with the key.
        key: PathBuf,
        /// The file with the certificate.
        cert: PathBuf,
    },
    /// Nothing is trusted.
    #[error(
        "https needs certificates to trust, and this system has none: give --cacert FILE, or set SSL_CERT_FILE"
    )]
    Nothing,
}

impl Trust {
    /// Reads the files. Those that are trusted by default are read only where they are needed, for
    /// `https`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or is not what it is to be; the error names it. When there is nothing
    /// to trust, although it is needed.
    pub fn load(files: &TrustFiles, is_needed: bool) -> Result<Self, TrustError> {
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
    // A store may hold certificates that no one can use any more; one of many is no reason to stop.
    roots.add_parsable_certificates(anchors.iter().cloned());
    let builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.build().map_err(|error| TrustError::Content {
        path: files.cacert.clone().unwrap_or_default(),
        problem: format!("none of its certificates can be used: {error}"),
    })
}

/// What is trusted where nothing is named.
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
        true => Err(TrustError::Nothing),
        false => Ok(anchors),
    }
}

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
                "holds no private key in PEM, or one that is encrypted".to_owned()
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
