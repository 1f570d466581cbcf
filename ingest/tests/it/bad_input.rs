//! Every bad input gets its status and a message that names the cause.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use millrace_ingest::{IngestOptions, Limits, TenantLimits};
use millrace_queue::AppenderOptions;

use crate::rig::prompb::{self, WriteRequest};
use crate::rig::{NOW, Rig, SNAPPY_PROTOBUF};

const PUSH: &str = "/api/v1/push";
const REMOTE_WRITE: &str = "/api/v1/write";
const JSON: (&str, &str) = ("content-type", "application/json");
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// A request that is refused as a whole: nothing is stored, and the body says why.
struct Refused {
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    status: u16,
    words: &'static str,
}

fn refused(
    path: &'static str,
    headers: &[(&'static str, &'static str)],
    body: impl Into<Vec<u8>>,
    status: u16,
    words: &'static str,
) -> Refused {
    Refused {
        path,
        headers: headers.to_vec(),
        body: body.into(),
        status,
        words,
    }
}

fn small() -> IngestOptions {
    IngestOptions {
        limits: TenantLimits {
            request: Limits {
                body_bytes: 1000,
                decoded_bytes: 2000,
                samples: 20,
                series: 10,
                ..Limits::default()
            },
            ..TenantLimits::default()
        },
        ..IngestOptions::default()
    }
}

/// Good lines of one series, `len` bytes in all.
fn lines(len: usize) -> Vec<u8> {
    let mut body = b"m value=1\n# ".to_vec();
    body.resize(len, b'x');
    body
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn requests_that_are_refused_as_a_whole() {
    let item = r#"{"device":"d","fields":{"x":1}}"#;
    let good = lines(20);
    let mut table = vec![
        refused(PUSH, &[JSON], "", 400, "found the end, at line 1 column 1"),
        refused(
            PUSH,
            &[JSON],
            "{\"device\":",
            400,
            "expected a value, found the end, at line 1",
        ),
        refused(
            PUSH,
            &[JSON],
            format!("[{item},"),
            400,
            "at line 1 column 34",
        ),
        refused(
            PUSH,
            &[JSON],
            &b"{\"\xff"[..],
            400,
            "not UTF-8 at line 1 column 3",
        ),
        refused(
            "/api/v1/push?precision=day",
            &[JSON],
            item,
            400,
            "parameter precision=\"day\": one of ns, us, ms, s, m, h",
        ),
        refused(
            PUSH,
            &[("content-type", "application/xml")],
            item,
            415,
            "\"application/xml\"",
        ),
        refused(
            PUSH,
            &[("content-type", "application/json; charset=latin1")],
            item,
            415,
            "text in UTF-8",
        ),
        refused(
            PUSH,
            &[("content-encoding", "br")],
            item,
            415,
            "\"br\" is not taken: one of",
        ),
        refused(
            PUSH,
            &[("content-encoding", "gzip, gzip")],
            item,
            415,
            "\"gzip, gzip\" is not taken",
        ),
        refused(
            PUSH,
            &[("content-encoding", "gzip")],
            item,
            400,
            "not valid gzip",
        ),
        refused(
            PUSH,
            &[("content-encoding", "zstd")],
            item,
            400,
            "not valid zstd",
        ),
        refused(
            PUSH,
            &[("content-encoding", "snappy")],
            item,
            400,
            "not valid snappy",
        ),
        refused(
            PUSH,
            &[("content-encoding", "deflate")],
            item,
            400,
            "not valid deflate",
        ),
        refused(
            PUSH,
            &[],
            vec![b' '; 1001],
            413,
            "body (ingest.limits.body_bytes): 1001 bytes, the limit is 1000 bytes",
        ),
        refused(
            PUSH,
            &[("content-encoding", "gzip")],
            gzip(&[b' '; 2001]),
            413,
            "decoded body (ingest.limits.decoded_bytes)",
        ),
        refused(
            REMOTE_WRITE,
            SNAPPY_PROTOBUF,
            "not snappy",
            400,
            "not valid snappy (block format)",
        ),
        refused(
            REMOTE_WRITE,
            SNAPPY_PROTOBUF,
            snap::raw::Encoder::new().compress_vec(b"\x0a\xff").unwrap(),
            400,
            "not a remote write request: bad varint at byte 1 of the decompressed body",
        ),
        refused(
            REMOTE_WRITE,
            &[(
                "content-type",
                "application/x-protobuf;proto=io.prometheus.write.v2.Request",
            )],
            &b"\x01\x00\x00"[..],
            400,
            "not a remote write 2.0 request: bad field number 0 at byte 0",
        ),
        refused(
            REMOTE_WRITE,
            &[(
                "content-type",
                "application/x-protobuf;proto=io.prometheus.write.v3.Request",
            )],
            "",
            415,
            "io.prometheus.write.v2.Request",
        ),
        refused(REMOTE_WRITE, &[JSON], "", 415, "application/x-protobuf"),
        refused(
            REMOTE_WRITE,
            &[("content-encoding", "lz4")],
            "",
            415,
            "\"lz4\" is not taken",
        ),
        refused(
            REMOTE_WRITE,
            SNAPPY_PROTOBUF,
            vec![0xff, 0xff, 0xff, 0xff, 0x0f],
            413,
            "decoded body (ingest.limits.decoded_bytes): 4294967295 bytes, the limit is 2000 bytes",
        ),
    ];
    for path in ["/write", "/api/v2/write"] {
        table.extend([
            refused(path, &[JSON], good.clone(), 415, "application/json"),
            refused(path, &[("content-encoding", "br")], good.clone(), 415, "br"),
            refused(
                path,
                &[("content-encoding", "gzip")],
                good.clone(),
                400,
                "not valid gzip",
            ),
            refused(
                path,
                &[],
                lines(1001),
                413,
                "body (ingest.limits.body_bytes)",
            ),
            refused(
                path,
                &[("content-encoding", "gzip")],
                gzip(&lines(2001)),
                413,
                "decoded body (ingest.limits.decoded_bytes)",
            ),
            refused(
                path,
                &[],
                "m value=1\n".repeat(21),
                413,
                "samples of the request (ingest.limits.samples)",
            ),
            refused(
                path,
                &[],
                "m a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1,j=1,k=1",
                413,
                "series of the request (ingest.limits.series): 11, the limit is 10",
            ),
        ]);
    }
    table.extend([
        refused(
            "/write?precision=x",
            &[],
            good.clone(),
            400,
            "parameter precision=\\\"x\\\"",
        ),
        refused(
            "/api/v2/write?precision=x",
            &[],
            good,
            400,
            "parameter precision=\\\"x\\\"",
        ),
    ]);

    let rig = Rig::with(small(), AppenderOptions::default());
    for case in table {
        let answer = rig.post(case.path, &case.headers, case.body.clone()).await;
        let text = answer.text();
        let shown = format!("{} {:?}: {} {text}", case.path, case.headers, answer.status);
        assert_eq!(answer.status.as_u16(), case.status, "{shown}");
        let plain = case.words.replace("\\\"", "\"");
        let escaped = plain.replace('"', "\\\"");
        assert!(text.contains(&plain) || text.contains(&escaped), "{shown}");
        assert!(answer.header("millrace-position").is_empty(), "{shown}");
        // The shape is that of the protocol.
        match case.path.split('?').next().unwrap() {
            PUSH => {
                assert_eq!(answer.json()["accepted"], 0, "{shown}");
                assert!(answer.json()["reason"].is_string(), "{shown}");
            }
            "/write" => {
                let error = answer.json()["error"].as_str().unwrap().to_owned();
                assert_eq!(answer.header("x-influxdb-error"), error, "{shown}");
                assert_eq!(answer.header("x-influxdb-version"), "1.8.10");
            }
            "/api/v2/write" => {
                assert!(answer.json()["code"].is_string(), "{shown}");
                assert!(answer.json()["message"].is_string(), "{shown}");
                let has_limit = answer.json()["maxLength"].is_u64();
                assert_eq!(has_limit, case.status == 413, "{shown}");
            }
            _ => assert!(answer.header("content-type").starts_with("text/plain")),
        }
    }
    assert!(rig.stored().is_empty());
    let refused = [("reason", "decoded_too_large")];
    assert_eq!(
        rig.metric("millrace_ingest_refused_requests_total", &refused),
        4.0
    );
}

#[tokio::test]
async fn bodies_of_exactly_the_limit_are_taken() {
    let rig = Rig::with(small(), AppenderOptions::default());
    for body in [lines(999), lines(1000)] {
        assert_eq!(rig.post("/write", &[], body).await.status, 204);
    }
    for len in [1999, 2000] {
        let encoded = [("content-encoding", "gzip")];
        let answer = rig.post("/write", &encoded, gzip(&lines(len))).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    // Without a Content-Length, too.
    for (len, status) in [(1000, 204), (1001, 413)] {
        let body = lines(len);
        let pieces: Vec<_> = body.chunks(7).map(|piece| piece.to_vec()).collect();
        let stream = futures_stream(pieces);
        let request = Request::post("/write").body(stream).unwrap();
        assert_eq!(rig.send(request).await.status.as_u16(), status);
    }
    let samples = "m value=1\n".repeat(20);
    assert_eq!(rig.post("/write", &[], samples).await.status, 204);
    let series = "m a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1,j=1";
    assert_eq!(rig.post("/write", &[], series).await.status, 204);
}

/// A body of unknown length.
fn futures_stream(pieces: Vec<Vec<u8>>) -> Body {
    struct Pieces(std::vec::IntoIter<Vec<u8>>);
    impl http_body::Body for Pieces {
        type Data = bytes::Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
            let piece = self.0.next();
            let frame = piece.map(|piece| Ok(http_body::Frame::data(piece.into())));
            std::task::Poll::Ready(frame)
        }
    }
    Body::new(Pieces(pieces.into_iter()))
}

#[tokio::test]
async fn a_body_too_long_by_its_header_is_not_read() {
    struct Unread;
    impl http_body::Body for Unread {
        type Data = bytes::Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
            panic!("the body was read");
        }
    }
    let rig = Rig::new();
    for (name, value, status) in [
        ("content-length", "10485761", 413),
        ("content-encoding", "br", 415),
        ("content-type", "image/png", 415),
    ] {
        let request = Request::post(PUSH).header(name, value);
        let answer = rig.send(request.body(Body::new(Unread)).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status);
    }
}

#[tokio::test]
async fn other_methods_are_refused_with_those_that_are_allowed() {
    let rig = Rig::new();
    for (path, allow) in [
        (PUSH, "POST"),
        (REMOTE_WRITE, "POST"),
        ("/write", "POST"),
        ("/api/v2/write", "POST"),
        ("/ping", "GET,HEAD"),
        ("/health", "GET,HEAD"),
    ] {
        for method in [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
        ] {
            if allow.contains(method.as_str()) {
                continue;
            }
            let request = Request::builder().method(&method).uri(path);
            let answer = rig.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(
                answer.status,
                StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
            assert_eq!(answer.header("allow"), allow);
            assert!(answer.text().contains(allow));
        }
    }
    let unknown = rig.post("/api/v1/nowhere", &[], "").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn push_stores_the_good_items_and_names_the_bad_ones() {
    let rig = Rig::new();
    let body = format!(
        "{}\n{}\n{}\n{}\n",
        r#"{"device":"a","fields":{"x":1,"state":"ok"}}"#,
        "nonsense",
        r#"{"device":"b","timestamp":1,"fields":{"x":1,"y":2}}"#,
        r#"{"device":"c","fields":{"x":3}}"#,
    );
    let answer = rig.post(PUSH, &[NDJSON], body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let oldest = NOW - 30 * 24 * 3600 * 1000;
    assert_eq!(
        answer.json(),
        serde_json::json!({
            "accepted": 2,
            "rejected": 3,
            "error": "2 samples stored, 3 items refused",
            "errors": [
                {
                    "line": 1, "field": "state", "reason": "unsupported_type",
                    "message": "the value is a string, only numbers and booleans are stored",
                },
                {
                    "line": 2, "reason": "malformed_json",
                    "message": "not JSON: expected a value, at column 1: \"nonsense\"",
                },
                {
                    "line": 3, "series": "device \"b\"", "reason": "too_old",
                    "value": "1", "limit": oldest,
                    "message": format!(
                        "timestamp 1 ms is too old, the oldest taken now is {oldest} ms \
                         (ingest.max_age)"
                    ),
                },
            ],
        })
    );
    assert!(!answer.header("millrace-position").is_empty());
    assert_eq!(answer.header("millrace-durability"), "disk");
    let values = rig.values();
    assert_eq!(values["x{device=\"a\"}"], [(NOW, 1.0)]);
    assert_eq!(values["x{device=\"c\"}"], [(NOW, 3.0)]);
    assert_eq!(values.len(), 2);
    let count = |reason: &str| {
        let name = "millrace_ingest_rejected_samples_total";
        rig.metric(name, &[("reason", reason)])
    };
    assert_eq!(count("too_old"), 2.0);
    assert_eq!(count("malformed_json"), 1.0);
    let accepted = [("protocol", "push")];
    assert_eq!(rig.metric("millrace_ingest_samples_total", &accepted), 2.0);
    let answers = [("protocol", "push"), ("status", "4xx")];
    assert_eq!(rig.metric("millrace_ingest_requests_total", &answers), 1.0);
}

#[tokio::test]
async fn ten_are_described_and_all_are_counted() {
    let rig = Rig::new();
    let bad = "[1,2,3,4,5,6,7,8,9,10,11,12]";
    let answer = rig.post(PUSH, &[JSON], bad).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["accepted"], 0);
    assert_eq!(answer.json()["rejected"], 12);
    assert_eq!(answer.json()["errors"].as_array().unwrap().len(), 10);
    assert_eq!(answer.json()["errors"][9]["index"], 9);
    // Nothing was stored, so there is no position.
    assert!(answer.header("millrace-position").is_empty());
    assert!(rig.stored().is_empty());
}

#[tokio::test]
async fn line_protocol_errors_have_the_shape_of_their_version() {
    let rig = Rig::new();
    let body = "good value=1\nbad\nbad value=x\n";
    let no_fields = "line 2: the line has no fields (byte 4 of the line: \"bad\") (malformed_line)";
    let no_value = "line 3: the value is no number, boolean or quoted string (byte 11 of the line: \
                    \"bad value=x\") (malformed_line)";
    let answer = rig.post("/write?db=d", &[], body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let text = format!("partial write: {no_fields}; {no_value} dropped=2");
    assert_eq!(answer.json(), serde_json::json!({ "error": text }));
    assert_eq!(answer.header("x-influxdb-error"), text);

    let answer = rig.post("/api/v2/write?bucket=b", &[], body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let text = format!("1 sample stored, 2 items refused: {no_fields}; {no_value}");
    assert_eq!(
        answer.json(),
        serde_json::json!({"code": "invalid", "message": text})
    );
    assert_eq!(rig.values()["good"], [(NOW, 1.0), (NOW, 1.0)]);
}

#[tokio::test]
async fn remote_write_tells_the_first_reason_in_the_first_line() {
    let rig = Rig::new();
    let mut native = prompb::series(&[("__name__", "latency")], &[]);
    native.histograms.push(prompb::Histogram::default());
    let request = WriteRequest {
        timeseries: vec![
            prompb::series(&[("__name__", "up"), ("job", "a")], &[(NOW, 1.0)]),
            prompb::series(&[("job", "nameless")], &[(NOW, 1.0)]),
            native,
            prompb::series(&[("__name__", "up"), ("job", "b")], &[(NOW, 2.0)]),
        ],
        metadata: vec![prompb::MetricMetadata::default()],
    };
    let answer = rig
        .post(REMOTE_WRITE, SNAPPY_PROTOBUF, prompb::body(&request))
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer.text(),
        "2 samples stored, 3 items refused: series 1: the series has no metric name \
         (missing_metric_name)\n\
         series 2, latency: native histograms are not stored; send classic ones \
         (native_histogram)\n\
         metadata 0: metadata without a metric name (bad_metadata)\n"
    );
    assert_eq!(rig.values().len(), 2);
}
