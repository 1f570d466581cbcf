//! The Prometheus HTTP API, so that Grafana's own Prometheus data source and every other client of
//! that API works unchanged. `docs/query-api.md` is its page.
//!
//! ```text
//! request ── form ── Read-After ── handler ── pool thread: evaluate, first pieces ── response
//!                                                   └─ later pieces when the client has read
//! ```
//!
//! **Invariants**
//! - Nothing here evaluates, reads storage or waits for freshness on a thread of the runtime: all
//!   of that runs on the threads of a pool, whose size and waiting room are bounded.
//! - No answer is ever one string in memory: it is written in pieces of about 64 KiB, and a piece
//!   is made only once the client has taken the one before. A slow reader holds its own answer,
//!   never a thread, and one that stops reading not even that for long.
//! - An answer is never silently shorter: what cannot be read is an error, what `limit` cut off is
//!   a warning.
//! - Whose data a request sees, and which of it, is decided in front of the API and comes as a
//!   [`ReadScope`]; what it is bound to goes with every read in its [`ReadPoint`].

mod answer;
mod body;
mod companions;
mod cors;
mod error;
mod explain;
mod expression;
mod federate;
mod freshness;
mod json;
mod labels;
mod latest;
mod metrics;
mod numbers;
mod options;
mod params;
mod pool;
mod query;
mod read;
mod rules;
mod running;
mod selector;
mod status;
mod targets;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use millrace_model::{Clock, Matcher, TimestampMs};

use crate::{
    CancelFlag, Engine, QueryError, QueryOutcome, QueryRequest, QueryWatch, ReadPoint, ReadScope,
    ScopedSource, SeriesSource,
};

pub use companions::{
    ActiveTarget, Alert, Alerting, BlockFacts, Cardinality, Companions, Count, DroppedTarget,
    Health, Rule, RuleGroup, Rules, ServerInfo, Statistics, Targets,
};
pub use cors::CorsOrigin;
pub use freshness::{AlwaysFresh, Freshness, FreshnessError};
pub use json::{labels as write_labels, value as write_value};
pub use metrics::ApiMetrics;
pub use options::{ApiOptions, BuildInfo};

use answer::Answer;
use error::ApiError;
use pool::Pool;
use running::Queries;

/// A request with this header is answered only once everything up to the position in it can be
/// seen; an ingest answer's `Millrace-Position` is such a position.
pub const READ_AFTER: HeaderName = HeaderName::from_static("millrace-read-after");

/// How fresh an answer is: a position up to which everything was there to be seen.
pub const AS_OF: HeaderName = HeaderName::from_static("millrace-as-of");

/// A request with this header and the value `raw` is answered from samples alone: nothing stands for them, even
/// where the answer is the same. Without it, or with `any`, the server chooses.
pub const SOURCE: HeaderName = HeaderName::from_static("x-millrace-source");

/// What answers queries. The engine does; a cache or a distributor in front of it would.
pub trait Evaluate: Send + Sync + fmt::Debug {
    /// Evaluates one query under the eyes of `watch`. Blocks; called on the threads of the API's
    /// pool.
    ///
    /// # Errors
    ///
    /// See [`QueryError`].
    fn query(&self, request: &QueryRequest, watch: &QueryWatch)
    -> Result<QueryOutcome, QueryError>;

    /// Reads and checks an expression without evaluating it, within the bounds on length, tokens
    /// and depth.
    ///
    /// # Errors
    ///
    /// [`QueryError::BadData`] with the position of what is wrong.
    fn check(&self, text: &str) -> Result<(), QueryError>;

    /// An expression in the layout of `format_query`.
    ///
    /// # Errors
    ///
    /// [`QueryError::BadData`] with the position of what is wrong.
    fn format(&self, text: &str) -> Result<String, QueryError>;

    /// An expression as the tree of `parse_query`.
    ///
    /// # Errors
    ///
    /// [`QueryError::BadData`] with the position of what is wrong.
    fn describe(&self, text: &str) -> Result<serde_json::Value, QueryError>;

    /// Reads a series selector: a name, label tests in braces, or both; nothing else. One that
    /// every series passes may be refused here; the API does not take it.
    ///
    /// # Errors
    ///
    /// [`QueryError::BadData`] with the position of what is wrong.
    fn selector(&self, text: &str) -> Result<Vec<Matcher>, QueryError>;
}

impl Evaluate for Engine {
    fn query(
        &self,
        request: &QueryRequest,
        watch: &QueryWatch,
    ) -> Result<QueryOutcome, QueryError> {
        self.query_watched(request, watch)
    }

    fn check(&self, text: &str) -> Result<(), QueryError> {
        Self::check(self, text)
    }

    fn format(&self, text: &str) -> Result<String, QueryError> {
        Self::format(self, text)
    }

    fn describe(&self, text: &str) -> Result<serde_json::Value, QueryError> {
        Self::describe(self, text)
    }

    fn selector(&self, text: &str) -> Result<Vec<Matcher>, QueryError> {
        self.parse_selector(text)
    }
}

/// What the API is made of.
#[derive(Clone, Debug)]
pub struct Api {
    /// Answers expressions.
    pub engine: Arc<dyn Evaluate>,
    /// Answers questions about series, labels and metadata.
    pub source: Arc<dyn SeriesSource>,
    /// "Now", for queries that name no time.
    pub clock: Arc<dyn Clock>,
    /// Knows how far the data are applied.
    pub freshness: Arc<dyn Freshness>,
    /// What else the server has to tell.
    pub companions: Companions,
    /// Bounds.
    pub options: ApiOptions,
    /// Counts.
    pub metrics: ApiMetrics,
}

/// What every handler shares.
#[derive(Debug)]
struct App {
    api: Api,
    started: TimestampMs,
    running: Queries,
    queries: Pool,
    waiters: Pool,
}

/// Bytes of stack of a query thread. Expressions nest up to the engine's bound on depth, and
/// evaluation recurses with them.
const QUERY_STACK_BYTES: usize = 8 << 20;
/// A thread that waits for freshness calls nothing deep.
const WAITER_STACK_BYTES: usize = 256 << 10;

/// The routes under `/api/v1` that read, and `/federate`. They can be merged with others under the same prefix;
/// what nobody else serves there is answered with 404 in the API's own error shape.
///
/// # Panics
///
/// If the system refuses the threads of the pools.
pub fn router(mut api: Api) -> Router {
    api.source = Arc::new(ScopedSource::new(api.source));
    let options = &api.options;
    let queries = Pool::start(
        "query",
        options.max_running,
        options.max_waiting,
        options.max_wait,
        QUERY_STACK_BYTES,
        options.nice,
        Some(api.metrics.clone()),
    );
    let waiters = Pool::start(
        "read-after",
        options.read_after_waiters,
        options.max_waiting,
        options.read_after_timeout,
        WAITER_STACK_BYTES,
        0,
        None,
    );
    let app = Arc::new(App {
        started: api.clock.now(),
        running: Queries::default(),
        queries,
        waiters,
        api,
    });
    Router::new()
        .route("/api/v1/query", get(query::instant).post(query::instant))
        .route("/api/v1/query_range", get(query::range).post(query::range))
        .route(
            "/api/v1/query_exemplars",
            get(expression::exemplars).post(expression::exemplars),
        )
        .route(
            "/api/v1/format_query",
            get(expression::format).post(expression::format),
        )
        .route(
            "/api/v1/parse_query",
            get(expression::parse).post(expression::parse),
        )
        .route("/api/v1/series", get(labels::series).post(labels::series))
        .route("/api/v1/labels", get(labels::names).post(labels::names))
        .route("/api/v1/label/{name}/values", get(labels::values))
        .route("/api/v1/metadata", get(labels::metadata))
        .route("/federate", get(federate::federate))
        .route("/api/v1/latest", get(latest::latest).post(latest::latest))
        .route("/api/v1/read", post(read::read))
        .route("/api/v1/rules", get(rules::rules))
        .route("/api/v1/alerts", get(rules::alerts))
        .route("/api/v1/alertmanagers", get(rules::alertmanagers))
        .route("/api/v1/targets", get(targets::targets))
        .route("/api/v1/targets/metadata", get(targets::metadata))
        .route("/api/v1/targets/relabel_steps", get(targets::relabel_steps))
        .route("/api/v1/scrape_pools", get(targets::scrape_pools))
        .route("/api/v1/scrape_pools/config", get(targets::pool_config))
        .route("/api/v1/status/buildinfo", get(status::build_info))
        .route("/api/v1/status/runtimeinfo", get(status::runtime_info))
        .route("/api/v1/status/flags", get(status::flags))
        .route("/api/v1/status/config", get(status::config))
        .route("/api/v1/status/tsdb", get(status::tsdb))
        .route("/api/v1/status/tsdb/blocks", get(status::tsdb_blocks))
        .route("/api/v1/status/walreplay", get(status::wal_replay))
        .route("/api/v1/status/self_metrics", get(status::self_metrics))
        .route("/api/v1/notifications", get(status::notifications))
        .route(
            "/api/v1/notifications/live",
            get(status::notifications_live),
        )
        .route("/api/v1/status/queries", get(running::list))
        .route("/api/v1/status/queries/slow", get(running::slow))
        .route("/api/v1/status/queries/{id}", delete(running::cancel))
        .route(
            "/api/v1/status/queries/{id}/cancel",
            post(running::cancel).delete(running::cancel),
        )
        .route("/api/v1/{*path}", any(unknown_path))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::not_found(format!("no such path: {}", uri.path()))
}

async fn wrong_method(method: http::Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(format!("{} does not take {method}", uri.path()))
}

/// Around every request: counts it, waits for the position that it wants to read after, and says
/// how fresh the answer is.
async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let metrics = &app.api.metrics;
    let cors = app.api.options.cors_origin.as_ref();
    let origin = request.headers().get(http::header::ORIGIN).cloned();
    if request.method() == http::Method::OPTIONS {
        // A browser asks whether it may ask.
        let mut response = http::StatusCode::NO_CONTENT.into_response();
        cors::add(cors, origin.as_ref(), response.headers_mut());
        return response;
    }
    let endpoint = endpoint_of(request.extensions().get::<MatchedPath>());
    let _in_flight = metrics.enter();
    let start = app.api.clock.monotonic();
    // IMPORTANT: taken before anything is read, so that it never promises what the answer lacks.
    let ready = match check_source(request.headers()) {
        Ok(()) => app.wait_until_fresh(request.headers()).await,
        Err(error) => Err(error),
    };
    let (mut response, as_of) = match ready {
        Ok(()) => {
            let as_of = app.api.freshness.as_of();
            let scope = ReadScope::of(request.extensions());
            let point = Arc::new(read_point(request.headers()).bound_to(scope.matchers()));
            request.extensions_mut().insert(point.clone());
            let response = next.run(request).await;
            (response, app.api.freshness.included(&point).or(as_of))
        }
        Err(error) => (error.into_response(), app.api.freshness.as_of()),
    };
    let elapsed = app.api.clock.monotonic().saturating_sub(start);
    metrics.answered(&endpoint, response.status(), elapsed);
    if let Some(value) = as_of.and_then(|text| HeaderValue::try_from(text).ok()) {
        response.headers_mut().insert(AS_OF, value);
    }
    cors::add(cors, origin.as_ref(), response.headers_mut());
    response.headers_mut().insert(
        http::header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// What the reads of a request must include. The header was checked when it was waited for.
fn read_point(headers: &HeaderMap) -> ReadPoint {
    let position = headers
        .get(READ_AFTER)
        .and_then(|value| value.to_str().ok());
    let point = position.map_or_else(ReadPoint::default, ReadPoint::after);
    match headers.get(SOURCE) {
        Some(source) if source == "raw" => point.of_samples_alone(),
        Some(_) | None => point,
    }
}

fn check_source(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(SOURCE) {
        Some(source) if source != "raw" && source != "any" => Err(ApiError::bad_data(format!(
            "{SOURCE}: {:?} is neither \"raw\" nor \"any\"",
            String::from_utf8_lossy(source.as_bytes())
        ))),
        Some(_) | None => Ok(()),
    }
}

/// The route's pattern without the prefix: a bounded set of names for metrics.
fn endpoint_of(path: Option<&MatchedPath>) -> String {
    let path = path.map_or("", MatchedPath::as_str);
    match path.strip_prefix("/api/v1/").unwrap_or(path) {
        "{*path}" | "" => "unknown".to_owned(),
        name => name.to_owned(),
    }
}

impl App {
    /// Waits until the position in the request's [`READ_AFTER`] header can be seen.
    async fn wait_until_fresh(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(value) = headers.get(READ_AFTER) else {
            return Ok(());
        };
        let position = value
            .to_str()
            .map_err(|_| FreshnessError::Malformed {
                reason: "it is not ASCII text".to_owned(),
            })?
            .to_owned();
        // Ordinarily the store is there already, and no thread is needed to find out.
        match self.api.freshness.wait(&position, Duration::ZERO) {
            Err(FreshnessError::NotReached { .. }) => {}
            settled => return Ok(settled?),
        }
        let freshness = self.api.freshness.clone();
        let timeout = self.api.options.read_after_timeout;
        let result = self
            .waiters
            .run(move || freshness.wait(&position, timeout))
            .await?;
        Ok(result?)
    }

    /// Runs `work` on a query thread and sends the JSON that it answers, piece by piece. If the
    /// client leaves before, the flag that `work` is given is set.
    async fn answer<F>(&self, work: F) -> Result<Response, ApiError>
    where
        F: FnOnce(&CancelFlag, Duration) -> Result<Answer, ApiError> + Send + 'static,
    {
        let write = move |cancel: &CancelFlag, waited| {
            work(cancel, waited).map(|answer| Box::new(answer) as Box<dyn body::Write>)
        };
        self.stream(CancelFlag::default(), json::CONTENT_TYPE, write)
            .await
    }

    /// The same for any type of content, with a flag that others may set too.
    async fn stream<F>(
        &self,
        cancel: CancelFlag,
        content_type: HeaderValue,
        work: F,
    ) -> Result<Response, ApiError>
    where
        F: FnOnce(&CancelFlag, Duration) -> Result<Box<dyn body::Write>, ApiError> + Send + 'static,
    {
        let guard = CancelOnDrop {
            cancel: cancel.clone(),
            metrics: &self.api.metrics,
            armed: true,
        };
        let clock = self.api.clock.clone();
        let submitted = clock.monotonic();
        let result = self
            .queries
            .run(move || {
                let waited = clock.monotonic().saturating_sub(submitted);
                work(&cancel, waited).and_then(body::first_pieces)
            })
            .await;
        guard.disarm();
        let Api {
            options, metrics, ..
        } = &self.api;
        let pieces = result??;
        let mut response = body::respond(pieces, &self.queries, options.max_stall, metrics);
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, content_type);
        Ok(response)
    }
}

/// Tells a running query that its client has left: the handler's future is dropped then.
struct CancelOnDrop<'a> {
    cancel: CancelFlag,
    metrics: &'a ApiMetrics,
    armed: bool,
}

impl CancelOnDrop<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.cancel.cancel();
            self.metrics.cancelled();
        }
    }
}
