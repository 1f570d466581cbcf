//! The HTTP client of all commands that ask a running server: it shows the token of `--token-file`.

use std::path::PathBuf;
use std::sync::OnceLock;

use http::{HeaderMap, HeaderValue, header};
use millrace_log::fs::{OsFs, read_all};
use reqwest::blocking::{Client, ClientBuilder};

use crate::cli::AccessArgs;
use crate::failure::Failure;

/// A token is shorter.
const MAX_TOKEN_BYTES: u64 = 4096;

static TOKEN_FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Notes what the command line says. Later calls change nothing.
pub fn install(access: &AccessArgs) {
    TOKEN_FILE.get_or_init(|| access.token_file.clone());
}

/// A client to be configured further.
///
/// # Errors
///
/// A file of a token that cannot be read, or holds none.
pub fn builder() -> Result<ClientBuilder, Failure> {
    let mut headers = HeaderMap::new();
    if let Some(path) = TOKEN_FILE.get().and_then(Option::as_ref) {
        let unusable = |reason: &dyn std::fmt::Display| {
            Failure::Client(format!(
                "the token's file {path:?} cannot be used: {reason}"
            ))
        };
        let bytes = read_all(&OsFs, path, MAX_TOKEN_BYTES).map_err(|error| unusable(&error))?;
        let text = String::from_utf8(bytes).map_err(|_| unusable(&"not UTF-8"))?;
        let value = HeaderValue::try_from(format!("Bearer {}", text.trim()));
        let mut value = value.map_err(|_| unusable(&"it holds no token"))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(Client::builder().default_headers(headers))
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
    built.map_err(|error| Failure::Client(format!("no HTTP client: {error}")))
}
