//! `/api/v1/dlq`: the dead letters of a running process.
//!
//! Invariant: refused unless `server.admin_api` is set, as all of the admin endpoints; nothing is
//! changed by a GET.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use http::Method;
use millrace_model::{Clock, PartitionId, TimestampMs};
use millrace_queue::Origin;
use serde_json::{Value, json};

use super::{Action, Filter, Letters, Open, Outcome, act, head_json, letter_json};
use crate::admin::{Refusal, allow, blocking, find, pairs, time};
use crate::append::LazyProducer;

/// What the endpoints need.
#[derive(Debug)]
pub struct Endpoints {
    /// Whether they answer at all.
    pub enabled: bool,
    /// Where the letters are.
    pub letters: Arc<dyn Letters>,
    /// The way back into the queue.
    pub producer: Arc<LazyProducer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

type Shared = Arc<Endpoints>;

/// The routes.
pub fn router(endpoints: Endpoints) -> Router {
    Router::new()
        .route("/api/v1/dlq", get(list))
        .route("/api/v1/dlq/letter", get(letter))
        .route("/api/v1/dlq/requeue", any(requeue))
        .route("/api/v1/dlq/purge", any(purge))
        .with_state(Arc::new(endpoints))
}

fn filter(pairs: &[(String, String)]) -> Result<Filter, Refusal> {
    let bad = |what: &str| Refusal::bad_data(format!("invalid parameter {what:?}"));
    let partition = find(pairs, "partition").map(str::parse).transpose();
    let since = match find(pairs, "since") {
        Some(_) => Some(time(pairs, "since", TimestampMs(0))?),
        None => None,
    };
    let names = pairs.iter().filter(|(name, _)| name == "name");
    let names = names.map(|(_, name)| {
        let name: Result<Origin, _> = name.parse();
        name.map_err(|error| Refusal::bad_data(error.to_string()))
    });
    Ok(Filter {
        partition: partition.map_err(|_| bad("partition"))?.map(PartitionId),
        reason: find(pairs, "reason").map(str::to_owned),
        since,
        names: names.collect::<Result<_, _>>()?,
    })
}

fn success(data: &Value) -> Response {
    Json(json!({"status": "success", "data": data})).into_response()
}

async fn list(State(dlq): State<Shared>, request: Request) -> Result<Response, Refusal> {
    allow(dlq.enabled, &Method::POST)?;
    let filter = filter(&pairs(request).await?)?;
    let chosen = blocking(move || filter.choose(&*dlq.letters)).await?;
    let chosen = chosen.map_err(Refusal::unavailable)?;
    let letters: Vec<Value> = chosen.iter().map(head_json).collect();
    Ok(success(&json!({"letters": letters})))
}

async fn letter(State(dlq): State<Shared>, request: Request) -> Result<Response, Refusal> {
    allow(dlq.enabled, &Method::POST)?;
    let pairs = pairs(request).await?;
    let name = find(&pairs, "name").ok_or_else(|| Refusal::bad_data("no name is given"))?;
    let origin: Origin = name
        .parse()
        .map_err(|error| Refusal::bad_data(format!("{error}")))?;
    let found = blocking(move || dlq.letters.read(origin)).await?;
    let found = found.map_err(Refusal::unavailable)?;
    let found = found.ok_or_else(|| Refusal::not_found(format!("no dead letter {origin}")))?;
    Ok(success(&letter_json(&found)))
}

async fn requeue(dlq: State<Shared>, request: Request) -> Result<Response, Refusal> {
    change(dlq, request, Action::Requeue).await
}

async fn purge(dlq: State<Shared>, request: Request) -> Result<Response, Refusal> {
    change(dlq, request, Action::Purge).await
}

async fn change(
    State(dlq): State<Shared>,
    request: Request,
    action: Action,
) -> Result<Response, Refusal> {
    allow(dlq.enabled, request.method())?;
    let pairs = pairs(request).await?;
    let filter = filter(&pairs)?;
    if filter.is_empty() && find(&pairs, "all") != Some("true") {
        return Err(Refusal::bad_data(
            "say which letters: name, partition, reason, since, or all=true",
        ));
    }
    let dry_run = find(&pairs, "dry_run") == Some("true");
    let changed = blocking(move || run(&dlq, action, &filter, dry_run)).await?;
    let letters = changed.map_err(Refusal::unavailable)?;
    Ok(success(&json!({"letters": letters})))
}

fn run(
    dlq: &Endpoints,
    action: Action,
    filter: &Filter,
    dry_run: bool,
) -> Result<Vec<Value>, String> {
    let open = || dlq.producer.get().map_err(|error| error.to_string());
    let open: Option<Open<'_>> = if dry_run { None } else { Some(&open) };
    let mut done = Vec::new();
    for head in filter.choose(&*dlq.letters)? {
        let name = head.origin.to_string();
        let outcome = act(&*dlq.letters, action, head.origin, open, dlq.clock.now())?;
        done.push(match outcome {
            Outcome::Done => json!({"name": name, "done": !dry_run}),
            Outcome::Refused(reason) => json!({"name": name, "refused": reason}),
        });
    }
    Ok(done)
}
