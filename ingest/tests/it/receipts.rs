//! 10,000 items with 7 bad ones of 7 kinds, by every protocol: exactly those come back, by number and
//! reason, and the rest is stored.

use axum::http::StatusCode;
use prost::Message as _;
use serde_json::{Value, json};

use crate::rig::{NOW, Rig, otlp, prompb, prompb2};

const ITEMS: usize = 10_000;
/// Where the bad ones stand, from 0: the first, the last, neighbours, and either side of a batch.
const BAD: [usize; 7] = [0, 31, 32, 64, 5_000, 5_001, 9_999];

/// What a protocol says: its path, type, and body; where a rejection stands and why.
struct Case {
    path: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    place: &'static str,
    /// Added to an item's number from 0.
    first: u64,
    reasons: [&'static str; 7],
    status: StatusCode,
}

/// One item in each line.
fn lines(good: impl Fn(usize) -> String, bad: [&[u8]; 7]) -> Vec<u8> {
    let mut body = Vec::new();
    for i in 0..ITEMS {
        match BAD.iter().position(|at| *at == i) {
            Some(kind) => body.extend_from_slice(bad[kind]),
            None => body.extend_from_slice(good(i).as_bytes()),
        }
        body.push(b'\n');
    }
    body
}

fn long() -> String {
    "x".repeat(5000)
}

/// Every protocol that writes lines of its own kind.
async fn check(case: Case) {
    let rig = Rig::new();
    let separator = if case.path.contains('?') { '&' } else { '?' };
    let path = format!("{}{separator}receipt=full", case.path);
    let headers = [
        ("content-type", case.content_type),
        ("content-encoding", "identity"),
    ];
    let answer = rig.post(&path, &headers, case.body).await;
    assert_eq!(answer.status, case.status, "{path}: {}", answer.text());
    let receipt = answer.json();
    assert_eq!(receipt["rejected"], 7, "{path}: {receipt}");
    assert_eq!(receipt["truncated"], false);
    let found: Vec<(u64, &str)> = receipt["rejections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            let place = r[case.place].as_u64();
            (place.expect(case.place), r["reason"].as_str().unwrap())
        })
        .collect();
    let expect: Vec<(u64, &str)> = BAD
        .iter()
        .zip(case.reasons)
        .map(|(at, reason)| (*at as u64 + case.first, reason))
        .collect();
    assert_eq!(found, expect, "{path}");
    for rejection in receipt["rejections"].as_array().unwrap() {
        assert!(rejection["message"].as_str().is_some_and(|m| !m.is_empty()));
    }
    assert_eq!(receipt["accepted"], ITEMS as u64 - 7, "{path}");
    let stored = rig.values();
    assert_eq!(stored.len(), ITEMS - 7, "{path}");
    let numbers: f64 = stored.values().flatten().map(|(_, value)| value).sum();
    let all: usize = (0..ITEMS).filter(|i| !BAD.contains(i)).sum();
    assert_eq!(numbers, all as f64, "{path}");
    assert!(!answer.header("millrace-position").is_empty());
}

fn line_case(path: &'static str) -> Case {
    let long = format!("m,host=a,t={} v=1", long());
    Case {
        path,
        content_type: "text/plain",
        body: lines(
            |i| format!("m,n={i} v={i}"),
            [
                b"lonely",
                b"m,n=b v=1 1",
                b"m,n=b v=1 noon",
                b"m,n= v=1",
                b"m,n=b,n=c v=1",
                long.as_bytes(),
                b"m,n=\xff v=1",
            ],
        ),
        place: "line",
        first: 1,
        reasons: [
            "malformed_line",
            "too_old",
            "bad_timestamp",
            "empty_tag_value",
            "duplicate_label",
            "label_value_too_long",
            "invalid_utf8",
        ],
        status: StatusCode::BAD_REQUEST,
    }
}

#[tokio::test]
async fn line_protocol_of_every_version() {
    for path in [
        "/write",
        "/api/v2/write?bucket=b",
        "/api/v3/write_lp?db=d&precision=ns",
    ] {
        check(line_case(path)).await;
    }
}

#[tokio::test]
async fn ndjson() {
    let item = |fields: &str| format!(r#"{{"device":"d",{fields}}}"#);
    let long = format!(r#"{{"device":"{}","fields":{{"v":1}}}}"#, long());
    check(Case {
        path: "/api/v1/push",
        content_type: "application/x-ndjson",
        body: lines(
            |i| format!(r#"{{"device":"d{i}","fields":{{"v":{i}}}}}"#),
            [
                b"nonsense",
                item(r#""timestamp":1,"fields":{"v":1}"#).as_bytes(),
                item(r#""timestamp":"noon","fields":{"v":1}"#).as_bytes(),
                item(r#""colour":1,"fields":{"v":1}"#).as_bytes(),
                br#"{"fields":{"v":1}}"#,
                long.as_bytes(),
                item(r#""fields":{}"#).as_bytes(),
            ],
        ),
        place: "line",
        first: 1,
        reasons: [
            "malformed_json",
            "too_old",
            "bad_timestamp",
            "unknown_key",
            "missing_device",
            "label_value_too_long",
            "missing_fields",
        ],
        status: StatusCode::BAD_REQUEST,
    })
    .await;
}

#[tokio::test]
async fn text_format_and_pushgateway() {
    let long = format!("m{{a=\"{}\"}} 1", long());
    for path in ["/api/v1/import/prometheus", "/metrics/job/batch"] {
        check(Case {
            path,
            content_type: "text/plain; version=0.0.4",
            body: lines(
                |i| format!("m{{n=\"{i}\"}} {i}"),
                [
                    b"lonely",
                    b"m 1 1",
                    b"m 1 noon",
                    b"{a=\"b\"} 1",
                    b"m{a=\"1\",a=\"2\"} 1",
                    long.as_bytes(),
                    b"m{a=\"\xff\"} 1",
                ],
            ),
            place: "line",
            first: 1,
            reasons: [
                "malformed_text",
                "too_old",
                "bad_timestamp",
                "missing_metric_name",
                "duplicate_label",
                "label_value_too_long",
                "invalid_utf8",
            ],
            status: StatusCode::BAD_REQUEST,
        })
        .await;
    }
}

#[tokio::test]
async fn openmetrics() {
    let long = format!("m{{a=\"{}\"}} 1", long());
    let mut body = lines(
        |i| format!("m{{n=\"{i}\"}} {i}"),
        [
            b"lonely",
            b"m 1 1",
            b"m 1 noon",
            b"{a=\"b\"} 1",
            b"m{a=\"1\",a=\"2\"} 1",
            long.as_bytes(),
            b"m{a=\"\xff\"} 1",
        ],
    );
    body.extend_from_slice(b"# EOF\n");
    check(Case {
        path: "/api/v1/import/prometheus",
        content_type: "application/openmetrics-text; version=1.0.0",
        body,
        place: "line",
        first: 1,
        reasons: [
            "malformed_text",
            "too_old",
            "bad_timestamp",
            "missing_metric_name",
            "duplicate_label",
            "label_value_too_long",
            "invalid_utf8",
        ],
        status: StatusCode::BAD_REQUEST,
    })
    .await;
}

#[tokio::test]
async fn an_array_of_json() {
    let long = json!({ "device": long(), "fields": { "v": 1 } });
    let bad = [
        json!(1),
        json!({ "device": "d", "timestamp": 1, "fields": { "v": 1 } }),
        json!({ "device": "d", "timestamp": "noon", "fields": { "v": 1 } }),
        json!({ "device": "d", "colour": 1, "fields": { "v": 1 } }),
        json!({ "fields": { "v": 1 } }),
        long,
        json!({ "device": "d", "fields": {} }),
    ];
    let items: Vec<Value> = (0..ITEMS)
        .map(|i| match BAD.iter().position(|at| *at == i) {
            Some(kind) => bad[kind].clone(),
            None => json!({ "device": format!("d{i}"), "fields": { "v": i } }),
        })
        .collect();
    check(Case {
        path: "/api/v1/push",
        content_type: "application/json",
        body: Value::Array(items).to_string().into_bytes(),
        place: "index",
        first: 0,
        reasons: [
            "unsupported_type",
            "too_old",
            "bad_timestamp",
            "unknown_key",
            "missing_device",
            "label_value_too_long",
            "missing_fields",
        ],
        status: StatusCode::BAD_REQUEST,
    })
    .await;
}

/// More than answers ever told: all of them, by number.
#[tokio::test]
async fn a_full_receipt_has_all_of_many_thousands() {
    let rig = Rig::new();
    let body = "lonely\n".repeat(30_000);
    let answer = rig.post("/write?receipt=full", &[], body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let receipt = answer.json();
    assert_eq!(receipt["rejected"], 30_000);
    assert_eq!(receipt["truncated"], false);
    let rejections = receipt["rejections"].as_array().unwrap();
    assert_eq!(rejections.len(), 30_000);
    assert!((1u64..).zip(rejections).all(|(line, r)| r["line"] == line));
    drop(answer);
    assert_eq!(rig.metric("millrace_ingest_decode_memory_bytes", &[]), 0.0);
}

#[tokio::test]
async fn csv() {
    let long = format!("{},1,{NOW}", long());
    check(Case {
        path: "/api/v1/import/csv?format=1:label:n,2:metric:v,3:time:unix_ms",
        content_type: "text/csv",
        body: lines(
            |i| format!("{i},{i},{NOW}"),
            [
                b"lonely",
                b"a,1,1",
                b"a,1,noon",
                b"a,x,1795219200000",
                b"\"a,1,1795219200000",
                long.as_bytes(),
                b"\xff,1,1795219200000",
            ],
        ),
        place: "line",
        first: 1,
        reasons: [
            "malformed_csv",
            "too_old",
            "bad_timestamp",
            "malformed_csv",
            "malformed_csv",
            "label_value_too_long",
            "invalid_utf8",
        ],
        status: StatusCode::BAD_REQUEST,
    })
    .await;
}

#[tokio::test]
async fn json_lines() {
    let row = |metric: &str, rest: &str| format!("{{\"metric\":{{{metric}}},{rest}}}");
    let one = |ms: i64| format!("\"values\":[1],\"timestamps\":[{ms}]");
    let long = row(
        &format!("\"__name__\":\"m\",\"a\":\"{}\"", long()),
        &one(NOW),
    );
    check(Case {
        path: "/api/v1/import",
        content_type: "application/json",
        body: lines(
            |i| {
                let metric = format!("\"__name__\":\"m\",\"n\":\"{i}\"");
                row(&metric, &format!("\"values\":[{i}],\"timestamps\":[{NOW}]"))
            },
            [
                b"nonsense",
                row("\"__name__\":\"m\"", &one(1)).as_bytes(),
                row("\"__name__\":\"m\"", "\"values\":[],\"timestamps\":[]").as_bytes(),
                row("\"a\":\"b\"", &one(NOW)).as_bytes(),
                row("\"__name__\":\"m\",\"a\":\"1\",\"a\":\"2\"", &one(NOW)).as_bytes(),
                long.as_bytes(),
                b"{\"metric\":{\"__name__\":\"\xff\"}}",
            ],
        ),
        place: "line",
        first: 1,
        reasons: [
            "malformed_json",
            "too_old",
            "missing_value",
            "missing_metric_name",
            "duplicate_label",
            "label_value_too_long",
            "invalid_utf8",
        ],
        status: StatusCode::BAD_REQUEST,
    })
    .await;
}

#[tokio::test]
async fn remote_write_1() {
    let long = long();
    let native = prompb::TimeSeries {
        samples: vec![],
        histograms: vec![prompb::Histogram::default()],
        ..prompb::series(&[("__name__", "m")], &[])
    };
    let one = |labels: &[(&str, &str)]| prompb::series(labels, &[(NOW, 1.0)]);
    let bad = [
        one(&[("a", "b")]),
        prompb::series(&[("__name__", "m")], &[(1, 1.0)]),
        one(&[("__name__", "m"), ("", "x")]),
        native,
        one(&[("__name__", "m"), ("a", "1"), ("a", "2")]),
        one(&[("__name__", "m"), ("a", &long)]),
        prompb::series(&[("__name__", "m")], &[(NOW * 2, 1.0)]),
    ];
    let timeseries = (0..ITEMS)
        .map(|i| match BAD.iter().position(|at| *at == i) {
            Some(kind) => bad[kind].clone(),
            None => prompb::series(
                &[("__name__", "m"), ("n", &i.to_string())],
                &[(NOW, i as f64)],
            ),
        })
        .collect();
    check(Case {
        path: "/api/v1/write",
        content_type: "application/x-protobuf",
        body: prompb::WriteRequest {
            timeseries,
            metadata: vec![],
        }
        .encode_to_vec(),
        place: "timeseries",
        first: 0,
        reasons: [
            "missing_metric_name",
            "too_old",
            "empty_label_name",
            "native_histogram",
            "duplicate_label",
            "label_value_too_long",
            "too_far_ahead",
        ],
        status: StatusCode::BAD_REQUEST,
    })
    .await;
}

#[tokio::test]
async fn remote_write_2() {
    let mut table = prompb2::Table::new();
    let long = long();
    let mut odd = table.series(&[("__name__", "m")], NOW, 1.0);
    odd.labels_refs.pop();
    let mut outside = table.series(&[("__name__", "m")], NOW, 1.0);
    outside.labels_refs[1] = 1_000_000;
    let mut empty = table.series(&[("__name__", "m")], NOW, 1.0);
    empty.samples.clear();
    let bad = [
        odd,
        table.series(&[("__name__", "m")], 1, 1.0),
        outside,
        empty,
        table.series(&[("__name__", "m"), ("a", "1"), ("a", "2")], NOW, 1.0),
        table.series(&[("__name__", "m"), ("a", &long)], NOW, 1.0),
        table.series(&[("a", "b"), ("__name__", "m")], NOW, 1.0),
    ];
    let timeseries = (0..ITEMS)
        .map(|i| match BAD.iter().position(|at| *at == i) {
            Some(kind) => bad[kind].clone(),
            None => table.series(&[("__name__", "m"), ("n", &i.to_string())], NOW, i as f64),
        })
        .collect();
    check(Case {
        path: "/api/v1/write",
        content_type: "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        body: table.body(timeseries),
        place: "timeseries",
        first: 0,
        reasons: [
            "bad_symbol_reference",
            "too_old",
            "bad_symbol_reference",
            "missing_value",
            "duplicate_label",
            "label_value_too_long",
            "unsorted_labels",
        ],
        status: StatusCode::BAD_REQUEST,
    })
    .await;
}

/// What is wrong with the points of both encodings of OTLP.
const OTLP_REASONS: [&str; 7] = [
    "missing_value",
    "too_old",
    "bad_timestamp",
    "bad_name",
    "duplicate_label",
    "label_value_too_long",
    "too_far_ahead",
];

#[tokio::test]
async fn otlp_in_protobuf() {
    let long = long();
    let bad = [
        otlp::point(NOW, None, &[]),
        otlp::point(1, Some(1.0), &[]),
        otlp::point(0, Some(1.0), &[]),
        otlp::point(NOW, Some(1.0), &[("__", "x")]),
        otlp::point(NOW, Some(1.0), &[("a", "1"), ("a", "2")]),
        otlp::point(NOW, Some(1.0), &[("a", &long)]),
        otlp::point(NOW + 3_600_000, Some(1.0), &[]),
    ];
    let points = (0..ITEMS)
        .map(|i| match BAD.iter().position(|at| *at == i) {
            Some(kind) => bad[kind].clone(),
            None => otlp::point(NOW, Some(i as f64), &[("n", &i.to_string())]),
        })
        .collect();
    check(Case {
        path: "/v1/metrics",
        content_type: "application/x-protobuf",
        body: otlp::gauge("m", points),
        place: "point",
        first: 0,
        reasons: OTLP_REASONS,
        status: StatusCode::OK,
    })
    .await;
}

#[tokio::test]
async fn otlp_in_json() {
    let time = format!("{NOW}000000");
    let good = |i: usize| {
        json!({ "timeUnixNano": time, "asDouble": i,
                "attributes": [{ "key": "n", "value": { "stringValue": i.to_string() } }] })
    };
    let with = |key: &str, value: &str| {
        json!({ "timeUnixNano": time, "asDouble": 1,
                "attributes": [{ "key": key, "value": { "stringValue": value } }] })
    };
    let twice = json!({ "timeUnixNano": time, "asDouble": 1, "attributes": [
        { "key": "a", "value": { "stringValue": "1" } }, { "key": "a", "value": { "stringValue": "2" } }] });
    let bad = [
        json!({ "timeUnixNano": time }),
        json!({ "timeUnixNano": "1", "asDouble": 1 }),
        json!({ "asDouble": 1 }),
        with("__", "x"),
        twice,
        with("a", &long()),
        json!({ "timeUnixNano": format!("{}000000", NOW + 3_600_000), "asDouble": 1 }),
    ];
    let points: Vec<Value> = (0..ITEMS)
        .map(|i| match BAD.iter().position(|at| *at == i) {
            Some(kind) => bad[kind].clone(),
            None => good(i),
        })
        .collect();
    let body = json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [
        { "name": "m", "gauge": { "dataPoints": points } }] }] }] });
    check(Case {
        path: "/v1/metrics",
        content_type: "application/json",
        body: body.to_string().into_bytes(),
        place: "point",
        first: 0,
        reasons: OTLP_REASONS,
        status: StatusCode::OK,
    })
    .await;
}
