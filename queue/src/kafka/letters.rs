//! The dead letters of a topic: a compacted topic beside it, `<topic>.dlq`. Format and contract:
//! `docs/formats/dead-letters.md`.
//!
//! Invariants: a letter is there if it was entered and never purged, in whichever order; so whoever
//! meets a poison record may enter its letter, and as often as it likes. Letters are few: each call
//! has clients of its own, and looks at the whole topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_model::TimestampMs;
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::topic_partition_list::{Offset as ClientOffset, TopicPartitionList};
use tracing::warn;

use super::bounds::watermarks;
use super::topic::{self, RECORD_OVERHEAD_BYTES, Shortfall, shortfall};
use super::{KafkaError, KafkaOptions, TopicReport, settings};
use crate::dead_letter::{DeadLetter, LetterEntry, LetterHead, Origin};

/// The only partition.
const PARTITION: i32 = 0;
/// What an entry adds to a record's bytes: head, reason, key and headers.
const LETTER_OVERHEAD_BYTES: usize = 64 << 10;
/// Reasons in headers are for the eye.
const HEADER_REASON_CHARS: usize = 1000;
/// How long the brokers may keep a call waiting.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Whether the topic of the dead letters was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LettersTopic {
    /// It was made.
    Created(String),
    /// It was there, and is as it should be.
    There(String),
}

/// The dead letters of one queue, in the topic beside its own.
#[derive(Clone, Debug)]
pub struct KafkaLetters {
    /// Of the queue's topic.
    queue_topic: String,
    /// Of the letters' own.
    options: KafkaOptions,
}

/// How one entry ended.
type Outcome = Mutex<Option<Result<(), String>>>;

struct Context;

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Outcome>;

    fn delivery(&self, result: &DeliveryResult<'_>, outcome: Arc<Outcome>) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.to_string()),
        };
        *outcome.lock() = Some(result);
    }
}

fn client(doing: &'static str) -> impl FnOnce(ClientError) -> KafkaError {
    move |source| KafkaError::Client { doing, source }
}

impl KafkaLetters {
    /// The name of the topic that has the dead letters of `topic`.
    #[must_use]
    pub fn topic_of(topic: &str) -> String {
        format!("{topic}.dlq")
    }

    /// Makes the letters' topic beside the queue's, as safe as that one, or finds it right.
    ///
    /// # Errors
    ///
    /// The brokers cannot be reached or refuse; a topic that is there and is otherwise.
    pub fn create(queue: &TopicReport, options: &KafkaOptions) -> Result<LettersTopic, KafkaError> {
        let letters = Self::named(options);
        let name = letters.options.topic.clone();
        match topic::inspect(&letters.options) {
            Ok(found) => {
                letters.check(&found)?;
                return Ok(LettersTopic::There(name));
            }
            Err(KafkaError::NoTopic { .. }) => {}
            Err(error) => return Err(error),
        }
        let flush = (queue.replication == 1).then(|| ("flush.messages", "1".to_owned()));
        let longest = queue.max_message_bytes.max(letters.longest());
        let mut wanted = vec![
            ("cleanup.policy", "compact".to_owned()),
            ("min.insync.replicas", queue.min_insync_replicas.to_string()),
            ("unclean.leader.election.enable", "false".to_owned()),
            (
                "max.message.bytes",
                (longest + LETTER_OVERHEAD_BYTES).to_string(),
            ),
        ];
        wanted.extend(flush);
        topic::create_as(&letters.options, 1, queue.replication, &wanted)?;
        Ok(LettersTopic::Created(name))
    }

    /// The letters of the queue of `options`, if their topic is there and right.
    ///
    /// # Errors
    ///
    /// The brokers cannot be reached; the topic is missing, or is otherwise than it should be.
    pub fn open(options: &KafkaOptions) -> Result<Self, KafkaError> {
        let mut letters = Self::named(options);
        let found = topic::inspect(&letters.options)?;
        letters.check(&found)?;
        // The producer's own limit must not be the shorter one.
        letters.options.max_batch_bytes = found.max_message_bytes;
        Ok(letters)
    }

    fn named(options: &KafkaOptions) -> Self {
        Self {
            queue_topic: options.topic.clone(),
            options: KafkaOptions {
                topic: Self::topic_of(&options.topic),
                ..options.clone()
            },
        }
    }

    /// The longest record that millrace itself writes to the queue.
    fn longest(&self) -> usize {
        self.options.max_batch_bytes + RECORD_OVERHEAD_BYTES
    }

    fn check(&self, found: &TopicReport) -> Result<(), KafkaError> {
        let mut shortfalls: Vec<Shortfall> = Vec::new();
        if found.partitions != 1 {
            shortfalls.push(shortfall("partition count", found.partitions, 1));
        }
        if found.cleanup_policy != "compact" {
            let found = &found.cleanup_policy;
            shortfalls.push(shortfall("cleanup.policy", found, "compact"));
        }
        let needed = self.longest() + LETTER_OVERHEAD_BYTES;
        if found.max_message_bytes < needed {
            let (found, needed) = (found.max_message_bytes, format!("at least {needed}"));
            shortfalls.push(shortfall("max.message.bytes", found, needed));
        }
        if shortfalls.is_empty() {
            return Ok(());
        }
        Err(KafkaError::Unfit {
            topic: found.topic.clone(),
            shortfalls,
        })
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.options.topic
    }

    /// Enters letters. Returns once the brokers have them all.
    ///
    /// # Errors
    ///
    /// One that the brokers have not, as far as is known; entering it again does no harm.
    pub fn enter(&self, letters: &[DeadLetter]) -> Result<(), KafkaError> {
        let entries = letters.iter().map(|letter| {
            let reason: String = letter.reason.chars().take(HEADER_REASON_CHARS).collect();
            let value = LetterEntry::Letter(letter.clone()).encode();
            (letter.origin.to_string(), Some(value), Some(reason))
        });
        self.write(entries.collect())
    }

    /// Says that the letters of these origins were dealt with. Returns once the brokers know.
    ///
    /// # Errors
    ///
    /// As [`enter`](Self::enter).
    pub fn purge(&self, origins: &[Origin], at: TimestampMs) -> Result<(), KafkaError> {
        let purge = |origin: &Origin| {
            let origin = *origin;
            let value = LetterEntry::Purge { origin, at }.encode();
            (format!("purged/{origin}"), Some(value), None)
        };
        self.write(origins.iter().map(purge).collect())?;
        // IMPORTANT: only now. Without the purge, a replica that meets the record later would bring
        // the letter back.
        let free = |origin: &Origin| (origin.to_string(), None, None);
        self.write(origins.iter().map(free).collect())
    }

    fn write(
        &self,
        entries: Vec<(String, Option<Vec<u8>>, Option<String>)>,
    ) -> Result<(), KafkaError> {
        const DOING: &str = "writing dead letters";
        let producer: BaseProducer<Context> = settings::producer(&self.options)
            .create_with_context(Context)
            .map_err(KafkaError::creating("creating a producer for dead letters"))?;
        for (key, value, reason) in &entries {
            // The client itself gives up before that.
            let deadline = Instant::now() + PATIENCE + self.options.delivery_timeout;
            let outcome = Arc::new(Outcome::default());
            let mut record: BaseRecord<'_, str, [u8], Arc<Outcome>> =
                BaseRecord::with_opaque_to(&self.options.topic, Arc::clone(&outcome))
                    .partition(PARTITION)
                    .key(key);
            if let Some(value) = value {
                record = record.payload(value);
            }
            if let Some(reason) = reason {
                let header = |key, value| Header { key, value };
                let headers = OwnedHeaders::new()
                    .insert(header("reason", Some(reason.as_str())))
                    .insert(header("topic", Some(self.queue_topic.as_str())));
                record = record.headers(headers);
            }
            producer
                .send(record)
                .map_err(|(error, _)| client(DOING)(error))?;
            // One after the other: letters are large and few.
            let told = loop {
                producer.poll(POLL);
                if let Some(told) = outcome.lock().take() {
                    break told;
                }
                if Instant::now() >= deadline {
                    break Err("no broker acknowledges it".to_owned());
                }
            };
            told.map_err(|reason| KafkaError::Refused {
                doing: DOING,
                reason: format!("{key}: {reason}"),
            })?;
        }
        Ok(())
    }

    /// All letters there are, in the order in which their records could not be applied.
    ///
    /// # Errors
    ///
    /// The topic cannot be read.
    pub fn list(&self) -> Result<Vec<LetterHead>, KafkaError> {
        let mut heads: Vec<_> = self
            .letters(|letter| letter.head())?
            .into_values()
            .collect();
        heads.sort_by_key(|head| (head.kept_at, head.origin));
        Ok(heads)
    }

    /// One letter, if it is there.
    ///
    /// # Errors
    ///
    /// The topic cannot be read.
    pub fn read(&self, origin: Origin) -> Result<Option<DeadLetter>, KafkaError> {
        let mut letters =
            self.letters(|letter| (letter.origin == origin).then(|| letter.clone()))?;
        Ok(letters.remove(&origin).flatten())
    }

    /// What `take` keeps of each letter that is there.
    fn letters<T>(
        &self,
        mut take: impl FnMut(&DeadLetter) -> T,
    ) -> Result<BTreeMap<Origin, T>, KafkaError> {
        let (mut letters, mut purged) = (BTreeMap::new(), BTreeSet::new());
        self.scan(|message| {
            let Some(value) = message.payload() else {
                let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
                if let Some(origin) = key.and_then(|key| key.parse::<Origin>().ok()) {
                    letters.remove(&origin);
                }
                return;
            };
            match LetterEntry::decode(&Bytes::copy_from_slice(value)) {
                Ok(LetterEntry::Letter(letter)) => {
                    letters
                        .entry(letter.origin)
                        .or_insert_with(|| take(&letter));
                }
                Ok(LetterEntry::Purge { origin, .. }) => {
                    purged.insert(origin);
                }
                Err(error) => {
                    let (topic, offset) = (message.topic(), message.offset());
                    warn!(topic, offset, %error, "somebody else's record among the dead letters");
                }
            }
        })?;
        letters.retain(|origin, _| !purged.contains(origin));
        Ok(letters)
    }

    /// Shows `found` every record that the topic has now.
    fn scan(&self, mut found: impl FnMut(&BorrowedMessage<'_>)) -> Result<(), KafkaError> {
        const DOING: &str = "reading dead letters";
        let topic = &self.options.topic;
        let mut config = settings::consumer(&self.options);
        // Compaction may have removed the last record: only the broker knows where the end is.
        config.set("enable.partition.eof", "true");
        let reader: BaseConsumer = config
            .create()
            .map_err(KafkaError::creating("creating a reader of dead letters"))?;
        let held =
            watermarks(reader.client(), topic, PARTITION, PATIENCE).map_err(client(DOING))?;
        if held.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        let first = i64::try_from(held.start.0).unwrap_or(i64::MAX);
        list.add_partition_offset(topic, PARTITION, ClientOffset::Offset(first))
            .and_then(|()| reader.assign(&list))
            .map_err(client(DOING))?;
        let mut heard = Instant::now();
        while heard.elapsed() < PATIENCE {
            match reader.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    heard = Instant::now();
                    found(&message);
                }
                Some(Err(ClientError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(client(DOING)(error)),
            }
        }
        Err(KafkaError::NoAnswer {
            doing: DOING,
            waited: PATIENCE,
        })
    }
}

/// Whether another broker, or the same a moment later, may answer.
fn is_passing(error: &ClientError) -> bool {
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
