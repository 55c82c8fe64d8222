//! TLS settings: the CA certificates to trust and the client certificate, from `--cacert`, `--cert`, `--key` and
//! `--insecure`.
//!
//! Without `--cacert`, the trusted certificates are those of the file in `SSL_CERT_FILE`, as in OpenSSL, or else
//! the system's store, and also the cluster's CA, if a ServiceAccount is mounted.
//!
//! Files that have changed are read again before the next handshake: what is mounted from a Secret or a ConfigMap is
//! renewed while a caller runs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use std::{fs, io};

use runtime::unpoisoned::unpoisoned;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, CertificateError, RootCertStore};
use tracing::warn;

use crate::certificate;
use crate::clock;

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

/// The TLS settings of targets, which follow their files. Clones share what has been read.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    files: TrustFiles,
    /// Whether a target is `https`, so that there have to be certificates to trust.
    is_needed: bool,
    loaded: Arc<Mutex<Loaded>>,
}

/// What has been read of the files.
#[derive(Debug, Default)]
struct Loaded {
    settings: Arc<TlsSettings>,
    versions: Vec<Option<FileVersion>>,
}

/// What differs between a file and the one that has replaced it: inode, size in bytes, and time of the last change of
/// the content.
type FileVersion = (u64, u64, SystemTime);

/// The TLS settings as read from the files at one time.
#[derive(Debug)]
pub(crate) struct TlsSettings {
    /// The trusted CA certificates, in the form for verifying chains.
    pub(crate) roots: RootCertStore,
    /// The trusted CA certificates.
    pub(crate) anchors: Vec<Anchor>,
    /// The client certificate and its key, for servers that request one.
    pub(crate) identity: Option<Arc<CertifiedKey>>,
    /// Whether to accept any server certificate.
    pub(crate) insecure: bool,
}

/// A trusted CA certificate.
#[derive(Debug)]
pub(crate) struct Anchor {
    pub(crate) der: CertificateDer<'static>,
    /// When it becomes valid and when it expires; `None` if it cannot be parsed.
    validity: Option<(SystemTime, SystemTime)>,
}

impl Anchor {
    fn new(der: CertificateDer<'static>) -> Self {
        let certificate = certificate::read(&der);
        Self {
            validity: certificate.map(|read| (read.not_before, read.not_after)),
            der,
        }
    }

    /// An error if the certificate is out of date. webpki does not look at the dates of trusted certificates, and
    /// OpenSSL does.
    pub(crate) fn check_validity(&self, now: UnixTime) -> Result<(), CertificateError> {
        let unix = |time| UnixTime::since_unix_epoch(clock::since_epoch(time));
        let Some((not_before, not_after)) = self.validity else {
            return Ok(());
        };
        let (not_before, not_after) = (unix(not_before), unix(not_after));
        match (now < not_before, now > not_after) {
            (true, _) => Err(CertificateError::NotValidYetContext {
                time: now,
                not_before,
            }),
            (_, true) => Err(CertificateError::ExpiredContext {
                time: now,
                not_after,
            }),
            _ => Ok(()),
        }
    }
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

impl TrustFiles {
    /// The files of which the first that exists holds the default CA certificates; `None` if those are not used.
    fn default_stores(&self, is_needed: bool) -> Option<Vec<PathBuf>> {
        let is_used = is_needed && !self.insecure && self.cacert.is_none();
        is_used.then(|| {
            let given = ssl_cert_file().map(|path| vec![path]);
            given.unwrap_or_else(|| SYSTEM_STORES.map(PathBuf::from).into())
        })
    }

    /// The files that are read, and those that would be if they existed.
    fn paths(&self, is_needed: bool) -> impl Iterator<Item = PathBuf> {
        let default = self.default_stores(is_needed);
        let default = default.map(|stores| stores.into_iter().chain([CLUSTER_CA.into()]));
        let given = [&self.cacert, &self.cert, &self.key];
        let given = given.map(Clone::clone).into_iter().flatten();
        given.chain(default.into_iter().flatten())
    }

    /// The versions of [`TrustFiles::paths`]; `None` for a file that does not exist.
    fn versions(&self, is_needed: bool) -> Vec<Option<FileVersion>> {
        let version = |path| {
            let metadata = fs::metadata(path).ok()?;
            let modified = metadata.modified().ok()?;
            Some((metadata.ino(), metadata.len(), modified))
        };
        self.paths(is_needed).map(version).collect()
    }
}

impl Trust {
    /// Reads the files. The default CA certificates are read only if `is_needed`: if a target is `https`.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or does not contain what it should; the error names it. When certificates
    /// to trust are needed, and there are none.
    pub(crate) fn load(files: TrustFiles, is_needed: bool) -> Result<Self, TrustError> {
        // They come before the content, so that a change between the two is noticed.
        let versions = files.versions(is_needed);
        let settings = Arc::new(TlsSettings::load(&files, is_needed)?);
        Ok(Self {
            files,
            is_needed,
            loaded: Arc::new(Mutex::new(Loaded { settings, versions })),
        })
    }

    /// The settings as the files have them now. If these cannot be used, the settings before them are kept, and a
    /// warning says why, once for each change.
    ///
    /// It blocks the thread, although handshakes call it: a handshake only asks for the files' versions, and the files
    /// are small and are read after a change alone. Calls that need them at the same time have to wait for them anyway.
    pub(crate) fn current(&self) -> Arc<TlsSettings> {
        let versions = self.files.versions(self.is_needed);
        let mut loaded = unpoisoned(self.loaded.lock());
        if loaded.versions != versions {
            loaded.versions = versions;
            match TlsSettings::load(&self.files, self.is_needed) {
                Ok(settings) => loaded.settings = Arc::new(settings),
                Err(error) => {
                    warn!(%error, "changed TLS files cannot be used, the former content is kept");
                }
            }
        }
        Arc::clone(&loaded.settings)
    }
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            roots: RootCertStore::empty(),
            anchors: Vec::new(),
            identity: None,
            insecure: false,
        }
    }
}

impl TlsSettings {
    fn load(files: &TrustFiles, is_needed: bool) -> Result<Self, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let anchors = match (&files.cacert, files.default_stores(is_needed)) {
            (Some(path), _) => certificates(path)?,
            (None, Some(stores)) => default_anchors(&stores)?,
            (None, None) => Vec::new(),
        };
        let mut roots = RootCertStore::empty();
        // A system's store may contain outdated certificates that cannot be parsed; the others can still be used.
        roots.add_parsable_certificates(anchors.iter().cloned());
        if roots.is_empty() && !anchors.is_empty() {
            return Err(TrustError::Content {
                path: files.cacert.clone().unwrap_or_default(),
                problem: "none of its certificates can be used".to_owned(),
            });
        }
        Ok(Self {
            roots,
            anchors: anchors.into_iter().map(Anchor::new).collect(),
            identity: identity(files, &provider)?.map(Arc::new),
            insecure: files.insecure,
        })
    }
}

/// The value of `SSL_CERT_FILE`; empty is the same as not set.
fn ssl_cert_file() -> Option<PathBuf> {
    let path = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    path.map(PathBuf::from)
}

/// The CA certificates to trust without `--cacert`, from the first of these stores that exists.
fn default_anchors(stores: &[PathBuf]) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let store = match stores {
        // It is an error if the only one does not exist: SSL_CERT_FILE names it.
        [only] => Some(only),
        _ => stores.iter().find(|path| path.exists()),
    };
    let mut anchors = match store {
        Some(path) => certificates(path)?,
        None => Vec::new(),
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
    fs::read(path).map_err(|source| {
        let path = path.to_owned();
        TrustError::Read { path, source }
    })
}
