//! The client.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use millrace_log::fs::Fs;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::tls;
use crate::config::{Authorization, BasicAuth, HttpConfig};
use crate::files;

/// More redirects are a loop.
const MAX_REDIRECTS: usize = 10;

/// Asks by what one job's configuration says. Cloning gives another handle.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: HttpConfig,
    tls: Arc<ClientConfig>,
    /// Of what the files of the TLS configuration said.
    tls_hash: u64,
    fs: Arc<dyn Fs>,
}

/// A connection that is kept for the next question.
#[derive(Debug, Default)]
pub(crate) struct Kept(Option<(Origin, SendRequest<Empty<Bytes>>)>);

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    tls: bool,
    host: Host<String>,
    port: u16,
}

/// An answer of status 200, its body still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response<Incoming>,
}

impl Answer {
    /// A header as text.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// In words, if the connection broke.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let Some(frame) = self.response.body_mut().frame().await else {
                return Ok(None);
            };
            // Trailers mean nothing here.
            if let Ok(data) = frame.map_err(|error| describe(&error))?.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

impl Client {
    /// A client that asks as the configuration says.
    ///
    /// # Errors
    ///
    /// In words, if TLS cannot be set up.
    pub(crate) fn new(config: HttpConfig, fs: Arc<dyn Fs>) -> Result<Self, String> {
        let (tls, tls_hash) = tls::client_config(&*fs, &config.tls)?;
        let inner = Inner {
            config,
            tls,
            tls_hash,
            fs,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether the files of both TLS configurations said the same.
    pub(crate) fn same_certificates(&self, other: &Self) -> bool {
        self.inner.tls_hash == other.inner.tls_hash
    }

    /// Asks, over the kept connection if it is still good, and keeps the one that was used.
    ///
    /// # Errors
    ///
    /// In words, for any other answer than 200 as well.
    pub(crate) async fn get(
        &self,
        kept: &mut Kept,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Answer, String> {
        let failed = |error: String| format!("Get {:?}: {error}", url.as_str());
        let own = self.own_headers().await.map_err(failed)?;
        let mut current = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let same_origin = Origin::of(&current) == Origin::of(url);
            let mut request = Request::get(target_of(&current));
            let all = request
                .headers_mut()
                .ok_or_else(|| failed("no request".to_owned()))?;
            all.extend(headers.clone());
            for (name, value) in &own {
                // What proves who we are goes to whom it was meant for alone, and by no other way.
                if same_origin || (name != AUTHORIZATION && !value.is_sensitive()) {
                    all.append(name, value.clone());
                }
            }
            all.insert(HOST, host_header(&current).map_err(failed)?);
            let request = request
                .body(Empty::new())
                .map_err(|error| failed(error.to_string()))?;
            let response = self.send(kept, &current, request).await.map_err(failed)?;
            let status = response.status();
            if status.is_redirection() && self.inner.config.follow_redirects {
                let location = response.headers().get(LOCATION);
                if let Some(location) = location.and_then(|location| location.to_str().ok()) {
                    let next = current.join(location);
                    current = next.map_err(|error| failed(format!("{location:?}: {error}")))?;
                    kept.0 = None;
                    continue;
                }
            }
            if status != http::StatusCode::OK {
                kept.0 = None;
                return Err(format!("server returned HTTP status {status}"));
            }
            if response
                .headers()
                .get(CONNECTION)
                .is_some_and(|value| value == "close")
            {
                kept.0 = None;
            }
            return Ok(Answer { response });
        }
        Err(failed(format!("stopped after {MAX_REDIRECTS} redirects")))
    }

    /// A kept connection may have been closed by the other side meanwhile; that is found out when
    /// it is used, and a new one made.
    async fn send(
        &self,
        kept: &mut Kept,
        url: &Url,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, String> {
        let origin = Origin::of(url)?;
        if let Some((of, mut sender)) = kept.0.take()
            && of == origin
            && sender.ready().await.is_ok()
            && let Ok(response) = sender.send_request(request.clone()).await
        {
            kept.0 = Some((of, sender));
            return Ok(response);
        }
        let mut sender = self.connect(&origin).await?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| describe(&error))?;
        kept.0 = Some((origin, sender));
        Ok(response)
    }

    async fn connect(&self, origin: &Origin) -> Result<SendRequest<Empty<Bytes>>, String> {
        let connected = match &origin.host {
            Host::Domain(name) => TcpStream::connect((name.as_str(), origin.port)).await,
            Host::Ipv4(address) => TcpStream::connect((*address, origin.port)).await,
            Host::Ipv6(address) => TcpStream::connect((*address, origin.port)).await,
        };
        let stream = connected
            .map_err(|error| format!("dial tcp {}:{}: {error}", origin.host, origin.port))?;
        // A question is one small packet; it must not wait for others.
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        if !origin.tls {
            return begin(stream).await;
        }
        let name = match self.inner.config.tls.server_name.as_str() {
            "" => match &origin.host {
                Host::Domain(name) => name.clone(),
                Host::Ipv4(address) => address.to_string(),
                Host::Ipv6(address) => address.to_string(),
            },
            name => name.to_owned(),
        };
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(self.inner.tls.clone());
        let stream = connector.connect(name, stream).await;
        begin(stream.map_err(|error| format!("tls: {error}"))?).await
    }

    /// Headers by the configuration; those that are secret are marked so. Files are read each time,
    /// so that a rotated token is used at once.
    async fn own_headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let inner = self.inner.clone();
        let reading = move || inner.read_headers();
        if !self.inner.has_files() {
            return reading();
        }
        tokio::task::spawn_blocking(reading)
            .await
            .map_err(|error| error.to_string())?
    }
}

impl Inner {
    fn has_files(&self) -> bool {
        let HttpConfig {
            basic_auth,
            authorization,
            headers,
            ..
        } = &self.config;
        let basic =
            |basic: &BasicAuth| basic.username_file.is_some() || basic.password_file.is_some();
        basic_auth.as_ref().is_some_and(basic)
            || authorization
                .as_ref()
                .is_some_and(|given| given.credentials_file.is_some())
            || headers.values().any(|header| !header.files.is_empty())
    }

    fn read(&self, path: &std::path::Path) -> Result<String, String> {
        files::read_secret(&*self.fs, path).map_err(|error| error.to_string())
    }

    fn read_headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let mut found = Vec::new();
        let agent = concat!("millrace/", env!("CARGO_PKG_VERSION"));
        found.push((USER_AGENT, HeaderValue::from_static(agent)));
        if let Some(basic) = &self.config.basic_auth {
            found.push((AUTHORIZATION, secret(&self.basic(basic)?)?));
        }
        if let Some(authorization) = &self.config.authorization {
            found.push((AUTHORIZATION, secret(&self.authorization(authorization)?)?));
        }
        for (name, header) in &self.config.headers {
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
            for value in &header.values {
                let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
                found.push((name.clone(), value));
            }
            for value in &header.secrets {
                found.push((name.clone(), secret(value.reveal())?));
            }
            for path in &header.files {
                found.push((name.clone(), secret(&self.read(path)?)?));
            }
        }
        Ok(found)
    }

    fn basic(&self, basic: &BasicAuth) -> Result<String, String> {
        let name = match &basic.username_file {
            Some(path) => self.read(path)?,
            None => basic.username.clone(),
        };
        let password = match (&basic.password, &basic.password_file) {
            (Some(password), _) => password.reveal().to_owned(),
            (None, Some(path)) => self.read(path)?,
            (None, None) => String::new(),
        };
        Ok(format!(
            "Basic {}",
            STANDARD.encode(format!("{name}:{password}"))
        ))
    }

    fn authorization(&self, authorization: &Authorization) -> Result<String, String> {
        let credentials = match (&authorization.credentials, &authorization.credentials_file) {
            (Some(credentials), _) => credentials.reveal().to_owned(),
            (None, Some(path)) => self.read(path)?,
            (None, None) => String::new(),
        };
        let kind = match authorization.kind.trim() {
            "" => "Bearer",
            kind => kind,
        };
        Ok(format!("{kind} {credentials}").trim_end().to_owned())
    }
}

fn secret(text: &str) -> Result<HeaderValue, String> {
    // The error of the library says nothing of the value, and must not.
    let value = HeaderValue::from_str(text);
    let mut value = value.map_err(|_| "a secret has characters that no header takes".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

impl Origin {
    fn of(url: &Url) -> Result<Self, String> {
        let host = url.host().ok_or("no host in the URL")?.to_owned();
        let port = url.port_or_known_default().ok_or("no port in the URL")?;
        let tls = url.scheme() == "https";
        Ok(Self { tls, host, port })
    }
}

fn target_of(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

fn host_header(url: &Url) -> Result<HeaderValue, String> {
    let host = url.host_str().ok_or("no host in the URL")?;
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    HeaderValue::from_str(&host).map_err(|error| error.to_string())
}

async fn begin<S>(stream: S) -> Result<SendRequest<Empty<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| describe(&error))?;
    // It ends with the sender; how, the sender tells.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// An error with what is behind it.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(behind) = source {
        text.push_str(&format!(": {behind}"));
        source = behind.source();
    }
    text
}
