//! One bucket of one group, as far as some series or shards go: such parts are merged to the whole.

use std::cmp::Ordering;

use millrace_model::{read_varint, unzigzag, write_varint, zigzag};

use crate::aggregate::Aggregate;
use crate::definition::Parts;
use crate::distinct::Distinct;
use crate::runs::Run;
use crate::sketch::Sketch;

/// A sum and what rounding lost of it, after Neumaier and Knuth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    total: f64,
    lost: f64,
}

impl Sum {
    /// Adds a number.
    #[inline]
    pub fn add(&mut self, value: f64) {
        let total = self.total + value;
        let taken = total - self.total;
        let lost = (self.total - (total - taken)) + (value - taken);
        let kept = self.lost + lost;
        // What is infinite has lost nothing that could be told.
        self.lost = if total.is_finite() { kept } else { 0.0 };
        self.total = total;
    }

    /// Adds a sum.
    pub fn merge(&mut self, other: &Self) {
        self.add(other.total);
        if self.total.is_finite() {
            self.lost += other.lost;
        }
    }

    /// The number. A sum that is no number is always the same one.
    #[must_use]
    pub fn value(&self) -> f64 {
        plain(self.total + self.lost)
    }
}

/// NaN in one form: which of two operands' bits survive is up to the compiler.
fn plain(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value }
}

/// Mergeable. Empty as it begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partial {
    count: u64,
    sum: Sum,
    min: f64,
    max: f64,
    /// (time, bits)
    first: (i64, u64),
    last: (i64, u64),
    /// How many series grew, and by how much.
    grown: (u64, Sum),
    sketch: Option<Box<Sketch>>,
    distinct: Option<Box<Distinct>>,
}

impl Partial {
    /// Adds a series' samples. `values` are those of the run; `label` is the value that is counted by
    /// [`Aggregate::Distinct`].
    pub fn add(&mut self, run: &Run, values: &[f64], parts: Parts, label: Option<&str>) {
        if self.count == 0 {
            (self.min, self.max) = (run.min, run.max);
            (self.first, self.last) = (run.first, run.last);
        } else {
            self.widen(run.min, run.max, run.first, run.last);
        }
        self.count += run.count;
        self.sum.merge(&run.sum);
        if let Some(increase) = run.increase.filter(|_| parts.has(Parts::INCREASE)) {
            self.grown.0 += 1;
            self.grown.1.add(increase);
        }
        if parts.has(Parts::SKETCH) {
            let sketch = self.sketch.get_or_insert_default();
            values.iter().for_each(|&value| sketch.add(value));
        }
        if parts.has(Parts::DISTINCT) {
            let distinct = self.distinct.get_or_insert_default();
            label.into_iter().for_each(|label| distinct.add(label));
        }
    }

    /// Adds the same bucket of the same group of another shard.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            self.clone_from(other);
            return;
        }
        self.widen(other.min, other.max, other.first, other.last);
        self.count += other.count;
        self.sum.merge(&other.sum);
        self.grown.0 += other.grown.0;
        self.grown.1.merge(&other.grown.1);
        match (&mut self.sketch, &other.sketch) {
            (Some(ours), Some(theirs)) => ours.merge(theirs),
            (ours, theirs) => *ours = ours.take().or_else(|| theirs.clone()),
        }
        match (&mut self.distinct, &other.distinct) {
            (Some(ours), Some(theirs)) => ours.merge(theirs),
            (ours, theirs) => *ours = ours.take().or_else(|| theirs.clone()),
        }
    }

    fn widen(&mut self, min: f64, max: f64, first: (i64, u64), last: (i64, u64)) {
        if min < self.min || self.min.is_nan() {
            self.min = min;
        }
        if max > self.max || self.max.is_nan() {
            self.max = max;
        }
        if compare(first, self.first) == Ordering::Less {
            self.first = first;
        }
        if compare(last, self.last) == Ordering::Greater {
            self.last = last;
        }
    }

    /// How many samples.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The value of an aggregate of a bucket of `width_ms`; `quantile` is asked by
    /// [`Aggregate::Quantile`] alone. `None` if there is none, such as the growth of no counter.
    #[must_use]
    pub fn value(&self, aggregate: Aggregate, width_ms: i64, quantile: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        match aggregate {
            Aggregate::Count => Some(self.count as f64),
            Aggregate::Sum => Some(self.sum.value()),
            Aggregate::Avg => Some(plain(self.sum.value() / self.count as f64)),
            Aggregate::Min => Some(plain(self.min)),
            Aggregate::Max => Some(plain(self.max)),
            Aggregate::First => Some(f64::from_bits(self.first.1)),
            Aggregate::Last => Some(f64::from_bits(self.last.1)),
            Aggregate::Increase => (self.grown.0 > 0).then(|| self.grown.1.value()),
            Aggregate::Rate => {
                let seconds = width_ms as f64 / 1000.0;
                (self.grown.0 > 0).then(|| plain(self.grown.1.value() / seconds))
            }
            Aggregate::Quantile => self.sketch.as_ref()?.quantile(quantile),
            Aggregate::Distinct => self.distinct.as_ref().map(|of| of.count()),
        }
    }

    /// Appends its bytes: `docs/formats/views.md`.
    pub fn encode(&self, out: &mut Vec<u8>, parts: Parts) {
        write_varint(out, self.count);
        for value in [self.sum.total, self.sum.lost, self.min, self.max] {
            out.extend_from_slice(&plain(value).to_le_bytes());
        }
        if parts.has(Parts::ENDS) {
            for (time, bits) in [self.first, self.last] {
                write_varint(out, zigzag(time));
                out.extend_from_slice(&bits.to_le_bytes());
            }
        }
        if parts.has(Parts::INCREASE) {
            write_varint(out, self.grown.0);
            for value in [self.grown.1.total, self.grown.1.lost] {
                out.extend_from_slice(&plain(value).to_le_bytes());
            }
        }
        if parts.has(Parts::SKETCH) {
            match &self.sketch {
                Some(sketch) => sketch.encode(out),
                None => Sketch::default().encode(out),
            }
        }
        if parts.has(Parts::DISTINCT) {
            match &self.distinct {
                Some(distinct) => distinct.encode(out),
                None => Distinct::default().encode(out),
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote, at `*pos`. `None` if the bytes are something else.
    #[must_use]
    pub fn decode(bytes: &[u8], pos: &mut usize, parts: Parts) -> Option<Self> {
        let mut partial = Self {
            count: read_varint(bytes, pos)?,
            ..Self::default()
        };
        partial.sum.total = float(bytes, pos)?;
        partial.sum.lost = float(bytes, pos)?;
        partial.min = float(bytes, pos)?;
        partial.max = float(bytes, pos)?;
        if parts.has(Parts::ENDS) {
            for end in [&mut partial.first, &mut partial.last] {
                *end = (
                    unzigzag(read_varint(bytes, pos)?),
                    float(bytes, pos)?.to_bits(),
                );
            }
        }
        if parts.has(Parts::INCREASE) {
            partial.grown.0 = read_varint(bytes, pos)?;
            partial.grown.1.total = float(bytes, pos)?;
            partial.grown.1.lost = float(bytes, pos)?;
        }
        if parts.has(Parts::SKETCH) {
            partial.sketch = Some(Box::new(Sketch::decode(bytes, pos)?));
        }
        if parts.has(Parts::DISTINCT) {
            partial.distinct = Some(Box::new(Distinct::decode(bytes, pos)?));
        }
        Some(partial)
    }
}

fn float(bytes: &[u8], pos: &mut usize) -> Option<f64> {
    let bits = bytes.get(*pos..)?.first_chunk::<8>()?;
    *pos += 8;
    Some(f64::from_le_bytes(*bits))
}

/// By time; of one time by value, so that it does not matter who comes first.
fn compare(a: (i64, u64), b: (i64, u64)) -> Ordering {
    let values = || f64::from_bits(a.1).total_cmp(&f64::from_bits(b.1));
    a.0.cmp(&b.0).then_with(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::definition::DAY_MS;
    use crate::runs::runs;
    use crate::span::{Span, Spans};

    const ALL: Parts = Parts(15);

    fn of(samples: &[(i64, f64)], label: &str) -> Partial {
        let times: Vec<i64> = samples.iter().map(|s| s.0).collect();
        let values: Vec<f64> = samples.iter().map(|s| s.1).collect();
        let mut found = Vec::new();
        let all = Spans::of(Span::new(-DAY_MS, DAY_MS));
        runs(&times, &values, DAY_MS, &all, true, &mut found);
        let mut partial = Partial::default();
        for run in &found {
            partial.add(run, &values[run.samples.clone()], ALL, Some(label));
        }
        partial
    }

    #[test]
    fn the_parts_of_a_bucket_have_their_values() {
        let mut whole = of(&[(10, 1.0), (20, 5.0), (30, 2.0)], "a");
        whole.merge(&of(&[(5, -1.0), (30, 4.0)], "b"));
        let expect = [
            (Aggregate::Count, 5.0),
            (Aggregate::Sum, 11.0),
            (Aggregate::Avg, 2.2),
            (Aggregate::Min, -1.0),
            (Aggregate::Max, 5.0),
            (Aggregate::First, -1.0),
            // Of two at one time the greater one.
            (Aggregate::Last, 4.0),
            // 4, then a reset to 2; and 5.
            (Aggregate::Increase, 11.0),
            (Aggregate::Rate, 11.0 / 86_400.0),
            (Aggregate::Distinct, 2.0),
        ];
        for (aggregate, value) in expect {
            assert_eq!(
                whole.value(aggregate, DAY_MS, 0.0),
                Some(value),
                "{aggregate:?}"
            );
        }
        let median = whole.value(Aggregate::Quantile, DAY_MS, 0.5).unwrap();
        assert!((median - 2.0).abs() <= 0.02, "{median}");
        assert_eq!(
            Partial::default().value(Aggregate::Count, DAY_MS, 0.0),
            None
        );
    }

    #[test]
    fn no_number_and_infinities_are_told_as_queries_tell_them() {
        let nan = of(&[(1, f64::NAN), (2, 3.0)], "a");
        let value = |of: &Partial, aggregate| of.value(aggregate, DAY_MS, 0.0).unwrap();
        assert!(value(&nan, Aggregate::Sum).is_nan());
        assert_eq!(value(&nan, Aggregate::Min), 3.0);
        assert_eq!(value(&nan, Aggregate::Max), 3.0);
        let large = of(&[(1, f64::MAX), (2, f64::MAX), (3, f64::INFINITY)], "a");
        assert_eq!(value(&large, Aggregate::Sum), f64::INFINITY);
        let none = of(&[(1, f64::INFINITY), (2, f64::NEG_INFINITY)], "a");
        assert!(value(&none, Aggregate::Sum).is_nan());
    }

    proptest! {
        #[test]
        fn bytes_give_the_same_part_again(
            samples in proptest::collection::btree_map(1i64..1000, any::<f64>(), 1..30), parts in 0u8..16,
        ) {
            let samples: Vec<_> = samples.into_iter().collect();
            let parts = Parts(parts);
            let (mut bytes, mut again, mut pos) = (Vec::new(), Vec::new(), 0);
            of(&samples, "x").encode(&mut bytes, parts);
            let decoded = Partial::decode(&bytes, &mut pos, parts).unwrap();
            prop_assert_eq!(pos, bytes.len());
            decoded.encode(&mut again, parts);
            prop_assert_eq!(&again, &bytes);
            for cut in 0..bytes.len() {
                prop_assert!(Partial::decode(&bytes[..cut], &mut 0, parts).is_none());
            }
        }
    }
}
