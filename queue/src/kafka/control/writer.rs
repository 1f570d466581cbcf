//! Writing to the control topic: few records, each waited for.

use std::fmt;
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::control_topic;
use super::records::{Announcement, encode_announcement, store_key};
use crate::kafka::{KafkaError, KafkaOptions, settings};

/// After how long a record that nobody acknowledged is given up. It is short, so that a process that
/// ends is not held up.
const DELIVERY: Duration = Duration::from_secs(10);
const DOING: &str = "writing to the control topic";

pub(super) struct Writer {
    topic: String,
    producer: FutureProducer,
}

impl Writer {
    pub(super) fn start(options: &KafkaOptions) -> Result<Self, KafkaError> {
        let mut config = settings::producer(options);
        config
            .set("message.timeout.ms", DELIVERY.as_millis().to_string())
            .set("statistics.interval.ms", "0");
        let producer = config
            .create()
            .map_err(KafkaError::creating("creating a producer"))?;
        Ok(Self {
            topic: control_topic(&options.topic),
            producer,
        })
    }

    /// Writes a record, or takes back what its key is about, and waits until it is durable.
    pub(super) fn write(&self, key: &str, payload: Option<&str>) -> Result<(), KafkaError> {
        let client = |source| KafkaError::Client {
            doing: DOING,
            source,
        };
        let mut record: FutureRecord<'_, str, str> =
            FutureRecord::to(&self.topic).key(key).partition(0);
        record.payload = payload;
        let sent = self.producer.send_result(record);
        let delivery = sent.map_err(|(source, _)| client(source))?;
        match block_on(delivery) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((source, _))) => Err(client(source)),
            Err(_) => Err(client(ClientError::Canceled)),
        }
    }
}

/// Tells others where a store is. Calls block until the brokers have taken the record, or 10 s.
pub struct Announcer(Writer);

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Announcer").field(&self.0.topic).finish()
    }
}

impl Announcer {
    /// Of the control topic of the options' topic.
    ///
    /// # Errors
    ///
    /// A client setting that librdkafka refuses.
    pub fn start(options: &KafkaOptions) -> Result<Self, KafkaError> {
        Writer::start(options).map(Self)
    }

    /// Writes down where a store is.
    ///
    /// # Errors
    ///
    /// If the brokers do not take it.
    pub fn announce(&self, announcement: &Announcement) -> Result<(), KafkaError> {
        let value = encode_announcement(announcement);
        self.0
            .write(&store_key(&announcement.address), Some(&value))
    }

    /// Takes back what was announced of the store at that address.
    ///
    /// # Errors
    ///
    /// If the brokers do not take it.
    pub fn withdraw(&self, address: &str) -> Result<(), KafkaError> {
        self.0.write(&store_key(address), None)
    }
}
