//! Every protocol with good, partly bad, wholly bad, too large, wrongly encoded and mistyped
//! requests, from a tenant that has its series or is over its rate, and when the server is overloaded: the
//! table of `docs/protocols.md`.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use millrace_ingest::{IngestOptions, Limits, PushContext, TenantLimits};
use millrace_queue::AppenderOptions;

use crate::rig::{Answer, NOW, Rig, prompb, prompb2};

const PAGE: &str = include_str!("../../../docs/protocols.md");

/// A way in: what its clients send, and what they get.
struct Protocol {
    /// As the page calls it.
    name: &'static str,
    path: &'static str,
    content_type: &'static str,
    encoding: &'static str,
    good: Vec<u8>,
    partly: Vec<u8>,
    bad: Vec<u8>,
    /// How many samples are stored of the good one.
    samples: usize,
}

fn snappy(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

fn remote_write(labels: &[&[(&str, &str)]]) -> Vec<u8> {
    let series = labels.iter().map(|l| prompb::series(l, &[(NOW, 1.0)]));
    prompb::body(&prompb::WriteRequest {
        timeseries: series.collect(),
        metadata: vec![],
    })
}

fn remote_write_2(labels: &[&[(&str, &str)]]) -> Vec<u8> {
    let mut table = prompb2::Table::new();
    let series: Vec<_> = labels.iter().map(|l| table.series(l, NOW, 1.0)).collect();
    snappy(&table.body(series))
}

/// A gauge in protobuf, written by hand: points with and without a value.
fn otlp(values: &[Option<f64>]) -> Vec<u8> {
    fn message(out: &mut Vec<u8>, field: u8, content: &[u8]) {
        out.push(field << 3 | 2);
        out.push(u8::try_from(content.len()).unwrap());
        out.extend_from_slice(content);
    }
    let mut points = Vec::new();
    for value in values {
        let mut point = vec![0x19];
        point.extend((NOW as u64 * 1_000_000).to_le_bytes());
        if let Some(value) = value {
            point.push(0x21);
            point.extend(value.to_le_bytes());
        }
        message(&mut points, 1, &point);
    }
    let mut metric = Vec::new();
    message(&mut metric, 1, b"m");
    message(&mut metric, 5, &points);
    let (mut scope, mut resource, mut request) = (Vec::new(), Vec::new(), Vec::new());
    message(&mut scope, 2, &metric);
    message(&mut resource, 2, &scope);
    message(&mut request, 1, &resource);
    request
}

fn otlp_json(points: &str) -> Vec<u8> {
    format!(
        "{{\"resourceMetrics\":[{{\"scopeMetrics\":[{{\"metrics\":[{{\"name\":\"m\",\
         \"gauge\":{{\"dataPoints\":[{points}]}}}}]}}]}}]}}"
    )
    .into_bytes()
}

fn limited(limits: TenantLimits) -> IngestOptions {
    IngestOptions {
        limits,
        ..IngestOptions::default()
    }
}

fn text(
    name: &'static str,
    path: &'static str,
    content_type: &'static str,
    bodies: [&str; 3],
) -> Protocol {
    let [good, partly, bad] = bodies.map(|body| body.as_bytes().to_vec());
    Protocol {
        name,
        path,
        content_type,
        encoding: "identity",
        good,
        partly,
        bad,
        samples: 1,
    }
}

fn protocols() -> Vec<Protocol> {
    let lines = ["m v=1\n", "m v=1\nlonely\n", "lonely\n"];
    let exposition = ["m 1\n", "m 1\nlonely\n", "lonely\n"];
    let vm = "{\"metric\":{\"__name__\":\"m\"},\"values\":[1],\"timestamps\":[1795219200000]}\n";
    let good: &[(&str, &str)] = &[("__name__", "m")];
    let bad: &[(&str, &str)] = &[("a", "b")];
    let point = format!("{{\"timeUnixNano\":\"{NOW}000000\",\"asInt\":1}}");
    let item = "{\"device\":\"d\",\"fields\":{\"v\":1}}";
    vec![
        text(
            "JSON of devices",
            "/api/v1/push",
            "application/json",
            [item, &format!("[{item},1]"), "[1]"],
        ),
        text("line protocol v1", "/write", "text/plain", lines),
        text(
            "line protocol v2",
            "/api/v2/write?bucket=b",
            "text/plain",
            lines,
        ),
        text(
            "line protocol v3",
            "/api/v3/write_lp?db=d",
            "text/plain",
            lines,
        ),
        Protocol {
            name: "remote write 1.0",
            path: "/api/v1/write",
            content_type: "application/x-protobuf",
            encoding: "snappy",
            good: remote_write(&[good]),
            partly: remote_write(&[good, bad]),
            bad: remote_write(&[bad]),
            samples: 1,
        },
        Protocol {
            name: "remote write 2.0",
            path: "/api/v1/write",
            content_type: "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            encoding: "snappy",
            good: remote_write_2(&[good]),
            partly: remote_write_2(&[good, bad]),
            bad: remote_write_2(&[bad]),
            samples: 1,
        },
        Protocol {
            name: "OTLP, protobuf",
            path: "/v1/metrics",
            content_type: "application/x-protobuf",
            encoding: "identity",
            good: otlp(&[Some(1.0)]),
            partly: otlp(&[Some(1.0), None]),
            bad: otlp(&[None]),
            samples: 1,
        },
        Protocol {
            name: "OTLP, JSON",
            path: "/v1/metrics",
            content_type: "application/json",
            encoding: "identity",
            good: otlp_json(&point),
            partly: otlp_json(&format!("{point},{{}}")),
            bad: otlp_json("{}"),
            samples: 1,
        },
        text(
            "text format",
            "/api/v1/import/prometheus",
            "text/plain",
            exposition,
        ),
        text(
            "OpenMetrics",
            "/api/v1/import/prometheus",
            "application/openmetrics-text",
            ["m 1\n# EOF\n", "m 1\nlonely\n# EOF\n", "lonely\n# EOF\n"],
        ),
        text("Pushgateway", "/metrics/job/j", "text/plain", exposition),
        text(
            "CSV",
            "/api/v1/import/csv?format=1:metric:m",
            "text/csv",
            ["1\n", "1\nx\n", "x\n"],
        ),
        text(
            "JSON lines",
            "/api/v1/import",
            "application/json",
            [vm, &format!("{vm}x\n"), "x\n"],
        ),
    ]
}

impl Protocol {
    async fn send(&self, rig: &Rig, content_type: &str, encoding: &str, body: Vec<u8>) -> Answer {
        let headers = [
            ("content-type", content_type),
            ("content-encoding", encoding),
        ];
        rig.post(self.path, &headers, body).await
    }

    /// What is answered to each request, and how many samples are stored of it.
    async fn row(&self) -> [(Answer, usize); 9] {
        let rig = Rig::new();
        let good = self
            .send(&rig, self.content_type, self.encoding, self.good.clone())
            .await;
        let good_stored = rig.values().len();
        assert_eq!(good_stored, self.samples, "{}", self.name);
        assert!(
            !good.header("millrace-position").is_empty(),
            "{}",
            self.name
        );
        let rig = Rig::new();
        let partly = self
            .send(&rig, self.content_type, self.encoding, self.partly.clone())
            .await;
        let partly_stored = rig.values().len();
        let rig = Rig::new();
        let bad = self
            .send(&rig, self.content_type, self.encoding, self.bad.clone())
            .await;
        let limits = TenantLimits {
            request: Limits {
                body_bytes: 4,
                ..Limits::default()
            },
            ..TenantLimits::default()
        };
        let small = Rig::with(limited(limits), AppenderOptions::default());
        let large = self
            .send(&small, self.content_type, self.encoding, vec![b'x'; 5])
            .await;
        assert!(small.values().is_empty(), "{}", self.name);
        let wrong = self
            .send(&rig, self.content_type, "gzip", b"no gzip".to_vec())
            .await;
        let mistyped = self
            .send(&rig, "image/png", self.encoding, self.good.clone())
            .await;
        assert!(rig.values().is_empty(), "{}", self.name);
        let options = IngestOptions {
            decode_memory_bytes: 1,
            ..IngestOptions::default()
        };
        let full = Rig::with(options, AppenderOptions::default());
        let late = self
            .send(&full, self.content_type, self.encoding, self.good.clone())
            .await;
        assert!(!late.header("retry-after").is_empty(), "{}", self.name);
        assert!(full.values().is_empty(), "{}", self.name);
        let limits = TenantLimits {
            active_series: Some(0),
            ..TenantLimits::default()
        };
        let no_series = Rig::with(limited(limits), AppenderOptions::default());
        let beyond = self
            .send(
                &no_series,
                self.content_type,
                self.encoding,
                self.good.clone(),
            )
            .await;
        let text = String::from_utf8_lossy(&beyond.body).into_owned();
        assert!(text.contains("ingest.tenants.active_series"), "{text}");
        assert!(no_series.values().is_empty(), "{}", self.name);
        let limits = TenantLimits {
            samples_per_second: Some(1),
            samples_burst: Some(1),
            ..TenantLimits::default()
        };
        let slow = Rig::with(limited(limits), AppenderOptions::default());
        let first = self
            .send(&slow, self.content_type, self.encoding, self.good.clone())
            .await;
        assert!(first.status.is_success(), "{}", self.name);
        let fast = self
            .send(&slow, self.content_type, self.encoding, self.good.clone())
            .await;
        let text = String::from_utf8_lossy(&fast.body).into_owned();
        assert!(text.contains("ingest.tenants.samples_per_second"), "{text}");
        assert!(!fast.header("retry-after").is_empty(), "{}", self.name);
        assert_eq!(slow.values().values().flatten().count(), 1, "{}", self.name);
        if self.name == "remote write 2.0" {
            for (answer, count) in [
                (&good, "1"),
                (&partly, "1"),
                (&bad, "0"),
                (&large, "0"),
                (&wrong, "0"),
                (&late, "0"),
                (&beyond, "0"),
                (&fast, "0"),
            ] {
                assert_eq!(
                    answer.header("x-prometheus-remote-write-samples-written"),
                    count
                );
                assert_eq!(
                    answer.header("x-prometheus-remote-write-histograms-written"),
                    "0"
                );
                assert_eq!(
                    answer.header("x-prometheus-remote-write-exemplars-written"),
                    "0"
                );
            }
        }
        [
            (good, good_stored),
            (partly, partly_stored),
            (bad, 0),
            (large, 0),
            (wrong, 0),
            (mistyped, 0),
            (beyond, 0),
            (fast, 0),
            (late, 0),
        ]
    }
}

/// How an answer's body looks to who reads it by its type.
fn form(answer: &Answer) -> String {
    let content_type = answer.header("content-type");
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    match (kind, &answer.body[..]) {
        (_, []) => "none".to_owned(),
        ("application/json", _) => {
            let json = answer.json();
            let keys = json.as_object().expect("an object").keys();
            let keys: Vec<_> = keys.map(|key| format!("`{key}`")).collect();
            format!("JSON: {}", keys.join(", "))
        }
        // Field 1 is the code, a number: field 1 of a success is a message.
        ("application/x-protobuf", [0x08, ..]) => "protobuf: `google.rpc.Status`".to_owned(),
        ("text/plain", _) => "text".to_owned(),
        other => panic!("a body of no known form: {other:?}"),
    }
}

#[tokio::test]
async fn the_tables_of_protocols_are_what_happens() {
    let (mut statuses, mut forms) = (String::new(), Vec::new());
    for protocol in protocols() {
        let row = protocol.row().await;
        let cells = row
            .iter()
            .map(|(answer, stored)| format!("{} ({stored})", answer.status.as_str()));
        let cells: Vec<_> = cells.collect();
        statuses.push_str(&format!("| {} | {} |\n", protocol.name, cells.join(" | ")));
        let one = |columns: &[usize]| {
            let answers = columns.iter().map(|column| &row[*column].0);
            let refused = answers.filter(|answer| !answer.status.is_success());
            let mut forms: Vec<_> = refused.map(form).collect();
            forms.sort();
            forms.dedup();
            assert!(!forms.contains(&"none".to_owned()), "{}", protocol.name);
            forms.join(" or ")
        };
        // Items that are refused, and requests that are.
        let (items, request) = (one(&[1, 2, 6]), one(&[3, 4, 5, 7, 8]));
        forms.push(format!("| {} | {items} | {request} |", protocol.name));
    }
    let right = PAGE.contains(&statuses) && forms.iter().all(|row| PAGE.contains(row));
    assert!(
        right,
        "docs/protocols.md should say:\n{statuses}and begin rows so:\n{}",
        forms.join("\n")
    );
}

#[tokio::test]
async fn partial_success_is_exact_in_both_encodings() {
    let rig = Rig::new();
    let json = protocols()
        .into_iter()
        .find(|p| p.name == "OTLP, JSON")
        .unwrap();
    let answer = json
        .send(&rig, json.content_type, json.encoding, json.good.clone())
        .await;
    assert_eq!(answer.json(), serde_json::json!({}));
    let answer = json
        .send(&rig, json.content_type, json.encoding, json.partly.clone())
        .await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json()["partialSuccess"]["rejectedDataPoints"], "1");
    let message = answer.json()["partialSuccess"]["errorMessage"].to_string();
    assert!(message.contains("data point 1"), "{message}");
    let answer = json
        .send(&rig, json.content_type, json.encoding, json.bad.clone())
        .await;
    assert_eq!(answer.json()["code"], 3);

    let protobuf = protocols()
        .into_iter()
        .find(|p| p.name == "OTLP, protobuf")
        .unwrap();
    let send = |body: Vec<u8>| protobuf.send(&rig, protobuf.content_type, "identity", body);
    let good = send(protobuf.good.clone()).await;
    assert_eq!(good.header("content-type"), "application/x-protobuf");
    assert!(good.body.is_empty(), "partial_success is unset");
    let partly = send(protobuf.partly.clone()).await;
    // partial_success = 1, in it rejected_data_points = 1: one.
    assert_eq!(partly.body[0], 0x0a);
    let inside = if partly.body[1] < 0x80 { 2 } else { 3 };
    assert_eq!(&partly.body[inside..inside + 2], [0x08, 1]);
    let bad = send(protobuf.bad.clone()).await;
    assert_eq!(
        &bad.body[..2],
        [0x08, 3],
        "google.rpc.Status: INVALID_ARGUMENT"
    );
    // Nothing to store is a success.
    assert_eq!(send(Vec::new()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn influx_v3_keeps_all_or_nothing_as_asked() {
    let rig = Rig::new();
    let body = "# first\ngood v=1\nbad\n";
    let answer = rig
        .post("/api/v3/write_lp?db=d&accept_partial=false", &[], body)
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer.json()["error"],
        "parsing failed for write_lp endpoint"
    );
    assert_eq!(answer.json()["data"]["line_number"], 3);
    assert_eq!(answer.json()["data"]["original_line"], "bad");
    assert!(rig.stored().is_empty());
    let answer = rig.post("/api/v3/write_lp?db=d", &[], body).await;
    assert_eq!(
        answer.json()["error"],
        "partial write of line protocol occurred"
    );
    assert_eq!(answer.json()["data"][0]["line_number"], 3);
    assert_eq!(rig.stored().len(), 1);
    let all = rig
        .post(
            "/api/v3/write_lp?db=d&accept_partial=false",
            &[],
            "good v=2\n",
        )
        .await;
    assert_eq!(all.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn influx_clients_create_and_show_databases() {
    let rig = Rig::new();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let created = rig
        .post("/query", &form, "q=CREATE+DATABASE+%22telegraf%22")
        .await;
    assert_eq!(created.status, StatusCode::OK);
    assert_eq!(
        created.json(),
        serde_json::json!({ "results": [{ "statement_id": 0 }] })
    );
    let shown = rig.post("/query?q=SHOW%20DATABASES", &[], "").await;
    assert_eq!(shown.json()["results"][0]["series"][0]["name"], "databases");
    let select = rig.post("/query?q=SELECT%201", &[], "").await;
    assert_eq!(select.status, StatusCode::BAD_REQUEST);
    assert!(select.text().contains("PromQL"));
}

#[tokio::test]
async fn pushgateway_paths_label_every_series_and_delete_says_what_it_does() {
    let rig = Rig::new();
    let path = "/metrics/job/a/instance@base64/aC8x";
    let answer = rig.post(path, &[], "m{job=\"own\",x=\"1\"} 1\n").await;
    assert_eq!(answer.status, StatusCode::OK);
    let series: Vec<String> = rig.stored().into_keys().collect();
    assert_eq!(series, ["m{instance=\"h/1\", job=\"a\", x=\"1\"}"]);
    for (method, status) in [
        (Method::DELETE, 202),
        (Method::PUT, 200),
        (Method::GET, 405),
    ] {
        let request = Request::builder().method(method).uri(path);
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status);
    }
}

#[tokio::test]
async fn extra_labels_and_forced_labels_stand_over_the_bodys() {
    let rig = Rig::new();
    let context = PushContext {
        forced_labels: vec![("site".to_owned(), "north".to_owned())],
        ..PushContext::default()
    };
    let path = "/api/v1/import/prometheus?extra_label=site=mine&extra_label=a=b";
    let mut request = Request::post(path)
        .body(Body::from("m{site=\"own\"} 1\n"))
        .unwrap();
    request.extensions_mut().insert(context);
    assert_eq!(rig.send(request).await.status, StatusCode::NO_CONTENT);
    // The same bytes without them are another series.
    rig.post("/api/v1/import/prometheus", &[], "m{site=\"own\"} 1\n")
        .await;
    let series: Vec<String> = rig.stored().into_keys().collect();
    assert_eq!(series, ["m{a=\"b\", site=\"north\"}", "m{site=\"own\"}"]);
}

#[tokio::test]
async fn every_protocol_takes_every_encoding() {
    use std::io::Write;
    for protocol in protocols() {
        let plain = match protocol.encoding {
            "snappy" => snap::raw::Decoder::new()
                .decompress_vec(&protocol.good)
                .unwrap(),
            _ => protocol.good.clone(),
        };
        let gzip = |bytes: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let mut members = gzip(&plain[..plain.len() / 2]);
        members.extend(gzip(&plain[plain.len() / 2..]));
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&plain).unwrap();
        for (encoding, body) in [
            ("identity", plain.clone()),
            ("gzip", members),
            ("deflate", zlib.finish().unwrap()),
            ("zstd", zstd::stream::encode_all(&plain[..], 1).unwrap()),
            ("snappy", snappy(&plain)),
        ] {
            let rig = Rig::new();
            let answer = protocol
                .send(&rig, protocol.content_type, encoding, body)
                .await;
            assert!(
                answer.status.is_success(),
                "{} {encoding}: {}",
                protocol.name,
                answer.text()
            );
            assert_eq!(rig.values().len(), protocol.samples);
        }
    }
}
