//! `/api/v1/status/pipeline`: queue and store by partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use millrace_model::{Offset, PartitionId};
use millrace_queue::Consumer;
use millrace_store::shard::{ShardState, ShardStatus, StopCode};
use millrace_store::{Gap, Store};
use parking_lot::Mutex;
use prometheus::Registry;
use serde::Serialize;
use serde_json::json;
use tracing::warn;

use crate::app::{App, Parts, Stage};

#[derive(Serialize)]
struct Pipeline {
    stage: Stage,
    detail: String,
    queue: Option<String>,
    partitions: Vec<Partition>,
}

/// Offsets are those of the queue; each is the next one, so that everything below it is meant.
#[derive(Serialize)]
struct Partition {
    partition: u32,
    state: &'static str,
    /// Why it stopped: a section of `docs/kafka.md`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Commands that let it go on, each an alternative, to be run while the server is stopped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resolve: Vec<String>,
    /// The queue that the store's offsets are of.
    queue: String,
    /// Where it did not go on reading where it had stopped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<GapStatus>,
    /// Everything below it is durable in the queue.
    end_offset: u64,
    /// Everything below it can be read.
    applied_offset: u64,
    /// Everything below it is in blocks.
    sealed_offset: u64,
    lag_records: u64,
    memtable_bytes: u64,
    memtable_series: u64,
    memtable_samples: u64,
    wal_bytes: u64,
    blocks: u64,
    block_bytes: u64,
    recovery_seconds: f64,
    replayed_records: u64,
}

/// A place where a shard's position was set rather than reached.
#[derive(Serialize)]
struct GapStatus {
    from_queue: String,
    from_offset: u64,
    to_queue: String,
    to_offset: u64,
    /// Milliseconds since the epoch.
    at: i64,
    cause: &'static str,
}

impl From<Gap> for GapStatus {
    fn from(gap: Gap) -> Self {
        Self {
            from_queue: gap.from.0.to_string(),
            from_offset: gap.from.1.0,
            to_queue: gap.to.0.to_string(),
            to_offset: gap.to.1.0,
            at: gap.at.0,
            cause: gap.cause.as_str(),
        }
    }
}

impl Partition {
    fn new(shard: ShardStatus, end: Option<Offset>) -> Self {
        // Applied and end are read one after the other, so the store may seem ahead for a moment.
        let end = end.map_or(shard.applied, |end| end.max(shard.applied));
        let (state, code, reason) = match shard.state {
            ShardState::Running => ("running", None, None),
            ShardState::Stopped { code, reason } => ("stopped", Some(code), Some(reason)),
            ShardState::Closed => ("closed", None, None),
        };
        Self {
            partition: shard.partition.0,
            state,
            code: code.map(StopCode::as_str),
            reason,
            resolve: code.map_or_else(Vec::new, |code| code.commands(shard.partition)),
            queue: shard.queue.to_string(),
            gaps: shard.gaps.into_iter().map(GapStatus::from).collect(),
            end_offset: end.0,
            applied_offset: shard.applied.0,
            sealed_offset: shard.sealed.0,
            lag_records: end.0 - shard.applied.0,
            memtable_bytes: shard.memtable_bytes,
            memtable_series: shard.memtable_series,
            memtable_samples: shard.memtable_samples,
            wal_bytes: shard.wal_bytes,
            blocks: shard.blocks,
            block_bytes: shard.block_bytes,
            recovery_seconds: shard.recovery.as_secs_f64(),
            replayed_records: shard.replayed_records,
        }
    }
}

/// Answers the request.
pub async fn status(State(app): State<Arc<App>>) -> Response {
    let (stage, detail) = app.stage();
    let data = Pipeline {
        stage,
        detail,
        queue: app
            .parts()
            .map(|parts| parts.store.applied().queue.to_string()),
        partitions: app.parts().map(partitions).unwrap_or_default(),
    };
    Json(json!({"status": "success", "data": data})).into_response()
}

fn partitions(parts: &Parts) -> Vec<Partition> {
    let ends = parts.ends.read();
    let shards = parts.store.status().into_iter();
    shards
        .map(|shard| {
            let end = ends.get(&shard.partition).copied();
            Partition::new(shard, end)
        })
        .collect()
}

/// Knows where each partition of the queue ends.
#[derive(Debug)]
pub struct QueueEnds(Mutex<Vec<Box<dyn Consumer>>>);

impl QueueEnds {
    /// One consumer for each partition; they only look.
    #[must_use]
    pub fn new(consumers: Vec<Box<dyn Consumer>>) -> Self {
        Self(Mutex::new(consumers))
    }

    /// The next offset of each partition. One that the queue does not tell is not there.
    #[must_use]
    pub fn read(&self) -> BTreeMap<PartitionId, Offset> {
        let consumers = self.0.lock();
        let end = |consumer: &dyn Consumer| match consumer.end() {
            Ok(end) => Some((consumer.partition(), end)),
            Err(error) => {
                warn!(partition = %consumer.partition(), %error, "the queue does not tell its end");
                None
            }
        };
        consumers
            .iter()
            .filter_map(|consumer| end(&**consumer))
            .collect()
    }
}

/// What has failed for good, in words; empty if nothing has.
#[must_use]
pub fn failures(parts: &Parts, registry: &Registry) -> Vec<String> {
    let mut failures = queue_failures(registry);
    failures.extend(stopped(&parts.store));
    failures
}

/// The queue tells this by its metric alone.
const QUEUE_PARTITION_FAILED: &str = "millrace_queue_partition_failed";

fn queue_failures(registry: &Registry) -> Vec<String> {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == QUEUE_PARTITION_FAILED);
    let metrics = family.map_or(&[][..], |family| family.get_metric());
    metrics
        .iter()
        .filter(|metric| metric.get_gauge().get_value() != 0.0)
        .flat_map(|metric| metric.get_label())
        .map(|label| {
            format!(
                "partition {} of the queue takes no more appends, the log says why",
                label.value()
            )
        })
        .collect()
}

fn stopped(store: &Store) -> Vec<String> {
    store
        .status()
        .into_iter()
        .filter_map(|shard| match shard.state {
            ShardState::Stopped { code, reason } => Some(format!(
                "shard {} has stopped ({}): {reason}",
                shard.partition,
                code.as_str()
            )),
            ShardState::Running | ShardState::Closed => None,
        })
        .collect()
}
