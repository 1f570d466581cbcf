//! Answers, in the shape that the clients of each protocol read.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::params::Params;
use super::{influx, media, otlp};
use crate::memory::Reservation;
use crate::metrics::Protocol;
use crate::report::{Place, Rejection, Report};
use crate::service::Answer;
use crate::{Ingest, IngestError};

const POSITION: HeaderName = HeaderName::from_static("millrace-position");
const DURABILITY: HeaderName = HeaderName::from_static("millrace-durability");
/// What remote write 2.0 counts: samples, histograms, exemplars.
const WRITTEN: [HeaderName; 3] = [
    HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];
const INFLUX_ERROR: HeaderName = HeaderName::from_static("x-influxdb-error");

/// How a request's answer is to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) protocol: Protocol,
    /// Whether the answer is a receipt of everything that was refused.
    pub(super) full_receipt: bool,
    /// Whether an OTLP request is JSON.
    json: bool,
}

impl Shape {
    pub(super) fn of(protocol: Protocol, parts: &Parts) -> Self {
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.map(|value| value.as_bytes());
        let second = protocol == Protocol::RemoteWrite && media::is_remote_write_2(content_type);
        let params = Params::of(&parts.uri);
        Self {
            protocol: if second {
                Protocol::RemoteWrite2
            } else {
                protocol
            },
            full_receipt: params.is_ok_and(|params| params.get("receipt") == Some("full")),
            json: media::is_json(content_type),
        }
    }
}

/// The answer to a request.
pub(super) fn respond(
    ingest: &Ingest,
    shape: &Shape,
    outcome: Result<Answer, IngestError>,
) -> Response {
    let written = outcome.as_ref().map_or(0, |answer| answer.accepted);
    let mut response = match outcome {
        Ok(answer) => answered(ingest, shape, answer),
        Err(error) => refused(ingest, shape, &error),
    };
    match shape.protocol {
        Protocol::InfluxV1 | Protocol::InfluxV2 | Protocol::InfluxV3 => {
            influx::add_headers(&mut response);
        }
        // Without them a sender takes it that 2.0 is not spoken here.
        Protocol::RemoteWrite2 => {
            for (name, count) in WRITTEN.into_iter().zip([written, 0, 0]) {
                response.headers_mut().insert(name, count.into());
            }
        }
        Protocol::Push
        | Protocol::RemoteWrite
        | Protocol::Otlp
        | Protocol::Text
        | Protocol::Pushgateway
        | Protocol::VmJson
        | Protocol::Csv => {}
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

fn answered(ingest: &Ingest, shape: &Shape, answer: Answer) -> Response {
    let position = answer.position.clone();
    let mut response = if shape.full_receipt {
        full_receipt(status(shape, &answer), answer)
    } else if answer.report.is_empty() {
        all_good(shape, &answer)
    } else {
        partly_good(shape, &answer)
    };
    if let Some(position) = &position {
        let position = HeaderValue::try_from(position.to_string());
        let headers = response.headers_mut();
        headers.insert(POSITION, position.expect("digits and separators"));
        headers.insert(DURABILITY, HeaderValue::from_static(ingest.durability()));
    }
    response
}

/// Everything that was refused, in one form for all protocols.
#[derive(Serialize)]
struct Receipt<'a> {
    accepted: u64,
    /// Samples that relabelling drops, where there are such.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
    rejected: u64,
    rejected_samples: u64,
    kept_samples: u64,
    reasons: BTreeMap<&'static str, u64>,
    rejections: &'a [Rejection],
    truncated: bool,
}

/// A body that holds its memory until it is sent.
struct Held {
    body: Vec<u8>,
    _memory: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

fn full_receipt(status: StatusCode, answer: Answer) -> Response {
    let report = &answer.report;
    let reasons = report.by_reason().map(|(reason, n)| (reason.id(), n));
    let receipt = Receipt {
        accepted: answer.accepted,
        dropped: Some(answer.dropped).filter(|dropped| *dropped > 0),
        rejected: report.items(),
        rejected_samples: report.samples(),
        kept_samples: answer.kept,
        reasons: reasons.collect(),
        rejections: report.details(),
        truncated: report.items() > report.details().len() as u64,
    };
    let body = serde_json::to_vec(&receipt).expect("text and numbers are JSON");
    let held = Bytes::from_owner(Held {
        body,
        _memory: answer.memory,
    });
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], held).into_response()
}

/// Tells of samples that relabelling drops, where there are such.
fn with_dropped(mut body: Value, answer: &Answer) -> Value {
    if answer.dropped > 0 {
        body["dropped"] = answer.dropped.into();
    }
    body
}

/// The status of a request that was not refused as a whole.
fn status(shape: &Shape, answer: &Answer) -> StatusCode {
    let report = &answer.report;
    match shape.protocol {
        // What is partly good is a success there.
        Protocol::Otlp if report.is_empty() || report.items() < answer.points => StatusCode::OK,
        _ if !report.is_empty() => StatusCode::BAD_REQUEST,
        Protocol::Push | Protocol::Otlp | Protocol::Pushgateway => StatusCode::OK,
        Protocol::InfluxV1
        | Protocol::InfluxV2
        | Protocol::InfluxV3
        | Protocol::RemoteWrite
        | Protocol::RemoteWrite2
        | Protocol::Text
        | Protocol::VmJson
        | Protocol::Csv => StatusCode::NO_CONTENT,
    }
}

fn all_good(shape: &Shape, answer: &Answer) -> Response {
    match shape.protocol {
        Protocol::Push => {
            let body = json!({ "accepted": answer.accepted, "rejected": 0 });
            Json(with_dropped(body, answer)).into_response()
        }
        Protocol::Otlp => otlp::exported(shape.json, 0, ""),
        Protocol::InfluxV1
        | Protocol::InfluxV2
        | Protocol::InfluxV3
        | Protocol::RemoteWrite
        | Protocol::RemoteWrite2
        | Protocol::Text
        | Protocol::Pushgateway
        | Protocol::VmJson
        | Protocol::Csv => status(shape, answer).into_response(),
    }
}

fn partly_good(shape: &Shape, answer: &Answer) -> Response {
    let Answer {
        accepted, report, ..
    } = answer;
    let status = status(shape, answer);
    match shape.protocol {
        Protocol::Push | Protocol::Text | Protocol::VmJson | Protocol::Csv => {
            let body = json!({
                "accepted": accepted,
                "rejected": report.items(),
                "error": summary(*accepted, report),
                "errors": report.details(),
            });
            (status, Json(with_dropped(body, answer))).into_response()
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
        Protocol::InfluxV3 => (status, Json(influx_v3(answer))).into_response(),
        Protocol::Otlp => {
            let text = format!("{}: {}", summary(*accepted, report), lines(report));
            if status.is_success() {
                otlp::exported(shape.json, report.items(), &text)
            } else {
                otlp::status(shape.json, status, &text)
            }
        }
        Protocol::RemoteWrite | Protocol::RemoteWrite2 | Protocol::Pushgateway => {
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

/// As InfluxDB 3 tells it.
fn influx_v3(answer: &Answer) -> Value {
    let Answer {
        accepted, report, ..
    } = answer;
    let line = |rejection: &Rejection| {
        let Place::Line(number) = rejection.place else {
            return Value::Null;
        };
        json!({
            "original_line": rejection.line,
            "line_number": number,
            "error_message": format!("{} ({})", rejection.message, rejection.reason),
        })
    };
    let lines: Vec<Value> = report.details().iter().map(line).collect();
    if answer.nothing_by_choice {
        let first = lines.into_iter().next();
        return json!({ "error": "parsing failed for write_lp endpoint", "data": first });
    }
    json!({
        "error": "partial write of line protocol occurred",
        "data": lines,
        "accepted": accepted,
        "rejected": report.items(),
    })
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

fn refused(ingest: &Ingest, shape: &Shape, error: &IngestError) -> Response {
    let (status, text) = (error.status(), error.to_string());
    let plain = || {
        let body = json!({ "accepted": 0, "error": text, "reason": error.reason() });
        (status, Json(body)).into_response()
    };
    let mut response = match shape.protocol {
        _ if shape.full_receipt => plain(),
        Protocol::Push | Protocol::Text | Protocol::VmJson | Protocol::Csv => plain(),
        Protocol::InfluxV1 => influx_v1(status, &text),
        Protocol::InfluxV2 => (status, Json(influx_v2(error, &text))).into_response(),
        Protocol::InfluxV3 => {
            (status, Json(json!({ "error": text, "data": null }))).into_response()
        }
        Protocol::Otlp => otlp::status(shape.json, status, &text),
        Protocol::RemoteWrite | Protocol::RemoteWrite2 | Protocol::Pushgateway => {
            (status, format!("{text}\n")).into_response()
        }
    };
    let later = [
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if later.contains(&status) {
        let wait = error.wait().map_or(0, |wait| wait.as_secs());
        let seconds = HeaderValue::from(wait + ingest.retry_after_seconds());
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

pub(super) fn influx_v1(status: StatusCode, text: &str) -> Response {
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
        StatusCode::TOO_MANY_REQUESTS => "too many requests",
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
