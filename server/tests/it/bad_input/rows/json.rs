//! JSON readings of devices.

use serde_json::{Map, Value, json};

use super::{DAY_MS, Request, Row, Section, post};
use crate::support::now_ms;

fn push(body: impl Into<Vec<u8>>) -> Request {
    let json = [("content-type", "application/json")];
    post("/api/v1/push", &json, body)
}

fn reading(value: &Value) -> Request {
    push(value.to_string())
}

/// A reading of one field.
fn field(value: &Value) -> Request {
    reading(&json!({"device": "bad", "fields": {"a": value}}))
}

fn with_tags(tags: Map<String, Value>) -> Request {
    reading(&json!({"device": "bad", "tags": tags, "fields": {"a": 1}}))
}

fn at(timestamp: impl Into<Value>) -> Request {
    let timestamp = timestamp.into();
    reading(&json!({"device": "bad", "timestamp": timestamp, "fields": {"a": 1}}))
}

pub fn rows() -> Vec<Row> {
    let mut t = Section::new("JSON: `POST /api/v1/push`");
    text(&mut t);
    items(&mut t);
    times(&mut t);
    labels(&mut t);
    t.1
}

fn text(t: &mut Section) {
    let cut = push(r#"{"device": "bad", "fields": {"a": "#);
    t.row("cut short", cut, 400, &["not JSON", "malformed_json"]);
    t.row(
        "not JSON at all",
        push("hello"),
        400,
        &["not JSON", "malformed_json"],
    );
    let not_utf8 = push(b"{\"device\": \"\xff\"}".to_vec());
    t.row("not UTF-8", not_utf8, 400, &["not UTF-8", "invalid_utf8"]);
    let deep = push("[".repeat(100_000));
    t.row(
        "nested deeper than anything sensible",
        deep,
        400,
        &["malformed_json"],
    );
    let number = push("42");
    t.row(
        "a number in place of an object",
        number,
        400,
        &["is a number", "unsupported_type"],
    );
    let unknown = reading(&json!({"device": "bad", "colour": "red", "fields": {"a": 1}}));
    t.row(
        "a key that means nothing",
        unknown,
        400,
        &["colour", "unknown_key"],
    );
    let twice = push(r#"{"device": "bad", "device": "worse", "fields": {"a": 1}}"#);
    t.row(
        "a key twice",
        twice,
        400,
        &["device", "twice", "duplicate_key"],
    );
}

fn items(t: &mut Section) {
    let no_device = reading(&json!({"fields": {"a": 1}}));
    t.row("no device", no_device, 400, &["missing_device"]);
    let no_fields = reading(&json!({"device": "bad"}));
    t.row("no fields", no_fields, 400, &["missing_fields"]);
    let says = ["unsupported_type", "\"field\":\"a\""];
    t.row(
        "a field of unknown type: text",
        field(&json!("high")),
        400,
        &says,
    );
    t.row(
        "a field of unknown type: object",
        field(&json!({"b": 1})),
        400,
        &says,
    );
    t.row(
        "a field of unknown type: list",
        field(&json!([1])),
        400,
        &says,
    );
    t.row(
        "a field of unknown type: null",
        field(&json!(null)),
        400,
        &says,
    );

    let one_field = reading(&json!({"device": "bad", "fields": {"bad_field": 7, "a": "high"}}));
    let says = ["unsupported_type", "\"accepted\":1", "\"rejected\":1"];
    t.row("one bad field among good ones", one_field, 400, &says);
    t.stores("bad_field", 7.0);
    let one_item = reading(&json!([
        {"device": "b1", "fields": {"bad_item": 1}},
        {"device": "b2"},
        {"device": "b3", "fields": {"bad_item": 2}},
    ]));
    let says = ["missing_fields", "\"index\":1", "\"accepted\":2"];
    t.row("one bad item among good ones", one_item, 400, &says);
    t.stores("sum(bad_item)", 3.0);
    let one_line = post(
        "/api/v1/push",
        &[("content-type", "application/x-ndjson")],
        "{\"device\": \"b1\", \"fields\": {\"bad_ndjson\": 1}}\n\
         nonsense\n\
         {\"device\": \"b2\", \"fields\": {\"bad_ndjson\": 4}}\n",
    );
    let says = ["malformed_json", "\"line\":2", "\"accepted\":2"];
    t.row(
        "one bad line of NDJSON among good ones",
        one_line,
        400,
        &says,
    );
    t.stores("sum(bad_ndjson)", 5.0);
}

fn times(t: &mut Section) {
    let says = ["yesterday", "bad_timestamp"];
    t.row(
        "a timestamp that is neither number nor RFC 3339",
        at("yesterday"),
        400,
        &says,
    );
    t.row(
        "a timestamp beyond 64 bits",
        at(1e30),
        400,
        &["timestamp 1e+30", "64 bits"],
    );
    let says = ["too old", "ingest.max_age", "too_old"];
    t.row(
        "older than `ingest.max_age`",
        at(now_ms() - 31 * DAY_MS),
        400,
        &says,
    );
    let says = ["ingest.max_ahead", "too_far_ahead"];
    t.row(
        "further ahead than `ingest.max_ahead`",
        at(now_ms() + DAY_MS),
        400,
        &says,
    );
    let unit = post("/api/v1/push?precision=fortnights", &[], "{}");
    let says = ["precision", "fortnights", "bad_parameter"];
    t.row("a unit of time that is none", unit, 400, &says);
}

fn labels(t: &mut Section) {
    let many = |n: usize, value: String| {
        let tag = |i| (format!("t{i}"), Value::from(value.clone()));
        (0..n).map(tag).collect::<Map<_, _>>()
    };
    let tag = |name: String, value: Value| Map::from_iter([(name, value)]);
    let too_many = with_tags(many(40, "x".to_owned()));
    t.row(
        "more labels than `ingest.limits.labels`",
        too_many,
        400,
        &["too_many_labels", "40"],
    );
    let name = with_tags(tag("n".repeat(257), "x".into()));
    let says = ["label_name_too_long", "256"];
    t.row(
        "a label name over `ingest.limits.label_name_bytes`",
        name,
        400,
        &says,
    );
    let value = with_tags(tag("t".to_owned(), "v".repeat(4097).into()));
    let says = ["label_value_too_long", "4096"];
    t.row(
        "a label value over `ingest.limits.label_value_bytes`",
        value,
        400,
        &says,
    );
    let all = with_tags(many(5, "v".repeat(4096)));
    let says = ["labels_too_large", "16384"];
    t.row(
        "labels over `ingest.limits.labels_bytes` together",
        all,
        400,
        &says,
    );
    let nameless = with_tags(tag(String::new(), "x".into()));
    t.row(
        "a label without a name",
        nameless,
        400,
        &["empty_label_name"],
    );
    let object = with_tags(tag("t".to_owned(), json!({})));
    t.row(
        "a tag that is an object",
        object,
        400,
        &["unsupported_type"],
    );
}
