//! What a shard's thread shares with readers and with whoever waits for it.
//!
//! Invariant: a [`View`] is immutable and complete. A reader takes one and sees all that was
//! applied when it took it, and perhaps more, whatever is sealed meanwhile; nothing it refers to
//! goes away before it does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_model::{DeleteId, Offset, PartitionId, QueueId, TenantId, TimeRange, TimestampMs};
use parking_lot::{Condvar, Mutex, RwLock};

use super::blocks::LiveBlock;
use super::stop::StopCode;
use crate::error::StoreError;
use crate::manifest::{Gap, ManifestState, MetadataMap};
use crate::memtable::Memtable;
use crate::metrics::{ShardMetrics, as_gauge};
use crate::tombstone::{Masks, Tombstone};
use crate::views::Shelf;

/// Where samples are.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// In order of their sequences: of two with one sample the later one is right.
    pub(crate) blocks: Vec<Arc<LiveBlock>>,
    /// Memtables being sealed or waiting for it, oldest first, and those that take samples.
    /// Later than all blocks of their layer.
    pub(crate) tables: Vec<TableView>,
    /// Deletes whose samples are not all removed yet, and those that are; in order of their offsets.
    pub(crate) tombstones: Arc<[Arc<Tombstone>]>,
}

impl View {
    /// Adds blocks, in the order that the view promises.
    pub(crate) fn add_blocks(&mut self, blocks: impl IntoIterator<Item = Arc<LiveBlock>>) {
        self.blocks.extend(blocks);
        self.blocks
            .sort_by_key(|block| (block.entry.sequences, block.entry.id));
    }

    /// The tombstones that may hide something of `tenant` in a place with samples of seals up to
    /// `last`.
    pub(crate) fn masks(&self, tenant: &TenantId, last: u64, range: TimeRange) -> Masks<'_> {
        Masks::new(&self.tombstones, tenant, last, range)
    }
}

/// A memtable and the number of its seal.
#[derive(Clone, Debug)]
pub(crate) struct TableView {
    pub(crate) table: Arc<Memtable>,
    /// [`NOT_CLOSED`] of the one that takes samples.
    pub(crate) sequence: u64,
}

impl TableView {
    /// Of the memtable that takes samples.
    pub(crate) fn open(table: Arc<Memtable>) -> Self {
        Self {
            table,
            sequence: NOT_CLOSED,
        }
    }
}

/// No tombstone hides it: what a delete finds in the memtable that takes samples is closed off first.
pub(crate) const NOT_CLOSED: u64 = u64::MAX;

/// What a shard is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// It is open, and applies what it is given.
    Running,
    /// It met something that it must not go on behind. Its series can still be read.
    Stopped {
        /// What kind of thing.
        code: StopCode,
        /// Which one.
        reason: String,
    },
    /// It was closed in order.
    Closed,
}

impl fmt::Display for ShardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Stopped { code, reason } => write!(f, "stopped ({}): {reason}", code.as_str()),
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// One shard in figures.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardStatus {
    /// Which shard.
    pub partition: PartitionId,
    /// The queue that its offsets are of.
    pub queue: QueueId,
    /// What it is doing.
    pub state: ShardState,
    /// Everything below this offset of the queue can be read.
    pub applied: Offset,
    /// Everything below this offset of the queue is in blocks.
    pub sealed: Offset,
    /// Records in the queue that are not applied yet, when it was last asked.
    pub lag_records: u64,
    /// When the queue took the record that was applied last; unknown before the first one since
    /// the open.
    pub applied_appended_at: Option<TimestampMs>,
    /// Batches applied since the open.
    pub applied_batches: u64,
    /// Samples applied since the open.
    pub applied_samples: u64,
    /// Why the queue cannot be read just now. The shard tries again.
    pub unreadable: Option<String>,
    /// Memory of its memtables, in bytes.
    pub memtable_bytes: u64,
    /// Series in its memtables.
    pub memtable_series: u64,
    /// Samples in its memtables.
    pub memtable_samples: u64,
    /// Size of its WAL, in bytes.
    pub wal_bytes: u64,
    /// Live blocks.
    pub blocks: u64,
    /// Their size, in bytes.
    pub block_bytes: u64,
    /// Deletes that it knows, those done included.
    pub tombstones: u64,
    /// How long its last open took.
    pub recovery: Duration,
    /// WAL records that the open replayed.
    pub replayed_records: u64,
    /// Where it did not go on reading where it had stopped, oldest first.
    pub gaps: Vec<Gap>,
}

#[derive(Debug)]
struct Progress {
    queue: QueueId,
    gaps: Vec<Gap>,
    state: ShardState,
    applied: Offset,
    sealed: Offset,
    lag_records: u64,
    appended_at: Option<TimestampMs>,
    unreadable: Option<String>,
    wal_bytes: u64,
    recovery: Duration,
    replayed_records: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) partition: PartitionId,
    pub(crate) metrics: ShardMetrics,
    view: RwLock<Arc<View>>,
    pub(crate) metadata: RwLock<MetadataMap>,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// The next number for a seal, or for the files of a compaction.
    next_sequence: AtomicU64,
    /// The queue's time, in milliseconds since the epoch: no record that it took before is still to
    /// be applied.
    queue_time: AtomicI64,
    /// Blocks that live no more and that a reader may still hold.
    obsolete: Mutex<Vec<Arc<LiveBlock>>>,
    /// The deletes that the manifest has; others are in the WAL alone.
    kept_deletes: Mutex<BTreeMap<DeleteId, Arc<Tombstone>>>,
    /// What is derived of views.
    pub(crate) views: Shelf,
}

impl Shared {
    pub(crate) fn new(
        partition: PartitionId,
        metrics: ShardMetrics,
        view: View,
        manifest: &ManifestState,
        views: Shelf,
    ) -> Self {
        let sealed = manifest.sealed;
        let shared = Self {
            partition,
            metrics,
            view: RwLock::new(Arc::new(view)),
            metadata: RwLock::new(manifest.metadata.clone()),
            progress: Mutex::new(Progress {
                queue: manifest.queue,
                gaps: manifest.gaps.clone(),
                state: ShardState::Running,
                applied: sealed,
                sealed,
                lag_records: 0,
                appended_at: None,
                unreadable: None,
                wal_bytes: 0,
                recovery: Duration::ZERO,
                replayed_records: 0,
            }),
            changed: Condvar::new(),
            next_sequence: AtomicU64::new(manifest.next_sequence),
            queue_time: AtomicI64::new(i64::MIN),
            obsolete: Mutex::new(Vec::new()),
            kept_deletes: Mutex::new(manifest.tombstones.clone()),
            views,
        };
        shared.metrics.stopped.set(0);
        shared.set_sealed(sealed);
        shared.set_applied(sealed);
        shared.publish_block_metrics();
        shared
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// Replaces the view by what `change` makes of it.
    pub(crate) fn change_view(&self, change: impl FnOnce(&mut View)) {
        let mut guard = self.view.write();
        let mut view = View::clone(&guard);
        change(&mut view);
        *guard = Arc::new(view);
        drop(guard);
        self.publish_block_metrics();
    }

    /// A number that no seal and no compaction of this shard had before.
    pub(crate) fn take_sequence(&self) -> u64 {
        self.next_sequence.fetch_add(1, Ordering::SeqCst)
    }

    /// The number that comes next.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence.load(Ordering::SeqCst)
    }

    /// Notes that no record which the queue took before `moment` is still to be applied.
    pub(crate) fn note_queue_time(&self, moment: TimestampMs) {
        self.queue_time.fetch_max(moment.0, Ordering::SeqCst);
    }

    pub(crate) fn queue_time(&self) -> TimestampMs {
        TimestampMs(self.queue_time.load(Ordering::SeqCst))
    }

    /// Notes which deletes the manifest has.
    pub(crate) fn note_deletes(&self, manifest: &ManifestState) {
        self.kept_deletes.lock().clone_from(&manifest.tombstones);
    }

    /// The deletes that the manifest has. One that was revoked is among them until a seal has made
    /// that durable: a crash may bring it back.
    pub(crate) fn kept_deletes(&self) -> Vec<Arc<Tombstone>> {
        self.kept_deletes.lock().values().cloned().collect()
    }

    /// Whether the manifest has a delete.
    pub(crate) fn keeps_delete(&self, id: DeleteId) -> bool {
        self.kept_deletes.lock().contains_key(&id)
    }

    /// Notes blocks that are in no view any more.
    pub(crate) fn retire_blocks(&self, blocks: Vec<Arc<LiveBlock>>) {
        self.obsolete.lock().extend(blocks);
    }

    /// Takes the blocks that live no more and that no reader holds.
    pub(crate) fn take_obsolete(&self) -> Vec<Arc<LiveBlock>> {
        let mut obsolete = self.obsolete.lock();
        // Only this list can give out more of them, and it does not: one is final.
        let free = obsolete.extract_if(.., |block| Arc::strong_count(block) == 1);
        free.collect()
    }

    fn publish_block_metrics(&self) {
        let view = self.view();
        let bytes: u64 = view.blocks.iter().map(|b| b.entry.bytes).sum();
        self.metrics.blocks.set(as_gauge(view.blocks.len() as u64));
        self.metrics.block_bytes.set(as_gauge(bytes));
    }

    pub(crate) fn applied(&self) -> Offset {
        self.progress.lock().applied
    }

    /// The queue that the applied offset is of.
    pub(crate) fn queue(&self) -> QueueId {
        self.progress.lock().queue
    }

    /// Publishes that the shard reads elsewhere.
    pub(crate) fn set_gap(&self, gap: Gap) {
        let mut progress = self.progress.lock();
        progress.queue = gap.to.0;
        progress.gaps.push(gap);
        drop(progress);
        self.set_sealed(gap.to.1);
        self.set_applied(gap.to.1);
    }

    /// Publishes the applied offset and wakes who waits for it.
    pub(crate) fn set_applied(&self, applied: Offset) {
        self.progress.lock().applied = applied;
        self.changed.notify_all();
        self.metrics.applied_offset.set(as_gauge(applied.0));
    }

    /// Notes when the queue took what was applied last.
    pub(crate) fn set_appended_at(&self, appended_at: TimestampMs) {
        self.progress.lock().appended_at = Some(appended_at);
    }

    /// Notes why the queue cannot be read, or that it can.
    pub(crate) fn set_unreadable(&self, reason: Option<&str>) {
        let mut progress = self.progress.lock();
        if progress.unreadable.as_deref() != reason {
            progress.unreadable = reason.map(str::to_owned);
        }
    }

    pub(crate) fn set_sealed(&self, sealed: Offset) {
        self.progress.lock().sealed = sealed;
        self.metrics.sealed_offset.set(as_gauge(sealed.0));
    }

    pub(crate) fn set_lag(&self, records: u64) {
        self.progress.lock().lag_records = records;
        self.metrics.lag_records.set(as_gauge(records));
    }

    pub(crate) fn set_wal_bytes(&self, bytes: u64) {
        self.progress.lock().wal_bytes = bytes;
        self.metrics.wal_bytes.set(as_gauge(bytes));
    }

    pub(crate) fn set_recovered(&self, took: Duration, replayed_records: u64) {
        let mut progress = self.progress.lock();
        progress.recovery = took;
        progress.replayed_records = replayed_records;
        self.metrics.recovery_seconds.set(took.as_secs_f64());
    }

    /// Stops the shard for good; the first reason is kept.
    pub(crate) fn stop(&self, code: StopCode, reason: &str) {
        let mut progress = self.progress.lock();
        if progress.state == ShardState::Running {
            let (partition, code_name) = (self.partition.0, code.as_str());
            let resolve = code.commands(self.partition).join(" | ");
            tracing::error!(
                partition,
                code = code_name,
                reason,
                resolve,
                "shard stopped; its series can still be read, the other shards go on"
            );
            progress.state = ShardState::Stopped {
                code,
                reason: reason.to_owned(),
            };
            self.metrics.stopped.set(1);
        }
        drop(progress);
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        let mut progress = self.progress.lock();
        if progress.state == ShardState::Running {
            progress.state = ShardState::Closed;
        }
        drop(progress);
        self.changed.notify_all();
    }

    /// # Errors
    ///
    /// [`StoreError::Stopped`] unless the shard is running.
    pub(crate) fn check_running(&self) -> Result<(), StoreError> {
        let progress = self.progress.lock();
        match &progress.state {
            ShardState::Running => Ok(()),
            state => Err(StoreError::Stopped {
                partition: self.partition,
                reason: state.to_string(),
            }),
        }
    }

    /// Blocks until everything below `wanted` of `queue` is applied.
    pub(crate) fn wait_applied(
        &self,
        queue: QueueId,
        wanted: Offset,
        timeout: Duration,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + timeout;
        let mut progress = self.progress.lock();
        // An offset of another queue says nothing, however large it is.
        while progress.queue != queue || progress.applied < wanted {
            if progress.state != ShardState::Running {
                return Err(StoreError::Stopped {
                    partition: self.partition,
                    reason: progress.state.to_string(),
                });
            }
            if self.changed.wait_until(&mut progress, deadline).timed_out()
                && (progress.queue != queue || progress.applied < wanted)
            {
                return Err(StoreError::WaitTimeout {
                    partition: self.partition,
                    wanted,
                    applied: progress.applied,
                    timeout,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn status(&self) -> ShardStatus {
        let view = self.view();
        let (mut bytes, mut series, mut samples) = (0, 0, 0);
        for of_view in &view.tables {
            let rows = of_view.table.rows();
            bytes += rows.heap_bytes() as u64;
            series += rows.len() as u64;
            samples += rows.samples();
        }
        let progress = self.progress.lock();
        ShardStatus {
            partition: self.partition,
            queue: progress.queue,
            state: progress.state.clone(),
            applied: progress.applied,
            sealed: progress.sealed,
            lag_records: progress.lag_records,
            applied_appended_at: progress.appended_at,
            applied_batches: self.metrics.batches.get(),
            applied_samples: self.metrics.samples.get(),
            unreadable: progress.unreadable.clone(),
            memtable_bytes: bytes,
            memtable_series: series,
            memtable_samples: samples,
            wal_bytes: progress.wal_bytes,
            blocks: view.blocks.len() as u64,
            block_bytes: view.blocks.iter().map(|b| b.entry.bytes).sum(),
            tombstones: view.tombstones.len() as u64,
            recovery: progress.recovery,
            replayed_records: progress.replayed_records,
            gaps: progress.gaps.clone(),
        }
    }
}
