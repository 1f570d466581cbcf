//! Opening a shard.
//!
//! In this order, and each step relies on the one before:
//! 1. the **manifest**: the only root of truth;
//! 2. the **WAL**, which proves that the manifest has lost no edit: if it begins behind what the
//!    manifest says is sealed, records are gone that only a lost edit's blocks hold. Nothing was
//!    removed up to here;
//! 3. **orphans**: blocks that no edit made live, and temporary files, are removed;
//! 4. the **blocks** are opened; one that is missing or damaged is an error that names it; what is
//!    derived of views is taken for what it says, and files that it does not name are removed;
//! 5. the WAL is **replayed** from the sealed offset on, sealing where memory is full: recovery
//!    needs no more memory than operation.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millrace_log::fs::{Fs, create_dir_durable};
use millrace_log::planted::active;
use millrace_model::PartitionId;
use millrace_queue::Fingerprint;

use super::deletes::DeleteChanges;
use super::{LiveBlock, Shard, ShardContext, Shared, StopCode, TableView, View};
use crate::dead_letters::DeadLetterBox;
use crate::decode::Decoded;
use crate::error::{IoContext, StoreError};
use crate::layer::Layer;
use crate::manifest::{Manifest, MetadataMap};
use crate::memtable::Memtable;
use crate::metrics::as_gauge;
use crate::paths::{BlockId, ShardDir, is_temporary, parse_block};
use crate::planted::{ORPHAN_KEPT, REPLAY_SKIPS_FIRST};
use crate::views::Shelf;
use crate::wal::Wal;

/// How often a long replay says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

pub(super) fn open(
    context: ShardContext,
    store: &Path,
    partition: PartitionId,
) -> Result<Shard, StoreError> {
    let started = context.clock.monotonic();
    let dir = ShardDir::new(store, partition);
    let fs = &*context.fs;
    create_dir_durable(fs, dir.root()).context("create", dir.root())?;
    remove_temporary(fs, dir.root())?;
    let manifest = Manifest::open(
        Arc::clone(&context.fs),
        dir.clone(),
        &context.identity,
        partition,
        context.options.manifest_edit_bytes_max,
    )?;
    if manifest.torn_bytes() > 0 {
        let bytes = manifest.torn_bytes();
        tracing::warn!(
            partition = partition.0,
            bytes,
            "torn edit of the manifest cut off"
        );
    }
    let state = manifest.state();
    let wal = Wal::open(&context.fs, &dir, &context.options, state.wal_lsn)?;
    if wal.first_lsn() > state.wal_lsn {
        return Err(StoreError::ManifestBehindWal {
            path: manifest.path(),
            manifest: state.wal_lsn,
            wal: wal.first_lsn(),
        });
    }
    let dead_letters = DeadLetterBox::open_in(&context.fs, dir.dead_letters(), partition)?;
    create_dir_durable(fs, &dir.blocks()).context("create", &dir.blocks())?;
    remove_orphans(fs, &dir, &state.blocks.keys().copied().collect())?;
    let blocks = open_blocks(&context, &dir, &manifest)?;
    let table = Arc::new(Memtable::new(Layer::Ordinary, context.window_ms()));
    let mut view = View {
        blocks: Vec::new(),
        tables: vec![TableView::open(Arc::clone(&table))],
        tombstones: Arc::default(),
    };
    view.add_blocks(blocks);
    view.set_tombstones(state.tombstones.values().cloned().collect());
    let views = Shelf::open(&context.fs, &dir, state.next_sequence)?;
    let metrics = context.metrics.shard(partition);
    let (sealed, last) = (state.sealed, state.sealed_last);
    let shared = Shared::new(partition, metrics, view, state, views);
    let synced_at = started;
    let mut shard = Shard {
        shared: Arc::new(shared),
        context,
        dir,
        manifest,
        wal,
        dead_letters,
        active: table,
        requeued: None,
        active_from: sealed,
        closed: Vec::new(),
        closed_bytes: 0,
        closed_first_at: None,
        applied: sealed,
        last,
        replaying: true,
        synced: sealed,
        unsealed_metadata: MetadataMap::new(),
        unsealed_deletes: DeleteChanges::default(),
        decoded: Decoded::default(),
        sealing: false,
        frozen_bytes: 0,
        synced_at,
    };
    let replayed = shard.replay()?;
    shard.replaying = false;
    let took = shard.context.clock.monotonic().saturating_sub(started);
    shard.synced = shard.applied;
    shard.shared.set_recovered(took, replayed);
    shard.publish();
    tracing::info!(
        partition = partition.0,
        blocks = shard.shared.view().blocks.len(),
        sealed = shard.sealed().0,
        applied = shard.applied.0,
        replayed_records = replayed,
        ?took,
        "shard open"
    );
    Ok(shard)
}

impl Shard {
    /// Applies what the WAL has beyond the sealed offset. Returns how many records that were.
    fn replay(&mut self) -> Result<u64, StoreError> {
        let mut replay = self.wal.replay(self.manifest.state().wal_lsn);
        let mut records = Vec::new();
        let (mut replayed, mut skip) = (0, active(REPLAY_SKIPS_FIRST));
        let mut told_at = self.context.clock.monotonic();
        let metrics = &self.shared.metrics;
        metrics.replay_left.set(as_gauge(replay.remaining()));
        metrics.replay_records.set(as_gauge(replay.remaining()));
        loop {
            replay.next_records(&mut records)?;
            let left = replay.remaining() + records.len() as u64;
            self.shared.metrics.replay_left.set(as_gauge(left));
            if records.is_empty() {
                return Ok(replayed);
            }
            for (lsn, record) in records.drain(..) {
                if record.offset < self.applied || std::mem::take(&mut skip) {
                    continue;
                }
                match self.apply_one(&record) {
                    // It can be read, and stays where it is until somebody has had a look.
                    Err(error @ StoreError::TooManyDeadLetters { .. }) => {
                        self.shared.stop(StopCode::DeadLetters, &error.to_string());
                        return Ok(replayed);
                    }
                    result => result?,
                }
                self.last = Some(Fingerprint::of(&record));
                self.shared.set_appended_at(record.appended_at);
                replayed += 1;
                if self.seal_due().is_some() {
                    // Everything up to this record, and no more, is in the memtable.
                    let job = self.freeze(lsn + 1);
                    drop(self.commit_seal(job.run()?)?);
                }
            }
            let now = self.context.clock.monotonic();
            if now.saturating_sub(told_at) >= PROGRESS_EVERY {
                told_at = now;
                let (partition, left) = (self.partition().0, replay.remaining());
                tracing::info!(partition, replayed, left, "replaying the WAL");
            }
        }
    }
}

pub(crate) fn remove_temporary(fs: &dyn Fs, dir: &Path) -> Result<(), StoreError> {
    remove_where(fs, dir, is_temporary)
}

fn remove_orphans(fs: &dyn Fs, dir: &ShardDir, live: &BTreeSet<BlockId>) -> Result<(), StoreError> {
    remove_where(fs, &dir.blocks(), |name| {
        let orphan = parse_block(name).is_some_and(|id| !live.contains(&id));
        is_temporary(name) || (orphan && !active(ORPHAN_KEPT))
    })
}

/// Removes the files of these names. Other files are not ours to remove.
fn remove_where(
    fs: &dyn Fs,
    dir: &Path,
    unwanted: impl Fn(&str) -> bool,
) -> Result<(), StoreError> {
    let entries = fs.list(dir).context("list", dir)?;
    let mut removed = 0u64;
    for entry in entries.iter().filter(|e| !e.is_dir && unwanted(&e.name)) {
        let path = dir.join(&entry.name);
        fs.unlink(&path).context("remove", &path)?;
        removed += 1;
    }
    if removed > 0 {
        fs.sync_dir(dir).context("sync", dir)?;
        tracing::info!(?dir, removed, "leftovers of unfinished writes removed");
    }
    Ok(())
}

fn open_blocks(
    context: &ShardContext,
    dir: &ShardDir,
    manifest: &Manifest,
) -> Result<Vec<Arc<LiveBlock>>, StoreError> {
    let entries = manifest.state().blocks.values();
    entries
        .map(|entry| {
            LiveBlock::open(&*context.fs, dir, &context.pages, entry.clone()).map(Arc::new)
        })
        .collect()
}
