//! Writing batches.

use super::{
    FLAG_ORIGINAL_POSITION, HEADER_BYTES, KIND_DELETES, KIND_FLOAT, KIND_METADATA, MAGIC,
    MAX_BODY_BYTES, OP_DELETE, OP_REVOKE, OriginalPosition, VERSION,
};
use crate::{
    Delete, DeleteEntry, MetricMetadata, Sample, SeriesId, TenantId, write_varint, zigzag,
};

/// A finished section: bytes that can be put into any batch of its tenant and partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedSection {
    kind: u8,
    bytes: Vec<u8>,
    series: u32,
    samples: u32,
}

impl EncodedSection {
    /// Size in bytes, headers of section and batch aside.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Number of series.
    #[must_use]
    pub fn series(&self) -> u32 {
        self.series
    }

    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.samples
    }
}

/// Collects the float series of one section.
///
/// Per series it costs one copy of the label bytes and two comparisons; it allocates only while
/// its buffers grow.
#[derive(Debug, Default)]
pub struct FloatSectionWriter {
    entries: Vec<u8>,
    previous_labels: Vec<u8>,
    previous_timestamp: i64,
    base_timestamp: i64,
    series: u32,
    samples: u32,
}

impl FloatSectionWriter {
    /// An empty section.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `samples` of one series, whose canonical label bytes are `labels`. A series may come
    /// several times; samples may stand in any order. Without samples nothing is written.
    ///
    /// # Panics
    ///
    /// If the section outgrows 2³² samples, 60 times what [`MAX_BODY_BYTES`] can hold.
    pub fn push(&mut self, id: SeriesId, labels: &[u8], samples: &[Sample]) {
        let Some(first) = samples.first() else { return };
        if self.series == 0 {
            self.base_timestamp = first.timestamp.0;
            self.previous_timestamp = first.timestamp.0;
        }
        let prefix = common_prefix(&self.previous_labels, labels);
        let suffix = common_suffix(&self.previous_labels[prefix..], &labels[prefix..]);
        let middle = &labels[prefix..labels.len() - suffix];

        let out = &mut self.entries;
        out.reserve(32 + middle.len() + samples.len() * 10);
        out.extend_from_slice(&id.0.to_le_bytes());
        write_varint(out, prefix as u64);
        write_varint(out, suffix as u64);
        write_varint(out, middle.len() as u64);
        out.extend_from_slice(middle);
        write_varint(out, samples.len() as u64);
        for sample in samples {
            let delta = sample.timestamp.0.wrapping_sub(self.previous_timestamp);
            self.previous_timestamp = sample.timestamp.0;
            write_varint(out, zigzag(delta));
            out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        }
        self.previous_labels.truncate(prefix);
        self.previous_labels.extend_from_slice(&labels[prefix..]);
        self.series = self
            .series
            .checked_add(1)
            .expect("series of a section fit 32 bits");
        let count = u32::try_from(samples.len()).expect("samples of a series fit 32 bits");
        self.samples = self
            .samples
            .checked_add(count)
            .expect("samples of a section fit 32 bits");
    }

    /// Number of series pushed.
    #[must_use]
    pub fn series(&self) -> u32 {
        self.series
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.entries.len()
    }

    /// The section, or `None` if nothing was pushed. The writer is empty afterwards.
    pub fn finish(&mut self) -> Option<EncodedSection> {
        if self.series == 0 {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.entries.len() + 13);
        bytes.extend_from_slice(&self.base_timestamp.to_le_bytes());
        write_varint(&mut bytes, u64::from(self.series));
        bytes.append(&mut self.entries);
        let section = EncodedSection {
            kind: KIND_FLOAT,
            bytes,
            series: self.series,
            samples: self.samples,
        };
        self.previous_labels.clear();
        (self.series, self.samples) = (0, 0);
        Some(section)
    }
}

/// A section of metric metadata, or `None` for an empty list.
///
/// # Panics
///
/// If the list is longer than 2³² entries.
#[must_use]
pub fn encode_metadata_section(entries: &[MetricMetadata]) -> Option<EncodedSection> {
    if entries.is_empty() {
        return None;
    }
    u32::try_from(entries.len()).expect("metadata entries of a section fit 32 bits");
    let mut bytes = Vec::new();
    write_varint(&mut bytes, entries.len() as u64);
    for entry in entries {
        bytes.push(entry.metric_type.code());
        for text in [&entry.metric, &entry.help, &entry.unit] {
            write_varint(&mut bytes, text.len() as u64);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    Some(EncodedSection {
        kind: KIND_METADATA,
        bytes,
        series: 0,
        samples: 0,
    })
}

/// A section of deletes and revocations, or `None` for an empty list. A delete concerns series of
/// any partition, so whoever submits it sends it to all of them.
#[must_use]
pub fn encode_delete_section(entries: &[DeleteEntry]) -> Option<EncodedSection> {
    if entries.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    write_varint(&mut bytes, entries.len() as u64);
    for entry in entries {
        encode_delete_entry(&mut bytes, entry);
    }
    Some(EncodedSection {
        kind: KIND_DELETES,
        bytes,
        series: 0,
        samples: 0,
    })
}

fn encode_delete_entry(out: &mut Vec<u8>, entry: &DeleteEntry) {
    match entry {
        DeleteEntry::Delete(delete) => {
            out.push(OP_DELETE);
            encode_delete(out, delete);
        }
        DeleteEntry::Revoke { id, requested_at } => {
            out.push(OP_REVOKE);
            out.extend_from_slice(&id.0.to_le_bytes());
            out.extend_from_slice(&requested_at.0.to_le_bytes());
        }
    }
}

/// The bytes of a delete, as they stand in a batch; the manifest of the store has the same.
pub fn encode_delete(out: &mut Vec<u8>, delete: &Delete) {
    out.extend_from_slice(&delete.id.0.to_le_bytes());
    for time in [
        delete.requested_at,
        delete.undo_until,
        delete.range.start,
        delete.range.end,
    ] {
        out.extend_from_slice(&time.0.to_le_bytes());
    }
    write_varint(out, delete.selectors.len() as u64);
    for matchers in &delete.selectors {
        write_varint(out, matchers.len() as u64);
        for matcher in matchers {
            out.push(matcher.op().code());
            for text in [matcher.name(), matcher.value()] {
                write_varint(out, text.len() as u64);
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// Puts sections of one tenant and partition into a batch.
///
/// # Panics
///
/// If the body outgrows [`MAX_BODY_BYTES`]; whoever joins sections bounds their sum.
#[must_use]
pub fn encode_batch<'a>(
    tenant: &TenantId,
    original: Option<OriginalPosition>,
    sections: impl IntoIterator<Item = &'a EncodedSection> + Clone,
) -> Vec<u8> {
    let body_bytes: usize = sections
        .clone()
        .into_iter()
        .map(|s| s.bytes.len() + 12)
        .sum();
    let mut out = Vec::with_capacity(HEADER_BYTES + 160 + body_bytes);
    out.resize(HEADER_BYTES, 0);
    write_varint(&mut out, tenant.as_str().len() as u64);
    out.extend_from_slice(tenant.as_str().as_bytes());
    if let Some(original) = original {
        out.extend_from_slice(&original.queue.0.to_le_bytes());
        out.extend_from_slice(&original.partition.0.to_le_bytes());
        out.extend_from_slice(&original.offset.0.to_le_bytes());
    }
    let (mut series, mut samples) = (0u32, 0u32);
    for section in sections {
        out.extend_from_slice(&[section.kind, 0]);
        write_varint(&mut out, section.bytes.len() as u64);
        out.extend_from_slice(&section.bytes);
        series = series
            .checked_add(section.series)
            .expect("series of a batch fit 32 bits");
        samples = samples
            .checked_add(section.samples)
            .expect("samples of a batch fit 32 bits");
    }

    let body_len = out.len() - HEADER_BYTES;
    assert!(
        body_len <= MAX_BODY_BYTES,
        "a batch body of {body_len} bytes"
    );
    let body_crc = crc32c::crc32c(&out[HEADER_BYTES..]);
    let mut header = [0u8; HEADER_BYTES];
    header[0..4].copy_from_slice(&MAGIC);
    header[4] = VERSION;
    header[5] = if original.is_some() {
        FLAG_ORIGINAL_POSITION
    } else {
        0
    };
    header[8..12].copy_from_slice(&(body_len as u32).to_le_bytes());
    header[12..16].copy_from_slice(&series.to_le_bytes());
    header[16..20].copy_from_slice(&samples.to_le_bytes());
    header[20..24].copy_from_slice(&body_crc.to_le_bytes());
    let header_crc = crc32c::crc32c(&header[..24]);
    header[24..28].copy_from_slice(&header_crc.to_le_bytes());
    out[..HEADER_BYTES].copy_from_slice(&header);
    out
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8));
    let mut len = 0;
    for (x, y) in words {
        let differ = word(x) ^ word(y);
        if differ != 0 {
            return len + (differ.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    len + a[len..]
        .iter()
        .zip(&b[len..])
        .take_while(|(x, y)| x == y)
        .count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let words = a.rchunks_exact(8).zip(b.rchunks_exact(8));
    let mut len = 0;
    for (x, y) in words {
        let differ = word(x) ^ word(y);
        if differ != 0 {
            return len + (differ.leading_zeros() / 8) as usize;
        }
        len += 8;
    }
    let (a, b) = (&a[..a.len() - len], &b[..b.len() - len]);
    len + a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(x, y)| x == y)
        .count()
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a chunk of eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn common_parts_equal_the_bytewise_ones(
            mut a in proptest::collection::vec(0u8..3, 0..40),
            b in proptest::collection::vec(0u8..3, 0..40),
            shared in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut c = b.clone();
            let slow = |x: &mut dyn Iterator<Item = (u8, u8)>| x.take_while(|(x, y)| x == y).count();
            a.extend(&shared);
            c.extend(&shared);
            let expect = slow(&mut a.iter().rev().copied().zip(c.iter().rev().copied()));
            prop_assert_eq!(common_suffix(&a, &c), expect);
            let expect = slow(&mut a.iter().copied().zip(c.iter().copied()));
            prop_assert_eq!(common_prefix(&a, &c), expect);
        }
    }
}
