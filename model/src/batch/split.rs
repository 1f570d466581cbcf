//! Cutting a batch into shorter ones, for a queue that takes only such.

use super::encode::{EncodedSection, FloatSectionWriter, encode_batch, encode_delete_section};
use super::{Batch, BatchError, SectionContent, encode_metadata_section};
use crate::Sample;

/// Bytes of a batch around one section: header, tenant, original position, section header. Generous.
const AROUND_BYTES: usize = 512;
/// The most that a sample takes in a section.
const SAMPLE_BYTES: usize = 18;

/// Batches of at most `max_bytes` that have, one after the other, the effect of `bytes`: the same
/// series, samples, metadata and deletes in the same order. The batch itself, if it is no longer.
///
/// # Errors
///
/// See [`BatchError`]; [`BatchError::Unsupported`] if a part cannot be made as short as that: labels,
/// metadata or deletes that are longer alone.
pub fn split_batch(bytes: &[u8], max_bytes: usize) -> Result<Vec<Vec<u8>>, BatchError> {
    if bytes.len() <= max_bytes {
        return Ok(vec![bytes.to_vec()]);
    }
    let batch = Batch::decode(bytes)?;
    let mut parts = Parts {
        room: max_bytes.saturating_sub(AROUND_BYTES),
        out: Vec::new(),
        batch: &batch,
    };
    for section in batch.sections() {
        match section?.content()? {
            SectionContent::Float(mut floats) => {
                let mut writer = FloatSectionWriter::new();
                let mut samples = Vec::new();
                while let Some(id) = floats.next_series(&mut samples)? {
                    let labels = floats.labels()?;
                    // A series that is too long for one part is there again in the next.
                    let fixed = labels.canonical().len() + 64;
                    let most = parts.room.saturating_sub(fixed) / SAMPLE_BYTES;
                    for run in samples.chunks(most.max(1)) {
                        let run: &[Sample] = run;
                        let need = fixed + run.len() * SAMPLE_BYTES;
                        if writer.series() > 0 && writer.bytes_len() + need > parts.room {
                            parts.push(writer.finish())?;
                        }
                        writer.push(id, labels.canonical(), run);
                    }
                    samples.clear();
                }
                parts.push(writer.finish())?;
            }
            SectionContent::Metadata(entries) => {
                // One by one if need be: order among them does not matter, each names its metric.
                match encode_metadata_section(&entries) {
                    Some(section) if section.bytes_len() <= parts.room => {
                        parts.push(Some(section))?;
                    }
                    _ => entries
                        .chunks(1)
                        .try_for_each(|entry| parts.push(encode_metadata_section(entry)))?,
                }
            }
            SectionContent::Deletes(entries) => {
                for entry in &entries {
                    parts.push(encode_delete_section(std::slice::from_ref(entry)))?;
                }
            }
        }
    }
    Ok(parts.out)
}

struct Parts<'a> {
    room: usize,
    out: Vec<Vec<u8>>,
    batch: &'a Batch<'a>,
}

impl Parts<'_> {
    fn push(&mut self, section: Option<EncodedSection>) -> Result<(), BatchError> {
        let Some(section) = section else {
            return Ok(());
        };
        if section.bytes_len() > self.room {
            return Err(BatchError::Unsupported {
                what: "part of a batch, in bytes,",
                got: section.bytes_len() as u64,
            });
        }
        let original = self.batch.original_position();
        let part = encode_batch(self.batch.tenant(), original, [&section]);
        self.out.push(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Labels, MetricMetadata, MetricType, SeriesHasher, TenantId};

    type Flat = Vec<(String, i64, u64)>;

    fn flat(batches: &[Vec<u8>]) -> (Flat, Vec<String>) {
        let (mut out, mut names) = (Vec::new(), Vec::new());
        for bytes in batches {
            let batch = Batch::decode(bytes).unwrap();
            assert_eq!(batch.tenant().as_str(), "acme");
            for section in batch.sections() {
                match section.unwrap().content().unwrap() {
                    SectionContent::Float(mut floats) => {
                        let mut samples = Vec::new();
                        while let Some(id) = floats.next_series(&mut samples).unwrap() {
                            let labels = floats.labels().unwrap();
                            assert_eq!(id, SeriesHasher::new(batch.tenant()).id(&labels));
                            for sample in samples.drain(..) {
                                let value = sample.value.to_bits();
                                out.push((labels.to_string(), sample.timestamp.0, value));
                            }
                        }
                    }
                    SectionContent::Metadata(entries) => {
                        names.extend(entries.into_iter().map(|entry| entry.metric));
                    }
                    SectionContent::Deletes(_) => panic!("there are none"),
                }
            }
        }
        (out, names)
    }

    #[test]
    fn the_parts_of_a_batch_are_short_and_say_the_same_in_the_same_order() {
        let tenant: TenantId = "acme".parse().unwrap();
        let hasher = SeriesHasher::new(&tenant);
        let mut writer = FloatSectionWriter::new();
        for series in 0..300i64 {
            let name = format!("host-{series}");
            let labels =
                Labels::from_pairs([("__name__", "cpu"), ("host", name.as_str())]).unwrap();
            // One of them is longer than a part.
            let count = if series == 7 { 2_000 } else { series % 5 + 1 };
            let samples: Vec<_> = (0..count)
                .map(|i| Sample::new(series * 1_000_000_007 - i, i as f64 / 3.0))
                .collect();
            writer.push(hasher.id(&labels), labels.canonical(), &samples);
        }
        let floats = writer.finish().unwrap();
        let metadata: Vec<_> = (0..40)
            .map(|i| MetricMetadata {
                metric: format!("metric_{i}"),
                metric_type: MetricType::Gauge,
                help: "h".repeat(200),
                unit: String::new(),
            })
            .collect();
        let metadata = encode_metadata_section(&metadata).unwrap();
        let whole = encode_batch(&tenant, None, [&floats, &metadata]);
        let expect = flat(std::slice::from_ref(&whole));
        for max in [2_000, 4_096, 20_000, whole.len() - 1] {
            let parts = split_batch(&whole, max).unwrap();
            assert!(
                parts.len() > 1 && parts.iter().all(|part| part.len() <= max),
                "{max}"
            );
            assert_eq!(flat(&parts), expect, "{max}");
        }
        let unsplit = split_batch(&whole, whole.len()).unwrap();
        assert_eq!(unsplit, std::slice::from_ref(&whole));
        assert!(split_batch(&whole, 600).is_err(), "a help text is longer");
    }
}
