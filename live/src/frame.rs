//! What some records of a partition tell each selection.

use bytes::Bytes;
use hashbrown::HashMap;
use millrace_model::{Offset, PartitionId};

use crate::filter::FilterId;

/// What is counted for a frame and for each of its texts beside their bytes.
const OVERHEAD_BYTES: usize = 128;

/// The records `[start, end)` of a partition, as JSON for each selection that is told something.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    /// Selections with higher numbers were not looked for.
    pub(crate) newest: u64,
    texts: HashMap<FilterId, Bytes>,
    pub(crate) bytes: usize,
}

impl Frame {
    /// Whether nobody is told anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// What a selection is told.
    pub(crate) fn text(&self, filter: FilterId) -> Option<&Bytes> {
        self.texts.get(&filter)
    }
}

/// The texts of a frame while they are written.
#[derive(Debug, Default)]
pub(crate) struct FrameWriter {
    texts: HashMap<FilterId, Vec<u8>>,
}

impl FrameWriter {
    /// Adds a series' object to what a selection is told.
    pub(crate) fn series(&mut self, filter: FilterId, object: &[u8]) {
        let text = self.texts.entry(filter).or_default();
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(object);
    }

    /// Adds what another has.
    pub(crate) fn append(&mut self, other: &mut Self) {
        for (filter, text) in other.texts.drain() {
            self.series(filter, &text);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.texts.clear();
    }

    /// The frame of the records `[start, end)`.
    pub(crate) fn finish(
        &mut self,
        partition: PartitionId,
        (start, end): (Offset, Offset),
        newest: u64,
    ) -> Frame {
        let whole = |(filter, series): (FilterId, Vec<u8>)| {
            let head = format!("{{\"partition\":{partition},\"series\":[");
            let mut text = Vec::with_capacity(head.len() + series.len() + 2);
            text.extend_from_slice(head.as_bytes());
            text.extend_from_slice(&series);
            text.extend_from_slice(b"]}");
            (filter, Bytes::from(text))
        };
        let texts: HashMap<FilterId, Bytes> = self.texts.drain().map(whole).collect();
        let of_texts: usize = texts.values().map(|text| text.len() + OVERHEAD_BYTES).sum();
        Frame {
            start,
            end,
            newest,
            texts,
            bytes: OVERHEAD_BYTES + of_texts,
        }
    }
}
