//! Reading samples.

use millrace_model::TimeRange;

use super::columns::decode;
use super::{BlockError, BlockReader, ChunkEntry, Codec, Section, SeriesPlace};

impl BlockReader {
    /// Appends the samples of a series of this block that are in `range` to the columns, in order
    /// of time. One read for all of its chunks that overlap.
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
        let chunks = &place.chunks;
        let from = chunks.partition_point(|c| c.last < range.start.0);
        let to = chunks.partition_point(|c| c.first <= range.end.0);
        let Some(chunks @ [first, ..]) = chunks.get(from..to) else {
            return Ok(());
        };
        let bytes = chunks.iter().map(|c| u64::from(c.bytes)).sum();
        let bytes = self.read_at(first.offset, bytes)?;
        let mut rest = &bytes[..];
        for chunk in chunks {
            let (bytes, behind) = rest.split_at(chunk.bytes as usize);
            rest = behind;
            self.read_chunk(chunk, bytes, range, timestamps, values)?;
        }
        Ok(())
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
        self.check(Section::Chunks, chunk.offset, bytes, chunk.crc)?;
        let codec = Codec::from_byte(chunk.codec).ok_or_else(|| BlockError::Unsupported {
            path: self.path().to_owned(),
            what: "chunk codec",
            got: chunk.codec,
            supported: Codec::LAST,
        })?;
        let start = timestamps.len();
        match codec {
            Codec::Columns => decode(bytes, chunk.samples, chunk.first, timestamps, values),
        }
        .map_err(|source| BlockError::Chunk {
            path: self.path().to_owned(),
            offset: chunk.offset,
            source,
        })?;
        // An entry of another chunk whose bytes have the same checksum: a bug of a writer.
        let ends = (timestamps.get(start), timestamps.last());
        if ends != (Some(&chunk.first), Some(&chunk.last)) {
            let what = "chunk does not begin and end as its entry says";
            return Err(self.malformed(Section::Chunks, chunk.offset, what));
        }
        Ok(())
    }
}
