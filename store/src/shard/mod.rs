//! The engine of one partition. Synchronous: a test drives it step by step on one thread.
//!
//! ```text
//! apply(records):  drop those below W → WAL (one write) → each: decode all, then memtable → publish W
//! seal:            freeze (WAL synced and cut) → write blocks → manifest edit → WAL marker → WAL removed
//! open:            manifest → WAL proves that no edit is lost → orphans removed → blocks → WAL replayed
//! ```
//!
//! Invariants: those of the [crate], and
//! - at most one memtable is being sealed at a time;
//! - after an error of a write or a sync every call answers [`StoreError::Stopped`].

mod blocks;
mod change;
mod deletes;
mod recovery;
mod resume;
mod seal;
mod state;
mod stop;
mod upkeep;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millrace_log::HeldSegment;
use millrace_log::fs::Fs;
use millrace_log::planted::active;
use millrace_model::batch::is_requeued;
use millrace_model::{Clock, Offset, PartitionId, TimestampMs};
use millrace_queue::{Fingerprint, Origin, QueueIdentity, Record};

use crate::block::PageCache;
use crate::dead_letters::{DeadLetterBox, Kept, Terms};
use crate::decode::{Decoded, Earlier, RecordError};
use crate::error::StoreError;
use crate::layer::Layer;
use crate::manifest::{Manifest, ManifestState, MetadataMap};
use crate::memtable::Memtable;
use crate::metrics::{StoreMetrics, as_gauge};
use crate::options::{StoreOptions, WalSync};
use crate::paths::ShardDir;
use crate::planted::{
    REDELIVERY_APPLIED, REDELIVERY_OFF_BY_ONE, RELEASE_BEFORE_SEAL, REQUEUED_OVERRIDES,
};
use crate::views::Views;
use crate::wal::Wal;
pub(crate) use blocks::LiveBlock;
pub(crate) use change::{Change, remove_obsolete};
use deletes::DeleteChanges;
pub(crate) use recovery::remove_temporary;
use seal::FrozenTable;
pub use seal::{Retired, SealJob, SealReason, Sealed};
pub use state::{ShardState, ShardStatus};
pub(crate) use state::{Shared, TableView, View};
pub use stop::StopCode;
pub(crate) use upkeep::{CleanStep, Upkeep};

/// What a shard is made with.
#[derive(Clone, Debug)]
pub struct ShardContext {
    /// Where the files are.
    pub fs: Arc<dyn Fs>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Settings of the whole store.
    pub options: StoreOptions,
    /// The queue that feeds the store.
    pub identity: QueueIdentity,
    /// Metrics of the whole store.
    pub metrics: StoreMetrics,
    /// Pages of the indexes of its blocks.
    pub pages: Arc<PageCache>,
    /// The views that are derived.
    pub views: Arc<Views>,
}

impl ShardContext {
    /// Memory of one shard: its share of the store's.
    fn memtable_bytes(&self) -> usize {
        let shards = u64::from(self.identity.partitions.max(1));
        usize::try_from(self.options.memtable_bytes / shards).unwrap_or(usize::MAX)
    }

    fn window_ms(&self) -> i64 {
        i64::try_from(self.options.block_window.as_millis())
            .unwrap_or(i64::MAX)
            .max(1)
    }
}

/// One partition's engine. See the [module](self).
#[derive(Debug)]
pub struct Shard {
    context: ShardContext,
    dir: ShardDir,
    shared: Arc<Shared>,
    manifest: Manifest,
    wal: Wal,
    dead_letters: DeadLetterBox,
    /// The memtable that takes samples.
    active: Arc<Memtable>,
    /// The one that takes samples of records that were queued again, once there are such.
    requeued: Option<Arc<Memtable>>,
    /// The active memtable holds samples of records from here on.
    active_from: Offset,
    /// Memtables that deletes have closed and that no seal has taken yet, oldest first.
    closed: Vec<FrozenTable>,
    /// Their memory.
    closed_bytes: usize,
    /// When the first sample of the oldest of them came, in monotonic time.
    closed_first_at: Option<Duration>,
    /// W: everything below is applied.
    applied: Offset,
    /// Of the record right before W.
    last: Option<Fingerprint>,
    /// Whether the records that are applied come from the WAL.
    replaying: bool,
    /// Everything below is on the disk, in the WAL or in blocks.
    synced: Offset,
    /// Metadata that the manifest does not have yet.
    unsealed_metadata: MetadataMap,
    /// Deletes and revocations that the manifest does not have yet.
    unsealed_deletes: DeleteChanges,
    decoded: Decoded,
    sealing: bool,
    /// Memory of the memtables that are being sealed.
    frozen_bytes: usize,
    /// When the WAL was last synced, in monotonic time.
    synced_at: Duration,
}

impl Shard {
    /// Opens the shard of `partition` under the store's directory, and recovers it: its applied
    /// offset then says where the queue is to be read from.
    ///
    /// # Errors
    ///
    /// See [`StoreError`]. Nothing that is still needed was removed.
    pub fn open(
        context: ShardContext,
        store: &Path,
        partition: PartitionId,
    ) -> Result<Self, StoreError> {
        recovery::open(context, store, partition)
    }

    /// Which partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.shared.partition
    }

    /// W: everything below this offset of the queue is applied.
    #[must_use]
    pub fn applied(&self) -> Offset {
        self.applied
    }

    /// Everything below this offset of the queue is in blocks.
    #[must_use]
    pub fn sealed(&self) -> Offset {
        self.manifest.state().sealed
    }

    /// The queue may forget everything below this offset.
    #[must_use]
    pub fn releasable(&self) -> Offset {
        if active(RELEASE_BEFORE_SEAL) {
            return self.applied;
        }
        self.sealed()
    }

    /// The highest wall-clock time that retention has believed.
    pub(crate) fn high_water(&self) -> Option<TimestampMs> {
        let stored = self.manifest.state().high_water;
        (stored > i64::MIN).then_some(TimestampMs(stored))
    }

    /// What time it is.
    pub(crate) fn now(&self) -> TimestampMs {
        self.context.clock.now()
    }

    pub(crate) fn manifest_state(&self) -> &ManifestState {
        self.manifest.state()
    }

    /// Generation and bytes of a manifest that says what this one does.
    pub(crate) fn manifest_image(&self) -> (u64, Vec<u8>) {
        self.manifest.image()
    }

    /// The list of the views.
    pub(crate) fn view_list(&self) -> Vec<u8> {
        self.context.views.image()
    }

    /// What is synced of the WAL.
    pub(crate) fn hold_wal(&self) -> Result<Vec<HeldSegment>, StoreError> {
        self.wal.hold()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// In figures.
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        self.shared.status()
    }

    /// The records that could not be decoded.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetterBox {
        self.dead_letters.clone()
    }

    /// Applies records of the queue in their order. Those below W are dropped. A record that cannot
    /// be decoded becomes a dead letter.
    ///
    /// # Errors
    ///
    /// Of a write or a sync: the shard has then stopped, and what of the records it had applied
    /// can be read.
    pub fn apply(&mut self, records: &[Record]) -> Result<(), StoreError> {
        self.shared.check_running()?;
        let fresh = self.drop_redelivered(records);
        if fresh.is_empty() {
            return Ok(());
        }
        let result = self.apply_fresh(&fresh);
        self.stop_on_error(result)
    }

    /// Makes the WAL durable.
    ///
    /// # Errors
    ///
    /// Of the sync: the shard has then stopped.
    pub fn sync_wal(&mut self) -> Result<(), StoreError> {
        self.shared.check_running()?;
        let result = self.sync_now();
        self.stop_on_error(result)
    }

    /// Syncs the WAL if its policy says that it is time. Returns how long until it is; `None`
    /// if there is nothing to sync.
    ///
    /// # Errors
    ///
    /// Of the sync: the shard has then stopped.
    pub fn maybe_sync_wal(&mut self) -> Result<Option<Duration>, StoreError> {
        let WalSync::Interval(interval) = self.context.options.wal_sync else {
            return Ok(None);
        };
        if self.wal.is_synced() {
            return Ok(None);
        }
        let since = self
            .context
            .clock
            .monotonic()
            .saturating_sub(self.synced_at);
        if since < interval {
            return Ok(Some(interval - since));
        }
        self.sync_wal()?;
        Ok(None)
    }

    /// Stops the shard for a reason from outside, such as a queue that has lost records.
    pub fn stop(&self, code: StopCode, reason: &str) {
        self.shared.stop(code, reason);
    }

    /// Syncs the WAL and closes. Seals nothing: the next open replays the WAL.
    ///
    /// # Errors
    ///
    /// Of the sync, or why the shard had stopped before.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.sync_wal()?;
        self.shared.close();
        Ok(())
    }

    fn drop_redelivered<'a>(&self, records: &'a [Record]) -> Vec<&'a Record> {
        let mut next = self.applied;
        let mut fresh = Vec::with_capacity(records.len());
        for record in records {
            let redelivered = if active(REDELIVERY_OFF_BY_ONE) {
                record.offset <= next && next != Offset::ZERO
            } else {
                record.offset < next && !active(REDELIVERY_APPLIED)
            };
            if redelivered {
                self.shared.metrics.redelivered_records.inc();
                continue;
            }
            next = record.offset.advanced(1);
            fresh.push(record);
        }
        fresh
    }

    fn apply_fresh(&mut self, records: &[&Record]) -> Result<(), StoreError> {
        self.last = None;
        self.wal.append(records)?;
        if self.context.options.wal_sync == WalSync::Always {
            self.sync_now()?;
        }
        for record in records {
            let applied = self.apply_one(record);
            if let Err(StoreError::TooManyDeadLetters { .. }) = applied {
                // The shard stops here in order, and what it has is told as durable.
                self.sync_now()?;
            }
            applied?;
        }
        self.last = records.last().map(|last| Fingerprint::of(last));
        self.publish();
        Ok(())
    }

    /// Applies one record that is in the WAL.
    fn apply_one(&mut self, record: &Record) -> Result<(), StoreError> {
        let layer = if is_requeued(&record.payload) && !active(REQUEUED_OVERRIDES) {
            Layer::Requeued
        } else {
            Layer::Ordinary
        };
        match self.decode(record, layer) {
            Ok(()) => {
                self.apply_deletes(record, layer);
                self.apply_decoded(layer);
            }
            Err(error) => self.keep_dead_letter(record, &error.to_string())?,
        }
        self.shared.note_queue_time(record.appended_at);
        // Before those who wait for the offset are told.
        self.shared.set_appended_at(record.appended_at);
        self.advance(record.offset.advanced(1));
        Ok(())
    }

    /// The first phase: nothing is changed by it, but that a memtable may be closed off.
    fn decode(&mut self, record: &Record, layer: Layer) -> Result<(), RecordError> {
        self.decode_for(record, layer)?;
        if self.decoded.deletes.is_empty() || !self.delete_needs_boundary() {
            return Ok(());
        }
        self.close_table(record.offset);
        // What was decoded refers to the memtable that was closed.
        self.decode_for(record, layer)
    }

    /// Decodes a record. A decoder that panics has found a record that it cannot decode.
    fn decode_for(&mut self, record: &Record, layer: Layer) -> Result<(), RecordError> {
        let table = self.table(layer);
        let view = self.shared.view();
        let earlier = Earlier {
            queue: self.manifest.state().queue,
            tombstones: &view.tombstones,
        };
        // Only this thread changes the memtable: what was found under the read lock is still
        // right under the write lock.
        let rows = table.rows();
        let decoded = &mut self.decoded;
        let decode = || decoded.decode(&record.payload, &rows, &earlier);
        // What is half decoded is cleared by the next decode, and never applied.
        catch_unwind(AssertUnwindSafe(decode)).unwrap_or(Err(RecordError::Panicked))
    }

    /// The memtable that takes samples of `layer`.
    fn table(&mut self, layer: Layer) -> Arc<Memtable> {
        match layer {
            Layer::Ordinary => Arc::clone(&self.active),
            Layer::Requeued => {
                let requeued = self.requeued.get_or_insert_with(|| {
                    let table = Arc::new(Memtable::new(layer, self.context.window_ms()));
                    let open = TableView::open(Arc::clone(&table));
                    self.shared.change_view(|view| view.tables.push(open));
                    table
                });
                Arc::clone(requeued)
            }
        }
    }

    fn active_tables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        self.requeued.iter().chain([&self.active])
    }

    /// Memory of the memtables that take samples.
    fn active_bytes(&self) -> usize {
        self.active_tables().map(|t| t.rows().heap_bytes()).sum()
    }

    fn apply_decoded(&mut self, layer: Layer) {
        let table = self.table(layer);
        let now = self.context.clock.monotonic();
        let counts = table.apply(&self.decoded, now);
        let metrics = &self.shared.metrics;
        metrics.batches.inc();
        metrics.samples.inc_by(counts.samples);
        metrics.late_samples.inc_by(counts.late);
        metrics.duplicate_samples.inc_by(counts.duplicate);
        self.apply_metadata(layer);
    }

    fn apply_metadata(&mut self, layer: Layer) {
        let Some(tenant) = self.decoded.tenant.as_ref() else {
            return;
        };
        if self.decoded.metadata.is_empty() {
            return;
        }
        let mut all = self.shared.metadata.write();
        let known = all.entry(tenant.clone()).or_default();
        let unsealed = self.unsealed_metadata.entry(tenant.clone()).or_default();
        for entry in self.decoded.metadata.drain(..) {
            let fills_gap = layer == Layer::Ordinary || !known.contains_key(&entry.metric);
            if fills_gap && known.get(&entry.metric) != Some(&entry) {
                unsealed.insert(entry.metric.clone(), entry.clone());
                known.insert(entry.metric.clone(), entry);
            }
        }
    }

    fn keep_dead_letter(&mut self, record: &Record, reason: &str) -> Result<(), StoreError> {
        let partition = self.partition();
        let origin = Origin {
            queue: self.manifest.state().queue,
            partition,
            offset: record.offset,
        };
        let max = self.context.options.dead_letters_max;
        let terms = Terms {
            now: self.context.clock.now(),
            max,
            replaying: self.replaying,
        };
        match self.dead_letters.keep(origin, record, reason, terms)? {
            Kept::New => {
                let (partition, offset) = (partition.0, record.offset.0);
                tracing::error!(partition, offset, reason, "record kept as a dead letter");
                self.shared.metrics.dead_letters.inc();
                Ok(())
            }
            Kept::Before => Ok(()),
            Kept::TooMany => Err(StoreError::TooManyDeadLetters {
                partition,
                offset: record.offset,
                max,
                reason: reason.to_owned(),
            }),
        }
    }

    fn advance(&mut self, applied: Offset) {
        self.applied = applied;
        self.shared.set_applied(applied);
    }

    fn sync_now(&mut self) -> Result<(), StoreError> {
        let started = self.context.clock.monotonic();
        if !self.wal.is_synced() {
            self.wal.sync()?;
            let took = self.context.clock.monotonic().saturating_sub(started);
            self.shared
                .metrics
                .wal_sync_seconds
                .observe(took.as_secs_f64());
        }
        self.synced_at = started;
        self.synced = self.applied;
        Ok(())
    }

    /// Publishes what changes with every poll.
    fn publish(&self) {
        let (mut series, mut samples) = (0, 0);
        for table in self.active_tables() {
            let rows = table.rows();
            series += rows.len() as u64;
            samples += rows.samples();
        }
        let bytes = self.active_bytes() + self.closed_bytes + self.frozen_bytes;
        let metrics = &self.shared.metrics;
        metrics.memtable_bytes.set(as_gauge(bytes as u64));
        metrics.memtable_series.set(as_gauge(series));
        metrics.memtable_samples.set(as_gauge(samples));
        self.shared.set_wal_bytes(self.wal.bytes());
    }

    fn stop_on_error<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.shared.stop(StopCode::from(error), &error.to_string());
        }
        result
    }
}

#[cfg(test)]
mod tests;
