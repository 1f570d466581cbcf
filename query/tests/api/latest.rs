//! `latest`: the newest sample of every series.

use millrace_model::{TenantId, stale_nan};
use millrace_query::ReadScope;
use millrace_query::api::ApiOptions;
use serde_json::{Value, json};

use crate::client::{Fixture, NOW, request};
use crate::table::Table;

const MINUTE: i64 = 60_000;

fn pump(name: &str) -> [(&str, &str); 2] {
    [("__name__", "temperature"), ("device", name)]
}

fn pumps() -> Fixture {
    let table = Table::default()
        .with(
            &pump("a"),
            &[(NOW - 2 * MINUTE, 20.0), (NOW - MINUTE, 1e21)],
        )
        .with(&pump("b"), &[(NOW - 400 * 24 * 60 * MINUTE, 0.5)])
        .with(&pump("c"), &[(NOW - MINUTE, 1.0), (NOW - 1, stale_nan())])
        .with(&pump("d"), &[(NOW + 5, f64::NAN)])
        .with(&[("__name__", "up"), ("device", "a")], &[(NOW, 1.0)]);
    Fixture::over(table, ApiOptions::default())
}

fn devices(answer: &Value) -> Vec<&str> {
    let series = answer["data"]["series"].as_array().unwrap();
    let device = |series: &'_ Value| series["metric"]["device"].as_str().is_some();
    assert!(series.iter().all(device), "{answer}");
    let named = series
        .iter()
        .map(|s| s["metric"]["device"].as_str().unwrap());
    named.collect()
}

#[tokio::test]
async fn every_series_tells_its_newest_sample_however_old_and_what_has_gone_is_left_out() {
    let reply = pumps().get("latest?match[]=temperature&limit=10").await;
    let series = |device: &str, timestamp: i64, value: &str, stale: bool| {
        json!({
            "metric": {"__name__": "temperature", "device": device},
            "timestamp": timestamp, "value": value, "age": NOW - timestamp, "stale": stale,
        })
    };
    assert_eq!(
        reply.json(),
        json!({"status": "success", "data": {"now": NOW, "staleAfter": 5 * MINUTE, "series": [
            series("a", NOW - MINUTE, "1e+21", false),
            series("b", NOW - 400 * 24 * 60 * MINUTE, "0.5", true),
            series("d", NOW + 5, "NaN", false),
        ]}})
    );
}

#[tokio::test]
async fn who_is_silent_for_longer_than_stale_after_is_stale() {
    let f = pumps();
    for (stale_after, stale) in [("1m", false), ("59.999", true), ("0", true)] {
        let target =
            format!("latest?match[]=temperature%7Bdevice=%22a%22%7D&stale_after={stale_after}");
        let answer = f.get(&target).await.json();
        assert_eq!(
            answer["data"]["series"][0]["stale"], stale,
            "{stale_after}: {answer}"
        );
    }
    let reply = f.get("latest?match[]=up&stale_after=soon").await;
    let what = "invalid parameter \"stale_after\": cannot parse \"soon\" to a valid duration";
    reply.is_error(400, "bad_data", what);
    assert_eq!(f.get("latest?match[]=up&stale_after=-1").await.status, 400);
}

#[tokio::test]
async fn pages_together_are_the_whole() {
    let mut table = Table::default();
    for i in 0..1_000 {
        let device = format!("pump-{i:04}");
        let value = if i % 10 == 0 {
            stale_nan()
        } else {
            f64::from(i)
        };
        table = table.with(&pump(&device), &[(NOW - 1, value)]);
    }
    let f = Fixture::over(table, ApiOptions::default());
    let whole = f.post("latest", "match[]=temperature").await.json();
    let mut expect = devices(&whole);
    expect.sort_unstable();
    assert_eq!(expect.len(), 900);
    let mut got = Vec::new();
    let (mut token, mut pages) = (String::new(), 0);
    loop {
        let target = format!("latest?match[]=temperature&limit=300{token}");
        let page = f.get(&target).await.json();
        got.extend(devices(&page).into_iter().map(str::to_owned));
        pages += 1;
        match page["data"]["next"].as_str() {
            Some(next) => token = format!("&token={next}"),
            None => break,
        }
    }
    assert_eq!(
        (got, pages),
        (expect.into_iter().map(str::to_owned).collect(), 4)
    );
}

#[tokio::test]
async fn wrong_questions_are_told_what_is_wrong() {
    let f = pumps();
    let reply = f.get("latest").await;
    reply.is_error(400, "bad_data", "no match[] parameter provided");
    let what = "invalid parameter \"token\": it is not the `next` of an answer";
    for token in ["x", "0", "ff", "00ff"] {
        let reply = f
            .get(&format!("latest?match[]=up&limit=1&token={token}"))
            .await;
        reply.is_error(400, "bad_data", what);
    }
    assert_eq!(f.get("latest?match[]=%7Ba=~%22.*%22%7D").await.status, 400);
    assert_eq!(f.get("latest?match[]=up&limit=-1").await.status, 400);
}

#[tokio::test]
async fn only_series_with_the_labels_that_a_token_is_bound_to_are_seen() {
    let f = pumps();
    let mut asked = request("GET", "latest?match[]=temperature&match[]=up", "");
    asked.extensions_mut().insert(ReadScope {
        tenant: TenantId::anonymous(),
        labels: [("device".to_owned(), "b".to_owned())].into(),
    });
    assert_eq!(devices(&f.send(asked).await.json()), ["b"]);
}
