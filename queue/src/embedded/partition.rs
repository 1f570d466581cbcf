//! One partition of the embedded queue.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use millrace_log::planted as log_planted;
use millrace_log::{Log, LogError, LogReader, Lsn, NewRecord};
use millrace_model::{Offset, PartitionId, TimestampMs};
use parking_lot::{Condvar, Mutex};

use super::HeldPartition;
use super::retention::{Decision, Holding, Segment};
use crate::metrics::{self, PartitionMetrics};
use crate::planted;
use crate::traits::{AppendDone, AppendError};

/// A partition: its log, and what its consumers wait for.
#[derive(Debug)]
pub(super) struct Partition {
    id: PartitionId,
    writer: Mutex<Writer>,
    reader: LogReader,
    segment_bytes: u64,
    tip: Mutex<Tip>,
    grown: Condvar,
    /// Everything below is safe in the store. Only grows.
    released: AtomicU64,
    metrics: PartitionMetrics,
}

#[derive(Debug)]
struct Writer {
    log: Log,
    /// Time of the newest record; record times never go backwards.
    last_time: TimestampMs,
    /// Since an append last said that a segment's worth was written.
    written_bytes: u64,
    closed: bool,
}

/// How far consumers may read.
#[derive(Clone, Copy, Debug)]
struct Tip {
    end: Lsn,
    closed: bool,
}

/// What a consumer found when it waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    Grown,
    TimedOut,
    Closed,
}

impl Partition {
    pub(super) fn new(
        id: PartitionId,
        log: Log,
        segment_bytes: u64,
        metrics: PartitionMetrics,
    ) -> Self {
        let reader = log.reader();
        let end = reader.synced_lsn();
        metrics::set(&metrics.first, reader.first_lsn().0);
        metrics::set(&metrics.end, end.0);
        metrics.failed.set(0);
        let segments = log.segments();
        let newest = segments.iter().filter_map(|segment| segment.last_time);
        let writer = Writer {
            last_time: newest.max().unwrap_or(TimestampMs(i64::MIN)),
            log,
            written_bytes: 0,
            closed: false,
        };
        Self {
            id,
            writer: Mutex::new(writer),
            reader,
            segment_bytes,
            tip: Mutex::new(Tip { end, closed: false }),
            grown: Condvar::new(),
            released: AtomicU64::new(0),
            metrics,
        }
    }

    pub(super) fn id(&self) -> PartitionId {
        self.id
    }

    pub(super) fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// Appends, syncs and calls `done`. Returns whether about a segment's worth was written since
    /// it last did.
    pub(super) fn append(&self, batches: &[Bytes], now: TimestampMs, done: AppendDone) -> bool {
        let mut writer = self.writer.lock();
        if writer.closed {
            drop(writer);
            done(Err(AppendError::Closed));
            return false;
        }
        let mut outcome = writer.write(batches, now);
        let early = log_planted::active(planted::ACK_BEFORE_SYNC);
        if !early {
            // IMPORTANT: what `done` says hangs on this sync.
            outcome = outcome.and_then(|range| self.sync(&mut writer).map(|()| range));
        }
        let rolled = writer.written_bytes >= self.segment_bytes;
        if rolled {
            writer.written_bytes = 0;
        }
        let outcome = outcome.map_err(|error| self.failed(&error));
        if early {
            done(outcome);
            if let Err(error) = self.sync(&mut writer) {
                self.failed(&error);
            }
            return rolled;
        }
        // The next append may start while this one is being told of.
        drop(writer);
        done(outcome);
        rolled
    }

    fn sync(&self, writer: &mut Writer) -> Result<(), LogError> {
        let end = writer.log.sync()?;
        self.metrics.syncs.inc();
        metrics::set(&self.metrics.end, end.0);
        self.tip.lock().end = end;
        self.grown.notify_all();
        Ok(())
    }

    fn failed(&self, error: &LogError) -> AppendError {
        // A record that is too long leaves the log as it was; all else is the end of it.
        if !matches!(error, LogError::RecordTooLarge { .. }) {
            if self.metrics.failed.get() == 0 {
                tracing::error!(
                    partition = %self.id, %error,
                    "the queue cannot write; this partition takes no appends until a restart"
                );
            }
            self.metrics.failed.set(1);
        }
        AppendError::Failed {
            partition: self.id,
            reason: error.to_string(),
        }
    }

    /// Waits until there is a record at `position`, the queue is closed, or `deadline` has passed;
    /// `None` is never.
    pub(super) fn wait(&self, position: Offset, deadline: Option<Instant>) -> Waited {
        let mut tip = self.tip.lock();
        loop {
            if tip.end.0 > position.0 {
                return Waited::Grown;
            }
            if tip.closed {
                return Waited::Closed;
            }
            match deadline {
                None => self.grown.wait(&mut tip),
                Some(deadline) => {
                    let timed_out = self.grown.wait_until(&mut tip, deadline).timed_out();
                    if timed_out && tip.end.0 <= position.0 && !tip.closed {
                        return Waited::TimedOut;
                    }
                }
            }
        }
    }

    /// What is durable now.
    pub(super) fn hold(&self) -> Result<HeldPartition, LogError> {
        let writer = self.writer.lock();
        let segments = writer.log.hold()?;
        Ok(HeldPartition {
            partition: self.id,
            records: Offset(writer.log.first_lsn().0)..Offset(writer.log.synced_lsn().0),
            segments,
        })
    }

    pub(super) fn release(&self, sealed: Offset) {
        let before = self.released.fetch_max(sealed.0, Ordering::SeqCst);
        metrics::set(&self.metrics.released, before.max(sealed.0));
    }

    /// What retention decides on.
    pub(super) fn holding(&self) -> Holding {
        // Before the segments: what is released later is only kept longer.
        let released = self.released.load(Ordering::SeqCst);
        let segments = self.writer.lock().log.segments();
        let segments = segments.iter().map(|segment| Segment {
            next: segment.next_lsn.0,
            bytes: segment.bytes,
            last_time: segment.last_time.unwrap_or(TimestampMs(i64::MIN)),
        });
        Holding {
            segments: segments.collect(),
            released,
        }
    }

    /// Does what retention decided.
    pub(super) fn remove(&self, decision: Decision) -> Result<(), LogError> {
        metrics::set(&self.metrics.held_bytes, decision.held_bytes);
        let first = self.reader.first_lsn();
        if decision.remove_below <= first.0 {
            return Ok(());
        }
        let mut writer = self.writer.lock();
        let removed = writer.log.remove_below(Lsn(decision.remove_below));
        drop(writer);
        let removed = removed.inspect_err(|error| drop(self.failed(error)))?;
        self.metrics.removed_segments.inc_by(removed);
        metrics::set(&self.metrics.first, self.reader.first_lsn().0);
        tracing::info!(
            partition = %self.id, segments = removed, first = %self.reader.first_lsn(),
            "retention removed old segments of the queue"
        );
        Ok(())
    }

    pub(super) fn close(&self) {
        // Waits for the append in flight.
        self.writer.lock().closed = true;
        self.tip.lock().closed = true;
        self.grown.notify_all();
    }
}

impl Writer {
    fn write(&mut self, batches: &[Bytes], now: TimestampMs) -> Result<Range<Offset>, LogError> {
        let time = now.max(self.last_time);
        let parts: Vec<[&[u8]; 1]> = batches.iter().map(|batch| [batch.as_ref()]).collect();
        let records: Vec<NewRecord<'_>> = parts
            .iter()
            .map(|parts| NewRecord { time, parts })
            .collect();
        let range = self.log.append(&records)?;
        self.last_time = time;
        self.written_bytes += batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        Ok(Offset(range.start.0)..Offset(range.end.0))
    }
}

#[cfg(test)]
impl Partition {
    pub(super) fn failed_gauge(&self) -> i64 {
        self.metrics.failed.get()
    }
}
