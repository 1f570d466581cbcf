//! The admin API of a running server, for commands.

use std::fmt;
use std::time::Duration;

use reqwest::blocking::{Client, RequestBuilder};
use serde_json::Value;

use super::client;
use crate::failure::Failure;

/// A server.
#[derive(Debug)]
pub struct Api {
    client: Client,
    url: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ApiError {
    /// Nobody answers there.
    Away(String),
    /// The server refuses: its `errorType`, and its words.
    Refused(String, String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(text) => f.write_str(text),
            Self::Refused(kind, text) => write!(f, "{kind}: {text}"),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Client(error.to_string())
    }
}

impl Api {
    /// The server at `url`.
    ///
    /// # Errors
    ///
    /// If there can be no HTTP client.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, Failure> {
        let client = client::built(client::builder()?.timeout(timeout))?;
        Ok(Self {
            client,
            url: url.trim_end_matches('/').to_owned(),
        })
    }

    /// The `data` of an answer.
    ///
    /// # Errors
    ///
    /// See [`ApiError`].
    pub fn get(&self, path: &str, pairs: &[(&str, String)]) -> Result<Value, ApiError> {
        let url = format!("{}{path}", self.url);
        self.send(self.client.get(url).query(pairs))
    }

    /// The same of a request that changes something.
    ///
    /// # Errors
    ///
    /// See [`ApiError`].
    pub fn post(&self, path: &str, pairs: &[(&str, String)]) -> Result<Value, ApiError> {
        let url = format!("{}{path}", self.url);
        self.send(self.client.post(url).form(pairs))
    }

    fn send(&self, request: RequestBuilder) -> Result<Value, ApiError> {
        let answer = request.send().and_then(|response| response.json::<Value>());
        let mut answer = answer.map_err(|error| {
            ApiError::Away(format!(
                "{} does not answer: {}; is the server running? --url names another",
                self.url,
                client::why(&error)
            ))
        })?;
        if answer["status"] == "success" {
            return Ok(answer["data"].take());
        }
        let text = |field: &str| answer[field].as_str().unwrap_or("unknown").to_owned();
        Err(ApiError::Refused(text("errorType"), text("error")))
    }
}
