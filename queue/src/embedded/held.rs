//! The queue as it stands at one moment: what a backup takes of it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use millrace_log::HeldSegment;
use millrace_model::{Offset, PartitionId};

use super::{EmbeddedQueue, identity};
use crate::{QueueError, QueueIdentity};

/// What an [`EmbeddedQueue`] held at one moment. It stays readable, whatever retention removes.
#[derive(Debug)]
pub struct HeldQueue {
    /// What queue it is.
    pub identity: QueueIdentity,
    /// All partitions, in their order.
    pub partitions: Vec<HeldPartition>,
}

/// One partition of it.
#[derive(Debug)]
pub struct HeldPartition {
    /// Which.
    pub partition: PartitionId,
    /// Its durable records.
    pub records: Range<Offset>,
    /// The files that they are in.
    pub segments: Vec<HeldSegment>,
}

impl HeldQueue {
    /// Where the identity's file is in a queue's directory, and its bytes.
    #[must_use]
    pub fn identity_file(&self) -> (PathBuf, Vec<u8>) {
        let path = identity::identity_path(Path::new(""));
        (path, identity::encode(&self.identity).into_bytes())
    }

    /// Where a partition's log is in a queue's directory.
    #[must_use]
    pub fn partition_dir(partition: PartitionId) -> PathBuf {
        identity::partition_path(Path::new(""), partition)
    }
}

impl EmbeddedQueue {
    /// Runs `first`, and then takes hold of all that is durable in the queue. In between retention
    /// removes nothing: so a position that `first` finds somewhere, and all from what is released there
    /// on, is in what is held.
    ///
    /// # Errors
    ///
    /// [`QueueError::Log`] if a segment cannot be opened.
    pub fn hold_behind<T>(&self, first: impl FnOnce() -> T) -> Result<(T, HeldQueue), QueueError> {
        let retention = self.shared.retention.lock();
        let before = first();
        let partitions = self.shared.partitions.iter().map(|partition| {
            partition.hold().map_err(|source| QueueError::Log {
                partition: partition.id(),
                source,
            })
        });
        let partitions = partitions.collect::<Result<_, _>>()?;
        drop(retention);
        let identity = self.shared.identity.clone();
        Ok((
            before,
            HeldQueue {
                identity,
                partitions,
            },
        ))
    }
}
