//! The chunk codec: a compressed run of samples of one series, as the memtable keeps them (blocks
//! have [their own](crate::block::columns)). Format: `docs/formats/chunk.md`.
//!
//! A bit stream of the Gorilla family (Pelkonen et al., "Gorilla: a fast, scalable, in-memory time
//! series database", VLDB 2015): timestamps as the difference of differences, values as the XOR
//! with the value before, in the window of bits that changed last. One joint code says for both
//! whether there is anything to say, so a sample on the grid with an unchanged value is one bit;
//! the first bins of the differences are small, because real scrapes are off by milliseconds.
//!
//! Invariants:
//! - Every `i64` timestamp in any order and every `f64` bit pattern survive: all arithmetic wraps
//!   and every bin has an escape of the full width.
//! - The bytes of an open chunk are complete after each [`push`](ChunkWriter::push): a reader needs
//!   them and the number of samples, nothing else.
//! - [`ChunkReader`] is total: any bytes and any count end in samples or an error, never in a panic,
//!   and no memory is reserved for samples that the bytes cannot hold.
//! - The number of samples stands outside of the bytes, and there is no checksum in them: a changed
//!   bit mostly decodes to other samples.
//!
//! Cost sketch: a push is some 20 instructions and one store into the chunk's last cache line; at a
//! million series that line and the writer's own are the two cache misses of an append.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{ChunkReader, decode_chunk};
pub use writer::ChunkWriter;

/// Bytes that the first sample takes: timestamp and value as they are.
const FIRST_SAMPLE_BYTES: usize = 16;

/// A class of differences of differences. The difference is mapped to an unsigned number first
/// (zigzag), so a bin holds as many negative as positive ones.
#[derive(Clone, Copy)]
struct Bin {
    /// The code in front of the bits.
    prefix: u64,
    prefix_bits: u32,
    /// Smallest number in the bin; the bits count from it.
    base: u64,
    bits: u32,
}

/// Jitter of up to ±8 ms takes the first bin, ±72 ms the second, ±8 s the third; the fourth (±2.3
/// hours) is for the first difference of a chunk, and for gaps. What is in none of them is written
/// in 64 bits behind [`ESCAPE`].
const BINS: [Bin; 4] = [
    Bin::new(0b0, 1, 1, 4),
    Bin::new(0b10, 2, 1 + (1 << 4), 7),
    Bin::new(0b110, 3, 1 + (1 << 4) + (1 << 7), 14),
    Bin::new(0b1110, 4, 1 + (1 << 4) + (1 << 7) + (1 << 14), 24),
];

/// The code in front of a difference in full, as long as that of the last bin.
const ESCAPE: u64 = 0b1111;
const ESCAPE_BITS: u32 = 4;

/// Bits that say where the window of a changed value begins, and how wide it is, less 1.
const LEAD_BITS: u32 = 5;
const WIDTH_BITS: u32 = 6;
/// More leading zeros than this are not told.
const LEAD_MAX: u32 = (1 << LEAD_BITS) - 1;

impl Bin {
    const fn new(prefix: u64, prefix_bits: u32, base: u64, bits: u32) -> Self {
        Self {
            prefix,
            prefix_bits,
            base,
            bits,
        }
    }
}

/// Why bytes are no chunk of so many samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes end too early.
    #[error("chunk of {bytes} bytes cannot hold {count} samples")]
    Truncated {
        /// Its length.
        bytes: usize,
        /// How many samples it is said to hold.
        count: u32,
    },
    /// A window of changed bits reaches over the end of a value.
    #[error("sample {sample} of the chunk: a window of {width} bits behind {lead} others")]
    Window {
        /// The sample, counted from 0.
        sample: u32,
        /// Bits in front of the window.
        lead: u32,
        /// Bits of the window.
        width: u32,
    },
    /// There is something behind the last sample.
    #[error("chunk of {bytes} bytes goes on behind its {count} samples")]
    Trailing {
        /// Its length.
        bytes: usize,
        /// How many samples it is said to hold.
        count: u32,
    },
}
