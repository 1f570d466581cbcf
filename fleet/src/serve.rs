//! The store's side: answers reads of its own partitions.
//!
//! **Invariants**
//! - A frame is made only once the client has taken the one before: a slow reader holds what it
//!   has selected, never a thread.
//! - How fresh an answer is is looked at before anything is read, so it never promises what the
//!   answer lacks.
//! - A client that goes away stops the work: the flag in the reads' context is set, and no further
//!   frame is made.
//! - An answer ends with the end frame, or with an error frame, or is cut; never silently shorter.

mod produce;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderValue, StatusCode, header};
use millrace_model::{Matcher, Offset, PartitionId, TenantId, TimeRange};
use millrace_query::api::FreshnessError;
use millrace_query::{CancelFlag, ReadContext, SeriesSource};
use millrace_queue::Position;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::local::LocalShards;
use crate::metrics::ServeMetrics;
use crate::wire::frame::Hello;
use crate::wire::messages::{
    Ask, READ_PATH, ReadRequest, Refusal, RefusalKind, STATUS_PATH, WAIT_PATH, WaitRequest,
    WireMatcher,
};

use produce::{Producer, Question};

/// The type of an answer's body.
pub const CONTENT_TYPE: &str = "application/vnd.millrace.fleet";

/// Bounds of the store's side.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Answers that are being given at the same time.
    pub max_reads: usize,
    /// Frames that are being made at the same time; each takes a thread while it is made.
    pub max_running: usize,
    /// How long a read waits for one of the places.
    pub max_wait: Duration,
    /// Longest life of an answer, whatever the client asks for.
    pub max_timeout: Duration,
    /// How long a read waits for what it must include, and is not applied yet.
    pub behind_wait: Duration,
    /// Requests that wait for something to be applied.
    pub max_waiters: usize,
    /// Longest request.
    pub max_request_bytes: usize,
    /// Length at which a frame is sent.
    pub frame_bytes: usize,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            max_reads: 128,
            max_running: std::thread::available_parallelism().map_or(2, |n| n.get().max(2)),
            max_wait: Duration::from_secs(2),
            max_timeout: Duration::from_secs(300),
            behind_wait: Duration::from_secs(2),
            max_waiters: 256,
            max_request_bytes: 1 << 20,
            frame_bytes: 256 << 10,
        }
    }
}

#[derive(Debug)]
struct App {
    local: Arc<dyn LocalShards>,
    options: ServeOptions,
    reads: Arc<Semaphore>,
    running: Arc<Semaphore>,
    waiters: Arc<Semaphore>,
    metrics: ServeMetrics,
}

/// The routes that query processes use.
pub fn router(local: Arc<dyn LocalShards>, options: ServeOptions, metrics: ServeMetrics) -> Router {
    let app = Arc::new(App {
        local,
        reads: Arc::new(Semaphore::new(options.max_reads)),
        running: Arc::new(Semaphore::new(options.max_running)),
        waiters: Arc::new(Semaphore::new(options.max_waiters)),
        metrics,
        options,
    });
    Router::new()
        .route(READ_PATH, post(read))
        .route(STATUS_PATH, get(status))
        .route(WAIT_PATH, post(wait))
        .with_state(app)
}

/// A refusal before the first byte of an answer.
#[derive(Debug)]
struct Refused(RefusalKind, String);

impl Refused {
    fn bad(reason: impl std::fmt::Display) -> Self {
        Self(RefusalKind::BadRequest, reason.to_string())
    }

    fn into_response(self) -> Response {
        let Self(kind, message) = self;
        let status = match kind {
            RefusalKind::BadRequest => StatusCode::BAD_REQUEST,
            RefusalKind::ForeignQueue => StatusCode::CONFLICT,
            RefusalKind::NotHere => StatusCode::MISDIRECTED_REQUEST,
            RefusalKind::Behind => StatusCode::PRECONDITION_FAILED,
            RefusalKind::Busy | RefusalKind::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, axum::Json(Refusal { kind, message })).into_response()
    }
}

impl From<FreshnessError> for Refused {
    fn from(error: FreshnessError) -> Self {
        let kind = match error {
            FreshnessError::Malformed { .. } => RefusalKind::ForeignQueue,
            FreshnessError::NotReached { .. } => RefusalKind::Behind,
            FreshnessError::NotReady { .. } => RefusalKind::NotReady,
        };
        Self(kind, error.to_string())
    }
}

async fn body<T: serde::de::DeserializeOwned>(app: &App, request: Request) -> Result<T, Refused> {
    let bytes = to_bytes(request.into_body(), app.options.max_request_bytes)
        .await
        .map_err(Refused::bad)?;
    serde_json::from_slice(&bytes).map_err(Refused::bad)
}

async fn status(State(app): State<Arc<App>>) -> Response {
    let local = app.local.clone();
    match tokio::task::spawn_blocking(move || local.status()).await {
        Ok(status) => axum::Json(status).into_response(),
        Err(error) => Refused(RefusalKind::NotReady, error.to_string()).into_response(),
    }
}

async fn wait(State(app): State<Arc<App>>, request: Request) -> Response {
    let waited = async {
        let request: WaitRequest = body(&app, request).await?;
        let position: Position = request.position.parse().map_err(Refused::bad)?;
        let left = Duration::from_millis(request.timeout_ms).min(app.options.max_timeout);
        wait_applied(&app, position, left).await
    };
    match waited.await {
        Ok(()) => status(State(app)).await,
        Err(refused) => refused.into_response(),
    }
}

async fn wait_applied(app: &App, position: Position, left: Duration) -> Result<(), Refused> {
    for partition in position.next.keys() {
        if app.local.applied(*partition).is_none() {
            return Err(not_here(*partition));
        }
    }
    let Ok(permit) = app.waiters.clone().try_acquire_owned() else {
        let message = format!("{} requests wait already", app.options.max_waiters);
        return Err(Refused(RefusalKind::Busy, message));
    };
    let local = app.local.clone();
    let waiting = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        local.wait(&position, left)
    });
    match waiting.await {
        Ok(waited) => Ok(waited?),
        Err(error) => Err(Refused(RefusalKind::NotReady, error.to_string())),
    }
}

fn not_here(partition: PartitionId) -> Refused {
    let message = format!("partition {partition} is not one of this store's");
    Refused(RefusalKind::NotHere, message)
}

async fn read(State(app): State<Arc<App>>, request: Request) -> Response {
    match answer(&app, request).await {
        Ok(response) => response,
        Err(refused) => {
            app.metrics.refused(refused.0);
            refused.into_response()
        }
    }
}

async fn answer(app: &Arc<App>, request: Request) -> Result<Response, Refused> {
    let request: ReadRequest = body(app, request).await?;
    let identity = app.local.identity();
    if request.queue.parse() != Ok(identity.id) {
        let message = format!(
            "this store reads queue {}, the request is for {}",
            identity.id, request.queue
        );
        return Err(Refused(RefusalKind::ForeignQueue, message));
    }
    let partitions: Vec<_> = request
        .partitions
        .iter()
        .copied()
        .map(PartitionId)
        .collect();
    let question = question(&request)?;
    let left = Duration::from_millis(request.timeout_ms).min(app.options.max_timeout);
    let deadline = Instant::now() + left;

    let mut least = Position::new(identity.id);
    for (partition, offset) in &request.at_least {
        least.advance(PartitionId(*partition), Offset(*offset));
    }
    let behind = |(partition, offset): (&PartitionId, &Offset)| {
        app.local
            .applied(*partition)
            .is_none_or(|applied| applied < *offset)
    };
    if least.next.iter().any(behind) {
        wait_applied(app, least, left.min(app.options.behind_wait)).await?;
    }
    let Ok(Ok(permit)) = timeout(
        app.options.max_wait.min(left),
        app.reads.clone().acquire_owned(),
    )
    .await
    else {
        let message = format!("{} reads are being answered already", app.options.max_reads);
        return Err(Refused(RefusalKind::Busy, message));
    };
    let mut applied = Position::new(identity.id);
    for partition in &partitions {
        let offset = app.local.applied(*partition);
        applied.advance(*partition, offset.ok_or_else(|| not_here(*partition))?);
    }
    let hello = Hello {
        store: app.local.name(),
        applied,
    };
    // IMPORTANT: made after the offsets were read, so it has at least what they say.
    let source = app.local.source(&partitions);
    let source = source.ok_or_else(|| {
        let message = "one of the partitions is not this store's".to_owned();
        Refused(RefusalKind::NotHere, message)
    })?;
    Ok(stream(app, hello, source, question, deadline, permit))
}

fn stream(
    app: &Arc<App>,
    hello: Hello,
    source: Arc<dyn SeriesSource>,
    question: Question,
    deadline: Instant,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> Response {
    let cancel = CancelFlag::default();
    let context = Arc::new(ReadContext::new(false, cancel.clone(), Some(deadline)));
    let producer = Producer::new(source, question, context, app.options.frame_bytes);
    let stream = produce::frames(
        hello,
        producer,
        produce::Pace {
            running: app.running.clone(),
            deadline,
            cancel,
            _permit: permit,
            metrics: app.metrics.clone(),
        },
    );
    let mut response = Response::new(Body::from_stream(stream));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

fn question(request: &ReadRequest) -> Result<Question, Refused> {
    let tenant: TenantId = request.tenant.parse().map_err(Refused::bad)?;
    Ok(match &request.ask {
        Ask::Select {
            matchers,
            start,
            end,
        } => Question::Select(
            tenant,
            read_matchers(matchers)?,
            TimeRange::new(*start, *end),
        ),
        Ask::Newest {
            matchers,
            start,
            end,
        } => Question::Newest(
            tenant,
            read_matchers(matchers)?,
            TimeRange::new(*start, *end),
        ),
        Ask::Series {
            matchers,
            start,
            end,
        } => Question::Series(
            tenant,
            read_matchers(matchers)?,
            TimeRange::new(*start, *end),
        ),
        Ask::LabelNames {
            matcher_sets,
            start,
            end,
        } => Question::LabelNames(
            tenant,
            read_sets(matcher_sets)?,
            TimeRange::new(*start, *end),
        ),
        Ask::LabelValues {
            name,
            matcher_sets,
            start,
            end,
        } => Question::LabelValues(
            tenant,
            name.clone(),
            read_sets(matcher_sets)?,
            TimeRange::new(*start, *end),
        ),
        Ask::Metadata { metric } => Question::Metadata(tenant, metric.clone()),
    })
}

fn read_sets(sets: &[Vec<WireMatcher>]) -> Result<Vec<Vec<Matcher>>, Refused> {
    sets.iter().map(|set| read_matchers(set)).collect()
}

fn read_matchers(matchers: &[WireMatcher]) -> Result<Vec<Matcher>, Refused> {
    let read = |matcher: &WireMatcher| {
        matcher.matcher().map_err(|error| match error {
            Some(error) => Refused::bad(error),
            None => Refused::bad(format_args!("no matcher has the operator {:?}", matcher.op)),
        })
    };
    matchers.iter().map(read).collect()
}
