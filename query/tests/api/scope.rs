//! Requests that may see only series with certain labels.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use millrace_model::{TenantId, TimestampMs};
use millrace_query::{
    CancelFlag, Engine, EngineOptions, QueryRequest, QueryTime, QueryValue, ReadPoint, ReadScope,
};
use serde_json::json;

use crate::client::{Fixture, request};
use crate::table::Table;

fn bound(labels: &[(&str, &str)]) -> ReadScope {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    ReadScope {
        tenant: TenantId::anonymous(),
        labels: labels.iter().map(own).collect(),
    }
}

async fn seen(f: &Fixture, scope: &ReadScope, target: &str) -> serde_json::Value {
    let mut asked: Request<Body> = request("GET", target, "");
    asked.extensions_mut().insert(scope.clone());
    f.send(asked).await.json()["data"].clone()
}

#[tokio::test]
async fn series_labels_and_metadata_are_those_that_have_the_labels() {
    let f = Fixture::new();
    let south = bound(&[("site", "south")]);
    let nowhere = bound(&[("site", "south"), ("device", "pump-1")]);
    let all = bound(&[]);
    let everything = "series?match[]=temperature&match[]=flow_total";
    for (scope, count) in [(&all, 3), (&south, 1), (&nowhere, 0)] {
        let found = seen(&f, scope, everything).await;
        assert_eq!(found.as_array().unwrap().len(), count, "{found}");
    }
    let names = seen(&f, &south, "labels").await;
    assert_eq!(names, json!(["__name__", "device", "site"]));
    let devices = seen(&f, &south, "label/device/values").await;
    assert_eq!(devices, json!(["pump-2"]));
    let devices = seen(
        &f,
        &south,
        "label/device/values?match[]=%7Bsite%3D%22north%22%7D",
    )
    .await;
    assert_eq!(devices, json!([]));
    let known = |data: serde_json::Value| -> Vec<String> {
        data.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(known(seen(&f, &south, "metadata").await), ["temperature"]);
    assert!(known(seen(&f, &all, "metadata").await).len() > 1);
    assert!(known(seen(&f, &nowhere, "metadata").await).is_empty());
}

/// Whatever an expression selects, also inside subqueries and aggregations.
#[test]
fn an_expression_sees_nothing_else() {
    let table = Table::default()
        .with(&[("__name__", "m"), ("team", "a")], &[(1_000, 1.0)])
        .with(&[("__name__", "m"), ("team", "b")], &[(1_000, 2.0)])
        .with(&[("__name__", "m")], &[(1_000, 4.0)]);
    let engine = Engine::new(Arc::new(table), EngineOptions::default());
    let ask = |text: &str, scope: &ReadScope| {
        let outcome = engine.query(&QueryRequest {
            tenant: scope.tenant.clone(),
            text: text.to_owned(),
            time: QueryTime::Instant(TimestampMs(2_000)),
            lookback: None,
            timeout: None,
            cancel: CancelFlag::default(),
            partial: false,
            point: Arc::new(ReadPoint::default().bound_to(scope.matchers())),
        });
        match outcome.unwrap().value {
            QueryValue::Vector(samples) => samples.iter().map(|sample| sample.value).sum::<f64>(),
            other => panic!("{text}: {other:?}"),
        }
    };
    for (text, all, team) in [
        ("m", 7.0, 1.0),
        ("sum(m)", 7.0, 1.0),
        ("m{team=\"b\"}", 2.0, 0.0),
        ("m{team!=\"a\"}", 6.0, 0.0),
        ("m{team=~\".*\"} or m{team=\"\"}", 7.0, 1.0),
        ("count({__name__=~\".+\"})", 3.0, 1.0),
        ("sum(sum_over_time(m[5s]))", 7.0, 1.0),
        ("sum(max_over_time(m[5s:1s]))", 7.0, 1.0),
        ("sum(m + on() group_left() sum(m))", 28.0, 2.0),
    ] {
        assert_eq!(ask(text, &bound(&[])), all, "{text}");
        assert_eq!(ask(text, &bound(&[("team", "a")])), team, "{text}");
    }
}
