use super::*;
use crate::probe::ProbeFormat;
use crate::report::Reason;
use crate::testing::{NOW, decode, decode_once, probe, refused, shown};
use crate::{IngestOptions, Rejection};
use proptest::prelude::*;

type Outcome = (Vec<String>, Vec<(String, Reason)>);

fn check(body: &str) -> Outcome {
    let (stored, report) = decode_once(ProbeFormat::Text, body.as_bytes());
    (shown(&stored), refused(&report))
}

fn open_metrics(body: &str) -> Result<Outcome, IngestError> {
    let mut probe = probe(IngestOptions::default());
    let (stored, report) = decode(&mut probe, ProbeFormat::OpenMetrics, body.as_bytes())?;
    Ok((shown(&stored), refused(&report)))
}

#[test]
fn samples_of_every_form() {
    let body = format!(
        "# HELP up Whether it is up.\n# TYPE up gauge\n# just a comment\n\n\
         up 1\n\
         up{{job=\"a\"}} 2.5 {NOW}\r\n\
         up {{ job = \"b\" , x=\"y\", }} -0.5e1 {}\n\
         {{\"my.metric\",\"label.x\"=\"v\",y=\"z\"}} 3\n\
         \tindented\t4\n\
         esc{{a=\"q\\\"b\\\\n\\n}}\"}} 5\n\
         inf +Inf\nninf -Inf\nnan NaN",
        NOW + 7
    );
    let (stored, refused) = check(&body);
    assert_eq!(refused, []);
    assert_eq!(
        stored,
        [
            "esc{a=\"q\\\"b\\\\n\\n}\"} 5",
            "indented 4",
            "inf inf",
            "my.metric{label.x=\"v\", y=\"z\"} 3",
            "nan NaN",
            "ninf -inf",
            "up 1",
            "up{job=\"a\"} 2.5",
            "up{job=\"b\", x=\"y\"} -5@7",
        ]
    );
}

#[test]
fn bad_lines_are_named_and_the_others_stored() {
    let bad = [
        ("lonely", Reason::MalformedText),
        ("m{a=\"b\" 1", Reason::MalformedText),
        ("m{a=\"b\"} x", Reason::MalformedText),
        ("m{a=\"b\"}", Reason::MalformedText),
        ("m{a=b} 1", Reason::MalformedText),
        ("m{a} 1", Reason::MalformedText),
        ("m{a=\"b\"c=\"d\"} 1", Reason::MalformedText),
        ("0m 1", Reason::MalformedText),
        ("m{0a=\"b\"} 1", Reason::MalformedText),
        ("m 1 2 3", Reason::MalformedText),
        ("m 1 noon", Reason::BadTimestamp),
        ("m 1 1", Reason::TooOld),
        ("m{a=\"1\",a=\"2\"} 1", Reason::DuplicateLabel),
        ("{a=\"1\"} 1", Reason::MissingMetricName),
        ("m 1 # {a=\"b\"} 1", Reason::MalformedText),
        ("# TYPE m colour", Reason::MalformedText),
        ("# TYPE", Reason::MalformedText),
        ("m -nan", Reason::MalformedText),
        ("m{a=\"b} 1", Reason::MalformedText),
        ("m{a=\"b\"} } 1", Reason::MalformedText),
    ];
    for (line, reason) in bad {
        let (stored, refused) = check(&format!("a 1\n{line}\nb 2\n"));
        assert_eq!(stored, ["a 1", "b 2"], "{line}");
        assert_eq!(refused, [("line 2".to_owned(), reason)], "{line}");
    }
}

#[test]
fn open_metrics_counts_in_seconds_and_ends() {
    let seconds = NOW / 1000;
    let body = format!(
        "# TYPE r counter\n# UNIT r seconds\n# HELP r A \\\"b\\\".\n\
         r_total{{a=\"}} # {{\"}} 3 {seconds}.5 # {{trace_id=\"x}}\"}} 0.5 {seconds}\n\
         r_created{{a=\"x\"}} {seconds}.25\n# EOF\n"
    );
    let (stored, refused) = open_metrics(&body).unwrap();
    assert_eq!(refused, []);
    assert_eq!(
        stored,
        [
            format!("r_created{{a=\"x\"}} {seconds}.25"),
            "r_total{a=\"} # {\"} 3@500".to_owned(),
        ]
    );
}

#[test]
fn open_metrics_that_is_cut_short_is_refused_as_a_whole() {
    for body in ["a 1\n", "", "a 1\n# EOF\nb 2\n"] {
        let error = open_metrics(body).unwrap_err();
        assert_eq!(error.reason(), "malformed_text", "{body:?}");
    }
    assert!(open_metrics("a 1\n# EOF").is_ok());
    // In the older format it is a comment.
    assert_eq!(check("a 1\n# EOF\nb 2\n").0.len(), 2);
}

#[test]
fn rejections_say_value_and_limit() {
    let (_, report) = decode_once(ProbeFormat::Text, b"m 1 1\n");
    let Rejection { value, limit, .. } = &report.details()[0];
    assert_eq!(value.as_deref(), Some("1"));
    assert_eq!(*limit, Some(NOW - 30 * 86_400_000));
}

#[test]
fn the_parser_says_what_each_line_says() {
    let text = b"# HELP a b c\n# TYPE a summary\n# UNIT a s\n\nx{y=\"z\"} 1 2 # {t=\"u\"} 1\n# EOF";
    let mut parser = Parser::new(text, Dialect::OpenMetrics);
    let mut next = || parser.next().map(Result::unwrap);
    assert!(matches!(next(), Some(Event::Help(b"a", b"b c"))));
    assert!(matches!(
        next(),
        Some(Event::Type(b"a", MetricType::Summary))
    ));
    assert!(matches!(next(), Some(Event::Unit(b"a", b"s"))));
    let Some(Event::Sample(sample)) = next() else {
        panic!("no sample");
    };
    assert_eq!(sample.series, b"x{y=\"z\"}");
    assert_eq!(sample.timestamp, Some(TimestampMs(2000)));
    assert!(sample.exemplar);
    assert!(matches!(next(), Some(Event::Eof)));
    assert!(next().is_none());
    assert_eq!(parser.line(), 6);
}

proptest! {
    #[test]
    fn any_label_survives_its_text(name in "[a-z.\"\\\\ü]{1,8}", value in "[a-z\"\\\\\n{}#, =ü]{0,12}") {
        let escape = |s: &str| s.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let line = format!("{{\"m\",\"{}\"=\"{}\"}} 1\n", escape(&name), escape(&value));
        let mut labels = Vec::new();
        let mut parser = Parser::new(line.as_bytes(), Dialect::Prometheus);
        let Some(Ok(Event::Sample(sample))) = parser.next() else {
            panic!("{line}");
        };
        series_labels(sample.series, |n, v| { labels.push((n.to_owned(), v.to_owned())); Ok(()) }).unwrap();
        prop_assert_eq!(labels, [("__name__".to_owned(), "m".to_owned()), (name, value)]);
    }
}
