//! Prometheus's XOR chunk, the unit of its streamed remote read
//! (<https://github.com/prometheus/prometheus/blob/main/tsdb/docs/format/chunks.md>).
//!
//! ```text
//! u16 BE  number of samples
//! sample 0: varint time, 64 bits value
//! sample 1: uvarint delta, xor
//! sample n: change of the delta: 0 | 10 +14 bits | 110 +17 | 1110 +20 | 1111 +64, xor
//! xor: 0 same value | 10 bits of the window before | 11 5 bits leading zeros, 6 bits width, bits
//! ```
//!
//! Bits are packed from the most significant one on. Times and values come back bit for bit,
//! whatever they are: differences wrap around.

/// Samples of a chunk at most, as Prometheus cuts them itself. Its counter would hold 65,535.
pub(super) const SAMPLES_MAX: usize = 120;

/// The chunk of `timestamps` and `values`, which are equally long.
///
/// # Panics
///
/// If there are more than [`SAMPLES_MAX`] samples.
pub(super) fn encode(timestamps: &[i64], values: &[f64]) -> Vec<u8> {
    assert_eq!(timestamps.len(), values.len(), "columns of one series");
    assert!(timestamps.len() <= SAMPLES_MAX, "a chunk is cut before");
    let count = timestamps.len() as u16;
    let mut bits = Bits {
        bytes: Vec::with_capacity(16 + timestamps.len() * 4),
        free: 0,
    };
    bits.bytes.extend_from_slice(&count.to_be_bytes());
    let mut delta: i64 = 0;
    let mut window = Window::NONE;
    for (i, (&time, value)) in timestamps.iter().zip(values).enumerate() {
        if i == 0 {
            bits.uvarint(zigzag(time));
            bits.put(value.to_bits(), 64);
            continue;
        }
        let next = time.wrapping_sub(timestamps[i - 1]);
        if i == 1 {
            bits.uvarint(next as u64);
        } else {
            bits.change(next.wrapping_sub(delta));
        }
        delta = next;
        bits.xor(values[i - 1].to_bits() ^ value.to_bits(), &mut window);
    }
    bits.bytes
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The bits between the leading and the trailing zeros of the last xor that said them.
#[derive(Clone, Copy)]
struct Window {
    leading: u32,
    trailing: u32,
}

impl Window {
    /// Nothing fits into it.
    const NONE: Self = Self {
        leading: u32::MAX,
        trailing: u32::MAX,
    };
}

struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not written.
    free: u32,
}

impl Bits {
    /// The `count` lowest bits of `value`, 1 to 64.
    fn put(&mut self, value: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = left.min(self.free);
            let part = (value >> (left - taken)) & ((1 << taken) - 1);
            let last = self.bytes.len() - 1;
            self.bytes[last] |= (part as u8) << (self.free - taken);
            self.free -= taken;
            left -= taken;
        }
    }

    fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.put(value, 8);
    }

    /// How much later than expected a sample came.
    fn change(&mut self, change: i64) {
        let bits = change as u64;
        // The ranges are not those of two's complement: each holds one more above than below.
        let fits = |width: u32| {
            let half = 1i64 << (width - 1);
            -(half - 1) <= change && change <= half
        };
        if change == 0 {
            self.put(0, 1);
        } else if fits(14) {
            self.put(0b10, 2);
            self.put(bits, 14);
        } else if fits(17) {
            self.put(0b110, 3);
            self.put(bits, 17);
        } else if fits(20) {
            self.put(0b1110, 4);
            self.put(bits, 20);
        } else {
            self.put(0b1111, 4);
            self.put(bits, 64);
        }
    }

    fn xor(&mut self, xor: u64, window: &mut Window) {
        if xor == 0 {
            self.put(0, 1);
            return;
        }
        // Five bits say it.
        let leading = xor.leading_zeros().min(31);
        let trailing = xor.trailing_zeros();
        if leading >= window.leading && trailing >= window.trailing {
            self.put(0b10, 2);
            let width = 64 - window.leading - window.trailing;
            self.put(xor >> window.trailing, width);
            return;
        }
        *window = Window { leading, trailing };
        let width = 64 - leading - trailing;
        self.put(0b11, 2);
        self.put(u64::from(leading), 5);
        // 64 is said as 0: a width of 0 cannot be.
        self.put(u64::from(width), 6);
        self.put(xor >> trailing, width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Chunks that the real implementation made; `tests/api/prometheus/README.md` says how.
    const GOLDEN: &str = include_str!("../../../tests/api/prometheus/xor.jsonl");

    #[test]
    fn chunks_are_byte_for_byte_those_of_prometheus() {
        let mut runs = 0;
        for line in GOLDEN.lines() {
            let run: Value = serde_json::from_str(line).unwrap();
            let list = |key: &str| run[key].as_array().unwrap().clone();
            let timestamps: Vec<i64> = list("t").iter().map(|t| t.as_i64().unwrap()).collect();
            let values: Vec<f64> = list("v")
                .iter()
                .map(|bits| u64::from_str_radix(bits.as_str().unwrap(), 16).unwrap())
                .map(f64::from_bits)
                .collect();
            let chunk: String = encode(&timestamps, &values)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(chunk, run["chunk"].as_str().unwrap(), "{}", run["name"]);
            runs += 1;
        }
        assert!(runs >= 13, "{runs}");
    }
}
