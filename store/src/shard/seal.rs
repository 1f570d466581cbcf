//! Sealing: a full or old memtable becomes blocks, while the next one takes samples.
//!
//! Three steps, so that the long one can run on another thread:
//! 1. [`Shard::begin_seal`] freezes the memtable: a new one takes its place, the WAL is synced and
//!    cut. Short.
//! 2. [`SealJob::run`] writes one block for each time window. Long; needs nothing of the shard.
//! 3. [`Shard::finish_seal`] makes the blocks live by one manifest edit, and then drops the frozen
//!    memtable and its part of the WAL. Short.
//!
//! A crash before the edit leaves orphans, which the next open removes, and the WAL, from which it
//! replays; behind the edit it leaves a WAL that is passed over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millrace_log::planted::active;
use millrace_model::{MetricMetadata, Offset, PartitionId, TenantId, TimestampMs};
use millrace_queue::Fingerprint;

use super::deletes::DeleteChanges;
use super::state::TableView;
use super::{LiveBlock, Shard, ShardContext};
use crate::error::{IoContext, StoreError};
use crate::label_order;
use crate::manifest::Edit;
use crate::memtable::{Memtable, SeriesRef};
use crate::paths::{BlockId, ShardDir};
use crate::planted::{BLOCK_DIR_UNSYNCED, W_BEFORE_DATA, WAL_REMOVED_EARLY};

/// Why a memtable is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealReason {
    /// It takes its share of the memory.
    Full,
    /// Its first sample came too long ago.
    Old,
    /// The WAL is too long.
    WalFull,
    /// Deletes have closed many memtables.
    Deletes,
}

/// The long part of a seal. Runs on any thread.
#[derive(Debug)]
pub struct SealJob {
    pub(super) context: ShardContext,
    pub(super) dir: ShardDir,
    pub(super) partition: PartitionId,
    /// Oldest first.
    pub(super) tables: Vec<FrozenTable>,
    /// Everything below is in blocks once the job is done.
    pub(super) sealed: Offset,
    /// Of the last record in them.
    pub(super) last: Option<Fingerprint>,
    pub(super) wal_lsn: u64,
    pub(super) metadata: Vec<(TenantId, MetricMetadata)>,
    pub(super) deletes: DeleteChanges,
    pub(super) started: Duration,
}

/// A memtable that takes no more samples.
#[derive(Clone, Debug)]
pub(crate) struct FrozenTable {
    pub(super) table: Arc<Memtable>,
    pub(super) sequence: u64,
    /// It holds samples of the queue's records `[from, to)`.
    pub(super) offsets: (Offset, Offset),
}

/// Blocks that are written and durable, and not live yet.
#[derive(Debug)]
pub struct Sealed {
    job: SealJob,
    blocks: Vec<LiveBlock>,
}

/// A memtable whose blocks live. To drop it frees some million pieces of memory, which takes a
/// while: not for the shard's own thread.
#[derive(Debug)]
#[must_use = "dropping it takes a while, and may be left to another thread"]
pub struct Retired {
    _tables: Vec<FrozenTable>,
}

/// Closed memtables, each by a delete, beyond which a seal is due: every one is read on its own.
const CLOSED_TABLES_MAX: usize = 16;

impl Shard {
    /// Whether the memtable should be sealed now.
    #[must_use]
    pub fn seal_due(&self) -> Option<SealReason> {
        if self.sealing || self.applied == self.sealed() {
            return None;
        }
        if self.closed.len() >= CLOSED_TABLES_MAX {
            return Some(SealReason::Deletes);
        }
        let table = self.active.rows();
        // Half of the share: the other half is for what comes while this is sealed.
        if table.heap_bytes() + self.closed_bytes >= self.context.memtable_bytes() / 2 {
            return Some(SealReason::Full);
        }
        let now = self.context.clock.monotonic();
        let first = self.closed_first_at.or(table.first_at());
        let age = first.map(|first| now.saturating_sub(first));
        if age.is_some_and(|age| age >= self.context.options.memtable_max_age) {
            return Some(SealReason::Old);
        }
        drop(table);
        (self.wal.bytes() >= self.context.options.wal_bytes_max).then_some(SealReason::WalFull)
    }

    /// Whether a seal runs and the memtable is full as well: nothing more should be applied before
    /// the seal is done.
    #[must_use]
    pub fn must_wait_for_seal(&self) -> bool {
        let table = self.active.rows();
        let bytes = table.heap_bytes() + self.closed_bytes + self.frozen_bytes;
        self.sealing && bytes >= self.context.memtable_bytes()
    }

    /// Freezes the memtable. `None` if nothing was applied since the last seal, or while one runs.
    ///
    /// # Errors
    ///
    /// Of the WAL's sync: the shard has then stopped.
    pub fn begin_seal(&mut self) -> Result<Option<SealJob>, StoreError> {
        self.shared.check_running()?;
        if self.sealing || self.applied == self.sealed() {
            return Ok(None);
        }
        let cut = self.wal.cut();
        let wal_lsn = self.stop_on_error(cut)?;
        self.synced = self.applied;
        Ok(Some(self.freeze(wal_lsn)))
    }

    /// Swaps the memtables. The WAL is not needed below `wal_lsn` once the job is done.
    pub(super) fn freeze(&mut self, wal_lsn: u64) -> SealJob {
        let mut sealed = self.applied;
        if active(W_BEFORE_DATA) {
            sealed = sealed.advanced(1);
        }
        self.close_table(sealed);
        self.sealing = true;
        self.frozen_bytes = std::mem::take(&mut self.closed_bytes);
        self.closed_first_at = None;
        let metadata = std::mem::take(&mut self.unsealed_metadata).into_iter();
        SealJob {
            context: self.context.clone(),
            dir: self.dir.clone(),
            partition: self.partition(),
            tables: std::mem::take(&mut self.closed),
            sealed,
            last: self.last,
            wal_lsn,
            metadata: metadata
                .flat_map(|(tenant, entries)| {
                    entries.into_values().map(move |e| (tenant.clone(), e))
                })
                .collect(),
            deletes: std::mem::take(&mut self.unsealed_deletes),
            started: self.context.clock.monotonic(),
        }
    }

    /// Closes the memtable that takes samples, all of which come from records below `to`, and puts a
    /// new one in its place.
    pub(super) fn close_table(&mut self, to: Offset) {
        let fresh = Arc::new(Memtable::new(self.context.window_ms()));
        let table = std::mem::replace(&mut self.active, Arc::clone(&fresh));
        let rows = table.rows();
        self.closed_bytes += rows.heap_bytes();
        self.closed_first_at = self.closed_first_at.or(rows.first_at());
        drop(rows);
        let from = std::mem::replace(&mut self.active_from, to);
        let sequence = self.shared.take_sequence();
        self.shared.change_view(|view| {
            if let Some(last) = view.tables.last_mut() {
                last.sequence = sequence;
            }
            view.tables.push(TableView::open(fresh));
        });
        self.closed.push(FrozenTable {
            table,
            sequence,
            offsets: (from, to),
        });
    }

    /// Makes the blocks of a seal live, and returns what they replace.
    ///
    /// # Errors
    ///
    /// Of the seal itself, or of a write: the shard has then stopped, and lost nothing.
    pub fn finish_seal(
        &mut self,
        sealed: Result<Sealed, StoreError>,
    ) -> Result<Retired, StoreError> {
        self.shared.check_running()?;
        let result = sealed.and_then(|sealed| self.commit_seal(sealed));
        self.stop_on_error(result)
    }

    /// All three steps. Returns the sealed offset.
    ///
    /// # Errors
    ///
    /// As the steps.
    pub fn seal(&mut self) -> Result<Offset, StoreError> {
        if let Some(job) = self.begin_seal()? {
            drop(self.finish_seal(job.run())?);
        }
        Ok(self.sealed())
    }

    pub(super) fn commit_seal(&mut self, sealed: Sealed) -> Result<Retired, StoreError> {
        let Sealed { job, blocks } = sealed;
        let offset = job.sealed;
        if active(WAL_REMOVED_EARLY) {
            self.wal.remove_below(job.wal_lsn)?;
        }
        let bytes = blocks.iter().map(|b| b.entry.bytes).sum();
        let edit = Edit {
            sealed: offset,
            sealed_last: job.last,
            wal_lsn: job.wal_lsn,
            next_sequence: self.shared.next_sequence(),
            added: blocks.iter().map(|b| b.entry.clone()).collect(),
            metadata: job.metadata,
            ..self.manifest.state().edit()
        };
        self.manifest.commit(job.deletes.into_edit(edit))?;
        self.shared.change_view(|view| {
            let frozen = |table: &TableView| {
                let same = |f: &FrozenTable| Arc::ptr_eq(&f.table, &table.table);
                job.tables.iter().any(same)
            };
            view.tables.retain(|table| !frozen(table));
            view.add_blocks(blocks.into_iter().map(Arc::new));
        });
        self.shared.set_sealed(offset);
        self.sealing = false;
        self.frozen_bytes = 0;
        self.wal.remove_below(job.wal_lsn)?;
        let took = self.context.clock.monotonic().saturating_sub(job.started);
        let metrics = &self.shared.metrics;
        metrics.seals.inc();
        metrics.sealed_bytes.inc_by(bytes);
        metrics.seal_seconds.observe(took.as_secs_f64());
        self.publish();
        Ok(Retired {
            _tables: job.tables,
        })
    }
}

impl SealJob {
    /// Writes the blocks.
    ///
    /// # Errors
    ///
    /// Of a write or a sync. What was written is an orphan, which the next open removes.
    pub fn run(self) -> Result<Sealed, StoreError> {
        let mut blocks = Vec::new();
        for frozen in &self.tables {
            let order = frozen.series_order();
            for (ordinal, window) in self.windows(frozen).into_iter().enumerate() {
                let id = BlockId {
                    sequence: frozen.sequence,
                    ordinal: u32::try_from(ordinal).expect("blocks of a seal are bounded"),
                };
                blocks.extend(self.write_block(frozen, id, window, &order)?);
            }
        }
        if !blocks.is_empty() {
            let dir = self.dir.blocks();
            if !active(BLOCK_DIR_UNSYNCED) {
                // IMPORTANT: the names before the manifest lists them.
                self.context.fs.sync_dir(&dir).context("sync", &dir)?;
            }
        }
        Ok(Sealed { job: self, blocks })
    }

    /// The windows of the samples, `[start, end]` each, disjoint and in order of time; at most as
    /// many as one seal may write.
    fn windows(&self, frozen: &FrozenTable) -> Vec<(i64, i64)> {
        let table = frozen.table.rows();
        let max = self.context.options.blocks_per_seal_max;
        widen(table.windows(), self.context.window_ms(), max)
    }
}

impl FrozenTable {
    /// The series as a block wants them: by tenant, then by labels.
    fn series_order(&self) -> Vec<SeriesRef> {
        let rows = self.table.rows();
        let keyed = rows.all().map(|at| {
            let (tenant, labels) = rows.describe(at);
            (tenant, labels.canonical(), at)
        });
        let mut keyed: Vec<_> = keyed.collect();
        keyed.sort_unstable_by(|a, b| {
            let tenants = a.0.cmp(b.0);
            tenants.then_with(|| label_order::compare(a.1, b.1))
        });
        keyed.into_iter().map(|(_, _, at)| at).collect()
    }
}

/// Joins the oldest windows until there are at most `max`. A device whose clock began in 1970 is
/// ordinary, and must not cost a file for every two hours since.
fn widen(windows: &BTreeSet<i64>, width_ms: i64, max: usize) -> Vec<(i64, i64)> {
    // The widest windows tile the whole time line in four.
    let max = max.max(8);
    let mut starts: Vec<i64> = windows.iter().copied().collect();
    if starts.len() > max {
        let newest = starts.split_off(starts.len() - max / 2);
        let mut width = width_ms;
        while starts.len() > max - max / 2 {
            width = width.saturating_mul(2);
            let wider = starts.iter().map(|&s| TimestampMs(s).window_start(width).0);
            starts = BTreeSet::from_iter(wider).into_iter().collect();
        }
        starts.extend(newest);
    }
    let ends = starts.iter().skip(1).map(|next| next - 1);
    let last = windows.last().map(|last| last.saturating_add(width_ms - 1));
    starts.iter().copied().zip(ends.chain(last)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_disjoint_cover_all_and_bounded() {
        let cases: [Vec<i64>; 4] = [
            vec![0],
            vec![-1, 0, 99, 100, 100_000],
            (0..500).map(|i| i * i * 1_000).collect(),
            vec![i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX],
        ];
        for moments in cases {
            let windows = moments.iter().map(|&m| TimestampMs(m).window_start(100).0);
            let ranges = widen(&windows.collect(), 100, 10);
            assert!(ranges.len() <= 10, "{ranges:?}");
            assert!(ranges.is_sorted_by(|a, b| a.1 < b.0), "{ranges:?}");
            for moment in moments {
                let holders = ranges.iter().filter(|r| r.0 <= moment && moment <= r.1);
                assert_eq!(holders.count(), 1, "{moment} in {ranges:?}");
            }
        }
    }

    #[test]
    fn few_windows_stay_as_wide_as_they_are() {
        let ranges = widen(&BTreeSet::from([-100, 0, 700]), 100, 10);
        assert_eq!(ranges, [(-100, -1), (0, 699), (700, 799)]);
    }
}
