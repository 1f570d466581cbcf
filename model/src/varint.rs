//! LEB128 variable-length integers and the zigzag map, as Protocol Buffers define them
//! (<https://protobuf.dev/programming-guides/encoding/#varints>).

/// Appends `value` in 1 to 10 bytes, seven bits a byte, lowest first.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The number of bytes that [`write_varint`] would take for `value`.
#[must_use]
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads one integer at `*pos` and moves `*pos` behind it. `None` if the bytes end too early
/// or the integer does not fit 64 bits; `*pos` is then unspecified.
#[inline]
pub fn read_varint(bytes: &[u8], pos: &mut usize) -> Option<u64> {
    let first = *bytes.get(*pos)?;
    if first < 0x80 {
        *pos += 1;
        return Some(u64::from(first));
    }
    read_varint_slow(bytes, pos)
}

fn read_varint_slow(bytes: &[u8], pos: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.get(*pos)?;
        *pos += 1;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Maps signed to unsigned so that small magnitudes stay small: 0, -1, 1, -2 … to 0, 1, 2, 3 ….
#[must_use]
#[inline]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[must_use]
#[inline]
pub fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(value: u64, signed: i64) {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut pos = 0;
            prop_assert_eq!(read_varint(&out, &mut pos), Some(value));
            prop_assert_eq!(pos, out.len());
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }
    }

    #[test]
    fn bad_input_is_none() {
        for bytes in [&[][..], &[0x80], &[0xff; 10], &[0xff; 11]] {
            assert_eq!(read_varint(bytes, &mut 0), None, "{bytes:02x?}");
        }
        let mut max = vec![0xff; 9];
        max.push(1);
        assert_eq!(read_varint(&max, &mut 0), Some(u64::MAX));
    }
}
