//! The list of queries, stopping one, and the record of slow ones.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use millrace_query::api::{AlwaysFresh, ApiOptions};
use millrace_query::{QueryError, QueryValue};

use crate::client::{Fixture, Reply, SLOW, Sender, request};

fn fixture(options: ApiOptions) -> Arc<Fixture> {
    Arc::new(Fixture::with(options, Arc::new(AlwaysFresh)))
}

fn one_at_a_time() -> ApiOptions {
    ApiOptions {
        max_running: 1,
        ..ApiOptions::default()
    }
}

fn spawn(f: &Arc<Fixture>, target: &str) -> tokio::task::JoinHandle<Reply> {
    let (router, target) = (f.router.clone(), target.to_owned());
    let request = Request::get(format!("/api/v1/{target}"))
        .header("x-dashboard-uid", "fleet")
        .header("x-panel-id", "7")
        .body(Body::empty())
        .unwrap();
    tokio::spawn(async move { Sender(router).send(request).await })
}

async fn listed(f: &Fixture) -> Vec<serde_json::Value> {
    let json = f.get("status/queries").await.json();
    json["data"]["queries"].as_array().unwrap().clone()
}

/// Asks until so many queries are in the list.
async fn wait_listed(f: &Fixture, count: usize) -> Vec<serde_json::Value> {
    loop {
        let queries = listed(f).await;
        if queries.len() == count {
            return queries;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_query_is_listed_and_can_be_stopped() {
    let f = fixture(one_at_a_time());
    let running = spawn(
        &f,
        &format!("query_range?query={SLOW}&start=0&end=60&step=15"),
    );
    let engine = f.engine.clone();
    tokio::task::spawn_blocking(move || engine.wait_inside(1))
        .await
        .unwrap();
    let queries = listed(&f).await;
    let query = &queries[0];
    assert_eq!(queries.len(), 1);
    assert_eq!(query["query"], SLOW);
    assert_eq!(query["endpoint"], "query_range");
    assert_eq!(query["state"], "running");
    assert_eq!(query["end"], "1970-01-01T00:01:00.000Z");
    assert_eq!(query["stepSeconds"], 15.0);
    assert_eq!(query["client"]["x-panel-id"], "7");
    let id = query["id"].as_str().unwrap().to_owned();
    let stopped = f.post(&format!("status/queries/{id}/cancel"), "").await;
    assert_eq!(stopped.status, 200, "{}", stopped.text);
    let reply = running.await.unwrap();
    reply.is_error(499, "canceled", "query was canceled");
    assert!(wait_listed(&f, 0).await.is_empty());
    assert_eq!(f.metric("millrace_query_stopped_total", &[]), 1.0);
    assert_eq!(f.metric("millrace_query_running", &[]), 0.0);
    // It is gone, so it cannot be stopped again.
    let again = f
        .send(request("DELETE", &format!("status/queries/{id}"), ""))
        .await;
    again.is_error(404, "not_found", &format!("no query \"{id}\" is running"));
    assert_eq!(f.post("status/queries/x/cancel", "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_waits_for_its_turn_can_be_stopped_too() {
    let f = fixture(one_at_a_time());
    let first = spawn(&f, &format!("query?query={SLOW}"));
    let engine = f.engine.clone();
    tokio::task::spawn_blocking(move || engine.wait_inside(1))
        .await
        .unwrap();
    let second = spawn(&f, "query?query=up");
    let queries = wait_listed(&f, 2).await;
    let waiting = queries.iter().find(|query| query["query"] == "up").unwrap();
    assert_eq!(waiting["state"], "waiting");
    let id = waiting["id"].as_str().unwrap();
    f.send(request("DELETE", &format!("status/queries/{id}"), ""))
        .await;
    let reply = second.await.unwrap();
    assert_eq!(reply.status.as_u16(), 499, "{}", reply.text);
    assert_eq!(reply.json()["errorType"], "canceled");
    assert_eq!(listed(&f).await.len(), 1);
    f.engine.open_gate();
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn queries_over_the_threshold_are_on_record_newest_first() {
    let f = fixture(ApiOptions {
        slow_threshold: Some(Duration::ZERO),
        slow_entries: 2,
        ..ApiOptions::default()
    });
    f.engine.value("a", QueryValue::Vector(Vec::new()));
    f.engine
        .answer("c", Err(QueryError::Execution("too much".to_owned())));
    for query in ["a", "b", "c"] {
        f.get(&format!("query?query={query}")).await;
    }
    let json = f.get("status/queries/slow").await.json();
    let queries = json["data"]["queries"].as_array().unwrap();
    let shown: Vec<_> = queries
        .iter()
        .map(|q| q["query"].as_str().unwrap())
        .collect();
    assert_eq!(shown, ["c", "b"]);
    assert_eq!(queries[0]["error"], "too much");
    assert!(queries[1]["error"].is_null());
    assert!(queries[1]["seconds"].is_number());
    assert_eq!(f.metric("millrace_query_slow_total", &[]), 3.0);
}

#[tokio::test]
async fn ordinary_queries_are_not_on_record() {
    for slow_threshold in [Some(Duration::from_secs(3600)), None] {
        let f = fixture(ApiOptions {
            slow_threshold,
            ..ApiOptions::default()
        });
        f.get("query?query=up").await;
        let json = f.get("status/queries/slow").await.json();
        assert_eq!(json["data"]["queries"].as_array().unwrap().len(), 0);
    }
}
