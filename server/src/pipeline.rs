//! `/api/v1/status/pipeline`: queue and store by partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use millrace_model::{Offset, PartitionId, TimestampMs};
use millrace_store::shard::{ShardState, ShardStatus, StopCode};
use millrace_store::{Gap, Store};
use prometheus::Registry;
use serde::Serialize;
use serde_json::json;

use crate::app::{App, Parts, Stage};
use crate::lag::Lag;
use crate::queue::Queue;

#[derive(Serialize)]
struct Pipeline {
    stage: Stage,
    detail: String,
    queue: Option<String>,
    roles: Vec<&'static str>,
    /// Why the queue does not tell where it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Why dead letters are not taken by their topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letters_problem: Option<String>,
    partitions: Vec<Partition>,
}

/// Offsets are those of the queue; each is the next one, so that everything below it is meant.
#[derive(Default, Serialize)]
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
    /// Everything below it is durable in the queue. Unknown if the queue does not tell.
    end_offset: Option<u64>,
    /// Everything below it can be read.
    applied_offset: Option<u64>,
    /// Everything below it is in blocks.
    sealed_offset: Option<u64>,
    lag_records: Option<u64>,
    /// Records times the samples that a record has had on average since the start.
    lag_samples_estimate: Option<u64>,
    /// Age of the oldest record that is not applied.
    lag_seconds: Option<f64>,
    memtable_bytes: u64,
    memtable_series: u64,
    memtable_samples: u64,
    wal_bytes: u64,
    blocks: u64,
    block_bytes: u64,
    recovery_seconds: f64,
    replayed_records: u64,
    /// Records that could not be applied, in the store's directory.
    dead_letters: u64,
    /// Those of them that their topic has not acknowledged, where there is one.
    dead_letters_unsent: u64,
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
    fn new(shard: ShardStatus, end: Option<Offset>, lag: Option<Lag>) -> Self {
        let (state, code, reason) = match (shard.state, shard.unreadable) {
            (ShardState::Running, None) => ("running", None, None),
            (ShardState::Running, Some(reason)) => ("unreadable", None, Some(reason)),
            (ShardState::Stopped { code, reason }, _) => ("stopped", Some(code), Some(reason)),
            (ShardState::Closed, _) => ("closed", None, None),
        };
        Self {
            partition: shard.partition.0,
            state,
            code: code.map(StopCode::as_str),
            reason,
            resolve: code.map_or_else(Vec::new, |code| code.commands(shard.partition)),
            queue: shard.queue.to_string(),
            gaps: shard.gaps.into_iter().map(GapStatus::from).collect(),
            // Applied and end are read one after the other, so the store may seem ahead for a
            // moment.
            end_offset: end.map(|end| end.0.max(shard.applied.0)),
            applied_offset: Some(shard.applied.0),
            sealed_offset: Some(shard.sealed.0),
            lag_records: lag.map(|lag| lag.records),
            lag_samples_estimate: lag.and_then(|lag| lag.samples),
            lag_seconds: lag.and_then(|lag| lag.seconds),
            memtable_bytes: shard.memtable_bytes,
            memtable_series: shard.memtable_series,
            memtable_samples: shard.memtable_samples,
            wal_bytes: shard.wal_bytes,
            blocks: shard.blocks,
            block_bytes: shard.block_bytes,
            recovery_seconds: shard.recovery.as_secs_f64(),
            replayed_records: shard.replayed_records,
            dead_letters: 0,
            dead_letters_unsent: 0,
        }
    }

    /// A partition that is looked at by a process without its store.
    fn unowned(queue: &str, partition: PartitionId, end: Offset) -> Self {
        Self {
            queue: queue.to_owned(),
            partition: partition.0,
            state: "elsewhere",
            end_offset: Some(end.0),
            ..Self::default()
        }
    }
}

/// Answers the request.
pub async fn status(State(app): State<Arc<App>>) -> Response {
    let (stage, detail) = app.stage();
    let (partitions, problem) = {
        let app = app.clone();
        // Brokers may take their time.
        let asked = tokio::task::spawn_blocking(move || {
            app.parts()
                .map(|parts| partitions(parts, app.clock.now()))
                .unwrap_or_default()
        });
        asked
            .await
            .unwrap_or_else(|error| (Vec::new(), Some(format!("a panic: {error}"))))
    };
    let parts = app.parts();
    let queue = parts.and_then(|parts| parts.queue.as_ref());
    let data = Pipeline {
        stage,
        detail,
        queue: queue.map(|queue| queue.identity().id.to_string()),
        roles: parts.map(|parts| parts.roles.names()).unwrap_or_default(),
        problem,
        dead_letters_problem: queue.and_then(|queue| queue.letters_standing().problem),
        partitions,
    };
    Json(json!({"status": "success", "data": data})).into_response()
}

/// The partitions, and why the queue does not tell its end, if it does not.
fn partitions(parts: &Parts, now: TimestampMs) -> (Vec<Partition>, Option<String>) {
    let Some(queue) = &parts.queue else {
        return (Vec::new(), None);
    };
    let (ends, problem) = match queue.bounds(&watched(parts, &**queue)) {
        Ok(bounds) => (bounds, None),
        Err(problem) => (BTreeMap::new(), Some(problem)),
    };
    let partitions = match &parts.store {
        Some(store) => {
            let standing = queue.letters_standing();
            let letters = store.dead_letters().into_iter();
            let letters: BTreeMap<_, _> = letters.map(|(p, all)| (p, all.len() as u64)).collect();
            let shard = |shard: ShardStatus| {
                let partition = shard.partition;
                let end = ends.get(&shard.partition).map(|bounds| bounds.end);
                let lag = end.map(|end| parts.lag.look(&shard, end, now));
                let of = |counts: &BTreeMap<_, u64>| counts.get(&partition).copied().unwrap_or(0);
                Partition {
                    dead_letters: of(&letters),
                    dead_letters_unsent: of(&standing.unsent),
                    ..Partition::new(shard, end, lag)
                }
            };
            store.status().into_iter().map(shard).collect()
        }
        None => {
            let queue = queue.identity().id.to_string();
            let ends = ends.into_iter();
            ends.map(|(partition, bounds)| Partition::unowned(&queue, partition, bounds.end))
                .collect()
        }
    };
    (partitions, problem)
}

/// The partitions that this process has to do with: those of its store, or all.
fn watched(parts: &Parts, queue: &dyn Queue) -> Vec<PartitionId> {
    match &parts.store {
        Some(store) => store.owned(),
        None => (0..queue.identity().partitions).map(PartitionId).collect(),
    }
}

/// Looks at the lag, for the metrics.
///
/// # Errors
///
/// In words, why the queue does not tell its end.
pub fn look(parts: &Parts, now: TimestampMs) -> Result<(), String> {
    let Some(queue) = &parts.queue else {
        return Ok(());
    };
    let bounds = queue.bounds(&watched(parts, &**queue))?;
    parts.lag.note_bounds(&bounds);
    let shards = parts.store.as_ref().map(|store| store.status());
    for shard in shards.into_iter().flatten() {
        if let Some(bounds) = bounds.get(&shard.partition) {
            parts.lag.look(&shard, bounds.end, now);
        }
    }
    Ok(())
}

/// The partitions that cannot be read just now, in words.
#[must_use]
pub fn unreadable(parts: &Parts) -> Vec<String> {
    let shards = parts.store.as_ref().map(|store| store.status());
    let shards = shards.into_iter().flatten();
    shards
        .filter_map(|shard| {
            let reason = shard.unreadable?;
            Some(format!(
                "partition {} cannot be read: {reason}",
                shard.partition
            ))
        })
        .collect()
}

/// What has failed for good, in words; empty if nothing has.
#[must_use]
pub fn failures(parts: &Parts, registry: &Registry) -> Vec<String> {
    let mut failures = queue_failures(registry);
    if let Some(store) = &parts.store {
        failures.extend(stopped(store));
    }
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
