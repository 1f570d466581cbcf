//! Opening what the gate and the listeners work with, as the configuration says.

use std::net::SocketAddr;
use std::sync::Arc;

use millrace_auth::tls::client::{ClientTls, ClientTlsFiles};
use millrace_auth::tls::{TlsFiles, TlsReload};
use millrace_auth::{AuditLog, AuthError, TokenBook};
use millrace_fleet::StoreAccess;
use millrace_log::fs::Fs;
use millrace_model::Clock;
use prometheus::Registry;
use tracing::{info, warn};

use super::gate::{AdminPlace, Gate};
use super::metrics::EdgeMetrics;
use super::watch::{TokenFile, Watched};
use crate::config::Config;
use crate::failure::Failure;

/// What a start opens of the edge.
pub struct Edge {
    /// Lets requests through.
    pub gate: Gate,
    /// Of the listeners that others can reach.
    pub tls: Option<Arc<TlsReload>>,
    /// How stores are spoken to.
    pub stores: StoreEdge,
    /// What is to be looked at while the process runs.
    pub watched: Arc<Watched>,
}

/// What this process shows to stores, and whom of them it believes.
#[derive(Clone, Debug, Default)]
pub struct StoreEdge {
    /// The token.
    pub token: Option<Arc<TokenFile>>,
    /// TLS; `None` for none.
    pub tls: Option<Arc<ClientTls>>,
}

impl StoreEdge {
    fn open(fs: &Arc<dyn Fs>, config: &Config) -> Result<Self, AuthError> {
        let fleet = &config.fleet;
        let token = fleet.token_file.clone();
        let token = token.map(|path| TokenFile::open(fs.clone(), path));
        let files = ClientTlsFiles {
            ca: fleet.tls_ca_file.clone(),
            own: fleet
                .tls_certificate_file
                .clone()
                .zip(fleet.tls_key_file.clone()),
            server_name: fleet.tls_server_name.clone(),
        };
        let tls = fleet.tls.then(|| ClientTls::open(fs.clone(), files));
        Ok(Self {
            token: token.transpose()?.map(Arc::new),
            tls: tls.transpose()?.map(Arc::new),
        })
    }

    /// For the client of stores.
    ///
    /// # Errors
    ///
    /// TLS that cannot be set up.
    pub fn access(&self) -> Result<StoreAccess, AuthError> {
        let tls = self.tls.as_ref().map(|tls| tls.config());
        Ok(StoreAccess {
            token: self
                .token
                .as_ref()
                .map(|file| file.token())
                .unwrap_or_default(),
            tls: tls.transpose()?,
        })
    }
}

/// Reads tokens and certificates.
///
/// # Errors
///
/// Files that cannot be read or hold something else; metrics that are registered already.
pub fn open(
    fs: &Arc<dyn Fs>,
    clock: &Arc<dyn Clock>,
    config: &Config,
    registry: &Registry,
) -> Result<Edge, Failure> {
    let refused = |error: millrace_auth::AuthError| Failure::Refused(error.to_string());
    let metrics =
        EdgeMetrics::new(registry).map_err(|error| Failure::Data(format!("metrics: {error}")))?;
    let path = config.tokens_file();
    let book = match config.auth.enabled {
        true => Some(Arc::new(
            TokenBook::open(fs.clone(), path.clone()).map_err(refused)?,
        )),
        false => None,
    };
    let tls = match (&config.tls.certificate_file, &config.tls.key_file) {
        (Some(certificate), Some(key)) => {
            let files = TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: config.tls.client_ca_file.clone(),
                http2: config.server.http2_streams > 0,
            };
            let opened = TlsReload::open(fs.clone(), files);
            Some(Arc::new(opened.map_err(refused)?))
        }
        (None, _) | (_, None) => None,
    };
    let stores = StoreEdge::open(fs, config).map_err(refused)?;
    if stores.token.is_some() && stores.tls.is_none() && config.queries_fleet() {
        info!("stores are shown a token in clear text; fleet.tls=true speaks TLS to them");
    }
    let public = !config.top.listen.ip().is_loopback();
    match &book {
        Some(book) if book.is_empty() => {
            warn!(
                ?path,
                "no token is there yet; `millrace token create` makes one"
            );
        }
        Some(_) if public && tls.is_none() => {
            warn!(
                "tokens come in clear text at an address that others can reach: set server.tls, or put TLS in front"
            );
        }
        None if fs.exists(&path).unwrap_or(false) => {
            warn!(
                ?path,
                "there are tokens, and auth.enabled is off: nobody is asked for one"
            );
        }
        Some(_) | None => {}
    }
    if let Some(book) = &book {
        metrics
            .tokens
            .set(i64::try_from(book.len()).unwrap_or(i64::MAX));
    }
    let audit = AuditLog::new(fs.clone(), clock.clone(), config.audit_file());
    if config.server.admin_api {
        audit.check().map_err(|error| {
            let text = "administrative acts cannot be noted (auth.audit_file)";
            Failure::Refused(format!("{text}: {error}"))
        })?;
    }
    Ok(Edge {
        gate: Gate {
            book: book.clone(),
            trust_tenant_header: config.auth.trust_tenant_header,
            admin: admin_place(config),
            audit: Some(Arc::new(audit)),
            metrics: metrics.clone(),
        },
        watched: Arc::new(Watched::new(book, tls.clone(), stores.clone(), metrics)),
        tls,
        stores,
    })
}

fn admin_place(config: &Config) -> AdminPlace {
    match own_admin_address(config) {
        Some(_) => AdminPlace::Own,
        None if config.server.admin_listen.is_some() => AdminPlace::Main,
        None if config.top.listen.ip().is_loopback() => AdminPlace::Main,
        None => AdminPlace::Nowhere,
    }
}

/// The address of administrative routes, if it is another one than that of everything else.
#[must_use]
pub fn own_admin_address(config: &Config) -> Option<SocketAddr> {
    let address = config.server.admin_listen;
    // Two ports that the system chooses are two addresses.
    address.filter(|address| *address != config.top.listen || address.port() == 0)
}
