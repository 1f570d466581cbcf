//! Quantiles by a sketch with a bound on its error: DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and
//! Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", VLDB 2019), without collapsing.
//!
//! A value `v > 0` is counted in the bin `i = ceil(ln v / ln g)`, `g = (1 + a) / (1 - a)`: the bin holds
//! `(g^(i-1), g^i]`, and `2 g^i / (g + 1)` is within the relative error `a` of everything in it. Bins
//! are never joined, so sketches merge by adding counts, in any order, to the same sketch. All finite
//! numbers together have fewer than 150,000 bins; twelve decimal orders of magnitude have some 1,400.
//!
//! NaNs are not counted. The infinities have bins of their own.

use std::collections::BTreeMap;

use millrace_model::{read_varint, unzigzag, write_varint, zigzag};

/// The relative error of a quantile: at most 1 %.
pub const SKETCH_ERROR: f64 = 0.01;

/// The bin of what is infinite: behind all bins of finite numbers.
const INFINITE: i32 = i32::MAX;

/// How often values were seen, by size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    zero: u64,
    positive: BTreeMap<i32, u64>,
    negative: BTreeMap<i32, u64>,
}

fn base() -> f64 {
    (1.0 + SKETCH_ERROR) / (1.0 - SKETCH_ERROR)
}

fn bin(magnitude: f64) -> i32 {
    if magnitude.is_infinite() {
        return INFINITE;
    }
    // ln of a finite number is within 745, so this is within 40,000.
    (magnitude.ln() / base().ln()).ceil() as i32
}

fn middle(bin: i32) -> f64 {
    if bin == INFINITE {
        return f64::INFINITY;
    }
    let middle = 2.0 * (f64::from(bin) * base().ln()).exp() / (base() + 1.0);
    // The last bin's middle may lie behind the largest number.
    middle.min(f64::MAX)
}

impl Sketch {
    /// Counts a value.
    pub fn add(&mut self, value: f64) {
        if value.is_nan() {
            return;
        }
        if value == 0.0 {
            self.zero += 1;
        } else if value > 0.0 {
            *self.positive.entry(bin(value)).or_default() += 1;
        } else {
            *self.negative.entry(bin(-value)).or_default() += 1;
        }
    }

    /// Adds what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.zero += other.zero;
        let sides = [
            (&mut self.positive, &other.positive),
            (&mut self.negative, &other.negative),
        ];
        for (into, from) in sides {
            for (bin, count) in from {
                *into.entry(*bin).or_default() += count;
            }
        }
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        let sides = self.positive.values().chain(self.negative.values());
        self.zero + sides.sum::<u64>()
    }

    /// The value that the share `quantile` of all others is not above: that of the rank
    /// `floor(quantile * (count - 1))` in order of size, counted from 0, within [`SKETCH_ERROR`] of it.
    /// `None` without values.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let last = self.count().checked_sub(1)?;
        let mut rank = (quantile.clamp(0.0, 1.0) * last as f64).floor() as u64;
        rank = rank.min(last);
        let falling = self
            .negative
            .iter()
            .rev()
            .map(|(bin, n)| (-middle(*bin), n));
        let rising = self.positive.iter().map(|(bin, n)| (middle(*bin), n));
        for (value, &count) in falling.chain([(0.0, &self.zero)]).chain(rising) {
            if rank < count {
                return Some(value);
            }
            rank -= count;
        }
        None
    }

    /// Appends its bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.zero);
        for side in [&self.positive, &self.negative] {
            write_varint(out, side.len() as u64);
            let mut before = 0;
            for (bin, count) in side {
                write_varint(out, zigzag(i64::from(*bin) - before));
                write_varint(out, *count);
                before = i64::from(*bin);
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub(crate) fn decode(bytes: &[u8], pos: &mut usize) -> Option<Self> {
        let zero = read_varint(bytes, pos)?;
        let mut sides = [BTreeMap::new(), BTreeMap::new()];
        for side in &mut sides {
            let bins = read_varint(bytes, pos)?;
            let mut before = 0i64;
            for _ in 0..bins {
                let step = unzigzag(read_varint(bytes, pos)?);
                before = before.checked_add(step)?;
                let count = read_varint(bytes, pos)?;
                side.insert(i32::try_from(before).ok()?, count);
            }
        }
        let [positive, negative] = sides;
        Some(Self {
            zero,
            positive,
            negative,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(values: &[f64]) {
        let mut sketch = Sketch::default();
        values.iter().for_each(|&v| sketch.add(v));
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        for quantile in [0.0, 0.1, 0.5, 0.9, 0.99, 1.0] {
            let Some(last) = sorted.len().checked_sub(1) else {
                assert_eq!(sketch.quantile(quantile), None);
                continue;
            };
            let exact = sorted[(quantile * last as f64).floor() as usize];
            let got = sketch.quantile(quantile).unwrap();
            let bound = exact.abs() * (SKETCH_ERROR + 1e-9);
            assert!(
                got == exact || (got - exact).abs() <= bound,
                "{quantile}: {got} {exact}"
            );
        }
        let mut bytes = Vec::new();
        sketch.encode(&mut bytes);
        let mut pos = 0;
        assert_eq!(Sketch::decode(&bytes, &mut pos), Some(sketch));
        assert_eq!(pos, bytes.len());
    }

    #[test]
    fn a_quantile_is_within_the_bound_for_any_sizes() {
        check(&[]);
        check(&[0.0, -0.0, f64::NAN]);
        check(&[
            1.0,
            1e-300,
            1e300,
            f64::MAX,
            f64::MIN_POSITIVE,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ]);
    }

    proptest! {
        #[test]
        fn quantiles_of_random_values_are_within_the_bound(
            values in proptest::collection::vec(-1e6f64..1e6, 1..200),
        ) {
            check(&values);
        }

        #[test]
        fn parts_merge_to_the_whole_in_any_order(
            values in proptest::collection::vec(any::<f64>(), 0..60), cut in 0usize..60,
        ) {
            let of = |values: &[f64]| {
                let mut sketch = Sketch::default();
                values.iter().for_each(|&v| sketch.add(v));
                sketch
            };
            let (a, b) = values.split_at(cut.min(values.len()));
            let (mut ab, mut ba) = (of(a), of(b));
            ab.merge(&of(b));
            ba.merge(&of(a));
            prop_assert_eq!(&ab, &of(&values));
            prop_assert_eq!(&ba, &of(&values));
        }
    }
}
