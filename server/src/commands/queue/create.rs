//! `millrace queue create`: the topic and its control topic, made right or found right.

use std::time::{Duration, Instant};

use millrace_log::fs::OsFs;
use millrace_queue::Durability;
use millrace_queue::kafka::{
    ControlTopic, KafkaError, KafkaLetters, KafkaOptions, KafkaQueue, LettersTopic, Mismatch,
    TopicReport, TopicSpec, control_topic,
};

use super::CreateArgs;
use crate::config::kind::QueueBackend;
use crate::config::{Config, broken};
use crate::failure::Failure;
use crate::queue::kafka::{claimant, identity, options};

/// So long the brokers may take to tell one another of a new topic.
const NEWS: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(100);

/// Creates the topic unless it is there, and compares it with what was asked.
pub(super) fn run(args: &CreateArgs, config: &Config) -> Result<(), Failure> {
    if config.queue.backend != QueueBackend::Kafka {
        let reason = "only a topic is created so; an embedded queue is created by the first start";
        return Err(broken(config, "queue.backend", reason.to_owned()).into());
    }
    let mut options = options(&OsFs, config)?;
    options.partitions = None;
    // What is asked for here is compared below; the minimum is for those who use it.
    options.minimum_durability = Durability::Process;
    let spec = TopicSpec {
        partitions: args.partitions,
        replication: args.replication,
        retention: args.retention,
    };
    let failed = |error: KafkaError| Failure::Client(error.to_string());
    let (report, created) = match KafkaQueue::inspect(&options) {
        Ok(report) => (report, false),
        Err(KafkaError::NoTopic { .. }) => {
            KafkaQueue::create_topic(&options, &spec).map_err(failed)?;
            let report = news(|| KafkaQueue::inspect(&options));
            (report.map_err(failed)?, true)
        }
        Err(error) => return Err(failed(error)),
    };
    let differences = report.differences(&spec, &options);
    if !differences.is_empty() {
        let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
        return Err(Failure::Refused(format!(
            "topic {:?} is there and is not as asked: {}; nothing was changed",
            report.topic,
            differences.join("; ")
        )));
    }
    let what = if created {
        "created"
    } else {
        "there already, and as asked"
    };
    let mut told = text(&report, what);
    if let Some(note) = control(&options, &spec, &report, created)? {
        told.push_str(&note);
    }
    told.push_str(&letters(&options, &spec, &report)?);
    crate::print(&told)
}

/// Creates the topic of the dead letters unless it is there. Returns what there is to say.
fn letters(
    options: &KafkaOptions,
    spec: &TopicSpec,
    report: &TopicReport,
) -> Result<String, Failure> {
    let failed = |error: KafkaError| match error {
        error @ KafkaError::Unfit { .. } => Failure::Refused(format!(
            "the topic of the dead letters is not as it must be, and was not changed: {error}"
        )),
        error => Failure::Client(error.to_string()),
    };
    let made = KafkaLetters::create(report, options, spec).map_err(failed)?;
    let (name, how) = match made {
        LettersTopic::Created(name) => (name, ""),
        LettersTopic::There(name) => (name, ", there already"),
    };
    news(|| KafkaLetters::open(options)).map_err(failed)?;
    Ok(format!(
        "  and                 {name}: records that cannot be applied{how}\n"
    ))
}

/// Creates the control topic unless it is there, and writes down what the queue is unless somebody
/// has. Returns what else there is to say.
fn control(
    options: &KafkaOptions,
    spec: &TopicSpec,
    report: &TopicReport,
    created: bool,
) -> Result<Option<String>, Failure> {
    let failed = |error: KafkaError| Failure::Client(error.to_string());
    if let Err(error) = ControlTopic::inspect(options) {
        if !matches!(error, KafkaError::NoTopic { .. }) {
            return Err(failed(error));
        }
        ControlTopic::create(options, spec).map_err(failed)?;
    }
    let mut control = news(|| ControlTopic::open(options)).map_err(failed)?;
    match control.claim(&identity(report, options), claimant(&OsFs)?) {
        Ok(()) => Ok(Some(format!(
            "  beside it           {}: what the queue is, and where stores are\n",
            control_topic(&options.topic)
        ))),
        // Whoever creates it knows that the one before is gone; the others must be told.
        Err(KafkaError::NotTheQueue {
            mismatch: Mismatch::Recreated { claimed, .. },
            ..
        }) if created => Ok(Some(format!(
            "  {} still says that the queue is {claimed}, a topic that was here before: `millrace \
             queue\n  adopt` takes this one in its place (docs/kafka.md, recreated)\n",
            control_topic(&options.topic)
        ))),
        Err(error @ KafkaError::NotTheQueue { .. }) => Err(Failure::Refused(error.to_string())),
        Err(error) => Err(failed(error)),
    }
}

/// What the brokers say of a new topic, once they know it.
fn news<T>(ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let deadline = Instant::now() + NEWS;
    loop {
        match ask() {
            Err(KafkaError::NoTopic { .. }) if Instant::now() < deadline => {
                std::thread::park_timeout(RETRY);
            }
            answer => return answer,
        }
    }
}

fn text(report: &TopicReport, what: &str) -> String {
    let retention = match u64::try_from(report.retention_ms) {
        Ok(ms) => format!("{} s", ms / 1000),
        Err(_) => "for ever".to_owned(),
    };
    let mut text = format!(
        "topic {} is {what}\n  id                  {}\n  cluster             {}\n  \
         partitions          {}\n  replication         {}\n  min.insync.replicas {}\n  \
         retention           {retention}\n  max.message.bytes   {}\n  durability          {}\n",
        report.topic,
        report.topic_id,
        report.cluster_id,
        report.partitions,
        report.replication,
        report.min_insync_replicas,
        report.max_message_bytes,
        report.durability().as_str(),
    );
    if report.replication < 3 {
        text.push_str(
            "  With fewer than 3 copies the loss of a machine may lose what was acknowledged: say\n  \
             so with --set queue.kafka.minimum_durability=disk (or process).\n",
        );
    }
    text
}
