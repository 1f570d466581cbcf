//! Pulling from one partition of the embedded queue.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_log::{LogError, LogReader, LogRecord, Lsn};
use millrace_model::{Offset, PartitionId, QueueId};

use super::partition::{Partition, Waited};
use crate::traits::{ConsumeError, Consumer, Record};

/// Reads one partition.
#[derive(Debug)]
pub(super) struct EmbeddedConsumer {
    queue: QueueId,
    partition: Arc<Partition>,
    /// Its own, since a reader remembers where its last read ended.
    reader: LogReader,
    position: Offset,
    read: Vec<LogRecord>,
}

impl EmbeddedConsumer {
    /// A reader that stands at `from`, wherever that is.
    pub(super) fn new(queue: QueueId, partition: Arc<Partition>, from: Offset) -> Self {
        Self {
            queue,
            reader: partition.reader().clone(),
            partition,
            position: from,
            read: Vec::new(),
        }
    }

    /// Refuses a position that is not in the queue.
    pub(super) fn checked(self) -> Result<Self, ConsumeError> {
        let first = Offset(self.reader.first_lsn().0);
        if self.position < first {
            return Err(ConsumeError::TooOld {
                partition: self.partition(),
                wanted: self.position,
                first,
            });
        }
        self.refuse_beyond_end(self.position)?;
        Ok(self)
    }

    fn refuse_beyond_end(&self, wanted: Offset) -> Result<(), ConsumeError> {
        let end = self.end()?;
        if wanted > end {
            return Err(ConsumeError::BeyondEnd {
                partition: self.partition(),
                wanted,
                end,
            });
        }
        Ok(())
    }

    /// Reads what is there; whether it was anything.
    fn read(&mut self, max_bytes: usize, out: &mut Vec<Record>) -> Result<bool, ConsumeError> {
        self.read.clear();
        let from = Lsn(self.position.0);
        let next = self
            .reader
            .read(from, max_bytes, &mut self.read)
            .map_err(|error| translate(self.partition.id(), error))?;
        out.extend(self.read.drain(..).map(|record| Record {
            offset: Offset(record.lsn.0),
            appended_at: record.time,
            payload: record.payload,
        }));
        self.position = Offset(next.0);
        Ok(next > from)
    }
}

impl Consumer for EmbeddedConsumer {
    fn partition(&self) -> PartitionId {
        self.partition.id()
    }

    fn queue(&self) -> Result<QueueId, ConsumeError> {
        // The directory is locked: it cannot become another queue while it is open.
        Ok(self.queue)
    }

    fn range(&self) -> Result<Range<Offset>, ConsumeError> {
        Ok(Offset(self.reader.first_lsn().0)..self.end()?)
    }

    fn record_at(
        &mut self,
        offset: Offset,
        _patience: Duration,
    ) -> Result<Option<Record>, ConsumeError> {
        self.position = offset;
        let mut records = Vec::new();
        self.read(1, &mut records)?;
        Ok(records.into_iter().find(|record| record.offset == offset))
    }

    fn poll(
        &mut self,
        max_bytes: usize,
        wait: Duration,
        out: &mut Vec<Record>,
    ) -> Result<(), ConsumeError> {
        if self.read(max_bytes, out)? {
            return Ok(());
        }
        // A wait beyond what the clock can express is a wait for ever.
        let deadline = Instant::now().checked_add(wait);
        match self.partition.wait(self.position, deadline) {
            Waited::Grown => self.read(max_bytes, out).map(drop),
            Waited::TimedOut => Ok(()),
            Waited::Closed => Err(ConsumeError::Closed),
        }
    }

    fn seek(&mut self, next: Offset) {
        self.position = next;
    }

    fn end(&self) -> Result<Offset, ConsumeError> {
        Ok(Offset(self.reader.synced_lsn().0))
    }

    fn commit(&mut self, _applied: Offset) -> Result<(), ConsumeError> {
        Ok(())
    }

    fn release(&mut self, sealed: Offset) -> Result<(), ConsumeError> {
        self.refuse_beyond_end(sealed)?;
        self.partition.release(sealed);
        Ok(())
    }
}

fn translate(partition: PartitionId, error: LogError) -> ConsumeError {
    match error {
        LogError::Removed { wanted, first } => ConsumeError::TooOld {
            partition,
            wanted: Offset(wanted.0),
            first: Offset(first.0),
        },
        LogError::BeyondEnd { wanted, end } => ConsumeError::BeyondEnd {
            partition,
            wanted: Offset(wanted.0),
            end: Offset(end.0),
        },
        LogError::Corrupt { .. } | LogError::Missing { .. } | LogError::Version { .. } => {
            ConsumeError::Damaged {
                partition,
                reason: error.to_string(),
            }
        }
        LogError::Io { .. } | LogError::RecordTooLarge { .. } | LogError::Exhausted { .. } => {
            ConsumeError::Unavailable {
                partition,
                reason: error.to_string(),
            }
        }
    }
}
