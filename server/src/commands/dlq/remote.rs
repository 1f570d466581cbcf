//! The dead letters of a running server.

use std::time::Duration;

use millrace_queue::Origin;
use serde_json::Value;

use crate::commands::api::Api;
use crate::failure::Failure;
use crate::letters::{Action, Filter, Outcome};

/// A requeue waits for the queue.
const TIMEOUT: Duration = Duration::from_secs(150);

/// See the [module](self).
#[derive(Debug)]
pub struct Remote(Api);

impl Remote {
    /// The server at `url`.
    ///
    /// # Errors
    ///
    /// If there can be no HTTP client.
    pub fn new(url: &str) -> Result<Self, Failure> {
        Ok(Self(Api::new(url, TIMEOUT)?))
    }

    /// The letters that pass.
    ///
    /// # Errors
    ///
    /// The server does not answer, or refuses.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Value>, Failure> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        pairs.extend(filter.partition.map(|p| ("partition", p.to_string())));
        pairs.extend(filter.reason.clone().map(|text| ("reason", text)));
        let seconds = |ms: i64| format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000));
        pairs.extend(filter.since.map(|since| ("since", seconds(since.0))));
        let names = filter.names.iter().map(|name| ("name", name.to_string()));
        pairs.extend(names);
        let data = self.0.get("/api/v1/dlq", &pairs)?;
        Ok(data["letters"].as_array().cloned().unwrap_or_default())
    }

    /// One letter.
    ///
    /// # Errors
    ///
    /// There is none of this name; the server does not answer, or refuses.
    pub fn show(&self, name: Origin) -> Result<Value, Failure> {
        let pairs = [("name", name.to_string())];
        Ok(self.0.get("/api/v1/dlq/letter", &pairs)?)
    }

    /// Requeues or purges one letter.
    ///
    /// # Errors
    ///
    /// The server does not answer, or refuses.
    pub fn act(&self, action: Action, name: &str, really: bool) -> Result<Outcome, Failure> {
        let path = match action {
            Action::Requeue => "/api/v1/dlq/requeue",
            Action::Purge => "/api/v1/dlq/purge",
        };
        let pairs = [
            ("name", name.to_owned()),
            ("dry_run", (!really).to_string()),
        ];
        let data = self.0.post(path, &pairs)?;
        let letter = &data["letters"][0];
        Ok(
            match (letter["refused"].as_str(), letter["done"].as_bool()) {
                (Some(reason), _) => Outcome::Refused(reason.to_owned()),
                (None, Some(_)) => Outcome::Done,
                (None, None) => Outcome::Refused("there is no such letter any more".to_owned()),
            },
        )
    }
}
