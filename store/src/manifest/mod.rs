//! The manifest: which blocks live, and up to which offset of the queue they hold everything.
//!
//! A manifest file is a *generation*: a snapshot of the whole state, then edits, each synced before
//! the next is written. Every open, and every so many bytes of edits, begins a new generation,
//! published under its own name; the one before it is kept. Format: `docs/formats/manifest.md`.
//!
//! Invariants:
//! - Every byte is covered by a checksum, and every frame by a hash chain from the first on, so a
//!   frame of another file or another place in this one does not pass.
//! - A file that existed before the process started is never written to.
//! - Frames are synced one by one. So an invalid frame with a valid one behind it is damage, and
//!   an invalid one at the end is a torn edit that was never acted upon, *or* damage: that it is
//!   not the latter is proved by the WAL, which remembers every edit that it was trimmed for.
//! - Each edit is refused once another process has opened the shard ([`StoreError::Fenced`]).

mod codec;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use millrace_log::fs::{Fs, FsFile, publish, read_all};
use millrace_log::planted::active;
use millrace_model::{
    DeleteId, MetricMetadata, Offset, PartitionId, QueueId, TenantId, TimestampMs,
};
use millrace_queue::{Fingerprint, QueueIdentity};

use crate::error::{IoContext, StoreError};
use crate::layer::Layer;
use crate::paths::{BlockId, ShardDir, parse_manifest};
use crate::planted::EDIT_UNSYNCED;
use crate::tombstone::Tombstone;

/// A manifest is read whole; beyond this it is not one. A block takes about 100 bytes in it.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 30;

/// Metadata of the metrics of all tenants.
pub(crate) type MetadataMap = BTreeMap<TenantId, BTreeMap<String, MetricMetadata>>;

/// What the manifest says of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub(crate) id: BlockId,
    /// Whose samples it holds. Blocks of different layers are never merged.
    pub(crate) layer: Layer,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Checksum of the file's footer, which covers all the rest.
    pub(crate) footer_crc: u32,
    /// First and last timestamp, both inside.
    pub(crate) min_time: i64,
    pub(crate) max_time: i64,
    /// The queue offsets `[start, end)` whose samples it holds.
    pub(crate) offsets: (Offset, Offset),
    pub(crate) series: u64,
    pub(crate) samples: u64,
    /// The seals whose samples it holds, first and last. Of two blocks with one sample the one with
    /// the later seals is right; blocks that overlap in time never have seals that interleave.
    pub(crate) sequences: (u64, u64),
    /// 0 as it was sealed; then the number of the window width that it was merged to.
    pub(crate) level: u8,
    /// How often its oldest bytes were written again by compaction.
    pub(crate) rewrites: u8,
}

/// Why a shard's position was set rather than reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// A new shard on a queue that has forgotten its first records.
    Fresh,
    /// `millrace queue resume`: somebody decided it.
    Operator,
    /// `millrace queue migrate`: the records were copied into another queue, each once and in their
    /// order, and the position there is that of the copy. Nothing is missing.
    Migrated,
}

impl GapCause {
    /// The word in statuses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Operator => "operator",
            Self::Migrated => "migrated",
        }
    }
}

/// A place where a shard did not go on reading where it had stopped. Kept for good, so that what
/// may be missing can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The queue that was read until then, and up to where.
    pub from: (QueueId, Offset),
    /// The queue that is read since, and from where.
    pub to: (QueueId, Offset),
    /// When it was decided.
    pub at: TimestampMs,
    /// By whom.
    pub cause: GapCause,
}

/// All that the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestState {
    /// Grows with every open.
    pub(crate) epoch: u64,
    pub(crate) queue: QueueId,
    pub(crate) partitions: u32,
    pub(crate) partition: PartitionId,
    /// Everything below is in blocks.
    pub(crate) sealed: Offset,
    /// Of the record right before `sealed`; none if nothing was sealed, or behind a gap.
    pub(crate) sealed_last: Option<Fingerprint>,
    /// The WAL is needed from this LSN on.
    pub(crate) wal_lsn: u64,
    /// The next seal's sequence.
    pub(crate) next_sequence: u64,
    pub(crate) blocks: BTreeMap<BlockId, BlockEntry>,
    pub(crate) metadata: MetadataMap,
    pub(crate) tombstones: BTreeMap<DeleteId, Arc<Tombstone>>,
    /// The highest wall-clock time that was believed, in milliseconds since the epoch.
    pub(crate) high_water: i64,
    /// Oldest first.
    pub(crate) gaps: Vec<Gap>,
}

/// One atomic change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) sealed: Offset,
    pub(crate) sealed_last: Option<Fingerprint>,
    pub(crate) wal_lsn: u64,
    pub(crate) next_sequence: u64,
    pub(crate) removed: Vec<BlockId>,
    pub(crate) added: Vec<BlockEntry>,
    /// New and changed metadata.
    pub(crate) metadata: Vec<(TenantId, MetricMetadata)>,
    /// New and changed tombstones.
    pub(crate) tombstones: Vec<Arc<Tombstone>>,
    /// Tombstones that are there no more: revoked, or long done.
    pub(crate) forgotten: Vec<DeleteId>,
    /// As in the state; it never falls.
    pub(crate) high_water: i64,
}

impl ManifestState {
    fn fresh(identity: &QueueIdentity, partition: PartitionId) -> Self {
        Self {
            epoch: 0,
            queue: identity.id,
            partitions: identity.partitions,
            partition,
            sealed: Offset::ZERO,
            sealed_last: None,
            wal_lsn: 0,
            // 0 would be the sequence of "no block".
            next_sequence: 1,
            blocks: BTreeMap::new(),
            metadata: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            high_water: i64::MIN,
            gaps: Vec::new(),
        }
    }

    /// An edit that changes nothing yet.
    pub(crate) fn edit(&self) -> Edit {
        Edit {
            sealed: self.sealed,
            sealed_last: self.sealed_last,
            wal_lsn: self.wal_lsn,
            next_sequence: self.next_sequence,
            removed: Vec::new(),
            added: Vec::new(),
            metadata: Vec::new(),
            tombstones: Vec::new(),
            forgotten: Vec::new(),
            high_water: self.high_water,
        }
    }

    /// Goes on elsewhere. Everything before is in blocks.
    fn apply_gap(&mut self, gap: Gap, wal_lsn: u64) {
        self.wal_lsn = wal_lsn;
        self.queue = gap.to.0;
        self.sealed = gap.to.1;
        self.sealed_last = None;
        self.gaps.push(gap);
    }

    fn apply(&mut self, edit: Edit) {
        self.sealed = edit.sealed;
        self.sealed_last = edit.sealed_last;
        self.wal_lsn = edit.wal_lsn;
        self.next_sequence = edit.next_sequence;
        for id in edit.removed {
            self.blocks.remove(&id);
        }
        for block in edit.added {
            self.blocks.insert(block.id, block);
        }
        for (tenant, entry) in edit.metadata {
            let of_tenant = self.metadata.entry(tenant).or_default();
            of_tenant.insert(entry.metric.clone(), entry);
        }
        for tombstone in edit.tombstones {
            self.tombstones.insert(tombstone.id(), tombstone);
        }
        for id in edit.forgotten {
            self.tombstones.remove(&id);
        }
        self.high_water = self.high_water.max(edit.high_water);
    }
}

/// The open manifest of a shard.
#[derive(Debug)]
pub(crate) struct Manifest {
    fs: Arc<dyn Fs>,
    dir: ShardDir,
    state: ManifestState,
    generation: u64,
    file: Box<dyn FsFile>,
    /// Where the next frame goes.
    end: u64,
    /// Bytes of edits in this generation.
    edit_bytes: u64,
    edit_bytes_max: u64,
    tail: codec::Tail,
    /// Bytes of a torn edit that the open found.
    torn_bytes: u64,
}

impl Manifest {
    /// Reads the newest generation and begins a new one. Creates the first in an empty directory.
    ///
    /// # Errors
    ///
    /// A damaged or foreign manifest, or one that is missing where there are blocks; of the file
    /// system.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        dir: ShardDir,
        identity: &QueueIdentity,
        partition: PartitionId,
        edit_bytes_max: u64,
    ) -> Result<Self, StoreError> {
        let newest = generations(&*fs, &dir)?.last().copied();
        let (mut state, generation, chain, torn_bytes) = match newest {
            None => {
                refuse_if_not_fresh(&*fs, &dir)?;
                (ManifestState::fresh(identity, partition), 0, 0, 0)
            }
            Some(generation) => {
                let path = dir.manifest(generation);
                let bytes = read_all(&*fs, &path, MAX_FILE_BYTES).context("read", &path)?;
                let read = codec::decode_file(&path, generation, &bytes)?;
                check_identity(&path, &read.state, identity, partition)?;
                (read.state, generation, read.chain, read.torn_bytes)
            }
        };
        state.epoch += 1;
        let generation = generation + 1;
        let (file, end, tail) = begin(&*fs, &dir, generation, chain, &state)?;
        let manifest = Self {
            fs,
            dir,
            state,
            generation,
            file,
            end,
            edit_bytes: 0,
            edit_bytes_max,
            tail,
            torn_bytes,
        };
        manifest.remove_older()?;
        Ok(manifest)
    }

    pub(crate) fn state(&self) -> &ManifestState {
        &self.state
    }

    /// The file that is written to now.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.manifest(self.generation)
    }

    /// The whole state as the next generation would begin: its number, and the file's bytes.
    pub(crate) fn image(&self) -> (u64, Vec<u8>) {
        let generation = self.generation + 1;
        let (bytes, _) = codec::encode_file(generation, self.tail.chain, &self.state);
        (generation, bytes)
    }

    /// Bytes of a torn edit that the open cut off.
    pub(crate) fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Makes `edit` durable and part of the state.
    ///
    /// # Errors
    ///
    /// Of the file system, after which the manifest must not be used any more; or
    /// [`StoreError::Fenced`].
    pub(crate) fn commit(&mut self, edit: Edit) -> Result<(), StoreError> {
        let (frame, tail) = codec::encode_edit(self.generation, &self.tail, &edit);
        self.write(&frame, tail)?;
        self.state.apply(edit);
        self.rotate_if_long()
    }

    /// Makes `gap` durable and part of the state. What the WAL has below `wal_lsn` is sealed, or is
    /// not to take effect.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub(crate) fn commit_gap(&mut self, gap: Gap, wal_lsn: u64) -> Result<(), StoreError> {
        let (frame, tail) = codec::encode_gap(self.generation, &self.tail, &gap, wal_lsn);
        self.write(&frame, tail)?;
        self.state.apply_gap(gap, wal_lsn);
        self.rotate_if_long()
    }

    fn write(&mut self, frame: &[u8], tail: codec::Tail) -> Result<(), StoreError> {
        self.check_fence()?;
        let path = self.path();
        self.file
            .write_all_at(frame, self.end)
            .context("write", &path)?;
        if !active(EDIT_UNSYNCED) {
            // IMPORTANT: behind this line the edit may be acted upon: the WAL that it seals goes.
            self.file.sync_data().context("sync", &path)?;
        }
        self.tail = tail;
        self.end += frame.len() as u64;
        self.edit_bytes += frame.len() as u64;
        Ok(())
    }

    fn rotate_if_long(&mut self) -> Result<(), StoreError> {
        if self.edit_bytes > self.edit_bytes_max {
            self.rotate()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), StoreError> {
        let generation = self.generation + 1;
        let (file, end, tail) = begin(
            &*self.fs,
            &self.dir,
            generation,
            self.tail.chain,
            &self.state,
        )?;
        (self.file, self.end, self.tail) = (file, end, tail);
        (self.generation, self.edit_bytes) = (generation, 0);
        self.remove_older()
    }

    /// Removes all generations but this one and the one before it.
    fn remove_older(&self) -> Result<(), StoreError> {
        let older = generations(&*self.fs, &self.dir)?;
        let mut removed = false;
        for generation in older.into_iter().filter(|g| g + 1 < self.generation) {
            let path = self.dir.manifest(generation);
            self.fs.unlink(&path).context("remove", &path)?;
            removed = true;
        }
        if removed {
            let root = self.dir.root();
            self.fs.sync_dir(root).context("sync", root)?;
        }
        Ok(())
    }

    fn check_fence(&self) -> Result<(), StoreError> {
        let found = generations(&*self.fs, &self.dir)?.last().copied();
        match found {
            Some(found) if found == self.generation => Ok(()),
            found => Err(StoreError::Fenced {
                partition: self.state.partition,
                ours: self.generation,
                found: found.unwrap_or(0),
            }),
        }
    }
}

/// Reads a generation: its state, and the bytes of an edit that was torn at its end.
///
/// # Errors
///
/// Damage, or another version.
pub(crate) fn decode(
    path: &std::path::Path,
    generation: u64,
    bytes: &[u8],
) -> Result<(ManifestState, u64), StoreError> {
    let read = codec::decode_file(path, generation, bytes)?;
    Ok((read.state, read.torn_bytes))
}

/// Writes the first frame of a generation: the whole state.
fn begin(
    fs: &dyn Fs,
    dir: &ShardDir,
    generation: u64,
    chain: u64,
    state: &ManifestState,
) -> Result<(Box<dyn FsFile>, u64, codec::Tail), StoreError> {
    let path = dir.manifest(generation);
    let (bytes, tail) = codec::encode_file(generation, chain, state);
    publish(fs, &path, &bytes).context("publish", &path)?;
    let file = fs.open_rw(&path).context("open", &path)?;
    Ok((file, bytes.len() as u64, tail))
}

/// The queue that a shard was fed from, and the number of that queue's partitions; `None` in a
/// directory without a manifest. Changes nothing.
///
/// # Errors
///
/// A damaged manifest, or of the file system.
pub(crate) fn stored_queue(
    fs: &dyn Fs,
    dir: &ShardDir,
) -> Result<Option<(QueueId, u32)>, StoreError> {
    let Some(generation) = generations(fs, dir)?.last().copied() else {
        return Ok(None);
    };
    let path = dir.manifest(generation);
    let bytes = read_all(fs, &path, MAX_FILE_BYTES).context("read", &path)?;
    let state = codec::decode_file(&path, generation, &bytes)?.state;
    Ok(Some((state.queue, state.partitions)))
}

/// The generations on disk, oldest first.
pub(crate) fn generations(fs: &dyn Fs, dir: &ShardDir) -> Result<Vec<u64>, StoreError> {
    let entries = fs.list(dir.root()).context("list", dir.root())?;
    let mut found: Vec<_> = entries
        .iter()
        .filter_map(|e| parse_manifest(&e.name))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Without a manifest every block is an orphan, and would be removed: so a directory that has lost
/// its manifest must not look like a new one.
fn refuse_if_not_fresh(fs: &dyn Fs, dir: &ShardDir) -> Result<(), StoreError> {
    for content in [dir.blocks(), dir.wal()] {
        let there = fs.exists(&content).context("look for", &content)?;
        if there && !fs.list(&content).context("list", &content)?.is_empty() {
            return Err(StoreError::ManifestDamaged {
                path: dir.root().join("manifest-*"),
                at: 0,
                what: "missing, though the shard has blocks or a WAL",
            });
        }
    }
    Ok(())
}

/// The shard and the number of its neighbours. That the queue is the same is for the shard's thread
/// to find out: a shard whose queue was made again still answers queries.
fn check_identity(
    path: &std::path::Path,
    state: &ManifestState,
    identity: &QueueIdentity,
    partition: PartitionId,
) -> Result<(), StoreError> {
    let words = |id: QueueId, partition: PartitionId, of: u32| {
        format!("queue {id}, partition {partition} of {of}")
    };
    if (state.partition, state.partitions) == (partition, identity.partitions) {
        return Ok(());
    }
    Err(StoreError::ForeignQueue {
        path: path.to_owned(),
        stored: words(state.queue, state.partition, state.partitions),
        given: words(identity.id, partition, identity.partitions),
    })
}

#[cfg(test)]
mod tests;
