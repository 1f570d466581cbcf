//! The grammar of line protocol, one line at a time.
//!
//! ```text
//! line   = measurement *("," key "=" value) 1*" " field *("," field) [1*" " timestamp] *" " EOL
//! field  = key "=" (number | integer "i" | integer "u" | boolean | DQUOTE string DQUOTE)
//! ```
//!
//! In measurement, keys and tag values a backslash takes the meaning from a following `,`, `=` or
//! space; in strings from `"` and `\`; before anything else it is itself. A string may hold
//! newlines, so lines cannot be split before they are read.
//!
//! Measurement and tags are only *delimited* here; they are taken apart when their series is not
//! known.

use memchr::{memchr, memchr2, memchr3};

use crate::number::{Grammar, parse_i64, parse_u64, scan_decimal};
use crate::report::Reason;

/// Part of the body: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) fn of(self, body: &[u8]) -> &[u8] {
        &body[self.start..self.end]
    }
}

/// One field of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Its key, escapes as they stand.
    pub(super) name: Span,
    /// Its number (0 or 1 for booleans), or `None` for a string.
    pub(super) value: Option<f64>,
}

/// A line that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// `None` if it is blank or a comment.
    pub(super) point: Option<Point>,
    /// Where the next line begins.
    pub(super) next: usize,
    /// Newlines inside its strings.
    pub(super) inner_newlines: u64,
}

/// What a line says, fields aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// Measurement and tags.
    pub(super) key: Span,
    pub(super) timestamp: Option<i64>,
}

/// Where and why a line is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineError {
    pub(super) at: usize,
    pub(super) reason: Reason,
    pub(super) what: &'static str,
}

fn malformed(at: usize, what: &'static str) -> LineError {
    LineError {
        at,
        reason: Reason::MalformedLine,
        what,
    }
}

/// Reads the line that begins at `start`; its fields replace what `fields` held. Fails when they
/// are more than `max_fields`.
pub(super) fn scan_line(
    body: &[u8],
    start: usize,
    max_fields: usize,
    fields: &mut Vec<Field>,
) -> Result<Line, LineError> {
    fields.clear();
    let mut pos = skip(body, start, |b| matches!(b, b' ' | b'\t' | b'\r'));
    match body.get(pos) {
        None | Some(b'\n') => return Ok(blank(pos + 1)),
        Some(b'#') => {
            let newline = memchr(b'\n', &body[pos..]);
            return Ok(blank(newline.map_or(body.len(), |n| pos + n + 1)));
        }
        Some(_) => {}
    }
    let key = Span {
        start: pos,
        end: scan_key(body, pos)?,
    };
    pos = skip_spaces(body, key.end);
    let mut inner_newlines = 0;
    loop {
        let (field, end) = scan_field(body, pos, &mut inner_newlines)?;
        fields.push(field);
        pos = end;
        if body.get(pos) != Some(&b',') {
            break;
        }
        if fields.len() > max_fields {
            return Err(malformed(pos, "too many fields"));
        }
        pos += 1;
    }
    match body.get(pos) {
        None | Some(b' ' | b'\n' | b'\r') => {}
        Some(_) => {
            return Err(malformed(
                pos,
                "expected a comma, a space or the end of the line behind the field's value",
            ));
        }
    }
    pos = skip_spaces(body, pos);
    let (timestamp, end) = scan_timestamp(body, pos)?;
    Ok(Line {
        point: Some(Point { key, timestamp }),
        next: scan_end(body, end)?,
        inner_newlines,
    })
}

fn blank(next: usize) -> Line {
    Line {
        point: None,
        next,
        inner_newlines: 0,
    }
}

#[inline]
fn skip(body: &[u8], mut pos: usize, test: impl Fn(u8) -> bool) -> usize {
    while body.get(pos).is_some_and(|b| test(*b)) {
        pos += 1;
    }
    pos
}

#[inline]
fn skip_spaces(body: &[u8], pos: usize) -> usize {
    skip(body, pos, |b| b == b' ')
}

/// The end of measurement and tags: the first space that is not escaped.
#[inline]
fn scan_key(body: &[u8], start: usize) -> Result<usize, LineError> {
    let mut pos = start;
    loop {
        let Some(found) = memchr3(b' ', b'\\', b'\n', &body[pos..]) else {
            return Err(malformed(body.len(), "the line has no fields"));
        };
        pos += found;
        match body[pos] {
            b' ' => return Ok(pos),
            b'\n' => return Err(malformed(pos, "the line has no fields")),
            _ => pos += escape_len(body, pos),
        }
    }
}

/// Length of a backslash with what it escapes, in measurement, keys and tag values.
#[inline]
pub(super) fn escape_len(body: &[u8], pos: usize) -> usize {
    match body.get(pos + 1) {
        Some(b',' | b'=' | b' ') => 2,
        _ => 1,
    }
}

#[inline]
fn scan_field(
    body: &[u8],
    start: usize,
    inner_newlines: &mut u64,
) -> Result<(Field, usize), LineError> {
    let mut pos = start;
    loop {
        match body.get(pos) {
            Some(b'=') => break,
            Some(b'\\') => pos += escape_len(body, pos),
            None | Some(b',' | b' ' | b'\n' | b'\r') if pos == start => {
                return Err(malformed(pos, "expected a field"));
            }
            None | Some(b',' | b' ' | b'\n' | b'\r') => {
                return Err(malformed(pos, "expected '=' behind the field's key"));
            }
            Some(_) => pos += 1,
        }
    }
    if pos == start {
        return Err(malformed(pos, "expected the field's key before '='"));
    }
    let name = Span { start, end: pos };
    let (value, end) = scan_value(body, pos + 1, inner_newlines)?;
    Ok((Field { name, value }, end))
}

#[inline]
fn scan_value(
    body: &[u8],
    start: usize,
    inner_newlines: &mut u64,
) -> Result<(Option<f64>, usize), LineError> {
    match body.get(start) {
        Some(b'0'..=b'9' | b'-' | b'+' | b'.') => {
            let (value, end) = scan_number(body, start)?;
            Ok((Some(value), end))
        }
        Some(b'"') => Ok((None, scan_string(body, start, inner_newlines)?)),
        Some(b't' | b'T' | b'f' | b'F') => {
            let end = skip(body, start, |b| b.is_ascii_alphabetic());
            let value = match &body[start..end] {
                b"t" | b"T" | b"true" | b"True" | b"TRUE" => 1.0,
                b"f" | b"F" | b"false" | b"False" | b"FALSE" => 0.0,
                _ => return Err(malformed(start, NOT_A_VALUE)),
            };
            Ok((Some(value), end))
        }
        None | Some(b',' | b' ' | b'\n' | b'\r') => {
            Err(malformed(start, "expected a value behind '='"))
        }
        Some(_) => Err(malformed(start, NOT_A_VALUE)),
    }
}

const NOT_A_VALUE: &str = "the value is no number, boolean or quoted string";

#[inline]
fn scan_number(body: &[u8], start: usize) -> Result<(f64, usize), LineError> {
    let number = scan_decimal(body, start, Grammar::Lenient);
    let number = number.ok_or_else(|| malformed(start, NOT_A_VALUE))?;
    let digits = &body[start..number.end];
    let out_of_range = |what| LineError {
        at: start,
        reason: Reason::NumberOutOfRange,
        what,
    };
    match body.get(number.end) {
        Some(b'i') if number.integer => {
            let value = parse_i64(digits)
                .ok_or_else(|| out_of_range("the integer does not fit 64 bits with sign"))?;
            Ok((value as f64, number.end + 1))
        }
        Some(b'u') if number.integer => {
            if digits[0] == b'-' {
                return Err(out_of_range("an unsigned integer is not negative"));
            }
            let digits = digits.strip_prefix(b"+").unwrap_or(digits);
            let value = parse_u64(digits)
                .ok_or_else(|| out_of_range("the integer does not fit 64 bits"))?;
            Ok((value as f64, number.end + 1))
        }
        _ if number.value.is_infinite() => Err(out_of_range("the number is beyond 64-bit floats")),
        _ => Ok((number.value, number.end)),
    }
}

fn scan_string(body: &[u8], start: usize, inner_newlines: &mut u64) -> Result<usize, LineError> {
    let mut pos = start + 1;
    loop {
        let Some(found) = memchr2(b'"', b'\\', &body[pos..]) else {
            return Err(malformed(start, "the string is never closed"));
        };
        pos += found;
        if body[pos] == b'"' {
            *inner_newlines += memchr::memchr_iter(b'\n', &body[start..pos]).count() as u64;
            return Ok(pos + 1);
        }
        pos += match body.get(pos + 1) {
            Some(b'"' | b'\\') => 2,
            _ => 1,
        };
    }
}

#[inline]
fn scan_timestamp(body: &[u8], start: usize) -> Result<(Option<i64>, usize), LineError> {
    let end = skip(body, start, |b| !matches!(b, b' ' | b'\n' | b'\r'));
    if end == start {
        return Ok((None, end));
    }
    let timestamp = parse_i64(&body[start..end]).ok_or(LineError {
        at: start,
        reason: Reason::BadTimestamp,
        what: "the timestamp is no integer of 64 bits",
    })?;
    Ok((Some(timestamp), skip_spaces(body, end)))
}

#[inline]
fn scan_end(body: &[u8], pos: usize) -> Result<usize, LineError> {
    match &body[pos..] {
        [] => Ok(pos),
        [b'\n', ..] => Ok(pos + 1),
        [b'\r'] => Ok(pos + 1),
        [b'\r', b'\n', ..] => Ok(pos + 2),
        _ => Err(malformed(pos, "expected the end of the line")),
    }
}

/// Where to go on behind a line that could not be read, and how many newlines lie between: at the
/// first newline that is not inside a string of the line, as far as strings can be told.
#[cold]
pub(super) fn resynchronise(body: &[u8], start: usize) -> (usize, u64) {
    let end = end_outside_strings(body, start)
        .or_else(|| memchr(b'\n', &body[start..]).map(|n| start + n + 1))
        .unwrap_or(body.len());
    let newlines = memchr::memchr_iter(b'\n', &body[start..end]).count() as u64;
    (end, newlines)
}

fn end_outside_strings(body: &[u8], start: usize) -> Option<usize> {
    let mut pos = start;
    let mut behind_key = false;
    let mut none = 0;
    while pos < body.len() {
        match body[pos] {
            b'\n' => return Some(pos + 1),
            b'\\' => pos += escape_len(body, pos),
            b' ' => {
                behind_key = true;
                pos += 1;
            }
            // A quote opens a string only where a field's value begins.
            b'"' if behind_key && body[pos - 1] == b'=' => {
                pos = scan_string(body, pos, &mut none).ok()?;
            }
            _ => pos += 1,
        }
    }
    None
}
