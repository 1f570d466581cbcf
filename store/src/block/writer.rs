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
use super::rollup::{RESOLUTIONS_MAX, RollupColumns, RollupEncoder, stored_resolutions};
use super::series::SeriesWriter;
use super::times::{SharedTimes, TimesEntry, WORTH_SHARING};
use super::{
    BlockError, BlockMeta, BlockSummary, ChunkEntry, Codec, HEADER_BYTES, RollupEntry,
    SAMPLES_PER_CHUNK, SeriesPlace,
};
use crate::index::MemIndex;
use crate::planted::BLOCK_UNSYNCED;

/// Chunks are written to the file in pieces of about this size.
const BUFFER_BYTES: usize = 256 << 10;

/// How a block is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOptions {
    /// Resolutions of the rollups, in ms. One that is a multiple of another is not stored, but
    /// folded from it when it is read. At most [`RESOLUTIONS_MAX`] that are no multiples.
    pub resolutions: Vec<i64>,
    /// Whether the samples are left out, and only their rollups kept.
    pub without_samples: bool,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            resolutions: vec![300_000, 3_600_000],
            without_samples: false,
        }
    }
}

/// Writes one block, from a memtable or from other blocks: a stream of series in order of tenant
/// and labels, each once and with all of its samples. Chunks and rollups go to the file as they
/// come; label sets and postings are kept, encoded, until [`finish`](Self::finish) (some hundred
/// bytes for each series), and nothing else.
///
/// - To **merge** blocks: walk them side by side by [`BlockReader::iter`](super::BlockReader::iter),
///   which is in the same order; for each series read the samples of each, merge them, and
///   [`push`](Self::push) what is left. Rollups are computed from what is pushed.
/// - To **drop the samples** and keep the rollups: with
///   [`without_samples`](BlockOptions::without_samples), `push` the samples as before, or
///   [`push_rollups`](Self::push_rollups) what [`read_rollup`](super::BlockReader::read_rollup)
///   says, where the samples are gone already or a fine resolution is to go.
///
/// The file grows under a temporary name (`<name>.tmp`), which whoever opens the directory removes;
/// nothing is created before there is something to write.
#[derive(Debug)]
pub struct BlockWriter<'a> {
    out: Output<'a>,
    /// Those that are stored.
    resolutions: Vec<i64>,
    without_samples: bool,
    series: SeriesWriter,
    labels: LabelsWriter,
    postings: PostingsWriter,
    /// The tenant whose series come now, and their index.
    tenant: Option<(TenantId, MemIndex)>,
    last_labels: Labels,
    encoder: ColumnEncoder,
    rollups: RollupEncoder,
    columns: RollupColumns,
    times: SharedTimes,
    chunk: Vec<u8>,
    entries: Vec<ChunkEntry>,
    /// Where the chunks of the page begin.
    page_start: u64,
    /// The rollups of the page, series by series, resolution by resolution.
    pending: Vec<PendingRollup>,
    counts: Counts,
}

/// Buckets that wait for their place behind the chunks of the page.
#[derive(Debug, Default)]
struct PendingRollup {
    times: Vec<u8>,
    values: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Counts {
    tenants: u32,
    series: u32,
    chunks: u64,
    samples: u64,
    rollup_bytes: u64,
    first: i64,
    last: i64,
}

impl<'a> BlockWriter<'a> {
    /// A writer of the file `path`, which must not exist, with the default options.
    #[must_use]
    pub fn new(fs: &'a dyn Fs, path: &Path) -> Self {
        Self::with_options(fs, path, &BlockOptions::default())
    }

    /// A writer of the file `path`, which must not exist.
    ///
    /// # Panics
    ///
    /// If the resolutions are not positive, or too many.
    #[must_use]
    pub fn with_options(fs: &'a dyn Fs, path: &Path, options: &BlockOptions) -> Self {
        Self {
            out: Output::new(fs, path),
            resolutions: stored_resolutions(&options.resolutions),
            without_samples: options.without_samples,
            series: SeriesWriter::default(),
            labels: LabelsWriter::default(),
            postings: PostingsWriter::default(),
            tenant: None,
            last_labels: Labels::empty(),
            encoder: ColumnEncoder::new(),
            rollups: RollupEncoder::default(),
            columns: RollupColumns::default(),
            times: SharedTimes::default(),
            chunk: Vec::new(),
            entries: Vec::new(),
            page_start: HEADER_BYTES as u64,
            pending: Vec::new(),
            counts: Counts {
                tenants: 0,
                series: 0,
                chunks: 0,
                samples: 0,
                rollup_bytes: 0,
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

    /// The resolutions that are stored, in ms, the finest first.
    #[must_use]
    pub fn resolutions(&self) -> &[i64] {
        &self.resolutions
    }

    /// Bytes that are written so far, and that the file will have more than.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.out.at
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
        if !self.without_samples {
            let chunks = timestamps.len().div_ceil(SAMPLES_PER_CHUNK);
            // Evenly: 1,025 samples are better two halves than a chunk and a rest.
            let each = timestamps.len().div_ceil(chunks);
            for (timestamps, values) in timestamps.chunks(each).zip(values.chunks(each)) {
                self.push_chunk(timestamps, values)?;
            }
        }
        for at in 0..self.resolutions.len() {
            let resolution = self.resolutions[at];
            let mut columns = std::mem::take(&mut self.columns);
            columns.clear();
            columns.push_samples(timestamps, values, resolution);
            self.push_columns(&columns, resolution);
            self.columns = columns;
        }
        let range = TimeRange::new(timestamps[0], timestamps[timestamps.len() - 1]);
        self.end_series(labels, range, timestamps.len() as u64)
    }

    /// Adds a series of which only the rollups are there: one for each of
    /// [`resolutions`](Self::resolutions), in their order. `range` and `samples` are those of the
    /// samples that there were.
    ///
    /// # Errors
    ///
    /// Of the file system. The block is then of no use.
    ///
    /// # Panics
    ///
    /// If the block has samples, series do not come in order, there are not as many rollups as
    /// resolutions, or `samples` is 0.
    pub fn push_rollups(
        &mut self,
        tenant: &TenantId,
        labels: &Labels,
        range: TimeRange,
        samples: u64,
        rollups: &[RollupColumns],
    ) -> Result<(), BlockError> {
        assert!(self.without_samples, "rollups of {labels} without samples");
        assert_eq!(rollups.len(), self.resolutions.len(), "rollups of {labels}");
        assert!(samples > 0 && range.start <= range.end, "facts of {labels}");
        self.enter(tenant, labels);
        self.entries.clear();
        for (at, columns) in rollups.iter().enumerate() {
            self.push_columns(columns, self.resolutions[at]);
        }
        self.end_series(labels, range, samples)
    }

    fn push_columns(&mut self, columns: &RollupColumns, resolution: i64) {
        let mut pending = PendingRollup::default();
        let (times, values) = (&mut pending.times, &mut pending.values);
        self.rollups.encode(columns, resolution, times, values);
        self.pending.push(pending);
    }

    /// Notes a series whose chunks are written and whose rollups wait.
    fn end_series(
        &mut self,
        labels: &Labels,
        range: TimeRange,
        samples: u64,
    ) -> Result<(), BlockError> {
        let counts = &mut self.counts;
        let place = SeriesPlace {
            at: counts.series,
            range,
            samples,
            chunks: self.entries.as_slice().into(),
            rollups: Box::default(),
        };
        counts.series += 1;
        counts.chunks += self.entries.len() as u64;
        counts.samples += samples;
        counts.first = counts.first.min(range.start.0);
        counts.last = counts.last.max(range.end.0);
        if self.series.push(labels, place) {
            self.finish_page()?;
        }
        Ok(())
    }

    /// Writes the rollups of the page behind its chunks.
    fn finish_page(&mut self) -> Result<(), BlockError> {
        let rollup_start = self.out.at;
        let pending = std::mem::take(&mut self.pending);
        let mut entries = Vec::with_capacity(pending.len());
        for (i, PendingRollup { times, values }) in pending.iter().enumerate() {
            if values.is_empty() {
                entries.push(RollupEntry {
                    offset: self.out.at,
                    ..RollupEntry::default()
                });
                continue;
            }
            // Timestamps have even kinds.
            let kind = (i % self.resolutions.len()) as u64 * 2 + 1;
            let known = self.times.find_or_note(times, kind, self.out.at);
            if known.is_none() {
                self.write_rollup(times)?;
            }
            let own = || TimesEntry::at(self.out.at - times.len() as u64, times);
            entries.push(RollupEntry {
                offset: self.out.at,
                bytes: u32::try_from(values.len()).expect("buckets are far below 4 GiB"),
                crc: crc32c::crc32c(values),
                times: Some(known.unwrap_or_else(own)),
            });
            self.write_rollup(values)?;
        }
        self.series
            .finish_page(self.page_start, rollup_start, &entries);
        self.page_start = self.out.at;
        Ok(())
    }

    fn write_rollup(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        self.counts.rollup_bytes += bytes.len() as u64;
        self.out.write(bytes)
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
        self.finish_page()?;
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
        let mut resolutions = [0; RESOLUTIONS_MAX];
        resolutions[..self.resolutions.len()].copy_from_slice(&self.resolutions);
        let footer = Footer {
            meta,
            samples_range,
            tenants: counts.tenants,
            series: counts.series,
            chunks: counts.chunks,
            samples: counts.samples,
            without_samples: self.without_samples,
            rollup_bytes: counts.rollup_bytes,
            resolutions,
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
        self.encoder.encode_timestamps(timestamps, &mut self.chunk);
        let mut times = None;
        if self.chunk.len() >= WORTH_SHARING {
            let kind = timestamps.len() as u64 * 2;
            times = self.times.find_or_note(&self.chunk, kind, self.out.at);
        }
        if times.is_some() {
            self.chunk.clear();
        }
        self.encoder.encode_values(values, &mut self.chunk);
        let codec = match times {
            None => Codec::Columns,
            Some(_) => Codec::Values,
        };
        self.entries.push(ChunkEntry {
            codec: codec as u8,
            first: timestamps[0],
            last: timestamps[timestamps.len() - 1],
            // Both are bounded by SAMPLES_PER_CHUNK.
            samples: timestamps.len() as u32,
            offset: self.out.at,
            bytes: self.chunk.len() as u32,
            crc: crc32c::crc32c(&self.chunk),
            times,
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
