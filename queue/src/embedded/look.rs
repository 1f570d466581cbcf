//! The embedded queue for those who only look.

use std::ops::Range;

use millrace_model::{Offset, PartitionId, TimestampMs};

use super::EmbeddedQueue;
use crate::look::RecordSource;
use crate::traits::{ConsumeError, Consumer, QueueIdentity};

impl RecordSource for EmbeddedQueue {
    fn identity(&self) -> &QueueIdentity {
        Self::identity(self)
    }

    fn bounds(&self, partition: PartitionId) -> Result<Range<Offset>, ConsumeError> {
        let reader = self.shared.partition(partition).reader();
        Ok(Offset(reader.first_lsn().0)..Offset(reader.synced_lsn().0))
    }

    fn offset_at(&self, partition: PartitionId, time: TimestampMs) -> Result<Offset, ConsumeError> {
        let reader = self.shared.partition(partition).reader();
        let found = reader.seek_time(time);
        found
            .map(|lsn| Offset(lsn.0))
            .map_err(|error| ConsumeError::Damaged {
                partition,
                reason: error.to_string(),
            })
    }

    fn read_from(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Box<dyn Consumer>, ConsumeError> {
        self.consumer(partition, from)
    }
}
