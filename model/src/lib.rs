//! The vocabulary of millrace: tenant, labels, series identity, sample, time, and the
//! [batch codec](batch) that carries them through the queue.
//!
//! **Invariant:** this crate is pure. It knows no file, no socket, no thread and no runtime;
//! [`Clock`] is a trait here, and its real implementation lives in `millrace-log`.

pub mod batch;
mod delete;
mod duration;
mod ids;
mod labels;
mod matcher;
mod metadata;
mod sample;
mod series;
mod tenant;
mod time;
mod varint;

pub use delete::{Delete, DeleteEntry, DeleteId};
pub use duration::parse_duration_ms;
pub use ids::{Offset, PartitionId, QueueId};
pub use labels::{
    DELTA, Labels, LabelsBuilder, LabelsError, LabelsIter, METRIC_NAME, RawPair, RawPairs,
    TEMPORALITY,
};
pub use matcher::{MatchOp, Matcher, MatcherError};
pub use metadata::{MetricMetadata, MetricType};
pub use sample::{STALE_NAN_BITS, Sample, is_stale, stale_nan};
pub use series::{PARTITIONING, SeriesHasher, SeriesId, ShardKey};
pub use tenant::{TenantError, TenantId};
pub use time::{Clock, ManualClock, TimeRange, TimestampMs};
pub use varint::{read_varint, unzigzag, varint_len, write_varint, zigzag};
