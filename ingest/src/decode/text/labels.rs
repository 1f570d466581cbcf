//! Takes apart name and labels of a series that is not known yet.

use std::borrow::Cow;

use millrace_model::METRIC_NAME;

use crate::report::{Reason, excerpt};
use crate::series::{BadSeries, text};

/// Calls `each` with every label of a series as a text format writes it, its name being
/// `__name__`: `name{label="value",…}`, or `{"name","label"="value",…}` where a name has characters
/// that need quotes.
///
/// # Errors
///
/// A series that does not parse, text that is not UTF-8, and what `each` says.
pub(crate) fn series_labels(
    raw: &[u8],
    mut each: impl FnMut(&str, &str) -> Result<(), BadSeries>,
) -> Result<(), BadSeries> {
    let raw_text = text(raw, "series")?;
    let mut rest = raw_text;
    let end = rest.find('{').unwrap_or(rest.len());
    let name = rest[..end].trim_end_matches([' ', '\t']);
    if !name.is_empty() {
        if !is_name(name, true) {
            return Err(malformed(raw, "the metric's name needs quotes"));
        }
        each(METRIC_NAME, name)?;
    }
    let Some(mut inside) = rest[end..].strip_prefix('{') else {
        return Ok(());
    };
    loop {
        inside = skip(inside);
        if let Some(behind) = inside.strip_prefix('}') {
            rest = behind;
            break;
        }
        let (label, quoted, behind) = label_name(raw, inside)?;
        inside = skip(behind);
        if let Some(behind) = inside.strip_prefix('=') {
            let behind = skip(behind);
            let Some(content) = behind.strip_prefix('"') else {
                return Err(malformed(raw, "a label's value stands in quotes"));
            };
            let (value, behind) = string(raw, content)?;
            each(&label, &value)?;
            inside = behind;
        } else if quoted && name.is_empty() {
            each(METRIC_NAME, &label)?;
        } else {
            return Err(malformed(raw, "a label has no '='"));
        }
        inside = skip(inside);
        if let Some(behind) = inside.strip_prefix(',') {
            inside = behind;
        } else if !inside.starts_with('}') {
            return Err(malformed(raw, "expected a comma or '}' behind a label"));
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(malformed(raw, "bytes behind the labels"))
    }
}

/// The help of a family, its escapes resolved.
pub(crate) fn help_text(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, behind)) = rest.split_first() {
        let (byte, behind) = match (byte, behind) {
            (b'\\', [b'n', behind @ ..]) => (b'\n', behind),
            (b'\\', [escaped @ (b'\\' | b'"'), behind @ ..]) => (*escaped, behind),
            _ => (byte, behind),
        };
        out.push(byte);
        rest = behind;
    }
    Cow::Owned(out)
}

fn malformed(raw: &[u8], what: &str) -> BadSeries {
    let message = format!("{what} ({:?})", excerpt(raw));
    BadSeries::new(Reason::MalformedText, message).value(raw)
}

fn skip(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

fn is_name(name: &str, colons: bool) -> bool {
    let mut bytes = name.bytes();
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_' || (colons && b == b':');
    bytes.next().is_some_and(first) && bytes.all(|b| first(b) || b.is_ascii_digit())
}

/// A label's name, whether it stood in quotes, and what follows.
fn label_name<'a>(raw: &[u8], inside: &'a str) -> Result<(Cow<'a, str>, bool, &'a str), BadSeries> {
    if let Some(content) = inside.strip_prefix('"') {
        let (name, behind) = string(raw, content)?;
        return Ok((name, true, behind));
    }
    let end = inside.find(['=', ' ', '\t', ',', '}', '"']);
    let end = end.unwrap_or(inside.len());
    let name = &inside[..end];
    if !is_name(name, false) {
        return Err(malformed(raw, "a label's name needs quotes"));
    }
    Ok((Cow::Borrowed(name), false, &inside[end..]))
}

/// A string whose content begins `text`, and what follows its closing quote.
fn string<'a>(raw: &[u8], text: &'a str) -> Result<(Cow<'a, str>, &'a str), BadSeries> {
    let never_closed = || malformed(raw, "a string is never closed");
    let end = text.find(['"', '\\']).ok_or_else(never_closed)?;
    if text[end..].starts_with('"') {
        return Ok((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut out = text[..end].to_owned();
    let mut chars = text[end..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Cow::Owned(out), &text[end + at + 1..])),
            '\\' => match chars.next().ok_or_else(never_closed)?.1 {
                'n' => out.push('\n'),
                escaped @ ('"' | '\\') => out.push(escaped),
                // As Prometheus reads it: a backslash before anything else is itself.
                other => out.extend(['\\', other]),
            },
            _ => out.push(c),
        }
    }
    Err(never_closed())
}
