//! What the tests speak to the router with, and what stands behind it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use millrace_model::{ManualClock, Matcher, MetricMetadata, MetricType, TimestampMs};
use millrace_query::api::{self, Api, ApiMetrics, ApiOptions, Companions, Evaluate, Freshness};
use millrace_query::{
    Engine, EngineOptions, QueryError, QueryOutcome, QueryRequest, QueryStats, QueryTime,
    QueryValue, QueryWatch,
};
use parking_lot::{Condvar, Mutex};
use prometheus::Registry;
use tower::ServiceExt;

use crate::table::Table;

/// "Now" of every test, in ms.
pub const NOW: i64 = 1_435_781_451_781;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Asserts success and the whole text of `data`.
    #[track_caller]
    pub fn is_data(&self, data: &str) {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        let expect = format!(r#"{{"status":"success","data":{data}}}"#);
        assert_eq!(self.text, expect);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
    }

    /// Asserts an error, whole.
    #[track_caller]
    pub fn is_error(&self, status: u16, kind: &str, error: &str) {
        let expect = serde_json::json!({ "status": "error", "errorType": kind, "error": error });
        assert_eq!(self.json(), expect);
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
    }
}

/// Sends requests to a router.
pub struct Sender(pub Router);

impl Sender {
    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        Reply {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(text.to_vec()).unwrap(),
        }
    }
}

/// A router and what stands behind it.
pub struct Fixture {
    pub router: Router,
    pub engine: Arc<Canned>,
    pub registry: Registry,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(ApiOptions::default(), Arc::new(api::AlwaysFresh))
    }

    pub fn with(options: ApiOptions, freshness: Arc<dyn Freshness>) -> Self {
        Self::made(fleet(), options, freshness, Companions::default())
    }

    /// Over other series than those of the fleet.
    pub fn over(table: Table, options: ApiOptions) -> Self {
        let freshness = Arc::new(api::AlwaysFresh);
        Self::made(table, options, freshness, Companions::default())
    }

    /// Beside other parts of a server.
    pub fn beside(companions: Companions) -> Self {
        let freshness = Arc::new(api::AlwaysFresh);
        Self::made(fleet(), ApiOptions::default(), freshness, companions)
    }

    fn made(
        table: Table,
        options: ApiOptions,
        freshness: Arc<dyn Freshness>,
        companions: Companions,
    ) -> Self {
        let engine = Arc::new(Canned::new());
        let registry = Registry::new();
        let router = api::router(Api {
            engine: engine.clone(),
            source: Arc::new(table),
            clock: Arc::new(ManualClock::new(TimestampMs(NOW))),
            freshness,
            options,
            companions,
            metrics: ApiMetrics::new(&registry).unwrap(),
        });
        Self {
            router,
            engine,
            registry,
        }
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        Sender(self.router.clone()).send(request).await
    }

    /// `target` is a path under `/api/v1/`, with its query string.
    pub async fn get(&self, target: &str) -> Reply {
        self.send(request("GET", target, "")).await
    }

    pub async fn post(&self, target: &str, form: &str) -> Reply {
        self.send(request("POST", target, form)).await
    }

    /// The value of a counter or gauge with these labels; absent counts as 0.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let of_name = families.iter().filter(|family| family.name() == name);
        of_name
            .flat_map(|family| family.get_metric())
            .filter(|metric| {
                labels.iter().all(|(name, value)| {
                    let mut pairs = metric.get_label().iter();
                    pairs.any(|pair| pair.name() == *name && pair.value() == *value)
                })
            })
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

pub fn request(method: &str, target: &str, form: &str) -> Request<Body> {
    let mut builder = Request::builder()
        .method(method)
        .uri(format!("/api/v1/{target}"));
    if !form.is_empty() {
        builder = builder.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    builder.body(Body::from(form.to_owned())).unwrap()
}

/// Three pumps and what is known of their metrics.
fn fleet() -> Table {
    let mut table = Table::default()
        .with(
            &[
                ("__name__", "temperature"),
                ("device", "pump-1"),
                ("site", "north"),
            ],
            &[(1_000, 20.0), (2_000, 20.5)],
        )
        .with(
            &[
                ("__name__", "temperature"),
                ("device", "pump-2"),
                ("site", "south"),
            ],
            &[(5_000, 21.0)],
        )
        .with(
            &[
                ("__name__", "flow_total"),
                ("device", "pump-1"),
                ("http.code", "200"),
            ],
            &[(1_000, 0.0)],
        );
    let entry = |metric: &str, metric_type, help: &str| MetricMetadata {
        metric: metric.to_owned(),
        metric_type,
        help: help.to_owned(),
        unit: String::new(),
    };
    table.metadata = vec![
        entry("temperature", MetricType::Gauge, "Of the \"bearing\"."),
        entry("flow_total", MetricType::Counter, "Litres."),
        entry("flow_total", MetricType::Unknown, "Litres, said another."),
    ];
    table
}

/// An evaluator whose answers are given beforehand.
#[derive(Debug)]
pub struct Canned {
    /// Reads expressions.
    reader: Engine,
    answers: Mutex<HashMap<String, Result<QueryOutcome, QueryError>>>,
    /// What was asked.
    pub seen: Mutex<Vec<QueryRequest>>,
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Gate {
    open: bool,
    inside: usize,
    cancelled: usize,
}

/// The expression whose evaluation waits for [`Canned::open_gate`] or to be cancelled.
pub const SLOW: &str = "slow";
/// The expression whose evaluation panics.
pub const PANIC: &str = "panic";

impl Canned {
    fn new() -> Self {
        let options = EngineOptions {
            threads: 1,
            ..EngineOptions::default()
        };
        Self {
            reader: Engine::new(Arc::new(Table::default()), options),
            answers: Mutex::default(),
            seen: Mutex::default(),
            gate: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    pub fn answer(&self, text: &str, answer: Result<QueryOutcome, QueryError>) {
        self.answers.lock().insert(text.to_owned(), answer);
    }

    pub fn value(&self, text: &str, value: QueryValue) {
        self.answer(text, Ok(outcome(value)));
    }

    pub fn open_gate(&self) {
        self.gate.lock().open = true;
        self.moved.notify_all();
    }

    /// Blocks until so many evaluations of [`SLOW`] have begun.
    pub fn wait_inside(&self, count: usize) {
        let mut gate = self.gate.lock();
        while gate.inside < count {
            self.moved.wait(&mut gate);
        }
    }

    /// Blocks until so many evaluations of [`SLOW`] were cancelled.
    pub fn wait_cancelled(&self, count: usize) {
        let mut gate = self.gate.lock();
        while gate.cancelled < count {
            self.moved.wait(&mut gate);
        }
    }

    fn slow(&self, request: &QueryRequest) -> Result<QueryOutcome, QueryError> {
        let mut gate = self.gate.lock();
        gate.inside += 1;
        self.moved.notify_all();
        while !gate.open {
            if request.cancel.is_cancelled() {
                gate.cancelled += 1;
                self.moved.notify_all();
                return Err(QueryError::Canceled("query was canceled".to_owned()));
            }
            // A flag cannot wake anybody, so it is looked at again and again.
            self.moved.wait_for(&mut gate, Duration::from_millis(1));
        }
        Ok(outcome(QueryValue::Vector(Vec::new())))
    }
}

impl Evaluate for Canned {
    fn query(&self, request: &QueryRequest, _: &QueryWatch) -> Result<QueryOutcome, QueryError> {
        self.seen.lock().push(request.clone());
        match request.text.as_str() {
            SLOW => return self.slow(request),
            PANIC => panic!("as asked"),
            _ => {}
        }
        if let Some(answer) = self.answers.lock().get(&request.text) {
            return answer.clone();
        }
        self.check(&request.text)?;
        let timestamp = match request.time {
            QueryTime::Instant(time) => time,
            QueryTime::Range { end, .. } => end,
        };
        Ok(outcome(QueryValue::Scalar {
            timestamp,
            value: 2.0,
        }))
    }

    fn check(&self, text: &str) -> Result<(), QueryError> {
        self.reader.check(text)
    }

    fn format(&self, text: &str) -> Result<String, QueryError> {
        self.reader.format(text)
    }

    fn describe(&self, text: &str) -> Result<serde_json::Value, QueryError> {
        self.reader.describe(text)
    }

    fn selector(&self, text: &str) -> Result<Vec<Matcher>, QueryError> {
        self.reader.parse_selector(text)
    }
}

pub fn outcome(value: QueryValue) -> QueryOutcome {
    QueryOutcome {
        value,
        warnings: Vec::new(),
        infos: Vec::new(),
        stats: QueryStats::default(),
    }
}
