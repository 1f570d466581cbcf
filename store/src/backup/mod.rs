//! Backups of a store that may be running, and what becomes of them.
//!
//! ```text
//! <backup>/backup            what is in it, with checksums; published last   docs/formats/backup.md
//! <backup>/saved/store/...   manifest, blocks, WAL and dead letters of each shard
//! <backup>/saved/queue/...   the embedded queue, if the data directory has one
//! ```
//!
//! Invariants:
//! - A backup without the file `backup` is not whole, and nothing restores it. The file is published
//!   when all that it lists is durable.
//! - Each shard is saved at one applied offset W, and the queue after all shards: so it holds what
//!   comes behind every W. A restored store goes on from W by position, as after any stop.
//! - Blocks and closed segments are hard links where the file system allows it. They are never written
//!   to again: what is still written is copied, up to where it was durable. A restore copies
//!   everything, so that a restored store shares no byte with the backup.
//! - A restore makes the directory whole under another name and then renames it: it is there, whole, or
//!   it is not.

mod check;
mod codec;
mod restore;
mod snapshot;
mod write;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use millrace_log::fs::{Fs, read_all};
use millrace_model::{Offset, PartitionId, QueueId, ShardKey, TimestampMs};
use millrace_queue::{HeldQueue, QueueIdentity};

pub use check::{Checked, check, verify};
pub use restore::{relocate, restore};
pub(crate) use snapshot::ShardSnapshot;
pub use snapshot::StoreSnapshot;
pub use write::write;

use crate::error::{IoContext, StoreError};

/// What is wrong with a backup, or with where it is to go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupProblem {
    /// It lacks the file that is written last.
    #[error("the backup was not finished (it has no file `backup`); remove it and take another")]
    Unfinished,
    /// The list was written by a later version.
    #[error("backup version {found}, this program reads {supported}")]
    Version {
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// The checksum in the list's last line is not that of the lines before.
    #[error("the checksum of the list is {got:08x}, it says {stored:08x}")]
    ListChecksum {
        /// Of the bytes as read.
        got: u32,
        /// As stored.
        stored: u32,
    },
    /// Not the lines that `docs/formats/backup.md` lists.
    #[error("line {line} is not {expected}")]
    Line {
        /// Counts from 1.
        line: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// A file that is listed is not there.
    #[error("the backup lists it, and it is not there")]
    Missing,
    /// A file has another length than is listed.
    #[error("{found} bytes, the backup lists {listed}")]
    Length {
        /// Of the file.
        found: u64,
        /// As listed.
        listed: u64,
    },
    /// A file has another checksum than is listed.
    #[error("checksum {found:08x}, the backup lists {listed:08x}")]
    Checksum {
        /// Of the file: of all its bytes, or of a block's footer.
        found: u32,
        /// As listed.
        listed: u32,
    },
    /// A directory that is to be filled has something in it.
    #[error("the directory is not empty")]
    NotEmpty,
}

/// What says that a backup is whole.
pub const LIST_FILE: &str = "backup";
/// What is saved is below it. So a backup is not taken for a data directory.
const SAVED_DIR: &str = "saved";
/// Beyond this it is no list of ours: a file takes about a hundred bytes in it.
const MAX_LIST_BYTES: u64 = 1 << 30;

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Random, to tell one from another.
    pub id: u128,
    /// When it was taken.
    pub taken_at: TimestampMs,
    /// The queue that feeds the store.
    pub queue: QueueId,
    /// The queue's partitions.
    pub partitions: u32,
    /// The shards, in order of their partitions.
    pub shards: Vec<SavedShard>,
    /// The embedded queue's records that are in it, by partition; empty without such a queue.
    pub records: Vec<(PartitionId, Range<Offset>)>,
    /// All files, in order of their names.
    pub files: Vec<SavedFile>,
}

/// One shard in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedShard {
    /// Which.
    pub partition: PartitionId,
    /// The queue that its offsets are of.
    pub queue: QueueId,
    /// It holds the effect of all records below, and of none from here on.
    pub applied: Offset,
    /// All below this is in its blocks, the rest in its WAL.
    pub sealed: Offset,
    /// Its blocks.
    pub blocks: u64,
    /// Samples in them.
    pub samples: u64,
    /// Records in its WAL.
    pub wal_records: u64,
}

/// One file in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFile {
    /// Where it is in the data directory: names joined by `/`.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its checksum.
    pub checksum: SavedChecksum,
}

/// What a file is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedChecksum {
    /// CRC-32C of all bytes.
    Content(u32),
    /// The checksum of a block's footer, which covers the checksums of all the rest.
    Footer(u32),
}

impl Backup {
    /// Reads what is in the backup at `dir`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Backup`]: it is not whole, or not a backup; of the file system.
    pub fn read(fs: &dyn Fs, dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LIST_FILE);
        if !fs.exists(&path).context("look for", &path)? {
            return Err(problem(dir, BackupProblem::Unfinished));
        }
        let bytes = read_all(fs, &path, MAX_LIST_BYTES).context("read", &path)?;
        codec::decode(&bytes).map_err(|found| problem(&path, found))
    }

    /// Whether `dir` looks like a backup, finished or not.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub fn is_at(fs: &dyn Fs, dir: &Path) -> Result<bool, StoreError> {
        let there = |name: &str| {
            let path = dir.join(name);
            fs.exists(&path).context("look for", &path)
        };
        Ok(there(LIST_FILE)? || there(SAVED_DIR)?)
    }

    /// The directories of files of these names and of the queue's partitions, each behind the one that
    /// it is in; relative to the data directory.
    fn dirs<'a>(&self, names: impl Iterator<Item = &'a str>) -> BTreeSet<PathBuf> {
        let parents = names.filter_map(|name| Path::new(name).parent());
        let mut dirs: BTreeSet<PathBuf> = parents.map(Path::to_owned).collect();
        // One that nothing was appended to has no file.
        let partitions = self.records.iter().map(|(partition, _)| *partition);
        dirs.extend(partitions.map(|p| Path::new("queue").join(HeldQueue::partition_dir(p))));
        let above = dirs.iter().flat_map(|dir| dir.ancestors().skip(1));
        let above: Vec<_> = above.map(Path::to_owned).collect();
        dirs.extend(above);
        dirs
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The queue, as a store is opened with it. The shard key is none of the store's business, and the
    /// default one here.
    #[must_use]
    pub fn identity(&self) -> QueueIdentity {
        QueueIdentity {
            id: self.queue,
            partitions: self.partitions,
            shard_key: ShardKey::default(),
        }
    }
}

/// Where a file is in a backup.
fn saved_path(backup: &Path, name: impl AsRef<Path>) -> PathBuf {
    backup.join(SAVED_DIR).join(name)
}

fn problem(path: &Path, problem: BackupProblem) -> StoreError {
    StoreError::Backup {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
pub(crate) mod tests;
