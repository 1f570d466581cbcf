//! What the topic is, and what it can promise.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use millrace_model::QueueId;
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use super::consumer::close;
use super::{KafkaError, KafkaOptions, raw, settings};
use crate::traits::Durability;

const TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may take to fail in its own words.
const COMPLAINT_TIMEOUT: Duration = Duration::from_secs(3);
const COMPLAINT_POLL: Duration = Duration::from_millis(50);
/// Bytes that a record's own headers may add to a batch.
pub(super) const RECORD_OVERHEAD_BYTES: usize = 1024;

/// A topic as it should be created.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// Number of partitions.
    pub partitions: u32,
    /// Copies of each.
    pub replication: u32,
    /// How long records are kept.
    pub retention: Duration,
}

impl TopicSpec {
    /// How many replicas must have a record before it is acknowledged.
    #[must_use]
    pub fn min_insync_replicas(&self) -> u32 {
        if self.replication >= 3 { 2 } else { 1 }
    }

    /// After how many records a broker syncs its disk; `None` leaves it to the cluster. A single
    /// copy is only as good as the disk below it, so there it is each one.
    #[must_use]
    pub fn flush_messages(&self) -> Option<u64> {
        (self.replication == 1).then_some(1)
    }
}

/// A topic as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicReport {
    /// Its name.
    pub topic: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// The topic's id.
    pub topic_id: QueueId,
    /// Number of partitions.
    pub partitions: u32,
    /// The fewest copies that a partition has.
    pub replication: u32,
    /// `min.insync.replicas`.
    pub min_insync_replicas: u32,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
    /// `retention.ms`; negative: for ever.
    pub retention_ms: i64,
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// `cleanup.policy`.
    pub cleanup_policy: String,
    /// `flush.messages`.
    pub flush_messages: u64,
}

/// A setting of a topic that is short of what is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Which setting.
    pub setting: &'static str,
    /// What it is.
    pub found: String,
    /// What it must be.
    pub needed: String,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, must be {}",
            self.setting, self.found, self.needed
        )
    }
}

pub(super) fn shortfall(
    setting: &'static str,
    found: impl fmt::Display,
    needed: impl fmt::Display,
) -> Shortfall {
    Shortfall {
        setting,
        found: found.to_string(),
        needed: needed.to_string(),
    }
}

impl TopicReport {
    /// What an acknowledged append to this topic survives.
    #[must_use]
    pub fn durability(&self) -> Durability {
        if self.short_of(Durability::Replicated).is_empty() {
            Durability::Replicated
        } else if self.short_of(Durability::Disk).is_empty() {
            Durability::Disk
        } else {
            Durability::Process
        }
    }

    /// The settings that keep this topic from giving `level`.
    #[must_use]
    pub fn short_of(&self, level: Durability) -> Vec<Shortfall> {
        let mut short = Vec::new();
        match level {
            Durability::Process => {}
            // Kafka answers from the page cache unless it is told to flush each message.
            Durability::Disk if self.flush_messages != 1 => {
                short.push(shortfall("flush.messages", self.flush_messages, 1));
            }
            Durability::Disk => {}
            Durability::Replicated => {
                if self.replication < 3 {
                    short.push(shortfall("replication", self.replication, "at least 3"));
                }
                if self.min_insync_replicas < 2 {
                    let found = self.min_insync_replicas;
                    short.push(shortfall("min.insync.replicas", found, "at least 2"));
                }
                if self.unclean_leader_election {
                    short.push(shortfall("unclean.leader.election.enable", true, false));
                }
            }
        }
        short
    }

    /// Where the topic is not as `spec` would create it under these options.
    #[must_use]
    pub fn differences(&self, spec: &TopicSpec, options: &KafkaOptions) -> Vec<Shortfall> {
        let mut found = Vec::new();
        let mut compare = |setting, found_value: String, wanted: String| {
            if found_value != wanted {
                found.push(shortfall(setting, found_value, wanted));
            }
        };
        compare(
            "partition count",
            self.partitions.to_string(),
            spec.partitions.to_string(),
        );
        compare(
            "replication",
            self.replication.to_string(),
            spec.replication.to_string(),
        );
        compare(
            "min.insync.replicas",
            self.min_insync_replicas.to_string(),
            spec.min_insync_replicas().to_string(),
        );
        compare(
            "retention.ms",
            self.retention_ms.to_string(),
            spec.retention.as_millis().to_string(),
        );
        compare(
            "cleanup.policy",
            self.cleanup_policy.clone(),
            "delete".to_owned(),
        );
        compare(
            "unclean.leader.election.enable",
            self.unclean_leader_election.to_string(),
            false.to_string(),
        );
        if let Some(flush) = spec.flush_messages() {
            compare(
                "flush.messages",
                self.flush_messages.to_string(),
                flush.to_string(),
            );
        }
        let needed = options.max_batch_bytes + RECORD_OVERHEAD_BYTES;
        if self.max_message_bytes < needed {
            let needed = format!("at least {needed}");
            found.push(shortfall(
                "max.message.bytes",
                self.max_message_bytes,
                needed,
            ));
        }
        found
    }

    /// Whether it can be a control topic: one partition, compacted, and no less durable than asked.
    pub(super) fn check_control(&self, options: &KafkaOptions) -> Result<(), KafkaError> {
        let mut shortfalls = Vec::new();
        if self.partitions != 1 {
            shortfalls.push(shortfall("partition count", self.partitions, 1));
        }
        if self.cleanup_policy != "compact" {
            let found = &self.cleanup_policy;
            shortfalls.push(shortfall("cleanup.policy", found, "compact"));
        }
        if self.durability() < options.minimum_durability {
            shortfalls.extend(self.short_of(options.minimum_durability));
        }
        self.unless_short(shortfalls)
    }

    fn unless_short(&self, shortfalls: Vec<Shortfall>) -> Result<(), KafkaError> {
        if shortfalls.is_empty() {
            return Ok(());
        }
        Err(KafkaError::Unfit {
            topic: self.topic.clone(),
            shortfalls,
        })
    }

    pub(super) fn check(&self, options: &KafkaOptions) -> Result<(), KafkaError> {
        let mut shortfalls = Vec::new();
        if let Some(wanted) = options
            .partitions
            .filter(|wanted| *wanted != self.partitions)
        {
            shortfalls.push(shortfall("partition count", self.partitions, wanted));
        }
        if self.cleanup_policy != "delete" {
            shortfalls.push(shortfall("cleanup.policy", &self.cleanup_policy, "delete"));
        }
        let needed = options.max_batch_bytes + RECORD_OVERHEAD_BYTES;
        if self.max_message_bytes < needed {
            let needed = format!("at least {needed}");
            shortfalls.push(shortfall(
                "max.message.bytes",
                self.max_message_bytes,
                needed,
            ));
        }
        if self.durability() < options.minimum_durability {
            shortfalls.extend(self.short_of(options.minimum_durability));
        }
        self.unless_short(shortfalls)
    }
}

fn admin(options: &KafkaOptions) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    settings::admin(options)
        .create()
        .map_err(KafkaError::creating("creating an admin client"))
}

/// What a client complained about first.
#[derive(Default)]
struct Complaints(Mutex<Option<String>>);

impl ClientContext for Complaints {
    fn error(&self, error: ClientError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.0.lock().get_or_insert_with(|| reason.to_owned());
        }
    }
}

impl ConsumerContext for Complaints {}

/// The error of a call. That of the admin client only says that a connection failed, and not that the
/// login was refused or that nobody vouches for a certificate; so it is asked again by a client that
/// tells what it complains about.
fn failed(options: &KafkaOptions, doing: &'static str, source: ClientError) -> KafkaError {
    match complaint(options) {
        Some(complaint) => KafkaError::Complaint {
            doing,
            source,
            complaint: complaint.into_boxed_str(),
        },
        None => KafkaError::Client { doing, source },
    }
}

fn complaint(options: &KafkaOptions) -> Option<String> {
    let client: BaseConsumer<Complaints> = settings::consumer(options)
        .create_with_context(Complaints::default())
        .ok()?;
    // The answer is of no interest, what comes beside it is.
    let _answer = client
        .client()
        .fetch_metadata(Some(&options.topic), COMPLAINT_TIMEOUT);
    let deadline = Instant::now() + COMPLAINT_TIMEOUT;
    let told = || client.context().0.lock().take();
    let mut complaint = told();
    while complaint.is_none() && Instant::now() < deadline {
        // Complaints go to the context; a message cannot come.
        let _error = client.poll(COMPLAINT_POLL);
        complaint = told();
    }
    close(client, None, &options.topic);
    complaint
}

pub(super) fn inspect(options: &KafkaOptions) -> Result<TopicReport, KafkaError> {
    let admin = admin(options)?;
    let client = admin.inner();
    let doing = "reading the topic's metadata";
    let metadata = client
        .fetch_metadata(Some(&options.topic), TIMEOUT)
        .map_err(|source| failed(options, doing, source))?;
    let no_topic = || KafkaError::NoTopic {
        topic: options.topic.clone(),
    };
    let topic = metadata.topics().first().ok_or_else(no_topic)?;
    if topic.error().is_some() || topic.partitions().is_empty() {
        return Err(no_topic());
    }
    let replication = topic
        .partitions()
        .iter()
        .map(|p| p.replicas().len())
        .min()
        .unwrap_or(0);
    let partitions = topic.partitions().len();

    let resource = ResourceSpecifier::Topic(&options.topic);
    let doing = "reading the topic's configuration";
    let admin_options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let described = block_on(admin.describe_configs([&resource], &admin_options))
        .map_err(|source| failed(options, doing, source))?;
    let refused = |reason: String| KafkaError::Refused { doing, reason };
    let config = described
        .into_iter()
        .next()
        .ok_or_else(|| refused("an empty answer".to_owned()))?
        .map_err(|code| refused(code.to_string()))?;
    let values: HashMap<&str, &str> = config
        .entries
        .iter()
        .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
        .collect();
    let value = |name: &'static str| {
        values
            .get(name)
            .copied()
            .ok_or_else(|| refused(format!("{name} is not told")))
    };
    let unreadable = |name: &str, value: &str| refused(format!("{name} is {value:?}"));
    let number = |name: &'static str| -> Result<i64, KafkaError> {
        let text = value(name)?;
        text.parse().map_err(|_| unreadable(name, text))
    };
    let doing = "reading the topic's id (brokers before Kafka 3.1 have none)";
    let no_answer = |doing| KafkaError::NoAnswer {
        doing,
        waited: TIMEOUT,
    };
    let topic_id =
        raw::topic_id(client, &options.topic, TIMEOUT).ok_or_else(|| no_answer(doing))?;
    let cluster_id = client
        .fetch_cluster_id(TIMEOUT)
        .ok_or_else(|| no_answer("reading the cluster's id"))?;
    let unsigned = |name: &'static str| -> Result<u64, KafkaError> {
        let value = number(name)?;
        u64::try_from(value).map_err(|_| unreadable(name, &value.to_string()))
    };
    Ok(TopicReport {
        topic: options.topic.clone(),
        cluster_id,
        topic_id,
        partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
        replication: u32::try_from(replication).unwrap_or(u32::MAX),
        min_insync_replicas: u32::try_from(unsigned("min.insync.replicas")?).unwrap_or(u32::MAX),
        unclean_leader_election: value("unclean.leader.election.enable")? == "true",
        retention_ms: number("retention.ms")?,
        max_message_bytes: usize::try_from(unsigned("max.message.bytes")?).unwrap_or(usize::MAX),
        cleanup_policy: value("cleanup.policy")?.to_owned(),
        flush_messages: unsigned("flush.messages")?,
    })
}

pub(super) fn create(options: &KafkaOptions, spec: &TopicSpec) -> Result<(), KafkaError> {
    let own = [
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", spec.retention.as_millis().to_string()),
        (
            "max.message.bytes",
            (options.max_batch_bytes + (100 << 10)).to_string(),
        ),
    ];
    create_with(options, spec, spec.partitions, &own)
}

/// Creates the control topic beside a topic that is like `spec`.
pub(super) fn create_control(options: &KafkaOptions, spec: &TopicSpec) -> Result<(), KafkaError> {
    // The brokers' times tell how old an announcement is, so they must be of one kind of clock.
    let own = [
        ("cleanup.policy", "compact".to_owned()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
    ];
    create_with(options, spec, 1, &own)
}

/// Creates a topic with so many partitions, as durable as `spec` says.
fn create_with(
    options: &KafkaOptions,
    spec: &TopicSpec,
    partitions: u32,
    own: &[(&str, String)],
) -> Result<(), KafkaError> {
    let mut wanted = vec![
        (
            "min.insync.replicas",
            spec.min_insync_replicas().to_string(),
        ),
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    wanted.extend(own.iter().cloned());
    if let Some(count) = spec.flush_messages() {
        wanted.push(("flush.messages", count.to_string()));
    }
    create_as(options, partitions, spec.replication, &wanted)
}

/// Creates the topic of the options with these settings of its own.
pub(super) fn create_as(
    options: &KafkaOptions,
    partitions: u32,
    replication: u32,
    wanted: &[(&str, String)],
) -> Result<(), KafkaError> {
    let admin = admin(options)?;
    let doing = "creating the topic";
    let too_many = |reason: &str| KafkaError::Refused {
        doing,
        reason: reason.to_owned(),
    };
    let partitions = i32::try_from(partitions).map_err(|_| too_many("too many partitions"))?;
    let replication = i32::try_from(replication).map_err(|_| too_many("too many replicas"))?;
    let mut topic = NewTopic::new(
        &options.topic,
        partitions,
        TopicReplication::Fixed(replication),
    );
    for (name, value) in wanted {
        topic = topic.set(name, value);
    }
    let admin_options = AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT));
    let results = block_on(admin.create_topics([&topic], &admin_options))
        .map_err(|source| failed(options, doing, source))?;
    for result in results {
        result.map_err(|(name, code)| KafkaError::Refused {
            doing,
            reason: format!("{name}: {code}"),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::ClientSettings;

    fn good() -> TopicReport {
        TopicReport {
            topic: "t".into(),
            cluster_id: "c".into(),
            topic_id: QueueId(1),
            partitions: 4,
            replication: 3,
            min_insync_replicas: 2,
            unclean_leader_election: false,
            retention_ms: -1,
            max_message_bytes: 1_000_000,
            cleanup_policy: "delete".into(),
            flush_messages: u64::MAX,
        }
    }

    fn refusal(change: impl FnOnce(&mut TopicReport)) -> String {
        let mut report = good();
        change(&mut report);
        let mut options = KafkaOptions::new("t", ClientSettings::default());
        options.partitions = Some(4);
        report
            .check(&options)
            .map_or_else(|error| error.to_string(), |()| "fine".into())
    }

    #[test]
    fn each_short_setting_is_named_with_both_values() {
        assert_eq!(refusal(|_| {}), "fine");
        type Change = fn(&mut TopicReport);
        let table: [(Change, &str); 6] = [
            (
                |r| r.replication = 1,
                "replication is 1, must be at least 3",
            ),
            (
                |r| r.min_insync_replicas = 1,
                "min.insync.replicas is 1, must be at least 2",
            ),
            (
                |r| r.unclean_leader_election = true,
                "unclean.leader.election.enable is true, must be false",
            ),
            (|r| r.partitions = 5, "partition count is 5, must be 4"),
            (
                |r| r.cleanup_policy = "compact".into(),
                "cleanup.policy is compact, must be delete",
            ),
            (
                |r| r.max_message_bytes = 1000,
                "max.message.bytes is 1000, must be at least 901024",
            ),
        ];
        for (change, expect) in table {
            assert_eq!(refusal(change), format!("kafka: topic \"t\": {expect}"));
        }
    }

    #[test]
    fn one_copy_is_worth_the_disk_only_when_each_record_is_flushed() {
        let mut report = good();
        report.replication = 1;
        assert_eq!(report.durability(), Durability::Process);
        report.flush_messages = 1;
        assert_eq!(report.durability(), Durability::Disk);
        assert_eq!(good().durability(), Durability::Replicated);
    }
}
