//! Value columns: floats as decimals where they are, as ordered bits where they are not.

use std::cell::Cell;

use millrace_model::write_varint;

use super::Input;
use super::integers::{self, IntegerEncoder};

/// The head of a column of ordered bits. Below it: the exponent, and two flags.
const BITS: u8 = 0x80;
const EXPONENT_MASK: u8 = 0x0f;
/// There is a column of corrections.
const CORRECTED: u8 = 0x10;
/// There are values that are no decimals.
const EXCEPTIONS: u8 = 0x20;

/// Powers of ten, all exact.
const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Mantissas stay below: adding and subtracting [`ROUNDER`] rounds up to there.
const MANTISSA_MAX: f64 = (1u64 << 51) as f64;
/// 1.5 · 2^52: what is added to it loses its fraction. Needs no instruction that older processors
/// lack.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
/// Below this a mantissa may be off by [`CORRECTION_MAX`]: such numbers come of a multiplication by
/// 0.001 and the like.
const CORRECTED_MAX: f64 = (1u64 << 45) as f64;
/// In units of the last place.
const CORRECTION_MAX: i64 = 2;

/// The exponent is chosen by so many values.
const PROBES: usize = 32;

/// Encodes columns; keeps its memory.
#[derive(Debug, Default)]
pub(in crate::block) struct ValueEncoder {
    mantissas: Vec<i64>,
    corrections: Vec<i64>,
    exceptions: Vec<(usize, u64)>,
    bits: Vec<u8>,
}

/// A float as a decimal.
#[derive(Clone, Copy, Debug)]
struct Decimal {
    mantissa: i64,
    /// What the bits of the float are above those of the quotient.
    off: i64,
    /// Whether it is one.
    fits: bool,
}

impl Decimal {
    /// Without a branch, so that a column of them goes through the vector unit.
    #[inline(always)]
    fn of(value: f64, power: f64) -> Self {
        let scaled = value * power;
        let shifted = scaled + ROUNDER;
        let rounded = shifted - ROUNDER;
        let off = value.to_bits().wrapping_sub((rounded / power).to_bits()) as i64;
        let near = (off.wrapping_add(CORRECTION_MAX) as u64) <= 2 * CORRECTION_MAX as u64;
        let small = rounded.abs() < CORRECTED_MAX;
        Self {
            // Up there neighbouring floats are one apart.
            mantissa: shifted.to_bits().wrapping_sub(ROUNDER.to_bits()) as i64,
            off,
            // False for NaN.
            fits: (scaled.abs() < MANTISSA_MAX) & ((off == 0) | (near & small)),
        }
    }
}

impl ValueEncoder {
    /// Appends a column of at least one value.
    pub(in crate::block) fn encode(
        &mut self,
        values: &[f64],
        integers: &mut IntegerEncoder,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        let decimals = self.split_at_some_exponent(values);
        if let Some(exponent) = decimals {
            self.put_decimals(exponent, integers, out);
            // Under half of the raw size there is nothing to gain by bits.
            if out.len() - start <= values.len() * 4 {
                return;
            }
        }
        self.mantissas.clear();
        let bits = values.iter().map(|v| ordered(v.to_bits()));
        self.mantissas.extend(bits);
        self.bits.clear();
        self.bits.push(BITS);
        integers.encode(&self.mantissas, &mut self.bits);
        if decimals.is_none() || self.bits.len() < out.len() - start {
            out.truncate(start);
            out.extend_from_slice(&self.bits);
        }
    }

    fn split_at_some_exponent(&mut self, values: &[f64]) -> Option<usize> {
        let exponent = probe(values)?;
        if self.split(values, exponent) {
            return Some(exponent);
        }
        // Values between the probes may have more digits than they.
        let exponent = widen(values, exponent);
        self.split(values, exponent).then_some(exponent)
    }

    /// Splits values into mantissas, corrections and exceptions. False if there are too many of the
    /// last.
    fn split(&mut self, values: &[f64], exponent: usize) -> bool {
        self.mantissas.resize(values.len(), 0);
        self.corrections.resize(values.len(), 0);
        self.exceptions.clear();
        let power = POWERS[exponent];
        let mut all_fit = true;
        let columns = self.mantissas.iter_mut().zip(&mut self.corrections);
        for (&value, (mantissa, correction)) in values.iter().zip(columns) {
            let decimal = Decimal::of(value, power);
            (*mantissa, *correction) = (decimal.mantissa, decimal.off);
            all_fit &= decimal.fits;
        }
        all_fit || self.take_exceptions(values, power)
    }

    /// Moves what is no decimal out of the columns. False if that is too much.
    #[cold]
    fn take_exceptions(&mut self, values: &[f64], power: f64) -> bool {
        // A staleness marker in a short chunk is no reason to give up.
        let most = (values.len() / 8 + 1).min(values.len() - 1);
        for (at, &value) in values.iter().enumerate() {
            if Decimal::of(value, power).fits {
                continue;
            }
            if self.exceptions.len() == most {
                return false;
            }
            self.exceptions.push((at, value.to_bits()));
            // What costs least beside its neighbour.
            let before = at.checked_sub(1).map_or(0, |at| self.mantissas[at]);
            (self.mantissas[at], self.corrections[at]) = (before, 0);
        }
        true
    }

    fn put_decimals(&mut self, exponent: usize, integers: &mut IntegerEncoder, out: &mut Vec<u8>) {
        let corrected = self.corrections.iter().any(|&off| off != 0);
        let mut head = exponent as u8;
        if corrected {
            head |= CORRECTED;
        }
        if !self.exceptions.is_empty() {
            head |= EXCEPTIONS;
        }
        out.push(head);
        // The column begins with a decimal, so that it is not spoiled by an exception there.
        if let Some(&(0, _)) = self.exceptions.first() {
            let run = self
                .exceptions
                .iter()
                .enumerate()
                .take_while(|(i, e)| *i == e.0)
                .count();
            let first = self.mantissas[run];
            self.mantissas[..run].fill(first);
        }
        if !self.exceptions.is_empty() {
            write_varint(out, self.exceptions.len() as u64);
            let mut next = 0;
            for &(at, bits) in &self.exceptions {
                write_varint(out, (at - next) as u64);
                out.extend_from_slice(&bits.to_le_bytes());
                next = at + 1;
            }
        }
        integers.encode(&self.mantissas, out);
        if corrected {
            integers.encode(&self.corrections, out);
        }
    }
}

/// The smallest exponent from `from` on with which a value is a decimal.
fn exponent_of(value: f64, from: usize) -> Option<usize> {
    (from..POWERS.len()).find(|&e| Decimal::of(value, POWERS[e]).fits)
}

/// The smallest exponent with which some probes are decimals; `None` if many are not with any.
fn probe(values: &[f64]) -> Option<usize> {
    let (mut exponent, mut probes, mut failed) = (0, 0, 0);
    for &value in values.iter().step_by(values.len().div_ceil(PROBES)) {
        probes += 1;
        match exponent_of(value, exponent) {
            Some(found) => exponent = found,
            None => failed += 1,
        }
        // Columns of full-precision floats are known by their first values.
        if failed > PROBES / 4 {
            return None;
        }
    }
    (failed * 4 <= probes).then_some(exponent)
}

/// The smallest exponent with which all values are decimals that are with any.
fn widen(values: &[f64], from: usize) -> usize {
    let wider = |exponent, &value: &f64| exponent_of(value, exponent).unwrap_or(exponent);
    values.iter().fold(from, wider)
}

/// Maps the bits of floats to integers in the order of the floats, and back.
#[inline]
fn ordered(bits: u64) -> i64 {
    let bits = bits as i64;
    // A negative float is the lower the higher its other bits are.
    bits ^ ((bits >> 63) & i64::MAX)
}

/// The exponent with which all values are decimals without a correction, and their mantissas.
pub(in crate::block) fn as_decimals(values: &[f64], out: &mut Vec<i64>) -> Option<usize> {
    let exponent = widen(values, probe(values)?);
    as_decimals_of(values, exponent, out).then_some(exponent)
}

/// The mantissas of values; false unless all of them are decimals of that exponent.
pub(in crate::block) fn as_decimals_of(
    values: &[f64],
    exponent: usize,
    out: &mut Vec<i64>,
) -> bool {
    out.clear();
    let mut all_fit = true;
    out.extend(values.iter().map(|&value| {
        let decimal = Decimal::of(value, POWERS[exponent]);
        all_fit &= decimal.fits & (decimal.off == 0);
        decimal.mantissa
    }));
    all_fit
}

/// Appends the values of mantissas.
pub(in crate::block) fn from_decimals(mantissas: &[i64], exponent: usize, out: &mut Vec<f64>) {
    let start = out.len();
    out.resize(start + mantissas.len(), 0.0);
    let power = POWERS[exponent];
    to_floats(mantissas, &mut out[start..], |mantissa| mantissa / power);
}

/// Values as integers of the same order.
pub(in crate::block) fn as_ordered(values: &[f64], out: &mut Vec<i64>) {
    out.clear();
    out.extend(values.iter().map(|v| ordered(v.to_bits())));
}

/// Appends the values of such integers.
pub(in crate::block) fn from_ordered(numbers: &[i64], out: &mut Vec<f64>) {
    let bits = numbers.iter().map(|&n| ordered(n as u64) as u64);
    out.extend(bits.map(f64::from_bits));
}

/// Reads a column of as many values as `out` is long.
pub(in crate::block) fn decode(input: &mut Input<'_>, out: &mut [f64]) -> Result<(), &'static str> {
    thread_local! {
        static NUMBERS: Cell<Vec<i64>> = const { Cell::new(Vec::new()) };
    }
    let mut numbers = NUMBERS.take();
    // What is left over of the column before is written over.
    if numbers.len() < out.len() {
        numbers.resize(out.len(), 0);
    }
    let decoded = decode_with(input, &mut numbers[..out.len()], out);
    NUMBERS.set(numbers);
    decoded
}

fn decode_with(
    input: &mut Input<'_>,
    numbers: &mut [i64],
    out: &mut [f64],
) -> Result<(), &'static str> {
    let head = input.u8()?;
    if head == BITS {
        integers::decode(input, numbers)?;
        for (value, &number) in out.iter_mut().zip(&*numbers) {
            *value = f64::from_bits(ordered(number as u64) as u64);
        }
        return Ok(());
    }
    if head & !(EXPONENT_MASK | CORRECTED | EXCEPTIONS) != 0 {
        return Err("an unknown kind of value column");
    }
    let power = POWERS[usize::from(head & EXPONENT_MASK)];
    let mut exceptions = Vec::new();
    if head & EXCEPTIONS != 0 {
        read_exceptions(input, out.len(), &mut exceptions)?;
    }
    let constant = integers::decode(input, numbers)?;
    if constant {
        // One division for all: two of three series of a node stand still.
        to_floats(&numbers[..1], &mut out[..1], |mantissa| mantissa / power);
        let value = out[0];
        out.fill(value);
    } else if power == 1.0 {
        // A division by one would change nothing, and takes as long as all the rest.
        to_floats(numbers, out, |mantissa| mantissa);
    } else {
        to_floats(numbers, out, |mantissa| mantissa / power);
    }
    if head & CORRECTED != 0 {
        integers::decode(input, numbers)?;
        for (value, &off) in out.iter_mut().zip(&*numbers) {
            *value = f64::from_bits(value.to_bits().wrapping_add(off as u64));
        }
    }
    for (at, value) in exceptions {
        out[at] = value;
    }
    Ok(())
}

/// Mantissas to floats, by the way that they came. Those that no writer writes, of 52 bits and
/// more, become anything.
#[inline(always)]
fn to_floats(mantissas: &[i64], out: &mut [f64], quotient: impl Fn(f64) -> f64) {
    for (value, &mantissa) in out.iter_mut().zip(mantissas) {
        let shifted = ROUNDER.to_bits().wrapping_add(mantissa as u64);
        *value = quotient(f64::from_bits(shifted) - ROUNDER);
    }
}

fn read_exceptions(
    input: &mut Input<'_>,
    count: usize,
    exceptions: &mut Vec<(usize, f64)>,
) -> Result<(), &'static str> {
    let mut next = 0usize;
    for _ in 0..input.varint()? {
        let gap = usize::try_from(input.varint()?).map_err(|_| "an exception behind the end")?;
        let at = next.checked_add(gap).filter(|&at| at < count);
        let at = at.ok_or("an exception behind the end")?;
        let bits = input.take(8)?.try_into().map_err(|_| "cut short")?;
        exceptions.push((at, f64::from_bits(u64::from_le_bytes(bits))));
        next = at + 1;
    }
    Ok(())
}
