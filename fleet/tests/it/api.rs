//! A hole in the fleet, as the clients of the Prometheus API see it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Request, StatusCode};
use millrace_fleet::{FleetFreshness, FleetSource, status_router};
use millrace_model::{ManualClock, Offset, PartitionId, TimestampMs};
use millrace_query::api::{Api, ApiMetrics, ApiOptions, Companions, router};
use millrace_query::{Engine, EngineOptions, Select, SeriesSource, SourceError, StoredSeries};
use millrace_queue::Position;
use prometheus::Registry;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::support::{Fault, Store, fleet, identity, options, runtime, table};

fn api(stores: &[&Store]) -> Router {
    let fleet = fleet(stores, options());
    let source = Arc::new(FleetSource::new(fleet.clone()));
    router(Api {
        engine: Arc::new(Engine::new(source.clone(), EngineOptions::default())),
        source,
        clock: Arc::new(ManualClock::new(TimestampMs(9_500))),
        freshness: Arc::new(FleetFreshness::new(fleet.clone())),
        companions: Companions::default(),
        options: ApiOptions::default(),
        metrics: ApiMetrics::new(&Registry::new()).unwrap(),
    })
    .merge(status_router(fleet))
}

fn get(api: &Router, path: &str, after: Option<&str>) -> (StatusCode, Option<String>, Value) {
    runtime().block_on(async {
        let mut request = Request::builder().uri(path);
        if let Some(position) = after {
            request = request.header("millrace-read-after", position);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = api.clone().oneshot(request).await.unwrap();
        let as_of = response.headers().get("millrace-as-of");
        let as_of = as_of.map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let value = serde_json::from_slice(&body);
        (status, as_of, value.unwrap_or_else(|_| panic!("{body:?}")))
    })
}

const PATHS: &[&str] = &[
    "/api/v1/query?query=count(m)",
    "/api/v1/query_range?query=m&start=0&end=9&step=1",
    "/api/v1/series?match[]=m",
    "/api/v1/labels?",
    "/api/v1/label/instance/values?",
    "/api/v1/metadata?",
];

#[test]
fn a_missing_shard_is_503_and_with_partial_response_a_warning() {
    let table = table(40, 10);
    let good = Store::start("good", &table, &[1, 3]);
    let bad = Store::start("bad", &table, &[0, 2]);
    let whole = api(&[&good, &bad]);
    for path in PATHS {
        let (status, _, body) = get(&whole, path, None);
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        assert!(body.get("warnings").is_none(), "{path}: {body}");
    }
    let (_, _, body) = get(&whole, PATHS[0], None);
    assert_eq!(body["data"]["result"][0]["value"][1], "40");
    for how in ["dead", "cut"] {
        match how {
            "dead" => bad.kill(),
            _ => drop(bad.fail(Fault::Cut(30))),
        }
        for path in PATHS {
            let (status, _, body) = get(&whole, path, None);
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {body}");
            assert_eq!(body["errorType"], "unavailable", "{path}");
            let text = body["error"].as_str().unwrap();
            assert!(
                text.contains("no store answers for partitions 0, 2")
                    && text.contains(&bad.address),
                "{path}: {text}"
            );
            let (status, _, body) = get(&whole, &format!("{path}&partial_response=true"), None);
            assert_eq!(status, StatusCode::OK, "{path}: {body}");
            let warning = body["warnings"][0].as_str().unwrap();
            assert!(warning.contains("partitions 0, 2"), "{path}: {warning}");
        }
        let (_, _, body) = get(&whole, &format!("{}&partial_response=true", PATHS[0]), None);
        let count: u32 = body["data"]["result"][0]["value"][1]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..40).contains(&count), "{count}");
    }
    let (_, _, body) = get(&whole, "/api/v1/status/fleet", None);
    let shards = body["data"]["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 4);
    assert_eq!(shards[0]["available"], false, "{body}");
    assert_eq!(shards[1]["available"], true, "{body}");
    let stores = body["data"]["stores"].as_array().unwrap();
    assert!(
        stores.iter().any(|store| store["reason"].is_string()),
        "{body}"
    );
}

#[test]
fn answers_say_how_fresh_they_are_and_are_never_older_than_asked() {
    let table = table(10, 10);
    let store = Store::start("a", &table, &[0, 1, 2, 3]);
    let api = api(&[&store]);
    let (status, as_of, _) = get(&api, PATHS[0], None);
    assert_eq!(status, StatusCode::OK);
    let as_of: Position = as_of.unwrap().parse().unwrap();
    assert_eq!(as_of.next.len(), 4);
    assert_eq!(as_of.next[&PartitionId(2)], Offset(100));

    let mut later = Position::new(identity().id);
    later.advance(PartitionId(2), Offset(130));
    let advance = std::thread::spawn({
        let shards = store.shards.clone();
        move || {
            std::thread::park_timeout(std::time::Duration::from_millis(200));
            shards.advance(2, 130);
        }
    });
    let (status, as_of, body) = get(&api, PATHS[0], Some(&later.to_string()));
    assert_eq!(status, StatusCode::OK, "{body}");
    let as_of: Position = as_of.unwrap().parse().unwrap();
    assert_eq!(as_of.next[&PartitionId(2)], Offset(130));
    advance.join().unwrap();
}

/// A table whose reader is told something.
#[derive(Debug)]
struct Told(crate::table::Table);

impl SeriesSource for Told {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        for shard in ["one", "two"] {
            request
                .context
                .warn(format!("samples of {shard} have expired"));
        }
        self.0.select(request)
    }
}

#[test]
fn what_a_store_warns_of_stands_in_the_answer() {
    let table = table(40, 10);
    let store = Store::start("a", &table, &[0, 1, 2, 3]);
    let api = api(&[&store]);
    let (_, _, plain) = get(&api, PATHS[0], None);
    *store.shards.source.lock() = Some(Arc::new(Told(table)));
    let (status, _, body) = get(&api, PATHS[0], None);
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["data"], plain["data"]);
    let told = serde_json::json!(["samples of one have expired", "samples of two have expired"]);
    assert_eq!(body["warnings"], told);
}
