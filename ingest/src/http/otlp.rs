//! What OTLP's clients say and expect: their content types, partial success, and
//! `google.rpc.Status` for errors, each in the encoding of the request.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use millrace_model::write_varint;
use serde_json::json;

use super::media;
use crate::IngestError;
use crate::core::Format;

/// Protobuf or JSON; nothing else is OTLP.
pub(super) fn format(content_type: Option<&[u8]>) -> Result<Format, IngestError> {
    media::otlp(content_type).map(|json| Format::Otlp { json })
}

/// `ExportMetricsServiceResponse`.
pub(super) fn exported(json: bool, rejected: u64, message: &str) -> Response {
    if json {
        let mut body = json!({});
        if rejected > 0 {
            // 64-bit integers are strings in protobuf's JSON.
            body["partialSuccess"] = json!({
                "rejectedDataPoints": rejected.to_string(),
                "errorMessage": message,
            });
        }
        return Json(body).into_response();
    }
    let mut body = Vec::new();
    if rejected > 0 {
        let mut partial = vec![0x08];
        write_varint(&mut partial, rejected);
        write_bytes(&mut partial, 2, message.as_bytes());
        write_bytes(&mut body, 1, &partial);
    }
    protobuf(StatusCode::OK, body)
}

/// `google.rpc.Status`.
pub(super) fn status(json: bool, status: StatusCode, message: &str) -> Response {
    let code: u8 = match status {
        StatusCode::TOO_MANY_REQUESTS => 8,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        StatusCode::INTERNAL_SERVER_ERROR => 13,
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        _ => 3,
    };
    if json {
        let body = json!({ "code": code, "message": message });
        return (status, Json(body)).into_response();
    }
    let mut body = vec![0x08, code];
    write_bytes(&mut body, 2, message.as_bytes());
    protobuf(status, body)
}

fn protobuf(status: StatusCode, body: Vec<u8>) -> Response {
    let media = HeaderValue::from_static("application/x-protobuf");
    (status, [(header::CONTENT_TYPE, media)], body).into_response()
}

fn write_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
