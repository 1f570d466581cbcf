//! Frames of label sets, texts and metadata.

use millrace_model::{Labels, MetricMetadata, MetricType, write_varint};

use super::frame::{FRAME_BYTES_MAX, FrameBuffer, write_text};
use super::{Input, WireError};

/// Longest label set, text or entry that is sent: several fit into a frame.
pub const ITEM_BYTES_MAX: usize = FRAME_BYTES_MAX / 4;
/// Most warnings beside an answer.
pub const WARNINGS_MAX: usize = 100;

/// Writes label sets as the difference from the one before.
#[derive(Debug, Default)]
pub struct LabelsWriter {
    previous: Vec<u8>,
}

impl LabelsWriter {
    /// Appends a label set.
    pub fn write(&mut self, labels: &Labels, out: &mut Vec<u8>) {
        let bytes = labels.canonical();
        let pairs = self.previous.iter().zip(bytes);
        let shared = pairs.take_while(|(a, b)| a == b).count();
        write_varint(out, shared as u64);
        write_varint(out, (bytes.len() - shared) as u64);
        out.extend_from_slice(&bytes[shared..]);
        self.previous.truncate(shared);
        self.previous.extend_from_slice(&bytes[shared..]);
    }
}

/// Reads what a [`LabelsWriter`] wrote.
#[derive(Debug, Default)]
pub(crate) struct LabelsReader {
    bytes: Vec<u8>,
}

impl LabelsReader {
    pub(crate) fn read(&mut self, input: &mut Input<'_>) -> Result<Labels, WireError> {
        let what = "labels";
        let shared: usize = input.number(what)?;
        if shared > self.bytes.len() {
            return Err(WireError::Invalid { what });
        }
        let rest = input.counted(what)?;
        if shared + rest.len() > ITEM_BYTES_MAX {
            return Err(WireError::Invalid { what });
        }
        self.bytes.truncate(shared);
        self.bytes.extend_from_slice(rest);
        Labels::from_canonical(&self.bytes).map_err(|_| WireError::Invalid { what })
    }
}

/// The label sets of a frame. Stops at the first that `each` refuses.
///
/// # Errors
///
/// Bytes that are no such frame, or what `each` says.
pub fn decode_labels<E: From<WireError>>(
    body: &[u8],
    mut each: impl FnMut(Labels) -> Result<(), E>,
) -> Result<(), E> {
    let mut input = Input::new(body);
    let mut reader = LabelsReader::default();
    while !input.is_empty() {
        each(reader.read(&mut input)?)?;
    }
    Ok(())
}

/// Appends a name or value to a frame.
pub fn encode_text(text: &str, frame: &mut FrameBuffer) {
    write_text(frame.body(), text);
}

/// The texts of a frame.
///
/// # Errors
///
/// Bytes that are no such frame.
pub fn decode_texts(body: &[u8]) -> Result<Vec<String>, WireError> {
    let mut input = Input::new(body);
    let mut texts = Vec::new();
    while !input.is_empty() {
        texts.push(input.text("texts")?.to_owned());
    }
    Ok(texts)
}

/// Appends the metadata of a metric to a frame.
pub fn encode_metadata(entry: &MetricMetadata, frame: &mut FrameBuffer) {
    let out = frame.body();
    write_text(out, &entry.metric);
    out.push(entry.metric_type.code());
    write_text(out, &entry.help);
    write_text(out, &entry.unit);
}

/// The entries of a frame.
///
/// # Errors
///
/// Bytes that are no such frame.
pub fn decode_metadata(body: &[u8]) -> Result<Vec<MetricMetadata>, WireError> {
    let what = "metadata";
    let mut input = Input::new(body);
    let mut entries = Vec::new();
    while !input.is_empty() {
        entries.push(MetricMetadata {
            metric: input.text(what)?.to_owned(),
            metric_type: MetricType::from_code(u64::from(input.u8(what)?))
                .ok_or(WireError::Invalid { what })?,
            help: input.text(what)?.to_owned(),
            unit: input.text(what)?.to_owned(),
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn label_sets_survive() {
        let sets = [
            labels(&[("__name__", "up"), ("instance", "a:1")]),
            labels(&[("__name__", "up"), ("instance", "a:12")]),
            Labels::empty(),
            labels(&[("ä", "ö")]),
        ];
        let (mut writer, mut out) = (LabelsWriter::default(), Vec::new());
        for set in &sets {
            writer.write(set, &mut out);
        }
        let mut found = Vec::new();
        decode_labels::<WireError>(&out, |set| {
            found.push(set);
            Ok(())
        })
        .unwrap();
        assert_eq!(found, sets);
    }

    #[test]
    fn metadata_survives() {
        let entry = MetricMetadata {
            metric: "up".into(),
            metric_type: MetricType::StateSet,
            help: "Whether it is.\n".into(),
            unit: String::new(),
        };
        let mut frame = FrameBuffer::default();
        encode_metadata(&entry, &mut frame);
        let bytes = frame.finish(super::super::frame::FrameKind::Metadata);
        assert_eq!(decode_metadata(&bytes[9..]), Ok(vec![entry]));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_items_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            drop(decode_labels::<WireError>(&bytes, |_| Ok(())));
            drop((decode_texts(&bytes), decode_metadata(&bytes)));
        }
    }
}
