//! OTLP's JSON, written as the protobuf message that it stands for.
//!
//! What JSON for protobuf allows is taken as OTLP narrows it: names in lowerCamelCase, enumerations as
//! numbers (and as their names, which OpenTelemetry's own exporters never send), 64-bit integers as
//! strings or numbers, floats also as `"NaN"`, `"Infinity"` and `"-Infinity"`; unknown names are passed
//! over. `null` is the same as nothing.
//!
//! The text is read once, from front to back, into one buffer: a message's length takes five bytes,
//! which are filled in when it is known. Nesting is bounded by the JSON parser.

use std::fmt;

use millrace_model::write_varint;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::IngestError;
use crate::memory::Reservation;
use crate::report::excerpt;

/// What the value under a name is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Message(&'static Message),
    Text,
    /// Base64.
    Bytes,
    Double,
    /// Unsigned or signed, in eight bytes.
    Fixed64,
    /// Signed or unsigned, as a varint; booleans too.
    Varint,
    /// Numbers in one run.
    PackedDouble,
    PackedFixed64,
}

#[derive(Debug)]
struct Message {
    fields: &'static [(&'static str, u8, Kind)],
}

static REQUEST: Message = Message {
    fields: &[("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS))],
};
static RESOURCE_METRICS: Message = Message {
    fields: &[
        ("resource", 1, Kind::Message(&RESOURCE)),
        ("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS)),
        ("schemaUrl", 3, Kind::Text),
    ],
};
static RESOURCE: Message = Message {
    fields: &[("attributes", 1, Kind::Message(&KEY_VALUE))],
};
static KEY_VALUE: Message = Message {
    fields: &[
        ("key", 1, Kind::Text),
        ("value", 2, Kind::Message(&ANY_VALUE)),
    ],
};
static ANY_VALUE: Message = Message {
    fields: &[
        ("stringValue", 1, Kind::Text),
        ("boolValue", 2, Kind::Varint),
        ("intValue", 3, Kind::Varint),
        ("doubleValue", 4, Kind::Double),
        ("arrayValue", 5, Kind::Message(&ARRAY)),
        ("kvlistValue", 6, Kind::Message(&KVLIST)),
        ("bytesValue", 7, Kind::Bytes),
    ],
};
static ARRAY: Message = Message {
    fields: &[("values", 1, Kind::Message(&ANY_VALUE))],
};
static KVLIST: Message = Message {
    fields: &[("values", 1, Kind::Message(&KEY_VALUE))],
};
static SCOPE_METRICS: Message = Message {
    fields: &[
        ("scope", 1, Kind::Message(&SCOPE)),
        ("metrics", 2, Kind::Message(&METRIC)),
        ("schemaUrl", 3, Kind::Text),
    ],
};
static SCOPE: Message = Message {
    fields: &[
        ("name", 1, Kind::Text),
        ("version", 2, Kind::Text),
        ("attributes", 3, Kind::Message(&KEY_VALUE)),
    ],
};
static METRIC: Message = Message {
    fields: &[
        ("name", 1, Kind::Text),
        ("description", 2, Kind::Text),
        ("unit", 3, Kind::Text),
        ("gauge", 5, Kind::Message(&GAUGE)),
        ("sum", 7, Kind::Message(&SUM)),
        ("histogram", 9, Kind::Message(&HISTOGRAM)),
        ("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL)),
        ("summary", 11, Kind::Message(&SUMMARY)),
    ],
};
static GAUGE: Message = Message {
    fields: &[("dataPoints", 1, Kind::Message(&NUMBER_POINT))],
};
static SUM: Message = Message {
    fields: &[
        ("dataPoints", 1, Kind::Message(&NUMBER_POINT)),
        ("aggregationTemporality", 2, Kind::Varint),
        ("isMonotonic", 3, Kind::Varint),
    ],
};
static NUMBER_POINT: Message = Message {
    fields: &[
        ("startTimeUnixNano", 2, Kind::Fixed64),
        ("timeUnixNano", 3, Kind::Fixed64),
        ("asDouble", 4, Kind::Double),
        ("exemplars", 5, Kind::Message(&NOTHING)),
        ("asInt", 6, Kind::Fixed64),
        ("attributes", 7, Kind::Message(&KEY_VALUE)),
        ("flags", 8, Kind::Varint),
    ],
};
static HISTOGRAM: Message = Message {
    fields: &[
        ("dataPoints", 1, Kind::Message(&HISTOGRAM_POINT)),
        ("aggregationTemporality", 2, Kind::Varint),
    ],
};
static HISTOGRAM_POINT: Message = Message {
    fields: &[
        ("startTimeUnixNano", 2, Kind::Fixed64),
        ("timeUnixNano", 3, Kind::Fixed64),
        ("count", 4, Kind::Fixed64),
        ("sum", 5, Kind::Double),
        ("bucketCounts", 6, Kind::PackedFixed64),
        ("explicitBounds", 7, Kind::PackedDouble),
        ("exemplars", 8, Kind::Message(&NOTHING)),
        ("attributes", 9, Kind::Message(&KEY_VALUE)),
        ("flags", 10, Kind::Varint),
    ],
};
/// Its points are counted and refused, so nothing of them matters.
static EXPONENTIAL: Message = Message {
    fields: &[
        ("dataPoints", 1, Kind::Message(&NOTHING)),
        ("aggregationTemporality", 2, Kind::Varint),
    ],
};
static SUMMARY: Message = Message {
    fields: &[("dataPoints", 1, Kind::Message(&SUMMARY_POINT))],
};
static SUMMARY_POINT: Message = Message {
    fields: &[
        ("startTimeUnixNano", 2, Kind::Fixed64),
        ("timeUnixNano", 3, Kind::Fixed64),
        ("count", 4, Kind::Fixed64),
        ("sum", 5, Kind::Double),
        ("quantileValues", 6, Kind::Message(&QUANTILE)),
        ("attributes", 7, Kind::Message(&KEY_VALUE)),
        ("flags", 8, Kind::Varint),
    ],
};
static QUANTILE: Message = Message {
    fields: &[("quantile", 1, Kind::Double), ("value", 2, Kind::Double)],
};
static NOTHING: Message = Message { fields: &[] };

/// The protobuf message of a JSON text.
///
/// # Errors
///
/// [`IngestError::MalformedBody`] with line and column if it is no such text; no memory for it.
pub(crate) fn from_json(text: &[u8], memory: &mut Reservation) -> Result<Vec<u8>, IngestError> {
    // A name and a brace of JSON make six bytes at most for every three of theirs.
    memory.grow(text.len().saturating_mul(2))?;
    let mut out = Vec::with_capacity(text.len() / 2);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let fields = Fields {
        message: &REQUEST,
        out: &mut out,
    };
    let read = fields.deserialize(&mut deserializer);
    read.and_then(|()| deserializer.end())
        .map_err(|error| IngestError::MalformedBody {
            reason: "malformed_json",
            detail: format!(
                "not an OTLP metrics request in JSON: {}",
                excerpt(error.to_string().as_bytes())
            ),
        })?;
    Ok(out)
}

/// Writes a length-delimited field whose content `fill` writes.
fn delimited<E>(
    out: &mut Vec<u8>,
    number: u8,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    out.push(number << 3 | 2);
    let head = out.len();
    out.extend([0x80, 0x80, 0x80, 0x80, 0x00]);
    fill(out)?;
    let len = out.len() - head - 5;
    for (i, byte) in out[head..head + 5].iter_mut().enumerate() {
        // Seven bits each; bodies are bounded far below 35 bits.
        *byte |= ((len >> (7 * i)) & 0x7f) as u8;
    }
    Ok(())
}

/// The fields of a message, from a JSON object.
struct Fields<'o> {
    message: &'static Message,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let field = self.message.fields.iter().find(|(n, ..)| *n == name);
            let Some((_, number, kind)) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            map.next_value_seed(Field {
                number: *number,
                kind: *kind,
                out: self.out,
            })?;
        }
        Ok(())
    }
}

/// The value under one name.
struct Field<'o> {
    number: u8,
    kind: Kind,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Field<'_> {
    fn int<E: serde::de::Error>(self, bits: u64, float: f64) -> Result<(), E> {
        let Self { number, kind, out } = self;
        match kind {
            Kind::Varint => {
                out.push(number << 3);
                write_varint(out, bits);
            }
            Kind::Fixed64 => {
                out.push(number << 3 | 1);
                out.extend_from_slice(&bits.to_le_bytes());
            }
            Kind::PackedFixed64 => out.extend_from_slice(&bits.to_le_bytes()),
            Kind::Double => {
                out.push(number << 3 | 1);
                out.extend_from_slice(&float.to_le_bytes());
            }
            Kind::PackedDouble => out.extend_from_slice(&float.to_le_bytes()),
            Kind::Message(_) | Kind::Text | Kind::Bytes => {
                return Err(E::custom("a number stands where there is none"));
            }
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Message(_) => "an object, or a list of such",
            Kind::Text => "a string",
            Kind::Bytes => "a string in base64",
            Kind::Double | Kind::PackedDouble => "a number",
            Kind::Fixed64 | Kind::PackedFixed64 | Kind::Varint => "a whole number",
        })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match self.kind {
            Kind::Varint => self.int(u64::from(value), 0.0),
            _ => Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self)),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.int(value, value as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.int(value as u64, value as f64)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        match self.kind {
            Kind::Double | Kind::PackedDouble => self.int(0, value),
            // As JSON for protobuf has it: 1.0 and 1e3 are whole numbers too.
            Kind::Fixed64 | Kind::PackedFixed64 | Kind::Varint
                if value.fract() == 0.0 && value.abs() < 9e15 =>
            {
                self.int(value as i64 as u64, value)
            }
            _ => Err(E::invalid_type(serde::de::Unexpected::Float(value), &self)),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let invalid = |field: &Self| {
            Err(E::invalid_value(
                serde::de::Unexpected::Str(&excerpt(text.as_bytes())),
                field,
            ))
        };
        match self.kind {
            Kind::Text => delimited(self.out, self.number, |out| {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }),
            Kind::Bytes => match crate::base64::decode(text) {
                Some(bytes) => delimited(self.out, self.number, |out| {
                    out.extend_from_slice(&bytes);
                    Ok(())
                }),
                None => invalid(&self),
            },
            Kind::Double | Kind::PackedDouble => match text {
                "NaN" => self.int(0, f64::NAN),
                "Infinity" => self.int(0, f64::INFINITY),
                "-Infinity" => self.int(0, f64::NEG_INFINITY),
                _ => match text.parse() {
                    Ok(value) => self.int(0, value),
                    Err(_) => invalid(&self),
                },
            },
            Kind::Fixed64 | Kind::PackedFixed64 | Kind::Varint => {
                let unsigned = text.parse::<u64>().ok();
                let bits = unsigned.or_else(|| text.parse::<i64>().ok().map(|n| n as u64));
                match (bits, text) {
                    (Some(bits), _) => self.int(bits, 0.0),
                    (None, "AGGREGATION_TEMPORALITY_UNSPECIFIED") => self.int(0, 0.0),
                    (None, "AGGREGATION_TEMPORALITY_DELTA") => self.int(1, 0.0),
                    (None, "AGGREGATION_TEMPORALITY_CUMULATIVE") => self.int(2, 0.0),
                    (None, _) => invalid(&self),
                }
            }
            Kind::Message(_) => invalid(&self),
        }
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<(), M::Error> {
        let Kind::Message(message) = self.kind else {
            return Err(M::Error::invalid_type(serde::de::Unexpected::Map, &self));
        };
        delimited(self.out, self.number, |out| {
            Fields { message, out }.visit_map(map)
        })
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
        let Self { number, kind, out } = self;
        match kind {
            Kind::Message(_) => {
                while items
                    .next_element_seed(Field {
                        number,
                        kind,
                        out: &mut *out,
                    })?
                    .is_some()
                {}
                Ok(())
            }
            Kind::PackedDouble | Kind::PackedFixed64 => delimited(out, number, |out| {
                while items
                    .next_element_seed(Field {
                        number,
                        kind,
                        out: &mut *out,
                    })?
                    .is_some()
                {}
                Ok(())
            }),
            Kind::Text | Kind::Bytes | Kind::Double | Kind::Fixed64 | Kind::Varint => {
                Err(S::Error::custom("a list stands where there is none"))
            }
        }
    }
}
