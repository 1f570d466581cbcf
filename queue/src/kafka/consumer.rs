//! Reading one partition of the topic.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_model::{Offset, PartitionId, QueueId, TimestampMs};
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset as ClientOffset, TopicPartitionList};
use tracing::{debug, warn};

use super::bounds::watermarks;
use super::watch::TopicWatch;
use super::{KafkaOptions, raw, settings};
use crate::traits::{ConsumeError, Consumer, Record};

const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the position is committed to the group.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// How long closing may take before the thread that does it is left behind: librdkafka has hung
/// there more than once, and the position is durable elsewhere.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Commits `last`, if there is something to commit, and closes a client, on a thread of its own; waits
/// for that, but not for ever.
pub(super) fn close<C: ConsumerContext + 'static>(
    client: BaseConsumer<C>,
    last: Option<TopicPartitionList>,
    of: &dyn fmt::Display,
) {
    let (closed, wait) = std::sync::mpsc::channel();
    let spawned = std::thread::Builder::new()
        .name("kafka-close".into())
        .spawn(move || {
            if let Some(Err(error)) = last.map(|last| client.commit(&last, CommitMode::Sync)) {
                debug!(%error, "the last position was not committed");
            }
            drop(client);
            // Nobody listens any more after the timeout, which is fine.
            let _unheard = closed.send(());
        });
    if spawned.is_err() || wait.recv_timeout(CLOSE_TIMEOUT).is_err() {
        warn!(%of, "closing the kafka consumer takes too long, it is left behind");
    }
}

struct Context {
    /// The last thing that librdkafka complained about, for the error that follows.
    last_complaint: Mutex<Option<String>>,
}

impl ClientContext for Context {
    fn error(&self, error: ClientError, reason: &str) {
        warn!(%error, reason, "kafka consumer");
        *self.last_complaint.lock() = Some(format!("{error}: {reason}"));
    }
}

impl ConsumerContext for Context {}

/// A consumer assigned by hand to one partition. Its position is its own; what is committed to the
/// group is for Kafka's tools.
pub(super) struct KafkaConsumer {
    client: Option<BaseConsumer<Context>>,
    topic: Arc<str>,
    partition: PartitionId,
    number: i32,
    next: Offset,
    assigned: bool,
    watch: Arc<TopicWatch>,
    /// What was last committed, and when.
    committed: Option<(Offset, Instant)>,
    /// Told since, and not committed yet.
    uncommitted: Option<Offset>,
}

impl fmt::Debug for KafkaConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConsumer")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl KafkaConsumer {
    pub(super) fn start(
        options: &KafkaOptions,
        partition: PartitionId,
        from: Offset,
        watch: Arc<TopicWatch>,
    ) -> Result<Self, ConsumeError> {
        let unavailable = |reason: String| ConsumeError::Unavailable { partition, reason };
        let number = i32::try_from(partition.0)
            .map_err(|_| unavailable("partition numbers end at 2^31".to_owned()))?;
        let context = Context {
            last_complaint: Mutex::new(None),
        };
        let client: BaseConsumer<Context> = settings::consumer(options)
            .create_with_context(context)
            .map_err(|error| unavailable(error.to_string()))?;
        let topic = Arc::from(options.topic.as_str());
        Ok(Self {
            client: Some(client),
            topic,
            partition,
            number,
            next: from,
            assigned: false,
            watch,
            committed: None,
            uncommitted: None,
        })
    }

    fn client(&self) -> &BaseConsumer<Context> {
        self.client
            .as_ref()
            .expect("the client is taken only when the consumer is dropped")
    }

    fn unavailable(&self, error: &ClientError) -> ConsumeError {
        let complaint = self.client().context().last_complaint.lock().take();
        let reason = complaint.unwrap_or_else(|| error.to_string());
        ConsumeError::Unavailable {
            partition: self.partition,
            reason,
        }
    }

    /// Whether the position is inside what the partition holds: low ≤ next ≤ high.
    pub(super) fn check_range(&self) -> Result<(), ConsumeError> {
        let held = self.range()?;
        let (first, end, wanted, partition) = (held.start, held.end, self.next, self.partition);
        if wanted < first {
            return Err(ConsumeError::TooOld {
                partition,
                wanted,
                first,
            });
        }
        if wanted > end {
            return Err(ConsumeError::BeyondEnd {
                partition,
                wanted,
                end,
            });
        }
        Ok(())
    }

    /// The partition, at this offset.
    fn list(&self, next: Offset) -> Result<TopicPartitionList, ClientError> {
        let mut list = TopicPartitionList::new();
        let next = i64::try_from(next.0).unwrap_or(i64::MAX);
        list.add_partition_offset(&self.topic, self.number, ClientOffset::Offset(next))?;
        Ok(list)
    }

    fn assign(&mut self) -> Result<(), ConsumeError> {
        self.list(self.next)
            .and_then(|list| self.client().assign(&list))
            .map_err(|error| self.unavailable(&error))?;
        self.assigned = true;
        Ok(())
    }

    /// Copies a message out of librdkafka's buffer: holding it would pin the whole fetch.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<Option<Record>, ConsumeError> {
        let offset = Offset(u64::try_from(message.offset()).unwrap_or(0));
        if offset < self.next {
            // Left over from before a seek.
            return Ok(None);
        }
        let next = offset.checked_next().ok_or_else(|| ConsumeError::Damaged {
            partition: self.partition,
            reason: format!("offset {offset} is the last there can be"),
        })?;
        self.next = next;
        Ok(Some(Record {
            offset,
            appended_at: TimestampMs(message.timestamp().to_millis().unwrap_or_default()),
            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        }))
    }

    /// Whether the topic was replaced by another one, as far as is known.
    fn check_identity(&self) -> Result<(), ConsumeError> {
        match self.watch.look(self.client().client()) {
            None => Ok(()),
            Some(found) => Err(ConsumeError::AnotherQueue {
                partition: self.partition,
                wanted: self.watch.expected(),
                found,
            }),
        }
    }

    /// What an error of a poll means for the partition.
    fn classify(&mut self, error: &ClientError) -> ConsumeError {
        self.assigned = false;
        // Out of range, unknown, another leader: a new topic of the old name looks like that.
        self.watch.suspect();
        if let Err(replaced) = self.check_identity() {
            return replaced;
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                // Says which side it is out of range on; if it is not any more, a later poll
                // succeeds.
                match self.check_range() {
                    Err(range) => range,
                    Ok(()) => self.unavailable(error),
                }
            }
            Some(RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::InvalidMessage) => {
                ConsumeError::Damaged {
                    partition: self.partition,
                    reason: format!("topic {} at offset {}: {error}", self.topic, self.next),
                }
            }
            _ => self.unavailable(error),
        }
    }
}

impl Consumer for KafkaConsumer {
    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn queue(&self) -> Result<QueueId, ConsumeError> {
        let found = self.watch.ask(self.client().client());
        found.ok_or_else(|| ConsumeError::Unavailable {
            partition: self.partition,
            reason: format!("no broker tells the id of topic {:?}", self.topic),
        })
    }

    fn range(&self) -> Result<Range<Offset>, ConsumeError> {
        watermarks(self.client().client(), &self.topic, self.number, TIMEOUT)
            .map_err(|error| self.unavailable(&error))
    }

    fn record_at(
        &mut self,
        offset: Offset,
        patience: Duration,
    ) -> Result<Option<Record>, ConsumeError> {
        self.seek(offset);
        let deadline = Instant::now() + patience;
        let mut records = Vec::new();
        while records.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ConsumeError::Unavailable {
                    partition: self.partition,
                    reason: format!("the record at offset {offset} does not come"),
                });
            }
            self.poll(1, left, &mut records)?;
        }
        let first = records.into_iter().next();
        Ok(first.filter(|record| record.offset == offset))
    }

    fn poll(
        &mut self,
        max_bytes: usize,
        wait: Duration,
        out: &mut Vec<Record>,
    ) -> Result<(), ConsumeError> {
        self.check_identity()?;
        if !self.assigned {
            self.assign()?;
        }
        let client = self
            .client
            .take()
            .expect("the client is taken only when dropped");
        let result = drain(&client, max_bytes, wait, |message| self.take(message), out);
        self.client = Some(client);
        match result {
            Ok(()) => Ok(()),
            Err(Drain::Consume(error)) => Err(error),
            // Records that came before the error are good; it will be met again.
            Err(Drain::Client(error)) if !out.is_empty() => {
                debug!(%error, partition = %self.partition, "poll ended early");
                self.assigned = false;
                Ok(())
            }
            Err(Drain::Client(error)) => Err(self.classify(&error)),
        }
    }

    fn seek(&mut self, next: Offset) {
        self.next = next;
        self.assigned = false;
    }

    fn end(&self) -> Result<Offset, ConsumeError> {
        if let Some(end) = raw::last_seen_end(self.client().client(), &self.topic, self.partition) {
            return Ok(end.max(self.next));
        }
        self.range().map(|held| held.end)
    }

    fn commit(&mut self, applied: Offset) -> Result<(), ConsumeError> {
        let recent =
            |(offset, at): (Offset, Instant)| offset == applied || at.elapsed() < COMMIT_INTERVAL;
        if self.committed.is_some_and(recent) {
            let behind = self.committed.is_some_and(|(offset, _)| offset != applied);
            self.uncommitted = behind.then_some(applied);
            return Ok(());
        }
        self.list(applied)
            .and_then(|list| self.client().commit(&list, CommitMode::Async))
            .map_err(|error| self.unavailable(&error))?;
        self.committed = Some((applied, Instant::now()));
        self.uncommitted = None;
        Ok(())
    }

    fn release(&mut self, _sealed: Offset) -> Result<(), ConsumeError> {
        Ok(())
    }
}

enum Drain {
    Client(ClientError),
    Consume(ConsumeError),
}

fn drain(
    client: &BaseConsumer<Context>,
    max_bytes: usize,
    wait: Duration,
    mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<Option<Record>, ConsumeError>,
    out: &mut Vec<Record>,
) -> Result<(), Drain> {
    let deadline = Instant::now() + wait;
    let mut bytes = 0;
    let mut away = None;
    while bytes < max_bytes {
        let patience = if bytes == 0 && away.is_none() {
            whole_millis(deadline.saturating_duration_since(Instant::now()))
        } else {
            Duration::ZERO
        };
        match client.poll(patience) {
            None => break,
            Some(Ok(message)) => {
                if let Some(record) = take(&message).map_err(Drain::Consume)? {
                    bytes += record.payload.len();
                    out.push(record);
                }
            }
            // IMPORTANT: librdkafka tells of brokers that are away again and again, and its events
            // wait in a queue. Taken one by one, with a pause after each, they would keep the reader
            // from a broker that is back for many times as long as it was away.
            Some(Err(error)) if is_about_connections(&error) => away = Some(error),
            Some(Err(error)) => return Err(Drain::Client(error)),
        }
    }
    match away {
        Some(error) if bytes == 0 => Err(Drain::Client(error)),
        Some(_) | None => Ok(()),
    }
}

/// The client library waits for whole milliseconds, and spins until what was left of one is over.
fn whole_millis(wait: Duration) -> Duration {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Whether it says that brokers cannot be reached, rather than something of the partition.
fn is_about_connections(error: &ClientError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
        )
    )
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        // So that Kafka's tools show where a shard ended, not where it was a second before.
        let last = self.uncommitted.and_then(|next| self.list(next).ok());
        if let Some(client) = self.client.take() {
            close(client, last, &format_args!("partition {}", self.partition));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_whole_milliseconds_and_never_shorter() {
        for (micros, expect) in [(0, 0), (1, 1), (1_000, 1), (99_999, 100), (100_001, 101)] {
            let found = whole_millis(Duration::from_micros(micros));
            assert_eq!(found, Duration::from_millis(expect), "{micros}");
        }
    }
}
