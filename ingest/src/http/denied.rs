//! What a client is told that may not push, in the shape that it reads.

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::{influx, media, otlp, respond};

/// The shapes of answers by which push endpoints refuse a request without reading its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushShape {
    /// Our own JSON, as for text formats, CSV and JSON lines.
    Json,
    /// InfluxDB 1.
    InfluxV1,
    /// InfluxDB 2.
    InfluxV2,
    /// InfluxDB 3.
    InfluxV3,
    /// Plain text: remote write, Pushgateway.
    Text,
    /// `google.rpc.Status`, in the encoding of the request.
    Otlp,
}

impl PushShape {
    /// The answer with which somebody else than the endpoint refuses a request. `reason` is one word.
    #[must_use]
    pub fn refusal(
        self,
        headers: &HeaderMap,
        status: StatusCode,
        reason: &str,
        text: &str,
    ) -> Response {
        let mut response = match self {
            Self::Json => {
                let body = json!({ "accepted": 0, "error": text, "reason": reason });
                (status, Json(body)).into_response()
            }
            Self::InfluxV1 => respond::influx_v1(status, text),
            Self::InfluxV2 => {
                let body = json!({ "code": reason, "message": text });
                (status, Json(body)).into_response()
            }
            Self::InfluxV3 => {
                (status, Json(json!({ "error": text, "data": null }))).into_response()
            }
            Self::Text => (status, format!("{text}\n")).into_response(),
            Self::Otlp => {
                let content_type = headers.get(header::CONTENT_TYPE);
                let json = media::is_json(content_type.map(|value| value.as_bytes()));
                otlp::status(json, status, text)
            }
        };
        match self {
            Self::InfluxV1 | Self::InfluxV2 | Self::InfluxV3 => influx::add_headers(&mut response),
            Self::Json | Self::Text | Self::Otlp => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use http_body_util::BodyExt as _;

    async fn body(shape: PushShape, content_type: &'static str) -> (Response<()>, Vec<u8>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let status = StatusCode::UNAUTHORIZED;
        let response = shape.refusal(&headers, status, "unauthorized", "who are you");
        assert_eq!(response.status(), status);
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        (Response::from_parts(parts, ()), body)
    }

    #[tokio::test]
    async fn each_protocol_is_refused_in_its_own_shape() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for (shape, expect) in [
            (
                PushShape::Json,
                r#"{"accepted":0,"error":"who are you","reason":"unauthorized"}"#,
            ),
            (PushShape::InfluxV1, r#"{"error":"who are you"}"#),
            (
                PushShape::InfluxV2,
                r#"{"code":"unauthorized","message":"who are you"}"#,
            ),
            (
                PushShape::InfluxV3,
                r#"{"data":null,"error":"who are you"}"#,
            ),
            (PushShape::Text, "who are you\n"),
        ] {
            let (_, found) = body(shape, "text/plain").await;
            assert_eq!(text(&found), expect, "{shape:?}");
        }
        let (response, _) = body(PushShape::InfluxV1, "text/plain").await;
        assert_eq!(response.headers()["x-influxdb-error"], "who are you");
        let (_, json) = body(PushShape::Otlp, "application/json").await;
        assert_eq!(text(&json), r#"{"code":16,"message":"who are you"}"#);
        let (response, protobuf) = body(PushShape::Otlp, "application/x-protobuf").await;
        assert_eq!(
            protobuf,
            [&[0x08, 16, 0x12, 11], &b"who are you"[..]].concat()
        );
        assert_eq!(response.headers()["content-type"], "application/x-protobuf");
    }
}
