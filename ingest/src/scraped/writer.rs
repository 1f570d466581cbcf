//! Sections of one scrape.

use millrace_model::batch::{EncodedSection, FloatSectionWriter};
use millrace_model::{PartitionId, Sample, SeriesId};

/// Collects the samples of one scrape into sections by partition. Kept from scrape to scrape for
/// its buffers.
#[derive(Debug, Default)]
pub(crate) struct ScrapeWriter {
    writers: Vec<FloatSectionWriter>,
    sections: Vec<(PartitionId, EncodedSection)>,
    section_bytes: usize,
    count: u64,
}

impl ScrapeWriter {
    /// A section is closed at about this size, so that the queue can spread sections over batches.
    const SECTION_BYTES: usize = 256 << 10;

    /// Begins a scrape; what was begun before is forgotten.
    pub(crate) fn begin(&mut self, partitions: u32, max_section_bytes: usize) {
        self.writers.truncate(partitions as usize);
        for writer in &mut self.writers {
            drop(writer.finish());
        }
        self.writers
            .resize_with(partitions as usize, FloatSectionWriter::new);
        self.sections.clear();
        self.section_bytes = Self::SECTION_BYTES.min(max_section_bytes / 2);
        self.count = 0;
    }

    #[inline]
    pub(crate) fn push(
        &mut self,
        id: SeriesId,
        partition: PartitionId,
        labels: &[u8],
        sample: Sample,
    ) {
        self.count += 1;
        let writer = &mut self.writers[partition.index()];
        writer.push(id, labels, &[sample]);
        if writer.bytes_len() >= self.section_bytes {
            let section = writer.finish();
            self.sections
                .extend(section.map(|section| (partition, section)));
        }
    }

    /// Samples since the beginning.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The sections, in an order that keeps each series' samples in theirs.
    pub(crate) fn finish(&mut self) -> Vec<(PartitionId, EncodedSection)> {
        for (writer, number) in self.writers.iter_mut().zip(0..) {
            let section = writer.finish();
            self.sections
                .extend(section.map(|section| (PartitionId(number), section)));
        }
        std::mem::take(&mut self.sections)
    }
}
