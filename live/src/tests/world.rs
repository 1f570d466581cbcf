//! A queue, and what a store has applied of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_model::batch::{FloatSectionWriter, encode_batch};
use millrace_model::{
    Labels, Offset, PartitionId, QueueId, Sample, SeriesHasher, ShardKey, TenantId, TimestampMs,
};
use millrace_queue::{ConsumeError, Consumer, Position, QueueIdentity, Record, RecordSource};
use parking_lot::{Condvar, Mutex};

use crate::Applied;

pub(super) const QUEUE: QueueId = QueueId(7);

/// Cloning gives another handle.
#[derive(Clone, Debug)]
pub(super) struct World(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    identity: QueueIdentity,
    parts: Mutex<Vec<Part>>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Part {
    /// The offset of the oldest record.
    first: u64,
    payloads: Vec<Bytes>,
    applied: u64,
}

impl Part {
    fn end(&self) -> u64 {
        self.first + self.payloads.len() as u64
    }
}

impl World {
    pub(super) fn new(partitions: u32) -> Self {
        Self(Arc::new(Inner {
            identity: QueueIdentity {
                id: QUEUE,
                partitions,
                shard_key: ShardKey::default(),
            },
            parts: Mutex::new((0..partitions).map(|_| Part::default()).collect()),
            moved: Condvar::new(),
        }))
    }

    /// Appends a record, and applies everything.
    pub(super) fn push(&self, partition: usize, payload: Bytes) {
        self.append(partition, payload);
        self.apply(partition);
    }

    pub(super) fn append(&self, partition: usize, payload: Bytes) {
        self.0.parts.lock()[partition].payloads.push(payload);
    }

    pub(super) fn apply(&self, partition: usize) {
        let mut parts = self.0.parts.lock();
        parts[partition].applied = parts[partition].end();
        drop(parts);
        self.0.moved.notify_all();
    }

    /// What a store that was killed has lost: it will apply that again.
    pub(super) fn unapply(&self, partition: usize, records: u64) {
        self.0.parts.lock()[partition].applied -= records;
    }

    /// The queue forgets its oldest records.
    pub(super) fn forget(&self, partition: usize, records: usize) {
        let part = &mut self.0.parts.lock()[partition];
        part.payloads.drain(..records);
        part.first += records as u64;
    }

    fn read(&self, partition: PartitionId, from: u64, max_bytes: usize) -> Vec<Record> {
        let part = &self.0.parts.lock()[partition.0 as usize];
        let mut bytes = 0;
        let mut records = Vec::new();
        for offset in from.max(part.first)..part.end() {
            if bytes >= max_bytes {
                break;
            }
            let payload = part.payloads[(offset - part.first) as usize].clone();
            bytes += payload.len();
            records.push(Record {
                offset: Offset(offset),
                appended_at: TimestampMs(0),
                payload,
            });
        }
        records
    }
}

impl Applied for World {
    fn position(&self) -> Position {
        let mut position = Position::new(QUEUE);
        for (partition, part) in self.0.parts.lock().iter().enumerate() {
            position.advance(PartitionId(partition as u32), Offset(part.applied));
        }
        position
    }

    fn wait(&self, partition: PartitionId, wanted: Offset, timeout: Duration) -> Option<Offset> {
        let deadline = Instant::now() + timeout;
        let mut parts = self.0.parts.lock();
        while parts[partition.0 as usize].applied < wanted.0
            && !self.0.moved.wait_until(&mut parts, deadline).timed_out()
        {}
        Some(Offset(parts[partition.0 as usize].applied))
    }
}

impl RecordSource for World {
    fn identity(&self) -> &QueueIdentity {
        &self.0.identity
    }

    fn bounds(&self, partition: PartitionId) -> Result<Range<Offset>, ConsumeError> {
        let part = &self.0.parts.lock()[partition.0 as usize];
        Ok(Offset(part.first)..Offset(part.end()))
    }

    fn offset_at(&self, _: PartitionId, _: TimestampMs) -> Result<Offset, ConsumeError> {
        panic!("nobody looks by time")
    }

    fn read_from(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Box<dyn Consumer>, ConsumeError> {
        let first = self.bounds(partition)?.start;
        if from < first {
            return Err(ConsumeError::TooOld {
                partition,
                wanted: from,
                first,
            });
        }
        Ok(Box::new(Reader {
            world: self.clone(),
            partition,
            next: from,
        }))
    }
}

#[derive(Debug)]
struct Reader {
    world: World,
    partition: PartitionId,
    next: Offset,
}

impl Consumer for Reader {
    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn queue(&self) -> Result<QueueId, ConsumeError> {
        Ok(QUEUE)
    }

    fn range(&self) -> Result<Range<Offset>, ConsumeError> {
        self.world.bounds(self.partition)
    }

    fn record_at(&mut self, _: Offset, _: Duration) -> Result<Option<Record>, ConsumeError> {
        panic!("nobody looks at one record")
    }

    fn poll(
        &mut self,
        max_bytes: usize,
        _: Duration,
        out: &mut Vec<Record>,
    ) -> Result<(), ConsumeError> {
        let read = self.world.read(self.partition, self.next.0, max_bytes);
        if let Some(last) = read.last() {
            self.next = last.offset.advanced(1);
        }
        out.extend(read);
        Ok(())
    }

    fn seek(&mut self, next: Offset) {
        self.next = next;
    }

    fn end(&self) -> Result<Offset, ConsumeError> {
        Ok(self.range()?.end)
    }

    fn commit(&mut self, _: Offset) -> Result<(), ConsumeError> {
        panic!("it is not the store")
    }

    fn release(&mut self, _: Offset) -> Result<(), ConsumeError> {
        panic!("it is not the store")
    }
}

/// A record of samples of series that are called by their label `series`.
pub(super) fn record(tenant: &str, samples: &[(&str, i64, f64)]) -> Bytes {
    let tenant: TenantId = tenant.parse().unwrap();
    let hasher = SeriesHasher::new(&tenant);
    let mut writer = FloatSectionWriter::new();
    for &(name, at, value) in samples {
        let labels = Labels::from_pairs([("__name__", "m"), ("series", name)]).unwrap();
        let sample = Sample {
            timestamp: TimestampMs(at),
            value,
        };
        writer.push(hasher.id(&labels), labels.canonical(), &[sample]);
    }
    let sections: Vec<_> = writer.finish().into_iter().collect();
    encode_batch(&tenant, None, &sections).into()
}
