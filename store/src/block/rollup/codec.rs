//! Buckets as bytes: times and values apart, because series that are sampled together share the
//! times.
//!
//! Values become integers as in a value column (decimals of one exponent, or ordered bits), and of
//! the four that lie close together only the first is written as it is: the last by how far it is
//! from the next bucket's first, the lowest and the highest by how far they are outside of first
//! and last, the sum by how far it is from count times the middle between first and last.

use millrace_model::write_varint;

use super::{RollupColumns, bucket_at, bucket_of};
use crate::block::columns::{
    Input, IntegerEncoder, ValueEncoder, as_decimals, as_decimals_of, as_ordered, from_decimals,
    from_ordered, read_integers, read_values,
};

/// Buckets of one run: longer series have several. Bounds what a damaged count can reserve.
const RUN_MAX: usize = 65_536;

/// Head: the values are decimals; below it the exponent. Otherwise their ordered bits.
const DECIMALS: u8 = 0x80;
const NO_COUNTER: u8 = 0x40;
const EXPONENT_MASK: u8 = 0x0f;

/// Columns that are not all zero and so are there.
const LASTS: u8 = 1;
const MINS: u8 = 2;
const MAXS: u8 = 4;
/// The sums are written as what they differ from their estimates by; otherwise as a value column.
const SUMS_ESTIMATED: u8 = 8;
const SUMS: u8 = 16;
const RESETS: u8 = 32;

/// Encodes buckets; keeps its memory.
#[derive(Debug, Default)]
pub(in crate::block) struct RollupEncoder {
    integers: IntegerEncoder,
    values: ValueEncoder,
    /// All values by which the buckets' exponent is found.
    all: Vec<f64>,
    numbers: Vec<i64>,
    column: Vec<i64>,
    sums: Vec<i64>,
}

impl RollupEncoder {
    /// Appends the times of the buckets to `times`, and the rest to `values`.
    pub(in crate::block) fn encode(
        &mut self,
        columns: &RollupColumns,
        resolution_ms: i64,
        times: &mut Vec<u8>,
        values: &mut Vec<u8>,
    ) {
        let mut from = 0;
        while from < columns.len() {
            let to = columns.len().min(from + RUN_MAX);
            self.encode_times(columns, resolution_ms, from..to, times);
            self.encode_values(columns, from..to, values);
            from = to;
        }
    }

    fn encode_times(
        &mut self,
        columns: &RollupColumns,
        resolution_ms: i64,
        run: std::ops::Range<usize>,
        out: &mut Vec<u8>,
    ) {
        write_varint(out, run.len() as u64);
        let column = &mut self.column;
        let starts = &columns.starts[run.clone()];
        fill(column, starts, |s| s.div_euclid(resolution_ms));
        self.integers.encode(column, out);
        fill(column, &columns.counts[run.clone()], |c| c as i64);
        self.integers.encode(column, out);
        for times in [&columns.first_times, &columns.last_times] {
            column.clear();
            let offsets = times[run.clone()].iter().zip(starts);
            column.extend(offsets.map(|(time, start)| time.wrapping_sub(*start)));
            self.integers.encode(column, out);
        }
    }

    fn encode_values(
        &mut self,
        columns: &RollupColumns,
        run: std::ops::Range<usize>,
        out: &mut Vec<u8>,
    ) {
        let n = run.len();
        self.all.clear();
        for column in [
            &columns.firsts,
            &columns.lasts,
            &columns.mins,
            &columns.maxs,
        ] {
            self.all.extend_from_slice(&column[run.clone()]);
        }
        let exponent = as_decimals(&self.all, &mut self.numbers);
        if exponent.is_none() {
            as_ordered(&self.all, &mut self.numbers);
        }
        let (firsts, rest) = self.numbers.split_at_mut(n);
        let (lasts, rest) = rest.split_at_mut(n);
        let (mins, maxs) = rest.split_at_mut(n);
        let counts = &columns.counts[run.clone()];
        let sums = &columns.sums[run.clone()];
        let estimated = exponent.is_some_and(|e| as_decimals_of(sums, e, &mut self.sums));
        for i in 0..n {
            let (first, last) = (firsts[i], lasts[i]);
            if estimated {
                self.sums[i] = self.sums[i].wrapping_sub(estimate(counts[i], first, last));
            }
            mins[i] = first.min(last).wrapping_sub(mins[i]);
            maxs[i] = maxs[i].wrapping_sub(first.max(last));
        }
        for i in 0..n {
            let near = firsts.get(i + 1).unwrap_or(&firsts[i]);
            lasts[i] = lasts[i].wrapping_sub(*near);
        }
        let resets = &columns.resets[run];
        let mut mask = 0;
        let optional = [(LASTS, &*lasts), (MINS, &*mins), (MAXS, &*maxs)];
        for (bit, column) in optional {
            mask |= if column.iter().any(|&v| v != 0) {
                bit
            } else {
                0
            };
        }
        if estimated {
            mask |= SUMS_ESTIMATED;
        }
        if !estimated || self.sums.iter().any(|&v| v != 0) {
            mask |= SUMS;
        }
        if !columns.no_counter && resets.iter().any(|v| v.to_bits() != 0) {
            mask |= RESETS;
        }
        let no_counter = if columns.no_counter { NO_COUNTER } else { 0 };
        // An exponent is at most 15.
        out.push(exponent.map_or(0, |e| DECIMALS | e as u8) | no_counter);
        out.push(mask);
        self.integers.encode(firsts, out);
        for (bit, column) in optional {
            if mask & bit != 0 {
                self.integers.encode(column, out);
            }
        }
        if !estimated {
            self.values.encode(sums, &mut self.integers, out);
        } else if mask & SUMS != 0 {
            self.integers.encode(&self.sums, out);
        }
        if mask & RESETS != 0 {
            self.values.encode(resets, &mut self.integers, out);
        }
    }
}

fn fill<T: Copy>(column: &mut Vec<i64>, of: &[T], map: impl Fn(T) -> i64) {
    column.clear();
    column.extend(of.iter().map(|&v| map(v)));
}

/// What the sum of `count` values from `first` to `last` may be.
fn estimate(count: u64, first: i64, last: i64) -> i64 {
    first.wrapping_add(last).wrapping_mul(count as i64) >> 1
}

type Broken = &'static str;

/// Reads the times of all runs: replaces the buckets of `out` by ones without values.
pub(in crate::block) fn decode_times(
    bytes: &[u8],
    resolution_ms: i64,
    out: &mut RollupColumns,
) -> Result<(), (usize, Broken)> {
    let mut input = Input::new(bytes);
    out.clear();
    let decoded = (|| {
        while !input.is_at_end() {
            take_times(&mut input, resolution_ms, out)?;
        }
        Ok(())
    })();
    decoded.map_err(|what| (input.pos(), what))
}

fn take_times(
    input: &mut Input<'_>,
    resolution_ms: i64,
    out: &mut RollupColumns,
) -> Result<(), Broken> {
    let count = input.varint()?;
    let count = usize::try_from(count).ok();
    let n = count.filter(|n| (1..=RUN_MAX).contains(n));
    let n = n.ok_or("number of buckets")?;
    let from = out.len();
    let mut column = vec![0i64; n];
    read_integers(input, &mut column)?;
    let start = |&number: &i64| bucket_at(number, resolution_ms).0;
    out.starts.extend(column.iter().map(start));
    let before = from.saturating_sub(1);
    if !out.starts[before..].is_sorted_by(|a, b| a < b) {
        return Err("buckets are not in order of time");
    }
    read_integers(input, &mut column)?;
    if column.iter().any(|&c| c < 1) {
        return Err("a bucket without samples");
    }
    out.counts.extend(column.iter().map(|&c| c as u64));
    for times in [&mut out.first_times, &mut out.last_times] {
        read_integers(input, &mut column)?;
        let offsets = column.iter().zip(&out.starts[from..]);
        times.extend(offsets.map(|(offset, start)| start.wrapping_add(*offset)));
    }
    let ordered = out.first_times[from..].iter().zip(&out.last_times[from..]);
    for ((first, last), start) in ordered.zip(&out.starts[from..]) {
        let end = bucket_of(*start, resolution_ms).1;
        if first < start || last < first || end < *last {
            return Err("a sample outside of its bucket");
        }
    }
    Ok(())
}

/// Reads the values of the buckets whose times are in `out`.
pub(in crate::block) fn decode_values(
    bytes: &[u8],
    out: &mut RollupColumns,
) -> Result<(), (usize, Broken)> {
    let mut input = Input::new(bytes);
    let decoded = (|| {
        let mut from = 0;
        while from < out.len() {
            let n = (out.len() - from).min(RUN_MAX);
            take_values(&mut input, from, n, out)?;
            from += n;
        }
        if input.is_at_end() {
            Ok(())
        } else {
            Err("bytes behind the last bucket")
        }
    })();
    decoded.map_err(|what| (input.pos(), what))
}

fn take_values(
    input: &mut Input<'_>,
    from: usize,
    n: usize,
    out: &mut RollupColumns,
) -> Result<(), Broken> {
    let (head, mask) = (input.u8()?, input.u8()?);
    let known = LASTS | MINS | MAXS | SUMS_ESTIMATED | SUMS | RESETS;
    if head & !(DECIMALS | NO_COUNTER | EXPONENT_MASK) != 0 || mask & !known != 0 {
        return Err("an unknown kind of rollup");
    }
    let exponent = (head & DECIMALS != 0).then_some(usize::from(head & EXPONENT_MASK));
    let mut numbers = vec![0i64; 4 * n];
    read_integers(input, &mut numbers[..n])?;
    for (i, bit) in [LASTS, MINS, MAXS].into_iter().enumerate() {
        if mask & bit != 0 {
            read_integers(input, &mut numbers[(i + 1) * n..(i + 2) * n])?;
        }
    }
    let mut sums = vec![0i64; n];
    if mask & SUMS_ESTIMATED == 0 {
        if mask & SUMS == 0 {
            return Err("sums without a column");
        }
        let at = out.sums.len();
        out.sums.resize(at + n, 0.0);
        read_values(input, &mut out.sums[at..])?;
    } else if mask & SUMS != 0 {
        read_integers(input, &mut sums)?;
    }
    let (firsts, rest) = numbers.split_at_mut(n);
    let (lasts, rest) = rest.split_at_mut(n);
    let (mins, maxs) = rest.split_at_mut(n);
    for i in 0..n {
        let near = firsts.get(i + 1).unwrap_or(&firsts[i]);
        lasts[i] = lasts[i].wrapping_add(*near);
        let (first, last) = (firsts[i], lasts[i]);
        mins[i] = first.min(last).wrapping_sub(mins[i]);
        maxs[i] = first.max(last).wrapping_add(maxs[i]);
        sums[i] = sums[i].wrapping_add(estimate(out.counts[from + i], first, last));
    }
    let floats = |numbers: &[i64], column: &mut Vec<f64>| match exponent {
        Some(exponent) => from_decimals(numbers, exponent, column),
        None => from_ordered(numbers, column),
    };
    floats(firsts, &mut out.firsts);
    floats(lasts, &mut out.lasts);
    floats(mins, &mut out.mins);
    floats(maxs, &mut out.maxs);
    if mask & SUMS_ESTIMATED != 0 {
        floats(&sums, &mut out.sums);
    }
    let at = out.resets.len();
    out.resets.resize(at + n, 0.0);
    if mask & RESETS != 0 {
        read_values(input, &mut out.resets[at..])?;
    }
    if head & NO_COUNTER != 0 {
        out.no_counter = true;
        out.resets[at..].fill(0.0);
    }
    Ok(())
}
