//! What can go wrong with a block.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::columns::ColumnError;

/// A part of a block file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Section {
    /// The first bytes.
    Header = 0,
    /// The samples.
    Chunks = 1,
    /// Buckets. They stand among the chunks, page by page, in one section with them.
    Rollups = 2,
    /// Label sets, and where the chunks and rollups are.
    Series = 3,
    /// The values of each label, with their postings or where those are.
    Labels = 4,
    /// Postings of many series.
    Postings = 5,
    /// Where the pages of series and labels are.
    Directory = 6,
    /// What the block is, and where its sections are.
    Footer = 7,
    /// Where the footer is.
    Tail = 8,
}

impl Section {
    /// All of them, in the order of the file.
    pub const ALL: [Self; 9] = [
        Self::Header,
        Self::Chunks,
        Self::Rollups,
        Self::Series,
        Self::Labels,
        Self::Postings,
        Self::Directory,
        Self::Footer,
        Self::Tail,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Chunks => "chunks",
            Self::Rollups => "rollups",
            Self::Series => "series",
            Self::Labels => "labels",
            Self::Postings => "postings",
            Self::Directory => "directory",
            Self::Footer => "footer",
            Self::Tail => "tail",
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a block cannot be written, or not be read.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The file system refused.
    #[error("{what} {path:?}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Bytes are not what was written.
    #[error(
        "{path:?}: {section} at byte {offset}: {bytes} bytes with crc32c {got:#010x}, stored {stored:#010x}"
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// In which part of it.
        section: Section,
        /// Where the checked bytes begin.
        offset: u64,
        /// How many they are.
        bytes: u64,
        /// Their checksum.
        got: u32,
        /// What it should be.
        stored: u32,
    },
    /// Bytes that no writer would have written, whatever their checksum says.
    #[error("{path:?}: {section} at byte {offset}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// In which part of it.
        section: Section,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A later version wrote it.
    #[error("{path:?}: {what} {got}, this program reads {supported}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Version of what.
        what: &'static str,
        /// The one in the file.
        got: u8,
        /// The one that is read here.
        supported: u8,
    },
    /// A chunk whose checksum is right does not decode.
    #[error("{path:?}: chunk at byte {offset}: {source}")]
    Chunk {
        /// The file.
        path: PathBuf,
        /// Where the chunk begins.
        offset: u64,
        /// What is wrong with it.
        source: ColumnError,
    },
    /// The block stores no resolution from which this one could be folded.
    #[error("{path:?}: no rollup of {resolution_ms} ms, stored are {stored:?}")]
    NoRollup {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        resolution_ms: i64,
        /// What there is.
        stored: Vec<i64>,
    },
}

impl BlockError {
    /// Whether the file's bytes are wrong: another copy may be right.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Checksum { .. } | Self::Malformed { .. } | Self::Chunk { .. } => true,
            Self::Io { .. } | Self::Unsupported { .. } | Self::NoRollup { .. } => false,
        }
    }
}
