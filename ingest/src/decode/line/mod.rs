//! Influx line protocol: `weather,site=a wind=7` becomes a sample of `weather_wind{site="a"}`.
//!
//! The grammar is in [`scan`]. A series' key is the hash of measurement and
//! tags as they stand, combined with that of the field's key; so lines with their tags in another
//! order find the same series through another entry.

mod scan;

use std::borrow::Cow;

use millrace_model::{METRIC_NAME, Sample, TimestampMs};

use crate::IngestError;
use crate::options::StringFields;
use crate::precision::Precision;
use crate::report::{Place, Reason, Rejection, excerpt};
use crate::series::{BadSeries, Collector, Entry, KeyHasher, SeriesBuilder, combine, text};
use scan::{Field, LineError, Point, Span, escape_len, resynchronise, scan_line};

/// How the lines of a request are to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineOptions<'a> {
    /// The unit of the timestamps.
    pub(crate) precision: Precision,
    /// Stands between measurement and field.
    pub(crate) separator: &'a str,
    pub(crate) string_fields: StringFields,
    /// A label that every series gets unless it has a tag of that name.
    pub(crate) database: Option<(&'a str, &'a str)>,
}

/// Buffers kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct LineScratch {
    /// Fields of the line in hand.
    fields: Vec<Field>,
    /// Samples that wait to be looked up together, one each.
    entries: Vec<Entry>,
    samples: Vec<Sample>,
    /// Of each of them measurement and tags, and the field's key.
    names: Vec<(Span, Span)>,
}

impl LineScratch {
    /// Enough for their cache misses to overlap; few enough for their bytes to be still near.
    const TOGETHER: usize = 64;

    fn clear(&mut self) {
        self.entries.clear();
        self.samples.clear();
        self.names.clear();
    }

    /// Hands over the samples that wait.
    fn flush(
        &mut self,
        body: &[u8],
        options: &LineOptions<'_>,
        out: &mut Collector<'_>,
    ) -> Result<(), IngestError> {
        out.add_all(&self.entries, &self.samples, |i, builder| {
            let (key, field) = self.names[i];
            build_labels(key.of(body), field.of(body), options, builder)
        })?;
        self.clear();
        Ok(())
    }
}

/// Decodes a request body.
///
/// # Errors
///
/// Too many samples. Bad lines are reported, and the others taken.
pub(crate) fn decode(
    body: &[u8],
    options: &LineOptions<'_>,
    hasher: &KeyHasher,
    scratch: &mut LineScratch,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    let mut pos = 0;
    let mut line_number = 1;
    let max_fields = out.context().limits.samples;
    scratch.clear();
    while pos < body.len() {
        let place = Place::Line(line_number);
        match scan_line(body, pos, max_fields, &mut scratch.fields) {
            Ok(line) => {
                if let Some(point) = line.point {
                    let item = Item {
                        body,
                        point,
                        place,
                        options,
                    };
                    item.add(scratch, hasher, out)?;
                    if scratch.entries.len() >= LineScratch::TOGETHER {
                        scratch.flush(body, options, out)?;
                    }
                }
                line_number += 1 + line.inner_newlines;
                pos = line.next;
            }
            Err(error) => {
                // What was read of it was work; and a line of too many fields ends here.
                out.count_samples(scratch.fields.len().max(1))?;
                let (next, newlines) = resynchronise(body, pos);
                refuse_line(body, pos, next, place, error, out);
                // The last line may end without a newline.
                line_number += newlines.max(1);
                pos = next;
            }
        }
    }
    scratch.flush(body, options, out)
}

#[cold]
fn refuse_line(
    body: &[u8],
    start: usize,
    next: usize,
    place: Place,
    error: LineError,
    out: &mut Collector<'_>,
) {
    let line = body[start..next].trim_ascii_end();
    out.report().reject(error.reason, 0, || {
        let message = format!(
            "{} (byte {} of the line: {:?})",
            error.what,
            error.at - start + 1,
            excerpt(line)
        );
        Rejection::new(place, BadSeries::new(error.reason, message).value(line))
    });
}

/// A line that could be read, fields aside.
struct Item<'a> {
    body: &'a [u8],
    point: Point,
    place: Place,
    options: &'a LineOptions<'a>,
}

impl Item<'_> {
    #[inline]
    fn add(
        &self,
        scratch: &mut LineScratch,
        hasher: &KeyHasher,
        out: &mut Collector<'_>,
    ) -> Result<(), IngestError> {
        let timestamp = match self.timestamp(out) {
            Ok(timestamp) => timestamp,
            Err(bad) => return self.refuse(bad, &scratch.fields, out),
        };
        let key = self.point.key;
        let outer = hasher.hash(key.of(self.body));
        for field in &scratch.fields {
            let Some(value) = field.value else {
                match self.options.string_fields {
                    StringFields::Skip => out.ignore_string_fields(1),
                    StringFields::Reject => self.refuse_string(field, out),
                }
                continue;
            };
            let index = scratch.samples.len() as u32;
            scratch.entries.push(Entry {
                key: combine(outer, hasher.hash(field.name.of(self.body))),
                place: self.place,
                samples: index..index + 1,
            });
            scratch.samples.push(Sample { timestamp, value });
            scratch.names.push((key, field.name));
        }
        Ok(())
    }

    #[inline]
    fn timestamp(&self, out: &Collector<'_>) -> Result<TimestampMs, BadSeries> {
        let Some(count) = self.point.timestamp else {
            return Ok(out.context().arrival);
        };
        let timestamp = self.options.precision.to_ms(count).ok_or_else(|| {
            BadSeries::new(
                Reason::BadTimestamp,
                format!("timestamp {count} does not fit milliseconds in 64 bits"),
            )
        })?;
        out.check_time(timestamp)?;
        Ok(timestamp)
    }

    #[cold]
    fn refuse(
        &self,
        bad: BadSeries,
        fields: &[Field],
        out: &mut Collector<'_>,
    ) -> Result<(), IngestError> {
        let samples = fields.iter().filter(|f| f.value.is_some()).count();
        out.count_samples(samples)?;
        out.report().reject(bad.reason, samples, || {
            Rejection::new(self.place, bad).of_series(Some(excerpt(self.point.key.of(self.body))))
        });
        Ok(())
    }

    #[cold]
    fn refuse_string(&self, field: &Field, out: &mut Collector<'_>) {
        out.report().reject(Reason::StringField, 1, || Rejection {
            place: self.place,
            series: Some(excerpt(self.point.key.of(self.body))),
            field: Some(excerpt(field.name.of(self.body))),
            reason: Reason::StringField,
            value: None,
            limit: None,
            message: "string fields are not stored".to_owned(),
            line: None,
        });
    }
}

/// Takes measurement, tags and field key apart.
fn build_labels(
    key: &[u8],
    field: &[u8],
    options: &LineOptions<'_>,
    builder: &mut SeriesBuilder<'_>,
) -> Result<(), BadSeries> {
    let (measurement, mut rest) = split_unescaped(key, b',');
    if measurement.is_empty() {
        return Err(malformed("the line has no measurement"));
    }
    let measurement = unescape(text(measurement, "measurement")?, false);
    let field = unescape(text(field, "field key")?, true);
    let metric = match &*field {
        "value" => measurement.into_owned(),
        field => format!("{measurement}{}{field}", options.separator),
    };
    builder.label(METRIC_NAME, &metric)?;
    let mut database = options.database;
    while let Some(tags) = rest {
        let (tag, behind) = split_unescaped(tags, b',');
        rest = behind;
        let (name, value) = tag_parts(tag)?;
        database = database.filter(|(label, _)| *label != name);
        builder.label(&name, &value)?;
    }
    if let Some((label, name)) = database {
        builder.label(label, name)?;
    }
    Ok(())
}

fn tag_parts(tag: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>), BadSeries> {
    let shown = || excerpt(tag);
    let (name, value) = split_unescaped(tag, b'=');
    let Some(value) = value else {
        return Err(malformed(&format!("tag {:?} has no '='", shown())));
    };
    if name.is_empty() {
        return Err(malformed(&format!("tag {:?} has no key", shown())));
    }
    if value.is_empty() {
        return Err(BadSeries::new(
            Reason::EmptyTagValue,
            format!("tag {:?} has no value", shown()),
        )
        .value(tag));
    }
    if split_unescaped(value, b'=').1.is_some() {
        return Err(malformed(&format!(
            "tag {:?} has a second '=' without a backslash",
            shown()
        )));
    }
    Ok((
        unescape(text(name, "tag key")?, true),
        unescape(text(value, "tag value")?, true),
    ))
}

fn malformed(message: &str) -> BadSeries {
    BadSeries::new(Reason::MalformedLine, message)
}

/// What stands before the first `separator` that is not escaped, and what behind it.
fn split_unescaped(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let mut pos = 0;
    while pos < bytes.len() {
        if bytes[pos] == separator {
            return (&bytes[..pos], Some(&bytes[pos + 1..]));
        }
        pos += if bytes[pos] == b'\\' {
            escape_len(bytes, pos)
        } else {
            1
        };
    }
    (bytes, None)
}

/// Resolves escapes; a measurement knows none for `=`.
fn unescape(text: &str, equals: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escapes = |next: &char| matches!(next, ',' | ' ') || (equals && *next == '=');
        match chars.next_if(|next| c == '\\' && escapes(next)) {
            Some(escaped) => out.push(escaped),
            None => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
