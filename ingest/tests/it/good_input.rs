//! What is taken, and what it becomes.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use millrace_ingest::IngestOptions;
use millrace_model::{MetricMetadata, MetricType, STALE_NAN_BITS};
use millrace_queue::{AppenderOptions, Position};

use crate::rig::prompb::{self, WriteRequest};
use crate::rig::{NOW, Rig, SNAPPY_PROTOBUF};

fn expect(series: &[(&str, &[(i64, f64)])]) -> BTreeMap<String, Vec<(i64, f64)>> {
    series
        .iter()
        .map(|(name, samples)| ((*name).to_owned(), samples.to_vec()))
        .collect()
}

#[tokio::test]
async fn a_device_object_becomes_one_series_per_field() {
    let rig = Rig::new();
    let body = r#"{"device":"pump-7","tags":{"site":"north"},"timestamp":1795219100000,
                   "fields":{"temperature":21.5,"running":true}}"#;
    let answer = rig.post(
        "/api/v1/push",
        &[("content-type", "application/json")],
        body,
    );
    let answer = answer.await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(
        answer.json(),
        serde_json::json!({"accepted": 2, "rejected": 0})
    );
    let at = 1_795_219_100_000;
    assert_eq!(
        rig.values(),
        expect(&[
            ("running{device=\"pump-7\", site=\"north\"}", &[(at, 1.0)]),
            (
                "temperature{device=\"pump-7\", site=\"north\"}",
                &[(at, 21.5)]
            ),
        ])
    );
    assert_eq!(answer.header("millrace-durability"), "disk");
    let position: Position = answer.header("millrace-position").parse().unwrap();
    assert_eq!(position.queue, rig.queue.identity().id);
    assert_eq!(position.next.len(), 1, "one device, one partition");
}

#[tokio::test]
async fn array_and_lines_are_taken_with_and_without_a_content_type() {
    let array = r#"[{"device":"a","fields":{"x":1}}, {"device":"b","fields":{"x":2}}]"#;
    let lines =
        "{\"device\":\"a\",\"fields\":{\"x\":1}}\n\n{\"device\":\"b\",\"fields\":{\"x\":2}}\r\n";
    for (content_type, body) in [
        (None, array),
        (Some("application/json"), array),
        (None, lines),
        (Some("application/json"), lines),
        (Some("application/x-ndjson"), lines),
        (Some("text/plain; charset=utf-8"), lines),
        (Some("application/x-www-form-urlencoded"), lines),
    ] {
        let rig = Rig::new();
        let headers: Vec<_> = content_type
            .map(|t| ("content-type", t))
            .into_iter()
            .collect();
        let answer = rig.post("/api/v1/push", &headers, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let stored = expect(&[
            ("x{device=\"a\"}", &[(NOW, 1.0)]),
            ("x{device=\"b\"}", &[(NOW, 2.0)]),
        ]);
        assert_eq!(rig.values(), stored, "{content_type:?} {body}");
    }
}

#[tokio::test]
async fn line_protocol_becomes_measurement_and_field() {
    for (path, status) in [
        ("/write?db=d&precision=s", StatusCode::NO_CONTENT),
        (
            "/api/v2/write?org=o&bucket=b&precision=s",
            StatusCode::NO_CONTENT,
        ),
    ] {
        let rig = Rig::new();
        let body = "# weather\nweather,site=a wind=7,text=\"calm\",rain=true 1795219100\n\
                    up,host=h value=1i\n";
        let answer = rig.post(path, &[], body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("x-influxdb-version"), "1.8.10");
        assert_eq!(
            rig.values(),
            expect(&[
                ("up{host=\"h\"}", &[(NOW, 1.0)]),
                ("weather_rain{site=\"a\"}", &[(1_795_219_100_000, 1.0)]),
                ("weather_wind{site=\"a\"}", &[(1_795_219_100_000, 7.0)]),
            ])
        );
        let skipped = [("kind", "string_field")];
        assert_eq!(rig.metric("millrace_ingest_ignored_total", &skipped), 1.0);
    }
}

#[tokio::test]
async fn the_database_becomes_a_label_where_that_is_set() {
    let options = IngestOptions {
        influx_database_label: Some("db".to_owned()),
        ..IngestOptions::default()
    };
    let rig = Rig::with(options, AppenderOptions::default());
    for (path, body) in [
        ("/write?db=one", "m,a=b value=1"),
        ("/api/v2/write?bucket=two", "m,a=b value=2"),
        ("/write?db=three", "m,db=own value=3"),
        ("/write", "m,a=b value=4"),
    ] {
        let answer = rig.post(path, &[], body).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    }
    assert_eq!(
        rig.values(),
        expect(&[
            ("m{a=\"b\"}", &[(NOW, 4.0)]),
            ("m{a=\"b\", db=\"one\"}", &[(NOW, 1.0)]),
            ("m{a=\"b\", db=\"two\"}", &[(NOW, 2.0)]),
            ("m{db=\"own\"}", &[(NOW, 3.0)]),
        ])
    );
}

#[tokio::test]
async fn remote_write_keeps_every_bit() {
    let rig = Rig::new();
    let values = [
        f64::from_bits(STALE_NAN_BITS),
        f64::from_bits(0x7ff8_0000_0000_0001),
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        5e-324,
        0.1,
    ];
    let samples: Vec<_> = (0..).map(|i| NOW - 1000 + i).zip(values).collect();
    let mut series = prompb::series(&[("__name__", "up"), ("job", "node")], &samples);
    series.exemplars.push(prompb::Exemplar::default());
    let request = WriteRequest {
        timeseries: vec![series],
        metadata: vec![],
    };
    let answer = rig
        .post("/api/v1/write", SNAPPY_PROTOBUF, prompb::body(&request))
        .await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    let bits: Vec<_> = samples.iter().map(|(ms, v)| (*ms, v.to_bits())).collect();
    assert_eq!(rig.stored()["up{job=\"node\"}"], bits);
    let exemplars = [("kind", "exemplar")];
    assert_eq!(rig.metric("millrace_ingest_ignored_total", &exemplars), 1.0);
}

#[tokio::test]
async fn metadata_are_queued_when_they_are_news() {
    let rig = Rig::new();
    let entry = |metric: &str, metric_type, help: &str| prompb::MetricMetadata {
        metric_type,
        metric_family_name: metric.to_owned(),
        help: help.to_owned(),
        unit: String::new(),
    };
    let send = |metadata: Vec<prompb::MetricMetadata>| {
        let request = WriteRequest {
            timeseries: vec![],
            metadata,
        };
        rig.post("/api/v1/write", SNAPPY_PROTOBUF, prompb::body(&request))
    };
    let helps = |metric: &str| -> Vec<String> {
        let all = rig.metadata().into_iter().filter(|m| m.metric == metric);
        all.map(|m| m.help).collect()
    };
    let first = vec![
        entry("a_total", 1, "one"),
        entry("b", 2, "two"),
        entry("c", 99, ""),
    ];
    for _ in 0..3 {
        let answer = send(first.clone()).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    }
    let meta = |metric: &str, metric_type, help: &str| MetricMetadata {
        metric: metric.to_owned(),
        metric_type,
        help: help.to_owned(),
        unit: String::new(),
    };
    assert_eq!(
        rig.metadata(),
        [
            meta("a_total", MetricType::Counter, "one"),
            meta("b", MetricType::Gauge, "two"),
            meta("c", MetricType::Unknown, ""),
        ]
    );
    // Changed, and changed back: both are news, each once.
    send(vec![entry("b", 2, "other")]).await;
    send(vec![entry("b", 2, "two")]).await;
    send(vec![entry("b", 2, "two")]).await;
    assert_eq!(helps("b"), ["two", "other", "two"]);
    // After an hour they are told again.
    rig.clock.advance(std::time::Duration::from_secs(3600));
    send(vec![entry("b", 2, "two")]).await;
    assert_eq!(helps("b").len(), 4);
}

#[tokio::test]
async fn known_series_come_out_as_new_ones_did() {
    let rig = Rig::new();
    let json = r#"[{"device":"d","tags":{"b":"2","a":"1"},"fields":{"x":1,"y":2}}]"#;
    // The same series from another order of tags.
    let turned = r#"[{"tags":{"a":"1","b":"2"},"fields":{"y":2,"x":1},"device":"d"}]"#;
    let lines = "m,b=2,a=1 x=1,y=2\nm,a=1,b=2 y=2,x=1";
    for round in 1..=3 {
        for body in [json, turned] {
            let answer = rig.post("/api/v1/push", &[], body).await;
            assert_eq!(answer.json()["accepted"], 2);
        }
        let answer = rig.post("/write", &[], lines).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        let values = rig.values();
        assert_eq!(values.len(), 4);
        for (series, samples) in values {
            let value = if series.contains('x') { 1.0 } else { 2.0 };
            assert_eq!(samples, vec![(NOW, value); 2 * round], "{series}");
        }
    }
    let hits = rig.metric("millrace_ingest_series_cache_hits_total", &[]);
    let misses = rig.metric("millrace_ingest_series_cache_misses_total", &[]);
    assert_eq!((hits, misses), (16.0, 8.0));
    assert_eq!(rig.metric("millrace_ingest_series_cache_series", &[]), 8.0);
}

#[tokio::test]
async fn of_two_values_for_one_timestamp_the_later_stands_later() {
    let rig = Rig::new();
    // Three ways of writing one series; only the second is known beforehand.
    rig.post("/write", &[], "m,b=2,a=1 value=0 1795219100000000000")
        .await;
    let body = "m,a=1,b=2 value=1 1795219100000000000\nm,b=2,a=1 value=2 1795219100000000000\n\
                m,a=1,b=2 value=3 1795219100000000000\n";
    let answer = rig.post("/write", &[], body).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let values: Vec<f64> = rig.values()["m{a=\"1\", b=\"2\"}"]
        .iter()
        .map(|s| s.1)
        .collect();
    assert_eq!(values, [0.0, 1.0, 2.0, 3.0]);
}

#[tokio::test]
async fn every_encoding_is_undone() {
    use std::io::Write;
    let body = b"m value=1\nm,a=b value=2\n";
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(body).unwrap();
    let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).unwrap();
    for (encoding, bytes) in [
        ("identity", body.to_vec()),
        ("gzip", gzip(body)),
        ("GZIP", [gzip(&body[..7]), gzip(&body[7..])].concat()),
        ("deflate", deflate.finish().unwrap()),
        ("zstd", zstd(body)),
        ("zstd", [zstd(&body[..7]), zstd(&body[7..])].concat()),
        (
            "snappy",
            snap::raw::Encoder::new().compress_vec(body).unwrap(),
        ),
    ] {
        let rig = Rig::new();
        let answer = rig
            .post("/write", &[("content-encoding", encoding)], bytes)
            .await;
        assert_eq!(
            answer.status,
            StatusCode::NO_CONTENT,
            "{encoding}: {}",
            answer.text()
        );
        let stored = expect(&[("m", &[(NOW, 1.0)]), ("m{a=\"b\"}", &[(NOW, 2.0)])]);
        assert_eq!(rig.values(), stored, "{encoding}");
    }
}

#[tokio::test]
async fn remote_write_is_taken_without_its_headers() {
    let rig = Rig::new();
    let request = WriteRequest {
        timeseries: vec![prompb::series(&[("__name__", "up")], &[(NOW, 1.0)])],
        metadata: vec![],
    };
    let answer = rig.post("/api/v1/write", &[], prompb::body(&request)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    assert_eq!(rig.values(), expect(&[("up", &[(NOW, 1.0)])]));
}

#[tokio::test]
async fn requests_without_samples_store_nothing_and_have_no_position() {
    let rig = Rig::new();
    let empty = prompb::body(&WriteRequest::default());
    for answer in [
        rig.post("/api/v1/write", SNAPPY_PROTOBUF, empty).await,
        rig.post("/write", &[], "").await,
        rig.post("/write", &[], "# only a comment\n\n").await,
    ] {
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
        assert_eq!(answer.header("millrace-position"), "");
    }
    assert!(rig.stored().is_empty());
}

#[tokio::test]
async fn ping_and_health_answer_as_clients_of_influxdb_expect() {
    let rig = Rig::new();
    let get = |method: Method, path: &str| {
        let request = Request::builder().method(method).uri(path);
        rig.send(request.body(Body::empty()).unwrap())
    };
    for method in [Method::GET, Method::HEAD] {
        let answer = get(method, "/ping").await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(answer.header("x-influxdb-version"), "1.8.10");
    }
    let answer = get(Method::GET, "/ping?verbose=true").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.json()["version"].is_string());
    let answer = get(Method::GET, "/health").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["status"], "pass");
}
