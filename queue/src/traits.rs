//! What ingest and store see of any queue.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use millrace_model::{Offset, PartitionId, QueueId, ShardKey, TimestampMs};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a queue is, fixed when it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueIdentity {
    /// Random; positions carry it.
    pub id: QueueId,
    /// Number of partitions, at least 1.
    pub partitions: u32,
    /// By which labels series are spread over them.
    pub shard_key: ShardKey,
}

/// What an acknowledged append survives (`docs/durability.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Death of the process, not of the machine.
    Process,
    /// Power loss, on a device that honours flush.
    Disk,
    /// Loss of a machine with its disk.
    Replicated,
}

impl Durability {
    /// The word in the `Millrace-Durability` header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Disk => "disk",
            Self::Replicated => "replicated",
        }
    }
}

/// Told once how an append ended: the offsets of its records in order, or why not.
pub type AppendDone = Box<dyn FnOnce(Result<Range<Offset>, AppendError>) + Send>;

/// The writing side of a queue.
pub trait Producer: Send + Sync + fmt::Debug {
    /// What queue this is.
    fn identity(&self) -> &QueueIdentity;

    /// What an acknowledged append survives.
    fn durability(&self) -> Durability;

    /// Appends batches to one partition, in order, and calls `done` when they are durable or have
    /// failed. A backend may do all of it on the calling thread (the embedded one does), so it is
    /// called from a thread of its own, one per partition; what arrives meanwhile waits and shares
    /// the next append.
    fn append(&self, partition: PartitionId, batches: Vec<Bytes>, done: AppendDone);

    /// Longest batch that is taken, in bytes.
    fn max_batch_bytes(&self) -> usize;

    /// Why appends fail at present, in words, as far as that is known without a try. A backend whose
    /// failures last until a restart tells them otherwise.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// Why an append failed. The outcome is always *unknown* to the client: the record may be there.
/// Sending again is safe, since a sample is identified by tenant, series and timestamp.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The queue is shutting down.
    #[error("the queue is shutting down")]
    Closed,
    /// The disk or the broker failed; this partition takes no more appends until a restart.
    #[error("partition {partition}: {reason}")]
    Failed {
        /// Which partition.
        partition: PartitionId,
        /// What the backend said.
        reason: String,
    },
}

/// One record as it is consumed.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its position in the partition.
    pub offset: Offset,
    /// When the queue took it.
    pub appended_at: TimestampMs,
    /// The batch.
    pub payload: Bytes,
}

/// Tells one record from another that stands at the same offset: the 64-bit XXH3 of its bytes,
/// seeded with the time at which the queue took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The fingerprint of `record`.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let seed = record.appended_at.0.cast_unsigned();
        Self(xxh3_64_with_seed(&record.payload, seed))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The reading side of one partition. Synchronous: the shard's own thread pulls.
pub trait Consumer: Send + fmt::Debug {
    /// Which partition.
    fn partition(&self) -> PartitionId;

    /// What queue the partition is of *now*: it is asked, not remembered.
    ///
    /// # Errors
    ///
    /// If the queue cannot be asked.
    fn queue(&self) -> Result<QueueId, ConsumeError>;

    /// The oldest offset that the queue still has, and the one that its next durable record will
    /// have; equal if it has none.
    ///
    /// # Errors
    ///
    /// If the queue cannot be asked.
    fn range(&self) -> Result<Range<Offset>, ConsumeError>;

    /// The record that stands at exactly `offset`, which is inside [`range`](Self::range); `None`
    /// if the queue has others around it. Leaves the position anywhere: [`seek`](Self::seek) comes
    /// next.
    ///
    /// # Errors
    ///
    /// See [`ConsumeError`]; [`ConsumeError::Unavailable`] if it was not had within `patience`.
    fn record_at(
        &mut self,
        offset: Offset,
        patience: Duration,
    ) -> Result<Option<Record>, ConsumeError>;

    /// Appends records from the current position on to `out`, at most about `max_bytes` (but at
    /// least one record if there is one), and moves the position behind them. Waits up to `wait`
    /// if there is none; none then is no error.
    ///
    /// # Errors
    ///
    /// See [`ConsumeError`]; the position stays where it was.
    fn poll(
        &mut self,
        max_bytes: usize,
        wait: Duration,
        out: &mut Vec<Record>,
    ) -> Result<(), ConsumeError>;

    /// Moves the position. The next poll yields records at or behind `next`.
    fn seek(&mut self, next: Offset);

    /// The offset that the next durable record will have; the position's distance to it is the lag.
    ///
    /// # Errors
    ///
    /// If the queue cannot be asked.
    fn end(&self) -> Result<Offset, ConsumeError>;

    /// Tells the queue's own tools how far the reader is: everything below `applied` has taken
    /// effect and is on the reader's disk. On Kafka the group's committed offset, which nothing of
    /// millrace reads again; asynchronous. The embedded queue has no such tools.
    ///
    /// # Errors
    ///
    /// If the queue could not be told. Harmless: the tools then show an older position.
    fn commit(&mut self, applied: Offset) -> Result<(), ConsumeError>;

    /// Tells the queue that everything below `sealed` is safe in blocks: the embedded queue's
    /// retention may remove it. Kafka's retention asks nobody.
    ///
    /// # Errors
    ///
    /// If the queue could not note it. Harmless: retention then keeps more.
    fn release(&mut self, sealed: Offset) -> Result<(), ConsumeError>;
}

/// Why records could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The position is older than what the queue still has.
    #[error("partition {partition}: offset {wanted} was asked for, the queue begins at {first}")]
    TooOld {
        /// Which partition.
        partition: PartitionId,
        /// The position.
        wanted: Offset,
        /// The oldest record there is.
        first: Offset,
    },
    /// The position is beyond the end: the queue has lost records, or is not the one that the
    /// store was fed from.
    #[error("partition {partition}: offset {wanted} was asked for, the queue ends at {end}")]
    BeyondEnd {
        /// Which partition.
        partition: PartitionId,
        /// The position.
        wanted: Offset,
        /// Where the queue ends.
        end: Offset,
    },
    /// The queue is not the one that the position is of: it was deleted and made again.
    #[error("partition {partition}: the position is of queue {wanted}, the queue is now {found}")]
    AnotherQueue {
        /// Which partition.
        partition: PartitionId,
        /// The queue of the position.
        wanted: QueueId,
        /// The queue that is there.
        found: QueueId,
    },
    /// The record before the position is not the one that was read: the queue was truncated and
    /// has grown again, or was restored from an older copy.
    #[error(
        "partition {partition}: the record at offset {offset} is not the one that was read \
         (fingerprint {wanted}, now {})", .found.map_or_else(|| "none".to_owned(), |f| f.to_string())
    )]
    Diverged {
        /// Which partition.
        partition: PartitionId,
        /// Of the record before the position.
        offset: Offset,
        /// Of the record that was read.
        wanted: Fingerprint,
        /// Of the record that is there now, if there is one.
        found: Option<Fingerprint>,
    },
    /// A record fails its checksum.
    #[error("partition {partition}: {reason}")]
    Damaged {
        /// Which partition.
        partition: PartitionId,
        /// File, offset and what is wrong.
        reason: String,
    },
    /// The queue cannot be read now.
    #[error("partition {partition}: {reason}")]
    Unavailable {
        /// Which partition.
        partition: PartitionId,
        /// What the backend said.
        reason: String,
    },
    /// The queue is shutting down.
    #[error("the queue is shutting down")]
    Closed,
}

/// Where in a queue something stands: for each partition concerned the offset *behind* it.
///
/// Its text is what clients see in `Millrace-Position` and send back in `Millrace-Read-After`:
/// the queue's identity, then `partition:offset` pairs (`0…2a/0:17,3:5`). Opaque to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The queue it is a position of.
    pub queue: QueueId,
    /// Next offset by partition.
    pub next: BTreeMap<PartitionId, Offset>,
}

impl Position {
    /// The position before everything.
    #[must_use]
    pub fn new(queue: QueueId) -> Self {
        Self {
            queue,
            next: BTreeMap::new(),
        }
    }

    /// Moves one partition's offset forward to `next`, never back.
    pub fn advance(&mut self, partition: PartitionId, next: Offset) {
        let entry = self.next.entry(partition).or_insert(next);
        *entry = (*entry).max(next);
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.queue)?;
        for (i, (partition, offset)) in self.next.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{offset}")?;
        }
        Ok(())
    }
}

/// Text that is no [`Position`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a queue position: {text:?}")]
pub struct PositionError {
    /// The refused text, cut to a readable length.
    pub text: String,
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let parse = || -> Option<Self> {
            let (queue, pairs) = text.split_once('/')?;
            let mut position = Self::new(queue.parse().ok()?);
            for pair in pairs.split(',').filter(|p| !p.is_empty()) {
                let (partition, offset) = pair.split_once(':')?;
                position.advance(
                    PartitionId(partition.parse().ok()?),
                    Offset(offset.parse().ok()?),
                );
            }
            Some(position)
        };
        parse().ok_or_else(|| PositionError {
            text: text.chars().take(80).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_text() {
        let mut position = Position::new(QueueId(42));
        position.advance(PartitionId(3), Offset(5));
        position.advance(PartitionId(0), Offset(17));
        position.advance(PartitionId(0), Offset(9));
        assert_eq!(position.to_string(), format!("{:032x}/0:17,3:5", 42));
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "x/", "2a/0", "2a/0:x", "2a"] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }
}
