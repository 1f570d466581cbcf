//! Refusals, in the shape that the clients of each route read.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use millrace_ingest::PushShape;
use serde_json::json;

use super::table::{Methods, Need, Shape};

/// Why a request is not answered.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The status.
    pub status: StatusCode,
    /// For the client.
    pub text: String,
    /// For the metric.
    pub reason: &'static str,
    /// The scope that is missing.
    pub need: Option<Need>,
}

impl Refused {
    /// Nobody knows who asks. Why a token is not good is told to nobody who does not hold a good one.
    pub fn unauthorized(reason: &'static str) -> Self {
        let text = match reason {
            "missing" => {
                "a token is needed: Authorization: Bearer <token>, or Basic with it as password"
            }
            _ => "the token is not valid here",
        };
        Self {
            status: StatusCode::UNAUTHORIZED,
            text: text.to_owned(),
            reason,
            need: None,
        }
    }

    /// Who asks may not do this.
    pub fn forbidden(need: Need) -> Self {
        let scope = need.scope().map_or("write or read", |scope| scope.as_str());
        Self {
            status: StatusCode::FORBIDDEN,
            text: format!("the token lacks the scope {scope}"),
            reason: "scope",
            need: Some(need),
        }
    }

    /// The tenant cannot be told, or is another one.
    pub fn tenant(status: StatusCode, text: String) -> Self {
        Self {
            status,
            text,
            reason: "tenant",
            need: None,
        }
    }

    /// The answer.
    pub fn answer(&self, shape: Shape, headers: &HeaderMap) -> Response {
        let word = match self.status {
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            _ => "bad_data",
        };
        let mut response = match shape {
            Shape::Push(shape) => shape.refusal(headers, self.status, word, &self.text),
            Shape::Query | Shape::Json => prometheus(self.status, word, &self.text),
        };
        if self.status == StatusCode::UNAUTHORIZED {
            let challenges = [
                "Bearer realm=\"millrace\"",
                "Basic realm=\"millrace\", charset=\"UTF-8\"",
            ];
            for challenge in challenges {
                let value = HeaderValue::from_static(challenge);
                response
                    .headers_mut()
                    .append(header::WWW_AUTHENTICATE, value);
            }
        }
        if let Some(scope) = self.need.and_then(Need::scope) {
            let text = format!(
                "Bearer realm=\"millrace\", error=\"insufficient_scope\", scope=\"{scope}\""
            );
            if let Ok(value) = HeaderValue::try_from(text) {
                response
                    .headers_mut()
                    .append(header::WWW_AUTHENTICATE, value);
            }
        }
        response
    }
}

/// An error of Prometheus's API.
pub fn prometheus(status: StatusCode, kind: &str, text: &str) -> Response {
    let body = json!({"status": "error", "errorType": kind, "error": text});
    (status, axum::Json(body)).into_response()
}

/// 405, naming the methods that there are.
pub fn wrong_method(shape: Shape, methods: Methods, method: &Method, path: &str) -> Response {
    let allow = methods.names();
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = match shape {
        Shape::Push(
            PushShape::Json
            | PushShape::InfluxV1
            | PushShape::InfluxV2
            | PushShape::InfluxV3
            | PushShape::Text
            | PushShape::Otlp,
        ) => (status, format!("method not allowed; use one of: {allow}\n")).into_response(),
        Shape::Query | Shape::Json => {
            let text = format!("{path} does not take {method}");
            prometheus(status, "method_not_allowed", &text)
        }
    };
    if let Ok(value) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}

/// By which a proxy names the tenant.
pub const TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");
