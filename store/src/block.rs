//! Blocks: one immutable file for each shard and time window. Format: `docs/formats/block.md`.
//!
//! ```text
//! header │ chunks and rollups │ series pages │ label pages │ postings │ directory │ footer │ tail
//! ```
//!
//! [`BlockWriter`] takes the series of a window in order, computes their [rollups](rollup) and
//! writes the file front to back, keeping encoded series pages and the index until the end;
//! [`BlockReader`] opens it by its footer and reads the rest by [ranges](ReadRanges), so that a
//! block can lie in object storage.
//!
//! Invariants:
//! - Series stand in order of tenant and label set, each once, and are numbered from 0 in that
//!   order. All samples of a series stand in order of time, each timestamp once.
//! - Sections stand one behind the other without a gap, and **every byte is covered**: each chunk,
//!   page, bitmap and the directory by a CRC-32C of its own, which every read verifies; each
//!   section as a whole by one in the footer; the footer by one in the tail.
//! - What was damaged is an error that says where. It never panics, and an answer is never shorter
//!   for it.
//! - No identity is stored: a [`SeriesId`] is the hash of tenant and labels, which are.
//!
//! Cost sketch, reading: one read and one checksum for each page of `SERIES_PER_PAGE` series, and
//! one read for all wanted chunks of a series, which lie side by side.

mod ahead;
pub mod columns;
mod directory;
mod error;
mod fields;
mod find;
mod footer;
mod labels;
mod pages;
mod postings;
mod ranges;
mod read;
mod reader;
pub mod rollup;
mod series;
mod statistics;
#[cfg(test)]
mod tests;
mod times;
mod verify;
mod writer;

use millrace_model::{Labels, Offset, PartitionId, SeriesId, TimeRange, TimestampMs};

pub use error::{BlockError, Section};
pub(crate) use find::Found;
pub use pages::PageCache;
pub use ranges::ReadRanges;
pub(crate) use read::Left;
pub use reader::{BlockIter, BlockReader};
pub use rollup::RollupColumns;
pub use statistics::{BlockStatistics, LabelStatistics};
use times::TimesEntry;
pub use verify::Verified;
pub use writer::{BlockOptions, BlockWriter};

/// What a block file begins with.
const MAGIC: [u8; 4] = *b"MRBK";
const VERSION: u8 = 1;
/// Magic, version, three zeros, checksum.
const HEADER_BYTES: usize = 12;

/// Series whose entries share a page: what one look at one series reads and checks, some 2 to 4 KiB.
const SERIES_PER_PAGE: u32 = 64;

/// Samples of a chunk at the most. Longer ones save less than a hundredth of their bytes, and a
/// reader who wants one sample decodes a chunk.
const SAMPLES_PER_CHUNK: usize = 1_024;

/// Label values share a page up to about this many bytes.
const LABEL_PAGE_BYTES: usize = 4_096;

/// Checksum behind each page, chunk and bitmap.
const CRC_BYTES: usize = 4;

/// How a chunk is encoded: a byte in its directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    /// [`columns`].
    Columns = 1,
    /// The value column alone; the timestamps are those of another chunk.
    Values = 2,
}

impl Codec {
    /// The highest that there is.
    const LAST: u8 = Self::Values as u8;

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Columns),
            2 => Some(Self::Values),
            _ => None,
        }
    }
}

/// What a block is told about itself when it is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// The shard that it belongs to.
    pub partition: PartitionId,
    /// The time that it stands for, both ends inside. All its samples are.
    pub window: TimeRange,
    /// It holds samples of the queue's records `[from, to)`.
    pub offsets: (Offset, Offset),
    /// When it was written.
    pub created_at: TimestampMs,
}

/// What a finished block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSummary {
    /// What it was told.
    pub meta: BlockMeta,
    /// First and last timestamp of its samples.
    pub samples_range: TimeRange,
    /// Tenants that have series in it.
    pub tenants: u32,
    /// Its series.
    pub series: u32,
    /// Their chunks.
    pub chunks: u64,
    /// Their samples; in a block without samples, those that there were.
    pub samples: u64,
    /// Whether the samples themselves are not there any more, but only their rollups.
    pub without_samples: bool,
    /// The resolutions whose rollups are stored, in ms, the finest first; zeros behind them. Every
    /// multiple of one of them can be read.
    pub resolutions: [i64; rollup::RESOLUTIONS_MAX],
    /// Length of the file.
    pub bytes: u64,
    /// Checksum of the footer, which has the checksums of all sections: two files with the same are
    /// the same.
    pub footer_crc: u32,
    /// Bytes by section, in the order of [`Section::ALL`].
    pub section_bytes: [u64; Section::ALL.len()],
}

/// Where the samples and rollups of one series of a block are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesPlace {
    /// Its number in the block.
    pub at: u32,
    range: TimeRange,
    samples: u64,
    /// None in a block without samples.
    chunks: Box<[ChunkEntry]>,
    /// One for each resolution that the block stores.
    rollups: Box<[RollupEntry]>,
}

impl SeriesPlace {
    /// First and last timestamp.
    #[must_use]
    pub fn range(&self) -> TimeRange {
        self.range
    }

    /// The number of its samples; in a block without samples, of those that there were.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Bytes of its samples, without timestamps that it shares with series before it.
    #[must_use]
    pub fn sample_bytes(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.bytes)).sum()
    }
}

/// One series of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSeries {
    /// Its identity.
    pub id: SeriesId,
    /// Its labels.
    pub labels: Labels,
    /// Where its samples are, for [`BlockReader::read`].
    pub place: SeriesPlace,
}

/// A chunk as the series pages describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChunkEntry {
    /// A [`Codec`], or one that this version does not know.
    codec: u8,
    /// First and last timestamp.
    first: i64,
    last: i64,
    samples: u32,
    /// Where it begins in the file, its length, and the checksum of its bytes.
    offset: u64,
    bytes: u32,
    crc: u32,
    /// Where its timestamps are, if not in itself.
    times: Option<TimesEntry>,
}

/// The buckets of a series in one resolution, as the series pages describe them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RollupEntry {
    /// Where the values begin in the file, their length, and the checksum of their bytes.
    offset: u64,
    bytes: u32,
    crc: u32,
    /// Where the times are; `None` if there is no bucket.
    times: Option<TimesEntry>,
}
