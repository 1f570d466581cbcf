//! What a subscriber is told before the ring begins: read from the queue by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_model::{Offset, PartitionId};
use millrace_queue::ConsumeError;

use crate::filter::{FilterSet, Numbered};
use crate::frame::FrameWriter;
use crate::hub::Hub;
use crate::sieve::Sieve;

/// How long a queue may take to bring records that are there.
const READ_WAIT: Duration = Duration::from_secs(2);

/// What a read came to. It goes on at `next`.
#[derive(Debug)]
pub(crate) enum Step {
    /// This is told, if anything.
    Told(Offset, Option<Bytes>),
    /// The queue does not have what the place stands for: it goes on elsewhere.
    Gap(Offset, &'static str),
}

/// Reads some records of `partition` from `from` on, none at or behind `to`; where these are equal it is only
/// looked whether there is such a place. Blocks.
pub(crate) fn step(
    hub: &Hub,
    filter: &Arc<Numbered>,
    sieve: &mut Sieve,
    partition: PartitionId,
    (from, to): (Offset, Offset),
) -> Result<Step, ConsumeError> {
    let bounds = hub.records.bounds(partition)?;
    if from < bounds.start {
        return Ok(Step::Gap(
            bounds.start,
            "the queue has these records no more",
        ));
    }
    if from > bounds.end {
        return Ok(Step::Gap(bounds.end, "the queue ends before this place"));
    }
    if from == to {
        return Ok(Step::Told(from, None));
    }
    let mut reader = match hub.records.read_from(partition, from) {
        Ok(reader) => reader,
        // It went meanwhile.
        Err(ConsumeError::TooOld { first, .. }) => {
            return Ok(Step::Gap(first, "the queue has these records no more"));
        }
        Err(error) => return Err(error),
    };
    let mut records = Vec::new();
    reader.poll(hub.options.chunk_bytes, READ_WAIT, &mut records)?;
    let filters = FilterSet::of_one(filter);
    let mut writer = FrameWriter::default();
    let mut next = from;
    for record in records.iter().filter(|record| record.offset < to) {
        sieve.record(&record.payload, &filters, &mut writer);
        next = record.offset.advanced(1);
    }
    if records.iter().any(|record| record.offset >= to) {
        // Offsets may have holes.
        next = to;
    }
    let frame = writer.finish(partition, (from, next), filters.newest);
    Ok(Step::Told(next, frame.text(filter.id).cloned()))
}
