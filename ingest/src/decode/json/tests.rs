use proptest::prelude::*;

use crate::probe::ProbeFormat::{self, Json, JsonLines};
use crate::report::Reason;
use crate::testing::{NOW, Stored, decode, decode_once, limited, probe, refused, shown};
use crate::{IngestError, IngestOptions, Limits, Place};

fn check(body: &str, expect: &[&str]) {
    let (stored, report) = decode_once(Json, body.as_bytes());
    assert!(report.is_empty(), "{body}: {:?}", report.details());
    assert_eq!(shown(&stored), expect, "{body}");
}

/// The element is refused for this reason with these words; the good one behind it is taken, in an
/// array as well as in lines.
fn check_bad(item: &str, reason: Reason, words: &str) {
    const GOOD: &str = r#"{"device":"good","fields":{"x":1}}"#;
    let array = format!("[{item},{GOOD}]");
    let lines = format!("{item}\n{GOOD}\n");
    for (format, body, place) in [
        (Json, array, Place::Index(0)),
        (JsonLines, lines, Place::Line(1)),
    ] {
        let (stored, report) = decode_once(format, body.as_bytes());
        assert_eq!(shown(&stored), ["x{device=\"good\"} 1"], "{item}");
        assert_eq!(refused(&report), [(place.to_string(), reason)], "{item}");
        let text = report.details()[0].to_string();
        assert!(text.contains(words), "{item}: {text}");
    }
}

#[test]
fn fields_become_series_of_device_and_tags() {
    check(
        r#"{"device":"pump-7","tags":{"site":"north"},"fields":{"temperature":21.5,"on":true}}"#,
        &[
            "on{device=\"pump-7\", site=\"north\"} 1",
            "temperature{device=\"pump-7\", site=\"north\"} 21.5",
        ],
    );
    check(
        r#"{"device":"d","fields":{"x":false}}"#,
        &["x{device=\"d\"} 0"],
    );
    check(
        r#"{"device":"d","tags":{},"fields":{"x":-1e3}}"#,
        &["x{device=\"d\"} -1000"],
    );
    // An empty value is no label, as everywhere.
    check(
        r#"{"device":"d","tags":{"a":""},"fields":{"x":1}}"#,
        &["x{device=\"d\"} 1"],
    );
    // In any order, and with a name as it is given.
    check(
        r#"{"fields":{"a b.c":1},"timestamp":1795219199000,"device":"d"}"#,
        &["a b.c{device=\"d\"} 1@-1000"],
    );
}

#[test]
fn escapes_mean_what_they_mean() {
    check(
        r#"{"d\u0065vice":"a\"\\\/\n\u00fc\ud83d\ude00","tags":{"t\t":"\u0041"},"fields":{"\u0078":1}}"#,
        &["x{device=\"a\\\"\\\\/\\nü😀\", t\t=\"A\"} 1"],
    );
}

#[test]
fn timestamps_are_numbers_or_rfc3339() {
    let at = |timestamp: &str| {
        let body = format!(r#"{{"device":"d","timestamp":{timestamp},"fields":{{"x":1}}}}"#);
        let (stored, report) = decode_once(Json, body.as_bytes());
        assert!(report.is_empty(), "{timestamp}: {:?}", report.details());
        stored["x{device=\"d\"}"][0].0 - NOW
    };
    assert_eq!(at(&(NOW - 7).to_string()), -7);
    assert_eq!(at(&format!("{}.9", NOW - 7)), -7);
    assert_eq!(at("1.7952192e12"), 0);
    assert_eq!(at("\"2026-11-21T00:00:00Z\""), 0);
    assert_eq!(at("\"2026-11-21T01:00:00.0015+01:00\""), 1);
}

#[test]
fn bad_items_are_refused_by_name() {
    use Reason::*;
    let fields = r#""fields":{"x":1}"#;
    let item = |rest: &str| format!(r#"{{"device":"d",{rest}}}"#);
    for (item, reason, words) in [
        (
            "1".to_owned(),
            UnsupportedType,
            "the item is a number, expected an object",
        ),
        ("[[]]".to_owned(), UnsupportedType, "the item is an array"),
        ("null".to_owned(), UnsupportedType, "the item is null"),
        ("{}".to_owned(), MissingDevice, "no \"device\""),
        (format!("{{{fields}}}"), MissingDevice, "no \"device\""),
        (
            format!(r#"{{"device":"",{fields}}}"#),
            MissingDevice,
            "\"device\" is empty",
        ),
        (
            format!(r#"{{"device":7,{fields}}}"#),
            UnsupportedType,
            "\"device\" is a number",
        ),
        (
            format!(r#"{{"device":null,{fields}}}"#),
            UnsupportedType,
            "\"device\" is null",
        ),
        (
            r#"{"device":"d"}"#.to_owned(),
            MissingFields,
            "device \"d\"",
        ),
        (item(r#""fields":{}"#), MissingFields, "no \"fields\""),
        (
            item(r#""fields":[1]"#),
            UnsupportedType,
            "\"fields\" is an array",
        ),
        (
            item(r#""fields":{"x":"1"}"#),
            UnsupportedType,
            "field \"x\": the value is a string",
        ),
        (
            item(r#""fields":{"x":null}"#),
            UnsupportedType,
            "field \"x\": the value is null",
        ),
        (
            item(r#""fields":{"x":{"y":1}}"#),
            UnsupportedType,
            "field \"x\": the value is an object",
        ),
        (
            item(r#""fields":{"x":[1]}"#),
            UnsupportedType,
            "field \"x\": the value is an array",
        ),
        (
            item(r#""fields":{"x":1e999}"#),
            NumberOutOfRange,
            "field \"x\": the number is beyond",
        ),
        (
            item(r#""fields":{"x":1,"x":2}"#),
            DuplicateKey,
            "field \"x\" comes twice",
        ),
        (
            item(r#""fields":{"x":1,"\u0078":2}"#),
            DuplicateKey,
            "field \"x\" comes twice",
        ),
        (
            item(r#""fields":{"":1}"#),
            MissingMetricName,
            "no metric name",
        ),
        (
            item(r#""fields":{"\ud800":1}"#),
            InvalidUtf8,
            "no valid Unicode",
        ),
        (
            item(&format!(r#""tags":"a",{fields}"#)),
            UnsupportedType,
            "\"tags\" is a string",
        ),
        (
            item(&format!(r#""tags":{{"a":1}},{fields}"#)),
            UnsupportedType,
            "tag \"a\" is a number",
        ),
        (
            item(&format!(r#""tags":{{"a":"1","a":"2"}},{fields}"#)),
            DuplicateLabel,
            "\"a\"",
        ),
        (
            item(&format!(r#""tags":{{"device":"1"}},{fields}"#)),
            DuplicateLabel,
            "\"device\"",
        ),
        (
            item(&format!(r#""tags":{{"":"1"}},{fields}"#)),
            EmptyLabelName,
            "empty name",
        ),
        (
            item(&format!(r#""device":"e",{fields}"#)),
            DuplicateKey,
            "\"device\" comes twice",
        ),
        (
            item(&format!(r#"{fields},{fields}"#)),
            DuplicateKey,
            "\"fields\" comes twice",
        ),
        (
            item(&format!(r#""field":1,{fields}"#)),
            UnknownKey,
            "key \"field\" is none of",
        ),
        (
            item(&format!(r#""timestamp":null,{fields}"#)),
            UnsupportedType,
            "\"timestamp\" is null",
        ),
        (
            item(&format!(r#""timestamp":true,{fields}"#)),
            UnsupportedType,
            "is a boolean",
        ),
        (
            item(&format!(r#""timestamp":"now",{fields}"#)),
            BadTimestamp,
            "\"now\" is not RFC 3339",
        ),
        (
            item(&format!(r#""timestamp":1e30,{fields}"#)),
            BadTimestamp,
            "does not fit",
        ),
        (
            item(&format!(r#""timestamp":9223372036854775808,{fields}"#)),
            BadTimestamp,
            "does not fit",
        ),
        (
            item(&format!(r#""timestamp":1,{fields}"#)),
            TooOld,
            "timestamp 1 ms is too old",
        ),
        (
            item(&format!(r#""timestamp":"2027-01-01T00:00:00Z",{fields}"#)),
            TooFarAhead,
            "is too far ahead",
        ),
    ] {
        check_bad(&item, reason, words);
    }
}

#[test]
fn the_good_fields_of_an_item_are_taken() {
    let body = r#"{"device":"d","fields":{"a":1,"state":"ok","b":2,"c":null}}"#;
    let (stored, report) = decode_once(Json, body.as_bytes());
    assert_eq!(shown(&stored), ["a{device=\"d\"} 1", "b{device=\"d\"} 2"]);
    let fields: Vec<_> = report
        .details()
        .iter()
        .map(|r| r.field.as_deref())
        .collect();
    assert_eq!(fields, [Some("state"), Some("c")]);
}

#[test]
fn documents_that_are_not_json_are_refused_with_line_and_column() {
    for (body, words) in [
        ("", "expected a value, found the end, at line 1 column 1"),
        ("  \n ", "line 2 column 2"),
        ("nonsense", "expected a value, at line 1 column 1"),
        ("[", "expected a value, found the end, at line 1 column 2"),
        (
            "[{\"device\":\"d\"",
            "expected ',' or '}', at line 1 column 15",
        ),
        (
            "[{\"device\":\"d\"}",
            "expected ',' or ']', at line 1 column 16",
        ),
        (
            "[{\"device\":\"d\"},]",
            "expected a value, at line 1 column 17",
        ),
        (
            "{\n\"device\":\n'd'}",
            "expected a value, at line 3 column 1",
        ),
        (
            "{\"device\":\"d\",}",
            "expected a key in quotes, at line 1 column 15",
        ),
        ("{\"device\" \"d\"}", "expected ':' behind the key"),
        (
            "{\"fields\":{\"x\":01}}",
            "not a number as JSON writes it, at line 1 column 16",
        ),
        (
            "{\"fields\":{\"x\":NaN}}",
            "expected a value, at line 1 column 16",
        ),
        (
            "{\"device\":\"a\nb\"}",
            "a control character in a string, at line 1 column 13",
        ),
        ("{\"device\":\"\\q\"}", "an unknown escape in a string"),
        (
            "{\"device\":\"open",
            "the string is never closed, at line 1 column 11",
        ),
        (
            "{}{}",
            "expected the end of the body (several objects stand one a line",
        ),
        ("[]x", "expected the end of the body"),
    ] {
        let result = decode(&mut probe(IngestOptions::default()), Json, body.as_bytes());
        let error = result.unwrap_err();
        assert_eq!(error.reason(), "malformed_json", "{body}");
        let text = error.to_string();
        assert!(text.contains(words), "{body}: {text}");
    }
    let error = decode(&mut probe(IngestOptions::default()), Json, b"{}\n\xff").unwrap_err();
    assert_eq!(error.reason(), "invalid_utf8");
    assert_eq!(
        error.to_string(),
        "the body is not UTF-8 at line 2 column 1"
    );
}

#[test]
fn depth_is_bounded_in_all_places() {
    let deep = "[".repeat(100_000);
    for body in [
        deep.clone(),
        format!("{{\"tags\":{deep}"),
        format!("{{\"other\":{deep}"),
        format!("{{\"device\":\"d\",\"fields\":{{\"x\":{deep}"),
    ] {
        let error = decode(&mut probe(IngestOptions::default()), Json, body.as_bytes());
        let text = error.unwrap_err().to_string();
        assert!(text.contains("nested too deeply"), "{text}");
    }
}

#[test]
fn bad_lines_are_refused_one_by_one() {
    let good = |n: u32| format!(r#"{{"device":"d{n}","fields":{{"x":{n}}}}}"#);
    let mut body = [
        good(1),
        String::new(),
        "nonsense".to_owned(),
        good(4) + " trailing",
        "{\"device\":\"d5\"".to_owned(),
        "  ".to_owned() + &good(6) + " \r",
        "{\"device\":\"\\x\"}".to_owned(),
        good(8),
    ]
    .join("\n")
    .into_bytes();
    body.extend_from_slice(b"\n{\"device\":\"\xff\"}");
    let (stored, report) = decode_once(JsonLines, &body);
    let names: Vec<_> = stored.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["x{device=\"d1\"}", "x{device=\"d6\"}", "x{device=\"d8\"}"]
    );
    let malformed = |line: u32| (format!("line {line}"), Reason::MalformedJson);
    let utf8 = ("line 9".to_owned(), Reason::InvalidUtf8);
    let expect = [malformed(3), malformed(4), malformed(5), malformed(7), utf8];
    assert_eq!(refused(&report), expect);
    let text = report.details()[1].to_string();
    assert!(
        text.contains("expected the end of the line behind the object, at column 34"),
        "{text}"
    );
}

#[test]
fn lines_are_recognised_by_looking() {
    let item = r#"{"device":"d","fields":{"x":1}}"#;
    for body in [
        format!("{item}\n{item}"),
        format!("\n {item} \r\n\n{item}\r\n"),
        format!("{item}\n{{\"device\":"),
    ] {
        assert!(super::looks_like_lines(body.as_bytes()), "{body}");
    }
    for body in [
        item.to_owned(),
        format!("[{item},\n{item}]"),
        format!("[\n{item},\n{item}\n]"),
        "{\n\"device\":\"d\"\n}".to_owned(),
        "{\"tags\":{},\n\"device\":\"d\"}".to_owned(),
        "{\"tags\":\n{}}".to_owned(),
    ] {
        assert!(!super::looks_like_lines(body.as_bytes()), "{body}");
    }
}

#[test]
fn many_fields_are_checked_for_repetition_too() {
    let fields = |n: usize| {
        (0..n)
            .map(|i| format!("\"f{i}\":{i}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    for n in [15, 16, 17, 18, 300] {
        let body = format!(r#"{{"device":"d","fields":{{{}}}}}"#, fields(n));
        let (stored, report) = decode_once(Json, body.as_bytes());
        assert!(report.is_empty());
        assert_eq!(stored.len(), n);
        let body = format!(r#"{{"device":"d","fields":{{{},"f0":1}}}}"#, fields(n));
        let (stored, report) = decode_once(Json, body.as_bytes());
        assert!(stored.is_empty());
        assert_eq!(refused(&report)[0].1, Reason::DuplicateKey, "{n}");
    }
}

#[test]
fn requests_may_have_so_many_samples_and_series_and_no_more() {
    let limits = Limits {
        samples: 4,
        series: 2,
        ..Limits::default()
    };
    let run = |format: ProbeFormat, body: &str| {
        let result = decode(&mut probe(limited(limits.clone())), format, body.as_bytes());
        result
            .map(|(stored, _)| stored.len())
            .map_err(|e| e.reason())
    };
    let two = r#"{"device":"d","fields":{"x":1,"y":2}}"#;
    assert_eq!(run(Json, &format!("[{two},{two}]")), Ok(2));
    assert_eq!(
        run(Json, &format!("[{two},{two},{two}]")),
        Err("too_many_samples")
    );
    let three = r#"{"device":"d","fields":{"x":1,"y":2,"z":3}}"#;
    assert_eq!(run(Json, three), Err("too_many_series"));
    let many = r#"{"device":"d","fields":{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,broken"#;
    assert_eq!(run(Json, many), Err("too_many_samples"));
    assert_eq!(run(JsonLines, many), Err("too_many_samples"));
    // What cannot be read counts as one.
    assert_eq!(run(Json, "[1,1,1,1]"), Ok(0));
    assert_eq!(run(Json, "[1,1,1,1,1]"), Err("too_many_samples"));
    assert_eq!(run(JsonLines, "x\nx\n\nx\nx"), Ok(0));
    assert_eq!(run(JsonLines, "x\nx\n\nx\nx\nx"), Err("too_many_samples"));
}

#[test]
fn refusals_are_remembered_with_their_words() {
    let mut probe = probe(IngestOptions::default());
    let body = br#"{"device":"d","tags":{"a":"1","a":"2"},"fields":{"x":1,"y":2}}"#;
    for _ in 0..2 {
        let (stored, report) = decode(&mut probe, Json, body).unwrap();
        assert!(stored.is_empty());
        assert_eq!((report.items(), report.samples()), (1, 2));
        let text = report.details()[0].to_string();
        assert_eq!(
            text,
            "index 0, x: label \"a\" comes twice (duplicate_label)"
        );
    }
    assert!(matches!(
        decode(&mut probe, Json, b"{"),
        Err(IngestError::MalformedBody { .. })
    ));
}

/// Decodes by `serde_json`, for comparison; `None` where this cannot say.
fn reference(value: &serde_json::Value, stored: &mut Stored) -> Option<()> {
    let device = value.get("device")?.as_str()?;
    let mut pairs = vec![("device", device)];
    for (name, value) in value.get("tags")?.as_object()? {
        pairs.push((name, value.as_str()?));
    }
    for (name, value) in value.get("fields")?.as_object()? {
        let value = match value {
            serde_json::Value::Bool(on) => f64::from(u8::from(*on)),
            other => other.as_f64()?,
        };
        let labels = pairs.iter().copied().chain([("__name__", name.as_str())]);
        let labels = millrace_model::Labels::from_pairs(labels).ok()?;
        let entry = stored.entry(labels.to_string()).or_default();
        entry.push((NOW, value.to_bits()));
    }
    Some(())
}

fn item() -> impl Strategy<Value = serde_json::Value> {
    let text = "[a-z\"\\\\\n ü😀]{1,6}";
    let number = any::<f64>().prop_filter_map("finite", serde_json::Number::from_f64);
    let value = prop_oneof![
        number.prop_map(serde_json::Value::Number),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<bool>().prop_map(serde_json::Value::from),
    ];
    let tags = proptest::collection::btree_map(text, text, 0..3);
    let fields = proptest::collection::btree_map(text, value, 1..4);
    (text, tags, fields).prop_map(
        |(device, tags, fields)| serde_json::json!({"device": device, "tags": tags, "fields": fields}),
    )
}

proptest! {
    #[test]
    fn equals_what_serde_json_reads(items in proptest::collection::vec(item(), 1..5)) {
        let mut expect = Stored::new();
        prop_assume!(items.iter().all(|item| reference(item, &mut expect).is_some()));
        let array = serde_json::to_string_pretty(&items).unwrap();
        let lines: Vec<_> = items.iter().map(ToString::to_string).collect();
        let mut probe = probe(IngestOptions::default());
        // The second time every series is known.
        for _ in 0..2 {
            let (stored, report) = decode(&mut probe, Json, array.as_bytes()).unwrap();
            prop_assert!(report.is_empty(), "{:?}", report.details());
            prop_assert_eq!(&stored, &expect);
            let (stored, report) = decode(&mut probe, JsonLines, lines.join("\n").as_bytes()).unwrap();
            prop_assert!(report.is_empty(), "{:?}", report.details());
            prop_assert_eq!(&stored, &expect);
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in [Json, JsonLines] {
            drop(decode(&mut probe(IngestOptions::default()), format, &bytes));
        }
    }

    #[test]
    fn text_like_items_is_answered(
        text in "(\\{|\\}|\\[|\\]|\"|:|,|\"device\":|\"tags\":|\"fields\":\\{|\"x\":|1|\"timestamp\":|\n|\\\\u00|null){0,30}"
    ) {
        for format in [Json, JsonLines] {
            drop(decode(&mut probe(IngestOptions::default()), format, text.as_bytes()));
        }
    }
}
