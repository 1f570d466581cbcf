//! A queue as tools see it: which records there are, by offset and by time.

use std::fmt;
use std::ops::Range;

use millrace_model::{Offset, PartitionId, TimestampMs};

use crate::traits::{ConsumeError, Consumer, QueueIdentity};

/// What reads records of a queue without being its store: `tail`, `inspect`, `replay`, `migrate`.
/// Calls may block on disk or network.
pub trait RecordSource: Send + Sync + fmt::Debug {
    /// What queue this is.
    fn identity(&self) -> &QueueIdentity;

    /// The offsets of a partition: the oldest record's, and the one behind the newest.
    ///
    /// # Errors
    ///
    /// See [`ConsumeError`].
    fn bounds(&self, partition: PartitionId) -> Result<Range<Offset>, ConsumeError>;

    /// The offset of the first record that the queue took at `time` or later; the end, if there is
    /// none.
    ///
    /// # Errors
    ///
    /// See [`ConsumeError`].
    fn offset_at(&self, partition: PartitionId, time: TimestampMs) -> Result<Offset, ConsumeError>;

    /// Reads a partition from `from` on.
    ///
    /// # Errors
    ///
    /// See [`ConsumeError`]; `from` may be too old, or beyond the end.
    fn read_from(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Box<dyn Consumer>, ConsumeError>;
}
