//! Integer columns: what is left of the numbers when what can be foretold is taken away.

use millrace_model::{write_varint, zigzag};

use super::{Input, blocks};

/// All numbers are the first one.
const CONSTANT: u8 = 0;
/// Each number is the one before and a step.
const STEP: u8 = 1;
/// The numbers as they are.
const RAW: u8 = 2;
/// The differences to the number before.
const DELTA: u8 = 3;
/// The differences of the differences.
const DELTA2: u8 = 4;
/// What is left of a line through the first number.
const LINE: u8 = 5;
/// A bit for each number that differs from the one before, and the differences of those.
const SPARSE: u8 = 6;
/// In front: the first number, and what all differences can be divided by.
const DIVIDED: u8 = 7;

/// A sparse column pays where at least this share stands still.
const SPARSE_SHARE: usize = 4;

/// Encodes columns; keeps its memory.
#[derive(Debug, Default)]
pub(in crate::block) struct IntegerEncoder {
    divided: Vec<i64>,
    deltas: Vec<i64>,
    other: Vec<i64>,
    best: Vec<i64>,
}

impl IntegerEncoder {
    /// Appends a column of at least one number.
    pub(in crate::block) fn encode(&mut self, numbers: &[i64], out: &mut Vec<u8>) {
        differences(numbers, &mut self.deltas);
        let Some(&step) = self.deltas.first() else {
            out.push(CONSTANT);
            write_varint(out, zigzag(numbers[0]));
            return;
        };
        if self.deltas.iter().all(|&d| d == step) {
            out.push(if step == 0 { CONSTANT } else { STEP });
            write_varint(out, zigzag(numbers[0]));
            if step != 0 {
                write_varint(out, zigzag(step));
            }
            return;
        }
        let divisor = common_divisor(&self.deltas);
        if divisor == 1 {
            self.encode_plain(numbers, out);
            return;
        }
        out.push(DIVIDED);
        write_varint(out, zigzag(numbers[0]));
        write_varint(out, divisor.unsigned_abs());
        for delta in &mut self.deltas {
            *delta /= divisor;
        }
        let mut divided = std::mem::take(&mut self.divided);
        divided.clear();
        divided.push(0);
        let mut sum = 0i64;
        divided.extend(self.deltas.iter().map(|&d| {
            sum = sum.wrapping_add(d);
            sum
        }));
        self.encode_plain(&divided, out);
        self.divided = divided;
    }

    /// Appends a column by the cheapest of the transforms. The differences are in `deltas`.
    fn encode_plain(&mut self, numbers: &[i64], out: &mut Vec<u8>) {
        let first = numbers[0];
        let mut cheapest = (blocks::price(numbers), RAW);
        let mut consider = |bytes: usize, transform| {
            cheapest = cheapest.min((bytes, transform));
        };
        let first_bytes = millrace_model::varint_len(zigzag(first));
        consider(first_bytes + blocks::price(&self.deltas), DELTA);
        let still = self.deltas.iter().filter(|&&d| d == 0).count();
        if still * SPARSE_SHARE >= self.deltas.len() {
            self.other.clear();
            self.other
                .extend(self.deltas.iter().copied().filter(|&d| d != 0));
            let bitmap = self.deltas.len().div_ceil(8);
            consider(first_bytes + bitmap + blocks::price(&self.other), SPARSE);
        } else {
            differences(&self.deltas, &mut self.other);
            let delta_bytes = millrace_model::varint_len(zigzag(self.deltas[0]));
            consider(
                first_bytes + delta_bytes + blocks::price(&self.other),
                DELTA2,
            );
            let step = step_of(numbers);
            self.best.clear();
            self.best.extend(residuals(numbers, step));
            let step_bytes = millrace_model::varint_len(zigzag(step));
            consider(first_bytes + step_bytes + blocks::price(&self.best), LINE);
        }
        let transform = cheapest.1;
        out.push(transform);
        if transform != RAW {
            write_varint(out, zigzag(first));
        }
        match transform {
            RAW => blocks::encode(numbers, out),
            DELTA => blocks::encode(&self.deltas, out),
            DELTA2 => {
                write_varint(out, zigzag(self.deltas[0]));
                blocks::encode(&self.other, out);
            }
            LINE => {
                write_varint(out, zigzag(step_of(numbers)));
                blocks::encode(&self.best, out);
            }
            _ => {
                for eight in self.deltas.chunks(8) {
                    let bit = |(i, &d): (usize, &i64)| u8::from(d != 0) << i;
                    out.push(eight.iter().enumerate().map(bit).sum());
                }
                blocks::encode(&self.other, out);
            }
        }
    }
}

fn differences(numbers: &[i64], out: &mut Vec<i64>) {
    out.clear();
    out.extend(numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])));
}

/// The step of the line from the first number to the last.
fn step_of(numbers: &[i64]) -> i64 {
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    let steps = numbers.len() as i64 - 1;
    let rise = last.wrapping_sub(first);
    let half = steps / 2;
    rise.checked_add(if rise < 0 { -half } else { half })
        .unwrap_or(rise)
        / steps.max(1)
}

/// What the numbers are above the line; the first is on it.
fn residuals(numbers: &[i64], step: i64) -> impl Iterator<Item = i64> {
    let mut line = numbers[0];
    numbers[1..].iter().map(move |number| {
        line = line.wrapping_add(step);
        number.wrapping_sub(line)
    })
}

/// What all numbers can be divided by, as a positive number that fits; 1 if nothing more.
fn common_divisor(numbers: &[i64]) -> i64 {
    let mut divisor = 0u64;
    for number in numbers {
        let (mut a, mut b) = (divisor, number.unsigned_abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        divisor = a;
        if divisor == 1 {
            return 1;
        }
    }
    // 2^63 is no i64: such a column is written undivided.
    i64::try_from(divisor).ok().filter(|&d| d > 0).unwrap_or(1)
}

/// Reads a column of as many numbers as `out` is long, at least one. True if all of them are known
/// to be the same.
pub(in crate::block) fn decode(
    input: &mut Input<'_>,
    out: &mut [i64],
) -> Result<bool, &'static str> {
    let transform = input.u8()?;
    if transform != DIVIDED {
        decode_plain(transform, input, out)?;
        return Ok(transform == CONSTANT);
    }
    let first = input.zigzag()?;
    let divisor = input.varint()? as i64;
    let transform = input.u8()?;
    decode_plain(transform, input, out)?;
    for number in out {
        *number = number.wrapping_mul(divisor).wrapping_add(first);
    }
    Ok(false)
}

fn decode_plain(transform: u8, input: &mut Input<'_>, out: &mut [i64]) -> Result<(), &'static str> {
    if transform == RAW {
        return blocks::decode(input, out);
    }
    let first = input.zigzag()?;
    let (head, rest) = out.split_first_mut().ok_or("a column without numbers")?;
    *head = first;
    match transform {
        CONSTANT => rest.fill(first),
        STEP => {
            let step = input.zigzag()?;
            rise(first, step, rest);
        }
        DELTA => {
            blocks::decode(input, rest)?;
            sum_up(first, rest);
        }
        DELTA2 => {
            let step = input.zigzag()?;
            let (head, changes) = rest.split_first_mut().ok_or("a difference of no numbers")?;
            *head = step;
            blocks::decode(input, changes)?;
            sum_up(step, changes);
            sum_up(first, rest);
        }
        LINE => {
            let step = input.zigzag()?;
            blocks::decode(input, rest)?;
            let mut line = first;
            for number in rest {
                line = line.wrapping_add(step);
                *number = number.wrapping_add(line);
            }
        }
        SPARSE => decode_sparse(first, input, rest)?,
        _ => return Err("an unknown transform"),
    }
    Ok(())
}

fn rise(first: i64, step: i64, out: &mut [i64]) {
    let mut line = first;
    for number in out {
        line = line.wrapping_add(step);
        *number = line;
    }
}

fn sum_up(first: i64, out: &mut [i64]) {
    let mut sum = first;
    for number in out {
        sum = sum.wrapping_add(*number);
        *number = sum;
    }
}

fn decode_sparse(first: i64, input: &mut Input<'_>, out: &mut [i64]) -> Result<(), &'static str> {
    let bitmap = input.take(out.len().div_ceil(8))?;
    let changes: usize = bitmap.iter().map(|byte| byte.count_ones() as usize).sum();
    if changes > out.len() {
        return Err("changes behind the last number");
    }
    // Into the end of the column: a change is read before its place is written.
    let start = out.len() - changes;
    blocks::decode(input, &mut out[start..])?;
    let (mut sum, mut next) = (first, start);
    for at in 0..out.len() {
        // Without a branch: which numbers change is what cannot be foretold.
        let changed = bitmap[at / 8] >> (at % 8) & 1;
        let change = out.get(next).copied().unwrap_or(0);
        sum = sum.wrapping_add(change & -i64::from(changed));
        next += usize::from(changed);
        out[at] = sum;
    }
    // A bit behind the last number would have left a change over.
    if next == out.len() {
        Ok(())
    } else {
        Err("changes behind the last number")
    }
}
