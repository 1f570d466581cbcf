//! Which queries run, which took long, and how to stop one.
//!
//! **Invariants**
//! - A query is in the list from before it waits for a thread until its first bytes are ready, and
//!   leaves it however it ends.
//! - Who may see the same data sees and stops the same queries, and no others: their texts name labels.
//! - Both lists are bounded: the one by the pool, the other by
//!   [`ApiOptions::slow_entries`](super::ApiOptions::slow_entries); texts are cut.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use millrace_model::TimestampMs;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::App;
use super::error::ApiError;
use super::status::{rfc3339, success};
use crate::{CancelFlag, QueryTime, QueryWatch, ReadScope};

/// What is kept of an expression, in bytes.
const TEXT_BYTES: usize = 2 << 10;

/// Headers by which Grafana says for whom it asks.
const CLIENT_HEADERS: [&str; 3] = ["x-dashboard-uid", "x-panel-id", "x-grafana-user"];

/// What is kept of such a header, in bytes.
const HEADER_BYTES: usize = 128;

/// One query that is in hand.
#[derive(Debug)]
pub(super) struct Entry {
    id: u64,
    scope: ReadScope,
    endpoint: &'static str,
    text: String,
    time: QueryTime,
    client: Vec<(&'static str, String)>,
    started: TimestampMs,
    /// By the monotonic clock.
    submitted: Duration,
    pub(super) cancel: CancelFlag,
    pub(super) watch: Arc<QueryWatch>,
    begun: AtomicBool,
    stopped: AtomicBool,
    stop: Notify,
}

/// What a new entry is made of.
pub(super) struct Begin<'a> {
    pub(super) scope: &'a ReadScope,
    pub(super) endpoint: &'static str,
    pub(super) text: &'a str,
    pub(super) time: QueryTime,
    pub(super) headers: &'a HeaderMap,
    pub(super) watch: QueryWatch,
}

impl Entry {
    /// A thread has taken it.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Ready once somebody stops the query while it still waits for a thread. One that runs sees
    /// its flag by itself.
    pub(super) async fn stopped_waiting(&self) {
        loop {
            let stop = self.stop.notified();
            if self.stopped.load(Ordering::Relaxed) && !self.begun.load(Ordering::Relaxed) {
                return;
            }
            stop.await;
        }
    }

    fn describe(&self) -> Map<String, Value> {
        let (series, samples) = self.watch.read_so_far();
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
        put("id", json!(self.id.to_string()));
        put("query", json!(self.text));
        put("endpoint", json!(self.endpoint));
        match self.time {
            QueryTime::Instant(time) => put("time", rfc3339(time)),
            QueryTime::Range {
                start,
                end,
                step_ms,
            } => {
                put("start", rfc3339(start));
                put("end", rfc3339(end));
                put("stepSeconds", json!(step_ms as f64 / 1e3))
            }
        };
        put("started", rfc3339(self.started));
        put("series", json!(series));
        put("samplesRead", json!(samples));
        let client: Map<_, _> = self
            .client
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        put("client", Value::Object(client));
        out
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Queries {
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Arc<Entry>>>,
    /// Newest last.
    slow: Mutex<VecDeque<(ReadScope, Value)>>,
}

/// An entry that is in the list as long as this lives.
pub(super) struct Listed {
    app: Arc<App>,
    pub(super) entry: Arc<Entry>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.app.running.running.lock().remove(&self.entry.id);
        self.app.api.metrics.listed(-1);
    }
}

impl Listed {
    pub(super) fn new(app: &Arc<App>, begin: Begin<'_>) -> Self {
        let client = CLIENT_HEADERS.into_iter().filter_map(|name| {
            let value = begin.headers.get(name)?.to_str().ok()?;
            Some((name, cut(value, HEADER_BYTES)))
        });
        let entry = Arc::new(Entry {
            id: app.running.next.fetch_add(1, Ordering::Relaxed),
            scope: begin.scope.clone(),
            endpoint: begin.endpoint,
            text: cut(begin.text, TEXT_BYTES),
            time: begin.time,
            client: client.collect(),
            started: app.api.clock.now(),
            submitted: app.api.clock.monotonic(),
            cancel: CancelFlag::default(),
            watch: Arc::new(begin.watch),
            begun: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            stop: Notify::new(),
        });
        let mut running = app.running.running.lock();
        running.insert(entry.id, entry.clone());
        drop(running);
        app.api.metrics.listed(1);
        Self {
            app: app.clone(),
            entry,
        }
    }

    /// The answer is ready, or there is none: if it took long, that is put on record.
    pub(super) fn ended(self, outcome: Result<(), &ApiError>) {
        let Some(threshold) = self.app.api.options.slow_threshold else {
            return;
        };
        let entry = &self.entry;
        let took = self
            .app
            .api
            .clock
            .monotonic()
            .saturating_sub(entry.submitted);
        if took < threshold {
            return;
        }
        let (series, samples) = entry.watch.read_so_far();
        let error = outcome.err().map(ToString::to_string);
        let client = entry.client.as_slice();
        tracing::warn!(
            query = entry.text,
            tenant = %entry.scope.tenant,
            endpoint = entry.endpoint,
            seconds = took.as_secs_f64(),
            series,
            samples,
            ?client,
            error,
            "slow query"
        );
        self.app.api.metrics.slow();
        let mut shown = entry.describe();
        shown.insert("seconds".to_owned(), json!(took.as_secs_f64()));
        shown.insert("error".to_owned(), json!(error));
        let mut slow = self.app.running.slow.lock();
        while slow.len() >= self.app.api.options.slow_entries.max(1) {
            slow.pop_front();
        }
        slow.push_back((entry.scope.clone(), Value::Object(shown)));
    }
}

/// The beginning of a text, up to a whole character.
fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at));
    format!("{}…", &text[..end.unwrap_or(0)])
}

/// `GET status/queries`: those in hand, oldest first.
pub(super) async fn list(State(app): State<Arc<App>>, scope: ReadScope) -> Response {
    let now = app.api.clock.monotonic();
    let running = app.running.running.lock();
    let shown: Vec<_> = running
        .values()
        .filter(|entry| entry.scope == scope)
        .map(|entry| {
            let mut shown = entry.describe();
            let begun = entry.begun.load(Ordering::Relaxed);
            let state = if begun { "running" } else { "waiting" };
            shown.insert("state".to_owned(), json!(state));
            let seconds = now.saturating_sub(entry.submitted).as_secs_f64();
            shown.insert("seconds".to_owned(), json!(seconds));
            Value::Object(shown)
        })
        .collect();
    drop(running);
    success(&json!({ "queries": shown }))
}

/// `GET status/queries/slow`: newest first.
pub(super) async fn slow(State(app): State<Arc<App>>, scope: ReadScope) -> Response {
    let slow = app.running.slow.lock();
    let shown: Vec<_> = slow
        .iter()
        .rev()
        .filter(|(whose, _)| *whose == scope)
        .map(|(_, query)| query.clone())
        .collect();
    drop(slow);
    let threshold = app.api.options.slow_threshold.map(|t| t.as_secs_f64());
    success(&json!({ "thresholdSeconds": threshold, "queries": shown }))
}

/// `POST status/queries/{id}/cancel`, `DELETE status/queries/{id}`: asks the query to stop. Its own
/// client is answered 499.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    scope: ReadScope,
) -> Result<Response, ApiError> {
    let number = id.parse().ok();
    let running = app.running.running.lock();
    let entry = number
        .and_then(|id: u64| running.get(&id))
        .filter(|entry| entry.scope == scope)
        .cloned();
    drop(running);
    let entry = entry.ok_or_else(|| ApiError::not_found(format!("no query {id:?} is running")))?;
    entry.stopped.store(true, Ordering::Relaxed);
    entry.cancel.cancel();
    entry.stop.notify_waiters();
    app.api.metrics.stopped();
    Ok(success(&json!({ "id": id })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc…");
        assert_eq!(cut("aüb", 2), "a…");
    }
}
