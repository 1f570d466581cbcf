//! Golden transcripts: whole answers of the API over the real engine, as a client sees them.
//!
//! Each file in `transcripts/` is a list of exchanges: the request's line, its form if it has one,
//! the status, the headers that matter, the body, and an empty line. `MILLRACE_BLESS=1` writes the
//! files anew; what changes then is to be read before it is committed.
#![expect(
    clippy::disallowed_methods,
    reason = "the transcripts are ordinary files, no crash test watches them"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_model::{ManualClock, TimestampMs, stale_nan};
use millrace_query::api::{self, AlwaysFresh, Api, ApiMetrics, ApiOptions, BuildInfo, Companions};
use millrace_query::{Engine, EngineOptions};
use prometheus::Registry;

use crate::client::{NOW, Reply, Sender, request};
use crate::table::Table;

/// Two CPUs of two hosts for ten minutes from `NOW`, a host that ends, and values that JSON does
/// not know.
fn table() -> Table {
    let mut table = Table::default();
    for (i, host) in ["a", "b"].into_iter().enumerate() {
        for mode in ["idle", "user"] {
            let step = (i + 1) as f64 * if mode == "idle" { 7.5 } else { 0.25 };
            let samples: Vec<_> = (0..40)
                .map(|n| (NOW + n * 15_000, n as f64 * step))
                .collect();
            let labels = [
                ("__name__", "cpu_seconds_total"),
                ("host", host),
                ("mode", mode),
            ];
            table = table.with(&labels, &samples);
        }
    }
    let ends = [(NOW, 1.0), (NOW + 60_000, stale_nan())];
    let odd = [
        (NOW, f64::NAN),
        (NOW + 15_000, f64::INFINITY),
        (NOW + 30_000, f64::NEG_INFINITY),
        (NOW + 45_000, -0.0),
        (NOW + 60_000, 1e-300),
    ];
    table
        .with(&[("__name__", "up"), ("host", "c \"quoted\"")], &ends)
        .with(&[("__name__", "odd"), ("täg", "<&>")], &odd)
}

fn server() -> Sender {
    let source = Arc::new(table());
    let registry = Registry::new();
    Sender(api::router(Api {
        engine: Arc::new(Engine::new(source.clone(), EngineOptions::default())),
        source,
        clock: Arc::new(ManualClock::new(TimestampMs(NOW + 600_000))),
        freshness: Arc::new(AlwaysFresh),
        options: ApiOptions {
            build: BuildInfo {
                version: "0.0.0-test".to_owned(),
                ..BuildInfo::default()
            },
            ..ApiOptions::default()
        },
        companions: Companions::default(),
        metrics: ApiMetrics::new(&registry).unwrap(),
    }))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/transcripts")
}

async fn check(name: &str) {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let server = server();
    let mut written = String::new();
    let mut exchanges = 0;
    for exchange in text.split("\n\n").filter(|part| !part.trim().is_empty()) {
        let mut lines = exchange.trim_start().lines();
        let line = lines.next().unwrap();
        let (method, target) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let form = lines.next().and_then(|line| line.strip_prefix("form: "));
        let reply = server
            .send(request(method, target, form.unwrap_or_default()))
            .await;
        write_exchange(&mut written, line, form, &reply);
        exchanges += 1;
    }
    assert!(exchanges > 0, "{path:?} has no exchange");
    if std::env::var_os("MILLRACE_BLESS").is_some() {
        std::fs::write(&path, written).unwrap();
        return;
    }
    for (expect, given) in text.split("\n\n").zip(written.split("\n\n")) {
        assert_eq!(
            given.trim(),
            expect.trim(),
            "{path:?}; MILLRACE_BLESS=1 takes the new answer"
        );
    }
    assert_eq!(text.trim(), written.trim());
}

fn write_exchange(out: &mut String, line: &str, form: Option<&str>, reply: &Reply) {
    writeln!(out, "{line}").unwrap();
    if let Some(form) = form {
        writeln!(out, "form: {form}").unwrap();
    }
    writeln!(out, "{}", reply.status.as_u16()).unwrap();
    for name in ["content-type", "allow"] {
        if let Some(value) = reply.headers.get(name) {
            writeln!(out, "{name}: {}", value.to_str().unwrap()).unwrap();
        }
    }
    writeln!(out, "{}\n", reply.text).unwrap();
}

/// Grafana aligns to the step and then adds the offset of the browser's time zone, so a grid of our
/// own would move every point.
#[tokio::test]
async fn steps_are_counted_from_the_given_start() {
    let target = format!(
        "query_range?query=cpu_seconds_total%7Bmode=%22idle%22,host=%22a%22%7D&start={}&end={}&step=30",
        (NOW + 1_234) as f64 / 1e3,
        (NOW + 100_000) as f64 / 1e3,
    );
    let reply = server().send(request("GET", &target, "")).await;
    let values = reply.json()["data"]["result"][0]["values"].clone();
    let times = values
        .as_array()
        .unwrap()
        .iter()
        .map(|point| point[0].as_f64().unwrap());
    let expect = [1_234, 31_234, 61_234, 91_234].map(|ms| (NOW + ms) as f64 / 1e3);
    assert_eq!(times.collect::<Vec<_>>(), expect);
}

#[tokio::test]
async fn eleven_thousand_steps_are_allowed_and_one_more_is_not() {
    let ask = |end: i64| async move {
        let target = format!("query_range?query=vector(1)&start=0&end={end}&step=1");
        server().send(request("GET", &target, "")).await
    };
    let all = ask(11_000).await;
    assert_eq!(all.status, 200, "{}", all.text);
    let points = all.json()["data"]["result"][0]["values"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(points, 11_001);
    assert_eq!(ask(11_001).await.status, 400);
}

#[tokio::test]
async fn queries() {
    check("queries.txt").await;
}

#[tokio::test]
async fn discovery() {
    check("discovery.txt").await;
}

#[tokio::test]
async fn refusals() {
    check("refusals.txt").await;
}

#[tokio::test]
async fn status() {
    check("status.txt").await;
}
