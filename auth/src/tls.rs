//! Certificates, keys, and what a TLS listener is configured with, from PEM files that may change while it
//! runs.
//!
//! Invariants:
//! - a changed file is taken as a whole or not at all: certificate and key must belong together;
//! - a connection keeps what it began with.

pub mod client;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_log::fs::{Fs, read_all};
use parking_lot::{Mutex, RwLock};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::AuthError;

/// A chain of certificates is some kilobytes.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// Which files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Our certificate and what vouches for it (PEM), ours first.
    pub certificate: PathBuf,
    /// Our key (PEM).
    pub key: PathBuf,
    /// The certificates (PEM) of those who may vouch for clients; each client must then show one.
    pub client_ca: Option<PathBuf>,
    /// Whether clients may choose HTTP/2.
    pub http2: bool,
}

/// What was in the files.
#[derive(Clone, PartialEq, Eq)]
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// What new connections are configured with.
pub struct TlsReload {
    fs: Arc<dyn Fs>,
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Pem>,
}

impl std::fmt::Debug for TlsReload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsReload")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl TlsReload {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or holds something else, or a key that is not the certificate's.
    pub fn open(fs: Arc<dyn Fs>, files: TlsFiles) -> Result<Self, AuthError> {
        let pem = read(&*fs, &files)?;
        let current = configure(&files, &pem)?;
        Ok(Self {
            fs,
            files,
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new(pem),
        })
    }

    /// For a new connection.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.read().clone()
    }

    /// Reads the files again and takes them if one has changed; says whether one had.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); what was read before stays in force. While one file is new and the other
    /// one is not yet, the two do not belong together: that is such an error, and passes.
    pub fn reload(&self) -> Result<bool, AuthError> {
        let mut seen = self.seen.lock();
        let pem = read(&*self.fs, &self.files)?;
        if *seen == pem {
            return Ok(false);
        }
        let new = configure(&self.files, &pem)?;
        *self.current.write() = Arc::new(new);
        *seen = pem;
        Ok(true)
    }
}

/// Makes ring the process's default, for clients that are given no configuration of TLS.
pub fn install_provider() {
    // An error says that there is one already.
    drop(ring::default_provider().install_default());
}

fn read(fs: &dyn Fs, files: &TlsFiles) -> Result<Pem, AuthError> {
    let bytes = |path: &Path| {
        let read = read_all(fs, path, MAX_PEM_BYTES);
        read.map_err(|error| AuthError::file(path, error))
    };
    Ok(Pem {
        certificate: bytes(&files.certificate)?,
        key: bytes(&files.key)?,
        client_ca: files.client_ca.as_deref().map(bytes).transpose()?,
    })
}

fn configure(files: &TlsFiles, pem: &Pem) -> Result<ServerConfig, AuthError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&files.certificate, &pem.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| {
        // What the library says might quote the key.
        AuthError::content(&files.key, "no private key in PEM")
    })?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| AuthError::content(&files.certificate, error))?;
    let builder = match (&files.client_ca, &pem.client_ca) {
        (Some(path), Some(bytes)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path, bytes)? {
                let added = roots.add(certificate);
                added.map_err(|error| AuthError::content(path, error))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let verifier = verifier.map_err(|error| AuthError::content(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
        (None, _) | (_, None) => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| AuthError::content(&files.certificate, error))?;
    let protocols: &[&[u8]] = match files.http2 {
        true => &[b"h2", b"http/1.1"],
        false => &[b"http/1.1"],
    };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, AuthError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| AuthError::content(path, error))?;
    if found.is_empty() {
        return Err(AuthError::content(path, "no certificate in PEM"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_log::fs::OsFs;

    fn write_pair(dir: &tempfile::TempDir) -> TlsFiles {
        let files = TlsFiles {
            certificate: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
            client_ca: None,
            http2: false,
        };
        let (certificate, key) = pair();
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn changed_files_are_taken_once_both_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let files = write_pair(&dir);
        let tls = TlsReload::open(Arc::new(OsFs), files.clone()).unwrap();
        let first = tls.current();
        assert!(!tls.reload().unwrap());
        assert!(Arc::ptr_eq(&first, &tls.current()));
        let (certificate, key) = pair();
        std::fs::write(&files.certificate, certificate).unwrap();
        // The key is still the old one.
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&first, &tls.current()));
        std::fs::write(&files.key, key).unwrap();
        assert!(tls.reload().unwrap());
        assert!(!Arc::ptr_eq(&first, &tls.current()));
    }

    #[test]
    fn what_is_no_certificate_or_key_is_named_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let files = write_pair(&dir);
        let open = |files: &TlsFiles| TlsReload::open(Arc::new(OsFs), files.clone());
        let canary = "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END";
        std::fs::write(&files.key, canary).unwrap();
        let error = open(&files).unwrap_err().to_string();
        assert!(error.contains("key.pem"), "{error}");
        assert!(!error.contains("Y2Fu"), "{error}");
        std::fs::write(&files.certificate, "nothing").unwrap();
        let error = open(&files).unwrap_err().to_string();
        assert!(error.contains("cert.pem"), "{error}");
        let mut with_ca = write_pair(&dir);
        with_ca.client_ca = Some(dir.path().join("ca.pem"));
        let error = open(&with_ca).unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
        std::fs::write(dir.path().join("ca.pem"), pair().0).unwrap();
        assert!(open(&with_ca).is_ok());
    }
}
