//! Reading samples and rollups.

use std::sync::Arc;

use millrace_log::planted::active;
use millrace_model::TimeRange;

use super::columns::{self, SAMPLES_MAX};
use super::rollup::{RollupColumns, decode_times, decode_values};
use super::times::TimesEntry;
use super::{
    BlockError, BlockReader, ChunkEntry, Codec, RollupEntry, SERIES_PER_PAGE, Section, SeriesPlace,
};
use crate::planted::CHUNK_UNVERIFIED;

/// What stands for the samples of a bucket that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// The last one, timestamp and value as they were sent.
    Last,
    /// Their sum, at the time of the last one: of deltas, none is lost.
    Sum,
}

impl BlockReader {
    /// Appends the samples of a series of this block that are in `range` to the columns, in order
    /// of time. One read for all of its chunks that overlap. In a block without samples there are
    /// none.
    ///
    /// # Errors
    ///
    /// Of the file system; damage in the chunks that are read. The columns are then of no use.
    pub fn read(
        &self,
        place: &SeriesPlace,
        range: TimeRange,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<(), BlockError> {
        let read = self.read_chunks(&place.chunks, range, timestamps, values);
        read.map(drop)
    }

    /// The same for the series of that number; where its samples are gone, `left` says what stands for
    /// them. The bytes of chunks that were read.
    pub(crate) fn read_number(
        &self,
        number: u32,
        left: Left,
        range: TimeRange,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<u64, BlockError> {
        let set = self.series_set(number / SERIES_PER_PAGE)?;
        let at = (number % SERIES_PER_PAGE) as usize;
        if self.footer.without_samples {
            return self.read_left(set.rollups(at).first(), left, range, timestamps, values);
        }
        let chunks = set.chunks(at);
        self.read_chunks(chunks, range, timestamps, values)
    }

    fn read_chunks(
        &self,
        chunks: &[ChunkEntry],
        range: TimeRange,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<u64, BlockError> {
        let from = chunks.partition_point(|c| c.last < range.start.0);
        let to = chunks.partition_point(|c| c.first <= range.end.0);
        let Some(chunks @ [first, ..]) = chunks.get(from..to) else {
            return Ok(0);
        };
        let samples: usize = chunks
            .iter()
            .map(|c| c.samples.min(SAMPLES_MAX) as usize)
            .sum();
        timestamps.reserve(samples);
        values.reserve(samples);
        let bytes = chunks.iter().map(|c| u64::from(c.bytes)).sum();
        self.with_samples(first.offset, bytes, |bytes| {
            let mut rest = bytes;
            for chunk in chunks {
                let (bytes, behind) = rest.split_at(chunk.bytes as usize);
                rest = behind;
                self.read_chunk(chunk, bytes, range, timestamps, values)?;
            }
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Appends the buckets of a series of this block that overlap `range`, in a resolution that the
    /// block stores or that is a multiple of one that it does. Touches no samples. A bucket that
    /// goes on from the last one in `out`, as at the border of two blocks, is joined with it.
    ///
    /// The buckets are those of the samples *in this block*. Where another block or a memtable has
    /// samples of the same bucket and time, only the samples can say what is right.
    ///
    /// # Errors
    ///
    /// [`BlockError::NoRollup`]; of the file system; damage in what is read. `out` is then of no
    /// use.
    ///
    /// # Panics
    ///
    /// If the resolution is not positive.
    pub fn read_rollup(
        &self,
        place: &SeriesPlace,
        resolution_ms: i64,
        range: TimeRange,
        out: &mut RollupColumns,
    ) -> Result<(), BlockError> {
        assert!(resolution_ms > 0, "a resolution of {resolution_ms} ms");
        let stored = self.footer.resolutions();
        let at = stored.iter().rposition(|r| resolution_ms % r == 0);
        let at = at.ok_or_else(|| BlockError::NoRollup {
            path: self.path().to_owned(),
            resolution_ms,
            stored: stored.to_vec(),
        })?;
        let columns = self.stored_rollup(place, at)?;
        let mut wanted = RollupColumns::default();
        wanted.push_range(&columns, resolution_ms, (range.start.0, range.end.0));
        wanted.fold(resolution_ms, out);
        Ok(())
    }

    /// Appends what is left of a series whose samples are gone: of each bucket of the finest stored
    /// resolution what `left` says, at the time of its last sample, where that is in `range`. Of a series
    /// that was stale at the end of a bucket it is the last one before. Returns the bytes of rollups that
    /// were read.
    fn read_left(
        &self,
        finest: Option<&RollupEntry>,
        left: Left,
        range: TimeRange,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<u64, BlockError> {
        let columns = self.rollup_of(finest, 0)?;
        let from = columns.last_times.partition_point(|&t| t < range.start.0);
        let to = columns.last_times.partition_point(|&t| t <= range.end.0);
        if from < to {
            timestamps.extend_from_slice(&columns.last_times[from..to]);
            let of = match left {
                Left::Last => &columns.lasts,
                Left::Sum => &columns.sums,
            };
            values.extend_from_slice(&of[from..to]);
        }
        Ok(finest.map_or(0, |entry| u64::from(entry.bytes)))
    }

    /// The buckets of the series of that number in the resolution of that place in
    /// [`resolutions`](Self::resolutions), and the bytes that were read for them.
    pub(crate) fn rollup_of_number(
        &self,
        number: u32,
        which: usize,
    ) -> Result<(RollupColumns, u64), BlockError> {
        let set = self.series_set(number / SERIES_PER_PAGE)?;
        let entry = set.rollups((number % SERIES_PER_PAGE) as usize).get(which);
        let columns = self.rollup_of(entry, which)?;
        Ok((columns, entry.map_or(0, |entry| u64::from(entry.bytes))))
    }

    /// Whether the samples themselves are not there any more, but only their rollups.
    #[must_use]
    pub fn without_samples(&self) -> bool {
        self.footer.without_samples
    }

    /// The resolutions whose rollups are stored, in ms, the finest first.
    #[must_use]
    pub fn resolutions(&self) -> &[i64] {
        self.footer.resolutions()
    }

    /// Whether [`read_rollup`](Self::read_rollup) can answer in a resolution.
    #[must_use]
    pub fn has_rollup(&self, resolution_ms: i64) -> bool {
        let stored = self.footer.resolutions();
        resolution_ms > 0 && stored.iter().any(|r| resolution_ms % r == 0)
    }

    /// All buckets of a series in the stored resolution number `at`.
    pub(super) fn stored_rollup(
        &self,
        place: &SeriesPlace,
        at: usize,
    ) -> Result<RollupColumns, BlockError> {
        self.rollup_of(place.rollups.get(at), at)
    }

    /// The same, from what the page says of it.
    fn rollup_of(
        &self,
        entry: Option<&RollupEntry>,
        at: usize,
    ) -> Result<RollupColumns, BlockError> {
        let mut columns = RollupColumns::default();
        let Some(entry) = entry else {
            return Ok(columns);
        };
        let Some(times) = entry.times else {
            return Ok(columns);
        };
        let malformed = |offset: u64, (pos, what): (usize, &'static str)| {
            self.malformed(Section::Rollups, offset + pos as u64, what)
        };
        let resolution_ms = self.footer.resolutions()[at];
        self.with_bytes(times.offset, u64::from(times.bytes), |bytes| {
            self.check(Section::Rollups, times.offset, bytes, times.crc)?;
            decode_times(bytes, resolution_ms, &mut columns)
                .map_err(|error| malformed(times.offset, error))
        })?;
        self.with_bytes(entry.offset, u64::from(entry.bytes), |bytes| {
            self.check(Section::Rollups, entry.offset, bytes, entry.crc)?;
            decode_values(bytes, &mut columns).map_err(|error| malformed(entry.offset, error))
        })?;
        Ok(columns)
    }

    /// Appends what one chunk has in `range`.
    fn read_chunk(
        &self,
        chunk: &ChunkEntry,
        bytes: &[u8],
        range: TimeRange,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<(), BlockError> {
        let start = timestamps.len();
        self.decode(chunk, bytes, timestamps, values)?;
        if chunk.last > range.end.0 {
            let end = start + timestamps[start..].partition_point(|&t| t <= range.end.0);
            timestamps.truncate(end);
            values.truncate(end);
        }
        if chunk.first < range.start.0 {
            let from = start + timestamps[start..].partition_point(|&t| t < range.start.0);
            timestamps.drain(start..from);
            values.drain(start..from);
        }
        Ok(())
    }

    /// Appends all samples of a chunk, whose bytes are verified against its entry.
    pub(super) fn decode(
        &self,
        chunk: &ChunkEntry,
        bytes: &[u8],
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<(), BlockError> {
        if !active(CHUNK_UNVERIFIED) {
            self.check(Section::Chunks, chunk.offset, bytes, chunk.crc)?;
        }
        let codec = Codec::from_byte(chunk.codec).ok_or_else(|| BlockError::Unsupported {
            path: self.path().to_owned(),
            what: "chunk codec",
            got: chunk.codec,
            supported: Codec::LAST,
        })?;
        let start = timestamps.len();
        match (codec, chunk.times) {
            (Codec::Columns, _) => {
                columns::decode(bytes, chunk.samples, chunk.first, timestamps, values)
                    .map_err(|source| self.undecodable(chunk.offset, source))?;
            }
            (Codec::Values, Some(times)) => {
                let relative = self.shared_times(times, chunk)?;
                let first = chunk.first;
                timestamps.extend(relative.iter().map(|t| t.wrapping_add(first)));
                let at = values.len();
                values.resize(at + relative.len(), 0.0);
                columns::decode_values(bytes, &mut values[at..])
                    .map_err(|source| self.undecodable(chunk.offset, source))?;
            }
            (Codec::Values, None) => {
                let what = "a chunk of values that refers to no timestamps";
                return Err(self.malformed(Section::Chunks, chunk.offset, what));
            }
        }
        // An entry of another chunk whose bytes have the same checksum: a bug of a writer.
        let ends = (timestamps.get(start), timestamps.last());
        if ends != (Some(&chunk.first), Some(&chunk.last)) {
            let what = "chunk does not begin and end as its entry says";
            return Err(self.malformed(Section::Chunks, chunk.offset, what));
        }
        Ok(())
    }

    /// The timestamps that a chunk refers to, less the first one.
    fn shared_times(
        &self,
        times: TimesEntry,
        chunk: &ChunkEntry,
    ) -> Result<Arc<[i64]>, BlockError> {
        let count = chunk.samples as usize;
        if let Some(relative) = self.times.get(times.offset, count) {
            return Ok(relative);
        }
        if chunk.samples > SAMPLES_MAX {
            let what = "more samples than a chunk may have";
            return Err(self.malformed(Section::Chunks, chunk.offset, what));
        }
        let mut relative = vec![0; count];
        self.with_bytes(times.offset, u64::from(times.bytes), |bytes| {
            self.check(Section::Chunks, times.offset, bytes, times.crc)?;
            columns::decode_timestamps(bytes, &mut relative)
                .map_err(|source| self.undecodable(times.offset, source))
        })?;
        let relative: Arc<[i64]> = relative.into();
        self.times.put(times.offset, Arc::clone(&relative));
        Ok(relative)
    }

    fn undecodable(&self, offset: u64, source: columns::ColumnError) -> BlockError {
        BlockError::Chunk {
            path: self.path().to_owned(),
            offset,
            source,
        }
    }
}
