//! `/api/v1/queue`: the queue's records for tools that run beside the server, as
//! `docs/formats/records.md` says.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use millrace_model::{Offset, PartitionId, TimestampMs};
use millrace_queue::wire::RecordPage;
use millrace_queue::{ConsumeError, RecordSource};
use serde::Deserialize;
use serde_json::{Value, json};

/// A page that nobody asked to be of another size.
const DEFAULT_PAGE_BYTES: usize = 1 << 20;
/// A page is put together in memory.
const MAX_PAGE_BYTES: usize = 8 << 20;
/// How long a page may wait for its first record.
const MAX_WAIT_MS: u64 = 30_000;

/// What the type of an error is called, for clients that must tell them apart.
pub mod error_type {
    /// The records are not there any more; `first` says which is the oldest.
    pub const TOO_OLD: &str = "too_old";
    /// The records are not there yet; `end` says where the partition ends.
    pub const BEYOND_END: &str = "beyond_end";
}

/// The routes. Reading a queue is harmless to it, and shows everybody's data.
pub fn router(queue: Arc<dyn RecordSource>) -> Router {
    Router::new()
        .route("/api/v1/queue", get(describe))
        .route("/api/v1/queue/records", get(records))
        .route("/api/v1/queue/offset", get(offset))
        .with_state(queue)
}

#[derive(Deserialize)]
struct Records {
    partition: u32,
    from: u64,
    max_bytes: Option<usize>,
    wait_ms: Option<u64>,
}

#[derive(Deserialize)]
struct At {
    partition: u32,
    time_ms: i64,
}

type Queue = Arc<dyn RecordSource>;

/// Identity, and the bounds of each partition.
async fn describe(State(queue): State<Queue>) -> Response {
    blocking(move || {
        let identity = queue.identity();
        let partitions: Result<Vec<Value>, ConsumeError> = (0..identity.partitions)
            .map(|partition| {
                let bounds = queue.bounds(PartitionId(partition))?;
                Ok(json!({"partition": partition, "first": bounds.start.0, "end": bounds.end.0}))
            })
            .collect();
        let body = json!({
            "queue": identity.id.to_string(),
            "shard_key": identity.shard_key.names(),
            "partitions": partitions?,
        });
        Ok(Json(body).into_response())
    })
    .await
}

/// A page of records.
async fn records(State(queue): State<Queue>, Query(wanted): Query<Records>) -> Response {
    blocking(move || {
        let partition = known(&*queue, wanted.partition)?;
        let from = Offset(wanted.from);
        let mut consumer = queue.read_from(partition, from)?;
        let max = wanted.max_bytes.unwrap_or(DEFAULT_PAGE_BYTES);
        let wait = Duration::from_millis(wanted.wait_ms.unwrap_or(0).min(MAX_WAIT_MS));
        let mut records = Vec::new();
        consumer.poll(max.min(MAX_PAGE_BYTES), wait, &mut records)?;
        let next = records.last().map_or(from, |last| last.offset.advanced(1));
        let end = consumer.end()?.max(next);
        let page = RecordPage { records, next, end };
        let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
        Ok((kind, page.encode()).into_response())
    })
    .await
}

/// The offset that a time stands for.
async fn offset(State(queue): State<Queue>, Query(at): Query<At>) -> Response {
    blocking(move || {
        let partition = known(&*queue, at.partition)?;
        let offset = queue.offset_at(partition, TimestampMs(at.time_ms))?;
        Ok(Json(json!({"offset": offset.0})).into_response())
    })
    .await
}

/// Why there is no answer.
enum Refusal {
    Partition(String),
    Queue(ConsumeError),
}

impl From<ConsumeError> for Refusal {
    fn from(error: ConsumeError) -> Self {
        Self::Queue(error)
    }
}

fn known(queue: &dyn RecordSource, partition: u32) -> Result<PartitionId, Refusal> {
    let partitions = queue.identity().partitions;
    if partition < partitions {
        return Ok(PartitionId(partition));
    }
    Err(Refusal::Partition(format!(
        "partition {partition}: the queue has {partitions}, from 0 on"
    )))
}

async fn blocking(work: impl FnOnce() -> Result<Response, Refusal> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refuse(&refusal),
        Err(error) => answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({"errorType": "internal", "error": format!("reading the queue: {error}")}),
        ),
    }
}

fn refuse(refusal: &Refusal) -> Response {
    let error = match refusal {
        Refusal::Partition(text) => {
            return answer(
                StatusCode::BAD_REQUEST,
                json!({"errorType": "bad_data", "error": text}),
            );
        }
        Refusal::Queue(error) => error,
    };
    let text = error.to_string();
    match error {
        ConsumeError::TooOld { first, .. } => answer(
            StatusCode::GONE,
            json!({"errorType": error_type::TOO_OLD, "error": text, "first": first.0}),
        ),
        ConsumeError::BeyondEnd { end, .. } => answer(
            StatusCode::RANGE_NOT_SATISFIABLE,
            json!({"errorType": error_type::BEYOND_END, "error": text, "end": end.0}),
        ),
        ConsumeError::Damaged { .. }
        | ConsumeError::AnotherQueue { .. }
        | ConsumeError::Diverged { .. } => answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({"errorType": "internal", "error": text}),
        ),
        ConsumeError::Unavailable { .. } | ConsumeError::Closed => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"errorType": "unavailable", "error": text}),
        ),
    }
}

fn answer(status: StatusCode, mut body: Value) -> Response {
    body["status"] = "error".into();
    (status, Json(body)).into_response()
}
