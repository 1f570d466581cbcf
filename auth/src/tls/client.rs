//! The client's side of TLS: whose certificates are believed, and which one is shown, from PEM files that may
//! change while it runs.
//!
//! Invariants:
//! - changed files are taken as a whole or not at all;
//! - a [`ClientConfig`] that was given out follows them: each new connection is judged by what is in force then.
//!   No session is resumed, since that would skip the judgement.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use millrace_log::fs::{Fs, read_all};
use parking_lot::{Mutex, RwLock};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{MAX_PEM_BYTES, certificates};
use crate::AuthError;

/// Which files, and which name.
#[derive(Clone, Debug, Default)]
pub struct ClientTlsFiles {
    /// The certificates (PEM) of those who may vouch for servers; `None` for the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate (PEM) and its key, where servers ask for one.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The name that servers' certificates must be for, if it is not the one that they are reached by.
    pub server_name: Option<String>,
}

/// What was in the files.
#[derive(PartialEq, Eq)]
struct Pem {
    ca: Option<Vec<u8>>,
    own: Option<(Vec<u8>, Vec<u8>)>,
}

/// What new connections are judged by, and show.
pub struct ClientTls {
    fs: Arc<dyn Fs>,
    files: ClientTlsFiles,
    seen: Mutex<Pem>,
    live: Arc<Live>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the files. The system's certificates are read when they are first needed.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or holds something else, a key that is not the certificate's, a name that is
    /// none.
    pub fn open(fs: Arc<dyn Fs>, files: ClientTlsFiles) -> Result<Self, AuthError> {
        let name = files.server_name.clone().map(ServerName::try_from);
        let server_name = name.transpose().map_err(|error| AuthError::Name {
            name: files.server_name.clone().unwrap_or_default(),
            reason: error.to_string(),
        })?;
        let provider = Arc::new(ring::default_provider());
        let pem = read(&*fs, &files)?;
        let now = parts(&provider, &files, &pem)?;
        Ok(Self {
            fs,
            files,
            seen: Mutex::new(pem),
            live: Arc::new(Live {
                provider,
                server_name,
                system: OnceLock::new(),
                now: RwLock::new(now),
            }),
        })
    }

    /// The configuration for a client, which follows the files.
    ///
    /// # Errors
    ///
    /// If the library's own parts do not go together.
    pub fn config(&self) -> Result<ClientConfig, AuthError> {
        let builder = ClientConfig::builder_with_provider(self.live.provider.clone());
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| AuthError::Tls(error.to_string()))?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(self.live.clone())
            .with_client_cert_resolver(self.live.clone());
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// Reads the files again and takes them if one has changed; says whether one had.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); what was read before stays in force.
    pub fn reload(&self) -> Result<bool, AuthError> {
        let mut seen = self.seen.lock();
        let pem = read(&*self.fs, &self.files)?;
        if *seen == pem {
            return Ok(false);
        }
        *self.live.now.write() = parts(&self.live.provider, &self.files, &pem)?;
        *seen = pem;
        Ok(true)
    }
}

fn read(fs: &dyn Fs, files: &ClientTlsFiles) -> Result<Pem, AuthError> {
    let bytes = |path: &PathBuf| {
        let read = read_all(fs, path, MAX_PEM_BYTES);
        read.map_err(|error| AuthError::file(path, error))
    };
    let own = files.own.as_ref();
    Ok(Pem {
        ca: files.ca.as_ref().map(bytes).transpose()?,
        own: own
            .map(|(certificate, key)| Ok((bytes(certificate)?, bytes(key)?)))
            .transpose()?,
    })
}

/// What the files say.
#[derive(Debug)]
struct Parts {
    /// `None` for the system's.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    own: Option<Arc<CertifiedKey>>,
}

fn parts(
    provider: &Arc<CryptoProvider>,
    files: &ClientTlsFiles,
    pem: &Pem,
) -> Result<Parts, AuthError> {
    let verifier = match (&files.ca, &pem.ca) {
        (Some(path), Some(bytes)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path, bytes)? {
                let added = roots.add(certificate);
                added.map_err(|error| AuthError::content(path, error))?;
            }
            let verifier = verifier(provider, roots);
            Some(verifier.map_err(|error| AuthError::content(path, error))?)
        }
        (None, _) | (_, None) => None,
    };
    let own = match (&files.own, &pem.own) {
        (Some((certificate_path, key_path)), Some((certificate, key))) => {
            let chain = certificates(certificate_path, certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
                // What the library says might quote the key.
                AuthError::content(key_path, "no private key in PEM")
            })?;
            let own = CertifiedKey::from_der(chain, key, provider);
            Some(Arc::new(own.map_err(|error| {
                AuthError::content(certificate_path, error)
            })?))
        }
        (None, _) | (_, None) => None,
    };
    Ok(Parts { verifier, own })
}

fn verifier(
    provider: &Arc<CryptoProvider>,
    roots: RootCertStore,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| error.to_string())
}

/// What is asked at each new connection.
#[derive(Debug)]
struct Live {
    provider: Arc<CryptoProvider>,
    server_name: Option<ServerName<'static>>,
    /// Of the system's certificates; an error where there are none.
    system: OnceLock<Result<Arc<WebPkiServerVerifier>, String>>,
    now: RwLock<Parts>,
}

impl Live {
    fn verifier(&self) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        if let Some(verifier) = &self.now.read().verifier {
            return Ok(verifier.clone());
        }
        let system = self.system.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            // One that cannot be read vouches for nobody; if that leaves none, that is told.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            verifier(&self.provider, roots)
        });
        system.clone().map_err(|error| {
            rustls::Error::General(format!(
                "the system's certificates cannot be used ({error}); a file of those who vouch for servers is needed"
            ))
        })
    }
}

impl ServerCertVerifier for Live {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = self.server_name.as_ref().unwrap_or(name);
        self.verifier()?
            .verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

impl ResolvesClientCert for Live {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let own = self.now.read().own.clone();
        // Without a common scheme the server refuses us for showing nothing, which is what it can tell.
        own.filter(|own| own.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.now.read().own.is_some()
    }
}

#[cfg(test)]
mod tests;
