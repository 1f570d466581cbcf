//! Sends readings, and sends them again while the server asks for it.

use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use serde_json::Value;

use crate::commands::client;
use crate::failure::Failure;

/// Small enough for every limit of the server.
pub const READINGS_PER_REQUEST: usize = 2000;

/// A server that starts or is overloaded gets this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the server.
#[derive(Debug)]
pub struct Pusher {
    client: Client,
    url: String,
}

impl Pusher {
    /// Prepares to push readings to the server at `url`.
    ///
    /// # Errors
    ///
    /// If no HTTP client can be made.
    pub fn new(url: &str) -> Result<Self, Failure> {
        Self::to(url, "/api/v1/push")
    }

    /// Prepares to push JSON to a path of the server at `url`.
    ///
    /// # Errors
    ///
    /// If no HTTP client can be made.
    pub fn to(url: &str, path: &str) -> Result<Self, Failure> {
        let client = client::client()?;
        let url = format!("{}{path}", url.trim_end_matches('/'));
        Ok(Self { client, url })
    }

    /// Sends readings and returns the number of samples in them.
    ///
    /// # Errors
    ///
    /// The server refuses them, or does not answer within the patience that a start deserves.
    pub fn push(&self, readings: &[Value]) -> Result<u64, Failure> {
        for readings in readings.chunks(READINGS_PER_REQUEST) {
            self.send(&Value::Array(readings.to_vec()).to_string())?;
        }
        let fields = |reading: &Value| reading["fields"].as_object().map_or(0, |f| f.len());
        Ok(readings.iter().map(fields).sum::<usize>() as u64)
    }

    /// Sends a body, again while the server asks for it.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn send(&self, body: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self
                .client
                .post(&self.url)
                .header("content-type", "application/json")
                .body(body.to_owned())
                .send();
            let reason = match answer {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) if answer.status().is_server_error() => {
                    format!("answers {}", answer.status())
                }
                Ok(answer) => {
                    let status = answer.status();
                    // Without its text the status must do.
                    let text = answer.text().unwrap_or_default();
                    return Err(Failure::Client(format!(
                        "{} refuses what was sent with {status}: {}",
                        self.url,
                        text.trim()
                    )));
                }
                Err(error) if error.is_connect() => {
                    return Err(Failure::Client(format!(
                        "{} cannot be reached: {}; start the server first (`millrace`), or name it \
                         with --url",
                        self.url,
                        client::why(&error)
                    )));
                }
                Err(error) => format!("does not answer: {}", client::why(&error)),
            };
            if Instant::now() >= deadline {
                return Err(Failure::Client(format!("{} {reason}", self.url)));
            }
            #[expect(clippy::disallowed_methods, reason = "the server asked for time")]
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}
