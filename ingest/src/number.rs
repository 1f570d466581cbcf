//! Decimal numbers as JSON and line protocol write them.
//!
//! A number is scanned once, collecting its digits; when these fit 53 bits and the power of ten
//! is small, one multiplication or division of two exactly represented floats gives the correctly
//! rounded result (W. D. Clinger, "How to Read Floating Point Numbers Accurately", 1990). All
//! others go through the standard library's parser, which is exact too, and slower.

/// A number at the head of some text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    /// The nearest float; infinite if it is beyond all floats.
    pub(crate) value: f64,
    /// Position behind the last character.
    pub(crate) end: usize,
    /// Whether it is written without fraction and exponent.
    pub(crate) integer: bool,
}

/// Which way of writing numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grammar {
    /// RFC 8259: no `+` in front, no superfluous zeros, digits on both sides of the point.
    Json,
    /// Line protocol: also `+1`, `007`, `1.` and `.5`.
    Lenient,
}

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
const EXACT_MANTISSA: u64 = 1 << 53;

/// Scans the number that begins at `start`; `None` if there is none.
#[inline]
pub(crate) fn scan_decimal(text: &[u8], start: usize, grammar: Grammar) -> Option<Decimal> {
    let mut pos = start;
    let negative = match text.get(pos) {
        Some(b'-') => {
            pos += 1;
            true
        }
        Some(b'+') if grammar == Grammar::Lenient => {
            pos += 1;
            false
        }
        _ => false,
    };
    let whole_at = pos;
    let mut mantissa = 0u64;
    take_digits(text, &mut pos, &mut mantissa);
    let whole_digits = pos - whole_at;
    if grammar == Grammar::Json
        && (whole_digits == 0 || (whole_digits > 1 && text[whole_at] == b'0'))
    {
        return None;
    }
    let mut digits = whole_digits;
    let mut exponent = 0i64;
    let mut integer = true;
    if text.get(pos) == Some(&b'.') {
        let fraction_at = pos + 1;
        let mut at = fraction_at;
        take_digits(text, &mut at, &mut mantissa);
        let fraction_digits = at - fraction_at;
        if grammar == Grammar::Json && fraction_digits == 0 {
            return None;
        }
        integer = false;
        digits += fraction_digits;
        exponent = -(fraction_digits as i64);
        pos = at;
    }
    if digits == 0 {
        return None;
    }
    if let Some(b'e' | b'E') = text.get(pos) {
        exponent += take_exponent(text, &mut pos)?;
        integer = false;
    }
    // Up to 19 digits fit 64 bits; beyond, `mantissa` has wrapped and is not looked at.
    if digits <= 19 && mantissa <= EXACT_MANTISSA && exponent.unsigned_abs() < 23 {
        let power = POWERS[exponent.unsigned_abs() as usize];
        let magnitude = if exponent < 0 {
            mantissa as f64 / power
        } else {
            mantissa as f64 * power
        };
        let value = if negative { -magnitude } else { magnitude };
        return Some(Decimal {
            value,
            end: pos,
            integer,
        });
    }
    slow_decimal(&text[start..pos]).map(|value| Decimal {
        value,
        end: pos,
        integer,
    })
}

#[inline]
fn take_digits(text: &[u8], pos: &mut usize, mantissa: &mut u64) {
    while let Some(digit) = text.get(*pos).map(|b| b.wrapping_sub(b'0')) {
        if digit > 9 {
            return;
        }
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        *pos += 1;
    }
}

fn take_exponent(text: &[u8], pos: &mut usize) -> Option<i64> {
    let mut at = *pos + 1;
    let negative = text.get(at) == Some(&b'-');
    if let Some(b'+' | b'-') = text.get(at) {
        at += 1;
    }
    let digits_at = at;
    let mut exponent = 0i64;
    while let Some(digit) = text.get(at).filter(|b| b.is_ascii_digit()) {
        // Saturates far beyond every float's range, so the value does not depend on it.
        exponent = (exponent * 10 + i64::from(digit - b'0')).min(1_000_000);
        at += 1;
    }
    if at == digits_at {
        return None;
    }
    *pos = at;
    Some(if negative { -exponent } else { exponent })
}

#[cold]
fn slow_decimal(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The signed integer that `text` is, all of it; `None` if it is something else or does not fit.
#[inline]
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let magnitude = parse_u64(digits)?;
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// The unsigned integer that `text` is, all of it.
#[inline]
pub(crate) fn parse_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, grammar: Grammar) -> Option<(f64, usize)> {
        scan_decimal(text.as_bytes(), 0, grammar).map(|d| (d.value, d.end))
    }

    #[test]
    fn json_is_strict_where_line_protocol_is_not() {
        for text in [
            "+1", "007", ".5", "1.", "-", "", "x", "-x", "1e", "1e+", ".",
        ] {
            let strict = check(text, Grammar::Json).filter(|(_, end)| *end == text.len());
            assert_eq!(strict, None, "{text}");
        }
        for (text, value) in [("+1", 1.0), ("007", 7.0), (".5", 0.5), ("1.", 1.0)] {
            assert_eq!(check(text, Grammar::Lenient), Some((value, text.len())));
        }
        for text in ["0", "-0", "10", "1.5e3", "-1E-2", "0.25"] {
            for grammar in [Grammar::Json, Grammar::Lenient] {
                let (value, end) = check(text, grammar).unwrap();
                assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits());
                assert_eq!(end, text.len());
            }
        }
        assert_eq!(check("1e999", Grammar::Json).unwrap().0, f64::INFINITY);
        assert_eq!(check("12,", Grammar::Json), Some((12.0, 2)));
    }

    #[test]
    fn integers_know_their_bounds() {
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"9223372036854775808"), None);
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        for bad in [&b""[..], b"-", b"+", b"1.0", b"--1", b" 1"] {
            assert_eq!(parse_i64(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn equals_the_standard_parser(text in "-?[0-9]{1,25}(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?") {
            let expect: f64 = text.parse().unwrap();
            let (value, end) = check(&text, Grammar::Lenient).unwrap();
            prop_assert_eq!(value.to_bits(), expect.to_bits());
            prop_assert_eq!(end, text.len());
        }

        #[test]
        fn every_float_survives_its_text(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            for text in [format!("{value}"), format!("{value:e}")] {
                prop_assert_eq!(check(&text, Grammar::Json).unwrap().0.to_bits(), value.to_bits());
            }
        }
    }
}
