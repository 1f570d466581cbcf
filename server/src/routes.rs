//! All routes of the process, and what answers while it starts.

use std::any::Any;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::Full;
use millrace_query::api::BuildInfo;
use prometheus::{Encoder as _, IntCounter, TextEncoder};
use serde_json::json;
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::error;

use crate::app::{App, Stage};
use crate::config::kind::Roles;
use crate::edge::{self, Gate, Known, Watched};
use crate::pipeline;
use crate::queue::durability;
use crate::reload;
use crate::wal_replay::Progress;

/// Seconds after which a client should ask again while the server starts or stops.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

/// Answers while the server starts too: that is what it is for.
const WAL_REPLAY: &str = "/api/v1/status/walreplay";

/// The router of the whole process; without `watched` nobody can reload by it.
pub fn router(app: &Arc<App>, gate: Gate, watched: Option<Arc<Watched>>) -> Router {
    let reload = move |State(app): State<Arc<App>>| reload::over_http(app, watched);
    let routes = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready))
        .route("/-/reload", post(reload.clone()).put(reload))
        .route("/-/quit", post(no_lifecycle).put(no_lifecycle))
        .route("/version", get(version))
        .route("/api/v1/status/pipeline", get(pipeline::status))
        .route("/api/v1/status/durability", get(durability))
        .fallback(to_parts)
        .route_layer(axum::middleware::from_fn(edge::same_route))
        .with_state(app.clone());
    guarded(edge::in_front(app, gate, routes), app.http.panics.clone())
}

/// What holds for every answer.
fn guarded(routes: Router, panics: IntCounter) -> Router {
    routes
        .layer(CatchPanicLayer::custom(move |panic| {
            panics.inc();
            after_panic(panic)
        }))
        .layer(axum::middleware::map_response(no_sniffing))
}

/// Every answer says what it is; no browser shall guess otherwise.
async fn no_sniffing(mut response: Response) -> Response {
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Push and query go to the opened parts; until there are such, clients are asked to come again.
async fn to_parts(State(app): State<Arc<App>>, request: Request) -> Response {
    let parts = match app.stage().0 {
        // Whoever was told "stored" by the last process must not be shown less by this one.
        Stage::OpeningQueue | Stage::RecoveringStore | Stage::CatchingUp => None,
        Stage::Ready | Stage::Hindered | Stage::Failed | Stage::Stopping => app.parts(),
    };
    match parts {
        Some(parts) => match parts.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(infallible) => match infallible {},
        },
        None if request.uri().path() == WAL_REPLAY => Progress::of(&app.registry).answer(),
        None => not_open_yet(&app),
    }
}

/// For what needs the opened parts.
pub fn not_open_yet(app: &App) -> Response {
    let (stage, detail) = app.stage();
    unavailable(&format!("the server is {}", with_detail(stage, &detail)))
}

/// For paths that nobody serves, or not in these roles.
pub fn unknown_path(roles: Roles, uri: &Uri) -> Response {
    let elsewhere = if roles == Roles::ALL {
        String::new()
    } else {
        format!("; this process runs only {}", roles.names().join(", "))
    };
    edge::prometheus(
        StatusCode::NOT_FOUND,
        "not_found",
        &format!(
            "no such path: {}; / lists what there is{elsewhere}",
            uri.path()
        ),
    )
}

/// For what a process without a queue cannot tell.
pub fn no_queue() -> Response {
    edge::prometheus(
        StatusCode::NOT_FOUND,
        "not_found",
        "this process runs only query and has no queue; ask one with ingest or store",
    )
}

fn unavailable(reason: &str) -> Response {
    let mut response = edge::prometheus(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
    response
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a panic's payload comes in its box"
)]
fn after_panic(panic: Box<dyn Any + Send>) -> http::Response<Full<Bytes>> {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("not a text");
    error!(panic = text, "a request's handler panicked: this is a bug");
    let body = json!({
        "status": "error",
        "errorType": "internal",
        "error": "internal error: this is a bug, and the server's log says more",
    });
    let mut response = http::Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// In Prometheus's words. The process is ended by SIGTERM.
async fn no_lifecycle() -> (StatusCode, &'static str) {
    (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.")
}

/// What is also in `status/buildinfo`, bare, as in Prometheus.
async fn version() -> Response {
    let build = BuildInfo::default();
    let body = json!({
        "version": build.api_version,
        "revision": build.revision,
        "branch": build.branch,
        "buildUser": "",
        "buildDate": build.build_date,
        "goVersion": "",
        "application": "millrace",
        "applicationVersion": build.version,
    });
    axum::Json(body).into_response()
}

async fn healthy() -> &'static str {
    "millrace is healthy.\n"
}

fn with_detail(stage: Stage, detail: &str) -> String {
    if detail.is_empty() {
        stage.to_string()
    } else {
        format!("{stage}: {detail}")
    }
}

async fn ready(State(app): State<Arc<App>>, Extension(known): Extension<Known>) -> Response {
    let (stage, mut detail) = app.stage();
    let Known(known) = known;
    if stage == Stage::RecoveringStore {
        let Progress { all, done } = Progress::of(&app.registry);
        detail = format!("{done} of {all} records of the write-ahead log read");
    }
    let text = match known {
        true => format!("millrace is {}", with_detail(stage, &detail)),
        false => format!("millrace is {stage}"),
    };
    let since = match known {
        true => format!("; for {} s so far", app.in_stage_for().as_secs()),
        false => String::new(),
    };
    match stage {
        Stage::Ready => format!("{text}.\n").into_response(),
        Stage::OpeningQueue
        | Stage::RecoveringStore
        | Stage::CatchingUp
        | Stage::Hindered
        | Stage::Failed
        | Stage::Stopping => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, RETRY_AFTER_SECONDS)],
            format!("{text}{since}.\n"),
        )
            .into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&app.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type())], text).into_response(),
        Err(error) => edge::prometheus(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            &format!("the metrics cannot be written: {error}"),
        ),
    }
}

async fn index(Extension(Known(known)): Extension<Known>) -> String {
    let version = match known {
        true => concat!(" ", env!("CARGO_PKG_VERSION")),
        false => "",
    };
    format!("millrace{version}\n{INDEX}")
}

const INDEX: &str = "
Push
  POST /api/v1/push            JSON or NDJSON of devices
  POST /api/v1/write           Prometheus remote write 1.0 and 2.0
  POST /v1/metrics             OpenTelemetry (OTLP/HTTP), protobuf and JSON
  POST /api/v1/import/prometheus  text exposition format, OpenMetrics
  PUT|POST /metrics/job/<job>  the same, as a Pushgateway takes it
  POST /api/v1/import, /api/v1/import/csv  JSON lines and CSV, as VictoriaMetrics takes them
  POST /write, /api/v2/write   Influx line protocol

Query (the Prometheus HTTP API; Grafana: a Prometheus data source with this server's URL)
  GET|POST /api/v1/query, /api/v1/query_range
  GET|POST /api/v1/series, /api/v1/labels
  GET      /api/v1/label/<name>/values, /api/v1/metadata
  POST     /api/v1/read        remote read
  GET      /federate           newest samples, for a Prometheus to scrape

Scraping (with scrape.config_file: docs/scraping.md)
  GET /api/v1/targets          what is scraped, what is dropped, why a scrape failed

Status
  GET /-/healthy               the process lives
  GET /-/ready                 it takes and answers requests; before, how far it is
  GET /metrics                 figures for Prometheus
  GET /api/v1/status/pipeline  queue and store by partition: written, applied, lag
  GET /api/v1/status/limits    what a tenant uses of its limits, and its worst metrics and labels
  GET /api/v1/status/durability  what an acknowledged push survives, and what that is made of

Admin (with server.admin_api=true)
  POST /api/v1/admin/tsdb/delete_series  and what belongs to it: docs/storage.md
  GET  /api/v1/dlq             records that could not be applied; POST /api/v1/dlq/requeue, /api/v1/dlq/purge
  POST /-/reload               reads tokens, certificates, scrape.config_file and ingest.relabel_file again
  POST /api/v1/queue/replay    restores what the store lacks of records; driven by `millrace replay --live`
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::{AdminPlace, EdgeMetrics};
    use crate::http::HttpMetrics;
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use millrace_auth::TokenBook;
    use millrace_log::SystemClock;
    use millrace_log::fs::OsFs;
    use prometheus::Registry;

    fn in_the_open(app: &Arc<App>) -> Router {
        with_tokens(app, None)
    }

    fn with_tokens(app: &Arc<App>, book: Option<Arc<TokenBook>>) -> Router {
        let gate = Gate {
            book,
            trust_tenant_header: false,
            admin: AdminPlace::Main,
            audit: None,
            metrics: EdgeMetrics::new(&Registry::new()).unwrap(),
        };
        let metrics = gate.metrics.clone();
        let watched = Watched::new(None, None, crate::edge::StoreEdge::default(), metrics);
        router(app, gate, Some(Arc::new(watched)))
    }

    fn app() -> Arc<App> {
        let registry = Registry::new();
        let http = HttpMetrics::new(&registry).unwrap();
        Arc::new(App::new(registry, http, Arc::new(SystemClock)))
    }

    async fn ask(router: Router, method: &str, path: &str) -> (StatusCode, bool, String) {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let status = response.status();
        let retry = response.headers().contains_key(header::RETRY_AFTER);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, retry, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn until_it_is_ready_clients_are_asked_to_come_again_and_told_how_far_it_is() {
        let app = app();
        for (stage, text) in [
            (Stage::OpeningQueue, "opening the queue"),
            (Stage::RecoveringStore, "recovering the store"),
            (
                Stage::CatchingUp,
                "catching up with the queue: 7 records behind",
            ),
        ] {
            let detail = if stage == Stage::CatchingUp {
                "7 records behind"
            } else {
                ""
            };
            app.enter(stage, detail);
            for (method, path) in [
                ("GET", "/-/ready"),
                ("GET", "/api/v1/query"),
                ("POST", "/api/v1/push"),
                ("POST", "/write"),
                ("POST", "/-/reload"),
            ] {
                let (status, retry, body) = ask(in_the_open(&app), method, path).await;
                assert_eq!(
                    (status, retry),
                    (StatusCode::SERVICE_UNAVAILABLE, true),
                    "{path}"
                );
                assert!(body.contains(text), "{path}: {body}");
            }
            let (status, _, body) = ask(in_the_open(&app), "GET", WAL_REPLAY).await;
            assert_eq!(status, StatusCode::OK);
            assert!(body.contains("\"current\":0"), "{body}");
            let (status, _, body) = ask(in_the_open(&app), "GET", "/api/v1/status/pipeline").await;
            assert_eq!(status, StatusCode::OK);
            assert!(body.contains("\"partitions\":[]"), "{body}");
            assert_eq!(
                ask(in_the_open(&app), "GET", "/-/healthy").await.0,
                StatusCode::OK
            );
        }
        app.enter(Stage::Ready, "");
        assert_eq!(
            ask(in_the_open(&app), "GET", "/-/ready").await.0,
            StatusCode::OK
        );
        app.enter(Stage::Stopping, "");
        let (status, _, body) = ask(in_the_open(&app), "GET", "/-/ready").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("stopping"), "{body}");
        let (status, _, body) = ask(in_the_open(&app), "POST", "/metrics").await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{body}");
    }

    #[tokio::test]
    async fn strangers_learn_one_word_where_tokens_are_asked_for() {
        let app = app();
        let dir = tempfile::tempdir().unwrap();
        let book = TokenBook::open(Arc::new(OsFs), dir.path().join("tokens.json")).unwrap();
        let book = Arc::new(book);
        app.enter(Stage::CatchingUp, "7 records behind");
        let guarded = |path| ask(with_tokens(&app, Some(book.clone())), "GET", path);
        let (status, retry, body) = guarded("/-/ready").await;
        assert_eq!((status, retry), (StatusCode::SERVICE_UNAVAILABLE, true));
        assert_eq!(body, "millrace is catching up with the queue.\n");
        let version = env!("CARGO_PKG_VERSION");
        assert!(!guarded("/").await.2.contains(version));
        assert!(ask(in_the_open(&app), "GET", "/").await.2.contains(version));
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_is_counted() {
        let app = app();
        async fn bug() -> &'static str {
            panic!("a bug in a handler")
        }
        let routes = guarded(
            Router::new().route("/bug", get(bug)),
            app.http.panics.clone(),
        );
        let (status, _, body) = ask(routes, "GET", "/bug").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body.contains("\"errorType\":\"internal\""), "{body}");
        assert_eq!(app.http.panics.get(), 1);
    }
}
