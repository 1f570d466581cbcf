//! How targets and discovery services are asked over HTTP.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// Name and password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BasicAuth {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) username_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
}

/// What stands in `Authorization`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Authorization {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credentials_file: Option<PathBuf>,
}

impl Default for Authorization {
    fn default() -> Self {
        Self {
            kind: "Bearer".to_owned(),
            credentials: None,
            credentials_file: None,
        }
    }
}

/// TLS towards the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) server_name: String,
    pub(crate) insecure_skip_verify: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_version: Option<String>,
}

/// Values of one header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HeaderValues {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) values: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<Secret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<PathBuf>,
}

/// All of it, with paths that do not depend on where the process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HttpConfig {
    pub(crate) basic_auth: Option<BasicAuth>,
    pub(crate) authorization: Option<Authorization>,
    pub(crate) tls: TlsConfig,
    pub(crate) headers: BTreeMap<String, HeaderValues>,
    pub(crate) follow_redirects: bool,
}

/// Headers that the scraper itself sets.
const RESERVED: [&str; 13] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-authorization",
    "user-agent",
    "x-prometheus-scrape-timeout-seconds",
    "transfer-encoding",
];

impl HttpConfig {
    /// Checks what only shows once all is known.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.basic_auth.is_some() && self.authorization.is_some() {
            let what = "at most one of basic_auth and authorization (or bearer_token) can be set";
            return Err(("basic_auth", what.to_owned()));
        }
        if let Some(basic) = &self.basic_auth {
            one_of("basic_auth.password", &basic.password, &basic.password_file)?;
            let name = Some(&basic.username).filter(|name| !name.is_empty());
            one_of("basic_auth.username", &name, &basic.username_file)?;
        }
        if let Some(authorization) = &self.authorization {
            let (own, file) = (&authorization.credentials, &authorization.credentials_file);
            one_of("authorization.credentials", own, file)?;
            if authorization.kind.trim().eq_ignore_ascii_case("basic") {
                let what = "cannot be \"basic\", use basic_auth instead";
                return Err(("authorization.type", what.to_owned()));
            }
        }
        let tls = &self.tls;
        one_of("tls_config.ca", &tls.ca, &tls.ca_file)?;
        one_of("tls_config.cert", &tls.cert, &tls.cert_file)?;
        one_of("tls_config.key", &tls.key, &tls.key_file)?;
        let cert = tls.cert.is_some() || tls.cert_file.is_some();
        let key = tls.key.is_some() || tls.key_file.is_some();
        if cert != key {
            let what = "a certificate needs its key, and a key its certificate";
            return Err(("tls_config", what.to_owned()));
        }
        for version in [&tls.min_version, &tls.max_version].into_iter().flatten() {
            if version != "TLS12" && version != "TLS13" {
                let what = format!("{version:?} is not supported, one of TLS12, TLS13");
                return Err(("tls_config.min_version, max_version", what));
            }
        }
        for name in self.headers.keys() {
            if RESERVED.contains(&name.to_lowercase().as_str()) {
                let what = format!("setting header {name:?} is not allowed");
                return Err(("http_headers", what));
            }
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                return Err(("http_headers", format!("{name:?} is no header name")));
            }
        }
        Ok(())
    }

    /// Makes relative paths those of the file that names them.
    pub(crate) fn relative_to(&mut self, dir: &Path) {
        let basic = self.basic_auth.iter_mut();
        let basic = basic.flat_map(|basic| [&mut basic.username_file, &mut basic.password_file]);
        let authorization = self.authorization.iter_mut();
        let authorization = authorization.map(|given| &mut given.credentials_file);
        let tls = &mut self.tls;
        let tls = [&mut tls.ca_file, &mut tls.cert_file, &mut tls.key_file];
        let paths = basic.chain(authorization).chain(tls).flatten();
        let headers = self
            .headers
            .values_mut()
            .flat_map(|header| &mut header.files);
        for path in paths.chain(headers) {
            *path = dir.join(&*path);
        }
    }
}

fn one_of<A, B>(
    field: &'static str,
    own: &Option<A>,
    file: &Option<B>,
) -> Result<(), (&'static str, String)> {
    match (own, file) {
        (Some(_), Some(_)) => Err((
            field,
            format!("at most one of it and {field}_file can be set"),
        )),
        _ => Ok(()),
    }
}
