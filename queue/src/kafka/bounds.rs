//! Looking at the topic from beside: where its partitions begin and end, and what the group has
//! committed. Reads no records and joins no group.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use millrace_model::{Offset, PartitionId};
use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as ClientOffset, TopicPartitionList};
use tracing::debug;

use super::{KafkaError, KafkaOptions, settings};

/// The oldest offset that a partition has, and the one behind its newest, as its leader tells them.
///
/// A client whose brokers died while it learned of the topic may go on for minutes believing that
/// there is no such partition: then it is told to ask for the topic anew. librdkafka says "unknown
/// partition" of one without a leader too, which is told apart here: such a partition has no replica
/// in sync that is up, and comes back with one. And it may go on asking a leader that hangs, although
/// another one leads by now: where no answer came, it is told to ask who leads, for the next time.
pub(super) fn watermarks<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    number: i32,
    timeout: Duration,
) -> Result<Range<Offset>, ClientError> {
    let (low, high) = match client.fetch_watermarks(topic, number, timeout) {
        Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownPartition) => {
            let metadata = client.fetch_metadata(Some(topic), timeout)?;
            let topics = metadata.topics().iter();
            let mut partitions = topics.flat_map(|topic| topic.partitions());
            if partitions.any(|found| found.id() == number && found.leader() < 0) {
                let code = RDKafkaErrorCode::LeaderNotAvailable;
                return Err(ClientError::MetadataFetch(code));
            }
            client.fetch_watermarks(topic, number, timeout)?
        }
        Err(error) => {
            if let Err(also) = client.fetch_metadata(Some(topic), timeout) {
                debug!(error = %also, topic, "nobody says who leads");
            }
            return Err(error);
        }
        Ok(answered) => answered,
    };
    let offset = |value: i64| Offset(u64::try_from(value).unwrap_or(0));
    Ok(offset(low)..offset(high))
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionBounds {
    /// The oldest record that there is.
    pub first: Offset,
    /// The offset that the next record will have.
    pub end: Offset,
}

/// Looks at one topic. Blocks while it asks.
pub struct KafkaBounds {
    client: BaseConsumer,
    topic: String,
}

impl fmt::Debug for KafkaBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBounds")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl KafkaBounds {
    /// A watcher of the topic of the options.
    ///
    /// # Errors
    ///
    /// A client setting that librdkafka refuses.
    pub fn start(options: &KafkaOptions) -> Result<Self, KafkaError> {
        let client = settings::consumer(options)
            .create()
            .map_err(KafkaError::creating("creating a client that looks"))?;
        Ok(Self {
            client,
            topic: options.topic.clone(),
        })
    }

    /// Where the partition begins and ends, as its leader tells it.
    ///
    /// # Errors
    ///
    /// No answer within `timeout`, or a refusal.
    pub fn bounds(
        &self,
        partition: PartitionId,
        timeout: Duration,
    ) -> Result<PartitionBounds, KafkaError> {
        let number = i32::try_from(partition.0).unwrap_or(i32::MAX);
        let held =
            watermarks(self.client.client(), &self.topic, number, timeout).map_err(|source| {
                KafkaError::Client {
                    doing: "asking where a partition ends",
                    source,
                }
            })?;
        Ok(PartitionBounds {
            first: held.start,
            end: held.end,
        })
    }

    /// What the group has committed of the first `partitions` partitions; one without a commit is
    /// not there.
    ///
    /// # Errors
    ///
    /// No answer within `timeout`, or a refusal.
    pub fn committed(
        &self,
        partitions: u32,
        timeout: Duration,
    ) -> Result<BTreeMap<PartitionId, Offset>, KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(&self.topic, i32::try_from(partition).unwrap_or(i32::MAX));
        }
        let doing = "asking what the group has committed";
        let committed = self
            .client
            .committed_offsets(list, timeout)
            .map_err(|source| KafkaError::Client { doing, source })?;
        let mut offsets = BTreeMap::new();
        for element in committed.elements() {
            element
                .error()
                .map_err(|source| KafkaError::Client { doing, source })?;
            if let (Ok(partition), ClientOffset::Offset(offset)) =
                (u32::try_from(element.partition()), element.offset())
                && let Ok(offset) = u64::try_from(offset)
            {
                offsets.insert(PartitionId(partition), Offset(offset));
            }
        }
        Ok(offsets)
    }
}
