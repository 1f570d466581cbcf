//! TLS towards targets.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use millrace_log::fs::Fs;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};

use crate::config::TlsConfig;
use crate::files;

/// The client's side of TLS by what the configuration and its files say, and a hash of that.
///
/// # Errors
///
/// In words: files that cannot be read, certificates that are none.
pub(super) fn client_config(
    fs: &dyn Fs,
    tls: &TlsConfig,
) -> Result<(Arc<ClientConfig>, u64), String> {
    let ca = match tls.insecure_skip_verify {
        true => None,
        false => text(fs, tls.ca.as_deref(), tls.ca_file.as_deref())?,
    };
    let cert = text(fs, tls.cert.as_deref(), tls.cert_file.as_deref())?;
    let key = text(
        fs,
        tls.key.as_ref().map(|key| key.reveal()),
        tls.key_file.as_deref(),
    )?;
    let mut hasher = DefaultHasher::new();
    (&ca, &cert, &key).hash(&mut hasher);
    let hash = hasher.finish();
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(tls))
        .map_err(|error| format!("tls_config: {error}"))?;
    let builder = if tls.insecure_skip_verify {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        builder.with_root_certificates(roots(ca)?)
    };
    let (Some(cert), Some(key)) = (cert, key) else {
        return Ok((Arc::new(builder.with_no_client_auth()), hash));
    };
    let chain = certificates(&cert).map_err(|error| format!("tls_config.cert: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
    let key = key.map_err(|error| format!("tls_config.key: {error}"))?;
    let config = builder.with_client_auth_cert(chain, key);
    config
        .map(|config| (Arc::new(config), hash))
        .map_err(|error| format!("tls_config.cert: {error}"))
}

fn versions(tls: &TlsConfig) -> Vec<&'static SupportedProtocolVersion> {
    let is = |version: &Option<String>, name| version.as_deref() == Some(name);
    match (is(&tls.min_version, "TLS13"), is(&tls.max_version, "TLS12")) {
        (true, _) => vec![&rustls::version::TLS13],
        (false, true) => vec![&rustls::version::TLS12],
        (false, false) => rustls::ALL_VERSIONS.to_vec(),
    }
}

fn roots(ca: Option<String>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        let wrong = |error: &dyn std::fmt::Display| format!("tls_config.ca: {error}");
        for certificate in certificates(&ca).map_err(|error| wrong(&error))? {
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        return Ok(roots);
    }
    // Those of the system that cannot be read are told when a target cannot be verified.
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    Ok(roots)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| error.to_string())?;
    match found.is_empty() {
        true => Err("no certificate in it".to_owned()),
        false => Ok(found),
    }
}

fn text(
    fs: &dyn Fs,
    own: Option<&str>,
    file: Option<&std::path::Path>,
) -> Result<Option<String>, String> {
    match (own, file) {
        (Some(own), _) => Ok(Some(own.to_owned())),
        (None, Some(path)) => files::read_text(fs, path)
            .map(Some)
            .map_err(|error| error.to_string()),
        (None, None) => Ok(None),
    }
}

/// Takes any certificate, as `insecure_skip_verify` says. Signatures are checked all the same.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
