//! Alerts in the JSON of Alertmanager's API, version 2.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use millrace_model::{Labels, TimestampMs};
use serde::Serialize;

use crate::alert::ActiveAlert;

/// An alert on its way.
#[derive(Clone, Debug)]
pub(crate) struct Notification {
    pub(crate) labels: Labels,
    annotations: BTreeMap<String, String>,
    starts_at: Option<TimestampMs>,
    ends_at: Option<TimestampMs>,
    generator_url: String,
}

/// In the order in which Prometheus writes the fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    annotations: &'a BTreeMap<String, String>,
    ends_at: String,
    starts_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
}

impl Notification {
    pub(crate) fn new(alert: &ActiveAlert, labels: Labels, generator_url: &str) -> Self {
        Self {
            labels,
            annotations: alert.annotations.iter().cloned().collect(),
            starts_at: alert.fired_at,
            ends_at: alert.resolved_at.or(alert.valid_until),
            generator_url: generator_url.to_owned(),
        }
    }
}

impl Notification {
    /// The same with other labels.
    pub(crate) fn with(&self, labels: Labels) -> Self {
        Self {
            labels,
            ..self.clone()
        }
    }
}

/// The body of a request.
pub(crate) fn body(alerts: &[Notification]) -> Vec<u8> {
    let posted: Vec<Posted<'_>> = alerts
        .iter()
        .map(|alert| Posted {
            annotations: &alert.annotations,
            ends_at: moment(alert.ends_at),
            starts_at: moment(alert.starts_at),
            generator_url: &alert.generator_url,
            labels: alert.labels.iter().collect(),
        })
        .collect();
    serde_json::to_vec(&posted).expect("texts become JSON")
}

/// Go's first moment stands for none.
fn moment(time: Option<TimestampMs>) -> String {
    time.and_then(|time| DateTime::from_timestamp_millis(time.0))
        .map_or_else(
            || "0001-01-01T00:00:00.000Z".to_owned(),
            |time| time.to_rfc3339_opts(SecondsFormat::Millis, true),
        )
}
