//! Everything that can go wrong in a log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Lsn;

/// Why a log could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The file system failed. A [`Log`](crate::Log) that said so is poisoned: it repeats this
    /// error on every later call and must be opened anew.
    #[error("{path:?}: {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Bytes that were once synced are not what was written.
    #[error("{path:?}: damaged at byte {offset}: {damage}")]
    Corrupt {
        /// The segment.
        path: PathBuf,
        /// Start of the frame (or header) that is damaged.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Records are missing between two segments: the file that held them is gone or cut short.
    #[error("{path:?}: begins at record {found}, but records from {expected} on were expected")]
    Missing {
        /// The segment behind the gap.
        path: PathBuf,
        /// The first record that is missing.
        expected: Lsn,
        /// The first record behind the gap.
        found: Lsn,
    },
    /// The segment was written by a version that this one does not know.
    #[error("{path:?}: format version {found}, this program reads {supported}")]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// The record was removed by retention.
    #[error("record {wanted} was asked for, the log begins at {first}")]
    Removed {
        /// The record.
        wanted: Lsn,
        /// The oldest one that is left.
        first: Lsn,
    },
    /// The log ends before the position.
    #[error("record {wanted} was asked for, the log is synced up to {end}")]
    BeyondEnd {
        /// The position.
        wanted: Lsn,
        /// Where the synced part ends.
        end: Lsn,
    },
    /// The record is longer than [`LogOptions::max_record_bytes`](crate::LogOptions). Nothing of
    /// the append was written; the log is as it was.
    #[error("a record of {bytes} bytes, the limit is {max}")]
    RecordTooLarge {
        /// Its payload.
        bytes: usize,
        /// The limit.
        max: u32,
    },
    /// The 64 bits of [`Lsn`] ran out.
    #[error("the log is at record {next} and cannot number {records} more")]
    Exhausted {
        /// The next position.
        next: Lsn,
        /// How many were to be appended.
        records: u64,
    },
}

impl LogError {
    /// An [`LogError::Io`] maker for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_path_buf(),
            source: Arc::new(source),
        }
    }
}

/// What is wrong with a frame or a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file ends inside.
    #[error("{have} bytes where {need} were expected")]
    CutShort {
        /// Bytes that should be there.
        need: u64,
        /// Bytes that are.
        have: u64,
    },
    /// It does not begin as it must.
    #[error("no magic number")]
    Magic,
    /// The header fails its checksum: bytes changed, or it stands where it was not written.
    #[error("header checksum {got:#010x}, stored {stored:#010x}")]
    HeaderChecksum {
        /// Of the bytes as read.
        got: u32,
        /// As stored.
        stored: u32,
    },
    /// The payload fails its checksum.
    #[error("payload checksum {got:#010x}, stored {stored:#010x}")]
    PayloadChecksum {
        /// Of the bytes as read.
        got: u32,
        /// As stored.
        stored: u32,
    },
    /// Bytes that only fill up, behind a payload or in a header, are not zero.
    #[error("padding is not zero")]
    Padding,
    /// Another record than the one whose turn it is.
    #[error("record {found} where {expected} was expected")]
    Order {
        /// Whose turn it is.
        expected: Lsn,
        /// Which one is there.
        found: Lsn,
    },
    /// A frame says that records were synced that come after it.
    #[error("record {lsn} says that {synced} was synced before it")]
    Mark {
        /// The frame's record.
        lsn: Lsn,
        /// Its mark.
        synced: Lsn,
    },
}
