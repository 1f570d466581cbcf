use prost::Message;

use super::*;
use crate::probe::ProbeFormat;
use crate::testing::{NOW, decode, decode_once, limited, probe, refused, shown};
use crate::{IngestOptions, Limits};

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Point>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    histograms: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    exemplars: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Point {
    #[prost(double, optional, tag = "1")]
    value: Option<f64>,
    #[prost(int64, tag = "2")]
    timestamp: i64,
    #[prost(int64, tag = "3")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

/// Symbols in the order in which they are asked for.
struct Table(Vec<String>);

impl Table {
    fn new() -> Self {
        Self(vec![String::new()])
    }

    fn get(&mut self, text: &str) -> u32 {
        let found = self.0.iter().position(|symbol| symbol == text);
        found.unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len() - 1
        }) as u32
    }

    fn series(&mut self, labels: &[(&str, &str)], value: f64) -> TimeSeries {
        TimeSeries {
            labels_refs: labels
                .iter()
                .flat_map(|(name, value)| [self.get(name), self.get(value)])
                .collect(),
            samples: vec![Point {
                value: Some(value),
                timestamp: NOW,
                start_timestamp: 0,
            }],
            ..TimeSeries::default()
        }
    }

    fn body(self, timeseries: Vec<TimeSeries>) -> Vec<u8> {
        let symbols = self.0;
        Request {
            symbols,
            timeseries,
        }
        .encode_to_vec()
    }
}

const FORMAT: ProbeFormat = ProbeFormat::RemoteWrite2;

#[test]
fn series_are_told_by_their_symbols_not_by_their_references() {
    let mut probe = probe(IngestOptions::default());
    for first in ["x", "y", "z"] {
        // Every request has its own table, so every reference means something else each time.
        let mut table = Table::new();
        table.get(first);
        let a = table.series(&[("__name__", "up"), ("job", "a")], 1.0);
        let b = table.series(&[("__name__", "up"), ("job", "b")], 2.0);
        let c = table.series(&[("__name__", "down"), ("job", "a")], 3.0);
        let (stored, report) = decode(&mut probe, FORMAT, &table.body(vec![a, b, c])).unwrap();
        assert!(report.is_empty());
        assert_eq!(
            shown(&stored),
            ["down{job=\"a\"} 3", "up{job=\"a\"} 1", "up{job=\"b\"} 2"]
        );
    }
}

#[test]
fn symbols_may_stand_behind_the_series() {
    let mut table = Table::new();
    let series = table.series(&[("__name__", "up")], -0.0);
    let symbols = table.0;
    let mut body = Request {
        symbols: Vec::new(),
        timeseries: vec![series],
    }
    .encode_to_vec();
    body.extend(
        Request {
            symbols,
            timeseries: Vec::new(),
        }
        .encode_to_vec(),
    );
    let (stored, _) = decode_once(FORMAT, &body);
    assert_eq!(stored["up"], [(NOW, (-0.0f64).to_bits())]);
}

#[test]
fn bad_series_are_named_and_the_others_stored() {
    let mut table = Table::new();
    let good = table.series(&[("__name__", "good")], 1.0);
    let odd = TimeSeries {
        labels_refs: vec![1],
        ..good.clone()
    };
    let outside = TimeSeries {
        labels_refs: vec![1, 99],
        ..good.clone()
    };
    let unsorted = table.series(&[("job", "a"), ("__name__", "m")], 1.0);
    let twice = table.series(&[("__name__", "m"), ("a", "1"), ("a", "2")], 1.0);
    let empty = TimeSeries {
        samples: Vec::new(),
        ..good.clone()
    };
    let nameless = table.series(&[("a", "1")], 1.0);
    let native = TimeSeries {
        samples: Vec::new(),
        histograms: vec![Vec::new(); 2],
        ..good.clone()
    };
    let no_label_name = table.series(&[("", "1"), ("__name__", "m")], 1.0);
    let last = table.series(&[("__name__", "last")], 2.0);
    let all = vec![
        good,
        odd,
        outside,
        unsorted,
        twice,
        empty,
        nameless,
        native,
        no_label_name,
        last,
    ];
    let (stored, report) = decode_once(FORMAT, &table.body(all));
    assert_eq!(shown(&stored), ["good 1", "last 2"]);
    let expect = [
        (1, Reason::BadSymbolReference),
        (2, Reason::BadSymbolReference),
        (3, Reason::UnsortedLabels),
        (4, Reason::DuplicateLabel),
        (5, Reason::MissingValue),
        (6, Reason::MissingMetricName),
        (7, Reason::NativeHistogram),
        (8, Reason::EmptyLabelName),
    ];
    assert_eq!(
        refused(&report),
        expect.map(|(n, reason)| (format!("series {n}"), reason))
    );
}

#[test]
fn many_labels_are_refused_at_the_limit_and_not_before() {
    let options = limited(Limits {
        labels: 3,
        ..Limits::default()
    });
    let names = ["a", "b", "c", "d", "e", "f"];
    for (count, good) in [(2, true), (3, false), (6, false)] {
        let mut table = Table::new();
        let labels = names[..count].iter().map(|name| (*name, "1"));
        let labels: Vec<_> = std::iter::once(("__name__", "m")).chain(labels).collect();
        let series = table.series(&labels, 1.0);
        let (stored, report) = decode(
            &mut probe(options.clone()),
            FORMAT,
            &table.body(vec![series]),
        )
        .unwrap();
        assert_eq!(stored.len(), usize::from(good), "{count}");
        if !good {
            assert_eq!(report.details()[0].reason, Reason::TooManyLabels);
            assert_eq!(report.details()[0].limit, Some(3));
        }
    }
}

#[test]
fn too_many_symbols_or_samples_refuse_the_request() {
    let options = limited(Limits {
        series: 1,
        samples: 2,
        ..Limits::default()
    });
    let symbols = |count: usize| {
        let mut table = Table::new();
        for n in 1..count {
            table.get(&n.to_string());
        }
        table.body(Vec::new())
    };
    assert!(decode(&mut probe(options.clone()), FORMAT, &symbols(4)).is_ok());
    let error = decode(&mut probe(options.clone()), FORMAT, &symbols(5)).unwrap_err();
    assert_eq!(error.reason(), "too_many_series");
    let mut table = Table::new();
    let mut series = table.series(&[("__name__", "m")], 1.0);
    series.samples = vec![series.samples[0].clone(); 3];
    let error = decode(&mut probe(options), FORMAT, &table.body(vec![series])).unwrap_err();
    assert_eq!(error.reason(), "too_many_samples");
}

#[test]
fn unpacked_references_and_start_timestamps_are_read() {
    let mut table = Table::new();
    let mut series = table.series(&[("__name__", "m")], 4.0);
    series.samples[0].start_timestamp = 5;
    let refs = std::mem::take(&mut series.labels_refs);
    let mut message = series.encode_to_vec();
    for symbol in refs {
        message.extend([0x08, symbol as u8]);
    }
    let mut body = table.body(Vec::new());
    body.extend([0x2a, message.len() as u8]);
    body.extend(message);
    assert_eq!(shown(&decode_once(FORMAT, &body).0), ["m 4"]);
}

#[test]
fn a_1_0_body_is_not_taken_for_this() {
    // Field 1 is reserved here, so nothing of it means anything.
    let (stored, report) = decode_once(FORMAT, &[0x0a, 0x02, 0x0a, 0x00]);
    assert!(stored.is_empty() && report.is_empty());
    let error = decode(&mut probe(IngestOptions::default()), FORMAT, b"\x2a\xff").unwrap_err();
    assert_eq!(error.reason(), "malformed_protobuf");
}

#[test]
fn families_lose_the_suffixes_of_their_type() {
    for (metric, metric_type, expect) in [
        ("h_bucket", MetricType::Histogram, "h"),
        ("h_sum", MetricType::Summary, "h"),
        ("h_bucket", MetricType::Summary, "h_bucket"),
        ("c_count", MetricType::Counter, "c_count"),
        ("_sum", MetricType::Summary, "_sum"),
    ] {
        let family = family_name(metric.as_bytes(), metric_type);
        assert_eq!(std::str::from_utf8(family).unwrap(), expect);
    }
}
