//! A record as JSON, for people and scripts.

use millrace_model::batch::{Batch, SectionContent};
use millrace_model::{DeleteEntry, Labels, PartitionId, STALE_NAN_BITS, Sample};
use millrace_queue::Record;
use serde_json::{Map, Value, json};

/// How much of a record is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What its header says.
    Header,
    /// Its series with all their samples.
    Whole,
}

/// A record as one JSON object. What cannot be decoded says why, and how it begins.
#[must_use]
pub fn record(partition: PartitionId, record: &Record, depth: Depth) -> Value {
    let mut shown = json!({
        "partition": partition.0,
        "offset": record.offset.0,
        "appended_at": time(record.appended_at.0),
        "bytes": record.payload.len(),
    });
    let batch = match Batch::decode(&record.payload) {
        Ok(batch) => batch,
        Err(error) => {
            let start: Vec<String> = record.payload.iter().take(64).map(hex).collect();
            shown["error"] = error.to_string().into();
            shown["begins_with"] = start.concat().into();
            return shown;
        }
    };
    shown["tenant"] = batch.tenant().as_str().into();
    shown["series"] = batch.series().into();
    shown["samples"] = batch.samples().into();
    if let Some(original) = batch.original_position() {
        shown["original"] = json!({
            "queue": original.queue.to_string(),
            "partition": original.partition.0,
            "offset": original.offset.0,
        });
    }
    if depth == Depth::Whole {
        let mut series = Vec::new();
        let mut metadata = Vec::new();
        let mut deletes = Vec::new();
        if let Err(error) = contents(&batch, &mut series, &mut metadata, &mut deletes) {
            shown["error"] = error.into();
        }
        shown["data"] = series.into();
        if !metadata.is_empty() {
            shown["metadata"] = metadata.into();
        }
        if !deletes.is_empty() {
            shown["deletes"] = deletes.into();
        }
    }
    shown
}

fn contents(
    batch: &Batch<'_>,
    series: &mut Vec<Value>,
    metadata: &mut Vec<Value>,
    deletes: &mut Vec<Value>,
) -> Result<(), String> {
    let text = |error: millrace_model::batch::BatchError| error.to_string();
    let mut samples = Vec::new();
    for section in batch.sections() {
        match section.map_err(text)?.content().map_err(text)? {
            SectionContent::Float(mut floats) => loop {
                samples.clear();
                let Some(id) = floats.next_series(&mut samples).map_err(text)? else {
                    break;
                };
                let labels = labels(&floats.labels().map_err(text)?);
                let samples: Vec<Value> = samples.iter().map(sample).collect();
                let id = format!("{:032x}", id.0);
                series.push(json!({"id": id, "metric": labels, "samples": samples}));
            },
            SectionContent::Metadata(entries) => {
                metadata.extend(entries.into_iter().map(|entry| {
                    json!({
                        "metric": entry.metric,
                        "type": entry.metric_type.as_str(),
                        "help": entry.help,
                        "unit": entry.unit,
                    })
                }));
            }
            SectionContent::Deletes(entries) => deletes.extend(entries.iter().map(delete)),
        }
    }
    Ok(())
}

fn delete(entry: &DeleteEntry) -> Value {
    match entry {
        DeleteEntry::Delete(delete) => {
            let selectors = delete.selectors.iter().map(|matchers| {
                let texts: Vec<String> = matchers.iter().map(ToString::to_string).collect();
                format!("{{{}}}", texts.join(","))
            });
            json!({
                "delete": delete.id.to_string(),
                "requested_at": delete.requested_at.0,
                "undo_until": delete.undo_until.0,
                "start": delete.range.start.0,
                "end": delete.range.end.0,
                "selectors": selectors.collect::<Vec<_>>(),
            })
        }
        DeleteEntry::Revoke { id, requested_at } => json!({
            "revoke": id.to_string(),
            "requested_at": requested_at.0,
        }),
    }
}

/// Labels as an object.
#[must_use]
pub fn labels(labels: &Labels) -> Map<String, Value> {
    labels
        .iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

fn sample(sample: &Sample) -> Value {
    json!([sample.timestamp.0, number(sample.value)])
}

/// A value as JSON: a number where JSON has one that reads back to the same bits, else a text.
#[must_use]
pub fn number(value: f64) -> Value {
    if let Some(number) = serde_json::Number::from_f64(value) {
        return Value::Number(number);
    }
    let text = match value.to_bits() {
        STALE_NAN_BITS => "stale".to_owned(),
        _ if value == f64::INFINITY => "+Inf".to_owned(),
        _ if value == f64::NEG_INFINITY => "-Inf".to_owned(),
        bits if bits == f64::NAN.to_bits() => "NaN".to_owned(),
        bits => format!("NaN:{bits:016x}"),
    };
    Value::String(text)
}

/// A moment in RFC 3339 with milliseconds; its number where the calendar ends.
#[must_use]
pub fn time(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms).map_or_else(
        || ms.to_string(),
        |time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
    )
}

fn hex(byte: &u8) -> String {
    format!("{byte:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use millrace_model::batch::{FloatSectionWriter, encode_batch};
    use millrace_model::{Offset, SeriesId, TenantId, TimestampMs};

    #[test]
    fn a_record_shows_its_series_and_odd_values() {
        let labels = Labels::from_pairs([("__name__", "t"), ("device", "d1")]).unwrap();
        let mut writer = FloatSectionWriter::new();
        let samples = [
            Sample::new(1, 0.1),
            Sample::new(2, f64::from_bits(STALE_NAN_BITS)),
            Sample::new(3, f64::NEG_INFINITY),
            Sample::new(4, f64::from_bits(0x7ff8_0000_0000_0007)),
            Sample::new(5, -0.0),
        ];
        writer.push(SeriesId(5), labels.canonical(), &samples);
        let section = writer.finish().unwrap();
        let payload = encode_batch(&TenantId::anonymous(), None, [&section]);
        let given = Record {
            offset: Offset(3),
            appended_at: TimestampMs(1_700_000_000_123),
            payload: Bytes::from(payload),
        };
        let shown = record(PartitionId(2), &given, Depth::Whole);
        assert_eq!(shown["appended_at"], "2023-11-14T22:13:20.123Z");
        assert_eq!(shown["data"][0]["metric"]["device"], "d1");
        assert_eq!(
            shown["data"][0]["samples"].to_string(),
            r#"[[1,0.1],[2,"stale"],[3,"-Inf"],[4,"NaN:7ff8000000000007"],[5,-0.0]]"#
        );
        let header = record(PartitionId(2), &given, Depth::Header);
        assert_eq!((&header["samples"], header.get("data")), (&json!(5), None));
        let broken = Record {
            payload: Bytes::from_static(b"\xffnot a batch, but longer than its header would be"),
            ..given
        };
        let shown = record(PartitionId(0), &broken, Depth::Whole);
        assert!(shown["error"].as_str().unwrap().contains("begins with"));
        assert!(
            shown["begins_with"]
                .as_str()
                .unwrap()
                .starts_with("ff6e6f74")
        );
    }
}
