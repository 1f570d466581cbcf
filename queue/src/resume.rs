//! Whether a reader may go on where it stopped.
//!
//! A position is a number, and a queue may have become another one under it: truncated by the loss
//! of a replica, restored from a copy, deleted and made again, or cut by retention while the reader
//! was away. None of that raises an error by itself once the queue has grown past the position. So
//! the reader keeps more than the number: which queue it is of, and what the last record looked like.

use std::time::Duration;

use millrace_log::planted::active;
use millrace_model::{Offset, QueueId};

use crate::planted::FINGERPRINT_UNCHECKED;
use crate::traits::{ConsumeError, Consumer, Fingerprint};

/// Where a reader stopped, and how it knows the queue again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// The queue it has read.
    pub queue: QueueId,
    /// Everything below is read.
    pub next: Offset,
    /// Of the record right before `next`. `None` if nothing was read, or if the position was set
    /// by hand.
    pub last: Option<Fingerprint>,
}

impl ResumePoint {
    /// Compares the queue with what was read of it, and moves the consumer to the position.
    ///
    /// A queue whose retention has removed the last record but nothing behind it is fine.
    ///
    /// # Errors
    ///
    /// [`ConsumeError::AnotherQueue`], [`ConsumeError::TooOld`], [`ConsumeError::BeyondEnd`] or
    /// [`ConsumeError::Diverged`] if the reader must not go on;
    /// [`ConsumeError::Unavailable`] if the queue cannot be asked within `patience`.
    pub fn check(
        &self,
        consumer: &mut dyn Consumer,
        patience: Duration,
    ) -> Result<(), ConsumeError> {
        let (partition, wanted) = (consumer.partition(), self.next);
        let found = consumer.queue()?;
        if found != self.queue {
            return Err(ConsumeError::AnotherQueue {
                partition,
                wanted: self.queue,
                found,
            });
        }
        let held = consumer.range()?;
        if wanted < held.start {
            return Err(ConsumeError::TooOld {
                partition,
                wanted,
                first: held.start,
            });
        }
        if wanted > held.end {
            return Err(ConsumeError::BeyondEnd {
                partition,
                wanted,
                end: held.end,
            });
        }
        self.check_last(consumer, held.start, patience)?;
        consumer.seek(wanted);
        Ok(())
    }

    fn check_last(
        &self,
        consumer: &mut dyn Consumer,
        first: Offset,
        patience: Duration,
    ) -> Result<(), ConsumeError> {
        let before = self.next.0.checked_sub(1).map(Offset);
        let (Some(wanted), Some(offset)) = (self.last, before) else {
            return Ok(());
        };
        if offset < first || active(FINGERPRINT_UNCHECKED) {
            return Ok(());
        }
        let record = consumer.record_at(offset, patience)?;
        let found = record.as_ref().map(Fingerprint::of);
        if found == Some(wanted) {
            return Ok(());
        }
        Err(ConsumeError::Diverged {
            partition: consumer.partition(),
            offset,
            wanted,
            found,
        })
    }
}
