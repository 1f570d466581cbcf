//! JSON by hand: the answer's shapes are few, its numbers many.

use std::io::Write as _;

use http::HeaderValue;
use millrace_model::Labels;

/// The content type of every answer.
pub(super) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/json");

/// A string with its quotes.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            // A page that puts an answer into a script element must not be left by a label value;
            // Prometheus escapes these three for the same reason.
            b'<' => b"\\u003c",
            b'>' => b"\\u003e",
            b'&' => b"\\u0026",
            0..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..i]);
        plain = i + 1;
        if escape.is_empty() {
            put(out, format_args!("\\u{byte:04x}"));
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// A label set as a JSON object.
pub fn labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

/// A list of strings.
pub(super) fn strings<'a>(out: &mut Vec<u8>, texts: impl IntoIterator<Item = &'a str>) {
    out.push(b'[');
    for (i, text) in texts.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, text);
    }
    out.push(b']');
}

/// A sample of a series: `[1435781451.781,"1"]`.
pub(super) fn point(out: &mut Vec<u8>, timestamp_ms: i64, sample: f64) {
    out.push(b'[');
    seconds(out, timestamp_ms);
    out.extend_from_slice(b",\"");
    value(out, sample);
    out.extend_from_slice(b"\"]");
}

/// A series' value as Prometheus's API writes it, without its quotes: with an exponent below 1e-6 and
/// from 1e21 on; `NaN`, `+Inf`, `-Inf`.
pub fn value(out: &mut Vec<u8>, value: f64) {
    if value == 0.0 || !value.is_finite() || (1e-6..1e21).contains(&value.abs()) {
        number(out, value);
    } else {
        scientific(out, value);
    }
}

/// A scalar, which Prometheus never writes with an exponent.
pub(super) fn scalar(out: &mut Vec<u8>, timestamp_ms: i64, value: f64) {
    out.push(b'[');
    seconds(out, timestamp_ms);
    out.extend_from_slice(b",\"");
    number(out, value);
    out.extend_from_slice(b"\"]");
}

/// Milliseconds as a JSON number of seconds: exact, with as many of three decimals as are needed.
pub(super) fn seconds(out: &mut Vec<u8>, timestamp_ms: i64) {
    if timestamp_ms < 0 {
        out.push(b'-');
    }
    let ms = timestamp_ms.unsigned_abs();
    integer(out, ms / 1000);
    let fraction = (ms % 1000) as u16;
    if fraction == 0 {
        return;
    }
    let digits = [
        b'0' + (fraction / 100) as u8,
        b'0' + (fraction / 10 % 10) as u8,
        b'0' + (fraction % 10) as u8,
    ];
    let keep = match digits {
        [_, b'0', b'0'] => 1,
        [_, _, b'0'] => 2,
        _ => 3,
    };
    out.push(b'.');
    out.extend_from_slice(&digits[..keep]);
}

/// A value as Go's `strconv.FormatFloat(v, 'f', -1, 64)` writes it: the fewest digits that read
/// back as the same number, never an exponent; `NaN`, `+Inf`, `-Inf`. Without quotes.
pub(super) fn number(out: &mut Vec<u8>, value: f64) {
    /// Whole numbers below this are exact, and far quicker written as such.
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value.abs() < WHOLE && value.trunc() == value {
        if value.is_sign_negative() {
            out.push(b'-');
        }
        integer(out, value.abs() as u64);
    } else {
        // The same digits as Go's, ties to even among them (`Display` rounds those up), and several
        // times as fast.
        let start = out.len();
        serde_json::to_writer(&mut *out, &value).expect("a vector takes every write");
        if let Some(at) = out[start..].iter().position(|&b| b == b'e') {
            spread_exponent(out, start, start + at);
        } else if out.ends_with(b".0") {
            out.truncate(out.len() - 2);
        }
    }
}

/// A value as Go's `strconv.FormatFloat(v, 'g', -1, 64)` writes it, as the text format has it: with
/// an exponent below 1e-4 and from 1e6 on.
pub(super) fn number_short(out: &mut Vec<u8>, value: f64) {
    let size = value.abs();
    if !value.is_finite() || value == 0.0 || (1e-4..1e6).contains(&size) {
        return number(out, value);
    }
    scientific(out, value);
}

/// `strconv.FormatFloat(v, 'e', -1, 64)`: at least two digits in the exponent.
pub(super) fn scientific(out: &mut Vec<u8>, value: f64) {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').expect("always has an exponent");
    let exponent: i32 = exponent.parse().expect("always a number");
    let sign = if exponent < 0 { '-' } else { '+' };
    put(out, format_args!("{mantissa}e{sign}{:02}", exponent.abs()));
}

/// Rewrites `-1.25e-7`, which begins at `start` and has its `e` at `e`, as `-0.000000125`.
fn spread_exponent(out: &mut Vec<u8>, start: usize, e: usize) {
    let text = out.split_off(start);
    let (mantissa, exponent) = text.split_at(e - start);
    let exponent: i32 = std::str::from_utf8(&exponent[1..])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .expect("an exponent is a small whole number");
    let (sign, mantissa) = match mantissa {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    let point = mantissa.iter().position(|&b| b == b'.');
    let digits: Vec<u8> = mantissa.iter().copied().filter(|&b| b != b'.').collect();
    // Digits before the point once the exponent is gone; not positive for small numbers.
    let before =
        i32::try_from(point.unwrap_or(mantissa.len())).expect("17 digits at most") + exponent;
    if sign {
        out.push(b'-');
    }
    match usize::try_from(before) {
        Ok(before) if before >= digits.len() => {
            out.extend_from_slice(&digits);
            out.resize(out.len() + before - digits.len(), b'0');
        }
        Ok(before) if before > 0 => {
            out.extend_from_slice(&digits[..before]);
            out.push(b'.');
            out.extend_from_slice(&digits[before..]);
        }
        _ => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + before.unsigned_abs() as usize, b'0');
            out.extend_from_slice(&digits);
        }
    }
}

pub(super) fn integer(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

pub(super) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn timestamps_are_seconds_without_float_noise() {
        let cases = [
            (0, "0"),
            (1, "0.001"),
            (4_050, "4.05"),
            (1_435_781_451_781, "1435781451.781"),
            (1_500, "1.5"),
            (-1, "-0.001"),
            (-1_000, "-1"),
            (i64::MIN, "-9223372036854775.808"),
            (i64::MAX, "9223372036854775.807"),
        ];
        for (ms, expect) in cases {
            assert_eq!(written(|out| seconds(out, ms)), expect);
        }
    }

    /// The right column is what a Prometheus answers to these literals.
    #[test]
    fn values_are_written_as_go_writes_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-17.0, "-17"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e-7, "0.0000001"),
            (1e21, "1000000000000000000000"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (123_456_789.125, "123456789.125"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, expect) in cases {
            assert_eq!(written(|out| number(out, value)), expect);
        }
        let long = written(|out| number(out, 1e300));
        assert_eq!((long.len(), &long[..3]), (301, "100"));
        let smallest = written(|out| number(out, 5e-324));
        assert_eq!((smallest.len(), &smallest[..4]), (326, "0.00"));
    }

    /// What a Prometheus answers for `vector(…)` of these; of `1e21` alone, a scalar, it writes all
    /// zeros.
    #[test]
    fn samples_have_exponents_where_prometheus_writes_them() {
        let cases = [
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (1e-6, "0.000001"),
            (9.5e-7, "9.5e-07"),
            (999_999_999_999_999_900_000.0, "999999999999999900000"),
            (0.0, "0"),
            (f64::NAN, "NaN"),
        ];
        for (value, expect) in cases {
            let expect = format!("[1,\"{expect}\"]");
            assert_eq!(written(|out| point(out, 1_000, value)), expect);
        }
        let all = written(|out| scalar(out, 1_000, 1e21));
        assert_eq!(all, "[1,\"1000000000000000000000\"]");
    }

    #[test]
    fn the_short_form_has_an_exponent_where_go_has_one() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (-1_234_567.0, "-1.234567e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e300, "1e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, expect) in cases {
            assert_eq!(written(|out| number_short(out, value)), expect);
        }
    }

    /// The sum is that of what Go's `strconv.FormatFloat(v, 'f', -1, 64)` writes of the same values,
    /// each with a line feed; computed by a Go program that generates them in the same way.
    #[test]
    fn the_digits_are_those_of_go() {
        const GO: (u64, u32) = (0x65a2_2867_92e2_3585, 599_908);
        let mut bits: u64 = 1;
        let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
        let mut count = 0;
        for _ in 0..200_000 {
            bits = bits
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            // All bit patterns, and values such as are measured.
            let all = f64::from_bits(bits);
            for value in [all, (bits >> 40) as f64 / 1024.0, bits as f64 / 1e12] {
                if !value.is_finite() {
                    continue;
                }
                let text = written(|out| number(out, value));
                assert_eq!(text.parse(), Ok(value), "{bits:#x}");
                for byte in text.bytes().chain([b'\n']) {
                    sum = (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
                }
                count += 1;
            }
        }
        assert_eq!((sum, count), GO);
    }

    #[test]
    fn strings_are_escaped() {
        let text = "a\"b\\c\nd\te\u{1}<ü>&";
        let expect = r#""a\"b\\c\nd\te\u0001\u003cü\u003e\u0026""#;
        assert_eq!(written(|out| string(out, text)), expect);
        let back: String = serde_json::from_str(expect).unwrap();
        assert_eq!(back, text);
    }
}
