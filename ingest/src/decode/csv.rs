//! CSV with a mapping of columns: `?format=2:metric:ask,3:metric:bid,1:label:ticker,4:time:unix_ms`.
//!
//! Columns count from 1. A column is a metric's value, a label or the time; the others are read
//! over. Fields may stand in double quotes, with `""` for a quote inside; a record ends with its
//! line. An empty value makes no sample, and an empty label no label.
//!
//! A series' key is made of the hashes of its line's label fields as they stand, and its metric's.

use std::borrow::Cow;

use millrace_model::{METRIC_NAME, Sample, TimestampMs};

use crate::number::{Grammar, parse_i64, scan_decimal};
use crate::precision::{Precision, parse_rfc3339};
use crate::report::{Place, Reason, Rejection, excerpt};
use crate::series::{BadSeries, Collector, Entry, KeyHasher, combine, text};
use crate::{IngestError, report};

/// What the columns are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CsvFormat {
    /// (column from 0, name)
    metrics: Vec<(usize, String)>,
    labels: Vec<(usize, String)>,
    time: Option<(usize, TimeFormat)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimeFormat {
    Unix(Precision),
    Rfc3339,
}

impl CsvFormat {
    const MAX_COLUMNS: usize = 1000;

    /// The mapping that `?format=` writes.
    ///
    /// # Errors
    ///
    /// [`IngestError::BadParameter`] for what is none.
    pub(crate) fn parse(format: &str) -> Result<Self, IngestError> {
        let bad = |expected| IngestError::BadParameter {
            name: "format",
            got: report::excerpt(format.as_bytes()),
            expected,
        };
        let mut mapping = Self::default();
        for column in format.split(',') {
            let mut parts = column.splitn(3, ':');
            let mut part = || parts.next().unwrap_or_default();
            let (number, kind, rest) = (part(), part(), part());
            let at = number.parse::<usize>().ok();
            let at = at.filter(|n| (1..=Self::MAX_COLUMNS).contains(n));
            let at = at.ok_or_else(|| bad("columns from 1 to 1000: column:kind:name,…"))? - 1;
            match (kind, rest) {
                ("metric" | "label", "") => return Err(bad("a name behind metric: and label:")),
                ("metric", name) => mapping.metrics.push((at, name.to_owned())),
                ("label", name) => mapping.labels.push((at, name.to_owned())),
                ("time", _) if mapping.time.is_some() => return Err(bad("one time column")),
                ("time", format) => mapping.time = Some((at, TimeFormat::parse(format, &bad)?)),
                _ => return Err(bad("metric, label or time as a column's kind")),
            }
        }
        if mapping.metrics.is_empty() {
            return Err(bad("at least one column of kind metric"));
        }
        Ok(mapping)
    }

    /// Words that tell this mapping from every other, as far as series go.
    pub(crate) fn scope(&self) -> String {
        format!("{:?} {:?}", self.metrics, self.labels)
    }
}

impl TimeFormat {
    fn parse(word: &str, bad: &impl Fn(&'static str) -> IngestError) -> Result<Self, IngestError> {
        Ok(match word {
            "unix_s" => Self::Unix(Precision::Seconds),
            "unix_ms" => Self::Unix(Precision::Millis),
            "unix_us" => Self::Unix(Precision::Micros),
            "unix_ns" => Self::Unix(Precision::Nanos),
            "rfc3339" => Self::Rfc3339,
            _ => {
                return Err(bad(
                    "unix_s, unix_ms, unix_us, unix_ns or rfc3339 as the format of the time",
                ));
            }
        })
    }

    fn read(self, field: &[u8]) -> Option<TimestampMs> {
        match self {
            Self::Unix(unit) => match parse_i64(field) {
                Some(whole) => unit.to_ms(whole),
                None => {
                    let number = scan_decimal(field, 0, Grammar::Json)?;
                    (number.end == field.len()).then_some(())?;
                    unit.decimal_to_ms(field)
                }
            },
            Self::Rfc3339 => parse_rfc3339(std::str::from_utf8(field).ok()?),
        }
    }
}

/// Decodes a request body.
///
/// # Errors
///
/// Too many samples. Bad lines are reported, and the others taken.
pub(crate) fn decode(
    body: &[u8],
    format: &CsvFormat,
    hasher: &KeyHasher,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    let mut columns: Vec<&[u8]> = Vec::new();
    let (mut entries, mut samples, mut metrics) = (Vec::new(), Vec::new(), Vec::new());
    for (i, line) in body.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        entries.clear();
        samples.clear();
        metrics.clear();
        let place = Place::Line(i as u64 + 1);
        let read = split(line, &mut columns).and_then(|()| {
            let timestamp = time(&columns, format, out)?;
            let mut labels = 0;
            for (at, _) in &format.labels {
                labels = combine(labels, hasher.hash(field(&columns, *at)?));
            }
            for (index, (at, name)) in format.metrics.iter().enumerate() {
                let raw = unquote(field(&columns, *at)?);
                if raw.is_empty() {
                    continue;
                }
                let value = number(&raw, name)?;
                let sample = samples.len() as u32;
                entries.push(Entry {
                    key: combine(labels, hasher.hash(&(index as u64).to_le_bytes())),
                    place,
                    samples: sample..sample + 1,
                });
                metrics.push(index);
                samples.push(Sample { timestamp, value });
            }
            Ok(())
        });
        if let Err(bad) = read {
            out.count_samples(1)?;
            out.report().reject(bad.reason, 0, || {
                let bad = if bad.value.is_some() {
                    bad
                } else {
                    bad.value(line)
                };
                Rejection::new(place, bad)
            });
            continue;
        }
        out.add_all(&entries, &samples, |i, builder| {
            builder.label(METRIC_NAME, &format.metrics[metrics[i]].1)?;
            for (at, name) in &format.labels {
                let value = unquote(field(&columns, *at)?);
                builder.label(name, text(&value, "label value")?)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn malformed(message: String) -> BadSeries {
    BadSeries::new(Reason::MalformedCsv, message)
}

/// Splits a line; fields keep their quotes.
fn split<'a>(line: &'a [u8], columns: &mut Vec<&'a [u8]>) -> Result<(), BadSeries> {
    columns.clear();
    let mut pos = 0;
    loop {
        let start = pos;
        if line.get(pos) == Some(&b'"') {
            loop {
                let from = pos + 1;
                let quote = memchr::memchr(b'"', line.get(from..).unwrap_or_default());
                let quote = quote.ok_or_else(|| malformed("a quote is never closed".to_owned()))?;
                pos = from + quote + 1;
                if line.get(pos) != Some(&b'"') {
                    break;
                }
            }
        } else {
            pos += memchr::memchr(b',', &line[pos..]).unwrap_or(line.len() - pos);
        }
        columns.push(&line[start..pos]);
        match line.get(pos) {
            None => return Ok(()),
            Some(b',') if columns.len() < CsvFormat::MAX_COLUMNS => pos += 1,
            Some(b',') => {
                let max = CsvFormat::MAX_COLUMNS;
                return Err(malformed(format!("more than {max} columns")).limit(max));
            }
            Some(_) => return Err(malformed(format!("byte {} is behind a quote", pos + 1))),
        }
    }
}

fn field<'a>(columns: &[&'a [u8]], at: usize) -> Result<&'a [u8], BadSeries> {
    columns.get(at).copied().ok_or_else(|| {
        let (have, want) = (columns.len(), at + 1);
        malformed(format!(
            "{have} columns, but the format names column {want}"
        ))
        .limit(want)
    })
}

fn unquote(field: &[u8]) -> Cow<'_, [u8]> {
    let Some(inside) = field
        .strip_prefix(b"\"")
        .and_then(|f| f.strip_suffix(b"\""))
    else {
        return Cow::Borrowed(field);
    };
    if !inside.contains(&b'"') {
        return Cow::Borrowed(inside);
    }
    let mut out = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        out.push(*byte);
        if *byte == b'"' {
            // Quotes inside come in pairs, or `split` would have ended the field there.
            bytes.next();
        }
    }
    Cow::Owned(out)
}

fn time(
    columns: &[&[u8]],
    format: &CsvFormat,
    out: &Collector<'_>,
) -> Result<TimestampMs, BadSeries> {
    let Some((at, format)) = format.time else {
        return Ok(out.context().arrival);
    };
    let raw = unquote(field(columns, at)?);
    let timestamp = format.read(&raw).ok_or_else(|| {
        let message = format!("{:?} is no time of this format", excerpt(&raw));
        BadSeries::new(Reason::BadTimestamp, message).value(&raw)
    })?;
    out.check_time(timestamp)?;
    Ok(timestamp)
}

fn number(raw: &[u8], metric: &str) -> Result<f64, BadSeries> {
    let number = scan_decimal(raw, 0, Grammar::Lenient).filter(|n| n.end == raw.len());
    number.map(|n| n.value).ok_or_else(|| {
        let message = format!(
            "the value {:?} of {:?} is no number",
            excerpt(raw),
            excerpt(metric.as_bytes())
        );
        malformed(message).value(raw)
    })
}

#[cfg(test)]
mod tests;
