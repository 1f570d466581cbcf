//! The admin endpoints: deletes as Prometheus's API has them, their way back, and what retention would
//! do.
//!
//! Invariants:
//! - Nothing here touches the store's data. A delete and its revocation go through the queue, one
//!   record in every partition, so that a replay meets them where they stood.
//! - An answer that acknowledges a delete is made when its records are durable and the store of this
//!   process has applied them.
//! - All of it is refused unless `server.admin_api` is set.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Form, FromRequest as _, Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use chrono::DateTime;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use millrace_log::fs::Fs;
use millrace_model::batch::encode_delete_section;
use millrace_model::{
    Clock, Delete, DeleteEntry, DeleteId, Matcher, PartitionId, TenantId, TimeRange, TimestampMs,
};
use millrace_query::{Engine, ReadScope};
use millrace_queue::{Appender, Position, SubmitError};
use millrace_store::{RetentionItem, Store, StoreError, Tombstone};
use serde_json::{Value, json};

/// The identity of a delete that was taken.
const DELETE_ID: HeaderName = HeaderName::from_static("millrace-delete-id");
/// The queue's position behind it.
const POSITION: HeaderName = HeaderName::from_static("millrace-position");
/// How long a request waits until the store has applied what it did.
const APPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the endpoints need.
pub struct Admin {
    /// Whether they answer at all.
    pub enabled: bool,
    /// The store of this process.
    pub store: Arc<Store>,
    /// The way into the queue.
    pub appender: Appender,
    /// Reads selectors.
    pub engine: Arc<Engine>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where identities come from.
    pub fs: Arc<dyn Fs>,
    /// How long a delete can be revoked.
    pub undo_window: Duration,
}

type Shared = Arc<Admin>;

/// The routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/api/v1/admin/tsdb/delete_series", any(delete_series))
        .route("/api/v1/admin/tsdb/clean_tombstones", any(clean_tombstones))
        .route("/api/v1/admin/tsdb/undelete", any(undelete))
        .route("/api/v1/admin/tsdb/deletes", get(deletes))
        .route("/api/v1/admin/retention", get(retention))
        .route("/api/v1/admin/retention/run", any(run_retention))
        .route("/api/v1/admin/retention/confirm_clock", any(confirm_clock))
        .with_state(Arc::new(admin))
}

/// A request that is not done, and why.
#[derive(Debug)]
pub struct Refusal {
    /// The answer's status.
    pub status: StatusCode,
    /// Its `errorType`.
    pub kind: &'static str,
    /// For people.
    pub text: String,
}

impl Refusal {
    /// The request makes no sense.
    pub fn bad_data(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "bad_data",
            text: text.into(),
        }
    }

    /// Not now.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: "unavailable",
            text: text.into(),
        }
    }

    /// There is none of it.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "not_found",
            text: text.into(),
        }
    }

    /// The store is damaged, or cannot be read.
    pub fn internal(error: &StoreError) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "internal",
            text: error.to_string(),
        }
    }
}

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"status": "error", "errorType": self.kind, "error": self.text});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}

/// Whether an admin request may be answered, and changes nothing by a GET.
///
/// # Errors
///
/// The refusal.
pub fn allow(enabled: bool, method: &Method) -> Result<(), Refusal> {
    if !enabled {
        return Err(Refusal::unavailable(
            "admin APIs disabled; server.admin_api=true enables them",
        ));
    }
    // Prometheus's own clients use both.
    if method == Method::POST || method == Method::PUT {
        return Ok(());
    }
    Err(Refusal {
        status: StatusCode::METHOD_NOT_ALLOWED,
        kind: "method_not_allowed",
        text: format!("this changes data: POST or PUT, not {method}"),
    })
}

/// Runs what blocks on a thread of its own.
///
/// # Errors
///
/// The runtime has ended, or `run` panicked.
pub async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let ran = tokio::task::spawn_blocking(run).await;
    ran.map_err(|error| Refusal::unavailable(format!("the request was cut off: {error}")))
}

impl Admin {
    fn check(&self, method: &Method) -> Result<(), Refusal> {
        allow(self.enabled, method)
    }

    fn random_id(&self) -> Result<DeleteId, Refusal> {
        let id = self.fs.unique_id();
        id.map(DeleteId)
            .map_err(|error| Refusal::unavailable(format!("no random number: {error}")))
    }

    /// Sends an entry to all partitions and waits until it is applied.
    async fn submit(
        self: &Arc<Self>,
        tenant: &TenantId,
        entry: DeleteEntry,
    ) -> Result<Position, Refusal> {
        let Some(section) = encode_delete_section(&[entry]) else {
            unreachable!("a section of one entry is not empty");
        };
        let partitions = 0..self.appender.identity().partitions;
        let parts = partitions
            .map(|partition| (PartitionId(partition), section.clone()))
            .collect();
        let pending = self.appender.submit(tenant, parts);
        let pending = pending.map_err(|error| match error {
            SubmitError::TooLarge { .. } => Refusal::bad_data(error.to_string()),
            SubmitError::Overloaded { .. } | SubmitError::Closed => {
                Refusal::unavailable(error.to_string())
            }
        })?;
        let position = pending
            .await
            .map_err(|error| Refusal::unavailable(error.to_string()))?;
        let (admin, wanted) = (self.clone(), position.clone());
        blocking(move || admin.store.wait_applied(&wanted, APPLY_TIMEOUT))
            .await?
            .map_err(|error| {
                Refusal::unavailable(format!("it is in the queue and will be applied: {error}"))
            })?;
        Ok(position)
    }

    fn delete(&self, scope: &ReadScope, pairs: &[(String, String)]) -> Result<Delete, Refusal> {
        let matches = pairs.iter().filter(|(name, _)| name == "match[]");
        let selectors = matches
            .map(|(_, text)| Ok([self.selector(text)?, scope.matchers()].concat()))
            .collect::<Result<Vec<_>, Refusal>>()?;
        if selectors.is_empty() {
            return Err(Refusal::bad_data("no match[] parameter provided"));
        }
        let range = TimeRange {
            start: time(pairs, "start", TimeRange::ALL.start)?,
            end: time(pairs, "end", TimeRange::ALL.end)?,
        };
        if range.start > range.end {
            return Err(Refusal::bad_data(
                "end timestamp must not be before start time",
            ));
        }
        let now = self.clock.now();
        Ok(Delete {
            id: self.random_id()?,
            requested_at: now,
            undo_until: now.saturating_add(self.undo_window),
            range,
            selectors,
        })
    }

    fn selector(&self, text: &str) -> Result<Vec<Matcher>, Refusal> {
        let parsed = self.engine.parse_selector(text);
        let matchers = parsed.map_err(|error| {
            Refusal::bad_data(format!("invalid parameter \"match[]\": {error}"))
        })?;
        if matchers.iter().all(Matcher::matches_empty) {
            return Err(Refusal::bad_data(
                "match[] must contain at least one non-empty matcher",
            ));
        }
        Ok(matchers)
    }
}

/// The parameters of the query string and of a form.
///
/// # Errors
///
/// Text that is none.
pub async fn pairs(request: Request) -> Result<Vec<(String, String)>, Refusal> {
    type Pairs = Vec<(String, String)>;
    let of_query = Query::<Pairs>::try_from_uri(request.uri());
    let Query(mut pairs) = of_query.map_err(|error| Refusal::bad_data(error.to_string()))?;
    let form = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.starts_with("application/x-www-form-urlencoded"));
    if form {
        let form = Form::<Pairs>::from_request(request, &()).await;
        let Form(more) = form.map_err(|error| Refusal::bad_data(error.to_string()))?;
        pairs.extend(more);
    }
    Ok(pairs)
}

/// The first value of that name.
pub fn find<'a>(pairs: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(name, _)| name == wanted);
    found.map(|(_, value)| value.as_str())
}

/// Unix seconds with a fraction, or RFC 3339.
///
/// # Errors
///
/// Text that is neither.
pub fn time(
    pairs: &[(String, String)],
    name: &str,
    default: TimestampMs,
) -> Result<TimestampMs, Refusal> {
    let Some(text) = find(pairs, name) else {
        return Ok(default);
    };
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "beyond the range of i64 the ends of the time line are meant"
        )]
        return Ok(TimestampMs((seconds * 1_000.0).round() as i64));
    }
    let parsed = DateTime::parse_from_rfc3339(text);
    parsed
        .map(|time| TimestampMs(time.timestamp_millis()))
        .map_err(|_| {
            Refusal::bad_data(format!(
                "invalid parameter {name:?}: cannot parse {text:?} to a valid timestamp"
            ))
        })
}

async fn delete_series(
    State(admin): State<Shared>,
    scope: ReadScope,
    request: Request,
) -> Result<Response, Refusal> {
    admin.check(request.method())?;
    let delete = admin.delete(&scope, &pairs(request).await?)?;
    let id = delete.id;
    let delete = DeleteEntry::Delete(delete);
    let position = admin.submit(&scope.tenant, delete).await?;
    Ok(done(Some(id), Some(&position)))
}

async fn undelete(
    State(admin): State<Shared>,
    scope: ReadScope,
    request: Request,
) -> Result<Response, Refusal> {
    admin.check(request.method())?;
    let pairs = pairs(request).await?;
    let id = find(&pairs, "id").and_then(|text| text.parse::<DeleteId>().ok());
    let id = id.ok_or_else(|| Refusal::bad_data("id must be that of a delete, 32 hex digits"))?;
    let known = admin.store.deletes(&scope.tenant);
    let delete = known
        .iter()
        .find(|d| d.id() == id)
        .ok_or_else(|| Refusal::not_found(format!("no delete {id}")))?;
    let now = admin.clock.now();
    if now > delete.delete.undo_until {
        return Err(Refusal::bad_data(format!(
            "delete {id} could be revoked until {}, and it is {now} (ms since the epoch)",
            delete.delete.undo_until
        )));
    }
    let entry = DeleteEntry::Revoke {
        id,
        requested_at: now,
    };
    let position = admin.submit(&scope.tenant, entry).await?;
    Ok(done(Some(id), Some(&position)))
}

async fn clean_tombstones(
    State(admin): State<Shared>,
    request: Request,
) -> Result<Response, Refusal> {
    admin.check(request.method())?;
    let store = admin.store.clone();
    let cleaned = blocking(move || store.clean_tombstones()).await?;
    cleaned.map_err(|error| Refusal::internal(&error))?;
    Ok(done(None, None))
}

async fn confirm_clock(State(admin): State<Shared>, request: Request) -> Result<Response, Refusal> {
    admin.check(request.method())?;
    admin.store.confirm_clock();
    Ok(done(None, None))
}

/// Lets go at once what waits for the bound of an hour.
async fn run_retention(State(admin): State<Shared>, request: Request) -> Result<Response, Refusal> {
    admin.check(request.method())?;
    let store = admin.store.clone();
    let done_all = blocking(move || store.retain()).await?;
    done_all.map_err(|error| Refusal::internal(&error))?;
    Ok(done(None, None))
}

fn done(id: Option<DeleteId>, position: Option<&Position>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let texts = [
        (DELETE_ID, id.map(|id| id.to_string())),
        (POSITION, position.map(ToString::to_string)),
    ];
    for (name, text) in texts {
        if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn deletes(State(admin): State<Shared>, scope: ReadScope) -> Result<Response, Refusal> {
    admin.check(&Method::POST)?;
    let deletes = admin.store.deletes(&scope.tenant);
    let shown: Vec<Value> = deletes.iter().map(|d| show_delete(d)).collect();
    Ok(Json(json!({"status": "success", "data": shown})).into_response())
}

fn show_delete(tombstone: &Tombstone) -> Value {
    let delete = &tombstone.delete;
    let selectors = delete.selectors.iter().map(|matchers| {
        let texts: Vec<String> = matchers.iter().map(ToString::to_string).collect();
        format!("{{{}}}", texts.join(","))
    });
    json!({
        "id": delete.id.to_string(),
        "state": tombstone.state.as_str(),
        "match": selectors.collect::<Vec<_>>(),
        "start_ms": delete.range.start.0,
        "end_ms": delete.range.end.0,
        "requested_at_ms": delete.requested_at.0,
        "undo_until_ms": delete.undo_until.0,
    })
}

async fn retention(State(admin): State<Shared>) -> Result<Response, Refusal> {
    admin.check(&Method::POST)?;
    let store = admin.store.clone();
    let report = blocking(move || store.retention_dry_run()).await?;
    let report = report.map_err(|error| Refusal::internal(&error))?;
    let items: Vec<Value> = report.items.iter().map(show_item).collect();
    Ok(Json(json!({
        "status": "success",
        "data": {
            "now_ms": report.now.map(|now| now.0),
            "clock_frozen": report.clock_frozen,
            "bytes": report.items.iter().map(|i| i.bytes).sum::<u64>(),
            "samples": report.items.iter().map(|i| i.samples).sum::<u64>(),
            "items": items,
        },
    }))
    .into_response())
}

fn show_item(item: &RetentionItem) -> Value {
    json!({
        "partition": item.partition.0,
        "block": item.block.to_string(),
        "start_ms": item.range.0.0,
        "end_ms": item.range.1.0,
        "series": item.series,
        "samples": item.samples,
        "bytes": item.bytes,
        "what": item.what.as_str(),
        "reason": item.reason.as_str(),
    })
}
