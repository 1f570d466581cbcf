//! The control topic as a whole: made, looked at, read, claimed.

use std::fmt;
use std::ops::Deref;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset as ClientOffset, TopicPartitionList};
use tracing::debug;

use super::claim::{Mismatch, compare};
use super::control_topic;
use super::records::{Claimed, claim_key, encode_claim};
use super::table::{Came, Table};
use super::writer::Writer;
use crate::kafka::consumer::close;
use crate::kafka::topic::{self, TopicReport};
use crate::kafka::{KafkaError, KafkaOptions, TopicSpec, settings};
use crate::traits::QueueIdentity;

const TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(200);

/// The control topic, read to its end when it was opened.
pub struct ControlTopic {
    pub(super) options: KafkaOptions,
    pub(super) name: String,
    pub(super) consumer: Reader,
    pub(super) table: Table,
}

/// A client that is closed without holding up who drops it.
pub(super) struct Reader(Option<BaseConsumer>);

impl Deref for Reader {
    type Target = BaseConsumer;

    fn deref(&self) -> &BaseConsumer {
        self.0
            .as_ref()
            .expect("the client is taken only when dropped")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            close(client, None, &"the control topic");
        }
    }
}

impl fmt::Debug for ControlTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlTopic")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ControlTopic {
    /// Looks at the control topic without asking anything of it.
    ///
    /// # Errors
    ///
    /// The brokers cannot be reached, or it is missing.
    pub fn inspect(options: &KafkaOptions) -> Result<TopicReport, KafkaError> {
        topic::inspect(&of(options))
    }

    /// Creates it beside a topic that is like `spec`.
    ///
    /// # Errors
    ///
    /// The brokers cannot be reached, refuse, or have it already.
    pub fn create(options: &KafkaOptions, spec: &TopicSpec) -> Result<(), KafkaError> {
        topic::create_control(&of(options), spec)
    }

    /// Checks it and reads all of it.
    ///
    /// # Errors
    ///
    /// The brokers cannot be reached; it is missing, is not compacted, has not one partition, or gives
    /// less than the minimum durability.
    pub fn open(options: &KafkaOptions) -> Result<Self, KafkaError> {
        let of_control = of(options);
        topic::inspect(&of_control)?.check_control(&of_control)?;
        let consumer: BaseConsumer = settings::consumer(options)
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "500")
            .create()
            .map_err(KafkaError::creating("creating a consumer"))?;
        let mut control = Self {
            name: of_control.topic,
            options: options.clone(),
            consumer: Reader(Some(consumer)),
            table: Table::default(),
        };
        let begun = from_the_beginning(&control.consumer, &control.name);
        begun.map_err(|source| KafkaError::Client {
            doing: READING,
            source,
        })?;
        control.read_until(|_, at_end| at_end)?;
        control.table.caught_up();
        Ok(control)
    }

    /// The queue that was claimed first; `None` if none was, or in a way that this program does not
    /// know.
    #[must_use]
    pub fn identity(&self) -> Option<QueueIdentity> {
        identity(&self.table)
    }

    /// Compares this queue with the one that was claimed first, and claims it if none was.
    /// `claimant` must be a number that nobody else has.
    ///
    /// # Errors
    ///
    /// [`KafkaError::NotTheQueue`] if it is another one or divided otherwise; the brokers cannot be
    /// reached.
    pub fn claim(&mut self, ours: &QueueIdentity, claimant: u128) -> Result<(), KafkaError> {
        let ours = Claimed::ours(ours);
        if self.table.claim().is_none() {
            let writer = Writer::start(&self.options)?;
            let key = claim_key(claimant);
            writer.write(&key, Some(&encode_claim(&ours)))?;
            // Whatever stands before it was read when it is.
            self.read_until(|table, _| table.has_claim(&key))?;
            if self.holds() != Some(key.as_str()) {
                writer.write(&key, None)?;
            }
        }
        self.compare(&ours)
    }

    /// Takes this queue in place of the one that was claimed first, whose id it returns; `None` if
    /// they are the same. `empty` says that nothing was ever appended to the topic: then it may
    /// also be divided otherwise.
    ///
    /// # Errors
    ///
    /// [`KafkaError::NotTheQueue`] if it is divided otherwise, or somebody else was faster; the
    /// brokers cannot be reached.
    pub fn adopt(
        &mut self,
        ours: &QueueIdentity,
        empty: bool,
        claimant: u128,
    ) -> Result<Option<String>, KafkaError> {
        let ours = Claimed::ours(ours);
        let before = match self.compare(&ours) {
            Ok(()) if self.table.claim().is_some() => return Ok(None),
            Ok(()) => "none".to_owned(),
            Err(KafkaError::NotTheQueue {
                mismatch: Mismatch::Recreated { claimed, .. },
                ..
            }) => claimed.to_string(),
            Err(KafkaError::NotTheQueue { .. }) if empty => ours.identity.id.to_string(),
            Err(error) => return Err(error),
        };
        let (writer, key) = (Writer::start(&self.options)?, claim_key(claimant));
        let earlier = self.table.claim_keys();
        writer.write(&key, Some(&encode_claim(&ours)))?;
        for earlier in &earlier {
            writer.write(earlier, None)?;
        }
        self.read_until(|table, _| {
            let gone = |key: &String| !table.has_claim(key);
            table.has_claim(&key) && earlier.iter().all(gone)
        })?;
        self.compare(&ours)?;
        Ok(Some(before))
    }

    fn holds(&self) -> Option<&str> {
        let claim = self.table.claim()?;
        std::str::from_utf8(&claim.key).ok()
    }

    /// Whether the claim that holds says the same. None says nothing else.
    fn compare(&self, ours: &Claimed) -> Result<(), KafkaError> {
        let Some(claim) = self.table.claim() else {
            return Ok(());
        };
        compare(&claim.says, ours).map_err(|mismatch| KafkaError::NotTheQueue {
            topic: self.options.topic.clone(),
            mismatch,
        })
    }

    /// Reads until `done`, which is told whether everything has been read that there is at present.
    fn read_until(&mut self, done: impl Fn(&Table, bool) -> bool) -> Result<(), KafkaError> {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < TIMEOUT {
            let at_end = match self.consumer.poll(POLL) {
                None => false,
                Some(Ok(message)) => {
                    take(&message, &mut self.table);
                    false
                }
                Some(Err(ClientError::PartitionEOF(_))) => true,
                // A topic that was made a moment ago is not known everywhere yet.
                Some(Err(error)) => {
                    debug!(%error, topic = self.name, "the control topic cannot be read yet");
                    last = Some(error);
                    false
                }
            };
            if done(&self.table, at_end) {
                return Ok(());
            }
        }
        Err(match last {
            Some(source) => KafkaError::Client {
                doing: READING,
                source,
            },
            None => KafkaError::NoAnswer {
                doing: READING,
                waited: TIMEOUT,
            },
        })
    }
}

const READING: &str = "reading the control topic";

/// The options, of the control topic instead.
fn of(options: &KafkaOptions) -> KafkaOptions {
    KafkaOptions {
        topic: control_topic(&options.topic),
        ..options.clone()
    }
}

pub(super) fn identity(table: &Table) -> Option<QueueIdentity> {
    let says = table.claim()?.says.as_ref();
    says.ok().map(|claimed| claimed.identity.clone())
}

pub(super) fn from_the_beginning(consumer: &BaseConsumer, topic: &str) -> Result<(), ClientError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, ClientOffset::Beginning)?;
    consumer.assign(&list)
}

pub(super) fn take(message: &BorrowedMessage<'_>, table: &mut Table) {
    let came = Came {
        offset: message.offset(),
        at: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().unwrap_or_default(),
        payload: message.payload(),
    };
    if let Err(reason) = table.take(came) {
        debug!(
            offset = came.offset,
            reason, "a record of the control topic is passed over"
        );
    }
}
