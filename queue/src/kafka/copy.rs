//! Copying the records of another queue into the topic, each once, in their order.
//!
//! Each copy carries where it comes from in a header of the Kafka record, so that a copy that was
//! interrupted goes on behind the last record that arrived: the topic itself is the only memory.
//! The bytes are those of the original (or parts of it, where the topic takes only shorter ones):
//! the copies are ordinary records, and what stood later still stands later.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_model::{Offset, PartitionId, QueueId, TimestampMs};
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::{Offset as ClientOffset, TopicPartitionList};

use super::bounds::watermarks;
use super::{KafkaError, KafkaQueue, settings};

/// The header's name.
const HEADER: &str = "millrace-origin";
/// How long one question to the brokers may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at what was delivered.
const POLL: Duration = Duration::from_millis(20);

/// Which record a copy was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyOrigin {
    /// The queue that it stands in.
    pub queue: QueueId,
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Which part of it, from 0 on.
    pub part: u32,
    /// How many parts there are.
    pub parts: u32,
}

impl CopyOrigin {
    /// The first part of the record behind this one, or the next part of the same.
    #[must_use]
    pub fn following(self) -> (Offset, u32) {
        if self.part + 1 < self.parts {
            (self.offset, self.part + 1)
        } else {
            (self.offset.advanced(1), 0)
        }
    }
}

impl fmt::Display for CopyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            queue,
            partition,
            offset,
            part,
            parts,
        } = self;
        write!(f, "1/{queue}/{partition}/{offset}/{part}/{parts}")
    }
}

impl FromStr for CopyOrigin {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut fields = text.split('/');
        let mut next = || fields.next().ok_or(());
        if next()? != "1" {
            return Err(());
        }
        let origin = Self {
            queue: next()?.parse().map_err(|_| ())?,
            partition: PartitionId(next()?.parse().map_err(|_| ())?),
            offset: Offset(next()?.parse().map_err(|_| ())?),
            part: next()?.parse().map_err(|_| ())?,
            parts: next()?.parse().map_err(|_| ())?,
        };
        if next().is_ok() || origin.part >= origin.parts {
            return Err(());
        }
        Ok(origin)
    }
}

#[derive(Debug, Default)]
struct Context {
    failure: Mutex<Option<String>>,
}

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failure.lock().get_or_insert(error.to_string());
        }
    }
}

/// Copies records into a topic.
pub struct Copier {
    queue: KafkaQueue,
    producer: BaseProducer<Context>,
    reader: BaseConsumer,
}

impl fmt::Debug for Copier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copier")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

fn client(doing: &'static str) -> impl FnOnce(ClientError) -> KafkaError {
    move |source| KafkaError::Client { doing, source }
}

fn refused(doing: &'static str, reason: String) -> KafkaError {
    KafkaError::Refused { doing, reason }
}

impl Copier {
    /// Prepares to copy into `queue`.
    ///
    /// # Errors
    ///
    /// A client setting that librdkafka refuses.
    pub fn start(queue: &KafkaQueue) -> Result<Self, KafkaError> {
        let options = &queue.inner.options;
        let producer = settings::producer(options)
            .create_with_context(Context::default())
            .map_err(client("starting a producer"))?;
        let reader = settings::consumer(options)
            .create()
            .map_err(client("starting a consumer"))?;
        Ok(Self {
            queue: queue.clone(),
            producer,
            reader,
        })
    }

    fn number(partition: PartitionId) -> Result<i32, KafkaError> {
        i32::try_from(partition.0)
            .map_err(|_| refused("copying", "partition numbers end at 2^31".to_owned()))
    }

    /// The offsets that the partition of the topic has.
    ///
    /// # Errors
    ///
    /// The brokers do not answer.
    fn bounds(&self, partition: PartitionId) -> Result<Range<Offset>, KafkaError> {
        let topic = &self.queue.inner.options.topic;
        let number = Self::number(partition)?;
        watermarks(self.reader.client(), topic, number, TIMEOUT)
            .map_err(client("asking where a partition ends"))
    }

    /// What the record at `at` is a copy of; `None` if it is no copy.
    ///
    /// # Errors
    ///
    /// It cannot be had.
    pub fn origin_at(
        &self,
        partition: PartitionId,
        at: Offset,
    ) -> Result<Option<CopyOrigin>, KafkaError> {
        const DOING: &str = "reading a record of the topic";
        let topic = &self.queue.inner.options.topic;
        let mut list = TopicPartitionList::new();
        let position = i64::try_from(at.0).unwrap_or(i64::MAX);
        list.add_partition_offset(
            topic,
            Self::number(partition)?,
            ClientOffset::Offset(position),
        )
        .and_then(|()| self.reader.assign(&list))
        .map_err(client(DOING))?;
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            let message = match self.reader.poll(POLL) {
                None => continue,
                Some(message) => message.map_err(client(DOING))?,
            };
            if message.partition() != Self::number(partition)? || message.offset() < position {
                continue;
            }
            let headers = message.headers();
            let found = headers.and_then(|headers| {
                headers
                    .iter()
                    .find(|header| header.key == HEADER)
                    .and_then(|header| std::str::from_utf8(header.value?).ok()?.parse().ok())
            });
            return Ok(found);
        }
        Err(refused(
            DOING,
            format!("{topic}/{partition} at {at} does not come"),
        ))
    }

    /// What the last record of the partition is a copy of; `None` if the partition is empty.
    ///
    /// # Errors
    ///
    /// The brokers do not answer, or the last record is no copy of `source`: others write to the
    /// topic, and a copy would come behind what is newer.
    pub fn last_origin(
        &self,
        partition: PartitionId,
        source: QueueId,
    ) -> Result<Option<CopyOrigin>, KafkaError> {
        let held = self.bounds(partition)?;
        if held.is_empty() {
            return Ok(None);
        }
        let last = Offset(held.end.0 - 1);
        match self.origin_at(partition, last)? {
            Some(origin) if origin.queue == source => Ok(Some(origin)),
            found => Err(refused(
                "copying",
                format!(
                    "the last record of partition {partition} is {}, not a copy of queue {source}: \
                     something else writes to topic {:?}, and copies would overwrite what is newer",
                    found.map_or("none that was copied".to_owned(), |o| format!(
                        "a copy of {o}"
                    )),
                    self.queue.inner.options.topic
                ),
            )),
        }
    }

    /// Where the copies of the records from `wanted` on begin; the end, if there is none yet. The
    /// copies of one partition stand in the order of their originals.
    ///
    /// # Errors
    ///
    /// A record cannot be had, or is no copy.
    pub fn position_of(
        &self,
        partition: PartitionId,
        source: QueueId,
        wanted: Offset,
    ) -> Result<Offset, KafkaError> {
        let Range {
            start: mut low,
            end: mut high,
        } = self.bounds(partition)?;
        while low < high {
            let middle = Offset(low.0 + (high.0 - low.0) / 2);
            match self.origin_at(partition, middle)? {
                Some(origin) if origin.queue != source => {
                    let reason = format!("offset {middle} is a copy of {origin}");
                    return Err(refused("looking for a copy", reason));
                }
                // Not copied: written after the migration, so behind all copies.
                None => high = middle,
                Some(origin) if origin.offset < wanted => low = middle.advanced(1),
                Some(_) => high = middle,
            }
        }
        Ok(low)
    }

    /// Hands a copy to the producer; it is durable once [`flush`](Self::flush) has succeeded.
    ///
    /// # Errors
    ///
    /// The producer refuses it, or an earlier one has failed.
    pub fn send(
        &self,
        payload: &Bytes,
        taken_at: TimestampMs,
        origin: CopyOrigin,
    ) -> Result<(), KafkaError> {
        let topic = &self.queue.inner.options.topic;
        let text = origin.to_string();
        let deadline = Instant::now() + self.queue.inner.options.delivery_timeout;
        loop {
            self.check()?;
            let headers = OwnedHeaders::new().insert(Header {
                key: HEADER,
                value: Some(&text),
            });
            let record: BaseRecord<'_, (), [u8], ()> = BaseRecord::to(topic)
                .partition(Self::number(origin.partition)?)
                .payload(&payload[..])
                .timestamp(taken_at.0)
                .headers(headers);
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), _))
                    if Instant::now() < deadline =>
                {
                    self.producer.poll(POLL);
                }
                Err((error, _)) => return Err(client("appending a copy")(error)),
            }
        }
    }

    /// Waits until all copies are durable.
    ///
    /// # Errors
    ///
    /// One of them has failed: how many of those behind it arrived is found out by
    /// [`last_origin`](Self::last_origin).
    pub fn flush(&self) -> Result<(), KafkaError> {
        let timeout = self.queue.inner.options.delivery_timeout + TIMEOUT;
        self.producer
            .flush(timeout)
            .map_err(client("waiting for copies to arrive"))?;
        self.check()
    }

    fn check(&self) -> Result<(), KafkaError> {
        match &*self.producer.context().failure.lock() {
            Some(reason) => Err(refused("appending a copy", reason.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_survive_text() {
        let origin = CopyOrigin {
            queue: QueueId(0x2a),
            partition: PartitionId(3),
            offset: Offset(17),
            part: 0,
            parts: 2,
        };
        let text = origin.to_string();
        assert_eq!(text, format!("1/{:032x}/3/17/0/2", 0x2a));
        assert_eq!(text.parse(), Ok(origin));
        assert_eq!(origin.following(), (Offset(17), 1));
        let last = CopyOrigin { part: 1, ..origin };
        assert_eq!(last.following(), (Offset(18), 0));
        for bad in [
            "",
            "1/2a/3/17/0",
            "2/2a/3/17/0/2",
            "1/2a/3/17/2/2",
            "1/2a/3/17/0/2/9",
        ] {
            assert_eq!(bad.parse::<CopyOrigin>(), Err(()), "{bad:?}");
        }
    }
}
