//! `millrace queue adopt`: a topic that was made again is the queue from now on.

use millrace_log::fs::OsFs;
use millrace_model::PartitionId;
use millrace_queue::kafka::{ControlTopic, KafkaBounds, KafkaError, KafkaQueue};

use crate::config::kind::QueueBackend;
use crate::config::{Config, broken};
use crate::failure::Failure;
use crate::queue::kafka::{BOUNDS_TIMEOUT, claimant, identity, options};

/// Writes into the control topic that the topic which is there is the queue.
///
/// # Errors
///
/// The brokers cannot be reached; a topic that is the same one and is divided otherwise.
pub(super) fn run(config: &Config) -> Result<(), Failure> {
    if config.queue.backend != QueueBackend::Kafka {
        let reason = "only a topic can be made again under its name";
        return Err(broken(config, "queue.backend", reason.to_owned()).into());
    }
    let options = options(&OsFs, config)?;
    let failed = |error: KafkaError| match error {
        KafkaError::NotTheQueue { .. } => Failure::Refused(error.to_string()),
        error => Failure::Client(error.to_string()),
    };
    let report = KafkaQueue::inspect(&options).map_err(failed)?;
    let identity = identity(&report, &options);
    let bounds = KafkaBounds::start(&options).map_err(failed)?;
    let mut empty = true;
    for partition in (0..report.partitions).map(PartitionId) {
        let held = bounds.bounds(partition, BOUNDS_TIMEOUT).map_err(failed)?;
        empty &= held.end.0 == 0;
    }
    let mut control = ControlTopic::open(&options).map_err(failed)?;
    let adopted = control.adopt(&identity, empty, claimant(&OsFs)?);
    match adopted.map_err(failed)? {
        None => crate::print(&format!(
            "topic {} is the queue already: {}\n",
            report.topic, identity.id
        )),
        Some(before) => crate::print(&format!(
            "topic {} is the queue from now on: {} with {} partitions (was {before}).\nStart ingest \
             again. The shards of stores that have read another topic stop with the code\n`recreated`; \
             docs/kafka.md says how each goes on.\n",
            report.topic, identity.id, identity.partitions
        )),
    }
}
