//! The table. Sections are those of the page; within one, rows go from the body to the item.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::Row;
use crate::support::{now_ms, remote_write};

const DAY_MS: i64 = 86_400_000;

/// All rows.
pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(json_rows());
    rows.extend(line_rows());
    rows.extend(remote_write_rows());
    rows.extend(size_rows());
    rows.extend(encoding_rows());
    rows.extend(query_rows());
    rows.extend(path_rows());
    rows
}

struct Table(&'static str);

impl Table {
    fn row(
        &self,
        name: &'static str,
        (method, path, headers, body): Request,
        status: u16,
        says: &[&str],
    ) -> Row {
        Row {
            section: self.0,
            name,
            method,
            path,
            headers,
            body,
            status,
            says: says.iter().map(|text| (*text).to_owned()).collect(),
            stored: Vec::new(),
        }
    }
}

impl Row {
    fn storing(mut self, query: &'static str, value: f64) -> Self {
        self.stored.push((query, value));
        self
    }
}

type Request = (&'static str, String, Vec<(&'static str, String)>, Vec<u8>);

fn post(path: &str, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Request {
    let headers = headers.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
    ("POST", path.to_owned(), headers, body.into())
}

fn push(body: impl Into<Vec<u8>>) -> Request {
    post(
        "/api/v1/push",
        &[("content-type", "application/json")],
        body,
    )
}

fn ndjson(body: impl Into<Vec<u8>>) -> Request {
    post(
        "/api/v1/push",
        &[("content-type", "application/x-ndjson")],
        body,
    )
}

fn lines(body: impl Into<Vec<u8>>) -> Request {
    post("/write?precision=ms", &[], body)
}

fn write(body: impl Into<Vec<u8>>) -> Request {
    post("/api/v1/write", remote_write::HEADERS, body)
}

fn get(path: &str) -> Request {
    ("GET", path.to_owned(), Vec::new(), Vec::new())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn json_rows() -> Vec<Row> {
    let t = Table("JSON: `POST /api/v1/push`");
    let now = now_ms();
    let reading =
        |fields: serde_json::Value| json!({"device": "bad", "fields": fields}).to_string();
    vec![
        t.row("cut short", push(r#"{"device": "bad", "fields": {"a": "#), 400, &["not JSON", "malformed_json"]),
        t.row("not JSON at all", push("hello"), 400, &["not JSON", "malformed_json"]),
        t.row("a number in place of an object", push("42"), 400, &["unsupported_type"]),
        t.row("not UTF-8", push(b"{\"device\": \"\xff\"}".to_vec()), 400, &["not UTF-8", "invalid_utf8"]),
        t.row("no device", push(r#"{"fields": {"a": 1}}"#), 400, &["missing_device"]),
        t.row("no fields", push(r#"{"device": "bad"}"#), 400, &["missing_fields"]),
        t.row("a key that means nothing", push(r#"{"device": "bad", "colour": "red", "fields": {"a": 1}}"#), 400, &["colour", "unknown_key"]),
        t.row("a key twice", push(r#"{"device": "bad", "device": "worse", "fields": {"a": 1}}"#), 400, &["device", "twice", "duplicate_key"]),
        t.row("an unknown field type: text", push(reading(json!({"a": "high"}))), 400, &["unsupported_type", "\"field\":\"a\""]),
        t.row("an unknown field type: object", push(reading(json!({"a": {"b": 1}}))), 400, &["unsupported_type"]),
        t.row("an unknown field type: list", push(reading(json!({"a": [1]}))), 400, &["unsupported_type"]),
        t.row("an unknown field type: null", push(reading(json!({"a": null}))), 400, &["unsupported_type"]),
        t.row("one bad field among good ones", push(reading(json!({"bad_json_good": 7, "a": "high"}))), 400, &["unsupported_type", "\"accepted\":1", "\"rejected\":1"]).storing("bad_json_good", 7.0),
        t.row("one bad item among good ones", push(format!(r#"[{{"device": "b1", "fields": {{"bad_json_item": 1}}}}, {{"device": "b2"}}, {{"device": "b3", "fields": {{"bad_json_item": 2}}}}]"#)), 400, &["missing_fields", "\"index\":1", "\"accepted\":2"]).storing("sum(bad_json_item)", 3.0),
        t.row("one bad line of NDJSON", ndjson("{\"device\": \"b1\", \"fields\": {\"bad_ndjson\": 1}}\nnonsense\n{\"device\": \"b2\", \"fields\": {\"bad_ndjson\": 4}}\n"), 400, &["malformed_json", "\"line\":2", "\"accepted\":2"]).storing("sum(bad_ndjson)", 5.0),
        t.row("a timestamp that is neither number nor RFC 3339", push(r#"{"device": "bad", "timestamp": "yesterday", "fields": {"a": 1}}"#), 400, &["yesterday", "bad_timestamp"]),
        t.row("a timestamp beyond 64 bits", push(r#"{"device": "bad", "timestamp": 1e30, "fields": {"a": 1}}"#), 400, &["timestamp"]),
        t.row("older than `ingest.max_age`", push(json!({"device": "bad", "timestamp": now - 31 * DAY_MS, "fields": {"a": 1}}).to_string()), 400, &["too old", "ingest.max_age", "too_old"]),
        t.row("further ahead than `ingest.max_ahead`", push(json!({"device": "bad", "timestamp": now + DAY_MS, "fields": {"a": 1}}).to_string()), 400, &["ingest.max_ahead", "too_far_ahead"]),
        t.row("a unit of time that is none", post("/api/v1/push?precision=fortnights", &[], reading(json!({"a": 1}))), 400, &["precision", "fortnights", "bad_parameter"]),
        t.row("more labels than `ingest.limits.labels`", push(json!({"device": "bad", "tags": (0..40).map(|i| (format!("t{i}"), "x".into())).collect::<serde_json::Map<_, _>>(), "fields": {"a": 1}}).to_string()), 400, &["too_many_labels", "40"]),
        t.row("a label name over `ingest.limits.label_name_bytes`", push(json!({"device": "bad", "tags": {"n".repeat(257): "x"}, "fields": {"a": 1}}).to_string()), 400, &["label_name_too_long", "256"]),
        t.row("a label value over `ingest.limits.label_value_bytes`", push(json!({"device": "v".repeat(4097), "fields": {"a": 1}}).to_string()), 400, &["label_value_too_long", "4096"]),
        t.row("labels over `ingest.limits.labels_bytes` together", push(json!({"device": "bad", "tags": (0..5).map(|i| (format!("t{i}"), "v".repeat(4096).into())).collect::<serde_json::Map<_, _>>(), "fields": {"a": 1}}).to_string()), 400, &["labels_too_large", "16384"]),
        t.row("a label with an empty name", push(r#"{"device": "bad", "tags": {"": "x"}, "fields": {"a": 1}}"#), 400, &["empty_label_name"]),
        t.row("a tag that is a number", push(r#"{"device": "bad", "tags": {"a": {}}, "fields": {"a": 1}}"#), 400, &["unsupported_type"]),
        t.row("nested deeper than anything sensible", push("[".repeat(100_000)), 400, &["malformed_json"]),
    ]
}

fn line_rows() -> Vec<Row> {
    let t = Table("Line protocol: `POST /write`, `/api/v2/write`");
    let now = now_ms();
    vec![
        t.row(
            "a line without fields",
            lines("weather,site=a"),
            400,
            &["line 1"],
        ),
        t.row(
            "a field without a value",
            lines("weather wind="),
            400,
            &["line 1"],
        ),
        t.row(
            "a field of unknown type",
            lines("weather wind=strong"),
            400,
            &["line 1", "strong"],
        ),
        t.row(
            "an integer with a fraction",
            lines("weather wind=1.5i"),
            400,
            &["line 1"],
        ),
        t.row(
            "a tag without a value",
            lines("weather,site= wind=1"),
            400,
            &["line 1", "has no value"],
        ),
        t.row(
            "a tag twice",
            lines("weather,site=a,site=b wind=1"),
            400,
            &["line 1", "site"],
        ),
        t.row("no measurement", lines(",site=a wind=1"), 400, &["line 1"]),
        t.row(
            "a text that never ends",
            lines("weather wind=\"x"),
            400,
            &["line 1"],
        ),
        t.row(
            "a timestamp that is no number",
            lines("weather wind=1 noon"),
            400,
            &["line 1", "noon"],
        ),
        t.row(
            "older than `ingest.max_age`",
            lines(format!("weather wind=1 {}", now - 31 * DAY_MS)),
            400,
            &["too old", "ingest.max_age"],
        ),
        t.row(
            "nanoseconds sent as milliseconds",
            lines(format!("weather wind=1 {now}000000")),
            400,
            &["ingest.max_ahead"],
        ),
        t.row(
            "one bad line among good ones",
            lines(format!(
                "bad_line,n=1 v=1 {now}\nbad_line,n=2 v {now}\nbad_line,n=3 v=3 {now}\n"
            )),
            400,
            &["partial write", "line 2", "dropped=1"],
        )
        .storing("sum(bad_line_v)", 4.0),
        t.row(
            "one bad line, v2",
            post(
                "/api/v2/write?precision=ms",
                &[],
                format!("bad_line2,n=1 v=1 {now}\nbad_line2 v\n"),
            ),
            400,
            &["\"code\":\"invalid\"", "line 2", "1 samples stored"],
        )
        .storing("sum(bad_line2_v)", 1.0),
        t.row(
            "a unit of time that is none",
            post("/write?precision=week", &[], "weather wind=1"),
            400,
            &["precision", "week"],
        ),
        t.row(
            "not UTF-8",
            lines(b"weather,site=\xff wind=1".to_vec()),
            400,
            &["line 1", "UTF-8"],
        ),
    ]
}

fn remote_write_rows() -> Vec<Row> {
    let t = Table("Remote write: `POST /api/v1/write`");
    let now = now_ms();
    let one = |labels: &[(&str, &str)], at: i64| remote_write::series(labels, &[(at, 1.0)]);
    let body = |labels: &[(&str, &str)]| remote_write::body(vec![one(labels, now)]);
    vec![
        t.row(
            "not snappy",
            write("hello, this is text"),
            400,
            &["not valid snappy"],
        ),
        t.row(
            "snappy's framed format",
            write(b"\xff\x06\x00\x00sNaPpY".to_vec()),
            400,
            &["snappy"],
        ),
        t.row(
            "not protobuf",
            write(remote_write::compress(b"hello, this is text")),
            400,
            &[],
        ),
        t.row(
            "no metric name",
            write(body(&[("instance", "a")])),
            400,
            &["series 0", "metric name"],
        ),
        t.row(
            "a label without a name",
            write(body(&[("", "x"), ("__name__", "a")])),
            400,
            &["series 0"],
        ),
        t.row(
            "a label twice",
            write(body(&[("__name__", "a"), ("b", "1"), ("b", "2")])),
            400,
            &["series 0", "\"b\""],
        ),
        t.row(
            "older than `ingest.max_age`",
            write(remote_write::body(vec![one(
                &[("__name__", "a")],
                now - 31 * DAY_MS,
            )])),
            400,
            &["too old", "ingest.max_age"],
        ),
        t.row(
            "one bad series among good ones",
            write(remote_write::body(vec![
                one(&[("__name__", "bad_rw"), ("n", "1")], now),
                one(&[("n", "2")], now),
                one(&[("__name__", "bad_rw"), ("n", "3")], now),
            ])),
            400,
            &["2 samples stored, 1 item refused", "series 1"],
        )
        .storing("sum(bad_rw)", 2.0),
        t.row(
            "remote write 2.0",
            post(
                "/api/v1/write",
                &[
                    ("content-encoding", "snappy"),
                    (
                        "content-type",
                        "application/x-protobuf;proto=io.prometheus.write.v2.Request",
                    ),
                ],
                body(&[("__name__", "a")]),
            ),
            415,
            &["remote write 2.0 is not spoken here"],
        ),
        t.row(
            "another type",
            post(
                "/api/v1/write",
                &[
                    ("content-encoding", "snappy"),
                    ("content-type", "application/json"),
                ],
                body(&[("__name__", "a")]),
            ),
            415,
            &["application/json", "application/x-protobuf"],
        ),
    ]
}

fn size_rows() -> Vec<Row> {
    let t = Table("Size");
    let bomb = vec![b' '; 40 << 20];
    let mut claims = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    claims.extend_from_slice(b"x");
    vec![
        t.row(
            "a body over `ingest.limits.body_bytes`",
            push(vec![b' '; (10 << 20) + 1]),
            413,
            &["ingest.limits.body_bytes", "10485760"],
        ),
        t.row(
            "the same, as line protocol v2",
            post("/api/v2/write", &[], vec![b'\n'; (10 << 20) + 1]),
            413,
            &["request too large", "\"maxLength\":10485760"],
        ),
        t.row(
            "a gzip bomb",
            post("/api/v1/push", &[("content-encoding", "gzip")], gzip(&bomb)),
            413,
            &["ingest.limits.decoded_bytes", "33554432"],
        ),
        t.row(
            "a zstd bomb",
            post(
                "/api/v1/push",
                &[("content-encoding", "zstd")],
                zstd::bulk::compress(&bomb, 3).unwrap(),
            ),
            413,
            &["ingest.limits.decoded_bytes", "33554432"],
        ),
        t.row(
            "a snappy bomb",
            write(remote_write::compress(&bomb)),
            413,
            &["ingest.limits.decoded_bytes", "33554432"],
        ),
        t.row(
            "a snappy head that claims 4 GiB in 6 bytes",
            write(claims),
            413,
            &["ingest.limits.decoded_bytes"],
        ),
        t.row(
            "a snappy head that claims more than its body can hold",
            write(vec![0x80, 0x80, 0x80, 0x08, 0x00]),
            400,
            &["cannot hold"],
        ),
        t.row(
            "more samples than `ingest.limits.samples`",
            write(remote_write::body(vec![remote_write::series(
                &[("__name__", "many")],
                &(0..200_001)
                    .map(|i| (now_ms() - 300_000 + i, 1.0))
                    .collect::<Vec<_>>(),
            )])),
            413,
            &["ingest.limits.samples", "200000"],
        ),
        t.row(
            "more series than `ingest.limits.series`",
            lines(
                (0..50_001)
                    .map(|i| format!("many,n={i} v=1\n"))
                    .collect::<String>(),
            ),
            413,
            &["ingest.limits.series", "50000"],
        ),
    ]
}

fn encoding_rows() -> Vec<Row> {
    let t = Table("Encodings and types");
    let good = r#"{"device": "bad", "fields": {"a": 1}}"#;
    vec![
        t.row(
            "an encoding that is not known",
            post("/api/v1/push", &[("content-encoding", "br")], good),
            415,
            &["br", "gzip"],
        ),
        t.row(
            "two encodings",
            post("/api/v1/push", &[("content-encoding", "gzip, gzip")], good),
            415,
            &["gzip, gzip"],
        ),
        t.row(
            "not gzip",
            post("/api/v1/push", &[("content-encoding", "gzip")], good),
            400,
            &["not valid gzip"],
        ),
        t.row(
            "gzip that is cut short",
            post(
                "/api/v1/push",
                &[("content-encoding", "gzip")],
                gzip(good.as_bytes())[..20].to_vec(),
            ),
            400,
            &["not valid gzip"],
        ),
        t.row(
            "not zstd",
            post("/api/v1/push", &[("content-encoding", "zstd")], good),
            400,
            &["not valid zstd"],
        ),
        t.row(
            "a type that is not taken",
            post("/api/v1/push", &[("content-type", "application/xml")], good),
            415,
            &["application/xml", "application/json"],
        ),
        t.row(
            "another character set",
            post(
                "/api/v1/push",
                &[("content-type", "application/json; charset=latin1")],
                good,
            ),
            415,
            &["latin1", "UTF-8"],
        ),
        t.row(
            "a type that is not taken, line protocol",
            post("/write", &[("content-type", "application/json")], "a b=1"),
            415,
            &["application/json", "text/plain"],
        ),
    ]
}

fn query_rows() -> Vec<Row> {
    let t = Table("Queries");
    let query = |text: &str| {
        let form = format!(
            "query={}",
            text.replace('%', "%25")
                .replace('+', "%2B")
                .replace('&', "%26")
        );
        post(
            "/api/v1/query",
            &[("content-type", "application/x-www-form-urlencoded")],
            form,
        )
    };
    vec![
        t.row(
            "no expression",
            get("/api/v1/query"),
            400,
            &["bad_data", "query"],
        ),
        t.row(
            "an expression that does not parse",
            query("sum(up"),
            400,
            &["bad_data", "parse error"],
        ),
        t.row(
            "a function that there is not",
            query("frobnicate(up)"),
            400,
            &["bad_data", "frobnicate"],
        ),
        t.row(
            "a regular expression that does not parse",
            query(r#"up{job=~"a("}"#),
            400,
            &["bad_data"],
        ),
        t.row(
            "a selector that would match everything",
            query("{}"),
            400,
            &["bad_data"],
        ),
        t.row(
            "longer than `query.max_query_bytes`",
            query(&format!("up{{a=\"{}\"}}", "x".repeat(17 << 10))),
            400,
            &["bad_data"],
        ),
        t.row(
            "nested too deeply",
            query(&format!("{}1{}", "(".repeat(5000), ")".repeat(5000))),
            400,
            &["bad_data"],
        ),
        t.row(
            "a chain of too many terms",
            query(&vec!["1"; 5000].join("+")),
            400,
            &["bad_data"],
        ),
        t.row(
            "a time that is none",
            get("/api/v1/query?query=up&time=noon"),
            400,
            &["bad_data", "time"],
        ),
        t.row(
            "an end before the start",
            get("/api/v1/query_range?query=up&start=10&end=5&step=1"),
            400,
            &["bad_data", "end"],
        ),
        t.row(
            "a step of zero",
            get("/api/v1/query_range?query=up&start=1&end=5&step=0"),
            400,
            &["bad_data", "step"],
        ),
        t.row(
            "more than 11,000 points",
            get("/api/v1/query_range?query=up&start=0&end=1000000&step=1"),
            400,
            &["bad_data", "11"],
        ),
        t.row(
            "two series on the one side",
            query("vector(1) + on() group_left() {__name__=~\"bad_rw|bad_line_v\"} * on() bad_rw"),
            422,
            &["execution"],
        ),
        t.row(
            "a position that is none",
            (
                "GET",
                "/api/v1/query?query=1".to_owned(),
                vec![("millrace-read-after", "nonsense".to_owned())],
                Vec::new(),
            ),
            400,
            &["Millrace-Read-After"],
        ),
        t.row(
            "a position of another queue",
            (
                "GET",
                "/api/v1/query?query=1".to_owned(),
                vec![("millrace-read-after", format!("{:032x}/0:1", 7))],
                Vec::new(),
            ),
            400,
            &["queue"],
        ),
        t.row(
            "series without a selector",
            get("/api/v1/series"),
            400,
            &["bad_data", "match[]"],
        ),
    ]
}

fn path_rows() -> Vec<Row> {
    let t = Table("Paths and methods");
    vec![
        t.row(
            "a path that there is not",
            get("/nowhere"),
            404,
            &["no such path", "/nowhere"],
        ),
        t.row(
            "a path of the API that there is not",
            get("/api/v1/nowhere"),
            404,
            &["no such path", "/api/v1/nowhere"],
        ),
        t.row(
            "reading where one writes",
            get("/api/v1/push"),
            405,
            &["POST"],
        ),
        t.row(
            "reading where one writes, line protocol",
            get("/write"),
            405,
            &["POST"],
        ),
        t.row(
            "writing where one reads",
            ("PUT", "/api/v1/query".to_owned(), Vec::new(), Vec::new()),
            405,
            &["PUT"],
        ),
        t.row(
            "deleting",
            ("DELETE", "/metrics".to_owned(), Vec::new(), Vec::new()),
            405,
            &["DELETE"],
        ),
    ]
}
