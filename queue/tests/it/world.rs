//! A queue on a simulated disk, and what it promised.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millrace_log::fs::Fs;
use millrace_log::fs::sim::{Ledger, SimFs};
use millrace_model::{Clock, ManualClock, Offset, PartitionId, QueueId, TimestampMs};
use millrace_queue::{EmbeddedOptions, EmbeddedQueue, QueueError};
use parking_lot::Mutex;
use prometheus::Registry;

pub const PARTITIONS: u32 = 2;
const DIR: &str = "/data/queue";

/// What happened, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// The queue was opened.
    Opened(QueueId),
    /// The record at this place was handed over.
    Attempted(PartitionId, Offset),
    /// Records below are durable.
    Acknowledged(PartitionId, Offset),
    /// The store released what is below.
    Released(PartitionId, Offset),
}

/// Shared with the acknowledgement callbacks.
pub type SharedLedger = Arc<Mutex<Ledger<Event>>>;

pub fn options() -> EmbeddedOptions {
    EmbeddedOptions {
        partitions: PARTITIONS,
        segment_bytes: 700,
        retention_age: None,
        retention_bytes: Some(1500),
        ..EmbeddedOptions::default()
    }
}

pub fn open(fs: &SimFs) -> Result<EmbeddedQueue, QueueError> {
    let clock = Arc::new(ManualClock::new(TimestampMs(1_000)));
    open_with(Arc::new(fs.clone()), clock)
}

pub fn open_with(fs: Arc<dyn Fs>, clock: Arc<dyn Clock>) -> Result<EmbeddedQueue, QueueError> {
    EmbeddedQueue::open(fs, clock, Path::new(DIR), options(), &Registry::new())
}

/// A payload that says where it belongs, of a length that varies.
pub fn payload(partition: PartitionId, offset: u64) -> Bytes {
    let mut text = format!("record {offset} of partition {partition}.").into_bytes();
    let len = text.len() + (offset as usize * 37) % 150;
    text.resize(len, offset as u8);
    text.into()
}

/// Appends `count` records at `next` in one append; whether they were acknowledged.
pub fn append(
    queue: &EmbeddedQueue,
    ledger: &SharedLedger,
    partition: PartitionId,
    next: u64,
    count: u64,
) -> bool {
    let batches: Vec<Bytes> = (next..next + count)
        .map(|o| payload(partition, o))
        .collect();
    for offset in next..next + count {
        let attempted = Event::Attempted(partition, Offset(offset));
        ledger.lock().note(attempted);
    }
    let acknowledged = Arc::new(AtomicBool::new(false));
    let done = {
        let (ledger, acknowledged) = (Arc::clone(ledger), Arc::clone(&acknowledged));
        Box::new(move |outcome: Result<std::ops::Range<Offset>, _>| {
            if let Ok(range) = outcome {
                assert_eq!(range, Offset(next)..Offset(next + count));
                ledger
                    .lock()
                    .note(Event::Acknowledged(partition, range.end));
                acknowledged.store(true, Ordering::SeqCst);
            }
        })
    };
    queue.producer().append(partition, batches, done);
    acknowledged.load(Ordering::SeqCst)
}

/// Reads a partition from its first record on, whatever that is; and where it ends.
pub fn read_all(
    queue: &EmbeddedQueue,
    partition: PartitionId,
) -> Result<(Vec<(Offset, Bytes)>, Offset), String> {
    let mut consumer = match queue.consumer(partition, Offset::ZERO) {
        Err(millrace_queue::ConsumeError::TooOld { first, .. }) => queue.consumer(partition, first),
        other => other,
    }
    .map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    loop {
        let before = records.len();
        consumer
            .poll(500, Duration::ZERO, &mut records)
            .map_err(|error| error.to_string())?;
        if records.len() == before {
            break;
        }
    }
    let end = consumer.end().map_err(|error| error.to_string())?;
    if let Some(last) = records.last()
        && last.offset.advanced(1) != end
    {
        return Err(format!("read up to {}, the end is {end}", last.offset));
    }
    let records = records.into_iter().map(|r| (r.offset, r.payload));
    Ok((records.collect(), end))
}

/// Compares what the queue holds with what had happened.
pub fn check<'a>(
    queue: &EmbeddedQueue,
    events: impl Iterator<Item = &'a Event>,
) -> Result<(), String> {
    let events: Vec<_> = events.collect();
    for partition in (0..PARTITIONS).map(PartitionId) {
        let (mut attempted, mut acknowledged, mut released) = (0, 0, 0);
        for event in &events {
            match event {
                Event::Opened(id) => {
                    if acknowledged > 0 && *id != queue.identity().id {
                        return Err("the queue has another id".to_owned());
                    }
                }
                Event::Attempted(p, o) if *p == partition => attempted = o.0 + 1,
                Event::Acknowledged(p, o) if *p == partition => acknowledged = o.0,
                Event::Released(p, o) if *p == partition => released = o.0,
                Event::Attempted(..) | Event::Acknowledged(..) | Event::Released(..) => {}
            }
        }
        let (records, Offset(end)) = read_all(queue, partition)?;
        let first = records.first().map_or(end, |(o, _)| o.0);
        if end < acknowledged || end > attempted {
            return Err(format!(
                "partition {partition}: ends at {end}; {acknowledged} were acknowledged, \
                 {attempted} attempted"
            ));
        }
        if first > released {
            return Err(format!(
                "partition {partition}: begins at {first}, but only what is below {released} \
                 was released"
            ));
        }
        for ((offset, bytes), expected) in records.iter().zip(first..) {
            if offset.0 != expected || *bytes != payload(partition, expected) {
                return Err(format!(
                    "partition {partition}: {offset} holds {bytes:?}, expected was {expected}"
                ));
            }
        }
    }
    Ok(())
}
