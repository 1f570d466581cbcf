//! The streamed answer of remote read: frames of chunks, series by series.
//!
//! ```text
//! frame: uvarint length of the message, CRC-32C of it (u32 BE), message ChunkedReadResponse
//! ```
//!
//! **Invariants:** a frame holds chunks of one series; series come sorted by their labels, the
//! chunks of one in order of time and without overlap. One series is decoded at a time, whatever
//! the answer's length.

use std::sync::Arc;
use std::vec::IntoIter;

use bytes::Bytes;
use prost::Message as _;

use super::super::answer::PIECE_BYTES;
use super::super::body::Write;
use super::super::error::ApiError;
use super::proto::{self, Chunk, ChunkedReadResponse, ChunkedSeries, ENCODING_XOR, Label};
use super::{Wanted, xor};
use crate::{QueryError, ReadContext, SampleColumns, SeriesSource, StoredSeries};

/// The answer, and how far it is.
pub(super) struct Frames {
    source: Arc<dyn SeriesSource>,
    context: Arc<ReadContext>,
    queries: std::iter::Enumerate<IntoIter<Wanted>>,
    /// The query that is being answered.
    query_index: i64,
    series: IntoIter<Box<dyn StoredSeries>>,
    open: Option<Open>,
    columns: SampleColumns,
    /// A frame is closed once it is longer.
    frame_bytes: usize,
    done: bool,
}

/// A series that is being written.
struct Open {
    labels: Vec<Label>,
    /// The first sample that is not written.
    from: usize,
    /// Room for chunks in a frame beside the labels.
    room: usize,
}

impl Frames {
    pub(super) fn new(
        source: Arc<dyn SeriesSource>,
        context: Arc<ReadContext>,
        queries: Vec<Wanted>,
        frame_bytes: usize,
    ) -> Self {
        Self {
            source,
            context,
            queries: queries.into_iter().enumerate(),
            query_index: 0,
            series: Vec::new().into_iter(),
            open: None,
            columns: SampleColumns::default(),
            frame_bytes,
            done: false,
        }
    }

    /// Opens the next series that has samples; `false` if there is none.
    fn open_next(&mut self) -> Result<bool, ApiError> {
        loop {
            check(&self.context)?;
            let Some(series) = self.series.next() else {
                let Some((index, wanted)) = self.queries.next() else {
                    return Ok(false);
                };
                self.query_index = index as i64;
                self.series = wanted.select(&*self.source, &self.context)?.into_iter();
                continue;
            };
            self.columns.clear();
            series.read(&mut self.columns)?;
            if self.columns.is_empty() {
                continue;
            }
            let labels = proto::labels(series.labels());
            let taken: usize = labels.iter().map(prost::Message::encoded_len).sum();
            self.open = Some(Open {
                labels,
                from: 0,
                room: self.frame_bytes.saturating_sub(taken),
            });
            return Ok(true);
        }
    }

    fn write_frame(&mut self, out: &mut Vec<u8>) {
        let Some(open) = &mut self.open else { return };
        let mut chunks = Vec::new();
        let mut taken = 0;
        while open.from < self.columns.len() && (chunks.is_empty() || taken < open.room) {
            let to = self.columns.len().min(open.from + xor::SAMPLES_MAX);
            let timestamps = &self.columns.timestamps[open.from..to];
            let chunk = Chunk {
                min_time_ms: timestamps[0],
                max_time_ms: timestamps[timestamps.len() - 1],
                encoding: ENCODING_XOR,
                data: xor::encode(timestamps, &self.columns.values[open.from..to]),
            };
            taken += chunk.encoded_len();
            chunks.push(chunk);
            open.from = to;
        }
        let message = ChunkedReadResponse {
            chunked_series: vec![ChunkedSeries {
                labels: open.labels.clone(),
                chunks,
            }],
            query_index: self.query_index,
        }
        .encode_to_vec();
        prost::encoding::encode_varint(message.len() as u64, out);
        out.extend_from_slice(&crc32c::crc32c(&message).to_be_bytes());
        out.extend_from_slice(&message);
        if open.from == self.columns.len() {
            self.open = None;
        }
    }
}

impl Write for Frames {
    fn next_piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut out = Vec::new();
        while out.len() < PIECE_BYTES {
            if self.open.is_none() && !self.open_next()? {
                self.done = true;
                break;
            }
            self.write_frame(&mut out);
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

/// An error once nobody waits any more.
pub(super) fn check(context: &ReadContext) -> Result<(), ApiError> {
    if context.cancel.is_cancelled() {
        return Err(QueryError::Canceled("remote read was canceled".to_owned()).into());
    }
    Ok(())
}
