//! Prometheus remote write.

use super::{DAY_MS, Request, Row, Section, post};
use crate::support::now_ms;
use crate::support::remote_write::{HEADERS, TimeSeries, body, compress, series};

fn write(body: impl Into<Vec<u8>>) -> Request {
    post("/api/v1/write", HEADERS, body)
}

fn of_type(media: &str) -> Request {
    let headers = [("content-encoding", "snappy"), ("content-type", media)];
    post(
        "/api/v1/write",
        &headers,
        body(vec![one(&[("__name__", "a")])]),
    )
}

/// One sample of now.
fn one(labels: &[(&str, &str)]) -> TimeSeries {
    series(labels, &[(now_ms(), 1.0)])
}

pub fn rows() -> Vec<Row> {
    let mut t = Section::new("Remote write: `POST /api/v1/write`");
    let labels = |labels: &[(&str, &str)]| write(body(vec![one(labels)]));
    t.row(
        "not snappy",
        write("hello, this is text"),
        400,
        &["not valid snappy"],
    );
    let framed = write(b"\xff\x06\x00\x00sNaPpY".to_vec());
    t.row("snappy's framed format", framed, 400, &["snappy"]);
    let text = write(compress(b"hello, this is text"));
    t.row("not protobuf", text, 400, &["not a remote write request"]);
    let nameless = labels(&[("instance", "a")]);
    t.row(
        "no metric name",
        nameless,
        400,
        &["series 0", "metric name"],
    );
    let empty = labels(&[("", "x"), ("__name__", "a")]);
    t.row(
        "a label without a name",
        empty,
        400,
        &["series 0", "empty_label_name"],
    );
    let twice = labels(&[("__name__", "a"), ("b", "1"), ("b", "2")]);
    t.row("a label twice", twice, 400, &["series 0", "\"b\""]);
    let old = series(&[("__name__", "a")], &[(now_ms() - 31 * DAY_MS, 1.0)]);
    let says = ["too old", "ingest.max_age"];
    t.row(
        "older than `ingest.max_age`",
        write(body(vec![old])),
        400,
        &says,
    );
    let mixed = write(body(vec![
        one(&[("__name__", "bad_rw"), ("n", "1")]),
        one(&[("n", "2")]),
        one(&[("__name__", "bad_rw"), ("n", "3")]),
    ]));
    let says = ["2 samples stored, 1 item refused", "series 1"];
    t.row("one bad series among good ones", mixed, 400, &says);
    t.stores("sum(bad_rw)", 2.0);
    let v3 = of_type("application/x-protobuf;proto=io.prometheus.write.v3.Request");
    let says = ["io.prometheus.write.v2.Request"];
    t.row("a message that is neither 1.0 nor 2.0", v3, 415, &says);
    let says = ["application/json", "application/x-protobuf"];
    t.row("another type", of_type("application/json"), 415, &says);
    t.1
}
