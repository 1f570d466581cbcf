//! The queue on Apache Kafka: one topic, one record per batch, a partition of the topic for each
//! partition of the queue.
//!
//! What holds, and where (numbers are the traps of `docs/kafka.md`):
//! - The producer is idempotent with `acks=all`, never creates topics, and picks the partition
//!   itself; in-flight bytes are bounded; a fatal producer is replaced, its in-flight answered as
//!   *unknown* (`producer.rs`).
//! - A consumer is assigned by hand and keeps its own position; out of range is an error, never a
//!   reset (`consumer.rs`).
//! - What the queue is, and where stores are, is written in a compacted topic beside it
//!   (`control.rs`).
//! - Before either is used the topic is looked at: what durability can it give, and is it the
//!   topic that the configuration means (`topic.rs`).
//! - Secrets are typed, so that no log line or error prints them (`settings.rs`).

mod bounds;
mod consumer;
mod control;
mod copy;
mod letters;
mod look;
mod metrics;
mod producer;
mod raw;
mod settings;
mod topic;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use millrace_model::{Offset, PartitionId, ShardKey};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaConfRes;

use crate::traits::{ConsumeError, Consumer, Durability, Producer, QueueIdentity};
use watch::TopicWatch;

pub use bounds::{KafkaBounds, PartitionBounds};
pub use control::{
    Announcement, Announcer, ControlFollower, ControlTopic, Mismatch, control_topic,
};
pub use copy::{Copier, CopyOrigin};
pub use letters::{KafkaLetters, LettersTopic};
pub use metrics::KafkaMetrics;
pub use settings::{ClientSettings, SettingsError};
pub use topic::{Shortfall, TopicReport, TopicSpec};

/// How a [`KafkaQueue`] is reached and what it must give.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// The topic.
    pub topic: String,
    /// Address, TLS, SASL and whatever else librdkafka takes; millrace's own settings win.
    pub client: ClientSettings,
    /// By which labels series are spread. Part of the queue's identity.
    pub shard_key: ShardKey,
    /// Partitions that the topic must have; `None` takes what it has.
    pub partitions: Option<u32>,
    /// The least durability that is accepted at start.
    pub minimum_durability: Durability,
    /// After how long an append that nobody acknowledged is given up, outcome unknown.
    pub delivery_timeout: Duration,
    /// Bytes of batches that may be on their way to the brokers.
    pub max_in_flight_bytes: usize,
    /// Longest batch, in bytes. The topic's `max.message.bytes` must leave room for it.
    pub max_batch_bytes: usize,
    /// How often the brokers are asked whether the topic is still the one that was opened. They
    /// are also asked whenever something looks odd.
    pub identity_interval: Duration,
    /// The consumer group under which positions are committed, for Kafka's own tools.
    pub group: String,
}

impl KafkaOptions {
    /// Options with the defaults of `docs/configuration.md`.
    #[must_use]
    pub fn new(topic: impl Into<String>, client: ClientSettings) -> Self {
        Self {
            topic: topic.into(),
            client,
            shard_key: ShardKey::default(),
            partitions: None,
            minimum_durability: Durability::Replicated,
            // Longer than a leader change takes (15 s with slow brokers), shorter than the
            // patience of HTTP clients.
            delivery_timeout: Duration::from_secs(30),
            max_in_flight_bytes: 64 << 20,
            // Kafka's own default limit is 1,000,000 with headers; a tenth is left for them.
            max_batch_bytes: 900_000,
            identity_interval: Duration::from_secs(10),
            group: "millrace".to_owned(),
        }
    }
}

/// A queue on Kafka. See the [module](self).
#[derive(Clone, Debug)]
pub struct KafkaQueue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: KafkaOptions,
    identity: QueueIdentity,
    report: TopicReport,
    watch: Arc<TopicWatch>,
}

impl KafkaQueue {
    /// Looks at the topic, checks it against the options, and returns the queue.
    ///
    /// # Errors
    ///
    /// The brokers cannot be reached; the topic is missing, has another partition count, is
    /// compacted, takes too short messages, or gives less than the minimum durability: the error
    /// says which setting is short, with both values.
    pub fn open(options: KafkaOptions) -> Result<Self, KafkaError> {
        let report = topic::inspect(&options)?;
        report.check(&options)?;
        let identity = QueueIdentity {
            id: report.topic_id,
            partitions: report.partitions,
            shard_key: options.shard_key.clone(),
        };
        let topic = Arc::from(options.topic.as_str());
        let watch = TopicWatch::new(topic, identity.id, options.identity_interval);
        Ok(Self {
            inner: Arc::new(Inner {
                options,
                identity,
                report,
                watch: Arc::new(watch),
            }),
        })
    }

    /// Looks at the topic without asking anything of it.
    ///
    /// # Errors
    ///
    /// The brokers cannot be reached, or the topic is missing.
    pub fn inspect(options: &KafkaOptions) -> Result<TopicReport, KafkaError> {
        topic::inspect(options)
    }

    /// Creates the topic as [`open`](Self::open) wants it.
    ///
    /// # Errors
    ///
    /// The brokers cannot be reached, refuse, or have a topic of that name already.
    pub fn create_topic(options: &KafkaOptions, spec: &TopicSpec) -> Result<(), KafkaError> {
        topic::create(options, spec)
    }

    /// What queue this is.
    #[must_use]
    pub fn identity(&self) -> &QueueIdentity {
        &self.inner.identity
    }

    /// What was found when the topic was looked at.
    #[must_use]
    pub fn report(&self) -> &TopicReport {
        &self.inner.report
    }

    /// A new producer. One per process is enough.
    ///
    /// # Errors
    ///
    /// A client setting that librdkafka refuses.
    pub fn producer(&self) -> Result<Arc<dyn Producer>, KafkaError> {
        self.producer_with(None)
    }

    /// The same, which tells `metrics` what librdkafka's statistics say.
    ///
    /// # Errors
    ///
    /// A client setting that librdkafka refuses.
    pub fn producer_with(
        &self,
        metrics: Option<KafkaMetrics>,
    ) -> Result<Arc<dyn Producer>, KafkaError> {
        let inner = &self.inner;
        let durability = inner.report.durability();
        let producer = producer::KafkaProducer::start(
            inner.options.clone(),
            inner.identity.clone(),
            durability,
            Arc::clone(&inner.watch),
            metrics,
        )?;
        Ok(Arc::new(producer))
    }

    /// A consumer of one partition that begins at `from`.
    ///
    /// # Errors
    ///
    /// The partition does not hold `from` any more, or not yet, or cannot be reached.
    pub fn consumer(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<Box<dyn Consumer>, ConsumeError> {
        let consumer = self.start_consumer(partition, from)?;
        consumer.check_range()?;
        Ok(Box::new(consumer))
    }

    /// A consumer of one partition that was not told yet where to begin. Whoever has a position
    /// checks it ([`ResumePoint::check`](crate::ResumePoint::check)), which also seeks. Asks the
    /// brokers nothing.
    ///
    /// # Errors
    ///
    /// A client setting that librdkafka refuses.
    pub fn reader(&self, partition: PartitionId) -> Result<Box<dyn Consumer>, ConsumeError> {
        Ok(Box::new(self.start_consumer(partition, Offset::ZERO)?))
    }

    fn start_consumer(
        &self,
        partition: PartitionId,
        from: Offset,
    ) -> Result<consumer::KafkaConsumer, ConsumeError> {
        let watch = Arc::clone(&self.inner.watch);
        consumer::KafkaConsumer::start(&self.inner.options, partition, from, watch)
    }
}

/// Why a Kafka queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// The client library or the brokers refused.
    #[error("kafka: {doing}: {source}")]
    Client {
        /// What was being done.
        doing: &'static str,
        /// What came back.
        source: ClientError,
    },
    /// The same, and the client library said more about it before.
    #[error("kafka: {doing}: {source}: {complaint}")]
    Complaint {
        /// What was being done.
        doing: &'static str,
        /// What came back.
        source: ClientError,
        /// What it complained about.
        complaint: Box<str>,
    },
    /// The brokers said no to an administrative call.
    #[error("kafka: {doing}: {reason}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Their reason.
        reason: String,
    },
    /// A setting that librdkafka does not take. Its value may be a secret, so it is not told.
    #[error("kafka: librdkafka refuses the setting {name:?}: {problem}")]
    Setting {
        /// Which setting.
        name: String,
        /// What is wrong, without the value.
        problem: &'static str,
    },
    /// The brokers did not answer in time.
    #[error("kafka: {doing}: no answer within {waited:?}")]
    NoAnswer {
        /// What was being done.
        doing: &'static str,
        /// How long it was waited.
        waited: Duration,
    },
    /// The topic is not there.
    #[error(
        "kafka: topic {topic:?} does not exist; `millrace queue create` makes it as it should be"
    )]
    NoTopic {
        /// Its name.
        topic: String,
    },
    /// The topic does not do what the configuration asks.
    #[error("kafka: topic {topic:?}: {}", list(shortfalls))]
    Unfit {
        /// Its name.
        topic: String,
        /// Each setting that is short.
        shortfalls: Vec<Shortfall>,
    },
    /// The topic is not what the pipeline's queue is known to be.
    #[error("kafka: topic {topic:?}: {mismatch}")]
    NotTheQueue {
        /// Its name.
        topic: String,
        /// What differs, and what to do about it.
        mismatch: Mismatch,
    },
    /// A setting that cannot be passed on.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

impl KafkaError {
    /// Whether trying again may help: the brokers are away or busy, rather than set up otherwise.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Client { source, .. } | Self::Complaint { source, .. } => {
                !matches!(source, ClientError::ClientCreation(_))
            }
            Self::NoAnswer { .. } => true,
            Self::Setting { .. }
            | Self::Refused { .. }
            | Self::NoTopic { .. }
            | Self::Unfit { .. }
            | Self::NotTheQueue { .. }
            | Self::Settings(_) => false,
        }
    }

    /// What came of creating a client, without the values of settings, which librdkafka's own
    /// message repeats.
    fn creating(doing: &'static str) -> impl FnOnce(ClientError) -> Self {
        move |source| match source {
            ClientError::ClientConfig(kind, _, name, _) => Self::Setting {
                name,
                problem: match kind {
                    RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => "there is none of this name",
                    _ => "the value is not one that it takes, or this build lacks what it needs",
                },
            },
            source => Self::Client { doing, source },
        }
    }
}

fn list(shortfalls: &[Shortfall]) -> String {
    shortfalls
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
