//! Errors as the API answers them: `{"status":"error","errorType":…,"error":…}`.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::freshness::FreshnessError;
use super::json;
use super::pool::Refused;
use crate::{QueryError, SourceError};

/// The word of `errorType`, which decides the status code too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorType {
    BadData,
    Execution,
    Canceled,
    Timeout,
    Unavailable,
    Internal,
    NotFound,
    WrongMethod,
    TooLarge,
}

impl ErrorType {
    fn word(self) -> &'static str {
        match self {
            Self::BadData | Self::TooLarge => "bad_data",
            Self::Execution => "execution",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::NotFound => "not_found",
            Self::WrongMethod => "method_not_allowed",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            // nginx's "client closed request", which Prometheus uses too.
            Self::Canceled => StatusCode::from_u16(499).expect("499 is a legal status code"),
            Self::Timeout | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }
}

/// A refusal. Its text is for the user: Grafana shows it as it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct ApiError {
    kind: ErrorType,
    message: String,
}

impl ApiError {
    fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(super) fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorType::BadData, message)
    }

    pub(super) fn execution(message: impl Into<String>) -> Self {
        Self::new(ErrorType::Execution, message)
    }

    /// `invalid parameter "step": …`
    pub(super) fn invalid(parameter: &str, reason: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {parameter:?}: {reason}"))
    }

    pub(super) fn not_found(message: String) -> Self {
        Self::new(ErrorType::NotFound, message)
    }

    pub(super) fn wrong_method(message: String) -> Self {
        Self::new(ErrorType::WrongMethod, message)
    }

    pub(super) fn too_large(message: String) -> Self {
        Self::new(ErrorType::TooLarge, message)
    }

    /// Like the conversion, but an expression that cannot be read is blamed on its parameter.
    pub(super) fn of_query(error: QueryError) -> Self {
        match error {
            QueryError::BadData(text) => Self::invalid("query", text),
            other => other.into(),
        }
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let kind = match error {
            QueryError::BadData(_) => ErrorType::BadData,
            QueryError::Execution(_) => ErrorType::Execution,
            QueryError::Timeout(_) => ErrorType::Timeout,
            QueryError::Canceled(_) => ErrorType::Canceled,
            QueryError::Unavailable(_) => ErrorType::Unavailable,
            QueryError::Internal(_) => ErrorType::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        let kind = match error {
            SourceError::DataUnavailable { .. } => ErrorType::Internal,
            SourceError::Limit { .. } => ErrorType::Execution,
            SourceError::Unreachable { .. } | SourceError::NotReady { .. } => {
                ErrorType::Unavailable
            }
        };
        Self::new(kind, error.to_string())
    }
}

impl From<FreshnessError> for ApiError {
    fn from(error: FreshnessError) -> Self {
        let kind = match error {
            FreshnessError::Malformed { .. } => ErrorType::BadData,
            FreshnessError::NotReached { .. } | FreshnessError::NotReady { .. } => {
                ErrorType::Unavailable
            }
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Refused> for ApiError {
    fn from(error: Refused) -> Self {
        let kind = match error {
            Refused::Full { .. } | Refused::WaitedTooLong { .. } => ErrorType::Unavailable,
            Refused::Panicked => ErrorType::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(64 + self.message.len());
        body.extend_from_slice(b"{\"status\":\"error\",\"errorType\":");
        json::string(&mut body, self.kind.word());
        body.extend_from_slice(b",\"error\":");
        json::string(&mut body, &self.message);
        body.push(b'}');
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, json::CONTENT_TYPE);
        if self.kind == ErrorType::Unavailable {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(retry_after_seconds()),
            );
        }
        response
    }
}

/// 1 to 5 s, the next one each time, so that clients refused together do not return together.
fn retry_after_seconds() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1 + NEXT.fetch_add(1, Ordering::Relaxed) % 5
}
