//! Parameters in the URL, in the form, and in both.

use axum::body::Body;
use http::{Request, header};
use millrace_query::QueryTime;
use millrace_query::api::{AlwaysFresh, ApiOptions};
use std::sync::Arc;
use std::time::Duration;

use crate::client::{Fixture, NOW};
use millrace_model::TimestampMs;

#[tokio::test]
async fn get_and_post_answer_alike() {
    let f = Fixture::new();
    for (path, params) in [
        ("query", "query=1%2B1&time=4"),
        ("query", "query=sum("),
        ("query", ""),
        ("query_range", "query=1&start=0&end=10&step=5"),
        ("query_range", "query=1&start=10&end=0&step=5"),
        ("query_exemplars", "query=up&start=0&end=1"),
        ("format_query", "query=sum(a)by(b)"),
        ("parse_query", "query=a"),
        ("series", "match[]=temperature&match%5B%5D=flow_total"),
        ("series", ""),
        ("labels", "match[]=temperature"),
        ("labels", ""),
    ] {
        let get = f.get(&format!("{path}?{params}")).await;
        let post = f.post(path, params).await;
        assert_eq!(
            (get.status, get.text),
            (post.status, post.text),
            "{path}?{params}"
        );
    }
}

#[tokio::test]
async fn values_of_the_form_come_before_those_of_the_url() {
    let f = Fixture::new();
    f.post("query?query=url&time=3", "query=form").await;
    f.post("query?time=7", "query=both&time=5").await;
    f.post("query?query=url&lookback_delta=2m", "time=5").await;
    let seen: Vec<_> = f.engine.seen.lock().clone();
    let at = |s: i64| QueryTime::Instant(TimestampMs(s * 1000));
    assert_eq!((seen[0].text.as_str(), seen[0].time), ("form", at(3)));
    assert_eq!((seen[1].text.as_str(), seen[1].time), ("both", at(5)));
    assert_eq!((seen[2].text.as_str(), seen[2].time), ("url", at(5)));
    assert_eq!(seen[2].lookback, Some(Duration::from_secs(120)));
    // Lists are joined.
    let reply = f
        .post("series?match[]=temperature&start=5", "match[]=flow_total")
        .await;
    assert_eq!(
        reply.json()["data"].as_array().unwrap().len(),
        1,
        "{}",
        reply.text
    );
    let reply = f
        .post("series?match[]=temperature", "match[]=flow_total")
        .await;
    assert_eq!(
        reply.json()["data"].as_array().unwrap().len(),
        3,
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn parameters_reach_the_engine_exactly() {
    let f = Fixture::new();
    f.get("query?query=a").await;
    f.get("query?query=a&time=1435781451.7815&timeout=1m30s&lookback_delta=0")
        .await;
    f.get("query?query=a&time=2015-07-01T20:10:51.781Z&timeout=0.25&lookback_delta=90")
        .await;
    f.get("query_range?query=a&start=0.001&end=9.999&step=0.29")
        .await;
    f.get("query_range?query=a&start=0&end=7200&step=1h").await;
    let seen: Vec<_> = f.engine.seen.lock().clone();
    assert_eq!(seen[0].time, QueryTime::Instant(TimestampMs(NOW)));
    assert_eq!((seen[0].timeout, seen[0].lookback), (None, None));
    assert_eq!(seen[1].time, QueryTime::Instant(TimestampMs(NOW + 1)));
    assert_eq!(seen[1].timeout, Some(Duration::from_secs(90)));
    assert_eq!(
        seen[1].lookback, None,
        "not positive means the engine's own"
    );
    assert_eq!(seen[2].time, QueryTime::Instant(TimestampMs(NOW)));
    assert_eq!(seen[2].timeout, Some(Duration::from_millis(250)));
    assert_eq!(seen[2].lookback, Some(Duration::from_secs(90)));
    let range = |start, end, step_ms| QueryTime::Range {
        start: TimestampMs(start),
        end: TimestampMs(end),
        step_ms,
    };
    assert_eq!(seen[3].time, range(1, 9_999, 290));
    assert_eq!(seen[4].time, range(0, 7_200_000, 3_600_000));
}

#[tokio::test]
async fn only_a_form_is_read_as_one() {
    let f = Fixture::new();
    let send = |content_type: &'static str| {
        let request = Request::post("/api/v1/query?time=4")
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from("query=1"))
            .unwrap();
        f.send(request)
    };
    let reply = send("application/x-www-form-urlencoded; charset=UTF-8").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let reply = send("text/plain").await;
    assert_eq!(reply.status, 400, "{}", reply.text);
}

#[tokio::test]
async fn a_form_over_the_limit_is_413_and_one_at_it_is_not() {
    let options = ApiOptions {
        max_form_bytes: 64,
        ..ApiOptions::default()
    };
    let f = Fixture::with(options, Arc::new(AlwaysFresh));
    let form = |len: usize| format!("query=1&pad={}", "x".repeat(len - 12));
    assert_eq!(f.post("query", &form(64)).await.status, 200);
    f.post("query", &form(65)).await.is_error(
        413,
        "bad_data",
        "form larger than the limit of 64 bytes",
    );
}
