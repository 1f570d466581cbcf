//! Rollups: what the samples of a series come to in each bucket of time. Format and definitions:
//! `docs/formats/block.md`, section *Rollups*.
//!
//! A **bucket** of a resolution `r` is `[k · r, (k + 1) · r)` for an integer `k`, before the epoch
//! too. A bucket without samples is not there. Staleness markers are no samples; other NaNs are.
//!
//! Definitions, of the samples of a bucket in order of time:
//! - *count*: how many they are.
//! - *first*, *last*: their values, with their timestamps.
//! - *min*, *max*: begin with the first value; a later one takes its place if it is lower (higher),
//!   or if what stands there is NaN. So NaN remains only where there is nothing else, and of equal
//!   values (0 and −0) the first one stays.
//! - *sum*: compensated as Neumaier does it: `t = sum + v`; the compensation takes up
//!   `(larger − t) + smaller` of `sum` and `v` by magnitude, and becomes 0 where `t` is infinite;
//!   the sum is `sum + compensation`. A sum that is NaN is the NaN `0x7ff8000000000000`.
//! - *resets*: for a counter, the sum of the values that were lost by resets: of each value that is
//!   followed by a lower one. `last − first + resets` is the **increase** within the bucket. Not
//!   kept for a series that falls at more than one of [`COUNTER_STEPS_PER_FALL`] of its steps in
//!   the block: such a series is no counter.
//!
//! A resolution that is a multiple of a finer one in the block is **folded** from it
//! ([`RollupColumns::fold`]) and not stored: count, first, last, min and max are those of the
//! samples; its sum is the compensated sum of the finer sums, and its resets are the finer resets
//! and what was lost between one finer bucket and the next. This holds across blocks too: two runs
//! of buckets put one behind the other fold as one.

mod codec;
#[cfg(test)]
mod tests;

use millrace_log::planted::active;
use millrace_model::is_stale;

pub(super) use codec::{RollupEncoder, decode_times, decode_values};

use crate::planted::{ROLLUP_BUCKET_TRUNCATES, ROLLUP_COUNTS_STALE, ROLLUP_FORGETS_BOUNDARY};

/// A series that falls at more than one of so many steps is no counter.
pub const COUNTER_STEPS_PER_FALL: u64 = 8;

/// Most resolutions of a block.
pub const RESOLUTIONS_MAX: usize = 4;

/// Buckets of one series, as columns of equal length in order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RollupColumns {
    /// Where each bucket begins, in ms since the epoch.
    pub starts: Vec<i64>,
    /// The number of samples.
    pub counts: Vec<u64>,
    /// The timestamp of the first sample.
    pub first_times: Vec<i64>,
    /// The timestamp of the last sample.
    pub last_times: Vec<i64>,
    /// The first value.
    pub firsts: Vec<f64>,
    /// The last value.
    pub lasts: Vec<f64>,
    /// The lowest value.
    pub mins: Vec<f64>,
    /// The highest value.
    pub maxs: Vec<f64>,
    /// The sum of the values.
    pub sums: Vec<f64>,
    /// What was lost by resets. All 0 if that is not known.
    pub resets: Vec<f64>,
    /// Whether `resets` is not known for some of the buckets: the series is no counter there.
    pub no_counter: bool,
}

/// One bucket.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    start: i64,
    count: u64,
    first: (i64, f64),
    last: (i64, f64),
    min: f64,
    max: f64,
    sum: Sum,
    resets: f64,
}

/// A compensated sum.
#[derive(Clone, Copy, Debug)]
struct Sum {
    sum: f64,
    compensation: f64,
}

impl Sum {
    fn of(value: f64) -> Self {
        Self {
            sum: value,
            compensation: 0.0,
        }
    }

    #[inline]
    fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.compensation = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.compensation += (self.sum - total) + value;
        } else {
            self.compensation += (value - total) + self.sum;
        }
        self.sum = total;
    }

    fn total(self) -> f64 {
        if self.sum.is_nan() {
            // Which NaN comes of an addition is up to the processor.
            f64::NAN
        } else if self.compensation == 0.0 {
            // A sum of −0 alone stays what it is.
            self.sum
        } else {
            self.sum + self.compensation
        }
    }
}

/// The lower one, as the definition of *min* has it.
#[inline]
fn lower(min: f64, value: f64) -> f64 {
    if value < min || min.is_nan() {
        value
    } else {
        min
    }
}

#[inline]
fn higher(max: f64, value: f64) -> f64 {
    if value > max || max.is_nan() {
        value
    } else {
        max
    }
}

/// What is lost if `value` follows `before`.
#[inline]
fn lost(before: f64, value: f64) -> f64 {
    if value < before { before } else { 0.0 }
}

impl RollupColumns {
    /// The number of buckets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Forgets the buckets, keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
        self.no_counter = false;
    }

    /// The increase of a counter within bucket `at`: not what it grew by since the bucket before,
    /// for which see [`fold`](Self::fold). `None` if the series is no counter.
    ///
    /// # Panics
    ///
    /// If there is no such bucket.
    #[must_use]
    pub fn increase(&self, at: usize) -> Option<f64> {
        let within = self.lasts[at] - self.firsts[at] + self.resets[at];
        (!self.no_counter).then_some(within)
    }

    /// Appends the buckets of samples that stand in order of time, and lie behind all buckets that
    /// are there. `resolution_ms` is the width of a bucket.
    ///
    /// # Panics
    ///
    /// If the columns are not equally long, or the resolution is not positive.
    pub fn push_samples(&mut self, timestamps: &[i64], values: &[f64], resolution_ms: i64) {
        assert_eq!(timestamps.len(), values.len(), "columns of samples");
        let mut bucket: Option<Bucket> = None;
        let (mut end, mut falls, mut steps) = (i64::MIN, 0u64, 0u64);
        for (&timestamp, &value) in timestamps.iter().zip(values) {
            if is_stale(value) && !active(ROLLUP_COUNTS_STALE) {
                continue;
            }
            if let Some(bucket) = &bucket {
                steps += 1;
                falls += u64::from(value < bucket.last.1);
            }
            match &mut bucket {
                Some(bucket) if timestamp <= end => bucket.push(timestamp, value),
                bucket => {
                    if let Some(full) = bucket.take() {
                        self.push(&full);
                    }
                    let start;
                    (start, end) = bucket_of(timestamp, resolution_ms);
                    *bucket = Some(Bucket::new(start, timestamp, value));
                }
            }
        }
        if let Some(last) = bucket {
            self.push(&last);
        }
        self.note_counter(falls * COUNTER_STEPS_PER_FALL > steps);
    }

    /// Appends to `out` the buckets of a resolution that is a multiple of that of these. If the last
    /// bucket of `out` goes on in these, they are joined.
    ///
    /// # Panics
    ///
    /// If the resolution is not positive.
    pub fn fold(&self, resolution_ms: i64, out: &mut Self) {
        let mut bucket = None;
        for at in 0..self.len() {
            let start = bucket_of(self.starts[at], resolution_ms).0;
            match &mut bucket {
                None => {
                    bucket = Some(match out.starts.last() {
                        Some(&last) if last == start => out.pop(),
                        _ => {
                            bucket = Some(self.bucket(at, start));
                            continue;
                        }
                    });
                }
                Some(open) if open.start == start => {}
                Some(open) => {
                    out.push(open);
                    bucket = Some(self.bucket(at, start));
                    continue;
                }
            }
            if let Some(open) = &mut bucket {
                open.join(&self.bucket(at, start));
            }
        }
        if let Some(last) = &bucket {
            out.push(last);
        }
        out.note_counter(self.no_counter);
    }

    /// Appends the buckets of `other` that are in a bucket of `resolution_ms` that overlaps
    /// `[start, end]`. They lie behind all that are there.
    pub(super) fn push_range(
        &mut self,
        other: &Self,
        resolution_ms: i64,
        (start, end): (i64, i64),
    ) {
        let from = other
            .starts
            .partition_point(|&s| bucket_of(s, resolution_ms).1 < start);
        let to = other
            .starts
            .partition_point(|&s| bucket_of(s, resolution_ms).0 <= end);
        let Some(range) = (from < to).then_some(from..to) else {
            return;
        };
        self.starts.extend_from_slice(&other.starts[range.clone()]);
        self.counts.extend_from_slice(&other.counts[range.clone()]);
        self.first_times
            .extend_from_slice(&other.first_times[range.clone()]);
        self.last_times
            .extend_from_slice(&other.last_times[range.clone()]);
        self.firsts.extend_from_slice(&other.firsts[range.clone()]);
        self.lasts.extend_from_slice(&other.lasts[range.clone()]);
        self.mins.extend_from_slice(&other.mins[range.clone()]);
        self.maxs.extend_from_slice(&other.maxs[range.clone()]);
        self.sums.extend_from_slice(&other.sums[range.clone()]);
        self.resets.extend_from_slice(&other.resets[range]);
        self.note_counter(other.no_counter);
    }

    /// Whether all bits are the same: equality that NaN does not spoil.
    #[must_use]
    pub fn same_bits(&self, other: &Self) -> bool {
        let bits = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        (&self.starts, &self.counts, self.no_counter)
            == (&other.starts, &other.counts, other.no_counter)
            && (&self.first_times, &self.last_times) == (&other.first_times, &other.last_times)
            && bits(&self.firsts, &other.firsts)
            && bits(&self.lasts, &other.lasts)
            && bits(&self.mins, &other.mins)
            && bits(&self.maxs, &other.maxs)
            && bits(&self.sums, &other.sums)
            && bits(&self.resets, &other.resets)
    }

    /// Removes the buckets of which `keep`, told the first and the last timestamp of their samples,
    /// does not say that they stay. Whether there are any.
    pub(crate) fn retain(&mut self, keep: impl Fn(i64, i64) -> bool) -> bool {
        let ends = self.first_times.iter().zip(&self.last_times);
        let stays: Vec<bool> = ends.map(|(&first, &last)| keep(first, last)).collect();
        if stays.iter().all(|&stays| stays) {
            return false;
        }
        fn filter<T>(column: &mut Vec<T>, stays: &[bool]) {
            let mut stays = stays.iter();
            column.retain(|_| stays.next().is_some_and(|&stays| stays));
        }
        filter(&mut self.starts, &stays);
        filter(&mut self.counts, &stays);
        filter(&mut self.first_times, &stays);
        filter(&mut self.last_times, &stays);
        for column in [
            &mut self.firsts,
            &mut self.lasts,
            &mut self.mins,
            &mut self.maxs,
            &mut self.sums,
            &mut self.resets,
        ] {
            filter(column, &stays);
        }
        true
    }

    fn note_counter(&mut self, no_counter: bool) {
        self.no_counter |= no_counter;
        if self.no_counter {
            self.resets.fill(0.0);
        }
    }

    fn push(&mut self, bucket: &Bucket) {
        self.starts.push(bucket.start);
        self.counts.push(bucket.count);
        self.first_times.push(bucket.first.0);
        self.last_times.push(bucket.last.0);
        self.firsts.push(bucket.first.1);
        self.lasts.push(bucket.last.1);
        self.mins.push(bucket.min);
        self.maxs.push(bucket.max);
        self.sums.push(bucket.sum.total());
        self.resets.push(bucket.resets);
    }

    /// Bucket `at`, as one that begins at `start`.
    fn bucket(&self, at: usize, start: i64) -> Bucket {
        Bucket {
            start,
            count: self.counts[at],
            first: (self.first_times[at], self.firsts[at]),
            last: (self.last_times[at], self.lasts[at]),
            min: self.mins[at],
            max: self.maxs[at],
            sum: Sum::of(self.sums[at]),
            resets: self.resets[at],
        }
    }

    fn pop(&mut self) -> Bucket {
        let last = self.len() - 1;
        let bucket = self.bucket(last, self.starts[last]);
        self.truncate(last);
        bucket
    }

    fn truncate(&mut self, len: usize) {
        self.starts.truncate(len);
        self.counts.truncate(len);
        self.first_times.truncate(len);
        self.last_times.truncate(len);
        self.firsts.truncate(len);
        self.lasts.truncate(len);
        self.mins.truncate(len);
        self.maxs.truncate(len);
        self.sums.truncate(len);
        self.resets.truncate(len);
    }
}

impl Bucket {
    fn new(start: i64, timestamp: i64, value: f64) -> Self {
        Self {
            start,
            count: 1,
            first: (timestamp, value),
            last: (timestamp, value),
            min: value,
            max: value,
            sum: Sum::of(value),
            resets: 0.0,
        }
    }

    #[inline]
    fn push(&mut self, timestamp: i64, value: f64) {
        self.count += 1;
        self.resets += lost(self.last.1, value);
        self.last = (timestamp, value);
        self.min = lower(self.min, value);
        self.max = higher(self.max, value);
        self.sum.add(value);
    }

    /// Takes up the bucket behind.
    fn join(&mut self, next: &Self) {
        self.count += next.count;
        if !active(ROLLUP_FORGETS_BOUNDARY) {
            self.resets += lost(self.last.1, next.first.1);
        }
        self.resets += next.resets;
        self.last = next.last;
        self.min = lower(self.min, next.min);
        self.max = higher(self.max, next.max);
        self.sum.add(next.sum.sum);
    }
}

/// First and last moment of the bucket of a moment; at the ends of the time line, of what there is
/// of it.
fn bucket_of(timestamp: i64, resolution_ms: i64) -> (i64, i64) {
    let mut number = timestamp.div_euclid(resolution_ms);
    if active(ROLLUP_BUCKET_TRUNCATES) {
        number = timestamp / resolution_ms;
    }
    bucket_at(number, resolution_ms)
}

/// First and last moment of a bucket.
fn bucket_at(number: i64, resolution_ms: i64) -> (i64, i64) {
    let start = number.saturating_mul(resolution_ms);
    let end = i128::from(number) * i128::from(resolution_ms) + i128::from(resolution_ms - 1);
    (start, i64::try_from(end).unwrap_or(i64::MAX))
}

/// Of resolutions, those that have to be stored: the others are multiples of one of them.
pub(super) fn stored_resolutions(all: &[i64]) -> Vec<i64> {
    let stored = without_multiples(all);
    assert!(
        stored.len() <= RESOLUTIONS_MAX,
        "rollups of {} resolutions of which none is a multiple of another",
        stored.len()
    );
    stored
}

/// Of resolutions, those that are no multiple of another, the finest first.
pub(crate) fn without_multiples(all: &[i64]) -> Vec<i64> {
    let mut all = all.to_vec();
    all.sort_unstable();
    all.dedup();
    let mut stored: Vec<i64> = Vec::new();
    for resolution in all {
        assert!(resolution > 0, "a rollup resolution of {resolution} ms");
        if stored.iter().all(|finer| resolution % finer != 0) {
            stored.push(resolution);
        }
    }
    stored
}
