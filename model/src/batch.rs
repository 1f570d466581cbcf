//! The batch: the queue's unit. One tenant, one partition, many series.
//!
//! Layout, limits and history: `docs/formats/batch.md`. In short: a fixed header with its own
//! checksum, then a body of *sections* under a second one. A section of float series writes each
//! series as the difference from the one before it (shared prefix and suffix of the canonical
//! label bytes), so a batch stays self-contained and small without a symbol table to build; a
//! section starts from nothing, so sections of several requests are joined by copying bytes.
//!
//! Invariants:
//! - Every byte that is interpreted is covered by one of the two CRC-32C.
//! - Decoding is a total function: any bytes give a batch or a [`BatchError`], never a panic, and
//!   no count or length is believed before it was compared with the bytes that are left.
//! - What is decoded costs nothing for labels of known series: they are skipped, and put together
//!   only when [`FloatSeries::labels`] asks for them.

mod decode;
mod encode;

pub use decode::{Batch, BatchError, FloatSeries, Section, SectionContent, decode_delete};
pub use encode::{
    EncodedSection, FloatSectionWriter, encode_batch, encode_delete, encode_delete_section,
    encode_metadata_section,
};

use crate::{Offset, PartitionId, QueueId};

/// The first four bytes of every batch.
pub const MAGIC: [u8; 4] = *b"MRBT";
/// The version written here, and the only one read.
pub const VERSION: u8 = 1;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 28;
/// Longest body that is read or written, in bytes. Well above the queue's batch bound, and far
/// below what would hurt a reader that allocates it.
pub const MAX_BODY_BYTES: usize = 64 << 20;

pub(crate) const FLAG_ORIGINAL_POSITION: u8 = 1;
pub(crate) const KIND_FLOAT: u8 = 1;
pub(crate) const KIND_METADATA: u8 = 2;
/// 3 and 4 are reserved for histograms and states.
pub(crate) const KIND_DELETES: u8 = 5;
pub(crate) const OP_DELETE: u8 = 1;
pub(crate) const OP_REVOKE: u8 = 2;

/// Where a batch stood when it was first queued. Carried by a batch that is queued again (from the
/// dead letters, by a migration), because last-write-wins is decided by the original position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginalPosition {
    /// The queue it was first in.
    pub queue: QueueId,
    /// The partition there.
    pub partition: PartitionId,
    /// The offset there.
    pub offset: Offset,
}

#[cfg(test)]
mod tests;
