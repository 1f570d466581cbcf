//! Packing 64 numbers of one width, and fewer.
//!
//! 64 numbers of `W` bits are `W` words of 64 bits, little-endian; number `i` begins at bit `i · W`,
//! lowest bit first. With the width known to the compiler every shift is a constant.

/// Numbers of one kernel call.
pub(super) const GROUP: usize = 64;

/// Bytes that `count` numbers of `width` bits take.
pub(super) fn packed_bytes(count: usize, width: u32) -> usize {
    let whole = count / GROUP * width as usize * 8;
    whole + (count % GROUP * width as usize).div_ceil(8)
}

/// Appends the low `width` bits of each number.
pub(super) fn pack(numbers: &[u64], width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let mask = u64::MAX >> (64 - width);
    for group in numbers.chunks(GROUP) {
        let start = out.len();
        let (mut word, mut used) = (0u64, 0);
        for &number in group {
            let number = number & mask;
            word |= number << used;
            used += width;
            if used >= 64 {
                out.extend_from_slice(&word.to_le_bytes());
                used -= 64;
                // The bits of the number that did not fit; none if it ended with the word.
                word = if used == 0 {
                    0
                } else {
                    number >> (width - used)
                };
            }
        }
        out.extend_from_slice(&word.to_le_bytes());
        out.truncate(start + packed_bytes(group.len(), width));
    }
}

/// Reads as many numbers of `width` bits as `out` is long, and adds `base` to each. `bytes` are
/// exactly theirs.
pub(super) fn unpack(bytes: &[u8], width: u32, base: i64, out: &mut [i64]) {
    debug_assert_eq!(bytes.len(), packed_bytes(out.len(), width));
    if width == 0 {
        out.fill(base);
        return;
    }
    let (groups, rest) = out.as_chunks_mut::<GROUP>();
    let group_bytes = width as usize * 8;
    let (whole, tail) = bytes.split_at(groups.len() * group_bytes);
    for (group, bytes) in groups.iter_mut().zip(whole.chunks_exact(group_bytes)) {
        unpack_group(bytes, width, base, group);
    }
    unpack_tail(tail, width, base, rest);
}

/// Numbers that do not fill a group.
fn unpack_tail(bytes: &[u8], width: u32, base: i64, out: &mut [i64]) {
    let mask = u64::MAX >> (64 - width);
    for (i, number) in out.iter_mut().enumerate() {
        let bit = i * width as usize;
        // A number of up to 64 bits lies in up to nine bytes.
        let mut window = [0; 16];
        let from = &bytes[bit / 8..];
        let len = from.len().min(16);
        window[..len].copy_from_slice(&from[..len]);
        let bits = (u128::from_le_bytes(window) >> (bit % 8)) as u64;
        *number = base.wrapping_add((bits & mask) as i64);
    }
}

/// One kernel for each width.
macro_rules! dispatch {
    ($width:expr, $bytes:expr, $base:expr, $out:expr, $($w:literal)*) => {
        match $width {
            $($w => kernel::<$w>($bytes, $base, $out),)*
            _ => unreachable!("a width is at most 64"),
        }
    };
}

fn unpack_group(bytes: &[u8], width: u32, base: i64, out: &mut [i64; GROUP]) {
    dispatch!(width, bytes, base, out,
        1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
        33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62
        63 64);
}

/// Unrolled by hand: only then is every shift and every index a constant.
macro_rules! unroll {
    ($each:ident: $($i:literal)*) => { $($each!($i);)* };
}

fn kernel<const W: usize>(bytes: &[u8], base: i64, out: &mut [i64; GROUP]) {
    let mut words = [0u64; W];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let mask = u64::MAX >> (64 - W);
    macro_rules! number {
        ($i:literal) => {
            let (word, shift) = ($i * W / 64, $i * W % 64);
            let mut bits = words[word] >> shift;
            if shift + W > 64 {
                bits |= words[word + 1] << (64 - shift);
            }
            out[$i] = base.wrapping_add((bits & mask) as i64);
        };
    }
    unroll!(number:
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
        16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
        32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47
        48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
}
