//! What the server says of itself. Only what is true: lists that are empty because there are no
//! rules, alerts or scrape targets yet, and facts that we know. What Prometheus tells of its own
//! runtime and has no counterpart here is left out.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, SecondsFormat};
use http::header;
use millrace_model::TimestampMs;
use serde_json::{Value, json};

use super::App;
use super::json::CONTENT_TYPE;

fn success(data: &Value) -> Response {
    let body = format!(r#"{{"status":"success","data":{data}}}"#);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from(body)).into_response()
}

pub(super) async fn rules() -> Response {
    success(&json!({ "groups": [] }))
}

pub(super) async fn alerts() -> Response {
    success(&json!({ "alerts": [] }))
}

pub(super) async fn alertmanagers() -> Response {
    success(&json!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] }))
}

pub(super) async fn targets() -> Response {
    success(&json!({ "activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {} }))
}

pub(super) async fn targets_metadata() -> Response {
    success(&json!([]))
}

pub(super) async fn scrape_pools() -> Response {
    success(&json!({ "scrapePools": [] }))
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
    success(&json!({
        "startTime": rfc3339(app.started),
        "serverTime": rfc3339(app.api.clock.now()),
    }))
}

pub(super) async fn flags(State(app): State<Arc<App>>) -> Response {
    success(&json!(app.api.options.flags))
}

fn rfc3339(time: TimestampMs) -> Value {
    DateTime::from_timestamp_millis(time.0).map_or(Value::Null, |time| {
        Value::String(time.to_rfc3339_opts(SecondsFormat::Millis, true))
    })
}
