//! `POST /api/v1/queue/replay`: records that the store has applied, or passed over, read once more, and
//! what of them it lacks restored.
//!
//! Invariants:
//! - What can be read is not changed: only missing samples are restored, and they go through the queue,
//!   as batches that carry their original position.
//! - Nothing is remembered between two requests. Whoever drives a replay asks stretch by stretch, from the
//!   newest to the oldest; an interrupted one is begun again, and finds what it restored.
//! - A request is answered when what it restored can be read, so that the next stretch sees it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use millrace_model::batch::split_batch;
use millrace_model::{Offset, PartitionId};
use millrace_queue::{ConsumeError, Position, Record, RecordSource};
use millrace_store::shard::{ShardState, ShardStatus};
use millrace_store::{Missing, RecordKind, Store};
use parking_lot::Mutex;
use serde_json::json;

use crate::admin::{Refusal, allow, blocking, find, pairs};
use crate::append::{LazyProducer, append};

/// Bytes of records that are looked at at once.
const MAX_BYTES: usize = 64 << 20;
const POLL_BYTES: usize = 4 << 20;
const POLL_WAIT: Duration = Duration::from_millis(200);
/// How long the records of a stretch may take to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the store may take to apply what was restored.
const APPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// The `errorType` of a stretch that is to be asked for in smaller ones.
pub const TOO_LARGE: &str = "too_large";

/// What the endpoint needs.
#[derive(Debug)]
pub struct Replayer {
    /// Whether it answers at all.
    pub enabled: bool,
    /// The store of this process.
    pub store: Arc<Store>,
    /// What it was fed with.
    pub records: Arc<dyn RecordSource>,
    /// The way into the queue.
    pub producer: Arc<LazyProducer>,
    /// One at a time: each has up to [`MAX_BYTES`] in memory.
    pub running: Mutex<()>,
}

/// The route.
pub fn router(replayer: Replayer) -> Router {
    Router::new()
        .route("/api/v1/queue/replay", any(replay))
        .with_state(Arc::new(replayer))
}

/// A stretch of a partition.
struct Stretch {
    partition: PartitionId,
    from: Offset,
    to: Offset,
    kind: RecordKind,
}

async fn replay(
    State(replayer): State<Arc<Replayer>>,
    request: Request,
) -> Result<Response, Refusal> {
    allow(replayer.enabled, request.method())?;
    let pairs = pairs(request).await?;
    let number = |name: &str| -> Result<u64, Refusal> {
        let value = find(&pairs, name).and_then(|text| text.parse().ok());
        value.ok_or_else(|| Refusal::bad_data(format!("{name} must be a number")))
    };
    let partition = u32::try_from(number("partition")?);
    let stretch = Stretch {
        partition: PartitionId(partition.map_err(|_| Refusal::bad_data("no such partition"))?),
        from: Offset(number("from")?),
        to: Offset(number("to")?),
        kind: match find(&pairs, "records") {
            None | Some("ordinary") => RecordKind::Ordinary,
            Some("requeued") => RecordKind::Requeued,
            Some(_) => {
                let text = "records must be ordinary or requeued";
                return Err(Refusal::bad_data(text));
            }
        },
    };
    let missing = blocking(move || replayer.replay(&stretch)).await??;
    let left_out: Vec<u64> = missing.left_out.iter().map(|offset| offset.0).collect();
    let data = json!({
        "samples": missing.looked_at,
        "restored": missing.samples,
        "restoring_records": missing.batches.len(),
        "undecodable": missing.undecodable,
        "left_out": left_out,
    });
    Ok(Json(json!({"status": "success", "data": data})).into_response())
}

impl Replayer {
    fn replay(&self, stretch: &Stretch) -> Result<Missing, Refusal> {
        let Some(_alone) = self.running.try_lock() else {
            return Err(Refusal::unavailable("another replay is under way"));
        };
        self.check(stretch)?;
        let records = self.read(stretch)?;
        let missing = self
            .store
            .missing(stretch.partition, &records, stretch.kind)
            .map_err(|error| Refusal::internal(&error))?;
        drop(records);
        if !missing.batches.is_empty() {
            self.restore(stretch.partition, &missing.batches)?;
        }
        Ok(missing)
    }

    /// Whether the stretch is behind the store: what lies before it is applied anyway.
    fn check(&self, stretch: &Stretch) -> Result<(), Refusal> {
        let partition = stretch.partition;
        let shards = self.store.status();
        let shard: Option<ShardStatus> = shards.into_iter().find(|s| s.partition == partition);
        let shard = shard.ok_or_else(|| {
            let owned: Vec<String> = self.store.owned().iter().map(|p| p.to_string()).collect();
            let owned = owned.join(", ");
            Refusal::bad_data(format!(
                "partition {partition} is not in this store, which has {owned}"
            ))
        })?;
        if shard.state != ShardState::Running {
            let state = &shard.state;
            return Err(Refusal::unavailable(format!(
                "shard {partition} is {state}"
            )));
        }
        let id = self.store.identity().id;
        if shard.queue != id {
            let text = format!(
                "shard {partition} stands in queue {}, not in {id}",
                shard.queue
            );
            return Err(Refusal::unavailable(text));
        }
        if stretch.from >= stretch.to || stretch.to > shard.applied {
            return Err(Refusal::bad_data(format!(
                "from {} to {} is no stretch of partition {partition} below {}, up to which it is applied",
                stretch.from, stretch.to, shard.applied
            )));
        }
        Ok(())
    }

    fn read(&self, stretch: &Stretch) -> Result<Vec<Record>, Refusal> {
        let (partition, to) = (stretch.partition, stretch.to);
        let mut consumer = self
            .records
            .read_from(partition, stretch.from)
            .map_err(unreadable)?;
        let deadline = Instant::now() + PATIENCE;
        let (mut records, mut bytes) = (Vec::new(), 0);
        loop {
            let mut page: Vec<Record> = Vec::new();
            consumer
                .poll(POLL_BYTES, POLL_WAIT, &mut page)
                .map_err(unreadable)?;
            for record in page {
                let next = record.offset.advanced(1);
                if record.offset < to {
                    bytes += record.payload.len();
                    records.push(record);
                }
                // Offsets may have holes: what is behind says that nothing more is before it.
                if next >= to {
                    return Ok(records);
                }
            }
            if bytes > MAX_BYTES {
                return Err(Refusal {
                    status: StatusCode::PAYLOAD_TOO_LARGE,
                    kind: TOO_LARGE,
                    text: format!("more than {MAX_BYTES} bytes: ask for fewer records at once"),
                });
            }
            if Instant::now() >= deadline {
                return Err(Refusal::unavailable(format!(
                    "partition {partition}: the records up to {to} do not come"
                )));
            }
        }
    }

    fn restore(&self, partition: PartitionId, batches: &[Bytes]) -> Result<(), Refusal> {
        let producer = self.producer.get();
        let producer = producer.map_err(|error| Refusal::unavailable(error.to_string()))?;
        let longest = producer.max_batch_bytes();
        let mut fitting = Vec::new();
        for batch in batches {
            if batch.len() <= longest {
                fitting.push(batch.clone());
                continue;
            }
            // Fewer series of a record may share less of their labels than all of them do.
            let parts = split_batch(batch, longest).map_err(|error| {
                Refusal::unavailable(format!("a batch that was put together here: {error}"))
            })?;
            fitting.extend(parts.into_iter().map(Bytes::from));
        }
        let appended = append(&*producer, partition, fitting).map_err(Refusal::unavailable)?;
        let mut position = Position::new(self.store.identity().id);
        position.advance(partition, appended.end);
        self.store
            .wait_applied(&position, APPLY_TIMEOUT)
            .map_err(|error| {
                Refusal::unavailable(format!("it is in the queue and will be applied: {error}"))
            })
    }
}

fn unreadable(error: ConsumeError) -> Refusal {
    match error {
        ConsumeError::TooOld { .. } => Refusal {
            status: StatusCode::GONE,
            kind: crate::records::error_type::TOO_OLD,
            text: error.to_string(),
        },
        ConsumeError::BeyondEnd { .. }
        | ConsumeError::AnotherQueue { .. }
        | ConsumeError::Diverged { .. }
        | ConsumeError::Damaged { .. }
        | ConsumeError::Unavailable { .. }
        | ConsumeError::Closed => Refusal::unavailable(error.to_string()),
    }
}
