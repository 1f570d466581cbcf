//! How long decoding takes per sample, by protocol: `cargo run --release -p millrace-ingest
//! --example decode_speed`.
//!
//! The data look like TSBS's `cpu-only`: hosts with ten tags and ten metrics each. One body holds
//! 10,000 samples: as many series of remote write, or 1,000 lines or objects of ten fields. It is decoded
//! again and again on one thread, everything from the raw bytes to finished sections included,
//! decompression apart where it says so. "known" is the steady state; "new" has each series seen for
//! the first time. Figures are medians over runs, with the fastest. An argument picks the protocols whose names begin
//! with it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use millrace_ingest::IngestOptions;
use millrace_ingest::probe::{Probe, ProbeEncoding, ProbeFormat};
use millrace_model::{TimestampMs, write_varint};

const NOW: i64 = 1_795_219_200_000;
const METRICS: [&str; 10] = [
    "usage_user",
    "usage_system",
    "usage_idle",
    "usage_nice",
    "usage_iowait",
    "usage_irq",
    "usage_softirq",
    "usage_steal",
    "usage_guest",
    "usage_guest_nice",
];
const PARTITIONS: u32 = 4;

fn main() {
    let hosts = 1_000;
    let mut values = Values(42);
    let bodies = [
        (
            "remote write",
            ProbeFormat::RemoteWrite,
            remote_write(hosts, &mut values),
        ),
        (
            "remote write 2",
            ProbeFormat::RemoteWrite2,
            remote_write_2(hosts, &mut values),
        ),
        ("OTLP", ProbeFormat::Otlp, otlp(hosts, &mut values)),
        ("text", ProbeFormat::Text, text(hosts, &mut values)),
        (
            "line protocol",
            ProbeFormat::Line,
            lines(hosts, &mut values),
        ),
        (
            "JSON array",
            ProbeFormat::Json,
            json(hosts, &mut values, "[", ",", "]"),
        ),
        (
            "NDJSON",
            ProbeFormat::JsonLines,
            json(hosts, &mut values, "", "\n", "\n"),
        ),
    ];
    println!("{hosts} hosts, {} series", hosts * METRICS.len());
    let only = std::env::args().nth(1);
    for (name, format, body) in &bodies {
        if only
            .as_ref()
            .is_some_and(|only| !name.starts_with(only.as_str()))
        {
            continue;
        }
        let samples = hosts * METRICS.len();
        let known = known(*format, ProbeEncoding::Identity, body, samples);
        let new = new(*format, body, samples);
        println!(
            "{name:14} {:6.1} B/sample  known {known} ns/sample  new {new} ns/series",
            body.len() as f64 / samples as f64
        );
        let packed = snap::raw::Encoder::new().compress_vec(body);
        let packed = packed.expect("a body of ordinary size");
        let with = self::known(*format, ProbeEncoding::Snappy, &packed, samples);
        println!("{:14} snappy included: {with} ns/sample", "");
    }
}

/// Nanoseconds per sample once all series are known.
fn known(format: ProbeFormat, encoding: ProbeEncoding, body: &[u8], samples: usize) -> Times {
    let mut probe = Probe::new(IngestOptions::default(), PARTITIONS);
    decode(&mut probe, format, encoding, body, samples);
    Times::of(100, samples, || {
        let start = Instant::now();
        decode(&mut probe, format, encoding, body, samples);
        start.elapsed()
    })
}

/// Nanoseconds per series that is seen for the first time.
fn new(format: ProbeFormat, body: &[u8], samples: usize) -> Times {
    Times::of(15, samples, || {
        let mut probe = Probe::new(IngestOptions::default(), PARTITIONS);
        let start = Instant::now();
        decode(&mut probe, format, ProbeEncoding::Identity, body, samples);
        start.elapsed()
    })
}

fn decode(
    probe: &mut Probe,
    format: ProbeFormat,
    encoding: ProbeEncoding,
    body: &[u8],
    samples: usize,
) {
    let outcome = probe.decode(format, encoding, body, TimestampMs(NOW));
    let outcome = outcome.expect("the bodies are good");
    assert_eq!(outcome.accepted, samples as u64, "{:?}", outcome.report);
    std::hint::black_box(outcome.sections);
}

/// Nanoseconds per sample: of the median run, and of the fastest, which other work on the machine has
/// disturbed least.
struct Times {
    median: f64,
    fastest: f64,
}

impl Times {
    fn of(runs: usize, samples: usize, mut run: impl FnMut() -> Duration) -> Self {
        let mut times: Vec<_> = (0..runs).map(|_| run()).collect();
        times.sort();
        let per_sample = |time: Duration| time.as_nanos() as f64 / samples as f64;
        Self {
            median: per_sample(times[runs / 2]),
            fastest: per_sample(times[0]),
        }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:6.1} (fastest {:6.1})", self.median, self.fastest)
    }
}

/// Values as TSBS makes them: floats with many digits.
struct Values(u64);

impl Values {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Two decimals, as agents mostly report percentages.
        ((self.0 >> 33) % 10_000) as f64 / 100.0
    }
}

fn tags(host: usize) -> [(&'static str, String); 10] {
    let own = |text: &str| text.to_owned();
    [
        ("hostname", format!("host_{host}")),
        ("region", own("eu-central-1")),
        ("datacenter", own("eu-central-1a")),
        ("rack", format!("{}", host % 100)),
        ("os", own("Ubuntu16.04LTS")),
        ("arch", own("x64")),
        ("team", own("SF")),
        ("service", format!("{}", host % 20)),
        ("service_version", own("1")),
        ("service_environment", own("production")),
    ]
}

fn lines(hosts: usize, values: &mut Values) -> Vec<u8> {
    let mut out = String::new();
    for host in 0..hosts {
        out.push_str("cpu");
        for (name, value) in tags(host) {
            write!(out, ",{name}={value}").expect("strings take everything");
        }
        for (i, metric) in METRICS.iter().enumerate() {
            let separator = if i == 0 { ' ' } else { ',' };
            write!(out, "{separator}{metric}={}", values.next()).expect("as above");
        }
        writeln!(out, " {NOW}").expect("as above");
    }
    out.into_bytes()
}

fn json(hosts: usize, values: &mut Values, open: &str, between: &str, close: &str) -> Vec<u8> {
    let mut out = String::from(open);
    for host in 0..hosts {
        if host > 0 {
            out.push_str(between);
        }
        let tags = tags(host);
        write!(out, "{{\"device\":\"{}\",\"tags\":{{", tags[0].1).expect("as above");
        for (i, (name, value)) in tags[1..].iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(out, "{comma}\"{name}\":\"{value}\"").expect("as above");
        }
        write!(out, "}},\"timestamp\":{NOW},\"fields\":{{").expect("as above");
        for (i, metric) in METRICS.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(out, "{comma}\"{metric}\":{}", values.next()).expect("as above");
        }
        out.push_str("}}");
    }
    out.push_str(close);
    out.into_bytes()
}

fn remote_write(hosts: usize, values: &mut Values) -> Vec<u8> {
    let mut out = Vec::new();
    for host in 0..hosts {
        let tags = tags(host);
        for metric in METRICS {
            let mut series = Vec::new();
            label(&mut series, "__name__", &format!("cpu_{metric}"));
            let mut sorted: Vec<_> = tags.iter().collect();
            sorted.sort();
            for (name, value) in sorted {
                label(&mut series, name, value);
            }
            let mut sample = vec![0x09];
            sample.extend_from_slice(&values.next().to_le_bytes());
            sample.push(0x10);
            write_varint(&mut sample, NOW as u64);
            message(&mut series, 2, &sample);
            message(&mut out, 1, &series);
        }
    }
    out
}

fn remote_write_2(hosts: usize, values: &mut Values) -> Vec<u8> {
    let mut symbols = vec![String::new()];
    let mut known = std::collections::HashMap::from([(String::new(), 0)]);
    let mut symbol = |text: &str| {
        *known.entry(text.to_owned()).or_insert_with(|| {
            symbols.push(text.to_owned());
            symbols.len() as u64 - 1
        })
    };
    let mut series = Vec::new();
    for host in 0..hosts {
        let tags = tags(host);
        for metric in METRICS {
            let mut one = Vec::new();
            let mut refs = Vec::new();
            let mut sorted: Vec<_> = tags.iter().collect();
            sorted.sort();
            write_varint(&mut refs, symbol("__name__"));
            write_varint(&mut refs, symbol(&format!("cpu_{metric}")));
            for (name, value) in sorted {
                write_varint(&mut refs, symbol(name));
                write_varint(&mut refs, symbol(value));
            }
            message(&mut one, 1, &refs);
            let mut sample = vec![0x09];
            sample.extend_from_slice(&values.next().to_le_bytes());
            sample.push(0x10);
            write_varint(&mut sample, NOW as u64);
            message(&mut one, 2, &sample);
            // As Prometheus sends them: with every series.
            message(&mut one, 5, &[0x08, 2]);
            message(&mut series, 5, &one);
        }
    }
    let mut out = Vec::new();
    for symbol in symbols {
        message(&mut out, 4, symbol.as_bytes());
    }
    out.extend(series);
    out
}

/// One resource a host with its tags but the first three, which are attributes of the points.
fn otlp(hosts: usize, values: &mut Values) -> Vec<u8> {
    let attribute = |name: &str, value: &str| {
        let (mut any, mut pair) = (Vec::new(), Vec::new());
        message(&mut any, 1, value.as_bytes());
        message(&mut pair, 1, name.as_bytes());
        message(&mut pair, 2, &any);
        pair
    };
    let mut out = Vec::new();
    for host in 0..hosts {
        let tags = tags(host);
        let (mut resource, mut metrics) = (Vec::new(), Vec::new());
        message(&mut resource, 1, &attribute("service.name", "cpu"));
        message(
            &mut resource,
            1,
            &attribute("service.instance.id", &tags[0].1),
        );
        for metric in METRICS {
            let mut point = vec![0x19];
            point.extend_from_slice(&(NOW as u64 * 1_000_000).to_le_bytes());
            point.push(0x21);
            point.extend_from_slice(&values.next().to_le_bytes());
            for (name, value) in &tags[1..] {
                message(&mut point, 7, &attribute(name, value));
            }
            let (mut gauge, mut one) = (Vec::new(), Vec::new());
            message(&mut gauge, 1, &point);
            message(&mut one, 1, format!("cpu.{metric}").as_bytes());
            message(&mut one, 3, b"%");
            message(&mut one, 5, &gauge);
            message(&mut metrics, 2, &one);
        }
        // The metrics are the fields of their scope.
        let mut all = Vec::new();
        message(&mut all, 1, &resource);
        message(&mut all, 2, &metrics);
        message(&mut out, 1, &all);
    }
    out
}

fn text(hosts: usize, values: &mut Values) -> Vec<u8> {
    let mut out = String::new();
    for host in 0..hosts {
        let tags = tags(host);
        for metric in METRICS {
            write!(out, "cpu_{metric}{{").expect("as above");
            for (i, (name, value)) in tags.iter().enumerate() {
                let comma = if i == 0 { "" } else { "," };
                write!(out, "{comma}{name}=\"{value}\"").expect("as above");
            }
            writeln!(out, "}} {}", values.next()).expect("as above");
        }
    }
    out.into_bytes()
}

fn label(series: &mut Vec<u8>, name: &str, value: &str) {
    let mut label = Vec::new();
    message(&mut label, 1, name.as_bytes());
    message(&mut label, 2, value.as_bytes());
    message(series, 1, &label);
}

fn message(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | 2);
    write_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}
