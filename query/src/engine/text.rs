//! String literals and numbers as PromQL and Go write them.
//!
//! A string literal is bytes, not text: `"\xff"` is legal in an expression and only refused where
//! a label name is asked for, with Prometheus's own words.

use std::fmt::Write;

use millrace_model::parse_duration_ms;

/// The value of a string literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(Vec<u8>);

impl Text {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// As text; bytes that are not UTF-8 become replacement characters.
    pub(super) fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// As text, if it is UTF-8.
    pub(super) fn utf8(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// As the name of a label, if it can be one.
    pub(super) fn label_name(&self) -> Option<&str> {
        self.utf8().filter(|name| !name.is_empty())
    }

    /// In double quotes, with Go's escapes (`%q`).
    pub(super) fn quoted(&self) -> String {
        let mut out = String::from("\"");
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                push_escaped(&mut out, c);
            }
            for byte in chunk.invalid() {
                write!(out, "\\x{byte:02x}").expect("writing to a string");
            }
        }
        out.push('"');
        out
    }
}

/// `text` in double quotes, with Go's escapes (`%q`).
pub(super) fn quote(text: &str) -> String {
    Text::new(text.as_bytes().to_vec()).quoted()
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{07}' => out.push_str("\\a"),
        '\u{08}' => out.push_str("\\b"),
        '\u{0c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{0b}' => out.push_str("\\v"),
        c if c.is_control() && (c as u32) < 0x80 => {
            write!(out, "\\x{:02x}", c as u32).expect("writing to a string");
        }
        c if is_printed(c) => out.push(c),
        c if (c as u32) < 0x1_0000 => {
            write!(out, "\\u{:04x}", c as u32).expect("writing to a string");
        }
        c => write!(out, "\\U{:08x}", c as u32).expect("writing to a string"),
    }
}

/// Whether Go prints it as it is: no space but that of ASCII, no control and no format character.
fn is_printed(c: char) -> bool {
    // `Debug` has the table; a mark that joins the letter before it counts as part of that.
    c.is_ascii() || format!("a{c}").escape_debug().count() == 2
}

/// The value of a literal that is still in its quotes.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn unquote(literal: &str) -> Result<Text, String> {
    const BAD: &str = "invalid syntax";
    let mut chars = literal.chars();
    let (Some(quote), Some(last)) = (chars.next(), chars.next_back()) else {
        return Err(BAD.to_owned());
    };
    if quote != last {
        return Err(BAD.to_owned());
    }
    let inner = chars.as_str();
    if quote == '`' {
        return Ok(Text::new(inner.as_bytes().to_vec()));
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '\n' => return Err(BAD.to_owned()),
            '\\' => unescape(&mut rest, quote, &mut out)?,
            c => push_char(&mut out, c),
        }
    }
    Ok(Text::new(out))
}

fn push_char(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn unescape(rest: &mut std::str::Chars<'_>, quote: char, out: &mut Vec<u8>) -> Result<(), String> {
    let none = || "escape sequence not terminated".to_owned();
    let invalid = || "escape sequence is an invalid Unicode code point".to_owned();
    let c = rest.next().ok_or_else(none)?;
    match c {
        'a' => out.push(7),
        'b' => out.push(8),
        'f' => out.push(12),
        'n' => out.push(b'\n'),
        'r' => out.push(b'\r'),
        't' => out.push(b'\t'),
        'v' => out.push(11),
        '\\' => out.push(b'\\'),
        c if c == quote => push_char(out, c),
        'x' => out.push(u8::try_from(digits(rest, 2, 16, 0)?).map_err(|_| invalid())?),
        'u' | 'U' => {
            let count = if c == 'u' { 4 } else { 8 };
            let code = digits(rest, count, 16, 0)?;
            push_char(out, char::from_u32(code).ok_or_else(invalid)?);
        }
        c => {
            let Some(first) = c.to_digit(8) else {
                return Err(format!("unknown escape sequence U+{:04X} '{c}'", c as u32));
            };
            out.push(u8::try_from(digits(rest, 2, 8, first)?).map_err(|_| invalid())?);
        }
    }
    Ok(())
}

fn digits(
    rest: &mut std::str::Chars<'_>,
    count: usize,
    radix: u32,
    start: u32,
) -> Result<u32, String> {
    let mut value = start;
    for _ in 0..count {
        let c = rest.next().ok_or("escape sequence not terminated")?;
        let digit = c.to_digit(radix).ok_or_else(|| {
            format!(
                "illegal character U+{:04X} '{c}' in escape sequence",
                c as u32
            )
        })?;
        // At most eight digits of four bits.
        value = value.wrapping_mul(radix).wrapping_add(digit);
    }
    Ok(value)
}

/// A number as PromQL writes it: decimal, exponent, hexadecimal, octal (a leading `0`), `Inf`, `NaN`, with `_`
/// between digits.
pub(super) fn parse_number(text: &str) -> Option<f64> {
    let plain = text.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return parse_hex(hex);
    }
    let octal = lower.len() > 1 && lower.starts_with('0');
    if octal && let Ok(value) = i64::from_str_radix(&lower, 8) {
        return Some(value as f64);
    }
    match lower.as_str() {
        "inf" => Some(f64::INFINITY),
        "nan" => Some(f64::NAN),
        _ => lower.parse().ok(),
    }
}

fn parse_hex(hex: &str) -> Option<f64> {
    if hex.is_empty() {
        return None;
    }
    hex.bytes().try_fold(0.0f64, |value, byte| {
        let digit = (byte as char).to_digit(16)?;
        Some(value * 16.0 + f64::from(digit))
    })
}

/// A duration as Prometheus writes it (`1h30m`), in milliseconds.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    i64::try_from(parse_duration_ms(text)?).ok()
}

/// `%g` of Go: the shortest digits that give the value back, an exponent where it is below -4 or
/// at least seven digits would stand before the point.
pub(super) fn format_g(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("always has an exponent");
    let exponent: i32 = exponent.parse().expect("always a number");
    if value != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

/// As OpenMetrics writes a label value that is a number: always with a point or an exponent.
pub(super) fn format_open_metrics(value: f64) -> String {
    let text = format_g(value);
    if value.is_finite() && !text.contains(['.', 'e']) {
        return text + ".0";
    }
    text
}

/// `strconv.FormatFloat(value, 'f', -1, 64)` of Go: never an exponent.
pub(super) fn format_f(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_unquoted_as_go_does() {
        let ok = |literal: &str, expect: &[u8]| {
            assert_eq!(unquote(literal).unwrap().0, expect, "{literal}");
        };
        ok(r#""a\n\t\"\\""#, b"a\n\t\"\\");
        ok(r"'\''", b"'");
        ok(r"`a\n`", b"a\\n");
        ok(
            r#""\x41\101\u00e4\U0001F600""#,
            "AA\u{e4}\u{1F600}".as_bytes(),
        );
        ok(r#""\xff""#, b"\xff");
        for bad in [
            r#""\'""#,
            r#""\q""#,
            r#""\xg0""#,
            "\"\n\"",
            r#""\400""#,
            "\"",
        ] {
            assert!(unquote(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("1h30m", 5_400_000),
            ("5m", 300_000),
            ("1ms", 1),
            ("1y2w", 32_745_600_000),
        ] {
            assert_eq!(parse_duration(text), Some(ms), "{text}");
        }
        for bad in ["", "5", "1m1h", "1s1s", "5x", "99999999999y", "m"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_are_read_and_written() {
        for (text, value) in [
            ("0x1F", 31.0),
            ("1_000", 1000.0),
            ("1e3", 1000.0),
            (".5", 0.5),
            ("inf", f64::INFINITY),
            ("1.", 1.0),
        ] {
            assert_eq!(parse_number(text), Some(value), "{text}");
        }
        for (value, text) in [
            (1.1, "1.1"),
            (1e30, "1e+30"),
            (1e-7, "1e-07"),
            (-0.5, "-0.5"),
            (0.0, "0"),
        ] {
            assert_eq!(format_g(value), text);
        }
        assert_eq!(format_open_metrics(1.0), "1.0");
        assert_eq!(format_open_metrics(f64::INFINITY), "+Inf");
    }
}
