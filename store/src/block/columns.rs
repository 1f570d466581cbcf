//! The column codec: the samples of a sealed chunk as two columns of integers. Format:
//! `docs/formats/columns.md`.
//!
//! Almost everything that machines report is an integer or a decimal number of a few digits, which
//! a float only approximates. So a value becomes its *mantissa* `m = v · 10^e` wherever `m / 10^e`
//! gives back the same bits, and mantissas, like timestamps, become small by looking at their
//! differences; what is left is packed in as few bits as most of a block of `BLOCK` need, and the
//! few that need more are patched in.
//!
//! ```text
//! values ─→ exponent, exceptions, mantissas ─┐
//!        └→ ordered bits (no decimals) ──────┼→ constant │ step │ raw │ delta │ delta² │ line │ sparse
//! timestamps ────────────────────────────────┘                  └→ blocks: base, width, bits, patches
//! ```
//!
//! Invariants:
//! - Bit-exact for every timestamp and every bit pattern of a value: what is no decimal is kept as
//!   an exception or by its bits, and all integer arithmetic wraps.
//! - [`decode`] is total: any bytes and any count end in samples or an error, and no memory is
//!   reserved for more than [`SAMPLES_MAX`] samples.
//! - The number of samples, the first timestamp and the checksum stand outside, in the chunk's
//!   directory entry.

mod blocks;
mod integers;
mod kernels;
mod rice;
#[cfg(test)]
mod tests;
mod values;

pub(super) use integers::{IntegerEncoder, decode as read_integers};
pub(super) use values::{
    ValueEncoder, as_decimals, as_decimals_of, as_ordered, decode as read_values, from_decimals,
    from_ordered,
};

/// Most samples of a chunk: bounds what a damaged count can reserve.
pub const SAMPLES_MAX: u32 = 65_535;

/// Numbers that share a base and a width.
const BLOCK: usize = 128;

/// Encodes chunks; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct ColumnEncoder {
    integers: IntegerEncoder,
    values: ValueEncoder,
    relative: Vec<i64>,
    recent: Vec<Recent>,
}

/// Timestamps that were encoded, and what they became. Series that are scraped together share them,
/// and a block's series come metric by metric, so the ones of a hundred targets take turns.
#[derive(Clone, Debug, Default)]
struct Recent {
    relative: Vec<i64>,
    bytes: Vec<u8>,
}

/// About 8 KiB each.
const RECENT: usize = 128;

impl ColumnEncoder {
    /// An encoder. It has no state but memory: a chunk's bytes do not depend on those before.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a chunk of samples to `out`.
    ///
    /// # Panics
    ///
    /// If the columns are not equally long, are empty, or longer than [`SAMPLES_MAX`].
    pub fn encode(&mut self, timestamps: &[i64], values: &[f64], out: &mut Vec<u8>) {
        assert_eq!(timestamps.len(), values.len(), "columns of a chunk");
        let count = values.len();
        assert!(
            (1..=SAMPLES_MAX as usize).contains(&count),
            "samples of a chunk"
        );
        self.encode_timestamps(timestamps, out);
        self.encode_values(values, out);
    }

    /// Appends the value column alone: what stands behind the timestamps in a chunk.
    pub(super) fn encode_values(&mut self, values: &[f64], out: &mut Vec<u8>) {
        self.values.encode(values, &mut self.integers, out);
    }

    /// Appends the timestamps alone: what a chunk begins with.
    pub(super) fn encode_timestamps(&mut self, timestamps: &[i64], out: &mut Vec<u8>) {
        let first = timestamps[0];
        self.relative.clear();
        let relative = timestamps.iter().map(|t| t.wrapping_sub(first));
        self.relative.extend(relative);
        self.recent.resize_with(RECENT, Recent::default);
        let recent = &mut self.recent[slot(&self.relative)];
        if recent.relative != self.relative {
            recent.bytes.clear();
            self.integers.encode(&self.relative, &mut recent.bytes);
            std::mem::swap(&mut recent.relative, &mut self.relative);
        }
        out.extend_from_slice(&recent.bytes);
    }
}

/// Where timestamps are remembered, by a hash of some of them.
fn slot(relative: &[i64]) -> usize {
    let step = relative.len().div_ceil(32);
    let mix = |hash: u64, &t: &i64| (hash ^ t as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = relative
        .iter()
        .step_by(step)
        .fold(relative.len() as u64, mix);
    (hash >> 32) as usize % RECENT
}

/// Appends the `count` samples of a chunk whose first timestamp is `first` to the two columns.
///
/// # Errors
///
/// Bytes that are no chunk of exactly that many samples. The columns are then as before.
pub fn decode(
    bytes: &[u8],
    count: u32,
    first: i64,
    timestamps: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<(), ColumnError> {
    if !(1..=SAMPLES_MAX).contains(&count) {
        return Err(ColumnError {
            at: 0,
            what: "number of samples",
        });
    }
    let ends = (timestamps.len(), values.len());
    timestamps.resize(ends.0 + count as usize, 0);
    values.resize(ends.1 + count as usize, 0.0);
    let mut input = Input::new(bytes);
    let decoded = decode_into(
        &mut input,
        first,
        &mut timestamps[ends.0..],
        &mut values[ends.1..],
    );
    decoded.map_err(|what| {
        timestamps.truncate(ends.0);
        values.truncate(ends.1);
        input.error(what)
    })
}

fn decode_into(
    input: &mut Input<'_>,
    first: i64,
    timestamps: &mut [i64],
    values: &mut [f64],
) -> Result<(), &'static str> {
    integers::decode(input, timestamps)?;
    for timestamp in timestamps {
        *timestamp = timestamp.wrapping_add(first);
    }
    values::decode(input, values)?;
    input.check_end()
}

/// Reads a column of timestamps alone, as differences to the first one.
pub(super) fn decode_timestamps(bytes: &[u8], relative: &mut [i64]) -> Result<(), ColumnError> {
    let mut input = Input::new(bytes);
    let decoded = integers::decode(&mut input, relative).and_then(|_| input.check_end());
    decoded.map_err(|what| input.error(what))
}

/// Reads a value column alone, of as many values as `out` is long.
pub(super) fn decode_values(bytes: &[u8], out: &mut [f64]) -> Result<(), ColumnError> {
    let mut input = Input::new(bytes);
    let decoded = values::decode(&mut input, out).and_then(|()| input.check_end());
    decoded.map_err(|what| input.error(what))
}

/// Why bytes are no chunk of so many samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("columns at byte {at}: {what}")]
pub struct ColumnError {
    /// Where in the chunk.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Bytes that are read front to back.
#[derive(Debug)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    pub(super) fn pos(&self) -> usize {
        self.pos
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.pos == self.bytes.len()
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.pos..]
    }

    fn check_end(&self) -> Result<(), &'static str> {
        if self.is_at_end() {
            Ok(())
        } else {
            Err("bytes behind the last sample")
        }
    }

    fn error(&self, what: &'static str) -> ColumnError {
        ColumnError { at: self.pos, what }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let taken = self
            .pos
            .checked_add(len)
            .and_then(|end| self.bytes.get(self.pos..end));
        let taken = taken.ok_or("cut short")?;
        self.pos += len;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, &'static str> {
        self.take(1).map(|byte| byte[0])
    }

    pub(super) fn varint(&mut self) -> Result<u64, &'static str> {
        millrace_model::read_varint(self.bytes, &mut self.pos).ok_or("a number is cut short")
    }

    fn zigzag(&mut self) -> Result<i64, &'static str> {
        self.varint().map(millrace_model::unzigzag)
    }
}
