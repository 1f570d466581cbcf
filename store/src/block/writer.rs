//! Writing a block, front to back.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use millrace_log::fs::{Fs, FsFile, TEMPORARY_SUFFIX};
use millrace_log::planted::active;
use millrace_model::{Labels, TenantId, TimeRange};

use super::columns::ColumnEncoder;
use super::directory::LabelsWriter;
use super::footer::{BODY, Footer, SectionEntry, encode_header, encode_tail};
use super::postings::PostingsWriter;
use super::series::SeriesWriter;
use super::{
    BlockError, BlockMeta, BlockSummary, ChunkEntry, Codec, HEADER_BYTES, SAMPLES_PER_CHUNK,
};
use crate::index::MemIndex;
use crate::planted::BLOCK_UNSYNCED;

/// Chunks are written to the file in pieces of about this size.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes one block. Chunks go to the file as they come; label sets and postings are kept, encoded,
/// until [`finish`](Self::finish).
///
/// The file grows under a temporary name (`<name>.tmp`), which whoever opens the directory removes;
/// nothing is created before there is something to write.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    out: Output<'a>,
    series: SeriesWriter,
    labels: LabelsWriter,
    postings: PostingsWriter,
    /// The tenant whose series come now, and their index.
    tenant: Option<(TenantId, MemIndex)>,
    last_labels: Labels,
    encoder: ColumnEncoder,
    chunk: Vec<u8>,
    entries: Vec<ChunkEntry>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Counts {
    tenants: u32,
    series: u32,
    chunks: u64,
    samples: u64,
    first: i64,
    last: i64,
}

impl<'a> BlockWriter<'a> {
    /// A writer of the file `path`, which must not exist.
    #[must_use]
    pub fn new(fs: &'a dyn Fs, path: &Path) -> Self {
        Self {
            out: Output::new(fs, path),
            series: SeriesWriter::default(),
            labels: LabelsWriter::default(),
            postings: PostingsWriter::default(),
            tenant: None,
            last_labels: Labels::empty(),
            encoder: ColumnEncoder::new(),
            chunk: Vec::new(),
            entries: Vec::new(),
            counts: Counts {
                tenants: 0,
                series: 0,
                chunks: 0,
                samples: 0,
                first: i64::MAX,
                last: i64::MIN,
            },
        }
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.series == 0
    }

    /// Adds a series with all its samples.
    ///
    /// # Errors
    ///
    /// Of the file system. The block is then of no use.
    ///
    /// # Panics
    ///
    /// If series do not come in order of tenant and then of labels, each once, or the samples are
    /// not in order of time, each timestamp once, or there are none: what a block is told to hold
    /// is not checked again until somebody reads it.
    pub fn push(
        &mut self,
        tenant: &TenantId,
        labels: &Labels,
        timestamps: &[i64],
        values: &[f64],
    ) -> Result<(), BlockError> {
        assert_eq!(timestamps.len(), values.len(), "columns of {labels}");
        let ordered = timestamps.is_sorted_by(|a, b| a < b);
        assert!(ordered && !timestamps.is_empty(), "samples of {labels}");
        self.enter(tenant, labels);
        self.entries.clear();
        let chunks = timestamps.len().div_ceil(SAMPLES_PER_CHUNK);
        // Evenly: 1,025 samples are better two halves than a chunk and a rest.
        let each = timestamps.len().div_ceil(chunks);
        for (timestamps, values) in timestamps.chunks(each).zip(values.chunks(each)) {
            self.push_chunk(timestamps, values)?;
        }
        self.series.push(labels, &self.entries);
        let counts = &mut self.counts;
        counts.series += 1;
        counts.chunks += self.entries.len() as u64;
        counts.samples += timestamps.len() as u64;
        counts.first = counts.first.min(timestamps[0]);
        counts.last = counts.last.max(timestamps[timestamps.len() - 1]);
        Ok(())
    }

    /// Writes the rest, syncs the file and gives it its name. **The caller syncs the directory**
    /// (once for all blocks that it writes) before it relies on the name.
    ///
    /// # Errors
    ///
    /// Of the file system. The block is then of no use, and its temporary file may be left over.
    ///
    /// # Panics
    ///
    /// If nothing was pushed, or the window does not hold all samples.
    pub fn finish(mut self, meta: BlockMeta) -> Result<BlockSummary, BlockError> {
        assert!(!self.is_empty(), "a block without series");
        let counts = self.counts;
        let samples_range = TimeRange::new(counts.first, counts.last);
        assert!(
            meta.window.contains(samples_range.start) && meta.window.contains(samples_range.end),
            "samples in {samples_range:?}, the window is {:?}",
            meta.window
        );
        self.leave_tenant();
        self.series.finish_page();
        let mut sections = [SectionEntry::default(); BODY.len()];
        sections[0] = self.out.section(HEADER_BYTES as u64);
        let directory = self.labels.directory(counts.tenants, &self.series.pages);
        let rest = [
            &self.series.bytes,
            &self.labels.pages,
            &self.postings.bytes,
            &directory,
        ];
        for (bytes, entry) in rest.into_iter().zip(&mut sections[1..]) {
            let offset = self.out.at;
            self.out.begin_section();
            self.out.write(bytes)?;
            *entry = self.out.section(offset);
        }
        let footer = Footer {
            meta,
            samples_range,
            tenants: counts.tenants,
            series: counts.series,
            chunks: counts.chunks,
            samples: counts.samples,
            sections,
        };
        let encoded = footer.encode();
        self.out.write(&encoded)?;
        self.out.write(&encode_tail(&encoded))?;
        let bytes = self.out.publish()?;
        let summary = footer.summary(crc32c::crc32c(&encoded));
        assert_eq!(summary.bytes, bytes, "length of a block just written");
        Ok(summary)
    }

    fn push_chunk(&mut self, timestamps: &[i64], values: &[f64]) -> Result<(), BlockError> {
        self.chunk.clear();
        self.encoder.encode(timestamps, values, &mut self.chunk);
        self.entries.push(ChunkEntry {
            codec: Codec::Columns as u8,
            first: timestamps[0],
            last: timestamps[timestamps.len() - 1],
            // Both are bounded by SAMPLES_PER_CHUNK.
            samples: timestamps.len() as u32,
            offset: self.out.at,
            bytes: self.chunk.len() as u32,
            crc: crc32c::crc32c(&self.chunk),
        });
        self.out.write(&self.chunk)
    }

    /// Notes whose series comes, in the order that is promised.
    fn enter(&mut self, tenant: &TenantId, labels: &Labels) {
        match &self.tenant {
            Some((current, _)) if current == tenant => {
                assert!(
                    self.last_labels < *labels,
                    "{labels} behind {}",
                    self.last_labels
                );
            }
            current => {
                let behind = current.as_ref().is_none_or(|(current, _)| current < tenant);
                assert!(behind, "tenant {tenant} behind one that comes later");
                self.leave_tenant();
                self.tenant = Some((tenant.clone(), MemIndex::new()));
                self.counts.tenants += 1;
            }
        }
        if let Some((_, index)) = &mut self.tenant {
            let at = u32::try_from(index.len()).expect("series of a block fit 32 bits");
            index.insert(at, labels);
        }
        self.last_labels = labels.clone();
    }

    fn leave_tenant(&mut self) {
        if let Some((tenant, index)) = self.tenant.take() {
            self.labels.put(&tenant, &index, &mut self.postings);
        }
    }
}

/// The file, the position in it, and the checksum of the section that is being written.
#[derive(Debug)]
struct Output<'a> {
    fs: &'a dyn Fs,
    path: PathBuf,
    temporary: PathBuf,
    file: Option<Box<dyn FsFile>>,
    buffer: Vec<u8>,
    /// Where the next byte goes, those in the buffer counted.
    at: u64,
    crc: u32,
}

impl<'a> Output<'a> {
    fn new(fs: &'a dyn Fs, path: &Path) -> Self {
        let mut temporary = OsString::from(path);
        temporary.push(TEMPORARY_SUFFIX);
        Self {
            fs,
            path: path.to_owned(),
            temporary: temporary.into(),
            file: None,
            buffer: encode_header().to_vec(),
            at: HEADER_BYTES as u64,
            crc: 0,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.at += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn begin_section(&mut self) {
        self.crc = 0;
    }

    /// The section that began at `offset` and ends here.
    fn section(&self, offset: u64) -> SectionEntry {
        SectionEntry {
            offset,
            bytes: self.at - offset,
            crc: self.crc,
        }
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        let (fs, temporary) = (self.fs, &self.temporary);
        let io = |what, source| BlockError::Io {
            what,
            path: temporary.clone(),
            source,
        };
        let file = match &self.file {
            Some(file) => file,
            None => {
                // A crash may have left one of that name.
                if fs.exists(temporary).map_err(|e| io("look for", e))? {
                    fs.unlink(temporary).map_err(|e| io("remove", e))?;
                }
                let file = fs.create_new(temporary).map_err(|e| io("create", e))?;
                self.file.insert(file)
            }
        };
        let start = self.at - self.buffer.len() as u64;
        file.write_all_at(&self.buffer, start)
            .map_err(|e| io("write", e))?;
        self.buffer.clear();
        Ok(())
    }

    /// Returns the length of the file.
    fn publish(mut self) -> Result<u64, BlockError> {
        self.flush()?;
        let io = |what, source| BlockError::Io {
            what,
            path: self.temporary.clone(),
            source,
        };
        if let Some(file) = &self.file
            && !active(BLOCK_UNSYNCED)
        {
            // IMPORTANT: the bytes before the name. The other way round, a crash leaves an empty
            // file under the final name.
            file.sync_data().map_err(|e| io("sync", e))?;
        }
        self.fs
            .rename(&self.temporary, &self.path)
            .map_err(|e| io("rename", e))?;
        Ok(self.at)
    }
}
