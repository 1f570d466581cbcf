//! What is asked, and what is told of a store's state: small, and JSON, so that `curl` can ask too.

use std::collections::BTreeMap;

use millrace_model::{MatchOp, Matcher, MatcherError, PartitionId, QueueId, ShardKey};
use millrace_query::SourceError;
use millrace_queue::QueueIdentity;
use serde::{Deserialize, Serialize};

/// Where stores answer reads, under the address of their HTTP server.
pub const READ_PATH: &str = "/internal/v1/read";
/// Where they tell their state.
pub const STATUS_PATH: &str = "/internal/v1/status";
/// Where it is waited for what they apply.
pub const WAIT_PATH: &str = "/internal/v1/wait";

/// A question for series of some partitions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadRequest {
    /// The queue, as 32 hexadecimal digits. A store of another one refuses.
    pub queue: String,
    /// The partitions that the answer is for, all of the store's own.
    pub partitions: Vec<u32>,
    /// By partition, the offset below which the answer must include everything.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub at_least: BTreeMap<u32, u64>,
    /// Whose series.
    pub tenant: String,
    /// After so many milliseconds the answer is of no use any more.
    pub timeout_ms: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked. Ranges are in milliseconds since the epoch, both ends inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Series with their samples.
    Select {
        /// All must pass.
        matchers: Vec<WireMatcher>,
        /// First moment.
        start: i64,
        /// Last moment.
        end: i64,
    },
    /// Series with their newest samples.
    Newest {
        /// All must pass.
        matchers: Vec<WireMatcher>,
        /// First moment.
        start: i64,
        /// Last moment.
        end: i64,
    },
    /// Label sets.
    Series {
        /// All must pass.
        matchers: Vec<WireMatcher>,
        /// First moment.
        start: i64,
        /// Last moment.
        end: i64,
    },
    /// Names of labels.
    LabelNames {
        /// One of these sets must pass, if there is one.
        matcher_sets: Vec<Vec<WireMatcher>>,
        /// First moment.
        start: i64,
        /// Last moment.
        end: i64,
    },
    /// Values of a label.
    LabelValues {
        /// Which label.
        name: String,
        /// One of these sets must pass, if there is one.
        matcher_sets: Vec<Vec<WireMatcher>>,
        /// First moment.
        start: i64,
        /// Last moment.
        end: i64,
    },
    /// Metadata of one metric or of all.
    Metadata {
        /// Which metric.
        metric: Option<String>,
    },
}

impl Ask {
    /// The word for it in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Select { .. } => "select",
            Self::Newest { .. } => "newest",
            Self::Series { .. } => "series",
            Self::LabelNames { .. } => "label_names",
            Self::LabelValues { .. } => "label_values",
            Self::Metadata { .. } => "metadata",
        }
    }
}

/// A label test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireMatcher {
    /// The label.
    pub name: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub op: String,
    /// Value or pattern.
    pub value: String,
}

impl From<&Matcher> for WireMatcher {
    fn from(matcher: &Matcher) -> Self {
        Self {
            name: matcher.name().to_owned(),
            op: matcher.op().as_str().to_owned(),
            value: matcher.value().to_owned(),
        }
    }
}

impl WireMatcher {
    /// The matcher.
    ///
    /// # Errors
    ///
    /// A pattern that is refused; `None` stands for an operator that there is not.
    pub fn matcher(&self) -> Result<Matcher, Option<MatcherError>> {
        let op = match self.op.as_str() {
            "=" => MatchOp::Equal,
            "!=" => MatchOp::NotEqual,
            "=~" => MatchOp::Regex,
            "!~" => MatchOp::NotRegex,
            _ => return Err(None),
        };
        Matcher::new(&self.name, op, &self.value).map_err(Some)
    }
}

/// A question to be answered once everything up to a position is applied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitRequest {
    /// The text of a position; of partitions of the store's own.
    pub position: String,
    /// After so many milliseconds it is not waited any more.
    pub timeout_ms: u64,
}

/// A queue, as stores tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueInfo {
    /// Its identity, as 32 hexadecimal digits.
    pub id: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// By which labels series are spread over them.
    pub shard_key: Vec<String>,
}

impl From<&QueueIdentity> for QueueInfo {
    fn from(identity: &QueueIdentity) -> Self {
        Self {
            id: identity.id.to_string(),
            partitions: identity.partitions,
            shard_key: identity.shard_key.names().to_vec(),
        }
    }
}

impl QueueInfo {
    /// The identity; `None` if the text is none.
    #[must_use]
    pub fn identity(&self) -> Option<QueueIdentity> {
        let id: QueueId = self.id.parse().ok()?;
        (self.partitions > 0).then(|| QueueIdentity {
            id,
            partitions: self.partitions,
            shard_key: ShardKey::new(self.shard_key.iter().cloned()),
        })
    }
}

/// The state of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Version of the protocol.
    pub protocol: u8,
    /// The store's name, unlike any other's.
    pub store: String,
    /// Which part of the partitions it owns: those whose number modulo `nodes` is this.
    pub ordinal: u32,
    /// Among how many the partitions are divided.
    pub nodes: u32,
    /// The queue that it reads.
    pub queue: QueueInfo,
    /// Its partitions.
    pub partitions: Vec<PartitionStatus>,
}

/// The state of a partition in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Which one.
    pub partition: u32,
    /// `running`, or why not.
    pub state: String,
    /// Everything below this offset can be read.
    pub applied: u64,
    /// Everything below this offset is in the queue, as far as the store knows.
    pub end: Option<u64>,
}

/// A refusal, or the outcome of a wait that was not successful.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// Which kind.
    pub kind: RefusalKind,
    /// In words.
    pub message: String,
}

/// Why a store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The request makes no sense.
    BadRequest,
    /// The store reads another queue.
    ForeignQueue,
    /// A partition is not the store's own.
    NotHere,
    /// The store has not applied what the answer must include.
    Behind,
    /// It answers as many as it can.
    Busy,
    /// It starts or stops, or has failed.
    NotReady,
}

/// The error that a query's source gives.
#[must_use]
pub(crate) fn stream_error(error: &SourceError) -> super::frame::StreamError {
    use super::frame::ErrorCode;
    let code = match error {
        SourceError::DataUnavailable { .. } => ErrorCode::DataUnavailable,
        SourceError::Limit { .. } => ErrorCode::Limit,
        SourceError::Unreachable { .. } | SourceError::NotReady { .. } => ErrorCode::NotReady,
    };
    super::frame::StreamError {
        code,
        message: error.to_string(),
    }
}

/// Partitions by plain numbers.
pub(crate) fn numbers(partitions: &[PartitionId]) -> Vec<u32> {
    partitions.iter().map(|partition| partition.0).collect()
}

/// Label tests as they are sent.
pub(crate) fn wire_matchers(matchers: &[Matcher]) -> Vec<WireMatcher> {
    matchers.iter().map(WireMatcher::from).collect()
}
