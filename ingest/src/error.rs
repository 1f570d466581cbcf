//! Why a whole request was refused.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use millrace_model::TenantId;
use millrace_queue::AppendError;

use crate::options::RateLimitedStatus;

/// Why nothing of a request was acknowledged. What is wrong with single items of it stands in a
/// [`Report`](crate::Report) instead.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A body, decoded body or count over its bound.
    #[error("{what}: {}{unit}", Excess { got: *got, limit: *limit, unit })]
    TooLarge {
        /// What is too large, in words, with the setting that bounds it.
        what: &'static str,
        /// Its reason id.
        reason: &'static str,
        /// How large it is, or `None` where it was only found to be larger than the limit.
        got: Option<u64>,
        /// The limit.
        limit: u64,
        /// ` bytes`, or nothing for counts.
        unit: &'static str,
    },
    /// A content type that this endpoint does not take.
    #[error("content type {got:?} is not taken here: {expected}")]
    UnsupportedContentType {
        /// What the request said.
        got: String,
        /// What would be taken.
        expected: &'static str,
    },
    /// A content encoding that is not known.
    #[error("content encoding {got:?} is not taken: one of {expected}")]
    UnsupportedEncoding {
        /// What the request said.
        got: String,
        /// What would be taken.
        expected: &'static str,
    },
    /// A body that is not in the encoding that it claims.
    #[error("body is not valid {encoding}: {detail}")]
    MalformedEncoding {
        /// The claimed encoding.
        encoding: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A body that is not in its format, so that no items can be told apart.
    #[error("{detail}")]
    MalformedBody {
        /// Its reason id.
        reason: &'static str,
        /// What is wrong, and where.
        detail: String,
    },
    /// A query parameter that cannot be used.
    #[error("parameter {name}={got:?}: {expected}")]
    BadParameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        got: String,
        /// What would be taken.
        expected: &'static str,
    },
    /// The body broke off.
    #[error("the body could not be read: {detail}")]
    BodyBroken {
        /// What the connection said.
        detail: String,
    },
    /// Too much to do. Nothing of the request was queued.
    #[error("overloaded: {what}; nothing of this request was stored")]
    Overloaded {
        /// Which bound was reached.
        what: &'static str,
    },
    /// The tenant is over its rate. Nothing of the request was queued.
    #[error(
        "tenant {tenant} is over its rate of {per_second} samples a second with bursts of {burst} \
         (ingest.tenants.samples_per_second); nothing of this request was stored"
    )]
    RateLimited {
        /// Who.
        tenant: TenantId,
        /// The rate, in this process.
        per_second: u64,
        /// What may come at once.
        burst: u64,
        /// What it is answered.
        status: RateLimitedStatus,
        /// After this time a request is taken again.
        wait: Duration,
    },
    /// The server is going down. Nothing of the request was queued.
    #[error("shutting down; nothing of this request was stored")]
    Closed,
    /// The queue could not take it, or it is not known whether it did. Sending again is safe.
    #[error("the queue failed, so it is not known what was stored; sending again is safe: {0}")]
    Append(#[from] AppendError),
    /// A bug: decoding panicked. Nothing of the request was queued.
    #[error("internal error while decoding; nothing of this request was stored")]
    Panicked,
}

impl IngestError {
    /// The status that says so.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedContentType { .. } | Self::UnsupportedEncoding { .. } => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::MalformedEncoding { .. }
            | Self::MalformedBody { .. }
            | Self::BadParameter { .. }
            | Self::BodyBroken { .. } => StatusCode::BAD_REQUEST,
            Self::Overloaded { .. } | Self::Closed | Self::Append(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::RateLimited { status, .. } => match status {
                RateLimitedStatus::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
                RateLimitedStatus::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable word for it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { reason, .. } | Self::MalformedBody { reason, .. } => reason,
            Self::UnsupportedContentType { .. } => "unsupported_content_type",
            Self::UnsupportedEncoding { .. } => "unsupported_encoding",
            Self::MalformedEncoding { .. } => "malformed_encoding",
            Self::BadParameter { .. } => "bad_parameter",
            Self::BodyBroken { .. } => "body_broken",
            Self::Overloaded { .. } => "overloaded",
            Self::RateLimited { .. } => "rate_limited",
            Self::Closed => "shutting_down",
            Self::Append(_) => "append_failed",
            Self::Panicked => "internal",
        }
    }

    /// Whether the same bytes may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.status().is_server_error() || self.status() == StatusCode::TOO_MANY_REQUESTS
    }

    /// After what time the sender is asked to come again, where that is known.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { wait, .. } => Some(*wait),
            Self::TooLarge { .. }
            | Self::UnsupportedContentType { .. }
            | Self::UnsupportedEncoding { .. }
            | Self::MalformedEncoding { .. }
            | Self::MalformedBody { .. }
            | Self::BadParameter { .. }
            | Self::BodyBroken { .. }
            | Self::Overloaded { .. }
            | Self::Closed
            | Self::Append(_)
            | Self::Panicked => None,
        }
    }
}

struct Excess {
    got: Option<u64>,
    limit: u64,
    unit: &'static str,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.got {
            Some(got) => write!(f, "{got}{}, the limit is {}", self.unit, self.limit),
            None => write!(f, "more than the limit of {}", self.limit),
        }
    }
}
