//! The control topic: what the processes around one queue tell one another, in a compacted topic
//! beside it (`<topic>.control`, one partition). Format: `docs/kafka.md`.
//!
//! - The **identity** of the queue: partition count and shard key. The first process writes it; one
//!   that was configured otherwise is refused. The topic's own id is in its key, so a topic that is
//!   made again begins anew.
//! - **Announcements** of stores. Each is repeated; one that is not repeated within its time of life
//!   is forgotten by whoever reads. That time is measured by the reader's own monotonic clock, so
//!   clocks may differ; after a start, old announcements live once more for that long, which harms
//!   nobody, since who is announced is asked before it is believed.
//!
//! **Invariant:** of two identities the one earlier in the topic is right. Who finds that it lost
//! writes the winner again, so that compaction, which keeps the last, keeps the winner.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use millrace_model::{QueueId, ShardKey};
use parking_lot::Mutex;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset as ClientOffset, TopicPartitionList};
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::{KafkaError, KafkaOptions, settings, topic};
use crate::traits::QueueIdentity;

const TIMEOUT: Duration = Duration::from_secs(15);
/// How long the thread that follows the topic waits before it looks whether it shall end.
const POLL: Duration = Duration::from_millis(200);
/// Bounds of an announcement's time of life, whatever it says.
const LIFE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(600);
const IDENTITY: &str = "identity/";
const STORE: &str = "store/";
/// Version of the records.
const VERSION: u64 = 1;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its name, unlike any other's.
    pub store: String,
    /// `host:port` of its HTTP server.
    pub address: String,
    /// The queue that it reads.
    pub queue: QueueId,
    /// For how long this holds, from when it is read.
    pub life: Duration,
}

impl Announcement {
    fn to_json(&self) -> String {
        json!({
            "version": VERSION,
            "address": self.address,
            "queue": self.queue.to_string(),
            "life_ms": u64::try_from(self.life.as_millis()).unwrap_or(u64::MAX),
        })
        .to_string()
    }

    fn of_json(store: &str, value: &Value) -> Option<Self> {
        let life = Duration::from_millis(value.get("life_ms")?.as_u64()?);
        Some(Self {
            store: store.to_owned(),
            address: value.get("address")?.as_str()?.to_owned(),
            queue: value.get("queue")?.as_str()?.parse().ok()?,
            life: life.clamp(*LIFE.start(), *LIFE.end()),
        })
    }
}

/// What was read so far.
#[derive(Debug, Default)]
struct Table {
    /// The first one of each queue.
    identities: BTreeMap<QueueId, (u32, ShardKey)>,
    stores: BTreeMap<String, (Announcement, Instant)>,
}

impl Table {
    fn take(&mut self, key: &str, payload: Option<&[u8]>) -> Option<()> {
        if let Some(store) = key.strip_prefix(STORE) {
            let Some(payload) = payload else {
                self.stores.remove(store);
                return Some(());
            };
            let value = versioned(payload)?;
            let announcement = Announcement::of_json(store, &value)?;
            let entry = (announcement, Instant::now());
            self.stores.insert(store.to_owned(), entry);
            return Some(());
        }
        let queue = key.strip_prefix(IDENTITY)?.parse().ok()?;
        let value = versioned(payload?)?;
        let partitions = value.get("partitions")?.as_u64()?;
        let names = value.get("shard_key")?.as_array()?;
        let names: Option<Vec<_>> = names.iter().map(|n| n.as_str().map(str::to_owned)).collect();
        let identity = (u32::try_from(partitions).ok()?, ShardKey::new(names?));
        self.identities.entry(queue).or_insert(identity);
        Some(())
    }

    fn forget_the_dead(&mut self) {
        self.stores.retain(|_, (store, seen)| seen.elapsed() <= store.life);
    }
}

fn versioned(payload: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    (value.get("version")?.as_u64()? == VERSION).then_some(value)
}

/// See the [module](self).
pub struct ControlTopic {
    topic: String,
    queue: QueueId,
    producer: FutureProducer,
    table: Arc<Mutex<Table>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl fmt::Debug for ControlTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlTopic")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl ControlTopic {
    /// Makes the topic if it is not there, reads it, writes down the queue's identity if nobody
    /// has, and follows it from then on.
    ///
    /// # Errors
    ///
    /// The brokers cannot be reached, or refuse; [`KafkaError::IdentityDiffers`] if the queue was
    /// begun with another identity.
    pub fn open(
        options: &KafkaOptions,
        identity: &QueueIdentity,
        replication: u32,
    ) -> Result<Self, KafkaError> {
        let name = format!("{}.control", options.topic);
        create(options, &name, replication)?;
        let doing = "reading the control topic";
        let client = |source| KafkaError::Client { doing, source };
        let consumer: BaseConsumer = settings::consumer(options)
            .set("enable.partition.eof", "true")
            .create()
            .map_err(client)?;
        let producer = settings::producer(options).create().map_err(client)?;
        from_the_beginning(&consumer, &name).map_err(client)?;
        let mut control = Self {
            topic: name,
            queue: identity.id,
            producer,
            table: Arc::default(),
            stop: Arc::default(),
            reader: None,
        };
        read_to_end(&consumer, &control.table)?;
        control.agree(&consumer, identity)?;
        let (table, stop) = (control.table.clone(), control.stop.clone());
        let topic = control.topic.clone();
        let follow = std::thread::Builder::new().name("kafka-control".to_owned());
        let reader = follow.spawn(move || follow_topic(&consumer, &topic, &table, &stop));
        control.reader = Some(reader.map_err(|error| KafkaError::Refused {
            doing,
            reason: error.to_string(),
        })?);
        Ok(control)
    }

    fn agree(&self, consumer: &BaseConsumer, identity: &QueueIdentity) -> Result<(), KafkaError> {
        let stored = || self.table.lock().identities.get(&identity.id).cloned();
        let ours = (identity.partitions, identity.shard_key.clone());
        let mut first = stored();
        let mut wrote = false;
        if first.is_none() {
            self.write_identity(&ours)?;
            wrote = true;
            // Somebody else may have written before us.
            let begun = Instant::now();
            while first.is_none() && begun.elapsed() < TIMEOUT {
                read_to_end(consumer, &self.table)?;
                first = stored();
            }
        }
        let first = first.ok_or(KafkaError::NoAnswer {
            doing: "reading the queue's identity from the control topic",
            waited: TIMEOUT,
        })?;
        if first == ours {
            return Ok(());
        }
        if wrote {
            self.write_identity(&first)?;
        }
        Err(KafkaError::IdentityDiffers {
            topic: self.topic.clone(),
            stored: (first.0, first.1.names().to_vec()),
            wanted: (ours.0, ours.1.names().to_vec()),
        })
    }

    fn write_identity(&self, (partitions, key): &(u32, ShardKey)) -> Result<(), KafkaError> {
        let value = json!({
            "version": VERSION,
            "partitions": partitions,
            "shard_key": key.names(),
        });
        let key = format!("{IDENTITY}{}", self.queue);
        self.write(&key, Some(&value.to_string()))
    }

    /// Writes down where a store is.
    ///
    /// # Errors
    ///
    /// If the brokers do not take it.
    pub fn announce(&self, announcement: &Announcement) -> Result<(), KafkaError> {
        let key = format!("{STORE}{}", announcement.store);
        self.write(&key, Some(&announcement.to_json()))
    }

    /// Takes back what was announced of a store.
    ///
    /// # Errors
    ///
    /// If the brokers do not take it.
    pub fn withdraw(&self, store: &str) -> Result<(), KafkaError> {
        self.write(&format!("{STORE}{store}"), None)
    }

    /// The stores of this queue whose announcements hold.
    #[must_use]
    pub fn announced(&self) -> Vec<Announcement> {
        let mut table = self.table.lock();
        table.forget_the_dead();
        let stores = table.stores.values().map(|(store, _)| store);
        stores.filter(|s| s.queue == self.queue).cloned().collect()
    }

    fn write(&self, key: &str, payload: Option<&str>) -> Result<(), KafkaError> {
        let doing = "writing to the control topic";
        let client = |source| KafkaError::Client { doing, source };
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

impl Drop for ControlTopic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            warn!("the thread that follows the control topic panicked");
        }
    }
}

fn create(options: &KafkaOptions, name: &str, replication: u32) -> Result<(), KafkaError> {
    let doing = "creating the control topic";
    let copies = i32::try_from(replication).unwrap_or(i32::MAX);
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(copies))
        .set("cleanup.policy", "compact")
        .set("min.insync.replicas", if replication >= 3 { "2" } else { "1" });
    let admin_options = AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT));
    let admin = topic::admin(options)?;
    let results = block_on(admin.create_topics([&topic], &admin_options))
        .map_err(|source| KafkaError::Client { doing, source })?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(KafkaError::Refused {
                    doing,
                    reason: format!("{name}: {code}"),
                });
            }
        }
    }
    Ok(())
}

fn from_the_beginning(consumer: &BaseConsumer, topic: &str) -> Result<(), ClientError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, ClientOffset::Beginning)?;
    consumer.assign(&list)
}

/// Reads until the broker says that there is no more for now.
fn read_to_end(consumer: &BaseConsumer, table: &Mutex<Table>) -> Result<(), KafkaError> {
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT {
        match consumer.poll(POLL) {
            None => {}
            Some(Err(ClientError::PartitionEOF(_))) => return Ok(()),
            Some(Ok(message)) => take(&message, table),
            // A topic that was made a moment ago is not known everywhere yet.
            Some(Err(error)) => debug!(%error, "the control topic cannot be read yet"),
        }
    }
    Err(KafkaError::NoAnswer {
        doing: "reading the control topic",
        waited: TIMEOUT,
    })
}

fn take(message: &rdkafka::message::BorrowedMessage<'_>, table: &Mutex<Table>) {
    let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
    let taken = key.and_then(|key| table.lock().take(key, message.payload()));
    if taken.is_none() {
        // Of a later version, or not ours.
        debug!(offset = message.offset(), "a record of the control topic is passed over");
    }
}

fn follow_topic(consumer: &BaseConsumer, topic: &str, table: &Mutex<Table>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match consumer.poll(POLL) {
            None | Some(Err(ClientError::PartitionEOF(_))) => {}
            Some(Ok(message)) => take(&message, table),
            Some(Err(error)) => {
                warn!(%error, topic, "the control topic cannot be read");
                let lost = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset);
                // Records are small and few: to read them again costs nothing.
                if lost && let Err(error) = from_the_beginning(consumer, topic) {
                    warn!(%error, topic, "the control topic cannot be read again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> Announcement {
        Announcement {
            store: "a".into(),
            address: "h:1".into(),
            queue: QueueId(7),
            life: Duration::from_secs(30),
        }
    }

    #[test]
    fn what_is_announced_is_read_and_what_is_taken_back_is_gone() {
        let mut table = Table::default();
        let json = announcement().to_json();
        assert_eq!(table.take("store/a", Some(json.as_bytes())), Some(()));
        assert_eq!(table.stores["a"].0, announcement());
        assert_eq!(table.take("store/a", None), Some(()));
        assert!(table.stores.is_empty());
    }

    #[test]
    fn the_first_identity_of_a_queue_is_right() {
        let mut table = Table::default();
        let key = format!("identity/{}", QueueId(7));
        for (partitions, names) in [(4, "[\"a\"]"), (5, "[\"b\"]")] {
            let json = format!(
                "{{\"version\":1,\"partitions\":{partitions},\"shard_key\":{names}}}"
            );
            assert_eq!(table.take(&key, Some(json.as_bytes())), Some(()));
        }
        let first = (4, ShardKey::new(["a".to_owned()]));
        assert_eq!(table.identities[&QueueId(7)], first);
    }

    #[test]
    fn what_nobody_repeats_is_forgotten_and_lives_are_bounded() {
        let mut table = Table::default();
        let mut long = announcement();
        long.life = Duration::from_secs(1 << 40);
        table.take("store/a", Some(long.to_json().as_bytes()));
        assert_eq!(table.stores["a"].0.life, *LIFE.end());
        let past = Instant::now().checked_sub(Duration::from_secs(700));
        if let Some(past) = past {
            table.stores.get_mut("a").unwrap().1 = past;
            table.forget_the_dead();
            assert!(table.stores.is_empty());
        }
    }

    #[test]
    fn foreign_records_are_passed_over() {
        let mut table = Table::default();
        for (key, payload) in [
            ("x", "{}"),
            ("store/a", "{"),
            ("store/a", "{\"version\":2}"),
            ("store/a", "{\"version\":1,\"address\":5}"),
            ("identity/zz", "{\"version\":1}"),
        ] {
            assert_eq!(table.take(key, Some(payload.as_bytes())), None, "{key} {payload}");
        }
        assert_eq!(table.take(&format!("identity/{}", QueueId(1)), None), None);
    }
}
