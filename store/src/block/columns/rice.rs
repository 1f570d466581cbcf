//! Rice coding of a block: `k` low bits of each number packed, and the rest in unary, as so many
//! zeros before a one, lowest bit first. What is far out is patched, and has no zeros.
//!
//! The ones are found word by word, and a number is the distance between two of them: nothing waits
//! for the number before, as it would in a stream where a number's bits stand together.

use millrace_model::{varint_len, zigzag};

use super::BLOCK;
use super::kernels::packed_bytes;

/// Most low bits: above, a packed block is nearly as good.
pub(super) const LOW_BITS_MAX: u32 = 30;

/// A number with more zeros than this is patched: it costs two bytes, and three from 128 on.
const ZEROS_MAX: u64 = 24;

/// Which numbers are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those above the lowest.
    Unsigned,
    /// Those around the middle one: zigzag of the differences to it.
    Signed,
}

/// What a block takes at the best.
#[derive(Clone, Copy, Debug)]
pub(super) struct Price {
    pub(super) kind: Kind,
    pub(super) base: i64,
    pub(super) low_bits: u32,
    pub(super) patches: u32,
    pub(super) bytes: usize,
}

/// Whether a number whose bits above the low ones are `high` is patched.
pub(super) fn is_patched(high: u64) -> bool {
    high > ZEROS_MAX
}

/// How `block` is cheapest. `lengths` are the numbers of its numbers that have so many bits above
/// `lowest`.
pub(super) fn cheapest(block: &[i64], lowest: i64, lengths: &[u32; 65]) -> Price {
    let mut numbers = [0u64; BLOCK];
    let numbers = &mut numbers[..block.len()];
    for (number, of) in numbers.iter_mut().zip(block) {
        *number = of.wrapping_sub(lowest) as u64;
    }
    let unsigned = price(
        Kind::Unsigned,
        lowest,
        numbers,
        median_length(lengths, block.len()),
    );
    let mut sorted = [0i64; BLOCK];
    let sorted = &mut sorted[..block.len()];
    sorted.copy_from_slice(block);
    let (_, &mut middle, _) = sorted.select_nth_unstable(block.len() / 2);
    let mut lengths = [0u32; 65];
    for (number, of) in numbers.iter_mut().zip(block) {
        *number = zigzag(of.wrapping_sub(middle));
        lengths[(64 - number.leading_zeros()) as usize] += 1;
    }
    let signed = price(
        Kind::Signed,
        middle,
        numbers,
        median_length(&lengths, block.len()),
    );
    if signed.bytes < unsigned.bytes {
        signed
    } else {
        unsigned
    }
}

/// Bits of the middle one of so many numbers.
fn median_length(lengths: &[u32; 65], count: usize) -> u32 {
    let mut below = 0;
    let at = lengths.iter().position(|&many| {
        below += many as usize;
        below * 2 >= count
    });
    at.unwrap_or(64) as u32
}

fn price(kind: Kind, base: i64, numbers: &[u64], median_length: u32) -> Price {
    let mut best = Price {
        kind,
        base,
        low_bits: 0,
        patches: 0,
        bytes: usize::MAX,
    };
    let from = median_length.saturating_sub(2).min(LOW_BITS_MAX);
    let to = (median_length + 1).min(LOW_BITS_MAX);
    for low_bits in from..=to {
        let (mut zeros, mut patches, mut patch_bytes) = (0, 0, 0);
        for &number in numbers {
            let high = number >> low_bits;
            if is_patched(high) {
                patches += 1;
                patch_bytes += 1 + varint_len(high);
            } else {
                zeros += high as usize;
            }
        }
        if patches as usize > numbers.len() / 4 {
            continue;
        }
        let unary = (zeros + numbers.len()).div_ceil(8);
        let patched = patch_bytes + usize::from(patches > 0);
        let head = 1 + varint_len(zigzag(base));
        let bytes = head + packed_bytes(numbers.len(), low_bits) + unary + patched;
        if bytes < best.bytes {
            (best.low_bits, best.patches, best.bytes) = (low_bits, patches, bytes);
        }
    }
    best
}

/// Appends what the numbers have above the low bits.
pub(super) fn put_unary(numbers: &[u64], low_bits: u32, out: &mut Vec<u8>) {
    let (mut word, mut used) = (0u64, 0u32);
    for &number in numbers {
        let high = number >> low_bits;
        used += if is_patched(high) { 0 } else { high as u32 };
        // At most 63 and the zeros of one number: no more than one word is full.
        if used >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            (word, used) = (0, used - 64);
        }
        word |= 1 << used;
        used += 1;
        if used == 64 {
            out.extend_from_slice(&word.to_le_bytes());
            (word, used) = (0, 0);
        }
    }
    let bytes = used.div_ceil(8) as usize;
    out.extend_from_slice(&word.to_le_bytes()[..bytes]);
}

/// Reads the zeros before as many ones as `high` is long. Returns the bytes that they take; `None`
/// if there are fewer ones, or bits behind the last of them in its byte.
pub(super) fn take_unary(bytes: &[u8], high: &mut [u64]) -> Option<usize> {
    let (mut done, mut start) = (0, 0u64);
    // One behind the last one.
    let mut next = 0u64;
    let mut words = bytes.chunks(8);
    while done < high.len() {
        let piece = words.next()?;
        let mut word = match piece.first_chunk::<8>() {
            Some(eight) => u64::from_le_bytes(*eight),
            None => {
                let mut padded = [0; 8];
                padded[..piece.len()].copy_from_slice(piece);
                u64::from_le_bytes(padded)
            }
        };
        let ones = (word.count_ones() as usize).min(high.len() - done);
        for zeros in &mut high[done..done + ones] {
            let at = start + u64::from(word.trailing_zeros());
            *zeros = at - next;
            next = at + 1;
            word &= word - 1;
        }
        done += ones;
        start += 64;
        if done == high.len() {
            // Of the byte with the last one nothing may be left.
            let in_word = next - (start - 64);
            let byte_end = in_word.div_ceil(8) * 8;
            let left = word & u64::MAX.checked_shr(64 - byte_end as u32).unwrap_or(0);
            return (left == 0).then_some(next.div_ceil(8) as usize);
        }
    }
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_and_ones_survive() {
        let cases: [&[u64]; 6] = [
            &[0],
            &[24],
            &[0; 128],
            &[24; 128],
            &[1, 0, 7, 24, 3, 0, 0, 0, 0, 2, 19, 22, 1, 24, 24],
            &[25, 1 << 40, 3],
        ];
        for numbers in cases {
            for low_bits in [0, 3] {
                let shifted: Vec<u64> = numbers.iter().map(|n| n << low_bits).collect();
                let mut bytes = Vec::new();
                put_unary(&shifted, low_bits, &mut bytes);
                let kept = |n: &u64| if is_patched(*n) { 0 } else { *n };
                let expect: Vec<u64> = numbers.iter().map(kept).collect();
                let mut high = vec![9; numbers.len()];
                assert_eq!(take_unary(&bytes, &mut high), Some(bytes.len()));
                assert_eq!(high, expect);
                // What stands behind does not matter, what is missing does.
                bytes.push(0xff);
                assert_eq!(take_unary(&bytes, &mut high), Some(bytes.len() - 1));
                assert_eq!(high, expect);
                bytes.truncate(bytes.len() - 2);
                assert_eq!(take_unary(&bytes, &mut high), None);
            }
        }
    }

    #[test]
    fn bits_behind_the_last_one_are_refused() {
        let mut high = [0; 2];
        assert_eq!(take_unary(&[0b0000_0101], &mut high), Some(1));
        assert_eq!(take_unary(&[0b0001_0101], &mut high), None);
    }
}
