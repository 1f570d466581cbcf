//! Reading a chunk. Total over arbitrary bytes.

use millrace_model::unzigzag;

use super::{BINS, ChunkError, ESCAPE_BITS, FIRST_SAMPLE_BYTES, LEAD_BITS, WIDTH_BITS};

/// Bits of a word read at any bit position that are sure to be there.
const PEEK_BITS: u32 = 57;

/// Appends the `count` samples of a chunk to the two columns.
///
/// # Errors
///
/// Bytes that are no chunk of exactly that many samples. The columns then hold some of the samples
/// more than before.
pub fn decode_chunk(
    bytes: &[u8],
    count: u32,
    timestamps: &mut Vec<i64>,
    values: &mut Vec<f64>,
) -> Result<(), ChunkError> {
    let mut reader = ChunkReader::new(bytes, count)?;
    timestamps.reserve(count as usize);
    values.reserve(count as usize);
    while let Some((timestamp, value)) = reader.next_sample()? {
        timestamps.push(timestamp);
        values.push(value);
    }
    Ok(())
}

/// Reads the samples of a chunk one by one.
#[derive(Clone, Debug)]
pub struct ChunkReader<'a> {
    bytes: &'a [u8],
    /// Position in bits.
    at: usize,
    next: u32,
    count: u32,
    timestamp: i64,
    delta: i64,
    value: u64,
    lead: u32,
    width: u32,
}

impl<'a> ChunkReader<'a> {
    /// A reader of a chunk that is said to hold `count` samples.
    ///
    /// # Errors
    ///
    /// Too few bytes for so many samples, whatever they are.
    pub fn new(bytes: &'a [u8], count: u32) -> Result<Self, ChunkError> {
        let first_bytes = if count == 0 { 0 } else { FIRST_SAMPLE_BYTES };
        let rest = bytes.len().checked_sub(first_bytes);
        // Every further sample takes one bit or more.
        if rest.is_none_or(|rest| rest.saturating_mul(8) < (count as usize).saturating_sub(1)) {
            return Err(ChunkError::Truncated {
                bytes: bytes.len(),
                count,
            });
        }
        Ok(Self {
            bytes,
            at: 0,
            next: 0,
            count,
            timestamp: 0,
            delta: 0,
            value: 0,
            lead: 0,
            width: 64,
        })
    }

    /// The next sample, or `None` behind the last, however often it is asked.
    ///
    /// # Errors
    ///
    /// Bytes that are no chunk of the samples that were announced.
    #[inline]
    pub fn next_sample(&mut self) -> Result<Option<(i64, f64)>, ChunkError> {
        if self.next == 0 || self.next == self.count {
            return self.first_or_end();
        }
        let word = self.peek(self.at);
        if word >> 63 == 0 {
            self.at += 1;
        } else if word >> 62 == 0b10 {
            self.take_xor(word, 2)?;
        } else {
            self.take_change(word)?;
        }
        if self.at > 8 * self.bytes.len() {
            return Err(self.truncated());
        }
        self.next += 1;
        self.timestamp = self.timestamp.wrapping_add(self.delta);
        Ok(Some((self.timestamp, f64::from_bits(self.value))))
    }

    #[cold]
    fn first_or_end(&mut self) -> Result<Option<(i64, f64)>, ChunkError> {
        if self.next == self.count {
            // Nothing may hide behind the samples: bits that are ignored are not covered by tests
            // of what was read.
            let used = self.at.div_ceil(8);
            let padding = 8 * used - self.at;
            let clean = padding == 0 || self.bytes[used - 1].trailing_zeros() as usize >= padding;
            if used != self.bytes.len() || !clean {
                return Err(ChunkError::Trailing {
                    bytes: self.bytes.len(),
                    count: self.count,
                });
            }
            return Ok(None);
        }
        let (Some(timestamp), Some(value)) = (
            self.bytes.first_chunk::<8>(),
            self.bytes.get(8..).and_then(|b| b.first_chunk::<8>()),
        ) else {
            return Err(self.truncated());
        };
        self.timestamp = i64::from_be_bytes(*timestamp);
        self.value = u64::from_be_bytes(*value);
        self.at = 8 * FIRST_SAMPLE_BYTES;
        self.next = 1;
        Ok(Some((self.timestamp, f64::from_bits(self.value))))
    }

    /// A sample off the grid, whose code begins `word`.
    fn take_change(&mut self, word: u64) -> Result<(), ChunkError> {
        let rest = word << 2;
        let (change, mut word, mut used) = match BINS.get(rest.leading_ones() as usize) {
            Some(bin) => {
                let bits = rest << bin.prefix_bits >> (64 - bin.bits);
                (bin.base + bits, word, 2 + bin.prefix_bits + bin.bits)
            }
            None => {
                let start = self.at + 2 + ESCAPE_BITS as usize;
                let change = self.peek(start) >> 32 << 32 | self.peek(start + 32) >> 32;
                self.at = start + 64;
                (change, self.peek(start + 64), 0)
            }
        };
        self.delta = self.delta.wrapping_add(unzigzag(change));
        let changed = word << used >> 63 == 1;
        used += 1;
        if !changed {
            self.at += used as usize;
            return Ok(());
        }
        if used == 1 {
            // Behind an escape: the position has been moved, so the word starts anew as well.
            self.at += 1;
            word = self.peek(self.at);
            used = 0;
        }
        self.take_xor(word, used)
    }

    /// The changed bits of a value. `word` is what stands at the position, of which `used` bits
    /// have been read.
    #[inline]
    fn take_xor(&mut self, word: u64, mut used: u32) -> Result<(), ChunkError> {
        let rest = word << used;
        used += 1;
        if rest >> 63 == 1 {
            self.lead = (rest << 1 >> (64 - LEAD_BITS)) as u32;
            self.width = (rest << (1 + LEAD_BITS) >> (64 - WIDTH_BITS)) as u32 + 1;
            used += LEAD_BITS + WIDTH_BITS;
            if self.lead + self.width > 64 {
                return Err(ChunkError::Window {
                    sample: self.next,
                    lead: self.lead,
                    width: self.width,
                });
            }
        }
        let (lead, width) = (self.lead, self.width);
        let xor = if used + width <= PEEK_BITS {
            word << used >> (64 - width)
        } else {
            let start = self.at + used as usize;
            // The second half is read by itself: a window can be wider than a peek is sure of.
            let high = self.peek(start) >> 32 << 32;
            let low = self.peek(start + 32) >> 32;
            (high | low) >> (64 - width)
        };
        self.value ^= xor << (64 - lead - width);
        self.at += (used + width) as usize;
        Ok(())
    }

    /// The 64 bits at a bit position, of which at least the first [`PEEK_BITS`] are the chunk's;
    /// zeros behind its end.
    #[inline]
    fn peek(&self, at: usize) -> u64 {
        let byte = at >> 3;
        let word = match self.bytes.get(byte..).and_then(|b| b.first_chunk::<8>()) {
            Some(&word) => word,
            None => self.peek_tail(byte),
        };
        u64::from_be_bytes(word) << (at & 7)
    }

    #[cold]
    fn peek_tail(&self, byte: usize) -> [u8; 8] {
        let mut word = [0; 8];
        let tail = self.bytes.get(byte..).unwrap_or(&[]);
        word[..tail.len()].copy_from_slice(tail);
        word
    }

    fn truncated(&self) -> ChunkError {
        ChunkError::Truncated {
            bytes: self.bytes.len(),
            count: self.count,
        }
    }
}
