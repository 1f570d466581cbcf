//! JSON of devices.
//!
//! ```json
//! {"device": "pump-7", "tags": {"site": "north"}, "timestamp": 1795233600000,
//!  "fields": {"temperature": 21.5, "running": true}}
//! ```
//!
//! becomes a sample of `temperature{device="pump-7",site="north"}` and one of `running{…}`. A body
//! is one such object, an array of them, or one a line (NDJSON). Read in one pass; the raw bytes
//! of `device`, `tags` and of a field's name are its series' key, so they are decoded only when the
//! series is not known.

mod item;
mod scan;

use std::collections::HashSet;

use millrace_model::{Sample, TimestampMs};

use item::{Item, Name, Part, Time, build_labels, outer_key, wrong_type};
use scan::{Cursor, JsonStr, JsonType, Scalar, SyntaxError, line_and_column};

use crate::IngestError;
use crate::precision::{Precision, parse_rfc3339};
use crate::report::{Place, Reason, Rejection, excerpt};
use crate::series::{BadSeries, Collector, Entry, KeyHasher, combine};

/// How the items of a request are to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonOptions {
    /// The unit of timestamps that are numbers.
    pub(crate) precision: Precision,
    /// Whether the request says that it is NDJSON. Else it is found out by looking.
    pub(crate) lines: bool,
}

/// Buffers kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct JsonScratch {
    /// Samples that wait to be looked up together, one each.
    entries: Vec<Entry>,
    samples: Vec<Sample>,
}

/// A field of the item in hand.
#[derive(Clone, Copy, Debug)]
struct Field<'b> {
    name: JsonStr<'b>,
    value: FieldValue,
}

#[derive(Clone, Copy, Debug)]
enum FieldValue {
    Number(f64),
    OutOfRange,
    Other(JsonType),
}

/// Decodes a request body.
///
/// # Errors
///
/// [`IngestError::MalformedBody`] if a document is not JSON; too many samples. Bad items, and bad
/// lines of NDJSON, are reported, and the others taken.
pub(crate) fn decode(
    body: &[u8],
    options: &JsonOptions,
    hasher: &KeyHasher,
    scratch: &mut JsonScratch,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    scratch.entries.clear();
    scratch.samples.clear();
    let mut decoder = Decoder {
        options,
        hasher,
        fields: Vec::new(),
        names: Vec::new(),
        scratch,
        out,
    };
    if options.lines || looks_like_lines(body) {
        decoder.lines(body)?;
    } else {
        decoder.document(body)?;
    }
    decoder.flush()
}

/// Whether one object ends with the first line and another begins with the next. (Inside one
/// object or array spread over lines, no line that ends in `}` is followed by one that begins
/// with `{`, since a comma is between them.)
fn looks_like_lines(body: &[u8]) -> bool {
    let mut lines = body
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let second = lines.next().unwrap_or_default();
    first.starts_with(b"{") && first.ends_with(b"}") && second.starts_with(b"{")
}

struct Decoder<'d, 'c, 'b> {
    options: &'d JsonOptions,
    hasher: &'d KeyHasher,
    fields: Vec<Field<'b>>,
    /// Of each sample in the scratch what tells its series.
    names: Vec<Name<'b>>,
    scratch: &'d mut JsonScratch,
    out: &'d mut Collector<'c>,
}

impl<'b> Decoder<'_, '_, 'b> {
    /// Enough for their cache misses to overlap; few enough for their bytes to be still near.
    const TOGETHER: usize = 64;

    fn lines(&mut self, body: &'b [u8]) -> Result<(), IngestError> {
        let mut start = 0;
        let mut number = 0;
        while start < body.len() {
            number += 1;
            let end = memchr::memchr(b'\n', &body[start..]).map_or(body.len(), |n| start + n);
            self.line(&body[start..end], Place::Line(number))?;
            start = end + 1;
        }
        Ok(())
    }

    fn line(&mut self, line: &'b [u8], place: Place) -> Result<(), IngestError> {
        let mut cursor = Cursor::new(line, 0);
        if cursor.peek().is_none() {
            return Ok(());
        }
        if let Err(error) = std::str::from_utf8(line) {
            let at = error.valid_up_to() + 1;
            let bad = BadSeries::new(Reason::InvalidUtf8, format!("not UTF-8 at column {at}"));
            self.out.count_samples(1)?;
            self.refuse(bad, 0, place, None);
            return Ok(());
        }
        let item = self.item(&mut cursor).and_then(|item| match cursor.peek() {
            None => Ok(item),
            Some(_) => cursor.error("expected the end of the line behind the object"),
        });
        match item {
            Ok(item) => self.add(&item, place),
            Err(error) => {
                self.count_fields()?;
                let (at, what) = (error.at + 1, error.what);
                let shown = excerpt(line);
                let message = format!("not JSON: {what}, at column {at}: {shown:?}");
                let bad = BadSeries::new(Reason::MalformedJson, message);
                self.refuse(bad, 0, place, None);
                Ok(())
            }
        }
    }

    fn document(&mut self, body: &'b [u8]) -> Result<(), IngestError> {
        if let Err(error) = std::str::from_utf8(body) {
            let (line, column) = line_and_column(body, error.valid_up_to());
            return Err(IngestError::MalformedBody {
                reason: "invalid_utf8",
                detail: format!("the body is not UTF-8 at line {line} column {column}"),
            });
        }
        let malformed = |error: SyntaxError| malformed_document(body, error);
        let mut cursor = Cursor::new(body, 0);
        if cursor.take(b'[') {
            let mut index = 0;
            let mut more = !cursor.take(b']');
            while more {
                let item = self.item(&mut cursor);
                let item = item.or_else(|error| self.count_fields().and(Err(malformed(error))))?;
                self.add(&item, Place::Index(index))?;
                index += 1;
                more = cursor.comma_or(b']').map_err(malformed)?;
            }
        } else {
            let item = self.item(&mut cursor);
            let item = item.or_else(|error| self.count_fields().and(Err(malformed(error))))?;
            self.add(&item, Place::Index(0))?;
        }
        if cursor.peek().is_some() {
            let what = "expected the end of the body (several objects stand one a line, or in an \
                        array)";
            return Err(malformed(SyntaxError {
                at: cursor.pos,
                what,
            }));
        }
        Ok(())
    }

    /// Counts the fields of an item that is refused, as far as it was read; one of too many fields
    /// ends here.
    fn count_fields(&mut self) -> Result<(), IngestError> {
        self.out.count_samples(self.fields.len().max(1))
    }

    /// Reads one item. Errors are of syntax; what is wrong with its meaning stands in the item.
    #[inline]
    fn item(&mut self, cursor: &mut Cursor<'b>) -> Result<Item<'b>, SyntaxError> {
        self.fields.clear();
        let mut item = Item::default();
        let found = cursor.peek_type()?;
        if found != JsonType::Object {
            cursor.skip_value()?;
            item.spoil(|| wrong_type("the item", JsonType::Object, found));
            return Ok(item);
        }
        cursor.pos += 1;
        if cursor.take(b'}') {
            return Ok(item);
        }
        loop {
            let key = cursor.key()?;
            match item.part(key) {
                Some(Part::Device) => item.read_device(cursor)?,
                Some(Part::Tags) => item.read_tags(cursor)?,
                Some(Part::Timestamp) => item.read_timestamp(cursor)?,
                Some(Part::Fields) => self.read_fields(cursor, &mut item)?,
                None => {
                    cursor.skip_value()?;
                }
            }
            if !cursor.comma_or(b'}')? {
                return Ok(item);
            }
        }
    }

    #[inline]
    fn read_fields(
        &mut self,
        cursor: &mut Cursor<'b>,
        item: &mut Item<'b>,
    ) -> Result<(), SyntaxError> {
        let found = cursor.peek_type()?;
        if found != JsonType::Object {
            cursor.skip_value()?;
            item.spoil(|| wrong_type("\"fields\"", JsonType::Object, found));
            return Ok(());
        }
        cursor.pos += 1;
        if cursor.take(b'}') {
            return Ok(());
        }
        let max_fields = self.out.context().limits.samples;
        loop {
            if self.fields.len() > max_fields {
                return cursor.error("too many fields");
            }
            let name = cursor.key()?;
            let value = match cursor.peek() {
                Some(b'{' | b'[') => FieldValue::Other(cursor.skip_value()?),
                _ => match cursor.scalar()? {
                    Scalar::Number(number) if number.value.is_infinite() => FieldValue::OutOfRange,
                    Scalar::Number(number) => FieldValue::Number(number.value),
                    Scalar::Boolean(value) => FieldValue::Number(f64::from(u8::from(value))),
                    Scalar::Null => FieldValue::Other(JsonType::Null),
                    Scalar::String(_) => FieldValue::Other(JsonType::String),
                },
            };
            self.fields.push(Field { name, value });
            if !cursor.comma_or(b'}')? {
                return Ok(());
            }
        }
    }

    #[inline]
    fn add(&mut self, item: &Item<'b>, place: Place) -> Result<(), IngestError> {
        let (device, timestamp) = match self.check(item) {
            Ok(common) => common,
            Err(bad) => {
                let samples = self.fields.len();
                let device = item.device.map(|device| excerpt(device.raw));
                self.count_fields()?;
                self.refuse(bad, samples, place, device);
                return Ok(());
            }
        };
        let outer = outer_key(device, item.tags, self.hasher);
        for Field { name, value } in &self.fields {
            match *value {
                FieldValue::Number(value) => {
                    let index = self.scratch.samples.len() as u32;
                    self.scratch.entries.push(Entry {
                        key: combine(outer, self.hasher.hash(name.raw)),
                        place,
                        samples: index..index + 1,
                    });
                    self.scratch.samples.push(Sample { timestamp, value });
                    self.names.push(Name {
                        device,
                        tags: item.tags,
                        field: *name,
                    });
                }
                FieldValue::OutOfRange => refuse_field(
                    self.out,
                    place,
                    *name,
                    Reason::NumberOutOfRange,
                    "the number is beyond 64-bit floats".to_owned(),
                )?,
                FieldValue::Other(found) => refuse_field(
                    self.out,
                    place,
                    *name,
                    Reason::UnsupportedType,
                    format!(
                        "the value is {}, only numbers and booleans are stored",
                        found.as_str()
                    ),
                )?,
            }
        }
        if self.names.len() >= Self::TOGETHER {
            self.flush()?;
        }
        Ok(())
    }

    /// Hands over the samples that wait.
    fn flush(&mut self) -> Result<(), IngestError> {
        let (scratch, names) = (&mut *self.scratch, &mut self.names);
        self.out
            .add_all(&scratch.entries, &scratch.samples, |i, builder| {
                build_labels(&names[i], builder)
            })?;
        scratch.entries.clear();
        scratch.samples.clear();
        names.clear();
        Ok(())
    }

    /// What must hold for any of an item's fields to be stored; their device and timestamp.
    #[inline]
    fn check(&self, item: &Item<'b>) -> Result<(JsonStr<'b>, TimestampMs), BadSeries> {
        if let Some(bad) = &item.bad {
            return Err(bad.clone());
        }
        let Some(device) = item.device else {
            return Err(BadSeries::new(
                Reason::MissingDevice,
                "the item has no \"device\"",
            ));
        };
        if self.fields.is_empty() {
            return Err(BadSeries::new(
                Reason::MissingFields,
                "the item has no \"fields\", or none in them",
            ));
        }
        if let Some(name) = repeated_name(&self.fields) {
            return Err(BadSeries::new(
                Reason::DuplicateKey,
                format!("field {name:?} comes twice"),
            ));
        }
        let timestamp = match item.time {
            Time::Absent => return Ok((device, self.out.context().arrival)),
            Time::Number { raw, integer } => self.numeric_time(raw, integer)?,
            Time::Text(text) => text
                .decode()
                .and_then(|text| parse_rfc3339(&text))
                .ok_or_else(|| {
                    BadSeries::new(
                        Reason::BadTimestamp,
                        format!("timestamp {:?} is not RFC 3339", excerpt(text.raw)),
                    )
                })?,
        };
        self.out.check_time(timestamp)?;
        Ok((device, timestamp))
    }

    #[inline]
    fn numeric_time(&self, raw: &[u8], integer: bool) -> Result<TimestampMs, BadSeries> {
        let precision = self.options.precision;
        let timestamp = if integer {
            crate::number::parse_i64(raw).and_then(|count| precision.to_ms(count))
        } else {
            precision.decimal_to_ms(raw)
        };
        timestamp.ok_or_else(|| {
            BadSeries::new(
                Reason::BadTimestamp,
                format!(
                    "timestamp {} does not fit milliseconds in 64 bits",
                    excerpt(raw)
                ),
            )
            .value(raw)
        })
    }

    #[cold]
    fn refuse(&mut self, bad: BadSeries, samples: usize, place: Place, device: Option<String>) {
        self.out.report().reject(bad.reason, samples, || {
            Rejection::new(place, bad).of_series(device.map(|device| format!("device {device:?}")))
        });
    }
}

#[cold]
fn refuse_field(
    out: &mut Collector<'_>,
    place: Place,
    name: JsonStr<'_>,
    reason: Reason,
    message: String,
) -> Result<(), IngestError> {
    out.count_samples(1)?;
    out.report().reject(reason, 1, || Rejection {
        place,
        series: None,
        field: Some(excerpt(name.raw)),
        reason,
        value: None,
        limit: None,
        message,
        line: None,
    });
    Ok(())
}

#[cold]
fn malformed_document(body: &[u8], error: SyntaxError) -> IngestError {
    let (line, column) = line_and_column(body, error.at);
    IngestError::MalformedBody {
        reason: "malformed_json",
        detail: format!(
            "the body is not JSON: {}, at line {line} column {column}",
            error.what
        ),
    }
}

/// A name that two fields of an item have.
#[inline]
fn repeated_name(fields: &[Field<'_>]) -> Option<String> {
    const FEW: usize = 16;
    if fields.len() <= FEW && !fields.iter().any(|field| field.name.escaped) {
        for (i, field) in fields.iter().enumerate() {
            let name = field.name.raw;
            if fields[..i].iter().any(|other| other.name.raw == name) {
                return Some(excerpt(name));
            }
        }
        return None;
    }
    let mut seen = HashSet::with_capacity(fields.len());
    fields
        .iter()
        // What does not decode is refused when its series is made.
        .filter_map(|field| field.name.decode())
        .find_map(|name| (!seen.insert(name.clone())).then(|| excerpt(name.as_bytes())))
}

#[cfg(test)]
mod tests;
