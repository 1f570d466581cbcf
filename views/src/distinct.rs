//! How many different values there are: exactly up to a bound, estimated beyond it.
//!
//! Values are hashed (XXH3-64). Up to [`DISTINCT_EXACT_MAX`] hashes are kept as they are; more become a
//! HyperLogLog of 2^12 registers (Flajolet et al. 2007), whose standard error is 1.04 / sqrt(4096), that
//! is 1.6 %. Which of the two it is depends on the set alone, so the order of adding and merging does
//! not matter.

use millrace_model::{read_varint, write_varint};
use xxhash_rust::xxh3::xxh3_64;

/// Up to so many values are counted exactly.
pub const DISTINCT_EXACT_MAX: usize = 1024;

const REGISTER_BITS: u32 = 12;
const REGISTERS: usize = 1 << REGISTER_BITS;

/// A set that only tells its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distinct(Kept);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    /// Sorted, each once.
    Hashes(Vec<u64>),
    Registers(Box<[u8]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self(Kept::Hashes(Vec::new()))
    }
}

impl Distinct {
    /// Adds a value.
    pub fn add(&mut self, value: &str) {
        self.add_hash(xxh3_64(value.as_bytes()));
    }

    fn add_hash(&mut self, hash: u64) {
        match &mut self.0 {
            Kept::Hashes(hashes) => {
                if let Err(at) = hashes.binary_search(&hash) {
                    hashes.insert(at, hash);
                }
                if hashes.len() > DISTINCT_EXACT_MAX {
                    let mut registers = vec![0; REGISTERS].into_boxed_slice();
                    hashes.iter().for_each(|&hash| note(&mut registers, hash));
                    self.0 = Kept::Registers(registers);
                }
            }
            Kept::Registers(registers) => note(registers, hash),
        }
    }

    /// Adds the values of another set.
    pub fn merge(&mut self, other: &Self) {
        match &other.0 {
            Kept::Hashes(hashes) => hashes.iter().for_each(|&hash| self.add_hash(hash)),
            Kept::Registers(theirs) => {
                let mut merged = theirs.clone();
                match &self.0 {
                    Kept::Hashes(hashes) => hashes.iter().for_each(|&h| note(&mut merged, h)),
                    Kept::Registers(ours) => {
                        for (into, from) in merged.iter_mut().zip(ours) {
                            *into = (*into).max(*from);
                        }
                    }
                }
                self.0 = Kept::Registers(merged);
            }
        }
    }

    /// How many different values there are.
    #[must_use]
    pub fn count(&self) -> f64 {
        match &self.0 {
            Kept::Hashes(hashes) => hashes.len() as f64,
            Kept::Registers(registers) => estimate(registers),
        }
    }

    /// Appends its bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Kept::Hashes(hashes) => {
                out.push(0);
                write_varint(out, hashes.len() as u64);
                for hash in hashes {
                    out.extend_from_slice(&hash.to_le_bytes());
                }
            }
            Kept::Registers(registers) => {
                out.push(1);
                out.extend_from_slice(registers);
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(bytes: &[u8], pos: &mut usize) -> Option<Self> {
        let kind = *bytes.get(*pos)?;
        *pos += 1;
        match kind {
            0 => {
                let count = usize::try_from(read_varint(bytes, pos)?).ok()?;
                if count > DISTINCT_EXACT_MAX {
                    return None;
                }
                let end = *pos + count * 8;
                let (hashes, _) = bytes.get(*pos..end)?.as_chunks::<8>();
                let hashes: Vec<u64> = hashes.iter().map(|b| u64::from_le_bytes(*b)).collect();
                *pos = end;
                hashes
                    .is_sorted_by(|a, b| a < b)
                    .then_some(Self(Kept::Hashes(hashes)))
            }
            1 => {
                let registers = bytes.get(*pos..*pos + REGISTERS)?;
                *pos += REGISTERS;
                Some(Self(Kept::Registers(registers.into())))
            }
            _ => None,
        }
    }
}

fn note(registers: &mut [u8], hash: u64) {
    let register = (hash >> (64 - REGISTER_BITS)) as usize;
    // A bit below ends the run, so it is at most 53.
    let rest = (hash << REGISTER_BITS) | (1 << (REGISTER_BITS - 1));
    let run = rest.leading_zeros() as u8 + 1;
    registers[register] = registers[register].max(run);
}

fn estimate(registers: &[u8]) -> f64 {
    let count = registers.len() as f64;
    let alpha = 0.7213 / (1.0 + 1.079 / count);
    let sum: f64 = registers.iter().map(|&run| (-f64::from(run)).exp2()).sum();
    let raw = alpha * count * count / sum;
    let empty = registers.iter().filter(|&&run| run == 0).count();
    if raw <= 2.5 * count && empty > 0 {
        return (count * (count / empty as f64).ln()).round();
    }
    raw.round()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: std::ops::Range<u32>) -> Distinct {
        let mut set = Distinct::default();
        values.for_each(|v| set.add(&format!("device-{v}")));
        set
    }

    #[test]
    fn few_values_are_counted_exactly_and_many_within_the_error() {
        assert_eq!(of(0..0).count(), 0.0);
        assert_eq!(of(0..1024).count(), 1024.0);
        for count in [1_025, 5_000, 100_000] {
            let got = of(0..count).count();
            let off = (got / f64::from(count) - 1.0).abs();
            // Three standard errors.
            assert!(off < 0.05, "{got} of {count}");
        }
    }

    #[test]
    fn the_order_of_merging_does_not_matter() {
        for (a, b) in [
            (0..10, 5..700),
            (0..700, 600..1300),
            (0..2000, 3..9),
            (0..2000, 1500..4000),
        ] {
            let whole = of(a.start.min(b.start)..a.end.max(b.end));
            let (mut ab, mut ba) = (of(a.clone()), of(b.clone()));
            ab.merge(&of(b));
            ba.merge(&of(a));
            assert_eq!(ab, whole);
            assert_eq!(ba, whole);
            let mut bytes = Vec::new();
            ab.encode(&mut bytes);
            let mut pos = 0;
            assert_eq!(Distinct::decode(&bytes, &mut pos), Some(whole));
            assert_eq!(pos, bytes.len());
        }
    }
}
