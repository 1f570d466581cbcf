//! Attributes, and their values as text.
//!
//! ```text
//! KeyValue  key = 1, value = 2
//! AnyValue  string = 1, bool = 2, int = 3, double = 4, array = 5 { values = 1 },
//!           kvlist = 6 { values = 1 }, bytes = 7
//! ```
//!
//! Simple values are their text; lists and maps are JSON, bytes are base64, as OpenTelemetry's own
//! libraries write them.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::decode::protobuf::{Fields, Malformed, Value};
use crate::report::Reason;
use crate::series::{BadSeries, text};

/// Lists and maps may be nested so deep.
const MAX_DEPTH: usize = 16;

/// One attribute.
pub(super) type Attribute<'a> = (&'a str, Cow<'a, str>);

/// Adds the attributes of a run of fields; those of number `number` are attributes.
///
/// # Errors
///
/// Bytes that are no attributes, or not UTF-8.
pub(super) fn read<'a>(
    run: &'a [u8],
    number: u32,
    into: &mut Vec<Attribute<'a>>,
) -> Result<(), BadSeries> {
    let mut fields = Fields::new(run, 0, run.len());
    while let Some((n, value)) = fields.next().map_err(broken)? {
        if let (true, Value::Bytes(start, end)) = (n == number, value) {
            let (key, value) = key_value(run, start, end)?;
            let value = match value {
                Some((start, end)) => as_text(run, start, end, 0)?,
                None => Cow::Borrowed(""),
            };
            into.push((key, value));
        }
    }
    Ok(())
}

fn broken(at: Malformed) -> BadSeries {
    let message = format!("an attribute is not readable: bad {}", at.what);
    BadSeries::new(Reason::InvalidUtf8, message)
}

type KeyValue<'a> = (&'a str, Option<(usize, usize)>);

fn key_value(bytes: &[u8], start: usize, end: usize) -> Result<KeyValue<'_>, BadSeries> {
    let (mut key, mut value) = ("", None);
    let mut fields = Fields::new(bytes, start, end);
    while let Some(field) = fields.next().map_err(broken)? {
        match field {
            (1, Value::Bytes(start, end)) => key = text(&bytes[start..end], "attribute name")?,
            (2, Value::Bytes(start, end)) => value = Some((start, end)),
            _ => {}
        }
    }
    Ok((key, value))
}

fn as_text(
    bytes: &[u8],
    start: usize,
    end: usize,
    depth: usize,
) -> Result<Cow<'_, str>, BadSeries> {
    let mut fields = Fields::new(bytes, start, end);
    let mut out = Cow::Borrowed("");
    while let Some(field) = fields.next().map_err(broken)? {
        match field {
            (1, Value::Bytes(start, end)) => {
                out = Cow::Borrowed(text(&bytes[start..end], "attribute value")?);
            }
            (2, Value::Varint(0)) => out = Cow::Borrowed("false"),
            (2, Value::Varint(_)) => out = Cow::Borrowed("true"),
            (3, Value::Varint(int)) => out = Cow::Owned((int as i64).to_string()),
            (4, Value::Fixed64(bits)) => out = Cow::Owned(double(f64::from_bits(bits))),
            (5 | 6, Value::Bytes(..)) => {
                let mut json = String::new();
                write_json(bytes, start, end, depth, &mut json)?;
                out = Cow::Owned(json);
            }
            (7, Value::Bytes(start, end)) => {
                out = Cow::Owned(crate::base64::encode(&bytes[start..end]))
            }
            _ => {}
        }
    }
    Ok(out)
}

fn write_json(
    bytes: &[u8],
    start: usize,
    end: usize,
    depth: usize,
    out: &mut String,
) -> Result<(), BadSeries> {
    if depth == MAX_DEPTH {
        let message = format!("an attribute's value is nested more than {MAX_DEPTH} deep");
        return Err(BadSeries::new(Reason::UnsupportedType, message).limit(MAX_DEPTH));
    }
    let mut fields = Fields::new(bytes, start, end);
    let mut written = false;
    while let Some((number, value)) = fields.next().map_err(broken)? {
        match (number, value) {
            (5, Value::Bytes(start, end)) => {
                list(bytes, start, end, depth, out)?;
            }
            (6, Value::Bytes(start, end)) => {
                map(bytes, start, end, depth, out)?;
            }
            (1 | 7, _) => quoted(&as_text(bytes, start, end, depth)?, out),
            (2..=4, _) => out.push_str(&as_text(bytes, start, end, depth)?),
            _ => continue,
        }
        written = true;
        break;
    }
    if !written {
        out.push_str("null");
    }
    Ok(())
}

fn list(
    bytes: &[u8],
    start: usize,
    end: usize,
    depth: usize,
    out: &mut String,
) -> Result<(), BadSeries> {
    out.push('[');
    let mut fields = Fields::new(bytes, start, end);
    let mut first = true;
    while let Some(field) = fields.next().map_err(broken)? {
        if let (1, Value::Bytes(start, end)) = field {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            write_json(bytes, start, end, depth + 1, out)?;
        }
    }
    out.push(']');
    Ok(())
}

fn map(
    bytes: &[u8],
    start: usize,
    end: usize,
    depth: usize,
    out: &mut String,
) -> Result<(), BadSeries> {
    let mut pairs = Vec::new();
    let mut fields = Fields::new(bytes, start, end);
    while let Some(field) = fields.next().map_err(broken)? {
        if let (1, Value::Bytes(start, end)) = field {
            pairs.push(key_value(bytes, start, end)?);
        }
    }
    pairs.sort_by_key(|(key, _)| *key);
    out.push('{');
    for (i, (key, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        quoted(key, out);
        out.push(':');
        match value {
            Some((start, end)) => write_json(bytes, *start, *end, depth + 1, out)?,
            None => out.push_str("null"),
        }
    }
    out.push('}');
    Ok(())
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("strings take everything");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Without an exponent between 1e-6 and 1e21, as JSON encoders write it.
fn double(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => {
                format!("{digits}e+{exponent}")
            }
            Some(_) | None => text,
        }
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_have_the_texts_of_the_reference_libraries() {
        for (value, expect) in [
            (1.0, "1"),
            (-0.5, "-0.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-6, "0.000001"),
            (1.5e-7, "1.5e-7"),
            (0.0, "0"),
        ] {
            assert_eq!(double(value), expect);
        }
    }
}
