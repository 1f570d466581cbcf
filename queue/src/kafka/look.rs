//! The topic for those who only look. Each question is asked by a client of its own: tools ask few.

use std::ops::Range;
use std::time::Duration;

use millrace_model::{Offset, PartitionId, TimestampMs};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::topic_partition_list::{Offset as ClientOffset, TopicPartitionList};

use super::bounds::watermarks;
use super::{KafkaQueue, settings};
use crate::look::RecordSource;
use crate::traits::{ConsumeError, Consumer, QueueIdentity};

const TIMEOUT: Duration = Duration::from_secs(20);

impl KafkaQueue {
    fn ask<T>(
        &self,
        partition: PartitionId,
        question: impl FnOnce(&BaseConsumer, &str, i32) -> Result<T, ClientError>,
    ) -> Result<T, ConsumeError> {
        let unavailable = |reason: String| ConsumeError::Unavailable { partition, reason };
        let number = i32::try_from(partition.0)
            .map_err(|_| unavailable("partition numbers end at 2^31".to_owned()))?;
        let options = &self.inner.options;
        let client: BaseConsumer = settings::consumer(options)
            .create()
            .map_err(|error| unavailable(error.to_string()))?;
        question(&client, &options.topic, number).map_err(|error| unavailable(error.to_string()))
    }
}

fn offset(value: i64) -> Offset {
    Offset(u64::try_from(value).unwrap_or(0))
}

impl RecordSource for KafkaQueue {
    fn identity(&self) -> &QueueIdentity {
        Self::identity(self)
    }

    fn bounds(&self, partition: PartitionId) -> Result<Range<Offset>, ConsumeError> {
        self.ask(partition, |client, topic, number| {
            watermarks(client.client(), topic, number, TIMEOUT)
        })
    }

    fn offset_at(&self, partition: PartitionId, time: TimestampMs) -> Result<Offset, ConsumeError> {
        let found = self.ask(partition, |client, topic, number| {
            let mut times = TopicPartitionList::new();
            // For this one question the list carries times where it else carries offsets; before
            // the epoch nothing was ever queued.
            times.add_partition_offset(topic, number, ClientOffset::Offset(time.0.max(0)))?;
            let found = client.offsets_for_times(times, TIMEOUT)?;
            let element = found.find_partition(topic, number);
            match element.map(|element| element.offset()) {
                Some(ClientOffset::Offset(at)) => Ok(Some(offset(at))),
                _ => Ok(None),
            }
        })?;
        match found {
            Some(found) => Ok(found),
            None => Ok(self.bounds(partition)?.end),
        }
    }

    fn read_from(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Box<dyn Consumer>, ConsumeError> {
        self.consumer(partition, from)
    }
}
