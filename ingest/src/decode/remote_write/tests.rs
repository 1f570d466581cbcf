use proptest::prelude::*;

use millrace_model::{Labels, write_varint};

use crate::probe::ProbeFormat::RemoteWrite;
use crate::report::Reason;
use crate::testing::{NOW, Stored, decode, decode_once, limited, probe, refused, shown};
use crate::{IngestOptions, Limits, TenantLimits};

/// A length-delimited field.
fn message(field: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(&mut out, field << 3 | 2);
    write_varint(&mut out, content.len() as u64);
    out.extend_from_slice(content);
    out
}

fn label(name: &[u8], value: &[u8]) -> Vec<u8> {
    message(1, &[message(1, name), message(2, value)].concat())
}

fn value(value: f64) -> Vec<u8> {
    [&[0x09][..], &value.to_le_bytes()].concat()
}

fn timestamp(offset: i64) -> Vec<u8> {
    let mut out = vec![0x10];
    write_varint(&mut out, (NOW + offset) as u64);
    out
}

fn sample(offset: i64, number: f64) -> Vec<u8> {
    message(2, &[value(number), timestamp(offset)].concat())
}

fn series(parts: &[Vec<u8>]) -> Vec<u8> {
    message(1, &parts.concat())
}

fn check(body: &[u8], expect: &[&str]) {
    let (stored, report) = decode_once(RemoteWrite, body);
    assert!(report.is_empty(), "{:?}", report.details());
    assert_eq!(shown(&stored), expect);
}

fn up() -> Vec<u8> {
    label(b"__name__", b"up")
}

#[test]
fn the_ordinary_shape() {
    let job = || label(b"job", b"node");
    check(
        &series(&[up(), job(), sample(-2, 1.0), sample(-1, 0.0)]),
        &["up{job=\"node\"} 1@-2 0@-1"],
    );
    check(
        &[
            series(&[up(), sample(0, 1.0)]),
            series(&[job(), up(), sample(0, 2.0)]),
        ]
        .concat(),
        &["up 1", "up{job=\"node\"} 2"],
    );
    // An empty value is no label.
    check(
        &series(&[up(), label(b"job", b""), sample(0, 1.0)]),
        &["up 1"],
    );
    check(&series(&[up()]), &[]);
    check(b"", &[]);
}

#[test]
fn everything_that_the_format_allows() {
    let long = "v".repeat(300);
    let swapped = message(2, &[timestamp(-1), value(1.0)].concat());
    let twice = message(2, &[value(7.0), timestamp(0), value(1.0)].concat());
    let padded = {
        // A varint with superfluous bytes.
        let mut bytes = timestamp(0);
        let last = bytes.len() - 1;
        bytes[last] |= 0x80;
        bytes.push(0);
        message(2, &[value(1.0), bytes].concat())
    };
    let unknown = [message(9, b"x"), vec![0x50, 1], vec![0x65, 0, 0, 0, 0]].concat();
    for (body, expect) in [
        (series(&[up(), swapped]), "up 1@-1"),
        (series(&[up(), twice]), "up 1"),
        (series(&[up(), padded]), "up 1"),
        (series(&[sample(0, 1.0), up()]), "up 1"),
        (
            series(&[up(), sample(0, 1.0), label(b"a", b"b"), sample(1, 2.0)]),
            "up{a=\"b\"} 1 2@1",
        ),
        (
            series(&[up(), unknown.clone(), sample(0, 1.0), unknown.clone()]),
            "up 1",
        ),
        ([unknown, series(&[up(), sample(0, 1.0)])].concat(), "up 1"),
        (
            series(&[up(), label(b"a", long.as_bytes()), sample(0, 1.0)]),
            &format!("up{{a=\"{long}\"}} 1"),
        ),
        // Value before name, and a value left out as it is 0.
        (
            series(&[
                message(1, &[message(2, b"up"), message(1, b"__name__")].concat()),
                message(2, &timestamp(0)),
            ]),
            "up 0",
        ),
    ] {
        check(&body, &[expect]);
    }
}

#[test]
fn one_series_written_in_two_ways_keeps_its_order() {
    let body = [
        series(&[up(), label(b"a", b"b"), sample(0, 1.0)]),
        series(&[label(b"a", b"b"), up(), sample(0, 2.0)]),
        series(&[up(), label(b"a", b"b"), sample(0, 3.0)]),
    ]
    .concat();
    check(&body, &["up{a=\"b\"} 1 2 3"]);
}

#[test]
fn bad_series_are_refused_by_name_and_their_neighbours_are_not() {
    use Reason::*;
    let good = series(&[up(), sample(0, 1.0)]);
    let many: Vec<_> = (0..40)
        .map(|i| label(format!("l{i:02}").as_bytes(), b"v"))
        .collect();
    for (bad, reason, text) in [
        (
            vec![label(b"a", b"b"), sample(0, 1.0)],
            MissingMetricName,
            "series 1: the series has no metric name",
        ),
        (
            vec![up(), label(b"", b"b"), sample(0, 1.0)],
            EmptyLabelName,
            "series 1, up: label with an empty name",
        ),
        (
            vec![up(), label(b"a", b"1"), label(b"a", b"2"), sample(0, 1.0)],
            DuplicateLabel,
            "series 1, up: label \"a\" comes twice",
        ),
        (
            vec![up(), label(b"a", b"\xff"), sample(0, 1.0)],
            InvalidUtf8,
            "series 1, up: label value",
        ),
        (
            [vec![up()], many, vec![sample(0, 1.0)]].concat(),
            TooManyLabels,
            "series 1, up: more than 40 labels; \"l39\" is one too many",
        ),
        (
            vec![up(), message(4, b""), message(4, b"")],
            NativeHistogram,
            "series 1, up: native histograms are not stored",
        ),
    ] {
        let body = [good.clone(), series(&bad), good.clone()].concat();
        let (stored, report) = decode_once(RemoteWrite, &body);
        assert_eq!(shown(&stored), ["up 1 1"]);
        assert_eq!(refused(&report), [("series 1".to_owned(), reason)]);
        let got = report.details()[0].to_string();
        assert!(got.starts_with(text), "{got}");
    }
}

#[test]
fn timestamps_out_of_bounds_are_refused_and_the_others_taken() {
    let options = IngestOptions::default();
    let age = options.limits.max_age.unwrap().as_millis() as i64;
    let ahead = options.limits.max_ahead.unwrap().as_millis() as i64;
    let offsets = [-age - 1, -age, 0, ahead, ahead + 1, -age - 5];
    let mut parts = vec![up()];
    parts.extend(offsets.map(|offset| sample(offset, 1.0)));
    let body = series(&parts);
    let (stored, report) = decode_once(RemoteWrite, &body);
    let taken: Vec<_> = stored["up"].iter().map(|s| s.0 - NOW).collect();
    assert_eq!(taken, [-age, 0, ahead]);
    let place = "series 0".to_owned();
    assert_eq!(
        refused(&report),
        [
            (place.clone(), Reason::TooOld),
            (place, Reason::TooFarAhead)
        ]
    );
    assert_eq!(report.samples(), 3);
    let text = report.details()[0].to_string();
    let expect = format!(
        "series 0, up: timestamp {} ms is too old, the oldest taken now is {} ms (ingest.max_age) \
         (too_old)",
        NOW - age - 1,
        NOW - age
    );
    assert_eq!(text, expect);

    let unbounded = IngestOptions {
        limits: TenantLimits {
            max_age: None,
            max_ahead: None,
            ..options.limits.clone()
        },
        ..options
    };
    let (stored, report) = decode(&mut probe(unbounded), RemoteWrite, &body).unwrap();
    assert!(report.is_empty());
    assert_eq!(stored["up"].len(), 6);
}

#[test]
fn bytes_that_are_no_request_are_refused_with_their_position() {
    let good = series(&[up(), sample(0, 1.0)]);
    for (body, words) in [
        (&b"\x0a"[..], "varint at byte 1"),
        (
            b"\x0a\x05abc",
            "length beyond the end of its message at byte 1",
        ),
        (b"\x08\x01", "wire type of a time series"),
        (b"\x0b", "wire type at byte 0"),
        (b"\x00\x00", "field number 0 at byte 0"),
        (
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            "varint at byte 0",
        ),
        (b"\x0a\x02\x08\x01", "wire type in a time series at byte 2"),
        (b"\x0a\x04\x12\x02\x08\x01", "wire type in a sample"),
        (
            b"\x0a\x04\x12\x02\x09\x01",
            "fixed-size value beyond the end",
        ),
        (b"\x1a\x02\x10\x01", "wire type in metadata"),
    ] {
        let body = [&good, body].concat();
        let error = decode(&mut probe(IngestOptions::default()), RemoteWrite, &body).unwrap_err();
        assert_eq!(error.reason(), "malformed_protobuf");
        let text = error.to_string();
        let words = words.split(" at byte ").next().unwrap();
        assert!(text.contains(words), "{text}");
        assert!(text.contains("at byte "), "{text}");
    }
}

#[test]
fn requests_may_have_so_many_samples_and_series_and_no_more() {
    let limits = Limits {
        samples: 40,
        series: 35,
        ..Limits::default()
    };
    let run = |body: &[u8]| {
        let result = decode(&mut probe(limited(limits.clone())), RemoteWrite, body);
        result
            .map(|(stored, _)| stored.len())
            .map_err(|e| e.reason())
    };
    let one = |i: usize| series(&[up(), label(b"i", i.to_string().as_bytes()), sample(0, 1.0)]);
    let distinct = |n: usize| (0..n).flat_map(one).collect::<Vec<_>>();
    assert_eq!(run(&distinct(35)), Ok(35));
    assert_eq!(run(&distinct(36)), Err("too_many_series"));
    // The same series again is no further one.
    assert_eq!(run(&[distinct(35), distinct(5)].concat()), Ok(35));
    assert_eq!(
        run(&[distinct(35), distinct(6)].concat()),
        Err("too_many_samples")
    );
    let long = |n: usize| {
        let samples = (0..n).map(|i| sample(i as i64, 1.0));
        series(&[up()].into_iter().chain(samples).collect::<Vec<_>>())
    };
    assert_eq!(run(&long(40)), Ok(1));
    assert_eq!(run(&long(41)), Err("too_many_samples"));
    let odd = |n: usize| [long(n), series(&[message(9, b""), up()])].concat();
    assert_eq!(run(&odd(41)), Err("too_many_samples"));
}

#[test]
fn metadata_entries_are_bounded() {
    let limits = Limits {
        series: 3,
        ..Limits::default()
    };
    let run = |count: usize| {
        let body = message(3, b"").repeat(count);
        let result = decode(&mut probe(limited(limits.clone())), RemoteWrite, &body);
        result
            .map(|(_, report)| report.items())
            .map_err(|e| e.reason())
    };
    assert_eq!(run(3), Ok(3));
    assert_eq!(run(4), Err("too_many_series"));
}

#[test]
fn long_series_come_out_whole() {
    let samples: Vec<_> = (0..20_000).map(|i| sample(-i, i as f64)).collect();
    let (stored, report) = decode_once(RemoteWrite, &series(&[vec![up()], samples].concat()));
    assert!(report.is_empty());
    let expect: Vec<_> = (0..20_000)
        .map(|i| (NOW - i, (i as f64).to_bits()))
        .collect();
    assert!(stored["up"] == expect);
}

#[derive(Clone, Debug)]
struct Input {
    labels: std::collections::BTreeMap<String, String>,
    samples: Vec<(i64, u64)>,
}

fn input() -> impl Strategy<Value = Input> {
    let labels = proptest::collection::btree_map("[a-c]{1,2}", "\\PC{0,5}", 0..4);
    let samples = proptest::collection::vec((-1000..1000i64, any::<u64>()), 0..4);
    ("[a-z]{1,3}", labels, samples).prop_map(|(name, mut labels, samples)| {
        labels.insert("__name__".to_owned(), name);
        Input { labels, samples }
    })
}

/// The messages by prost, so that another encoder than the tests' own is read.
mod prompb {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Label {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }
}

impl Input {
    fn to_proto(&self) -> prompb::TimeSeries {
        let label = |(name, value): (&String, &String)| prompb::Label {
            name: name.clone(),
            value: value.clone(),
        };
        let sample = |(offset, bits): &(i64, u64)| prompb::Sample {
            value: f64::from_bits(*bits),
            timestamp: NOW + offset,
        };
        prompb::TimeSeries {
            labels: self.labels.iter().map(label).collect(),
            samples: self.samples.iter().map(sample).collect(),
        }
    }
}

proptest! {
    #[test]
    fn equals_what_prost_wrote(inputs in proptest::collection::vec(input(), 0..40)) {
        let request = prompb::WriteRequest {
            timeseries: inputs.iter().map(Input::to_proto).collect(),
        };
        let body = prost::Message::encode_to_vec(&request);
        let mut expect = Stored::new();
        for input in inputs.iter().filter(|input| !input.samples.is_empty()) {
            let pairs = input.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            let labels = Labels::from_pairs(pairs).unwrap();
            let samples = input.samples.iter().map(|(offset, bits)| {
                // Proto3 leaves out what equals 0, and -0.0 does.
                let bits = if *bits == (-0.0f64).to_bits() { 0 } else { *bits };
                (NOW + offset, bits)
            });
            expect.entry(labels.to_string()).or_default().extend(samples);
        }
        let mut probe = probe(IngestOptions::default());
        for _ in 0..2 {
            let (stored, report) = decode(&mut probe, RemoteWrite, &body).unwrap();
            prop_assert!(report.is_empty(), "{:?}", report.details());
            prop_assert_eq!(&stored, &expect);
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(decode(&mut probe(IngestOptions::default()), RemoteWrite, &bytes));
    }

    #[test]
    fn damaged_requests_are_answered(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut body = [
            series(&[up(), label(b"a", b"b"), sample(0, 1.0), message(3, b""), message(4, b"")]),
            message(3, &[vec![0x08, 1], message(2, b"up"), message(4, b"help")].concat()),
        ]
        .concat();
        *at.get_mut(&mut body) = byte;
        body.truncate(cut.index(body.len()) + 1);
        drop(decode(&mut probe(IngestOptions::default()), RemoteWrite, &body));
    }
}
