//! Writing a chunk, sample by sample.

use millrace_model::zigzag;

use super::{BINS, ESCAPE, ESCAPE_BITS, FIRST_SAMPLE_BYTES, LEAD_BITS, LEAD_MAX, WIDTH_BITS};

/// Most bits that one [`ChunkWriter::put`] takes: the eighth byte of its word is lost to the bits
/// that the first byte has already.
const PUT_BITS_MAX: u32 = 57;

/// Bits by which a window of changed bits may be too wide before a new one is written: the cost of
/// saying where the new one is. So one odd value does not spoil the rest of the chunk.
const WINDOW_SLACK_BITS: u32 = LEAD_BITS + WIDTH_BITS;

/// An open chunk: takes samples, and can be read at any time through [`bytes`](Self::bytes).
///
/// ```
/// use millrace_store::chunk::{ChunkWriter, decode_chunk};
///
/// let mut chunk = ChunkWriter::new();
/// chunk.push(1_795_233_600_000, 21.5);
/// chunk.push(1_795_233_615_000, 21.5);
/// let (mut timestamps, mut values) = (Vec::new(), Vec::new());
/// decode_chunk(chunk.bytes(), 2, &mut timestamps, &mut values)?;
/// assert_eq!(timestamps, [1_795_233_600_000, 1_795_233_615_000]);
/// assert_eq!(values, [21.5, 21.5]);
/// # Ok::<_, millrace_store::chunk::ChunkError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChunkWriter {
    /// Reserved memory. Invariant: everything from bit `bits` on is zero.
    buffer: Box<[u8]>,
    last_timestamp: i64,
    last_delta: i64,
    last_value: u64,
    /// Bits written.
    bits: u32,
    count: u16,
    /// Zeros in front of the current window of changed bits, and its width.
    lead: u8,
    width: u8,
}

// At a million series every byte of an open chunk is a megabyte.
const _: () = assert!(size_of::<ChunkWriter>() == 48);

impl Default for ChunkWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkWriter {
    /// Most samples that a chunk takes. Chunks are cut far below.
    pub const SAMPLES_MAX: usize = u16::MAX as usize;

    /// An empty chunk. Reserves nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: Box::default(),
            last_timestamp: 0,
            last_delta: 0,
            last_value: 0,
            bits: 0,
            count: 0,
            lead: 0,
            width: 64,
        }
    }

    /// Adds a sample. Any timestamp is taken, in any order; samples in order and in step are small.
    ///
    /// # Panics
    ///
    /// If the chunk has [`SAMPLES_MAX`](Self::SAMPLES_MAX) samples.
    #[inline]
    pub fn push(&mut self, timestamp: i64, value: f64) {
        let value = value.to_bits();
        if self.count == 0 {
            self.push_first(timestamp, value);
            return;
        }
        self.count = self.count.checked_add(1).expect("a chunk is full");
        let delta = timestamp.wrapping_sub(self.last_timestamp);
        let change = zigzag(delta.wrapping_sub(self.last_delta));
        let xor = value ^ self.last_value;
        self.last_timestamp = timestamp;
        self.last_delta = delta;
        self.last_value = value;
        if change == 0 && xor == 0 {
            self.put_zero_bit();
        } else if change == 0 {
            self.put_xor(xor, 0b10, 2);
        } else {
            self.put_change(change, xor);
        }
    }

    /// Number of samples.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first sample's timestamp; 0 while there is none.
    #[must_use]
    #[inline]
    pub fn first_timestamp(&self) -> i64 {
        let first = self.buffer.first_chunk::<8>();
        first.map_or(0, |&bytes| i64::from_be_bytes(bytes))
    }

    /// The last sample's timestamp; 0 while there is none.
    #[must_use]
    #[inline]
    pub fn last_timestamp(&self) -> i64 {
        self.last_timestamp
    }

    /// The last sample's value; 0 while there is none.
    #[must_use]
    #[inline]
    pub fn last_value(&self) -> f64 {
        f64::from_bits(self.last_value)
    }

    /// The chunk as it stands: with [`len`](Self::len), all that a reader needs. A copy of them is
    /// a snapshot of the open chunk, a boxed copy is the closed one.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..(self.bits as usize).div_ceil(8)]
    }

    /// Memory that is reserved beside the struct itself, in bytes.
    #[must_use]
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Forgets the samples, keeps the memory.
    pub fn clear(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let used = (self.bits as usize).div_ceil(8);
        buffer[..used].fill(0);
        *self = Self {
            buffer,
            ..Self::new()
        };
    }

    #[cold]
    fn push_first(&mut self, timestamp: i64, value: u64) {
        if self.buffer.len() < 2 * FIRST_SAMPLE_BYTES {
            self.buffer = vec![0; 2 * FIRST_SAMPLE_BYTES].into();
        }
        self.buffer[..8].copy_from_slice(&timestamp.to_be_bytes());
        self.buffer[8..FIRST_SAMPLE_BYTES].copy_from_slice(&value.to_be_bytes());
        self.bits = 8 * FIRST_SAMPLE_BYTES as u32;
        self.count = 1;
        self.last_timestamp = timestamp;
        self.last_value = value;
    }

    /// A sample off the grid: `11`, the change, then whether the value changed too.
    fn put_change(&mut self, change: u64, xor: u64) {
        let bin = BINS.iter().find(|b| change - b.base < 1 << b.bits);
        let (mut code, mut bits) = match bin {
            Some(bin) => (
                0b11 << bin.prefix_bits << bin.bits | bin.prefix << bin.bits | (change - bin.base),
                2 + bin.prefix_bits + bin.bits,
            ),
            None => {
                self.put(0b11 << ESCAPE_BITS | ESCAPE, 2 + ESCAPE_BITS);
                self.put(change >> 32, 32);
                (change & u64::from(u32::MAX), 32)
            }
        };
        code = code << 1 | u64::from(xor != 0);
        bits += 1;
        if xor == 0 {
            self.put(code, bits);
        } else {
            self.put_xor(xor, code, bits);
        }
    }

    /// The bits that changed, behind `code`, which says that some did.
    #[inline]
    fn put_xor(&mut self, xor: u64, code: u64, code_bits: u32) {
        let lead = xor.leading_zeros().min(LEAD_MAX);
        let width = 64 - lead - xor.trailing_zeros();
        let (old_lead, old_width) = (u32::from(self.lead), u32::from(self.width));
        let fits = lead >= old_lead && lead + width <= old_lead + old_width;
        let (code, code_bits, lead, width) = if fits && old_width <= width + WINDOW_SLACK_BITS {
            (code << 1, code_bits + 1, old_lead, old_width)
        } else {
            // Both fit: the first is at most 31, the second at most 64.
            (self.lead, self.width) = (lead as u8, width as u8);
            let window =
                1 << LEAD_BITS << WIDTH_BITS | u64::from(lead) << WIDTH_BITS | u64::from(width - 1);
            let window_bits = 1 + LEAD_BITS + WIDTH_BITS;
            (
                code << window_bits | window,
                code_bits + window_bits,
                lead,
                width,
            )
        };
        let payload = xor >> (64 - lead - width);
        if code_bits + width <= PUT_BITS_MAX {
            self.put(code << width | payload, code_bits + width);
            return;
        }
        self.put(code, code_bits);
        if width <= PUT_BITS_MAX {
            self.put(payload, width);
        } else {
            self.put(payload >> 32, width - 32);
            self.put(payload & u64::from(u32::MAX), 32);
        }
    }

    /// Writes the `count` low bits of `value`, of which the others are zero.
    #[inline]
    fn put(&mut self, value: u64, count: u32) {
        debug_assert!((1..=PUT_BITS_MAX).contains(&count) && value < 1 << count);
        let at = (self.bits >> 3) as usize;
        if at + 8 > self.buffer.len() {
            self.grow();
        }
        let window = self.buffer[at..].first_chunk_mut::<8>();
        let window = window.expect("the buffer grew by more than eight bytes");
        let word = u64::from_be_bytes(*window) | value << (64 - (self.bits & 7) - count);
        *window = word.to_be_bytes();
        self.bits += count;
    }

    #[inline]
    fn put_zero_bit(&mut self) {
        // It is zero already.
        if self.bits as usize == 8 * self.buffer.len() {
            self.grow();
        }
        self.bits += 1;
    }

    /// Grows to the next size class of the usual allocators (an eighth of the next power of two,
    /// at least 16 bytes): doubling would leave a quarter of a million open chunks empty.
    #[cold]
    fn grow(&mut self) {
        let old = self.buffer.len();
        let step = ((old + 1).next_power_of_two() / 8).max(16);
        let mut buffer = std::mem::take(&mut self.buffer).into_vec();
        buffer.reserve_exact(step);
        buffer.resize(old + step, 0);
        self.buffer = buffer.into_boxed_slice();
    }
}
