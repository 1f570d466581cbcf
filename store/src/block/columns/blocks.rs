//! Blocks of up to [`BLOCK`] numbers: packed above a base, in as few bits as most of them need; or,
//! where that is shorter, as Golomb and Rice code them: `k` low bits packed, and what is above them
//! as so many zeros before a one. That is the shape of most differences: many small ones around a
//! centre, ever fewer far from it.

use millrace_model::{varint_len, write_varint, zigzag};

use super::kernels::{pack, packed_bytes, unpack};
use super::rice::{self, Kind, LOW_BITS_MAX};
use super::{BLOCK, Input};

/// Says in the width byte that there are patches.
const PATCHED: u8 = 0x80;
const WIDTH_MAX: u32 = 64;
/// Blocks by which the transforms of a column are compared: all of them for a chunk of 256, two of
/// eight for one of 1,024. What it mis-ranks costs less than a hundredth of the bytes.
const PRICED: usize = 2;

/// Heads of Rice blocks: the number of low bits above one of these.
const RICE_SIGNED: u8 = 65;
const RICE_UNSIGNED: u8 = 96;
const _: () = assert!(RICE_SIGNED as u32 == WIDTH_MAX + 1);
const _: () = assert!(RICE_SIGNED as u32 + LOW_BITS_MAX + 1 == RICE_UNSIGNED as u32);
const _: () = assert!(RICE_UNSIGNED as u32 + LOW_BITS_MAX < PATCHED as u32);

/// A Rice block takes longer to read: it has to save this share of a packed one.
const RICE_GAIN: usize = 32;

/// How a block is best written.
#[derive(Clone, Copy, Debug)]
struct Plan {
    base: i64,
    /// Bits of each number, or the low bits of a Rice block.
    width: u32,
    patches: u32,
    bytes: usize,
    rice: Option<Kind>,
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
        let packed = Self {
            base,
            width: best.1,
            patches: best.2,
            bytes: best.0,
            rice: None,
        };
        // Of two bits and less there is nothing to save.
        if packed.width < 2 && packed.patches == 0 {
            return packed;
        }
        let rice = rice::cheapest(block, base, &counts);
        if rice.bytes.saturating_add(rice.bytes / RICE_GAIN) >= packed.bytes {
            return packed;
        }
        Self {
            base: rice.base,
            width: rice.low_bits,
            patches: rice.patches,
            bytes: rice.bytes,
            rice: Some(rice.kind),
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
        let patched = if plan.patches > 0 { PATCHED } else { 0 };
        let width = plan.width as u8;
        let head = match plan.rice {
            None => width,
            Some(Kind::Signed) => RICE_SIGNED + width,
            Some(Kind::Unsigned) => RICE_UNSIGNED + width,
        };
        out.push(head | patched);
        write_varint(out, zigzag(plan.base));
        for (above, number) in above.iter_mut().zip(block) {
            let difference = number.wrapping_sub(plan.base);
            *above = match plan.rice {
                Some(Kind::Signed) => zigzag(difference),
                Some(Kind::Unsigned) | None => difference as u64,
            };
        }
        let above = &above[..block.len()];
        pack(above, plan.width, out);
        if plan.rice.is_some() {
            rice::put_unary(above, plan.width, out);
        }
        if plan.patches > 0 {
            out.push(plan.patches as u8);
            for (at, &number) in above.iter().enumerate() {
                let high = number.checked_shr(plan.width).unwrap_or(0);
                let patch = match plan.rice {
                    None => high > 0,
                    Some(_) => rice::is_patched(high),
                };
                if patch {
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
        let kind = head & !PATCHED;
        let base = input.zigzag()?;
        if kind >= RICE_SIGNED {
            decode_rice(input, head, base, block)?;
            continue;
        }
        let width = u32::from(kind);
        let bytes = input.take(packed_bytes(block.len(), width))?;
        unpack(bytes, width, base, block);
        if head & PATCHED != 0 {
            patch(input, width, block)?;
        }
    }
    Ok(())
}

fn decode_rice(
    input: &mut Input<'_>,
    head: u8,
    base: i64,
    block: &mut [i64],
) -> Result<(), &'static str> {
    let kind = head & !PATCHED;
    let (low_bits, signed) = if kind >= RICE_UNSIGNED {
        (u32::from(kind - RICE_UNSIGNED), false)
    } else {
        (u32::from(kind - RICE_SIGNED), true)
    };
    if low_bits > LOW_BITS_MAX {
        return Err("more low bits than a Rice block may have");
    }
    let low = input.take(packed_bytes(block.len(), low_bits))?;
    let mut high = [0u64; BLOCK];
    let high = &mut high[..block.len()];
    let used = rice::take_unary(input.rest(), high).ok_or("a Rice block is cut short")?;
    input.take(used)?;
    if low_bits == 0 {
        for (number, &high) in block.iter_mut().zip(&*high) {
            *number = high as i64;
        }
    } else {
        unpack(low, low_bits, 0, block);
        for (number, &high) in block.iter_mut().zip(&*high) {
            *number |= (high << low_bits) as i64;
        }
    }
    if head & PATCHED != 0 {
        patch(input, low_bits, block)?;
    }
    if signed {
        for number in block {
            let coded = *number as u64;
            *number = base.wrapping_add(((coded >> 1) as i64) ^ -((coded & 1) as i64));
        }
    } else {
        for number in block {
            *number = base.wrapping_add(*number);
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
