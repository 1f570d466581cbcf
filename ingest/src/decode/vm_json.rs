//! VictoriaMetrics' JSON lines, as `/api/v1/export` writes them:
//!
//! ```text
//! {"metric":{"__name__":"up","job":"node"},"values":[1,0],"timestamps":[1795233600000,1795233615000]}
//! ```
//!
//! Bulk import, not a hot path: a library parses the lines. A series' key is the hash of its
//! `metric` object as it stands.

use std::borrow::Cow;
use std::fmt;

use millrace_model::{Sample, TimestampMs};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::IngestError;
use crate::report::{Place, Reason, Rejection, excerpt};
use crate::series::{BadSeries, Collector, Entry, KeyHasher, SeriesBuilder};

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    metric: &'a RawValue,
    values: Vec<Value>,
    timestamps: Vec<i64>,
}

/// A number, or how an export writes one that JSON does not have.
struct Value(f64);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, null, \"NaN\", \"NaN(<bits>)\" or \"Infinity\"")
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value(value as f64))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value(f64::NAN))
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Value, E> {
        match word.to_ascii_lowercase().as_str() {
            "nan" => Ok(Value(f64::NAN)),
            "inf" | "+inf" | "infinity" | "+infinity" => Ok(Value(f64::INFINITY)),
            "-inf" | "-infinity" => Ok(Value(f64::NEG_INFINITY)),
            lower => payload(lower)
                .map(Value)
                .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(word), &self)),
        }
    }
}

/// The NaN that `nan(<bits>)` names, as `millrace export` writes those that are not the usual one.
fn payload(word: &str) -> Option<f64> {
    let bits = word.strip_prefix("nan(")?.strip_suffix(')')?;
    let value = f64::from_bits(u64::from_str_radix(bits, 16).ok()?);
    value.is_nan().then_some(value)
}

/// Decodes a request body.
///
/// # Errors
///
/// Too many samples. Bad lines are reported, and the others taken.
pub(crate) fn decode(
    body: &[u8],
    hasher: &KeyHasher,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    let mut samples = Vec::new();
    for (i, line) in body.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let place = Place::Line(i as u64 + 1);
        let row = match parse(line) {
            Ok(row) => row,
            Err(bad) => {
                out.count_samples(1)?;
                out.report()
                    .reject(bad.reason, 0, || Rejection::new(place, bad));
                continue;
            }
        };
        samples.clear();
        let pairs = row.timestamps.iter().zip(&row.values);
        samples.extend(pairs.map(|(timestamp, value)| Sample {
            timestamp: TimestampMs(*timestamp),
            value: value.0,
        }));
        let metric = row.metric.get();
        let entry = Entry {
            key: hasher.hash(metric.as_bytes()),
            place,
            // More than 32 bits of samples are more than any body holds.
            samples: 0..samples.len() as u32,
        };
        out.add_all(&[entry], &samples, |_, builder| {
            build_labels(metric, builder)
        })?;
    }
    Ok(())
}

fn parse(line: &[u8]) -> Result<Row<'_>, BadSeries> {
    let bad = |reason, message: String| BadSeries::new(reason, message).value(line);
    let text = std::str::from_utf8(line).map_err(|error| {
        let message = format!("not UTF-8 at column {}", error.valid_up_to() + 1);
        bad(Reason::InvalidUtf8, message)
    })?;
    let row: Row<'_> = serde_json::from_str(text)
        .map_err(|error| bad(Reason::MalformedJson, excerpt(error.to_string().as_bytes())))?;
    if row.values.len() != row.timestamps.len() {
        let (values, timestamps) = (row.values.len(), row.timestamps.len());
        let message = format!("{values} values, but {timestamps} timestamps");
        return Err(bad(Reason::MalformedJson, message));
    }
    if row.values.is_empty() {
        return Err(bad(Reason::MissingValue, "no values".to_owned()));
    }
    Ok(row)
}

/// The labels in the order of the text; a map would swallow names that come twice.
struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs<'de>, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<Cow<'de, str>, Cow<'de, str>>()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

fn build_labels(metric: &str, builder: &mut SeriesBuilder<'_>) -> Result<(), BadSeries> {
    let Pairs(pairs) = serde_json::from_str(metric).map_err(|error| {
        let message = format!(
            "the metric's labels: {}",
            excerpt(error.to_string().as_bytes())
        );
        BadSeries::new(Reason::MalformedJson, message).value(metric.as_bytes())
    })?;
    for (name, value) in &pairs {
        builder.label(name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::probe::ProbeFormat;
    use crate::report::Reason;
    use crate::testing::{NOW, decode_once, refused, shown};

    fn check(body: &str) -> (Vec<String>, Vec<(String, Reason)>) {
        let (stored, report) = decode_once(ProbeFormat::VmJson, body.as_bytes());
        (shown(&stored), refused(&report))
    }

    #[test]
    fn every_value_goes_to_its_timestamp() {
        let body = format!(
            "{{\"metric\":{{\"__name__\":\"up\",\"job\":\"a\"}},\"values\":[1,0.5,null,\"-Infinity\"],\
             \"timestamps\":[{NOW},{},{},{}]}}\n\n",
            NOW + 1,
            NOW + 2,
            NOW + 3
        );
        let (stored, refused) = check(&body);
        assert_eq!(stored, ["up{job=\"a\"} 1 0.5@1 NaN@2 -inf@3"]);
        assert!(refused.is_empty());
    }

    #[test]
    fn bad_lines_are_named_and_the_others_stored() {
        let good =
            format!("{{\"metric\":{{\"__name__\":\"up\"}},\"values\":[1],\"timestamps\":[{NOW}]}}");
        let body = format!(
            "{good}\nnot json\n{{\"metric\":{{\"__name__\":\"b\"}},\"values\":[1,2],\"timestamps\":[{NOW}]}}\n\
             {{\"metric\":{{\"__name__\":\"b\"}},\"values\":[],\"timestamps\":[]}}\n\
             {{\"metric\":{{\"a\":\"b\"}},\"values\":[1],\"timestamps\":[{NOW}]}}\n\
             {{\"metric\":{{\"a\":1}},\"values\":[1],\"timestamps\":[{NOW}]}}\n\
             {{\"metric\":{{\"__name__\":\"b\",\"l\":\"1\",\"l\":\"2\"}},\"values\":[1],\"timestamps\":[{NOW}]}}\n"
        );
        let (stored, refused) = check(&body);
        assert_eq!(stored, ["up 1"]);
        let expect = [
            (2, Reason::MalformedJson),
            (3, Reason::MalformedJson),
            (4, Reason::MissingValue),
            (5, Reason::MissingMetricName),
            (6, Reason::MalformedJson),
            (7, Reason::DuplicateLabel),
        ];
        assert_eq!(
            refused,
            expect.map(|(line, reason)| (format!("line {line}"), reason))
        );
    }
}
