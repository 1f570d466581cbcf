//! The queue on Kafka: waited for, looked at, and refused if it is less than what is asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use millrace_log::fs::{Fs, read_all};
use millrace_model::{PartitionId, ShardKey, TimestampMs};
use millrace_queue::kafka::{
    ClientSettings, ControlFollower, ControlTopic, KafkaBounds, KafkaError, KafkaLetters,
    KafkaMetrics, KafkaOptions, KafkaQueue, Mismatch, TopicReport, control_topic,
};
use millrace_queue::{Consumer, Durability, HeldQueue, Producer, QueueIdentity, RecordSource};
use millrace_store::Store;
use parking_lot::Mutex;
use tracing::{info, warn};

use super::{Bounds, DurabilityReport, LettersFacts, Queue, Short, TopicFacts};
use crate::app::{App, Stage};
use crate::config::kind::{DurabilitySetting, Properties, Secret};
use crate::config::{Config, ConfigError, broken};
use crate::failure::Failure;
use crate::letters::{ForwardMetrics, Forwarder, Letters, Standing, TopicLetters};

/// Between two tries to reach the brokers.
const RETRY: Duration = Duration::from_secs(1);

/// So long a topic may be unknown: brokers tell one another of a new one within moments.
const NEWS_OF_A_TOPIC: Duration = Duration::from_secs(10);

/// How long to wait for the answer to where a partition ends.
pub const BOUNDS_TIMEOUT: Duration = Duration::from_secs(5);

/// Files of secrets and properties are small; a path to something else is told early.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The configuration, mapped onto what the backend wants to know, its secrets read from their files.
///
/// # Errors
///
/// A file that cannot be read, a line of it that is none, or a setting of librdkafka that millrace
/// sets itself.
pub fn options(fs: &dyn Fs, config: &Config) -> Result<KafkaOptions, Failure> {
    let kafka = &config.kafka;
    let mut client = ClientSettings::new(kafka.brokers.join(","));
    let mut set = |key: &'static str, name: &str, value: String| {
        client
            .set(name, value)
            .map_err(|error| Failure::Config(broken(config, key, error.to_string())))
    };
    set("queue.kafka.topic", "client.id", "millrace".to_owned())?;
    let security = kafka.security_protocol;
    let key = "queue.kafka.security_protocol";
    set(key, "security.protocol", security.as_str().to_owned())?;
    if security.tls() {
        let files = [
            (
                "queue.kafka.tls_ca_file",
                "ssl.ca.location",
                &kafka.tls_ca_file,
            ),
            (
                "queue.kafka.tls_certificate_file",
                "ssl.certificate.location",
                &kafka.tls_certificate_file,
            ),
            (
                "queue.kafka.tls_key_file",
                "ssl.key.location",
                &kafka.tls_key_file,
            ),
        ];
        for (key, name, path) in files {
            if let Some(path) = path {
                set(key, name, path.to_string_lossy().into_owned())?;
            }
        }
        let key = "queue.kafka.tls_key_password_file";
        let file = kafka.tls_key_password_file.as_deref();
        if let Some(password) = secret(fs, config, key, &kafka.tls_key_password, file)? {
            set(key, "ssl.key.password", password)?;
        }
    }
    if security.sasl() {
        let key = "queue.kafka.sasl_mechanism";
        set(key, "sasl.mechanism", kafka.sasl_mechanism.clone())?;
        if let Some(user) = &kafka.sasl_username {
            set("queue.kafka.sasl_username", "sasl.username", user.clone())?;
        }
        let key = "queue.kafka.sasl_password_file";
        let file = kafka.sasl_password_file.as_deref();
        if let Some(password) = secret(fs, config, key, &kafka.sasl_password, file)? {
            set(key, "sasl.password", password)?;
        }
    }
    for (name, value) in &kafka.properties.0 {
        set("queue.kafka.properties", name, value.clone())?;
    }
    let key = "queue.kafka.properties_file";
    if let Some(path) = kafka.properties_file.as_deref() {
        for (name, value) in properties(&read_file(fs, config, key, path)?)
            .map_err(|reason| Failure::Config(broken(config, key, reason)))?
        {
            set(key, &name, value)?;
        }
    }
    let mut options = KafkaOptions::new(&kafka.topic, client);
    options.shard_key = ShardKey::new(config.queue.shard_key.iter().cloned());
    options.partitions = config
        .queue
        .partitions
        .0
        .map(|count| u32::try_from(count.get()).unwrap_or(u32::MAX));
    options.minimum_durability = match kafka.minimum_durability {
        DurabilitySetting::Process => Durability::Process,
        DurabilitySetting::Disk => Durability::Disk,
        DurabilitySetting::Replicated => Durability::Replicated,
    };
    options.delivery_timeout = kafka.delivery_timeout;
    options.max_in_flight_bytes = kafka.max_in_flight_bytes.as_usize();
    options.max_batch_bytes = kafka.max_batch_bytes.as_usize();
    options.group.clone_from(&kafka.group);
    Ok(options)
}

/// What queue a topic is, as it was found, in a process with these options.
#[must_use]
pub fn identity(report: &TopicReport, options: &KafkaOptions) -> QueueIdentity {
    QueueIdentity {
        id: report.topic_id,
        partitions: report.partitions,
        shard_key: options.shard_key.clone(),
    }
}

/// A number that no other process draws.
///
/// # Errors
///
/// If the system gives none.
pub fn claimant(fs: &dyn Fs) -> Result<u128, Failure> {
    fs.unique_id().map_err(|source| Failure::System {
        what: "the system's random numbers cannot be read",
        source,
    })
}

/// Asks brokers until they answer, and tells `/-/ready` meanwhile what is waited for.
fn waiting<T>(app: &App, mut ask: impl FnMut() -> Result<T, KafkaError>) -> Result<T, Failure> {
    let begun = app.clock.monotonic();
    let mut told = String::new();
    loop {
        let error = match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let waited = app.clock.monotonic().saturating_sub(begun);
        let new_topic = matches!(error, KafkaError::NoTopic { .. }) && waited < NEWS_OF_A_TOPIC;
        if !error.is_temporary() && !new_topic {
            return Err(Failure::Refused(error.to_string()));
        }
        // The library's complaint has times and addresses in it that differ from try to try.
        let what = match &error {
            KafkaError::Complaint { doing, source, .. } => format!("{doing}: {source}"),
            error => error.to_string(),
        };
        if what != told {
            warn!(%error, "waiting for the queue");
            told = what;
        }
        app.enter(Stage::OpeningQueue, format!("{error}; asking again"));
        std::thread::park_timeout(RETRY);
    }
}

/// Waits for the brokers, reads what stores have announced, and follows it from then on.
///
/// # Errors
///
/// A control topic that is not there or not as it must be, or settings that cannot be used.
pub fn follow(app: &App, fs: &dyn Fs, config: &Config) -> Result<ControlFollower, Failure> {
    let options = options(fs, config)?;
    let follower = waiting(app, || ControlTopic::open(&options)?.follow())?;
    info!(
        topic = control_topic(&options.topic),
        stores = follower.announced().len(),
        "stores are found by their announcements"
    );
    Ok(follower)
}

/// A secret by value, or the content of its file without its last line end.
fn secret(
    fs: &dyn Fs,
    config: &Config,
    key: &'static str,
    value: &Secret,
    file: Option<&Path>,
) -> Result<Option<String>, Failure> {
    match (value.reveal(), file) {
        (Some(value), _) => Ok(Some(value.to_owned())),
        (None, Some(path)) => {
            let text = read_file(fs, config, key, path)?;
            Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
        (None, None) => Ok(None),
    }
}

fn read_file(
    fs: &dyn Fs,
    config: &Config,
    key: &'static str,
    path: &Path,
) -> Result<String, Failure> {
    let unreadable = |reason: String| -> ConfigError {
        broken(config, key, format!("cannot be read: {reason}"))
    };
    let bytes =
        read_all(fs, path, MAX_FILE_BYTES).map_err(|error| unreadable(error.to_string()))?;
    Ok(String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8".to_owned()))?)
}

/// `name=value` in each line; empty ones and those that begin with `#` are none.
fn properties(text: &str) -> Result<Vec<(String, String)>, String> {
    let lines = text.lines().enumerate();
    lines
        .map(|(number, line)| (number + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            Properties::split(line).map_err(|reason| format!("line {number}: {reason}"))
        })
        .collect()
}

/// Waits for the brokers, and opens the topic if it gives what is asked and is the queue that this
/// pipeline works with.
pub(super) fn open(app: &App, fs: &dyn Fs, config: &Config) -> Result<Arc<dyn Queue>, Failure> {
    let options = options(fs, config)?;
    let claimant = claimant(fs)?;
    let queue = waiting(app, || {
        let queue = KafkaQueue::open(options.clone())?;
        let claimed = ControlTopic::open(&options)?.claim(queue.identity(), claimant);
        match claimed {
            // A store keeps what it has read: its shards find that out themselves, and stop.
            Err(KafkaError::NotTheQueue {
                mismatch: mismatch @ Mismatch::Recreated { .. },
                topic,
            }) if !config.top.roles.ingest => {
                warn!(topic, %mismatch, "the topic is not the queue that the stores have read");
                Ok(queue)
            }
            claimed => claimed.map(|()| queue),
        }
    })?;
    let report = queue.report();
    info!(
        topic = report.topic,
        topic_id = %report.topic_id,
        cluster = report.cluster_id,
        partitions = report.partitions,
        replication = report.replication,
        min_insync_replicas = report.min_insync_replicas,
        unclean_leader_election = report.unclean_leader_election,
        retention_ms = report.retention_ms,
        max_message_bytes = report.max_message_bytes,
        cleanup_policy = report.cleanup_policy,
        level = report.durability().as_str(),
        minimum = options.minimum_durability.as_str(),
        "the topic was checked: this is what it gives"
    );
    let letters_problem = letters_problem(&options);
    if let Some(problem) = &letters_problem {
        warn!(
            problem,
            "dead letters will stay in the stores' directories until their topic takes them"
        );
    }
    let unusable = |error: KafkaError| Failure::Refused(error.to_string());
    let metrics = KafkaMetrics::register(&app.registry)
        .map_err(|error| Failure::Data(format!("metrics: {error}")))?;
    Ok(Arc::new(Kafka {
        watcher: KafkaBounds::start(&options).map_err(unusable)?,
        report: Mutex::new(report.clone()),
        appends: Mutex::default(),
        letters: Arc::new(TopicLetters::new(options.clone())),
        letters_problem: Mutex::new(letters_problem),
        forwarder: Mutex::new(None),
        queue,
        options,
        metrics,
    }))
}

/// What keeps the topic of the dead letters from taking some.
fn letters_problem(options: &KafkaOptions) -> Option<String> {
    let opened = KafkaLetters::open(options);
    opened.err().map(|error| error.to_string())
}

#[derive(Debug)]
struct Kafka {
    queue: KafkaQueue,
    options: KafkaOptions,
    watcher: KafkaBounds,
    metrics: KafkaMetrics,
    /// As it was found when it was last looked at.
    report: Mutex<TopicReport>,
    /// The producer of this process, if it has one.
    appends: Mutex<Option<Weak<dyn Producer>>>,
    letters: Arc<TopicLetters>,
    /// The same, of the letters' topic.
    letters_problem: Mutex<Option<String>>,
    /// Runs where there is a store.
    forwarder: Mutex<Option<Forwarder>>,
}

impl Queue for Kafka {
    fn identity(&self) -> &QueueIdentity {
        self.queue.identity()
    }

    fn producer(&self) -> Result<Arc<dyn Producer>, Failure> {
        let producer = self
            .queue
            .producer_with(Some(self.metrics.clone()))
            .map_err(|error| Failure::Refused(error.to_string()))?;
        // Whoever appends decides when it ends.
        *self.appends.lock() = Some(Arc::downgrade(&producer));
        Ok(producer)
    }

    fn reader(&self, partition: PartitionId) -> Result<Box<dyn Consumer>, Failure> {
        self.queue
            .reader(partition)
            .map_err(|error| Failure::Refused(error.to_string()))
    }

    fn records(&self) -> Arc<dyn RecordSource> {
        Arc::new(self.queue.clone())
    }

    fn bounds(&self, partitions: &[PartitionId]) -> Result<BTreeMap<PartitionId, Bounds>, String> {
        let bounds = |partition: &PartitionId| {
            // One that does not answer keeps the others from being asked: all would be waited for.
            let held = self
                .watcher
                .bounds(*partition, BOUNDS_TIMEOUT)
                .map_err(|error| format!("partition {partition}: {error}"))?;
            let bounds = Bounds {
                first: held.first,
                end: held.end,
            };
            Ok((*partition, bounds))
        };
        partitions.iter().map(bounds).collect()
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn durability(&self) -> DurabilityReport {
        let mut told = report(&self.report.lock(), self.options.minimum_durability);
        told.dead_letters = Some(LettersFacts {
            topic: KafkaLetters::topic_of(&self.options.topic),
            problem: self.letters_problem.lock().clone(),
        });
        told
    }

    fn trouble(&self) -> Option<String> {
        let producer = self.appends.lock().as_ref().and_then(Weak::upgrade);
        producer.and_then(|producer| producer.trouble())
    }

    fn look_again(&self) -> Result<(), String> {
        let found = KafkaQueue::inspect(&self.options).map_err(|error| error.to_string())?;
        let mut report = self.report.lock();
        if found.topic_id != report.topic_id {
            return Err(format!(
                "topic {:?} was deleted and made again: its id is {}, this process works with {}",
                found.topic, found.topic_id, report.topic_id
            ));
        }
        if found.partitions != report.partitions {
            return Err(format!(
                "topic {:?} has {} partitions now; this process works with the {} that it had, and \
                 does not start again with more (docs/kafka.md, more partitions)",
                found.topic, found.partitions, report.partitions
            ));
        }
        let (now, minimum) = (found.durability(), self.options.minimum_durability);
        if now != report.durability() {
            warn!(
                was = report.durability().as_str(),
                now = now.as_str(),
                minimum = minimum.as_str(),
                "the topic's settings were changed, and with them what an acknowledgement is worth"
            );
        }
        *report = found;
        drop(report);
        *self.letters_problem.lock() = letters_problem(&self.options);
        Ok(())
    }

    fn retain(&self, _: TimestampMs) -> Result<(), String> {
        // The brokers do.
        Ok(())
    }

    fn letters(&self) -> Option<Arc<dyn Letters>> {
        Some(Arc::clone(&self.letters) as Arc<dyn Letters>)
    }

    fn forward_letters(&self, store: &Store, app: &App) -> Result<(), Failure> {
        let metrics = ForwardMetrics::register(&app.registry)
            .map_err(|error| Failure::Data(format!("metrics: {error}")))?;
        let (boxes, topic) = (store.dead_letters(), Arc::clone(&self.letters));
        let forwarder = Forwarder::start(boxes, topic, app.clock.clone(), metrics)?;
        *self.forwarder.lock() = Some(forwarder);
        Ok(())
    }

    fn letters_standing(&self) -> Standing {
        let forwarder = self.forwarder.lock();
        forwarder
            .as_ref()
            .map_or_else(Standing::default, Forwarder::standing)
    }

    /// The topic keeps its records itself.
    fn hold_behind(&self, first: &mut dyn FnMut()) -> Result<Option<HeldQueue>, String> {
        first();
        Ok(None)
    }

    fn close(&self) {
        // Producer and consumers end when they are dropped.
        drop(self.forwarder.lock().take());
    }
}

/// A topic's report, as it is told to others.
fn report(found: &TopicReport, minimum: Durability) -> DurabilityReport {
    let level = found.durability();
    let above = [Durability::Disk, Durability::Replicated];
    let short = above.into_iter().filter(|of| *of > level).flat_map(|of| {
        let short = found.short_of(of).into_iter();
        short.map(move |short| Short {
            of: of.as_str(),
            setting: short.setting.to_owned(),
            found: short.found,
            needed: short.needed,
        })
    });
    let retention = u64::try_from(found.retention_ms).ok();
    DurabilityReport {
        backend: "kafka",
        queue: found.topic_id.to_string(),
        partitions: found.partitions,
        level: level.as_str(),
        minimum: minimum.as_str(),
        short: short.collect(),
        topic: Some(TopicFacts {
            name: found.topic.clone(),
            cluster_id: found.cluster_id.clone(),
            replication: found.replication,
            min_insync_replicas: found.min_insync_replicas,
            unclean_leader_election: found.unclean_leader_election,
            retention_seconds: retention.map(|ms| Duration::from_millis(ms).as_secs_f64()),
            max_message_bytes: found.max_message_bytes as u64,
            cleanup_policy: found.cleanup_policy.clone(),
            flush_messages: found.flush_messages,
        }),
        dead_letters: None,
    }
}
