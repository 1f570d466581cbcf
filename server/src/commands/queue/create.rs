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
            let report = until_known(|| KafkaQueue::inspect(&options));
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
    crate::print(&text(&report, made(created)))?;
    crate::print(&control(&options, &spec, &report, created)?)?;
    let (name, created) = match KafkaLetters::create(&report, &options) {
        Ok(LettersTopic::Created(name)) => (name, true),
        Ok(LettersTopic::There(name)) => (name, false),
        Err(error @ KafkaError::Unfit { .. }) => {
            return Err(Failure::Refused(format!(
                "the topic of the dead letters is not as it must be, and was not changed: {error}"
            )));
        }
        Err(error) => return Err(failed(error)),
    };
    if created {
        until_known(|| KafkaLetters::open(&options)).map_err(failed)?;
    }
    crate::print(&format!(
        "topic {name}, for dead letters, is {}\n",
        made(created)
    ))
}

fn made(created: bool) -> &'static str {
    if created {
        "created"
    } else {
        "there already, and as asked"
    }
}

/// Creates the control topic unless it is there, and writes down what the queue is unless somebody
/// has. Returns what there is to say of that.
fn control(
    options: &KafkaOptions,
    spec: &TopicSpec,
    report: &TopicReport,
    created: bool,
) -> Result<String, Failure> {
    let failed = |error: KafkaError| Failure::Client(error.to_string());
    if let Err(error) = ControlTopic::inspect(options) {
        if !matches!(error, KafkaError::NoTopic { .. }) {
            return Err(failed(error));
        }
        ControlTopic::create(options, spec).map_err(failed)?;
    }
    let mut control = until_known(|| ControlTopic::open(options)).map_err(failed)?;
    let name = control_topic(&options.topic);
    match control.claim(&identity(report, options), claimant(&OsFs)?) {
        Ok(()) => Ok(format!(
            "topic {name}, for what the queue is and where stores are, says so\n"
        )),
        // Whoever creates it knows that the one before is gone; the others must be told.
        Err(KafkaError::NotTheQueue {
            mismatch: Mismatch::Recreated { claimed, .. },
            ..
        }) if created => Ok(format!(
            "topic {name} still says that the queue is {claimed}, a topic that was here before: \
             `millrace queue\nadopt` takes this one in its place (docs/kafka.md, recreated)\n",
        )),
        Err(error @ KafkaError::NotTheQueue { .. }) => Err(Failure::Refused(error.to_string())),
        Err(error) => Err(failed(error)),
    }
}

/// What the brokers say of a new topic, once they know it.
fn until_known<T>(ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
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
