//! More than the threads can do, clients that leave, and answers longer than memory should hold.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use millrace_model::Labels;
use millrace_query::api::{AlwaysFresh, ApiOptions};
use millrace_query::{MatrixSeries, QueryValue};
use tower::ServiceExt;

use crate::client::{Fixture, SLOW, request};

fn fixture(max_running: usize, max_waiting: usize, max_wait: Duration) -> Fixture {
    let options = ApiOptions {
        max_running,
        max_waiting,
        max_wait,
        ..ApiOptions::default()
    };
    Fixture::with(options, Arc::new(AlwaysFresh))
}

fn slow() -> String {
    format!("query?query={SLOW}")
}

/// Waits for something that other tasks bring about.
async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn queries_beyond_the_waiting_room_are_refused_at_once() {
    let f = Arc::new(fixture(2, 1, Duration::from_secs(600)));
    let mut running = Vec::new();
    for _ in 0..3 {
        let f = f.clone();
        running.push(tokio::spawn(async move { f.get(&slow()).await }));
    }
    until(|| f.metric("millrace_query_waiting", &[]) == 1.0).await;
    let refused = f.get("query?query=1").await;
    refused.is_error(
        503,
        "unavailable",
        "too many queries: 2 running and 1 waiting; try again",
    );
    let retry: u32 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=30).contains(&retry), "{retry}");
    assert_eq!(
        f.metric("millrace_query_refused_total", &[("reason", "full")]),
        1.0
    );
    // What needs no query thread is answered all the same.
    assert_eq!(f.get("status/buildinfo").await.status, 200);
    f.engine.open_gate();
    for query in running {
        assert_eq!(query.await.unwrap().status, 200);
    }
    assert_eq!(f.metric("millrace_query_waiting", &[]), 0.0);
    assert_eq!(f.metric("millrace_query_requests_in_flight", &[]), 0.0);
}

#[tokio::test]
async fn waiting_ends_after_its_time() {
    let f = Arc::new(fixture(1, 4, Duration::from_millis(20)));
    let first = tokio::spawn({
        let f = f.clone();
        async move { f.get(&slow()).await }
    });
    until(|| f.metric("millrace_query_requests_in_flight", &[]) == 1.0).await;
    let refused = f.get("query?query=1").await;
    refused.is_error(
        503,
        "unavailable",
        "too many queries: no thread of 1 was free within 20ms; try again",
    );
    f.engine.open_gate();
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_query() {
    let f = fixture(1, 4, Duration::from_secs(600));
    let task = tokio::spawn(f.router.clone().oneshot(request("GET", &slow(), "")));
    let engine = f.engine.clone();
    tokio::task::spawn_blocking(move || engine.wait_inside(1))
        .await
        .unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let engine = f.engine.clone();
    tokio::task::spawn_blocking(move || engine.wait_cancelled(1))
        .await
        .unwrap();
    assert_eq!(f.metric("millrace_query_cancelled_total", &[]), 1.0);
    // Its thread is free again.
    assert_eq!(f.get("query?query=1").await.status, 200);
    assert_eq!(f.metric("millrace_query_cancelled_total", &[]), 1.0);
}

#[tokio::test]
async fn a_client_that_leaves_the_waiting_room_leaves_its_place() {
    let f = Arc::new(fixture(1, 1, Duration::from_secs(600)));
    let running = tokio::spawn({
        let f = f.clone();
        async move { f.get(&slow()).await }
    });
    until(|| f.metric("millrace_query_requests_in_flight", &[]) == 1.0).await;
    for _ in 0..3 {
        let waiting = tokio::spawn(f.router.clone().oneshot(request("GET", &slow(), "")));
        until(|| f.metric("millrace_query_waiting", &[]) == 1.0).await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(f.metric("millrace_query_waiting", &[]), 0.0);
    }
    f.engine.open_gate();
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(f.engine.seen.lock().len(), 1, "who left was not evaluated");
}

const SERIES: usize = 300;
const POINTS: usize = 1_000;

fn long_answer() -> QueryValue {
    let series = |i: usize| MatrixSeries {
        labels: Labels::from_pairs([("i", i.to_string().as_str())]).unwrap(),
        timestamps: (0..POINTS as i64).map(|t| t * 1_001).collect(),
        values: (0..POINTS).map(|p| (p * i) as f64 / 7.0).collect(),
    };
    QueryValue::Matrix((0..SERIES).map(series).collect())
}

#[tokio::test]
async fn a_long_answer_comes_in_pieces_and_whole() {
    let f = Fixture::new();
    f.engine.value("long", long_answer());
    let response = f
        .router
        .clone()
        .oneshot(request("GET", "query?query=long", ""))
        .await
        .unwrap();
    let mut body = response.into_body();
    let mut text = Vec::new();
    let mut pieces = 0;
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        assert!(
            piece.len() < (64 << 10) + (8 << 10),
            "a piece of {} bytes",
            piece.len()
        );
        pieces += 1;
        text.extend_from_slice(&piece);
    }
    assert!(pieces > 50, "{pieces} pieces of {} bytes", text.len());
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let result = json["data"]["result"].as_array().unwrap();
    assert_eq!(result.len(), SERIES);
    for (i, series) in result.iter().enumerate() {
        assert_eq!(series["metric"]["i"], i.to_string());
        let values = series["values"].as_array().unwrap();
        assert_eq!(values.len(), POINTS);
        for (p, point) in values.iter().enumerate() {
            assert_eq!(point[0].as_f64().unwrap(), (p * 1_001) as f64 / 1e3);
            let value: f64 = point[1].as_str().unwrap().parse().unwrap();
            assert_eq!(value.to_bits(), ((p * i) as f64 / 7.0).to_bits());
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_holds_no_thread() {
    let f = fixture(1, 0, Duration::from_millis(1));
    f.engine.value("long", long_answer());
    let mut open = Vec::new();
    for _ in 0..5 {
        let long = request("GET", "query?query=long", "");
        let response = f.router.clone().oneshot(long).await.unwrap();
        let mut body = response.into_body();
        // Past the pieces that came with the query, into those that are made on demand.
        for _ in 0..6 {
            body.frame().await.unwrap().unwrap();
        }
        open.push(body);
    }
    assert_eq!(f.get("query?query=1").await.status, 200);
    for body in open {
        let rest = body.collect().await.unwrap().to_bytes();
        assert!(rest.ends_with(b"]}]}}"), "{:?}", &rest[rest.len() - 20..]);
    }
}

#[tokio::test]
async fn an_answer_whose_pool_is_gone_is_cut_and_not_ended() {
    let f = Fixture::new();
    f.engine.value("long", long_answer());
    let long = request("GET", "query?query=long", "");
    let mut body = f.router.clone().oneshot(long).await.unwrap().into_body();
    drop(f);
    let end = loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_off() {
    let options = ApiOptions {
        max_stall: Duration::from_millis(20),
        ..ApiOptions::default()
    };
    let f = Fixture::with(options, Arc::new(AlwaysFresh));
    f.engine.value("long", long_answer());
    let long = request("GET", "query?query=long", "");
    let mut body = f.router.clone().oneshot(long).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    until(|| f.metric("millrace_query_stalled_total", &[]) == 1.0).await;
    let end = body.frame().await;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}

#[tokio::test]
async fn requests_are_counted_by_endpoint_and_status() {
    let f = Fixture::new();
    f.get("query?query=1").await;
    f.get("query?query=1&time=x").await;
    f.get("label/a/values").await;
    f.get("label/b/values").await;
    f.get("what/ever/path").await;
    let count = |endpoint, status| {
        f.metric(
            "millrace_query_requests_total",
            &[("endpoint", endpoint), ("status", status)],
        )
    };
    assert_eq!(count("query", "200"), 1.0);
    assert_eq!(count("query", "400"), 1.0);
    assert_eq!(count("label/{name}/values", "200"), 2.0);
    assert_eq!(count("unknown", "404"), 1.0);
}
