//! The queue inside the process: one segmented log per partition, in one directory.
//!
//! Layout: `docs/formats/queue.md`. Invariants:
//! - [`Producer::append`] calls `done` after the partition's log was synced, on the calling thread.
//! - The first failed write or sync stops the partition for writing; reading goes on.
//! - An offset is the log's record number, so offsets have no gaps.
//! - Appends of one partition are serial (its log is behind a lock that is held over the sync);
//!   consumers never take that lock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_log::fs::Fs;
use millrace_log::{Log, LogOptions, Lsn};
use millrace_model::{Clock, Offset, PartitionId, ShardKey, TimestampMs, batch};
use parking_lot::Mutex;
use prometheus::{IntCounter, Registry};

use crate::metrics::EmbeddedMetrics;
use crate::traits::{AppendDone, ConsumeError, Consumer, Durability, Producer};
use crate::{QueueError, QueueIdentity};

mod consumer;
mod held;
mod identity;
mod look;
mod partition;
mod retention;

pub use held::{HeldPartition, HeldQueue};

use consumer::EmbeddedConsumer;
use partition::Partition;
use retention::{ClockGuard, Policy};

/// Most partitions of an embedded queue: each costs two threads and a few open files.
pub const MAX_PARTITIONS: u32 = 1024;

/// A batch below this length would not hold a single series with long labels.
const MIN_BATCH_BYTES: usize = 64 << 10;

/// How an embedded queue is laid out, and how long it keeps records.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Number of partitions, fixed when the queue is created.
    pub partitions: u32,
    /// By which labels series are spread over them, fixed likewise.
    pub shard_key: ShardKey,
    /// Length, in bytes, at which a log segment is closed and the next one begun. Retention
    /// removes whole segments.
    pub segment_bytes: u64,
    /// Longest batch, in bytes.
    pub max_batch_bytes: usize,
    /// Records older than this may go, once the store has released them. `None`: no bound by age.
    pub retention_age: Option<Duration>,
    /// The bytes of all partitions that are kept; beyond them the oldest segments may go, once the
    /// store has released them. `None`: no bound by size.
    pub retention_bytes: Option<u64>,
    /// How often an append looks for what retention may remove. It also does whenever a segment
    /// was closed.
    pub retention_interval: Duration,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            partitions: 4,
            shard_key: ShardKey::default(),
            segment_bytes: 64 << 20,
            max_batch_bytes: 16 << 20,
            // A day to notice that a view or a store has to be rebuilt, in at most what a laptop
            // can spare.
            retention_age: Some(Duration::from_secs(24 * 3600)),
            retention_bytes: Some(8 << 30),
            retention_interval: Duration::from_secs(60),
        }
    }
}

/// A durable queue in a directory of this process. Cloning gives another handle to it.
#[derive(Clone, Debug)]
pub struct EmbeddedQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: QueueIdentity,
    clock: Arc<dyn Clock>,
    policy: Policy,
    retention_interval: Duration,
    max_batch_bytes: usize,
    partitions: Vec<Arc<Partition>>,
    retention: Mutex<RetentionState>,
    retention_failures: IntCounter,
}

#[derive(Debug)]
struct RetentionState {
    guard: ClockGuard,
    /// Monotonic.
    last_run: Duration,
}

impl EmbeddedQueue {
    /// Opens the queue in `dir`, or creates it there; `dir` is locked by nobody here, the caller
    /// sees to it that one process has it. Torn tails are cut by the logs.
    ///
    /// # Errors
    ///
    /// [`QueueError`]: other partitions or another shard key than it was created with, a damaged
    /// or missing identity, a damaged log, or a file system that fails.
    ///
    /// # Panics
    ///
    /// If `registry` has the metrics of another queue.
    pub fn open(
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: EmbeddedOptions,
        registry: &Registry,
    ) -> Result<Self, QueueError> {
        check_options(&options)?;
        let identity = identity::load_or_create(&*fs, dir, options.partitions, &options.shard_key)?;
        let metrics = EmbeddedMetrics::new(registry);
        let log_options = LogOptions {
            segment_bytes: options.segment_bytes,
            max_record_bytes: u32::try_from(options.max_batch_bytes)
                .expect("check_options bounds it"),
            ..LogOptions::default()
        };
        let open = |id: PartitionId| {
            let path = identity::partition_path(dir, id);
            let (log, recovery) = Log::open(Arc::clone(&fs), &path, log_options.clone(), Lsn(0))
                .map_err(|source| QueueError::Log {
                    partition: id,
                    source,
                })?;
            tracing::debug!(partition = %id, ?recovery, "opened a partition of the queue");
            let metrics = metrics.partition(&id.to_string());
            Ok(Arc::new(Partition::new(
                id,
                log,
                options.segment_bytes,
                metrics,
            )))
        };
        let partitions = (0..identity.partitions).map(PartitionId).map(open);
        let partitions = partitions.collect::<Result<Vec<_>, QueueError>>()?;
        let (now, monotonic) = (clock.now(), clock.monotonic());
        Ok(Self {
            shared: Arc::new(Shared {
                identity,
                clock,
                policy: Policy {
                    age: options.retention_age,
                    bytes: options.retention_bytes,
                },
                retention_interval: options.retention_interval,
                max_batch_bytes: options.max_batch_bytes,
                partitions,
                retention: Mutex::new(RetentionState {
                    guard: ClockGuard::new(now, monotonic),
                    last_run: monotonic,
                }),
                retention_failures: metrics.retention_failures,
            }),
        })
    }

    /// The identity of the queue in `dir`, or `None` if none was created there. For a start whose
    /// number of partitions is "as it was created".
    ///
    /// # Errors
    ///
    /// [`QueueError`]: a damaged identity, another version, or a file system that fails.
    pub fn stored_identity(fs: &dyn Fs, dir: &Path) -> Result<Option<QueueIdentity>, QueueError> {
        identity::load(fs, dir)
    }

    /// What queue this is.
    #[must_use]
    pub fn identity(&self) -> &QueueIdentity {
        &self.shared.identity
    }

    /// The writing side.
    #[must_use]
    pub fn producer(&self) -> Arc<dyn Producer> {
        Arc::clone(&self.shared) as Arc<dyn Producer>
    }

    /// The reading side of one partition, from the record `from` on.
    ///
    /// # Errors
    ///
    /// [`ConsumeError::TooOld`] and [`ConsumeError::BeyondEnd`] if `from` is not in the queue.
    ///
    /// # Panics
    ///
    /// If the queue has no such partition.
    pub fn consumer(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Box<dyn Consumer>, ConsumeError> {
        let partition = Arc::clone(self.shared.partition(partition));
        let consumer = EmbeddedConsumer::new(self.shared.identity.id, partition, from);
        Ok(Box::new(consumer.checked()?))
    }

    /// The reading side of one partition, standing at its beginning. Whoever has a position checks it
    /// ([`ResumePoint::check`](crate::ResumePoint::check)), which also seeks.
    ///
    /// # Panics
    ///
    /// If the queue has no such partition.
    #[must_use]
    pub fn reader(&self, partition: PartitionId) -> Box<dyn Consumer> {
        let partition = Arc::clone(self.shared.partition(partition));
        let first = Offset(partition.reader().first_lsn().0);
        let queue = self.shared.identity.id;
        Box::new(EmbeddedConsumer::new(queue, partition, first))
    }

    /// Removes what the retention options let go, as of `now`, and what the store has released.
    /// Appends do it now and then; call it where none may come for long.
    ///
    /// # Errors
    ///
    /// If a segment cannot be removed. What was removed before it stays removed.
    pub fn enforce_retention(&self, now: TimestampMs) -> Result<(), QueueError> {
        let mut state = self.shared.retention.lock();
        self.shared.enforce_retention(&mut state, now)
    }

    /// Waits for appends in flight, refuses further ones, and wakes consumers: they still get
    /// what is there, then [`ConsumeError::Closed`].
    pub fn close(&self) {
        for partition in &self.shared.partitions {
            partition.close();
        }
    }
}

fn check_options(options: &EmbeddedOptions) -> Result<(), QueueError> {
    if !(1..=MAX_PARTITIONS).contains(&options.partitions) {
        return Err(QueueError::PartitionCount {
            wanted: options.partitions,
            max: MAX_PARTITIONS,
        });
    }
    let max = batch::MAX_BODY_BYTES;
    if !(MIN_BATCH_BYTES..=max).contains(&options.max_batch_bytes) {
        return Err(QueueError::BatchBytes {
            wanted: options.max_batch_bytes,
            min: MIN_BATCH_BYTES,
            max,
        });
    }
    Ok(())
}

impl Shared {
    fn partition(&self, id: PartitionId) -> &Arc<Partition> {
        self.partitions.get(id.index()).unwrap_or_else(|| {
            panic!(
                "partition {id} of a queue with {}",
                self.identity.partitions
            )
        })
    }

    /// After an append: retention, if a segment was closed or it is time.
    fn after_append(&self, rolled: bool) {
        // Another lane is at it: it does our part too.
        let Some(mut state) = self.retention.try_lock() else {
            return;
        };
        let monotonic = self.clock.monotonic();
        if !rolled && monotonic.saturating_sub(state.last_run) < self.retention_interval {
            return;
        }
        state.last_run = monotonic;
        if let Err(error) = self.enforce_retention(&mut state, self.clock.now()) {
            tracing::error!(%error, "retention could not remove a segment of the queue");
        }
    }

    fn enforce_retention(
        &self,
        state: &mut RetentionState,
        now: TimestampMs,
    ) -> Result<(), QueueError> {
        let now = state.guard.trusted(now, self.clock.monotonic());
        let holdings: Vec<_> = self.partitions.iter().map(|p| p.holding()).collect();
        let decisions = retention::decide(&holdings, self.policy, now);
        let mut result = Ok(());
        for (partition, decision) in self.partitions.iter().zip(decisions) {
            if let Err(source) = partition.remove(decision) {
                self.retention_failures.inc();
                let error = QueueError::Log {
                    partition: partition.id(),
                    source,
                };
                result = result.and(Err(error));
            }
        }
        result
    }
}

impl Producer for Shared {
    fn identity(&self) -> &QueueIdentity {
        &self.identity
    }

    fn durability(&self) -> Durability {
        Durability::Disk
    }

    fn append(&self, partition: PartitionId, batches: Vec<Bytes>, done: AppendDone) {
        let partition = self.partition(partition);
        let rolled = partition.append(&batches, self.clock.now(), done);
        self.after_append(rolled);
    }

    fn max_batch_bytes(&self) -> usize {
        self.max_batch_bytes
    }
}

#[cfg(test)]
mod tests;
