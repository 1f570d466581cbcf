//! Reading a chunk. Total over arbitrary bytes.

use millrace_model::unzigzag;

use super::{BINS, ChunkError, ESCAPE_BITS, FIRST_SAMPLE_BYTES, LEAD_BITS, WIDTH_BITS};

/// Bits of a word read at any bit position that are sure to be there.
const PEEK_BITS: u32 = 57;

/// Appends the `count` samples of a chunk to the two columns.
///
/// # Errors
///
/// Bytes that are no chunk of exactly that many samples. The columns are then as before.
pub fn decode_chunk(
    bytes: &[u8],
    count: u32,
    timestamps: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<(), ChunkError> {
    check_length(bytes, count)?;
    let ends = (timestamps.len(), values.len());
    timestamps.resize(ends.0 + count as usize, 0);
    values.resize(ends.1 + count as usize, 0.0);
    let decoded = decode_into(bytes, &mut timestamps[ends.0..], &mut values[ends.1..]);
    if decoded.is_err() {
        timestamps.truncate(ends.0);
        values.truncate(ends.1);
    }
    decoded
}

/// Decodes a chunk of as many samples as the columns are long.
fn decode_into(bytes: &[u8], timestamps: &mut [i64], values: &mut [f64]) -> Result<(), ChunkError> {
    let count = timestamps.len() as u32;
    let mut columns = timestamps.iter_mut().zip(values);
    let mut state = State::EMPTY;
    if let Some((timestamp, value)) = columns.next() {
        state = State::first(bytes).ok_or_else(|| truncated(bytes, count))?;
        (*timestamp, *value) = (state.timestamp, f64::from_bits(state.value));
    }
    // The state stays in registers: nothing here takes its address.
    for (sample, (timestamp, value)) in (1..).zip(columns) {
        state = state.next(bytes).map_err(|window| window.error(sample))?;
        (*timestamp, *value) = (state.timestamp, f64::from_bits(state.value));
    }
    state.check_end(bytes, count)
}

/// Reads the samples of a chunk one by one.
#[derive(Clone, Debug)]
pub struct ChunkReader<'a> {
    bytes: &'a [u8],
    state: State,
    next: u32,
    count: u32,
}

impl<'a> ChunkReader<'a> {
    /// A reader of a chunk that is said to hold `count` samples.
    ///
    /// # Errors
    ///
    /// Too few bytes for so many samples, whatever they are.
    pub fn new(bytes: &'a [u8], count: u32) -> Result<Self, ChunkError> {
        check_length(bytes, count)?;
        Ok(Self {
            bytes,
            state: State::EMPTY,
            next: 0,
            count,
        })
    }

    /// The next sample, or `None` behind the last, however often it is asked.
    ///
    /// # Errors
    ///
    /// Bytes that are no chunk of the samples that were announced.
    #[inline]
    pub fn next_sample(&mut self) -> Result<Option<(i64, f64)>, ChunkError> {
        if self.next == self.count {
            self.state.check_end(self.bytes, self.count)?;
            return Ok(None);
        }
        self.state = if self.next == 0 {
            State::first(self.bytes).ok_or_else(|| truncated(self.bytes, self.count))?
        } else {
            let next = self.state.next(self.bytes);
            next.map_err(|window| window.error(self.next))?
        };
        if self.state.at > 8 * self.bytes.len() {
            return Err(truncated(self.bytes, self.count));
        }
        self.next += 1;
        Ok(Some((
            self.state.timestamp,
            f64::from_bits(self.state.value),
        )))
    }
}

/// Every sample behind the first takes one bit or more.
fn check_length(bytes: &[u8], count: u32) -> Result<(), ChunkError> {
    let first_bytes = if count == 0 { 0 } else { FIRST_SAMPLE_BYTES };
    let rest = bytes.len().checked_sub(first_bytes);
    if rest.is_none_or(|rest| rest.saturating_mul(8) < (count as usize).saturating_sub(1)) {
        return Err(truncated(bytes, count));
    }
    Ok(())
}

#[cold]
fn truncated(bytes: &[u8], count: u32) -> ChunkError {
    ChunkError::Truncated {
        bytes: bytes.len(),
        count,
    }
}

/// A window that reaches over the end of a value.
struct BadWindow {
    lead: u32,
    width: u32,
}

impl BadWindow {
    #[cold]
    fn error(self, sample: u32) -> ChunkError {
        ChunkError::Window {
            sample,
            lead: self.lead,
            width: self.width,
        }
    }
}

/// What the next sample is read against. Behind the end of the bytes it reads zeros and moves on,
/// by at most some 150 bits a sample; the end is checked once, behind the last sample.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Position in bits.
    at: usize,
    timestamp: i64,
    delta: i64,
    value: u64,
    lead: u32,
    width: u32,
}

impl State {
    const EMPTY: Self = Self {
        at: 0,
        timestamp: 0,
        delta: 0,
        value: 0,
        lead: 0,
        width: 64,
    };

    fn first(bytes: &[u8]) -> Option<Self> {
        let timestamp = bytes.first_chunk::<8>()?;
        let value = bytes.get(8..)?.first_chunk::<8>()?;
        Some(Self {
            at: 8 * FIRST_SAMPLE_BYTES,
            timestamp: i64::from_be_bytes(*timestamp),
            value: u64::from_be_bytes(*value),
            ..Self::EMPTY
        })
    }

    #[inline(always)]
    fn next(mut self, bytes: &[u8]) -> Result<Self, BadWindow> {
        let word = peek(bytes, self.at);
        if word >> 63 == 0 {
            self.at += 1;
        } else if word >> 62 == 0b10 {
            self = self.xor(bytes, word, 2)?;
        } else {
            self = self.change(bytes, word)?;
        }
        self.timestamp = self.timestamp.wrapping_add(self.delta);
        Ok(self)
    }

    /// A sample off the grid, whose code begins `word`.
    #[inline(always)]
    fn change(mut self, bytes: &[u8], word: u64) -> Result<Self, BadWindow> {
        let rest = word << 2;
        let (change, mut word, mut used) = match BINS.get(rest.leading_ones() as usize) {
            Some(bin) => {
                let bits = rest << bin.prefix_bits >> (64 - bin.bits);
                (bin.base + bits, word, 2 + bin.prefix_bits + bin.bits)
            }
            None => {
                let start = self.at + 2 + ESCAPE_BITS as usize;
                let change = peek64(bytes, start);
                // The bit that says whether the value changed begins a word of its own.
                self.at = start + 64;
                (change, peek(bytes, self.at), 0)
            }
        };
        self.delta = self.delta.wrapping_add(unzigzag(change));
        let changed = word << used >> 63 == 1;
        used += 1;
        if !changed {
            self.at += used as usize;
            return Ok(self);
        }
        if used == 1 {
            self.at += 1;
            word = peek(bytes, self.at);
            used = 0;
        }
        self.xor(bytes, word, used)
    }

    /// The changed bits of a value. `word` is what stands at the position, of which `used` bits
    /// have been read.
    #[inline(always)]
    fn xor(mut self, bytes: &[u8], word: u64, mut used: u32) -> Result<Self, BadWindow> {
        let rest = word << used;
        used += 1;
        if rest >> 63 == 1 {
            self.lead = (rest << 1 >> (64 - LEAD_BITS)) as u32;
            self.width = (rest << (1 + LEAD_BITS) >> (64 - WIDTH_BITS)) as u32 + 1;
            used += LEAD_BITS + WIDTH_BITS;
            if self.lead + self.width > 64 {
                return Err(BadWindow {
                    lead: self.lead,
                    width: self.width,
                });
            }
        }
        let (lead, width) = (self.lead, self.width);
        let xor = if used + width <= PEEK_BITS {
            word << used >> (64 - width)
        } else {
            peek64(bytes, self.at + used as usize) >> (64 - width)
        };
        self.value ^= xor << (64 - lead - width);
        self.at += (used + width) as usize;
        Ok(self)
    }

    /// Whether the samples ended where the bytes do. Nothing may hide behind them: bits that are
    /// not interpreted are not compared by anybody.
    fn check_end(&self, bytes: &[u8], count: u32) -> Result<(), ChunkError> {
        let used = self.at.div_ceil(8);
        if used > bytes.len() {
            return Err(truncated(bytes, count));
        }
        let padding = 8 * used - self.at;
        let clean = padding == 0 || bytes[used - 1].trailing_zeros() as usize >= padding;
        if used != bytes.len() || !clean {
            return Err(ChunkError::Trailing {
                bytes: bytes.len(),
                count,
            });
        }
        Ok(())
    }
}

/// The 64 bits at a bit position, of which at least the first [`PEEK_BITS`] are the chunk's; zeros
/// behind its end.
#[inline(always)]
fn peek(bytes: &[u8], at: usize) -> u64 {
    let byte = at >> 3;
    let word = match bytes.get(byte..).and_then(|b| b.first_chunk::<8>()) {
        Some(&word) => word,
        None => peek_tail(bytes, byte),
    };
    u64::from_be_bytes(word) << (at & 7)
}

/// All of the 64 bits at a bit position.
#[inline(always)]
fn peek64(bytes: &[u8], at: usize) -> u64 {
    peek(bytes, at) >> 32 << 32 | peek(bytes, at + 32) >> 32
}

#[cold]
fn peek_tail(bytes: &[u8], byte: usize) -> [u8; 8] {
    let mut word = [0; 8];
    let tail = bytes.get(byte..).unwrap_or(&[]);
    word[..tail.len()].copy_from_slice(tail);
    word
}
