//! Bodies that are too large, or not in the encoding that they claim.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Request, Row, Section, post};
use crate::support::now_ms;
use crate::support::remote_write::{HEADERS, body, compress, series};

const GOOD: &str = r#"{"device": "bad", "fields": {"a": 1}}"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn encoded(encoding: &str, body: impl Into<Vec<u8>>) -> Request {
    post("/api/v1/push", &[("content-encoding", encoding)], body)
}

fn typed(path: &str, media: &str) -> Request {
    post(path, &[("content-type", media)], GOOD)
}

fn write(body: Vec<u8>) -> Request {
    post("/api/v1/write", HEADERS, body)
}

pub fn rows() -> Vec<Row> {
    let mut t = Section::new("Size");
    let long = || vec![b' '; (10 << 20) + 1];
    let says = ["ingest.limits.body_bytes", "10485760"];
    t.row(
        "over `ingest.limits.body_bytes`",
        post("/api/v1/push", &[], long()),
        413,
        &says,
    );
    let v2 = post("/api/v2/write", &[], long());
    let says = ["request too large", "\"maxLength\":10485760"];
    t.row("the same, line protocol v2", v2, 413, &says);

    let bomb = vec![b' '; 40 << 20];
    let says = ["ingest.limits.decoded_bytes", "33554432"];
    t.row("a gzip bomb", encoded("gzip", gzip(&bomb)), 413, &says);
    let zstd = zstd::bulk::compress(&bomb, 3).unwrap();
    t.row("a zstd bomb", encoded("zstd", zstd), 413, &says);
    t.row("a snappy bomb", write(compress(&bomb)), 413, &says);
    let claims_4_gib = vec![0xff, 0xff, 0xff, 0xff, 0x0f, b'x'];
    t.row(
        "a snappy head that claims 4 GiB in 6 bytes",
        write(claims_4_gib),
        413,
        &says,
    );
    let claims_16_mib = vec![0x80, 0x80, 0x80, 0x08, 0x00];
    let says = ["cannot hold"];
    t.row(
        "a snappy head that claims more than can be",
        write(claims_16_mib),
        400,
        &says,
    );

    let start = now_ms() - 300_000;
    let samples: Vec<(i64, f64)> = (0..200_001).map(|i| (start + i, 1.0)).collect();
    let many = write(body(vec![series(&[("__name__", "many")], &samples)]));
    let says = ["ingest.limits.samples", "200000"];
    t.row(
        "more samples than `ingest.limits.samples`",
        many,
        413,
        &says,
    );
    let lines: String = (0..50_001).map(|i| format!("many,n={i} v=1\n")).collect();
    let says = ["ingest.limits.series", "50000"];
    let many = post("/write", &[], lines);
    t.row("more series than `ingest.limits.series`", many, 413, &says);
    t.1
}

pub fn encodings() -> Vec<Row> {
    let mut t = Section::new("Encodings and types");
    t.row(
        "an encoding that is not known",
        encoded("br", GOOD),
        415,
        &["br", "gzip"],
    );
    t.row(
        "two encodings",
        encoded("gzip, gzip", GOOD),
        415,
        &["gzip, gzip"],
    );
    t.row("not gzip", encoded("gzip", GOOD), 400, &["not valid gzip"]);
    let cut = gzip(GOOD.as_bytes())[..20].to_vec();
    t.row(
        "gzip that is cut short",
        encoded("gzip", cut),
        400,
        &["not valid gzip"],
    );
    t.row("not zstd", encoded("zstd", GOOD), 400, &["not valid zstd"]);
    let xml = typed("/api/v1/push", "application/xml");
    t.row(
        "a type that is not taken",
        xml,
        415,
        &["application/xml", "application/json"],
    );
    let latin = typed("/api/v1/push", "application/json; charset=latin1");
    t.row("another character set", latin, 415, &["latin1", "UTF-8"]);
    let json = typed("/write", "application/json");
    let says = ["application/json", "text/plain"];
    t.row("a type that line protocol does not have", json, 415, &says);
    t.1
}
