//! What can go wrong in a store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backup::BackupProblem;
use crate::block::BlockError;
use crate::chunk::ChunkError;
use millrace_log::LogError;
use millrace_model::{Offset, PartitionId, QueueId};
use millrace_queue::ConsumeError;

/// Why a store or one of its shards cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{what} {path:?}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The WAL or the dead letters.
    #[error("{what}: {source}")]
    Log {
        /// Which log.
        what: &'static str,
        /// What it said.
        #[source]
        source: LogError,
    },
    /// A frame of a log whose checksum is right and whose content is not: a later version wrote it.
    #[error(
        "{log}: record at LSN {lsn}: {bytes} bytes of kind {kind} are no frame of this version"
    )]
    Frame {
        /// Which log.
        log: &'static str,
        /// The record.
        lsn: u64,
        /// Its length.
        bytes: usize,
        /// Its first byte.
        kind: u8,
    },
    /// The root of truth cannot be believed. Nothing is opened, nothing is removed.
    #[error("{path:?}: manifest damaged at byte {at}: {what}")]
    ManifestDamaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The manifest was written by a later version.
    #[error("{path:?}: manifest version {got}, this program reads {supported}")]
    ManifestVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        got: u8,
        /// The version that is read here.
        supported: u8,
    },
    /// The newest edits of the manifest are gone: the WAL begins behind what it says is sealed.
    #[error(
        "{path:?}: the manifest seals the WAL up to LSN {manifest}, but the WAL begins at {wal}: \
         edits of the manifest are lost"
    )]
    ManifestBehindWal {
        /// The manifest.
        path: PathBuf,
        /// Up to where it says the WAL is sealed.
        manifest: u64,
        /// Where the WAL begins.
        wal: u64,
    },
    /// The data directory was fed from another queue.
    #[error("{path:?}: was fed from {stored}, and the queue is {given}")]
    ForeignQueue {
        /// The manifest.
        path: PathBuf,
        /// What it says, in words.
        stored: String,
        /// What the queue says, in words.
        given: String,
    },
    /// Another process has opened the shard since.
    #[error(
        "partition {partition}: generation {found} of the manifest is not ours, which is {ours}: another process opened the shard"
    )]
    Fenced {
        /// The shard.
        partition: PartitionId,
        /// Our generation.
        ours: u64,
        /// The newest one on disk.
        found: u64,
    },
    /// A block that cannot be written, or a live one that is not there or is damaged.
    #[error("block {0}")]
    Block(#[from] BlockError),
    /// A block is not the one that the manifest lists.
    #[error(
        "block {path:?}: {} bytes with footer checksum {:#010x}, the manifest lists {} bytes with \
         {:#010x}",
        .found.0, .found.1, .listed.0, .listed.1
    )]
    BlockMismatch {
        /// The file.
        path: PathBuf,
        /// Length and footer checksum in the manifest.
        listed: (u64, u32),
        /// Those of the file.
        found: (u64, u32),
    },
    /// A chunk in memory does not decode: a bug, or bad memory.
    #[error("series {series}: {source}")]
    Chunk {
        /// Its labels.
        series: String,
        /// What is wrong.
        source: ChunkError,
    },
    /// A file of a view is damaged, or was written by a later version.
    #[error("view {path:?}: {what}")]
    ViewDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A bucket of a view has more groups than can be kept.
    #[error("view {view}: more than {limit} groups in one bucket of one partition")]
    ViewGroups {
        /// Its name.
        view: String,
        /// The bound.
        limit: usize,
    },
    /// A read of a view would be too large.
    #[error("view {view}: more than {limit} buckets of groups in one read")]
    ViewRows {
        /// Its name.
        view: String,
        /// The bound.
        limit: usize,
    },
    /// A change of the list of views that cannot be.
    #[error("{0}")]
    ViewList(#[from] crate::views::ViewListError),
    /// The queue has not what the shard needs next.
    #[error("queue: {0}")]
    Queue(#[source] ConsumeError),
    /// More records than the limit could not be applied in a short time: that is a bug, or somebody
    /// else writes to the queue.
    #[error(
        "partition {partition}: the record at offset {offset} cannot be applied ({reason}), nor could \
         {max} others in the last {} min", crate::DEAD_LETTER_WINDOW.as_secs() / 60
    )]
    TooManyDeadLetters {
        /// The shard.
        partition: PartitionId,
        /// The record that is too many.
        offset: Offset,
        /// The limit.
        max: u64,
        /// What is wrong with this one.
        reason: String,
    },
    /// Something of a backup, or a directory that a backup or a restore is to fill.
    #[error("{path:?}: {problem}")]
    Backup {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: BackupProblem,
    },
    /// The shard's thread did not come to it in time.
    #[error("partition {partition}: no snapshot within {timeout:?}")]
    SnapshotTimeout {
        /// The shard.
        partition: PartitionId,
        /// How long was waited.
        timeout: Duration,
    },
    /// Options that contradict one another.
    #[error("options of the store: {what}")]
    Options {
        /// What is wrong.
        what: String,
    },
    /// The store was not started, or is closed.
    #[error("the store is not running")]
    NotRunning,
    /// The thread that writes blocks has ended.
    #[error("the thread that writes blocks has ended")]
    SealerGone,
    /// A thread of the store panicked: a bug.
    #[error("a thread of the store panicked")]
    Panicked,
    /// The shard has stopped, and waits for a restart.
    #[error("partition {partition} is stopped: {reason}")]
    Stopped {
        /// The shard.
        partition: PartitionId,
        /// Why it stopped.
        reason: String,
    },
    /// The position was not reached in time.
    #[error(
        "partition {partition}: offset {wanted} was not applied within {timeout:?}, the store stands at {applied}"
    )]
    WaitTimeout {
        /// The shard.
        partition: PartitionId,
        /// What was waited for.
        wanted: Offset,
        /// How far it got.
        applied: Offset,
        /// How long was waited.
        timeout: Duration,
    },
    /// A position of another queue, or of a partition that there is not.
    #[error("position of queue {given}{partition}, the store is fed from queue {ours}", partition = .partition.map(|p| format!(" partition {p}")).unwrap_or_default())]
    ForeignPosition {
        /// The queue in the position.
        given: QueueId,
        /// The unknown partition, if that is what is wrong.
        partition: Option<PartitionId>,
        /// Our queue.
        ours: QueueId,
    },
    /// A position in a partition that another store owns.
    #[error("partition {partition} belongs to another store, this one owns {owned:?}", owned = .owned.iter().map(|p| p.0).collect::<Vec<_>>())]
    NotOwned {
        /// The partition.
        partition: PartitionId,
        /// Those that are owned here.
        owned: Vec<PartitionId>,
    },
    /// The consumers or the partitions that were given do not fit the shards.
    #[error("{what} (partition {partition})")]
    Consumers {
        /// What is wrong.
        what: &'static str,
        /// With which one.
        partition: PartitionId,
    },
    /// The operating system gives no more threads.
    #[error("thread {name}: {source}")]
    Thread {
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A metric is registered already: two stores on one registry.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Adds what was tried, and with which file, to an error of the file system.
pub(crate) trait IoContext<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io {
            what,
            path: path.to_owned(),
            source,
        })
    }
}
