//! The query string.

use axum::extract::Query;
use axum::http::Uri;
use millrace_model::{METRIC_NAME, TimestampMs};

use crate::number::parse_i64;
use crate::report::excerpt;
use crate::{IngestError, Precision};

/// The parameters. Those that are not known (`org`, `rp`, `u` …) are ignored.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Takes them from the address of a request.
    ///
    /// # Errors
    ///
    /// [`IngestError::BadParameter`] if it is no query string.
    pub(super) fn of(uri: &Uri) -> Result<Self, IngestError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(uri);
        let Query(pairs) = query.map_err(|_| IngestError::BadParameter {
            name: "query string",
            got: excerpt(uri.query().unwrap_or_default().as_bytes()),
            expected: "name=value pairs, percent-encoded",
        })?;
        Ok(Self(pairs))
    }

    /// The first value under `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The unit of timestamps, as `parse` reads it.
    pub(super) fn precision(
        &self,
        default: Precision,
        parse: impl Fn(&str) -> Result<Precision, IngestError>,
    ) -> Result<Precision, IngestError> {
        match self.get("precision") {
            None | Some("") => Ok(default),
            Some(text) => parse(text),
        }
    }

    /// A parameter that is `true` or `false`.
    pub(super) fn flag(&self, name: &'static str, default: bool) -> Result<bool, IngestError> {
        match self.get(name) {
            None | Some("") => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(IngestError::BadParameter {
                name,
                got: excerpt(other.as_bytes()),
                expected: "true or false",
            }),
        }
    }

    /// `?timestamp=` in milliseconds, for samples that have none.
    pub(super) fn timestamp(&self) -> Result<Option<TimestampMs>, IngestError> {
        let Some(text) = self.get("timestamp") else {
            return Ok(None);
        };
        let timestamp = parse_i64(text.as_bytes()).map(TimestampMs);
        timestamp.map(Some).ok_or(IngestError::BadParameter {
            name: "timestamp",
            got: excerpt(text.as_bytes()),
            expected: "milliseconds since the epoch",
        })
    }

    /// Every `?extra_label=name=value`.
    pub(super) fn extra_labels(&self) -> Result<Vec<(String, String)>, IngestError> {
        let given = self.0.iter().filter(|(name, _)| name == "extra_label");
        given
            .map(|(_, text)| {
                let label = text.split_once('=');
                let label = label.filter(|(name, _)| !name.is_empty() && *name != METRIC_NAME);
                let (name, value) = label.ok_or(IngestError::BadParameter {
                    name: "extra_label",
                    got: excerpt(text.as_bytes()),
                    expected: "name=value, the name not being __name__",
                })?;
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect()
    }
}
