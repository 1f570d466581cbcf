//! Remote read: what a reader sends, and what it gets in both types of answer.

use http::{Request, header};
use http_body_util::BodyExt;
use millrace_model::stale_nan;
use millrace_query::api::ApiOptions;
use prost::Message;
use tower::ServiceExt;

use crate::client::Fixture;
use crate::table::Table;

#[derive(Clone, PartialEq, Message)]
struct ReadRequest {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<Query>,
    #[prost(int32, repeated, tag = "2")]
    accepted: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Query {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(int64, tag = "2")]
    end: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<Matcher>,
    #[prost(message, optional, tag = "4")]
    hints: Option<Hints>,
}

#[derive(Clone, PartialEq, Message)]
struct Matcher {
    #[prost(int32, tag = "1")]
    op: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Hints {
    #[prost(int64, tag = "1")]
    step: i64,
    #[prost(string, tag = "2")]
    func: String,
    #[prost(int64, tag = "3")]
    start: i64,
    #[prost(int64, tag = "4")]
    end: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    results: Vec<QueryResult>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryResult {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Chunk {
    #[prost(int64, tag = "1")]
    min: i64,
    #[prost(int64, tag = "2")]
    max: i64,
    #[prost(int32, tag = "3")]
    encoding: i32,
    #[prost(bytes = "vec", tag = "4")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ChunkedSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    chunks: Vec<Chunk>,
}

#[derive(Clone, PartialEq, Message)]
struct ChunkedReadResponse {
    #[prost(message, repeated, tag = "1")]
    series: Vec<ChunkedSeries>,
    #[prost(int64, tag = "2")]
    query: i64,
}

const SAMPLES: i32 = 0;
const CHUNKS: i32 = 1;

fn matcher(op: i32, name: &str, value: &str) -> Matcher {
    Matcher {
        op,
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn query(matchers: Vec<Matcher>) -> Query {
    Query {
        start: 0,
        end: 1_000_000,
        matchers,
        hints: None,
    }
}

struct Answer {
    status: u16,
    content_type: String,
    encoding: Option<String>,
    body: Vec<u8>,
}

async fn send(fixture: &Fixture, body: Vec<u8>) -> Answer {
    let request = Request::post("/api/v1/read")
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::CONTENT_ENCODING, "snappy")
        .body(axum::body::Body::from(body))
        .unwrap();
    let response = fixture.router.clone().oneshot(request).await.unwrap();
    let text = |name| {
        let value = response.headers().get(name);
        value.map(|value: &http::HeaderValue| value.to_str().unwrap().to_owned())
    };
    Answer {
        status: response.status().as_u16(),
        content_type: text(header::CONTENT_TYPE).unwrap(),
        encoding: text(header::CONTENT_ENCODING),
        body: response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    }
}

async fn ask(fixture: &Fixture, queries: Vec<Query>, accepted: Vec<i32>) -> Answer {
    let request = ReadRequest { queries, accepted };
    let body = snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .unwrap();
    send(fixture, body).await
}

fn samples(answer: &Answer) -> Vec<QueryResult> {
    assert_eq!(
        (
            answer.status,
            &*answer.content_type,
            answer.encoding.as_deref()
        ),
        (200, "application/x-protobuf", Some("snappy"))
    );
    let message = snap::raw::Decoder::new()
        .decompress_vec(&answer.body)
        .unwrap();
    ReadResponse::decode(&message[..]).unwrap().results
}

fn frames(answer: &Answer) -> Vec<ChunkedReadResponse> {
    let stream = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    assert_eq!((answer.status, &*answer.content_type), (200, stream));
    assert_eq!(answer.encoding, None);
    let mut rest = &answer.body[..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
        let (crc, tail) = rest.split_at(4);
        let (message, tail) = tail.split_at(length);
        let crc = u32::from_be_bytes(crc.try_into().unwrap());
        assert_eq!(crc, crc32c::crc32c(message));
        frames.push(ChunkedReadResponse::decode(message).unwrap());
        rest = tail;
    }
    frames
}

fn names(labels: &[Label]) -> String {
    let pairs: Vec<_> = labels
        .iter()
        .map(|label| format!("{}={}", label.name, label.value))
        .collect();
    pairs.join(",")
}

#[tokio::test]
async fn samples_come_in_one_message_series_sorted_queries_in_order() {
    let f = Fixture::new();
    let queries = vec![
        query(vec![matcher(0, "__name__", "temperature")]),
        query(vec![matcher(0, "__name__", "nothing")]),
        query(vec![
            matcher(3, "device", "pump-2|"),
            matcher(1, "site", "north"),
        ]),
        query(vec![matcher(2, "http.code", "2..")]),
    ];
    for accepted in [vec![], vec![SAMPLES], vec![7, SAMPLES, CHUNKS]] {
        let results = samples(&ask(&f, queries.clone(), accepted).await);
        let shown: Vec<Vec<_>> = results
            .iter()
            .map(|result| {
                let series = result.series.iter();
                series
                    .map(|s| (names(&s.labels), s.samples.len()))
                    .collect()
            })
            .collect();
        let flow = "__name__=flow_total,device=pump-1,http.code=200".to_owned();
        assert_eq!(
            shown,
            [
                vec![
                    (
                        "__name__=temperature,device=pump-1,site=north".to_owned(),
                        2
                    ),
                    (
                        "__name__=temperature,device=pump-2,site=south".to_owned(),
                        1
                    ),
                ],
                vec![],
                vec![(flow.clone(), 1)],
                vec![(flow, 1)],
            ]
        );
        let first = &results[0].series[0].samples;
        assert_eq!((first[0].timestamp, first[0].value), (1_000, 20.0));
        assert_eq!((first[1].timestamp, first[1].value), (2_000, 20.5));
    }
}

#[tokio::test]
async fn both_ends_of_the_range_are_inside_and_hints_narrow_it() {
    let f = Fixture::new();
    let timestamps = |results: Vec<QueryResult>| -> Vec<i64> {
        let series = results[0].series.iter();
        series
            .flat_map(|s| s.samples.iter().map(|sample| sample.timestamp))
            .collect()
    };
    let mut exact = query(vec![matcher(0, "__name__", "temperature")]);
    (exact.start, exact.end) = (2_000, 5_000);
    assert_eq!(
        timestamps(samples(&ask(&f, vec![exact.clone()], vec![]).await)),
        [2_000, 5_000]
    );
    exact.hints = Some(Hints {
        start: 0,
        end: 2_000,
        func: "rate".to_owned(),
        step: 1_000,
    });
    assert_eq!(
        timestamps(samples(&ask(&f, vec![exact.clone()], vec![]).await)),
        [2_000]
    );
    // A reader that only wants to know which series there are says so.
    exact.hints.as_mut().unwrap().func = "series".to_owned();
    let results = samples(&ask(&f, vec![exact], vec![]).await);
    assert_eq!(results[0].series.len(), 1);
    assert!(results[0].series[0].samples.is_empty());
}

/// Two series of 1,000 samples each.
fn long() -> Table {
    let mut table = Table::default();
    for host in ["b", "a"] {
        let values: Vec<_> = (0..1_000)
            .map(|i| (i * 1_000, if i == 999 { stale_nan() } else { i as f64 }))
            .collect();
        table = table.with(&[("__name__", "m"), ("host", host)], &values);
    }
    table
}

#[tokio::test]
async fn chunks_come_as_frames_of_one_series_and_a_bounded_size() {
    for (frame_bytes, least_frames) in [(1 << 20, 2), (1_000, 4), (0, 18)] {
        let options = ApiOptions {
            remote_read_frame_bytes: frame_bytes,
            ..ApiOptions::default()
        };
        let f = Fixture::over(long(), options);
        let queries = vec![
            query(vec![matcher(0, "__name__", "nothing")]),
            query(vec![matcher(0, "__name__", "m")]),
        ];
        let frames = frames(&ask(&f, queries, vec![CHUNKS, SAMPLES]).await);
        assert!(frames.len() >= least_frames, "{}", frames.len());
        let mut chunks: Vec<(String, Chunk)> = Vec::new();
        for frame in frames {
            assert_eq!(frame.query, 1);
            assert_eq!(frame.series.len(), 1);
            for chunk in &frame.series[0].chunks {
                chunks.push((names(&frame.series[0].labels), chunk.clone()));
            }
        }
        // 1,000 samples are 9 chunks of at most 120.
        assert_eq!(chunks.len(), 18);
        assert!(chunks.is_sorted_by_key(|(name, chunk)| (name.clone(), chunk.min)));
        for (i, (name, chunk)) in chunks.iter().enumerate() {
            let from = (i as i64 % 9) * 120_000;
            let count = u16::from_be_bytes([chunk.data[0], chunk.data[1]]);
            assert_eq!(chunk.encoding, 1);
            assert_eq!(
                (chunk.min, chunk.max),
                (from, from + (i64::from(count) - 1) * 1_000)
            );
            assert_eq!(count, if i % 9 == 8 { 40 } else { 120 });
            assert_eq!(name.ends_with("host=a"), i < 9, "{name}");
        }
    }
}

#[tokio::test]
async fn more_samples_than_the_limit_are_refused_unless_streamed() {
    let options = ApiOptions {
        remote_read_samples: 1_999,
        ..ApiOptions::default()
    };
    let f = Fixture::over(long(), options);
    let queries = vec![query(vec![matcher(0, "__name__", "m")])];
    let refused = ask(&f, queries.clone(), vec![SAMPLES]).await;
    let text = String::from_utf8(refused.body).unwrap();
    assert_eq!(refused.status, 400, "{text}");
    assert!(text.contains("exceeded sample limit (1999)"), "{text}");
    assert_eq!(frames(&ask(&f, queries, vec![CHUNKS]).await).len(), 2);
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_400() {
    let f = Fixture::new();
    let bad = query(vec![matcher(2, "a", "(")]);
    let unknown = query(vec![matcher(9, "a", "b")]);
    for (answer, expect) in [
        (send(&f, b"not snappy at all".to_vec()).await, "decoding"),
        (
            send(&f, vec![4, 12, 0xff, 0xff, 0xff, 0xff]).await,
            "decoding",
        ),
        (ask(&f, vec![bad], vec![]).await, "error parsing regexp"),
        (
            ask(&f, vec![unknown], vec![]).await,
            "unknown matcher type 9",
        ),
        (
            ask(&f, vec![], vec![5]).await,
            "does not support any of the requested",
        ),
    ] {
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 400, "{text}");
        assert!(text.contains(expect), "{text}");
    }
    // Says that it unpacks to 4 GiB.
    let bomb = send(&f, vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0]).await;
    assert_eq!(bomb.status, 413);
    assert_eq!(f.get("read").await.status, 405);
}
