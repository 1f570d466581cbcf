//! A router, the queue behind it, and what is in there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use millrace_ingest::{Ingest, IngestOptions, PushContext};
use millrace_log::fs::sim::SimFs;
use millrace_model::batch::{Batch, SectionContent};
use millrace_model::{Clock, ManualClock, MetricMetadata, Offset, PartitionId, TimestampMs};
use millrace_queue::{Appender, AppenderOptions, EmbeddedOptions, EmbeddedQueue};
use prometheus::Registry;
use tower::ServiceExt;

/// 2026-11-21T00:00:00Z, what the clock of every test shows.
pub const NOW: i64 = 1_795_219_200_000;

pub struct Rig {
    pub ingest: Ingest,
    pub router: axum::Router,
    pub queue: EmbeddedQueue,
    pub clock: Arc<ManualClock>,
    pub registry: Registry,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with(IngestOptions::default(), AppenderOptions::default())
    }

    pub fn with(options: IngestOptions, appender: AppenderOptions) -> Self {
        let registry = Registry::new();
        let clock = Arc::new(ManualClock::new(TimestampMs(NOW)));
        let queue = EmbeddedQueue::open(
            Arc::new(SimFs::new()),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Path::new("/queue"),
            EmbeddedOptions::default(),
            &registry,
        )
        .unwrap();
        let appender = Appender::new(queue.producer(), appender, &registry);
        let ingest = Ingest::new(
            options,
            appender,
            Arc::clone(&clock) as Arc<dyn Clock>,
            &registry,
        );
        Self {
            router: ingest.router(),
            ingest,
            queue,
            clock,
            registry,
        }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    /// Posts `body` with headers given as (name, value) pairs.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(Method::POST).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.into())).unwrap())
            .await
    }

    /// Posts lines of line protocol as `tenant`.
    pub async fn post_as(&self, tenant: &str, lines: impl Into<Bytes>) -> Answer {
        let lines: Bytes = lines.into();
        let mut request = Request::post("/write").body(Body::from(lines)).unwrap();
        request.extensions_mut().insert(PushContext {
            tenant: tenant.parse().unwrap(),
            ..PushContext::default()
        });
        self.send(request).await
    }

    /// All samples in the queue, by series as PromQL writes it, in queue order: (ms, bits).
    pub fn stored(&self) -> BTreeMap<String, Vec<(i64, u64)>> {
        let mut all = BTreeMap::<String, Vec<_>>::new();
        self.for_each_section(|content| {
            let SectionContent::Float(mut series) = content else {
                return;
            };
            let mut samples = Vec::new();
            while series.next_series(&mut samples).unwrap().is_some() {
                let labels = series.labels().unwrap().to_string();
                let entry = all.entry(labels).or_default();
                entry.extend(
                    samples
                        .drain(..)
                        .map(|s| (s.timestamp.0, s.value.to_bits())),
                );
            }
        });
        all
    }

    /// [`stored`](Self::stored) with values as numbers.
    pub fn values(&self) -> BTreeMap<String, Vec<(i64, f64)>> {
        let number = |(ms, bits)| (ms, f64::from_bits(bits));
        self.stored()
            .into_iter()
            .map(|(series, samples)| (series, samples.into_iter().map(number).collect()))
            .collect()
    }

    /// All metadata in the queue.
    pub fn metadata(&self) -> Vec<MetricMetadata> {
        let mut all = Vec::new();
        self.for_each_section(|content| {
            if let SectionContent::Metadata(entries) = content {
                all.extend(entries);
            }
        });
        all.sort_by(|a, b| a.metric.cmp(&b.metric));
        all
    }

    fn for_each_section(&self, mut each: impl FnMut(SectionContent<'_>)) {
        for partition in 0..self.queue.identity().partitions {
            let mut consumer = self
                .queue
                .consumer(PartitionId(partition), Offset::ZERO)
                .unwrap();
            let end = consumer.end().unwrap();
            let mut records = Vec::new();
            let mut next = Offset::ZERO;
            while next < end {
                records.clear();
                consumer
                    .poll(1 << 20, Duration::ZERO, &mut records)
                    .unwrap();
                for record in &records {
                    next = record.offset.checked_next().unwrap();
                    let batch = Batch::decode(&record.payload).unwrap();
                    for section in batch.sections() {
                        each(section.unwrap().content().unwrap());
                    }
                }
            }
        }
    }

    /// The value of a metric, 0 if it is not there.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let matches = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|(name, value)| {
                let mut pairs = metric.get_label().iter();
                pairs.any(|pair| pair.name() == *name && pair.value() == *value)
            })
        };
        family
            .and_then(|family| family.get_metric().iter().find(matches))
            .map_or(0.0, |metric| {
                metric.get_counter().get_value() + metric.get_gauge().get_value()
            })
    }
}

/// Messages of remote write 1.0, by the specification.
pub mod prompb {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub metadata: Vec<MetricMetadata>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub histograms: Vec<Histogram>,
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
        /// Optional, so that -0.0 is written too: as a plain double it would count as absent.
        #[prost(double, optional, tag = "1")]
        pub value: Option<f64>,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }

    /// Its content does not matter: native histograms are refused.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Histogram {
        #[prost(double, tag = "3")]
        pub sum: f64,
        #[prost(int64, tag = "15")]
        pub timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricMetadata {
        #[prost(int32, tag = "1")]
        pub metric_type: i32,
        #[prost(string, tag = "2")]
        pub metric_family_name: String,
        #[prost(string, tag = "4")]
        pub help: String,
        #[prost(string, tag = "5")]
        pub unit: String,
    }

    /// A series with one sample per (ms, value).
    pub fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
        TimeSeries {
            labels: labels
                .iter()
                .map(|(name, value)| Label {
                    name: (*name).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
            samples: samples
                .iter()
                .map(|&(timestamp, value)| Sample {
                    value: Some(value),
                    timestamp,
                })
                .collect(),
            ..TimeSeries::default()
        }
    }

    /// The request as it goes over the wire.
    pub fn body(request: &WriteRequest) -> Vec<u8> {
        let plain = prost::Message::encode_to_vec(request);
        snap::raw::Encoder::new().compress_vec(&plain).unwrap()
    }
}

pub const SNAPPY_PROTOBUF: &[(&str, &str)] = &[
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];

/// Messages of OTLP as far as gauges need them, by the specification.
pub mod otlp {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(message, repeated, tag = "1")]
        pub resource_metrics: Vec<ResourceMetrics>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ResourceMetrics {
        #[prost(message, repeated, tag = "2")]
        pub scope_metrics: Vec<ScopeMetrics>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ScopeMetrics {
        #[prost(message, repeated, tag = "2")]
        pub metrics: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metric {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "5")]
        pub gauge: Option<Gauge>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Gauge {
        #[prost(message, repeated, tag = "1")]
        pub data_points: Vec<Point>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Point {
        #[prost(fixed64, tag = "3")]
        pub time_unix_nano: u64,
        #[prost(double, optional, tag = "4")]
        pub as_double: Option<f64>,
        #[prost(message, repeated, tag = "7")]
        pub attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct KeyValue {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AnyValue {
        #[prost(string, optional, tag = "1")]
        pub string_value: Option<String>,
    }

    /// A point at that millisecond.
    pub fn point(ms: i64, value: Option<f64>, attributes: &[(&str, &str)]) -> Point {
        let attribute = |(key, value): &(&str, &str)| KeyValue {
            key: (*key).to_owned(),
            value: Some(AnyValue {
                string_value: Some((*value).to_owned()),
            }),
        };
        Point {
            time_unix_nano: ms as u64 * 1_000_000,
            as_double: value,
            attributes: attributes.iter().map(attribute).collect(),
        }
    }

    /// A request of one gauge.
    pub fn gauge(name: &str, data_points: Vec<Point>) -> Vec<u8> {
        let metric = Metric {
            name: name.to_owned(),
            gauge: Some(Gauge { data_points }),
        };
        let scope_metrics = vec![ScopeMetrics {
            metrics: vec![metric],
        }];
        prost::Message::encode_to_vec(&Request {
            resource_metrics: vec![ResourceMetrics { scope_metrics }],
        })
    }
}

/// Messages of remote write 2.0, by the specification.
pub mod prompb2 {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(string, repeated, tag = "4")]
        pub symbols: Vec<String>,
        #[prost(message, repeated, tag = "5")]
        pub timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }

    /// Symbols in the order in which they are first used.
    pub struct Table {
        symbols: Vec<String>,
        known: std::collections::HashMap<String, u32>,
    }

    impl Table {
        pub fn new() -> Self {
            let mut table = Self {
                symbols: Vec::new(),
                known: std::collections::HashMap::new(),
            };
            table.symbol("");
            table
        }

        fn symbol(&mut self, text: &str) -> u32 {
            let next = self.symbols.len() as u32;
            let symbol = *self.known.entry(text.to_owned()).or_insert(next);
            if symbol == next {
                self.symbols.push(text.to_owned());
            }
            symbol
        }

        /// A series with one sample.
        pub fn series(
            &mut self,
            labels: &[(&str, &str)],
            timestamp: i64,
            value: f64,
        ) -> TimeSeries {
            TimeSeries {
                labels_refs: labels
                    .iter()
                    .flat_map(|(name, value)| [self.symbol(name), self.symbol(value)])
                    .collect(),
                samples: vec![Sample { value, timestamp }],
            }
        }

        /// The request, not compressed.
        pub fn body(self, timeseries: Vec<TimeSeries>) -> Vec<u8> {
            let symbols = self.symbols;
            prost::Message::encode_to_vec(&Request {
                symbols,
                timeseries,
            })
        }
    }
}
