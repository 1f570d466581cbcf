//! `stats` and `explain`: what a query says of itself, over the real engine.

use std::sync::Arc;

use millrace_model::{ManualClock, TimestampMs};
use millrace_query::api::{self, AlwaysFresh, Api, ApiMetrics, ApiOptions, Companions};
use millrace_query::{Engine, EngineOptions};
use prometheus::Registry;
use serde_json::{Value, json};

use crate::client::{Sender, request};
use crate::table::Table;

/// Two series with a sample each 15 s for ten minutes.
fn server() -> Sender {
    let mut table = Table::default();
    for host in ["a", "b"] {
        let samples: Vec<_> = (0..=40).map(|i| (i * 15_000, i as f64)).collect();
        table = table.with(&[("__name__", "m"), ("host", host)], &samples);
    }
    let source = Arc::new(table);
    Sender(api::router(Api {
        engine: Arc::new(Engine::new(source.clone(), EngineOptions::default())),
        source,
        clock: Arc::new(ManualClock::new(TimestampMs(600_000))),
        freshness: Arc::new(AlwaysFresh),
        options: ApiOptions::default(),
        companions: Companions::default(),
        metrics: ApiMetrics::new(&Registry::new()).unwrap(),
    }))
}

async fn ask(target: &str) -> Value {
    let reply = server().send(request("GET", target, "")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

async fn samples(target: &str) -> Value {
    ask(target).await["data"]["stats"]["samples"].clone()
}

/// The numbers are those of Prometheus 3.14 over the same samples.
#[tokio::test]
async fn samples_are_counted_for_every_step_that_sees_them() {
    let range = "start=300&end=360&step=30";
    for (expression, seen, read) in [
        ("m", [2, 2, 2], [2, 2, 2]),
        ("sum(m)", [2, 2, 2], [2, 2, 2]),
        // Windows of four samples, of which a step moves on by two.
        ("rate(m[1m])", [8, 8, 8], [8, 4, 4]),
        ("sum(rate(m[1m]))", [8, 8, 8], [8, 4, 4]),
        ("m%20@%20100", [2, 2, 2], [2, 0, 0]),
        ("rate(m[1m]%20@%20300)", [8, 8, 8], [8, 0, 0]),
        ("topk(1,m)", [2, 2, 2], [2, 2, 2]),
        ("absent(m)", [2, 2, 2], [2, 2, 2]),
        ("timestamp(m)", [2, 2, 2], [2, 2, 2]),
        ("vector(1)", [0, 0, 0], [0, 0, 0]),
        // The points of the subquery count, not what they were made from: one a minute.
        ("max_over_time(m[2m:1m])", [4, 4, 4], [4, 0, 2]),
        ("m%20%2B%20m", [4, 4, 4], [4, 4, 4]),
    ] {
        let stats = samples(&format!("query_range?query={expression}&{range}&stats=all")).await;
        let steps =
            |counts: [u64; 3]| json!([[300.0, counts[0]], [330.0, counts[1]], [360.0, counts[2]]]);
        let by_step = |name: &str| -> Vec<(f64, u64)> {
            let points = stats[name].as_array().unwrap();
            points
                .iter()
                .map(|p| (p[0].as_f64().unwrap(), p[1].as_u64().unwrap()))
                .collect()
        };
        let expect = |counts: [u64; 3]| -> Vec<(f64, u64)> {
            serde_json::from_value(steps(counts)).unwrap()
        };
        assert_eq!(
            by_step("totalQueryableSamplesPerStep"),
            expect(seen),
            "{expression}"
        );
        assert_eq!(by_step("samplesReadPerStep"), expect(read), "{expression}");
        assert_eq!(
            stats["totalQueryableSamples"],
            seen.iter().sum::<u64>(),
            "{expression}"
        );
        assert_eq!(
            stats["samplesRead"],
            read.iter().sum::<u64>(),
            "{expression}"
        );
    }
}

#[tokio::test]
async fn steps_are_listed_for_all_only_and_nothing_is_unasked() {
    let stats = samples("query?query=m&time=300&stats=true").await;
    assert_eq!(stats["totalQueryableSamples"], 2);
    assert_eq!(stats.get("totalQueryableSamplesPerStep"), None);
    assert!(stats["peakSamples"].as_u64().unwrap() >= 2, "{stats}");
    let plain = ask("query?query=m&time=300").await;
    assert_eq!(plain["data"].get("stats"), None);
    assert_eq!(plain.get("explain"), None);
    let timings = ask("query?query=m&time=300&stats=all").await["data"]["stats"]["timings"].clone();
    for name in [
        "evalTotalTime",
        "resultSortTime",
        "queryPreparationTime",
        "innerEvalTime",
        "execQueueTime",
        "execTotalTime",
    ] {
        assert!(timings[name].is_number(), "{name}: {timings}");
    }
}

#[tokio::test]
async fn explain_stands_beside_the_data() {
    let answer = ask("query?query=sum(rate(m[5m]))&time=600&explain=1").await;
    assert_eq!(answer["data"].as_object().unwrap().len(), 2, "{answer}");
    let explain = &answer["explain"];
    // (300 s, 600 s] of a sample each 15 s.
    assert_eq!(
        (&explain["series"], &explain["samplesRead"]),
        (&json!(2), &json!(40))
    );
    assert_eq!(
        (&explain["rollups"], &explain["views"]),
        (&json!([]), &json!([]))
    );
    for stage in [
        "queueWait",
        "parse",
        "evaluate",
        "select",
        "read",
        "sort",
        "encode",
    ] {
        assert!(explain["seconds"][stage].is_number(), "{stage}: {explain}");
    }
    assert!(explain["seconds"]["evaluate"].as_f64().unwrap() > 0.0);
    assert!(explain["seconds"]["encode"].as_f64().unwrap() > 0.0);
    let reply = server()
        .send(request("GET", "query?query=m&explain=perhaps", ""))
        .await;
    assert_eq!(reply.status, 400, "{}", reply.text);
}
