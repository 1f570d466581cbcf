//! The samples of one piece of a series as two columns.
//!
//! Made to be cheap for both sides rather than as small as can be: between processes of one data
//! centre a processor's second is dearer than a gigabyte. Numbers are less their least one, in as
//! many whole bytes as the greatest needs; values are decimals where all but a few are.

use millrace_model::{write_varint, zigzag};

use super::{Input, WireError};

/// Most samples of one piece: bounds what a damaged count can reserve.
pub const PIECE_SAMPLES_MAX: usize = 65_536;

/// All values have the bits of the one that follows.
const CONSTANT: u8 = 0;
/// The values as they are.
const RAW: u8 = 1;
/// Whole numbers over a power of ten.
const DECIMAL: u8 = 2;

/// Whole numbers less the least one.
const PLAIN: u8 = 0;
/// The first number, then the differences less the least one.
const DIFFERENCES: u8 = 1;

const POWERS: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Whole numbers up to here are exact in a float.
const EXACT_MAX: i64 = 1 << 53;

/// One value in so many may be no decimal.
const EXCEPTION_SHARE: usize = 16;

/// Values that are looked at to find the power of ten.
const PROBES: usize = 8;

/// Appends the timestamps, which must grow strictly.
///
/// # Panics
///
/// If there is none, or more than [`PIECE_SAMPLES_MAX`].
pub fn encode_timestamps(timestamps: &[i64], out: &mut Vec<u8>) {
    assert!(
        (1..=PIECE_SAMPLES_MAX).contains(&timestamps.len()),
        "samples of a piece"
    );
    write_varint(out, zigzag(timestamps[0]));
    let Some((least, greatest)) = steps(timestamps) else {
        return;
    };
    write_varint(out, least);
    let deltas = timestamps
        .windows(2)
        .map(|pair| (pair[1].wrapping_sub(pair[0]) as u64).wrapping_sub(least));
    pack(deltas, greatest - least, out);
}

/// The least and the greatest distance between neighbours; `None` of a single timestamp.
pub(crate) fn steps(timestamps: &[i64]) -> Option<(u64, u64)> {
    let deltas = timestamps
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]) as u64);
    deltas.fold(None, |ends, delta| {
        let (least, greatest) = ends.unwrap_or((delta, delta));
        Some((least.min(delta), greatest.max(delta)))
    })
}

/// Appends the `count` timestamps of a column.
///
/// # Errors
///
/// Bytes that are no such column, or timestamps that do not grow.
pub fn decode_timestamps(bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<(), WireError> {
    let what = "timestamps";
    let invalid = WireError::Invalid { what };
    if !(1..=PIECE_SAMPLES_MAX).contains(&count) {
        return Err(invalid);
    }
    let mut input = Input::new(bytes);
    let mut last = input.zigzag(what)?;
    out.push(last);
    if count > 1 {
        let least = input.varint(what)?;
        if least == 0 {
            return Err(invalid);
        }
        out.reserve(count - 1);
        let mut grows = true;
        unpack(&mut input, count - 1, what, |more| {
            let (delta, wrapped) = least.overflowing_add(more);
            let next = last.checked_add_unsigned(delta);
            grows &= !wrapped && next.is_some();
            last = next.unwrap_or(last);
            out.push(last);
        })?;
        if !grows {
            return Err(invalid);
        }
    }
    if input.is_empty() {
        Ok(())
    } else {
        Err(invalid)
    }
}

/// Encodes values; keeps its memory from one column to the next.
#[derive(Debug, Default)]
pub struct ValueEncoder {
    mantissas: Vec<i64>,
    exceptions: Vec<(usize, u64)>,
}

impl ValueEncoder {
    /// Appends the values, of which there must be at least one and at most [`PIECE_SAMPLES_MAX`].
    ///
    /// # Panics
    ///
    /// On other numbers of values.
    pub fn encode(&mut self, values: &[f64], out: &mut Vec<u8>) {
        assert!(
            (1..=PIECE_SAMPLES_MAX).contains(&values.len()),
            "samples of a piece"
        );
        let first = values[0].to_bits();
        if values.iter().all(|value| value.to_bits() == first) {
            out.push(CONSTANT);
            out.extend_from_slice(&first.to_le_bytes());
        } else if let Some(exponent) = self.decimals(values) {
            self.encode_decimals(exponent, out);
        } else {
            out.push(RAW);
            out.reserve(values.len() * 8);
            for value in values {
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
    }

    /// Finds the power of ten that makes all but a few of the values whole, and makes them so.
    fn decimals(&mut self, values: &[f64]) -> Option<u8> {
        let probes = values.iter().filter(|value| value.is_finite()).take(PROBES);
        let mut exponent = 0;
        for value in probes {
            while mantissa(*value, exponent).is_none() {
                exponent += 1;
                if exponent == POWERS.len() {
                    return None;
                }
            }
        }
        (exponent..POWERS.len())
            .find(|exponent| self.all_decimals(values, *exponent))
            .map(|exponent| exponent as u8)
    }

    fn all_decimals(&mut self, values: &[f64], exponent: usize) -> bool {
        self.mantissas.clear();
        self.exceptions.clear();
        let mut last = 0;
        for (index, value) in values.iter().enumerate() {
            match mantissa(*value, exponent) {
                Some(mantissa) => last = mantissa,
                None if self.exceptions.len() >= values.len() / EXCEPTION_SHARE => return false,
                None => self.exceptions.push((index, value.to_bits())),
            }
            self.mantissas.push(last);
        }
        true
    }

    fn encode_decimals(&self, exponent: u8, out: &mut Vec<u8>) {
        out.push(DECIMAL);
        out.push(exponent);
        write_varint(out, self.exceptions.len() as u64);
        let mut next = 0;
        for (index, bits) in &self.exceptions {
            write_varint(out, (index - next) as u64);
            out.extend_from_slice(&bits.to_le_bytes());
            next = index + 1;
        }
        let numbers = &self.mantissas;
        let (least, greatest) = ends(numbers.iter().copied());
        let differences = || numbers.windows(2).map(|pair| pair[1] - pair[0]);
        let (least_step, greatest_step) = ends(differences());
        // No overflow: mantissas are within 53 bits.
        let (plain, stepped) = (
            (greatest - least) as u64,
            greatest_step.wrapping_sub(least_step) as u64,
        );
        if numbers.len() == 1 || width(plain) <= width(stepped) {
            out.push(PLAIN);
            write_varint(out, zigzag(least));
            pack(numbers.iter().map(|n| (n - least) as u64), plain, out);
        } else {
            out.push(DIFFERENCES);
            write_varint(out, zigzag(numbers[0]));
            write_varint(out, zigzag(least_step));
            pack(differences().map(|d| (d - least_step) as u64), stepped, out);
        }
    }
}

fn ends(numbers: impl Iterator<Item = i64>) -> (i64, i64) {
    numbers.fold((i64::MAX, i64::MIN), |(least, greatest), number| {
        (least.min(number), greatest.max(number))
    })
}

/// The whole number that gives back the value's bits when it is divided by that power of ten.
#[inline]
fn mantissa(value: f64, exponent: usize) -> Option<i64> {
    let power = POWERS[exponent];
    let scaled = value * power;
    // Rounds half away from zero. A cast saturates, and makes 0 of NaN.
    let mantissa = (scaled + 0.5f64.copysign(scaled)) as i64;
    let back = mantissa as f64 / power;
    (back.to_bits() == value.to_bits() && mantissa.unsigned_abs() <= EXACT_MAX as u64)
        .then_some(mantissa)
}

/// Appends the `count` values of a column.
///
/// # Errors
///
/// Bytes that are no such column.
pub fn decode_values(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Result<(), WireError> {
    let what = "values";
    let invalid = WireError::Invalid { what };
    if !(1..=PIECE_SAMPLES_MAX).contains(&count) {
        return Err(invalid);
    }
    let mut input = Input::new(bytes);
    match input.u8(what)? {
        CONSTANT => {
            let value = f64::from_bits(u64::from_le_bytes(input.array(what)?));
            out.resize(out.len() + count, value);
        }
        RAW => {
            let raw = input.take(count * 8, what)?;
            let bits = raw.chunks_exact(8).map(|chunk| {
                let mut bits = [0; 8];
                bits.copy_from_slice(chunk);
                f64::from_bits(u64::from_le_bytes(bits))
            });
            out.extend(bits);
        }
        DECIMAL => decode_decimals(&mut input, count, out)?,
        _ => return Err(invalid),
    }
    if input.is_empty() {
        Ok(())
    } else {
        Err(invalid)
    }
}

fn decode_decimals(
    input: &mut Input<'_>,
    count: usize,
    out: &mut Vec<f64>,
) -> Result<(), WireError> {
    let what = "decimals";
    let invalid = WireError::Invalid { what };
    let exponent = usize::from(input.u8(what)?);
    let power = *POWERS.get(exponent).ok_or(invalid.clone())?;
    let exceptions: usize = input.number(what)?;
    if exceptions > count {
        return Err(invalid);
    }
    let mut at_exceptions = input.clone();
    for _ in 0..exceptions {
        input.varint(what)?;
        input.take(8, what)?;
    }
    let start = out.len();
    out.reserve(count);
    match input.u8(what)? {
        PLAIN => {
            let least = input.zigzag(what)?;
            unpack(input, count, what, |more| {
                out.push(least.wrapping_add(more as i64) as f64 / power);
            })?;
        }
        DIFFERENCES => {
            let mut last = input.zigzag(what)?;
            let least = input.zigzag(what)?;
            out.push(last as f64 / power);
            unpack(input, count - 1, what, |more| {
                last = last.wrapping_add(least).wrapping_add(more as i64);
                out.push(last as f64 / power);
            })?;
        }
        _ => return Err(invalid),
    }
    let mut next: usize = 0;
    for _ in 0..exceptions {
        let gap: usize = at_exceptions.number(what)?;
        let index = next.checked_add(gap).filter(|index| *index < count);
        let index = index.ok_or(invalid.clone())?;
        out[start + index] = f64::from_bits(u64::from_le_bytes(at_exceptions.array(what)?));
        next = index + 1;
    }
    Ok(())
}

/// Bytes that numbers up to `greatest` take.
fn width(greatest: u64) -> u8 {
    match greatest {
        0 => 0,
        0x1..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

fn pack(numbers: impl ExactSizeIterator<Item = u64>, greatest: u64, out: &mut Vec<u8>) {
    let width = width(greatest);
    out.push(width);
    out.reserve(numbers.len() * usize::from(width));
    // Each cast is of a number that the width was chosen for.
    match width {
        0 => {}
        1 => out.extend(numbers.map(|n| n as u8)),
        2 => numbers.for_each(|n| out.extend_from_slice(&(n as u16).to_le_bytes())),
        4 => numbers.for_each(|n| out.extend_from_slice(&(n as u32).to_le_bytes())),
        _ => numbers.for_each(|n| out.extend_from_slice(&n.to_le_bytes())),
    }
}

#[inline]
fn unpack(
    input: &mut Input<'_>,
    count: usize,
    what: &'static str,
    mut each: impl FnMut(u64),
) -> Result<(), WireError> {
    let width = input.u8(what)?;
    let bytes = input.take(count * usize::from(width), what)?;
    match width {
        0 => (0..count).for_each(|_| each(0)),
        1 => bytes.iter().for_each(|byte| each(u64::from(*byte))),
        2 => bytes
            .chunks_exact(2)
            .for_each(|b| each(u64::from(u16::from_le_bytes([b[0], b[1]])))),
        4 => bytes
            .chunks_exact(4)
            .for_each(|b| each(u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))),
        8 => bytes.chunks_exact(8).for_each(|b| {
            each(u64::from_le_bytes([
                b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
            ]));
        }),
        _ => return Err(WireError::Invalid { what }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(timestamps: &[i64], values: &[f64]) -> (usize, usize) {
        let (mut t, mut v) = (Vec::new(), Vec::new());
        encode_timestamps(timestamps, &mut t);
        ValueEncoder::default().encode(values, &mut v);
        let (mut ts, mut vs) = (Vec::new(), Vec::new());
        decode_timestamps(&t, timestamps.len(), &mut ts).unwrap();
        decode_values(&v, values.len(), &mut vs).unwrap();
        assert_eq!(ts, timestamps);
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&vs), bits(values));
        (t.len(), v.len())
    }

    #[test]
    fn what_machines_send_is_small() {
        let times: Vec<i64> = (0..1000).map(|i| 1_795_233_600_000 + i * 15_000).collect();
        let constant = round_trip(&times, &[7.5; 1000]);
        assert!(constant.0 <= 10 && constant.1 == 9, "{constant:?}");
        let counter: Vec<f64> = (0..1000).map(|i| f64::from(i * 37 + i % 5)).collect();
        assert!(round_trip(&times, &counter).1 < 1020);
        let mut gauge: Vec<f64> = (0..1000).map(|i| f64::from(i % 97) / 10.0).collect();
        gauge[500] = millrace_model::stale_nan();
        gauge[501] = -0.0;
        assert!(round_trip(&times, &gauge).1 < 1040);
        round_trip(&[i64::MIN, 0, i64::MAX], &[f64::NAN, f64::INFINITY, -0.0]);
        round_trip(&[5], &[f64::MIN_POSITIVE]);
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            any::<i32>().prop_map(f64::from),
            any::<i32>().prop_map(|n| f64::from(n) / 100.0),
            Just(millrace_model::stale_nan()),
        ]
    }

    proptest! {
        #[test]
        fn any_samples_survive(
            times in proptest::collection::btree_set(any::<i64>(), 1..200),
            seed in proptest::collection::vec(any_value(), 200),
        ) {
            let times: Vec<i64> = times.into_iter().collect();
            round_trip(&times, &seed[..times.len()]);
        }

        #[test]
        fn mostly_decimals_survive(
            numbers in proptest::collection::vec(any::<i32>(), 50..400),
            odd in proptest::collection::vec((0usize..50, any::<u64>()), 0..4),
            places in 0usize..6,
        ) {
            let mut values: Vec<f64> =
                numbers.iter().map(|n| f64::from(*n) / POWERS[places]).collect();
            for (at, bits) in odd {
                values[at] = f64::from_bits(bits);
            }
            let times: Vec<i64> = (0..values.len() as i64).collect();
            round_trip(&times, &values);
        }

        #[test]
        fn any_bytes_end_in_samples_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            count in 0usize..70_000,
        ) {
            let (mut times, mut values) = (Vec::new(), Vec::new());
            if decode_timestamps(&bytes, count, &mut times).is_ok() {
                prop_assert!(times.len() == count && times.is_sorted_by(|a, b| a < b));
            }
            if decode_values(&bytes, count, &mut values).is_ok() {
                prop_assert_eq!(values.len(), count);
            }
        }
    }
}
