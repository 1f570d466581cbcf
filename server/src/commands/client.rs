//! The HTTP client of all commands that ask a running server: it shows the token, believes whom `--ca-file`
//! names, and shows the certificate of `--cert`.

use std::error::Error as _;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue, header};
use millrace_auth::tls::client::{ClientTls, ClientTlsFiles};
use millrace_log::fs::{OsFs, read_all};
use reqwest::blocking::{Client, ClientBuilder};

use crate::cli::AccessArgs;
use crate::failure::Failure;

/// A token is shorter.
const MAX_TOKEN_BYTES: u64 = 4096;

/// The token itself, where no file has it. A flag could be seen by every user of the machine.
const TOKEN_VARIABLE: &str = "MILLRACE_TOKEN";

static ACCESS: OnceLock<AccessArgs> = OnceLock::new();

/// Notes what the command line says. Later calls change nothing.
pub fn install(access: AccessArgs) {
    ACCESS.get_or_init(|| access);
}

/// A client to be configured further.
///
/// # Errors
///
/// A file of a token or a certificate that cannot be used.
pub fn builder() -> Result<ClientBuilder, Failure> {
    let none = AccessArgs::default();
    let access = ACCESS.get().unwrap_or(&none);
    let mut headers = HeaderMap::new();
    if let Some((token, place)) = token(access)? {
        let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
        let mut value = value
            .map_err(|_| Failure::Client(format!("{place} cannot be used: it holds no token")))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    let files = ClientTlsFiles {
        ca: access.ca_file.clone(),
        own: access.cert.clone().zip(access.key.clone()),
        server_name: access.server_name.clone(),
    };
    let tls = ClientTls::open(Arc::new(OsFs), files).and_then(|tls| tls.config());
    let tls = tls.map_err(|error| Failure::Client(error.to_string()))?;
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .default_headers(headers))
}

/// The token, and where it stands.
fn token(access: &AccessArgs) -> Result<Option<(String, String)>, Failure> {
    let Some(path) = &access.token_file else {
        let place = format!("the variable {TOKEN_VARIABLE}");
        return match std::env::var(TOKEN_VARIABLE) {
            Ok(token) => Ok(Some((token, place))),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(Failure::Client(format!(
                "{place} cannot be used: not UTF-8"
            ))),
        };
    };
    let place = format!("the token's file {path:?}");
    let unusable = |reason: &dyn std::fmt::Display| {
        Failure::Client(format!("{place} cannot be used: {reason}"))
    };
    let bytes = read_all(&OsFs, path, MAX_TOKEN_BYTES).map_err(|error| unusable(&error))?;
    let text = String::from_utf8(bytes).map_err(|_| unusable(&"not UTF-8"))?;
    Ok(Some((text, place)))
}

/// A client with the usual timeout.
///
/// # Errors
///
/// As [`builder`]; if there can be no client.
pub fn client() -> Result<Client, Failure> {
    built(builder()?)
}

/// The client of a builder.
///
/// # Errors
///
/// If there can be none.
pub fn built(builder: ClientBuilder) -> Result<Client, Failure> {
    let built = builder.build();
    built.map_err(|error| Failure::Client(format!("no HTTP client: {}", why(&error))))
}

/// What the library says, with its causes: that a certificate is not believed is one.
#[must_use]
pub fn why(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    // The second where another authority has the same name.
    if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        text.push_str(" (--ca-file names those who vouch for it)");
    }
    text
}
