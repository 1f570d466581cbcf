//! The text exposition formats, one line at a time: Prometheus' 0.0.4 and OpenMetrics 1.0.
//!
//! The parser knows nothing of requests: it serves whoever has such a text, and hands out what each
//! line says with the bytes of the series as they stand. These are taken apart by
//! [`series_labels`], which needs to be done only for a series that is not known yet.
//!
//! It is a total function of foreign bytes: a line that cannot be read is an error that names it,
//! and the next call goes on behind it.

use memchr::{memchr, memchr2, memchr3, memrchr};
use millrace_model::{MetricType, TimestampMs};

use crate::number::{Grammar, parse_i64, scan_decimal};
use crate::precision::Precision;
use crate::report::Reason;

/// Which of the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Prometheus' text format 0.0.4: timestamps in milliseconds, comments anywhere.
    Prometheus,
    /// OpenMetrics 1.0: timestamps in seconds, exemplars, units, and `# EOF` at the end.
    OpenMetrics,
}

/// What a line says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    /// A sample.
    Sample(TextSample<'a>),
    /// The type of a metric family.
    Type(&'a [u8], MetricType),
    /// Its help, escapes as they stand: see [`help_text`].
    Help(&'a [u8], &'a [u8]),
    /// Its unit.
    Unit(&'a [u8], &'a [u8]),
    /// `# EOF`.
    Eof,
}

/// A sample of one series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextSample<'a> {
    /// Name and labels as they stand.
    pub(crate) series: &'a [u8],
    pub(crate) value: f64,
    pub(crate) timestamp: Option<TimestampMs>,
    /// Whether an exemplar stands behind it.
    pub(crate) exemplar: bool,
}

/// Why a line cannot be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineError<'a> {
    /// The line.
    pub(crate) line: &'a [u8],
    /// Which of its bytes, from 0.
    pub(crate) at: usize,
    pub(crate) reason: Reason,
    pub(crate) what: &'static str,
}

/// A cursor over a text.
#[derive(Clone, Debug)]
pub(crate) struct Parser<'a> {
    rest: &'a [u8],
    dialect: Dialect,
    line: u64,
}

type At = (usize, Reason, &'static str);

fn malformed(at: usize, what: &'static str) -> At {
    (at, Reason::MalformedText, what)
}

impl<'a> Parser<'a> {
    pub(crate) fn new(text: &'a [u8], dialect: Dialect) -> Self {
        Self {
            rest: text,
            dialect,
            line: 0,
        }
    }

    /// Number of the line that was read last; the first is 1.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// What the next line says that says anything; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Result<Event<'a>, LineError<'a>>> {
        while !self.rest.is_empty() {
            let (line, rest) = match memchr(b'\n', self.rest) {
                Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
                None => (self.rest, &self.rest[..0]),
            };
            self.rest = rest;
            self.line += 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let start = skip_blanks(line, 0);
            let event = match line.get(start) {
                None => continue,
                Some(b'#') => comment(line, start + 1).transpose(),
                Some(_) => Some(sample(line, start, self.dialect).map(Event::Sample)),
            };
            let Some(event) = event else {
                continue;
            };
            return Some(event.map_err(|(at, reason, what)| LineError {
                line,
                at,
                reason,
                what,
            }));
        }
        None
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[inline]
fn skip_blanks(line: &[u8], mut pos: usize) -> usize {
    while line.get(pos).copied().is_some_and(is_blank) {
        pos += 1;
    }
    pos
}

#[inline]
fn sample(line: &[u8], start: usize, dialect: Dialect) -> Result<TextSample<'_>, At> {
    let end = series_end(line, start, dialect)?;
    let series = &line[start..end];
    let pos = skip_blanks(line, end);
    let (value, pos) = value(line, pos)?;
    let mut pos = skip_blanks(line, pos);
    let mut timestamp = None;
    if line.get(pos).is_some_and(|byte| *byte != b'#') {
        let end = memchr2(b' ', b'\t', &line[pos..]).map_or(line.len(), |n| pos + n);
        let token = &line[pos..end];
        let moment = match dialect {
            Dialect::Prometheus => parse_i64(token).map(TimestampMs),
            Dialect::OpenMetrics => seconds(token),
        };
        let bad = (pos, Reason::BadTimestamp, "no timestamp of this format");
        timestamp = Some(moment.ok_or(bad)?);
        pos = skip_blanks(line, end);
    }
    let exemplar = pos < line.len();
    if exemplar && (dialect == Dialect::Prometheus || !line[pos..].starts_with(b"# {")) {
        return Err(malformed(pos, "bytes behind the sample"));
    }
    Ok(TextSample {
        series,
        value,
        timestamp,
        exemplar,
    })
}

/// Where name and labels end. They are only delimited here.
#[inline]
fn series_end(line: &[u8], start: usize, dialect: Dialect) -> Result<usize, At> {
    let no_value = || malformed(line.len(), "the line has no value");
    let open = memchr3(b'{', b' ', b'\t', &line[start..]).ok_or_else(no_value)? + start;
    let open = if line[open] == b'{' {
        open
    } else {
        // Blanks may stand between name and labels.
        let next = skip_blanks(line, open);
        if line.get(next) != Some(&b'{') {
            return Ok(open);
        }
        next
    };
    let never_closed = || malformed(line.len(), "the labels are never closed");
    if dialect == Dialect::Prometheus || memchr(b'#', &line[open..]).is_none() {
        // Neither value nor timestamp has a brace.
        let close = memrchr(b'}', &line[open..]).ok_or_else(never_closed)?;
        return Ok(open + close + 1);
    }
    let mut pos = open + 1;
    loop {
        pos += memchr2(b'"', b'}', line.get(pos..).unwrap_or_default()).ok_or_else(never_closed)?;
        if line[pos] == b'}' {
            return Ok(pos + 1);
        }
        pos = string_end(line, pos + 1).ok_or_else(never_closed)? + 1;
    }
}

/// Position of the quote that ends the string whose content begins at `pos`.
fn string_end(line: &[u8], mut pos: usize) -> Option<usize> {
    loop {
        pos += memchr2(b'"', b'\\', line.get(pos..)?)?;
        if line[pos] == b'"' {
            return Some(pos);
        }
        pos += 2;
    }
}

#[inline]
fn value(line: &[u8], pos: usize) -> Result<(f64, usize), At> {
    let ends = |end: usize| line.get(end).copied().is_none_or(is_blank);
    if let Some(number) = scan_decimal(line, pos, Grammar::Lenient)
        && ends(number.end)
    {
        return Ok((number.value, number.end));
    }
    special_value(line, pos)
}

#[cold]
fn special_value(line: &[u8], pos: usize) -> Result<(f64, usize), At> {
    let end = memchr2(b' ', b'\t', &line[pos..]).map_or(line.len(), |n| pos + n);
    let token = &line[pos..end];
    if token.is_empty() {
        return Err(malformed(pos, "the line has no value"));
    }
    let (negative, word) = match token {
        [b'-', word @ ..] => (true, word),
        [b'+', word @ ..] => (false, word),
        word => (false, word),
    };
    let is = |text: &str| word.eq_ignore_ascii_case(text.as_bytes());
    let value = if is("nan") && word.len() == token.len() {
        f64::NAN
    } else if is("inf") || is("infinity") {
        f64::INFINITY
    } else {
        return Err(malformed(pos, "the value is no number"));
    };
    Ok((if negative { -value } else { value }, end))
}

/// Seconds with a fraction, exactly.
fn seconds(token: &[u8]) -> Option<TimestampMs> {
    if let Some(whole) = parse_i64(token) {
        return Precision::Seconds.to_ms(whole);
    }
    let number = scan_decimal(token, 0, Grammar::Json)?;
    (number.end == token.len())
        .then(|| Precision::Seconds.decimal_to_ms(token))
        .flatten()
}

/// What stands behind a `#`; `None` for an ordinary comment.
fn comment(line: &[u8], pos: usize) -> Result<Option<Event<'_>>, At> {
    let (keyword, pos) = token(line, pos);
    match keyword {
        b"EOF" => return Ok(Some(Event::Eof)),
        b"HELP" | b"TYPE" | b"UNIT" => {}
        _ => return Ok(None),
    }
    let start = skip_blanks(line, pos);
    let (metric, pos) = if line.get(start) == Some(&b'"') {
        let end = string_end(line, start + 1);
        let end = end.ok_or_else(|| malformed(line.len(), "the name is never closed"))?;
        (&line[start + 1..end], end + 1)
    } else {
        token(line, start)
    };
    if metric.is_empty() {
        return Err(malformed(start, "a metric's name is missing here"));
    }
    if keyword == b"HELP" {
        let from = skip_blanks(line, pos);
        return Ok(Some(Event::Help(metric, &line[from..])));
    }
    let (word, end) = token(line, pos);
    if skip_blanks(line, end) != line.len() {
        return Err(malformed(end, "bytes behind the end of the comment"));
    }
    if keyword == b"UNIT" {
        return Ok(Some(Event::Unit(metric, word)));
    }
    let kind = match word {
        b"counter" => MetricType::Counter,
        b"gauge" => MetricType::Gauge,
        b"histogram" => MetricType::Histogram,
        b"gaugehistogram" => MetricType::GaugeHistogram,
        b"summary" => MetricType::Summary,
        b"info" => MetricType::Info,
        b"stateset" => MetricType::StateSet,
        b"untyped" | b"unknown" => MetricType::Unknown,
        _ => return Err(malformed(pos, "a type of metric that there is not")),
    };
    Ok(Some(Event::Type(metric, kind)))
}

/// The word at `pos`, blanks in front of it left out, and where it ends.
fn token(line: &[u8], pos: usize) -> (&[u8], usize) {
    let start = skip_blanks(line, pos);
    let end = memchr2(b' ', b'\t', &line[start..]).map_or(line.len(), |n| start + n);
    (&line[start..end], end)
}
