//! Influx line protocol.

use super::{DAY_MS, Request, Row, Section, post};
use crate::support::now_ms;

fn lines(body: impl Into<Vec<u8>>) -> Request {
    post("/write?precision=ms", &[], body)
}

pub fn rows() -> Vec<Row> {
    let mut t = Section::new("Line protocol: `POST /write`, `/api/v2/write`");
    let now = now_ms();
    t.row(
        "no fields",
        lines("weather,site=a"),
        400,
        &["line 1", "no fields", "malformed_line"],
    );
    t.row(
        "a field without a value",
        lines("weather wind="),
        400,
        &["line 1", "expected a value"],
    );
    t.row(
        "a field of unknown type",
        lines("weather wind=strong"),
        400,
        &["line 1", "no number, boolean"],
    );
    t.row(
        "an integer with a fraction",
        lines("weather wind=1.5i"),
        400,
        &["line 1", "byte 17"],
    );
    t.row(
        "a text that never ends",
        lines("weather wind=\"x"),
        400,
        &["line 1", "never closed"],
    );
    t.row(
        "no measurement",
        lines(",site=a wind=1"),
        400,
        &["line 1", "no measurement"],
    );
    let says = ["line 1", "has no value"];
    t.row(
        "a tag without a value",
        lines("weather,site= wind=1"),
        400,
        &says,
    );
    t.row(
        "a tag twice",
        lines("weather,site=a,site=b wind=1"),
        400,
        &["line 1", "site", "comes twice"],
    );
    let not_utf8 = lines(b"weather,site=\xff wind=1".to_vec());
    t.row("not UTF-8", not_utf8, 400, &["line 1", "UTF-8"]);
    t.row(
        "a timestamp that is no number",
        lines("weather wind=1 noon"),
        400,
        &["line 1", "noon", "bad_timestamp"],
    );
    let old = lines(format!("weather wind=1 {}", now - 31 * DAY_MS));
    t.row(
        "older than `ingest.max_age`",
        old,
        400,
        &["too old", "ingest.max_age"],
    );
    let nanos = lines(format!("weather wind=1 {now}000000"));
    t.row(
        "nanoseconds sent as milliseconds",
        nanos,
        400,
        &["ingest.max_ahead"],
    );
    let unit = post("/write?precision=week", &[], "weather wind=1");
    t.row(
        "a unit of time that is none",
        unit,
        400,
        &["precision", "week"],
    );

    let mixed = "bad_line,n=1 v=1\nbad_line,n=2 v\nbad_line,n=3 v=3\n";
    let says = ["partial write", "line 2", "dropped=1"];
    t.row("one bad line among good ones", lines(mixed), 400, &says);
    t.stores("sum(bad_line_v)", 4.0);
    let v2 = post(
        "/api/v2/write?precision=ms",
        &[],
        "bad_line2,n=1 v=1\nbad_line2 v\n",
    );
    let says = ["\"code\":\"invalid\"", "line 2", "1 sample stored"];
    t.row("the same, v2", v2, 400, &says);
    t.stores("sum(bad_line2_v)", 1.0);
    t.1
}
