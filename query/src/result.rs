//! What a query asks, and what it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millrace_model::{Labels, TenantId, TimestampMs};

use crate::ReadPoint;

/// One query.
#[derive(Clone, Debug)]
pub struct QueryRequest {
    /// Whose data.
    pub tenant: TenantId,
    /// The expression.
    pub text: String,
    /// At which moments.
    pub time: QueryTime,
    /// How far an instant selector looks back; `None` for the engine's default (5 m).
    pub lookback: Option<Duration>,
    /// How long it may take; `None`, or more than the engine's own limit, for that limit.
    pub timeout: Option<Duration>,
    /// Set by whoever no longer wants the answer.
    pub cancel: CancelFlag,
    /// Whether an answer without the series of shards that cannot be reached is welcome, with a
    /// warning.
    pub partial: bool,
    /// What the reads must include, and what they included.
    pub point: Arc<ReadPoint>,
}

/// The moments at which an expression is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryTime {
    /// One.
    Instant(TimestampMs),
    /// `start`, `start + step_ms`, … up to and including `end`.
    Range {
        /// The first.
        start: TimestampMs,
        /// None is later.
        end: TimestampMs,
        /// Distance in ms, at least 1.
        step_ms: i64,
    },
}

/// Tells a running query that nobody waits for it any more.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Asks the query to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A query's answer.
#[derive(Clone, Debug)]
pub struct QueryOutcome {
    /// The value.
    pub value: QueryValue,
    /// What may be wrong with it, in Prometheus's words.
    pub warnings: Vec<String>,
    /// What is odd about the expression, in Prometheus's words.
    pub infos: Vec<String>,
    /// What it took.
    pub stats: QueryStats,
}

/// What evaluating took.
#[derive(Clone, Debug, Default)]
pub struct QueryStats {
    /// Series selected.
    pub series: u64,
    /// Samples decoded.
    pub samples_read: u64,
    /// Time from start to end.
    pub elapsed: Duration,
    /// Of that, for reading and checking the expression.
    pub prepared: Duration,
    /// Of that, for sorting the answer.
    pub sorted: Duration,
    /// Most samples that were held at once.
    pub peak_samples: u64,
    /// Samples as Prometheus counts them, if asked for.
    pub counts: Option<SampleCounts>,
}

/// Samples that the steps of a query looked at. What a range holds counts for every step whose
/// window it is in; the points of a subquery count, and what they were computed from does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampleCounts {
    /// All.
    pub seen: u64,
    /// Those that the step before had not seen.
    pub read: u64,
    /// By moment in ms; empty unless asked for.
    pub seen_per_step: Vec<(i64, u64)>,
    /// The same for [`read`](Self::read).
    pub read_per_step: Vec<(i64, u64)>,
}

/// A value of PromQL.
#[derive(Clone, Debug)]
pub enum QueryValue {
    /// One number.
    Scalar {
        /// Its moment.
        timestamp: TimestampMs,
        /// The number.
        value: f64,
    },
    /// One string.
    String {
        /// Its moment.
        timestamp: TimestampMs,
        /// The text.
        value: String,
    },
    /// One sample of each series: the answer of an instant query. In the order that the API is to
    /// show.
    Vector(Vec<VectorSample>),
    /// Samples of each series, in order of the labels: the answer of a range query, or of an
    /// instant query for a range vector.
    Matrix(Vec<MatrixSeries>),
}

/// One series at one moment.
#[derive(Clone, Debug)]
pub struct VectorSample {
    /// Its labels.
    pub labels: Labels,
    /// The moment.
    pub timestamp: TimestampMs,
    /// The value.
    pub value: f64,
}

/// One series at many moments.
#[derive(Clone, Debug)]
pub struct MatrixSeries {
    /// Its labels.
    pub labels: Labels,
    /// The moments in ms, growing.
    pub timestamps: Vec<i64>,
    /// The values, one per moment.
    pub values: Vec<f64>,
}

/// Why a query has no answer. The texts are for the user: Grafana shows them as they are.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// The expression, or a parameter, is wrong (`bad_data`, 400).
    #[error("{0}")]
    BadData(String),
    /// It cannot be evaluated over these data, or is over a bound (`execution`, 422).
    #[error("{0}")]
    Execution(String),
    /// It took too long (`timeout`, 503).
    #[error("{0}")]
    Timeout(String),
    /// Nobody waits for it any more (`canceled`, 499).
    #[error("{0}")]
    Canceled(String),
    /// The server is busy or not ready; the same query may succeed later (`unavailable`, 503).
    #[error("{0}")]
    Unavailable(String),
    /// Data are damaged, or a bug (`internal`, 500).
    #[error("{0}")]
    Internal(String),
}
