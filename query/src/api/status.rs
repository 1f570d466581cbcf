//! What the server says of itself. Only what is true: what Prometheus tells of its own runtime and
//! has no counterpart here is left out.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat};
use http::{StatusCode, header};
use millrace_model::TimestampMs;
use prometheus::proto::{Metric, MetricFamily, MetricType};
use serde_json::{Map, Value, json};

use super::App;
use super::answer::Answer;
use super::companions::Count;
use super::error::ApiError;
use super::json::CONTENT_TYPE;
use super::params::Params;

pub(super) fn success(data: &Value) -> Response {
    let body = format!(r#"{{"status":"success","data":{data}}}"#);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from(body)).into_response()
}

/// No key `features`: by it Grafana would take us for Mimir, and believe in a ruler that can be
/// written to.
pub(super) async fn build_info(State(app): State<Arc<App>>) -> Response {
    let build = &app.api.options.build;
    success(&json!({
        "version": build.api_version,
        "revision": build.revision,
        "branch": build.branch,
        "buildUser": "",
        "buildDate": build.build_date,
        "goVersion": "",
        "application": "millrace",
        "applicationVersion": build.version,
    }))
}

pub(super) async fn runtime_info(State(app): State<Arc<App>>) -> Response {
    let mut facts: Map<_, _> = app.api.companions.server.runtime().into_iter().collect();
    facts.insert("startTime".to_owned(), rfc3339(app.started));
    facts.insert("serverTime".to_owned(), rfc3339(app.api.clock.now()));
    success(&Value::Object(facts))
}

pub(super) async fn flags(State(app): State<Arc<App>>) -> Response {
    success(&json!(app.api.options.flags))
}

pub(super) async fn config(State(app): State<Arc<App>>) -> Response {
    success(&json!({ "yaml": app.api.companions.server.config_yaml() }))
}

pub(super) async fn wal_replay(State(app): State<Arc<App>>) -> Response {
    let (all, done) = app.api.companions.server.replay();
    success(&json!({ "min": 0, "max": all, "current": done }))
}

/// There are none: what a user must know stands in the log and on `/-/ready`.
pub(super) async fn notifications() -> Response {
    success(&json!([]))
}

/// A stream of notifications that will never be: nobody can subscribe.
pub(super) async fn notifications_live() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Entries of a list of `status/tsdb` without `limit`, and at most, as in Prometheus.
const ENTRIES: usize = 10;
const ENTRIES_MAX: usize = 10_000;

pub(super) async fn tsdb(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = match params.get("limit") {
        None => ENTRIES,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit: &usize| *limit > 0)
            .ok_or_else(|| ApiError::bad_data("limit must be a positive number"))?,
    };
    if limit > ENTRIES_MAX {
        let text = format!("limit must not exceed {ENTRIES_MAX}");
        return Err(ApiError::bad_data(text));
    }
    let statistics = app.api.companions.statistics.clone();
    app.answer(move |_, _| {
        let found = statistics.cardinality(&params.scope, limit)?;
        // Prometheus's ends of time where there is no sample.
        let (min, max) = found
            .time
            .map_or((i64::MAX, i64::MIN), |(min, max)| (min.0, max.0));
        let document = json!({
            "headStats": {
                "numSeries": found.series,
                "numLabelPairs": found.label_pairs,
                "chunkCount": found.chunks,
                "minTime": min,
                "maxTime": max,
            },
            "seriesCountByMetricName": counts(&found.series_by_metric),
            "labelValueCountByLabelName": counts(&found.values_by_label),
            "memoryInBytesByLabelName": counts(&found.bytes_by_label),
            "seriesCountByLabelValuePair": counts(&found.series_by_pair),
        });
        Ok(Answer::document(document.to_string().into_bytes()))
    })
    .await
}

fn counts(counts: &[Count]) -> Value {
    let one = |(name, value): &Count| json!({ "name": name, "value": value });
    counts.iter().map(one).collect()
}

pub(super) async fn tsdb_blocks(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let statistics = app.api.companions.statistics.clone();
    app.answer(move |_, _| {
        let blocks: Vec<_> = statistics
            .blocks()
            .into_iter()
            .map(|block| {
                json!({
                    "ulid": block.id,
                    "minTime": block.min.0,
                    "maxTime": block.end.0,
                    "stats": {
                        "numSamples": block.samples,
                        "numSeries": block.series,
                        "numChunks": block.chunks,
                        "numBytes": block.bytes,
                    },
                    "compaction": { "level": block.level },
                    "version": 1,
                })
            })
            .collect();
        let document = json!({ "blocks": blocks });
        Ok(Answer::document(document.to_string().into_bytes()))
    })
    .await
}

pub(super) async fn self_metrics(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let pattern = params
        .get("metric_name_pattern")
        .map(|pattern| {
            regex::Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
                ApiError::bad_data(format!("invalid metric_name_pattern: {error}"))
            })
        })
        .transpose()?;
    let server = app.api.companions.server.clone();
    app.answer(move |_, _| {
        let families = server.metrics();
        let wanted = families.iter().filter(|family| {
            pattern
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(family.name()))
        });
        let shown: Vec<_> = wanted.map(family).collect();
        Ok(Answer::document(json!(shown).to_string().into_bytes()))
    })
    .await
}

/// A family as protobuf's JSON has it: 64-bit whole numbers are strings, and so are floats that JSON
/// does not know.
fn family(family: &MetricFamily) -> Value {
    let kind = family.get_field_type();
    let word = match kind {
        MetricType::COUNTER => "COUNTER",
        MetricType::GAUGE => "GAUGE",
        MetricType::SUMMARY => "SUMMARY",
        MetricType::UNTYPED => "UNTYPED",
        MetricType::HISTOGRAM => "HISTOGRAM",
    };
    let metrics: Vec<_> = family
        .get_metric()
        .iter()
        .map(|metric| one_metric(metric, kind))
        .collect();
    json!({ "name": family.name(), "help": family.help(), "type": word, "metric": metrics })
}

fn one_metric(metric: &Metric, kind: MetricType) -> Value {
    let labels: Vec<_> = metric
        .get_label()
        .iter()
        .map(|pair| json!({ "name": pair.name(), "value": pair.value() }))
        .collect();
    let (name, value) = match kind {
        MetricType::COUNTER => (
            "counter",
            json!({ "value": float(metric.get_counter().get_value()) }),
        ),
        MetricType::GAUGE | MetricType::UNTYPED => (
            "gauge",
            json!({ "value": float(metric.get_gauge().get_value()) }),
        ),
        MetricType::SUMMARY => {
            let summary = metric.get_summary();
            let value = json!({
                "sampleCount": summary.sample_count().to_string(),
                "sampleSum": float(summary.sample_sum()),
            });
            ("summary", value)
        }
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let buckets: Vec<_> = histogram
                .get_bucket()
                .iter()
                .map(|bucket| {
                    json!({
                        "cumulativeCount": bucket.cumulative_count().to_string(),
                        "upperBound": float(bucket.upper_bound()),
                    })
                })
                .collect();
            let value = json!({
                "sampleCount": histogram.get_sample_count().to_string(),
                "sampleSum": float(histogram.get_sample_sum()),
                "bucket": buckets,
            });
            ("histogram", value)
        }
    };
    let mut out = Map::new();
    if !labels.is_empty() {
        out.insert("label".to_owned(), Value::Array(labels));
    }
    out.insert(name.to_owned(), value);
    Value::Object(out)
}

fn float(value: f64) -> Value {
    if value.is_finite() {
        return json!(value);
    }
    json!(match value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    })
}

pub(super) fn rfc3339(time: TimestampMs) -> Value {
    DateTime::from_timestamp_millis(time.0).map_or(Value::Null, |time| {
        Value::String(time.to_rfc3339_opts(SecondsFormat::Millis, true))
    })
}
