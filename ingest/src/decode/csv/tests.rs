use super::*;
use crate::probe::ProbeFormat;
use crate::testing::{NOW, decode_once, refused, shown};

// What the probe's CSV is: `1:label:site,2:metric:wind,3:metric:rain,4:time:unix_ms`.

fn check(body: &[u8]) -> (Vec<String>, Vec<(String, Reason)>) {
    let (stored, report) = decode_once(ProbeFormat::Csv, body);
    (shown(&stored), refused(&report))
}

#[test]
fn columns_become_labels_values_and_time() {
    let body = format!("a,1,2.5,{NOW}\r\n\n\"b, \"\"c\"\"\",3,,{}\n", NOW + 5);
    let (stored, refused) = check(body.as_bytes());
    assert_eq!(
        stored,
        [
            "rain{site=\"a\"} 2.5",
            "wind{site=\"a\"} 1",
            "wind{site=\"b, \\\"c\\\"\"} 3@5"
        ]
    );
    assert!(refused.is_empty());
}

#[test]
fn an_empty_label_is_no_label() {
    let (stored, _) = check(format!(",1,,{NOW}").as_bytes());
    assert_eq!(stored, ["wind 1"]);
}

#[test]
fn bad_lines_are_named_and_the_others_stored() {
    let old = NOW - 40 * 86_400_000;
    let body = format!(
        "a,1,2,{NOW}\na,1\na,x,2,{NOW}\na,1,2,noon\na,1,2,{old}\n\"a,1,2,{NOW}\n\"a\"b,1,2,{NOW}\n"
    );
    let (stored, refused) = check(body.as_bytes());
    assert_eq!(stored.len(), 2);
    let expect = [
        (2, Reason::MalformedCsv),
        (3, Reason::MalformedCsv),
        (4, Reason::BadTimestamp),
        (5, Reason::TooOld),
        (6, Reason::MalformedCsv),
        (7, Reason::MalformedCsv),
    ];
    assert_eq!(
        refused,
        expect.map(|(line, reason)| (format!("line {line}"), reason))
    );
}

#[test]
fn a_label_that_is_not_utf8_refuses_its_line() {
    let mut body = b"\xff,1,2,".to_vec();
    body.extend(NOW.to_string().bytes());
    let (stored, refused) = check(&body);
    assert_eq!(stored, Vec::<String>::new());
    assert_eq!(refused, [("line 1".to_owned(), Reason::InvalidUtf8)]);
}

#[test]
fn mappings_that_are_none_are_refused() {
    for format in [
        "",
        "metric",
        "0:metric:a",
        "1001:metric:a",
        "1:metric",
        "1:label:a",
        "1:metric:a,2:time:unix_s,3:time:unix_s",
        "1:metric:a,2:time:custom:2006",
        "1:colour:a",
    ] {
        let error = CsvFormat::parse(format).unwrap_err();
        assert!(
            matches!(error, IngestError::BadParameter { .. }),
            "{format}"
        );
    }
    assert!(CsvFormat::parse("2:metric:a,1:label:b,9:time:rfc3339").is_ok());
}

#[test]
fn times_of_every_format() {
    let read = |format: &str, text: &str| {
        let format = CsvFormat::parse(&format!("1:metric:a,2:time:{format}")).unwrap();
        format.time.unwrap().1.read(text.as_bytes()).map(|t| t.0)
    };
    assert_eq!(read("unix_s", "2.5"), Some(2500));
    assert_eq!(read("unix_ms", "-1"), Some(-1));
    assert_eq!(read("unix_us", "1999"), Some(1));
    assert_eq!(read("unix_ns", "1999999"), Some(1));
    assert_eq!(read("rfc3339", "1970-01-01T00:00:01Z"), Some(1000));
    assert_eq!(read("rfc3339", "1"), None);
    assert_eq!(read("unix_s", "1x"), None);
}
