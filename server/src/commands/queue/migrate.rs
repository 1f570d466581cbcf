//! `millrace queue migrate`: from the embedded queue to Kafka, without loss or repeat.
//!
//! Records are copied in their order, each with its origin, so a migration that was interrupted goes
//! on where it ended. From a running server (`--url`) most of it is copied while it works; with the
//! server stopped, the rest is copied, and the store is told to go on at the copy of the record at
//! which it stood. Only then does the server start on Kafka: so copies never stand behind a record
//! that is newer than they are.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use millrace_log::fs::OsFs;
use millrace_model::batch::split_batch;
use millrace_model::{Offset, PartitionId};
use millrace_queue::kafka::{ControlTopic, Copier, CopyOrigin, KafkaError, KafkaQueue};
use millrace_queue::{QueueIdentity, Record, RecordSource};
use millrace_store::GapCause;

use super::MigrateArgs;
use crate::commands::offline::{all, data};
use crate::commands::progress::Progress;
use crate::commands::records::{self, Opened};
use crate::commands::tail::failed;
use crate::config::Config;
use crate::failure::Failure;
use crate::options;
use crate::queue::kafka;

/// Bytes of records between two waits for the brokers.
const PAGE_BYTES: usize = 4 << 20;
const POLL_WAIT: Duration = Duration::from_millis(200);
/// Polls without a record, where there must be some, until the command gives up: 20 s.
const PATIENCE_POLLS: u32 = 100;

/// Copies, and moves the store if nobody has it open.
///
/// # Errors
///
/// Queue or topic cannot be read or written; a topic that holds something else; a store that cannot
/// be moved. Running it again goes on.
pub(super) fn run(args: &MigrateArgs, config: &Config) -> Result<(), Failure> {
    let opened = match &args.url {
        Some(url) => records::running(url)?,
        None => records::embedded(config, &config.top.data_dir)?,
    };
    let source = opened.queue.identity().clone();
    let mut target = kafka::options(&OsFs, config)?;
    // The queue's own, whatever the configuration would create: a series must stay in its partition.
    target.shard_key = source.shard_key.clone();
    target.partitions = Some(source.partitions);
    let max_batch_bytes = target.max_batch_bytes;
    let topic = KafkaQueue::open(target.clone()).map_err(broker)?;
    let mut control = ControlTopic::open(&target).map_err(broker)?;
    control
        .claim(topic.identity(), kafka::claimant(&OsFs)?)
        .map_err(|error| Failure::Refused(error.to_string()))?;
    let migration = Migration {
        copier: Copier::start(&topic).map_err(broker)?,
        opened,
        source,
        topic,
        max_batch_bytes,
    };
    let copied = migration.copy()?;
    if args.url.is_some() {
        return crate::print(&format!(
            "{copied} records copied; what the server takes from now on is not. Stop it and run this \
             again without --url: that copies the rest and moves the store.\n"
        ));
    }
    let moved = migration.move_store(config)?;
    crate::print(&format!(
        "{copied} records copied, {moved} shards moved to topic {:?}; start the server with \
         queue.backend = \"kafka\" now. The old queue stays in {}; nothing reads it any more.\n",
        migration.topic.report().topic,
        config.top.data_dir.join("queue").display()
    ))
}

fn broker(error: KafkaError) -> Failure {
    Failure::Client(error.to_string())
}

struct Migration {
    opened: Opened,
    source: QueueIdentity,
    topic: KafkaQueue,
    copier: Copier,
    max_batch_bytes: usize,
}

impl Migration {
    fn queue(&self) -> &dyn RecordSource {
        &*self.opened.queue
    }

    /// Copies what the queue has now. Returns the number of records.
    fn copy(&self) -> Result<u64, Failure> {
        let mut plan = Vec::new();
        let mut total = 0;
        for partition in (0..self.source.partitions).map(PartitionId) {
            let bounds = self.queue().bounds(partition).map_err(failed)?;
            let last = self.copier.last_origin(partition, self.source.id);
            let last = last.map_err(broker)?;
            // What retention has removed meanwhile the store had in blocks, and takes along.
            let (from, part) = last.map_or((bounds.start, 0), CopyOrigin::following);
            let (from, part) = if from < bounds.start {
                (bounds.start, 0)
            } else {
                (from, part)
            };
            total += bounds.end.0.saturating_sub(from.0);
            plan.push((partition, from, part, bounds.end));
        }
        let mut progress = Progress::new("copy", "records", total);
        let mut copied = 0;
        for (partition, from, part, end) in plan {
            self.partition(partition, (from, part), end, &mut |records| {
                copied += records;
                progress.set(copied);
            })?;
        }
        progress.finish();
        Ok(copied)
    }

    fn partition(
        &self,
        partition: PartitionId,
        (from, mut part): (Offset, u32),
        end: Offset,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        if from >= end {
            return Ok(());
        }
        let mut consumer = self.queue().read_from(partition, from).map_err(failed)?;
        let (mut next, mut patience) = (from, PATIENCE_POLLS);
        while next < end {
            let mut page = Vec::new();
            consumer
                .poll(PAGE_BYTES, POLL_WAIT, &mut page)
                .map_err(failed)?;
            if page.is_empty() {
                patience -= 1;
                if patience == 0 {
                    return Err(Failure::Client(format!(
                        "partition {partition}: the records from {next} to {end} do not come"
                    )));
                }
            }
            for record in &page {
                self.record(partition, record, part)?;
                part = 0;
                next = record.offset.advanced(1);
            }
            // IMPORTANT: a page is durable before the next one is begun, so that a failure leaves no
            // hole behind which something arrived.
            self.copier.flush().map_err(broker)?;
            progress(page.len() as u64);
        }
        Ok(())
    }

    /// Hands the copies of one record over, from `first` on.
    fn record(&self, partition: PartitionId, record: &Record, first: u32) -> Result<(), Failure> {
        let parts = self.parts(partition, record)?;
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        for (part, payload) in (0..count).zip(&parts).skip(first as usize) {
            let origin = CopyOrigin {
                queue: self.source.id,
                partition,
                offset: record.offset,
                part,
                parts: count,
            };
            self.copier
                .send(payload, record.appended_at, origin)
                .map_err(broker)?;
        }
        Ok(())
    }

    /// The record, in parts that the topic takes.
    fn parts(&self, partition: PartitionId, record: &Record) -> Result<Vec<Bytes>, Failure> {
        if record.payload.len() <= self.max_batch_bytes {
            // Also one that is no batch: the store makes a dead letter of it, there as here.
            return Ok(vec![record.payload.clone()]);
        }
        let parts = split_batch(&record.payload, self.max_batch_bytes).map_err(|error| {
            Failure::Data(format!(
                "partition {partition}, offset {}: {} bytes are too long for the topic, which takes \
                 {}, and cannot be split: {error}",
                record.offset,
                record.payload.len(),
                self.max_batch_bytes
            ))
        })?;
        Ok(parts.into_iter().map(Bytes::from).collect())
    }

    /// Lets the store go on in the topic. Shards that were moved before stay as they are.
    fn move_store(&self, config: &Config) -> Result<usize, Failure> {
        let offline = self.opened.offline().ok_or_else(|| {
            Failure::Client("the store is moved only while its server is stopped".to_owned())
        })?;
        let every = all(&self.source);
        let store = offline.open_store(options::store(config), &self.source, &every)?;
        let target = self.topic.identity().id;
        let mut positions = BTreeMap::new();
        for (partition, point) in store.resume_points() {
            if point.queue == target {
                continue;
            }
            if point.queue != self.source.id {
                return Err(Failure::Data(format!(
                    "partition {partition} of the store was fed by queue {}, not by {}",
                    point.queue, self.source.id
                )));
            }
            let to = self
                .copier
                .position_of(partition, self.source.id, point.next)
                .map_err(broker)?;
            positions.insert(partition, (target, to));
        }
        let moved = store.set_positions(&positions, GapCause::Migrated);
        let moved = moved.map_err(data)?;
        store.close().map_err(data)?;
        Ok(moved.len())
    }
}
