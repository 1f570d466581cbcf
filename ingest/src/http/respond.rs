//! Answers, in the shape that the clients of each protocol read.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::influx;
use crate::metrics::Protocol;
use crate::report::Report;
use crate::service::Answer;
use crate::{Ingest, IngestError};

const POSITION: HeaderName = HeaderName::from_static("millrace-position");
const DURABILITY: HeaderName = HeaderName::from_static("millrace-durability");
const INFLUX_ERROR: HeaderName = HeaderName::from_static("x-influxdb-error");

/// The answer to a request of `protocol`.
pub(super) fn respond(
    ingest: &Ingest,
    protocol: Protocol,
    outcome: Result<Answer, IngestError>,
) -> Response {
    let mut response = match outcome {
        Ok(answer) => answered(ingest, protocol, &answer),
        Err(error) => refused(ingest, protocol, &error),
    };
    match protocol {
        Protocol::InfluxV1 | Protocol::InfluxV2 => influx::add_headers(&mut response),
        Protocol::Push | Protocol::RemoteWrite => {}
    }
    // Bodies may quote what a stranger sent.
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// 405, naming the methods that there are.
pub(super) fn method_not_allowed(allow: &'static str) -> Response {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        [(header::ALLOW, allow)],
        format!("method not allowed; use one of: {allow}\n"),
    )
        .into_response()
}

fn answered(ingest: &Ingest, protocol: Protocol, answer: &Answer) -> Response {
    let mut response = if answer.report.is_empty() {
        all_good(protocol, answer)
    } else {
        partly_good(protocol, answer)
    };
    if let Some(position) = &answer.position {
        let position = HeaderValue::try_from(position.to_string());
        let headers = response.headers_mut();
        headers.insert(POSITION, position.expect("digits and separators"));
        headers.insert(DURABILITY, HeaderValue::from_static(ingest.durability()));
    }
    response
}

fn all_good(protocol: Protocol, answer: &Answer) -> Response {
    match protocol {
        Protocol::Push => {
            Json(json!({ "accepted": answer.accepted, "rejected": 0 })).into_response()
        }
        Protocol::InfluxV1 | Protocol::InfluxV2 | Protocol::RemoteWrite => {
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

fn partly_good(protocol: Protocol, answer: &Answer) -> Response {
    let Answer {
        accepted, report, ..
    } = answer;
    let status = StatusCode::BAD_REQUEST;
    match protocol {
        Protocol::Push => {
            let body = json!({
                "accepted": accepted,
                "rejected": report.items(),
                "error": summary(*accepted, report),
                "errors": report.details(),
            });
            (status, Json(body)).into_response()
        }
        Protocol::InfluxV1 => {
            // Telegraf drops what is refused only if it finds "partial write" in the text;
            // anything else it would send again for ever.
            let text = format!(
                "partial write: {} dropped={}",
                lines(report),
                report.items()
            );
            influx_v1(status, &text)
        }
        Protocol::InfluxV2 => {
            let text = format!("{}: {}", summary(*accepted, report), lines(report));
            (status, Json(json!({ "code": "invalid", "message": text }))).into_response()
        }
        Protocol::RemoteWrite => {
            // Prometheus logs the first line, so it has to tell what matters.
            let (summary, details) = (summary(*accepted, report), report.details());
            let first = details.first().map(ToString::to_string).unwrap_or_default();
            let mut text = format!("{summary}: {first}\n");
            for rejection in details.iter().skip(1) {
                text.push_str(&format!("{rejection}\n"));
            }
            (status, text).into_response()
        }
    }
}

fn summary(accepted: u64, report: &Report) -> String {
    let items = report.items();
    let plural = if items == 1 { "item" } else { "items" };
    let stored = if accepted == 1 { "sample" } else { "samples" };
    format!("{accepted} {stored} stored, {items} {plural} refused")
}

fn lines(report: &Report) -> String {
    let details = report.details().iter().map(ToString::to_string);
    let mut text = details.collect::<Vec<_>>().join("; ");
    let more = report.items() - report.details().len() as u64;
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

fn refused(ingest: &Ingest, protocol: Protocol, error: &IngestError) -> Response {
    let (status, text) = (error.status(), error.to_string());
    let mut response = match protocol {
        Protocol::Push => {
            let body = json!({ "accepted": 0, "error": text, "reason": error.reason() });
            (status, Json(body)).into_response()
        }
        Protocol::InfluxV1 => influx_v1(status, &text),
        Protocol::InfluxV2 => (status, Json(influx_v2(error, &text))).into_response(),
        Protocol::RemoteWrite => (status, format!("{text}\n")).into_response(),
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let seconds = HeaderValue::from(ingest.retry_after_seconds());
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn influx_v1(status: StatusCode, text: &str) -> Response {
    let mut response = (status, Json(json!({ "error": text }))).into_response();
    // The body has all of it; a header of many kilobytes would trouble clients and proxies.
    let printable = text.chars().take(500).map(|c| match c {
        ' '..='~' => c,
        _ => '?',
    });
    let value = HeaderValue::try_from(printable.collect::<String>());
    let value = value.expect("printable ASCII is a header value");
    response.headers_mut().insert(INFLUX_ERROR, value);
    response
}

fn influx_v2(error: &IngestError, text: &str) -> Value {
    let code = match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => "request too large",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        StatusCode::INTERNAL_SERVER_ERROR => "internal error",
        _ => "invalid",
    };
    let mut body = json!({ "code": code, "message": text });
    if let IngestError::TooLarge { limit, .. } = error {
        body["maxLength"] = json!(limit);
    }
    body
}
