//! Packed blocks: up to [`BLOCK`] numbers above a base, in as few bits as most of them need.

use millrace_model::{varint_len, write_varint, zigzag};

use super::kernels::{pack, packed_bytes, unpack};
use super::{BLOCK, Input};

/// Says in the width byte that there are patches.
const PATCHED: u8 = 0x80;
const WIDTH_MAX: u32 = 64;
/// Blocks by which the transforms of a column are compared: all of them for a chunk of 256, two of
/// eight for one of 1,024. What it mis-ranks costs less than a hundredth of the bytes.
const PRICED: usize = 2;

/// How a block is best written.
#[derive(Clone, Copy, Debug)]
struct Plan {
    base: i64,
    width: u32,
    patches: u32,
    bytes: usize,
}

impl Plan {
    fn of(block: &[i64]) -> Self {
        let base = block.iter().copied().min().unwrap_or(0);
        // Two tables, so that equal neighbours do not wait for one another.
        let mut lengths = [[0u32; WIDTH_MAX as usize + 1]; 2];
        let length = |number: &i64| {
            let above = number.wrapping_sub(base) as u64;
            (WIDTH_MAX - above.leading_zeros()) as usize
        };
        let (pairs, rest) = block.as_chunks::<2>();
        for [a, b] in pairs {
            lengths[0][length(a)] += 1;
            lengths[1][length(b)] += 1;
        }
        for number in rest {
            lengths[0][length(number)] += 1;
        }
        let [mut counts, other] = lengths;
        for (count, other) in counts.iter_mut().zip(other) {
            *count += other;
        }
        let widest = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        let fixed = 1 + varint_len(zigzag(base));
        let (mut best, mut patches) = ((usize::MAX, 0, 0), 0);
        for width in (0..=widest).rev() {
            let above = &counts[width + 1..=widest];
            patches += above.first().copied().unwrap_or(0);
            if patches as usize > block.len() / 4 {
                break;
            }
            // A patch is its place and the high bits, seven a byte.
            let price =
                |(bits, &count): (usize, &u32)| count as usize * (1 + (bits + 1).div_ceil(7));
            let high: usize = above.iter().enumerate().map(price).sum();
            let width = width as u32;
            let packed = packed_bytes(block.len(), width);
            let bytes = fixed + packed + high + usize::from(patches > 0);
            best = best.min((bytes, width, patches));
        }
        Self {
            base,
            width: best.1,
            patches: best.2,
            bytes: best.0,
        }
    }
}

/// About the bytes that [`encode`] takes: of a long column by a few of its blocks.
pub(super) fn price(numbers: &[i64]) -> usize {
    let of = |block: &[i64]| Plan::of(block).bytes;
    if numbers.len() <= PRICED * BLOCK {
        return numbers.chunks(BLOCK).map(of).sum();
    }
    let (blocks, _) = numbers.as_chunks::<BLOCK>();
    let step = blocks.len() / PRICED;
    let few = blocks.iter().step_by(step).take(PRICED);
    let sum: usize = few.map(|block| of(block)).sum();
    sum * numbers.len() / (PRICED * BLOCK)
}

/// Appends the numbers, block by block.
pub(super) fn encode(numbers: &[i64], out: &mut Vec<u8>) {
    let mut above = [0u64; BLOCK];
    for block in numbers.chunks(BLOCK) {
        let plan = Plan::of(block);
        for (above, number) in above.iter_mut().zip(block) {
            *above = number.wrapping_sub(plan.base) as u64;
        }
        let above = &above[..block.len()];
        let patched = if plan.patches > 0 { PATCHED } else { 0 };
        out.push(plan.width as u8 | patched);
        write_varint(out, zigzag(plan.base));
        pack(above, plan.width, out);
        if plan.patches > 0 {
            out.push(plan.patches as u8);
            for (at, &number) in above.iter().enumerate() {
                let high = number.checked_shr(plan.width).unwrap_or(0);
                if high > 0 {
                    out.push(at as u8);
                    write_varint(out, high);
                }
            }
        }
    }
}

/// Reads as many numbers as `out` is long.
pub(super) fn decode(input: &mut Input<'_>, out: &mut [i64]) -> Result<(), &'static str> {
    for block in out.chunks_mut(BLOCK) {
        let head = input.u8()?;
        let width = u32::from(head & !PATCHED);
        if width > WIDTH_MAX {
            return Err("a width over 64 bits");
        }
        let base = input.zigzag()?;
        let bytes = input.take(packed_bytes(block.len(), width))?;
        unpack(bytes, width, base, block);
        if head & PATCHED != 0 {
            patch(input, width, block)?;
        }
    }
    Ok(())
}

#[cold]
fn patch(input: &mut Input<'_>, width: u32, block: &mut [i64]) -> Result<(), &'static str> {
    let patches = input.u8()?;
    for _ in 0..patches {
        let at = usize::from(input.u8()?);
        let high = input.varint()?;
        let number = block.get_mut(at).ok_or("a patch outside of its block")?;
        let high = high.checked_shl(width).ok_or("a patch above 64 bits")?;
        *number = number.wrapping_add(high as i64);
    }
    Ok(())
}
