//! One JSON item: what its keys say, and what of that makes it useless.

use std::borrow::Cow;

use millrace_model::METRIC_NAME;

use super::scan::{Cursor, JsonStr, JsonType, Scalar, SyntaxError};
use crate::report::{Reason, excerpt};
use crate::series::{BadSeries, Key, KeyHasher, SeriesBuilder, combine};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Device,
    Tags,
    Timestamp,
    Fields,
}

impl Part {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Device, "device"),
        (Self::Tags, "tags"),
        (Self::Timestamp, "timestamp"),
        (Self::Fields, "fields"),
    ];
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Time<'a> {
    #[default]
    Absent,
    Number {
        raw: &'a [u8],
        integer: bool,
    },
    Text(JsonStr<'a>),
}

/// One item as it was read, its fields aside.
#[derive(Debug, Default)]
pub(super) struct Item<'a> {
    seen: [bool; Part::ALL.len()],
    pub(super) device: Option<JsonStr<'a>>,
    /// The object of the tags, braces included.
    pub(super) tags: Option<&'a [u8]>,
    pub(super) time: Time<'a>,
    /// The first thing that makes it useless.
    pub(super) bad: Option<BadSeries>,
}

impl<'a> Item<'a> {
    #[cold]
    pub(super) fn spoil(&mut self, bad: impl FnOnce() -> BadSeries) {
        self.bad.get_or_insert_with(bad);
    }

    #[inline]
    pub(super) fn part(&mut self, key: JsonStr<'_>) -> Option<Part> {
        let found = Part::ALL.iter().find(|(_, word)| key.is(word));
        let Some((part, word)) = found else {
            self.spoil(|| {
                BadSeries::new(
                    Reason::UnknownKey,
                    format!(
                        "key {:?} is none of device, tags, timestamp, fields",
                        excerpt(key.raw)
                    ),
                )
            });
            return None;
        };
        if std::mem::replace(&mut self.seen[*part as usize], true) {
            self.spoil(|| BadSeries::new(Reason::DuplicateKey, format!("{word:?} comes twice")));
        }
        Some(*part)
    }

    #[inline]
    pub(super) fn read_device(&mut self, cursor: &mut Cursor<'a>) -> Result<(), SyntaxError> {
        let found = cursor.peek_type()?;
        if found == JsonType::String {
            self.device = Some(cursor.string()?);
        } else {
            cursor.skip_value()?;
            self.spoil(|| wrong_type("\"device\"", JsonType::String, found));
        }
        Ok(())
    }

    #[inline]
    pub(super) fn read_tags(&mut self, cursor: &mut Cursor<'a>) -> Result<(), SyntaxError> {
        let found = cursor.peek_type()?;
        let start = cursor.pos;
        cursor.skip_value()?;
        if found == JsonType::Object {
            self.tags = Some(&cursor.text[start..cursor.pos]);
        } else {
            self.spoil(|| wrong_type("\"tags\"", JsonType::Object, found));
        }
        Ok(())
    }

    #[inline]
    pub(super) fn read_timestamp(&mut self, cursor: &mut Cursor<'a>) -> Result<(), SyntaxError> {
        let found = cursor.peek_type()?;
        let start = cursor.pos;
        match found {
            JsonType::Number | JsonType::String => match cursor.scalar()? {
                Scalar::String(text) => self.time = Time::Text(text),
                Scalar::Number(number) => {
                    self.time = Time::Number {
                        raw: &cursor.text[start..cursor.pos],
                        integer: number.integer,
                    };
                }
                Scalar::Null | Scalar::Boolean(_) => {}
            },
            JsonType::Null | JsonType::Boolean | JsonType::Array | JsonType::Object => {
                cursor.skip_value()?;
                self.spoil(|| {
                    BadSeries::new(
                        Reason::UnsupportedType,
                        format!(
                            "\"timestamp\" is {}, expected a number or an RFC 3339 string",
                            found.as_str()
                        ),
                    )
                });
            }
        }
        Ok(())
    }
}

/// The key that all fields of an item share.
#[inline]
pub(super) fn outer_key(device: JsonStr<'_>, tags: Option<&[u8]>, hasher: &KeyHasher) -> Key {
    let tags = tags.map_or(0, |tags| hasher.hash(tags));
    combine(hasher.hash(device.raw), tags)
}

/// What tells the series of a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    pub(super) device: JsonStr<'a>,
    pub(super) tags: Option<&'a [u8]>,
    pub(super) field: JsonStr<'a>,
}

/// Decodes device, tags and the field's name.
pub(super) fn build_labels(
    name: &Name<'_>,
    builder: &mut SeriesBuilder<'_>,
) -> Result<(), BadSeries> {
    builder.label(METRIC_NAME, &decode_text(name.field, "the field's name")?)?;
    let device = decode_text(name.device, "\"device\"")?;
    if device.is_empty() {
        return Err(BadSeries::new(Reason::MissingDevice, "\"device\" is empty"));
    }
    builder.label("device", &device)?;
    let Some(tags) = name.tags else { return Ok(()) };
    let mut cursor = Cursor::new(tags, 1);
    let broken = |error: SyntaxError| BadSeries::new(Reason::MalformedJson, error.what);
    if cursor.take(b'}') {
        return Ok(());
    }
    loop {
        let name = decode_text(cursor.key().map_err(broken)?, "a tag's name")?;
        let found = cursor.peek_type().map_err(broken)?;
        if found != JsonType::String {
            let what = format!("tag {:?}", excerpt(name.as_bytes()));
            return Err(wrong_type(&what, JsonType::String, found));
        }
        let value = decode_text(cursor.string().map_err(broken)?, "a tag's value")?;
        builder.label(&name, &value)?;
        if !cursor.comma_or(b'}').map_err(broken)? {
            return Ok(());
        }
    }
}

fn decode_text<'a>(text: JsonStr<'a>, what: &str) -> Result<Cow<'a, str>, BadSeries> {
    text.decode().ok_or_else(|| {
        BadSeries::new(
            Reason::InvalidUtf8,
            format!("{what} {:?} is no valid Unicode", excerpt(text.raw)),
        )
    })
}

pub(super) fn wrong_type(what: &str, expected: JsonType, found: JsonType) -> BadSeries {
    BadSeries::new(
        Reason::UnsupportedType,
        format!(
            "{what} is {}, expected {}",
            found.as_str(),
            expected.as_str()
        ),
    )
}
