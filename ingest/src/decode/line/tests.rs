use proptest::prelude::*;

use crate::probe::ProbeFormat;
use crate::report::Reason;
use crate::testing::{NOW, decode, decode_once, limited, probe, refused, shown};
use crate::{IngestError, IngestOptions, Limits, StringFields};

fn check(body: &str, expect: &[&str]) {
    let (stored, report) = decode_once(ProbeFormat::Line, body.as_bytes());
    assert!(report.is_empty(), "{body:?}: {:?}", report.details());
    assert_eq!(shown(&stored), expect, "{body:?}");
}

/// The line is refused for this reason, with these words; the good line behind it is taken.
fn check_bad(line: &str, reason: Reason, words: &str) {
    let body = format!("{line}\ngood value=1\n");
    let (stored, report) = decode_once(ProbeFormat::Line, body.as_bytes());
    assert_eq!(shown(&stored), ["good 1"], "{line:?}");
    assert_eq!(
        refused(&report),
        [("line 1".to_owned(), reason)],
        "{line:?}"
    );
    let text = report.details()[0].to_string();
    assert!(text.contains(words), "{line:?}: {text}");
}

#[test]
fn measurement_tags_and_fields() {
    check("weather,site=a wind=7", &["weather_wind{site=\"a\"} 7"]);
    check(
        "weather wind=7,rain=0.5",
        &["weather_rain 0.5", "weather_wind 7"],
    );
    check("up,host=h value=1", &["up{host=\"h\"} 1"]);
    check("m,b=2,a=1 value=1", &["m{a=\"1\", b=\"2\"} 1"]);
}

#[test]
fn every_type_of_value() {
    check(
        "m a=1,b=-1.5,c=2i,d=3u,e=1e3,f=+4,g=.5,h=5.",
        &[
            "m_a 1", "m_b -1.5", "m_c 2", "m_d 3", "m_e 1000", "m_f 4", "m_g 0.5", "m_h 5",
        ],
    );
    for word in ["t", "T", "true", "True", "TRUE"] {
        check(&format!("m value={word}"), &["m 1"]);
    }
    for word in ["f", "F", "false", "False", "FALSE"] {
        check(&format!("m value={word}"), &["m 0"]);
    }
    check(
        "m a=-9223372036854775808i,b=9223372036854775807i,c=18446744073709551615u",
        &[
            "m_a -9223372036854776000",
            "m_b 9223372036854776000",
            "m_c 18446744073709552000",
        ],
    );
}

#[test]
fn timestamps_are_optional_and_follow_spaces() {
    let at = |ms: i64| (NOW + ms).to_string();
    check(&format!("m value=1 {}", at(-5)), &["m 1@-5"]);
    check(&format!("m value=1   {}  ", at(7)), &["m 1@7"]);
    check("m   value=1   ", &["m 1"]);
}

#[test]
fn escapes_are_resolved_where_they_mean_something() {
    check(
        r"my\ m\,x,t\ a\=g=v\,a\ l\=ue f\ ie\=l\,d=1",
        &[r#"my m,x_f ie=l,d{t a=g="v,a l=ue"} 1"#],
    );
    // A measurement knows no escaped '='; a backslash before anything else is itself.
    check(r"m\=x,a=b\c value=1", &[r#"m\=x{a="b\\c"} 1"#]);
    check(r"m,a=b\\ c value=1", &[r#"m{a="b\\ c"} 1"#]);
    check("mäß,ö=ü value=1", &["mäß{ö=\"ü\"} 1"]);
}

#[test]
fn strings_are_passed_over_with_everything_in_them() {
    check(r#"m s="text",value=1"#, &["m 1"]);
    check(r#"m s="a,b=c d \" \\",value=1"#, &["m 1"]);
    check("m s=\"two\nlines\",value=1\nn value=2", &["m 1", "n 2"]);
    check(r#"m s="",t="x""#, &[]);
}

#[test]
fn comments_blank_lines_and_line_ends() {
    check(
        "# comment, with = and \"\n\n  \n\r\nm value=1\r\n  n value=2\n#end",
        &["m 1", "n 2"],
    );
    check("m value=1\r", &["m 1"]);
    check("", &[]);
}

#[test]
fn bad_lines_are_refused_by_name() {
    use Reason::{BadTimestamp, DuplicateLabel, EmptyTagValue, MalformedLine, NumberOutOfRange};
    for (line, reason, words) in [
        ("m", MalformedLine, "the line has no fields"),
        ("m,a=b", MalformedLine, "the line has no fields"),
        ("m ", MalformedLine, "expected a field"),
        (",a=b value=1", MalformedLine, "the line has no measurement"),
        ("m,a value=1", MalformedLine, "tag \"a\" has no '='"),
        ("m, value=1", MalformedLine, "tag \"\" has no '='"),
        ("m,=b value=1", MalformedLine, "tag \"=b\" has no key"),
        ("m,a= value=1", EmptyTagValue, "tag \"a=\" has no value"),
        ("m,a=b=c value=1", MalformedLine, "a second '='"),
        ("m,a=b,a=c value=1", DuplicateLabel, "\"a\" comes twice"),
        (
            "m,__name__=b value=1",
            DuplicateLabel,
            "\"__name__\" comes twice",
        ),
        (
            "m value",
            MalformedLine,
            "expected '=' behind the field's key (byte 8",
        ),
        ("m =1", MalformedLine, "expected the field's key before '='"),
        ("m value=", MalformedLine, "expected a value behind '='"),
        ("m value=,b=1", MalformedLine, "expected a value behind '='"),
        ("m value=1,", MalformedLine, "expected a field"),
        (
            "m value=x",
            MalformedLine,
            "no number, boolean or quoted string (byte 9",
        ),
        (
            "m value=tru",
            MalformedLine,
            "no number, boolean or quoted string",
        ),
        (
            "m value=NaN",
            MalformedLine,
            "no number, boolean or quoted string",
        ),
        (
            "m value=inf",
            MalformedLine,
            "no number, boolean or quoted string",
        ),
        (
            "m value=-",
            MalformedLine,
            "no number, boolean or quoted string",
        ),
        (
            "m value=1x",
            MalformedLine,
            "expected a comma, a space or the end",
        ),
        (
            "m value=1.5i",
            MalformedLine,
            "expected a comma, a space or the end",
        ),
        (
            "m value=\"a\"b",
            MalformedLine,
            "expected a comma, a space or the end",
        ),
        ("m value=1e400", NumberOutOfRange, "beyond 64-bit floats"),
        (
            "m value=9223372036854775808i",
            NumberOutOfRange,
            "does not fit 64 bits with sign",
        ),
        (
            "m value=18446744073709551616u",
            NumberOutOfRange,
            "does not fit 64 bits",
        ),
        ("m value=-1u", NumberOutOfRange, "not negative"),
        (
            "m value=1 soon",
            BadTimestamp,
            "the timestamp is no integer",
        ),
        ("m value=1 1.5", BadTimestamp, "the timestamp is no integer"),
        (
            "m value=1 9223372036854775808",
            BadTimestamp,
            "the timestamp is no integer",
        ),
        (
            "m value=1 1 2",
            MalformedLine,
            "expected the end of the line",
        ),
        (
            "m value=1 1795219200000 x",
            MalformedLine,
            "expected the end of the line",
        ),
        (
            "m value=\"open",
            MalformedLine,
            "the string is never closed",
        ),
        (
            "m value=1 1",
            Reason::TooOld,
            "timestamp 1 ms is too old, the oldest taken now is",
        ),
        (
            "m value=1 9999999999999",
            Reason::TooFarAhead,
            "is too far ahead, the newest",
        ),
    ] {
        check_bad(line, reason, words);
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    for line in [
        &b"\xff value=1"[..],
        b"m,a=\xff value=1",
        b"m,\xff=a value=1",
        b"m \xff=1",
    ] {
        let (stored, report) = decode_once(ProbeFormat::Line, line);
        assert!(stored.is_empty());
        assert_eq!(refused(&report)[0].1, Reason::InvalidUtf8, "{line:?}");
    }
}

#[test]
fn line_numbers_count_every_line() {
    let body = "# one\n\nbad\nm s=\"four\nfive\",value=1\nbad\r\n\nbad\nn,a=\"x value=1\nbad";
    let (stored, report) = decode_once(ProbeFormat::Line, body.as_bytes());
    assert_eq!(shown(&stored), ["m 1", "n{a=\"\\\"x\"} 1"]);
    let lines: Vec<_> = refused(&report)
        .into_iter()
        .map(|(place, _)| place)
        .collect();
    assert_eq!(lines, ["line 3", "line 6", "line 8", "line 10"]);
}

#[test]
fn a_bad_line_with_a_string_over_two_lines_ends_behind_it() {
    let body = "m,=x s=\"a\nb\" 1\ngood value=1\nm s=\"never closed\ngood value=2";
    let (stored, report) = decode_once(ProbeFormat::Line, body.as_bytes());
    assert_eq!(shown(&stored), ["good 1 2"]);
    let lines: Vec<_> = refused(&report)
        .into_iter()
        .map(|(place, _)| place)
        .collect();
    assert_eq!(lines, ["line 1", "line 4"]);
}

#[test]
fn bad_tags_refuse_a_line_once_and_stay_refused() {
    let mut probe = probe(IngestOptions::default());
    for _ in 0..3 {
        let (stored, report) =
            decode(&mut probe, ProbeFormat::Line, b"m,a=1,a=2 x=1,y=2,z=3\n").unwrap();
        assert!(stored.is_empty());
        assert_eq!((report.items(), report.samples()), (1, 3));
        let text = report.details()[0].to_string();
        assert_eq!(
            text,
            "line 1, m_x: label \"a\" comes twice (duplicate_label)"
        );
    }
}

#[test]
fn string_fields_are_named_where_they_are_refused() {
    let mut probe = probe(IngestOptions {
        influx_string_fields: StringFields::Reject,
        ..IngestOptions::default()
    });
    let (stored, report) = decode(&mut probe, ProbeFormat::Line, b"m,a=b x=1,s=\"t\"").unwrap();
    assert_eq!(shown(&stored), ["m_x{a=\"b\"} 1"]);
    assert_eq!(
        report.details()[0].to_string(),
        "line 1, m,a=b, field \"s\": string fields are not stored (string_field)"
    );
}

#[test]
fn the_separator_can_be_another() {
    let mut probe = probe(IngestOptions {
        influx_separator: ".".to_owned(),
        ..IngestOptions::default()
    });
    let (stored, _) = decode(&mut probe, ProbeFormat::Line, b"m x=1,value=2").unwrap();
    assert_eq!(shown(&stored), ["m 2", "m.x 1"]);
}

#[test]
fn requests_may_have_so_many_samples_and_series_and_no_more() {
    let limits = Limits {
        samples: 4,
        series: 2,
        ..Limits::default()
    };
    let run = |body: &str| {
        let result = decode(
            &mut probe(limited(limits.clone())),
            ProbeFormat::Line,
            body.as_bytes(),
        );
        result
            .map(|(stored, _)| stored.len())
            .map_err(|e| e.reason())
    };
    assert_eq!(run("a x=1,y=2\na x=1,y=2"), Ok(2));
    assert_eq!(run("a x=1,y=2\na x=1,y=2\na x=1"), Err("too_many_samples"));
    assert_eq!(run("a x=1,y=2,z=3"), Err("too_many_series"));
    // Refused ones count too.
    assert_eq!(run("a x=1,y=2,z=3 1\na x=1,y=2 1"), Err("too_many_samples"));
    assert_eq!(
        run("a x=1,x=1,x=1,x=1,x=1,x=1,broken"),
        Err("too_many_samples")
    );
}

#[test]
fn bad_lines_are_bounded_too() {
    let limits = Limits {
        samples: 4,
        ..Limits::default()
    };
    let run = |body: &str| {
        let mut probe = probe(limited(limits.clone()));
        let result = decode(&mut probe, ProbeFormat::Line, body.as_bytes());
        result
            .map(|(_, report)| report.items())
            .map_err(|e| e.reason())
    };
    assert_eq!(run("bad\nbad\nbad\nbad"), Ok(4));
    assert_eq!(run("bad\nbad\nbad\nbad\nbad"), Err("too_many_samples"));
    assert_eq!(run(&"#\n".repeat(100)), Ok(0));
}

#[test]
fn many_series_with_long_tags_in_one_short_line_are_bounded() {
    let limits = Limits {
        decoded_bytes: 100_000,
        ..Limits::default()
    };
    let line = |fields: usize| {
        let fields: Vec<_> = (0..fields).map(|i| format!("f{i:03}=1")).collect();
        format!("m,t={} {}", "x".repeat(4_000), fields.join(","))
    };
    let mut probe = probe(limited(limits));
    let mut run = |fields: usize| {
        let result = decode(&mut probe, ProbeFormat::Line, line(fields).as_bytes());
        result
            .map(|(stored, _)| stored.len())
            .map_err(|e| e.reason())
    };
    // 4,000 bytes and some of each series: 24 fit.
    assert_eq!(run(25), Err("too_many_series"));
    assert_eq!(run(24), Ok(24));
    // What is known already costs nothing any more.
    assert_eq!(run(48), Ok(48));
}

#[test]
fn a_refused_request_leaves_no_trace_in_the_next_one() {
    let limits = Limits {
        samples: 3,
        ..Limits::default()
    };
    let mut probe = probe(limited(limits));
    let over = decode(&mut probe, ProbeFormat::Line, b"a x=1,y=2\na x=1,y=2");
    assert!(matches!(over, Err(IngestError::TooLarge { .. })));
    let (stored, _) = decode(&mut probe, ProbeFormat::Line, b"b x=1").unwrap();
    assert_eq!(shown(&stored), ["b_x 1"]);
}

/// A point, and how it is written.
#[derive(Clone, Debug)]
struct Point {
    measurement: String,
    tags: std::collections::BTreeMap<String, String>,
    fields: std::collections::BTreeMap<String, f64>,
    offset: i64,
}

/// Any text that does not end in a backslash (which would escape what follows it) and has no
/// newline; and none where a backslash stands before what it would escape.
fn name() -> impl Strategy<Value = String> {
    "[a-z,= \"#ü\\\\]{1,8}".prop_filter("writable", |text| {
        let escaping = [r"\,", r"\=", r"\ "];
        !text.ends_with('\\') && !escaping.iter().any(|e| text.contains(e))
    })
}

fn point() -> impl Strategy<Value = Point> {
    let tags = proptest::collection::btree_map(name(), name(), 0..4);
    let value = any::<f64>().prop_filter("finite", |v| v.is_finite());
    let fields = proptest::collection::btree_map(name(), value, 1..4);
    (name(), tags, fields, -1000..1000i64).prop_map(|(measurement, tags, fields, offset)| Point {
        // A line that begins with one of these would be a comment or lose its space.
        measurement: format!("m{measurement}"),
        tags,
        fields,
        offset,
    })
}

fn escape(text: &str, special: &[char]) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Point {
    fn write(&self, out: &mut String) {
        use std::fmt::Write;
        let key = |text: &str| escape(text, &[',', '=', ' ']);
        out.push_str(&escape(&self.measurement, &[',', ' ']));
        for (name, value) in &self.tags {
            write!(out, ",{}={}", key(name), key(value)).unwrap();
        }
        for (i, (name, value)) in self.fields.iter().enumerate() {
            let separator = if i == 0 { ' ' } else { ',' };
            write!(out, "{separator}{}={value:?}", key(name)).unwrap();
        }
        writeln!(out, " {}", NOW + self.offset).unwrap();
    }

    fn store(&self, stored: &mut crate::testing::Stored) {
        for (field, value) in &self.fields {
            let metric = match field.as_str() {
                "value" => self.measurement.clone(),
                field => format!("{}_{field}", self.measurement),
            };
            let tags = self.tags.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            let pairs = tags.chain([("__name__", metric.as_str())]);
            let labels = millrace_model::Labels::from_pairs(pairs).unwrap();
            let entry = stored.entry(labels.to_string()).or_default();
            entry.push((NOW + self.offset, value.to_bits()));
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(points in proptest::collection::vec(point(), 1..8)) {
        let mut text = String::new();
        let mut expect = crate::testing::Stored::new();
        for point in &points {
            point.write(&mut text);
            point.store(&mut expect);
        }
        let mut probe = probe(IngestOptions::default());
        // The second time every series is known.
        for _ in 0..2 {
            let (stored, report) = decode(&mut probe, ProbeFormat::Line, text.as_bytes()).unwrap();
            prop_assert!(report.is_empty(), "{:?} {text:?}", report.details());
            prop_assert_eq!(&stored, &expect, "{:?}", text);
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        decode_once(ProbeFormat::Line, &bytes);
    }

    #[test]
    fn text_like_line_protocol_is_answered(text in "([ma,= \\\\\"#\n\r\t1.eituf+-]|\\PC){0,60}") {
        let (stored, report) = decode_once(ProbeFormat::Line, text.as_bytes());
        let mut probe = probe(IngestOptions::default());
        for _ in 0..2 {
            let (again, report_again) = decode(&mut probe, ProbeFormat::Line, text.as_bytes()).unwrap();
            prop_assert_eq!(&again, &stored);
            prop_assert_eq!(report_again.details(), report.details());
        }
        let lines = text.split('\n').count() as u64;
        for rejection in report.details() {
            let crate::Place::Line(line) = rejection.place else { unreachable!() };
            prop_assert!((1..=lines).contains(&line));
        }
    }
}
