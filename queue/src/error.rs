//! Why a queue cannot be opened or cleaned.

use std::io;
use std::path::{Path, PathBuf};

use millrace_log::LogError;
use millrace_model::{PartitionId, ShardKey};

/// Why a queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The file system failed.
    #[error("{path:?}: {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log of a partition failed, or is damaged.
    #[error("partition {partition}: {source}")]
    Log {
        /// Which partition.
        partition: PartitionId,
        /// What the log said.
        source: LogError,
    },
    /// The queue was created with another number of partitions. It cannot be changed: series
    /// would move from one partition to another, and two shards would hold one series.
    #[error(
        "{path:?}: the queue was created with {stored} partitions, the configuration says {wanted}; \
         set it back to {stored}, or choose another directory"
    )]
    PartitionsDiffer {
        /// The identity file.
        path: PathBuf,
        /// As it was created.
        stored: u32,
        /// As it is configured.
        wanted: u32,
    },
    /// The queue was created with another shard key. It cannot be changed, for the same reason.
    #[error(
        "{path:?}: the queue was created with the shard key {stored:?}, the configuration says \
         {wanted:?}; set it back to the first, or choose another directory",
        stored = .stored.names(),
        wanted = .wanted.names()
    )]
    ShardKeyDiffers {
        /// The identity file.
        path: PathBuf,
        /// As it was created.
        stored: ShardKey,
        /// As it is configured.
        wanted: ShardKey,
    },
    /// The identity file is not what was written.
    #[error("{path:?}: {damage}")]
    IdentityDamaged {
        /// The identity file.
        path: PathBuf,
        /// What is wrong with it.
        damage: IdentityDamage,
    },
    /// The identity file was written by a version that this one does not know.
    #[error("{path:?}: identity version {found}, this program reads {supported}")]
    IdentityVersion {
        /// The identity file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// There is no identity file, but there are records.
    #[error(
        "{path:?} is missing, but {partition:?} is not empty; restore the file from a backup, or \
         move the directory away"
    )]
    IdentityMissing {
        /// The identity file.
        path: PathBuf,
        /// A partition directory that holds something.
        partition: PathBuf,
    },
    /// A partition's directory is gone.
    #[error("{path:?} is missing: partition {partition} of the queue was removed")]
    PartitionMissing {
        /// Which partition.
        partition: PartitionId,
        /// Its directory.
        path: PathBuf,
    },
    /// The number of partitions is 0, or beyond [`MAX_PARTITIONS`](crate::MAX_PARTITIONS).
    #[error("a queue of {wanted} partitions; it must be 1 to {max}")]
    PartitionCount {
        /// As it is configured.
        wanted: u32,
        /// The limit.
        max: u32,
    },
    /// The longest batch is 0, or beyond what the batch format holds.
    #[error("a queue with batches of {wanted} bytes; it must be {min} to {max}")]
    BatchBytes {
        /// As it is configured.
        wanted: usize,
        /// The smallest useful.
        min: usize,
        /// The limit.
        max: usize,
    },
}

impl QueueError {
    /// A [`QueueError::Io`] maker for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// What is wrong with an identity file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityDamage {
    /// The checksum in its last line is not that of the lines before.
    #[error("the checksum is {got:08x}, the file says {stored:08x}")]
    Checksum {
        /// Of the bytes as read.
        got: u32,
        /// As stored.
        stored: u32,
    },
    /// Not the lines that `docs/formats/queue.md` lists.
    #[error("line {line} is not {expected}")]
    Line {
        /// Counts from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
}
