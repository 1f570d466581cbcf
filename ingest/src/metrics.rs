//! What ingest tells about itself.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use crate::report::Report;

/// A way by which requests come in; the `protocol` label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Push,
    InfluxV1,
    InfluxV2,
    InfluxV3,
    RemoteWrite,
    RemoteWrite2,
    Otlp,
    Text,
    Pushgateway,
    VmJson,
    Csv,
}

impl Protocol {
    pub(crate) const ALL: [Self; 11] = [
        Self::Push,
        Self::InfluxV1,
        Self::InfluxV2,
        Self::InfluxV3,
        Self::RemoteWrite,
        Self::RemoteWrite2,
        Self::Otlp,
        Self::Text,
        Self::Pushgateway,
        Self::VmJson,
        Self::Csv,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::InfluxV1 => "influx_v1",
            Self::InfluxV2 => "influx_v2",
            Self::InfluxV3 => "influx_v3",
            Self::RemoteWrite => "remote_write",
            Self::RemoteWrite2 => "remote_write_2",
            Self::Otlp => "otlp",
            Self::Text => "text",
            Self::Pushgateway => "pushgateway",
            Self::VmJson => "vm_json",
            Self::Csv => "csv",
        }
    }
}

/// The metrics, registered once per process.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    protocols: Vec<ProtocolMetrics>,
    /// Of what is not pushed.
    pub(crate) scraped: ProtocolMetrics,
    /// Of what this server computes itself.
    pub(crate) computed: ProtocolMetrics,
    rejected: IntCounterVec,
    refused: IntCounterVec,
    pub(crate) ignored_string_fields: IntCounter,
    pub(crate) ignored_exemplars: IntCounter,
    pub(crate) relabel_dropped: IntCounter,
    pub(crate) in_flight: IntGauge,
    pub(crate) decode_memory: IntGauge,
    pub(crate) cache_hits: IntCounter,
    pub(crate) cache_misses: IntCounter,
    pub(crate) cache_bytes: IntGauge,
    pub(crate) cache_series: IntGauge,
    pub(crate) tracked_series: IntGauge,
    pub(crate) tenants: IntGauge,
    pub(crate) overrides: IntGauge,
}

/// Those of one protocol, looked up once.
#[derive(Clone, Debug)]
pub(crate) struct ProtocolMetrics {
    requests: [IntCounter; 3],
    pub(crate) samples: IntCounter,
    pub(crate) body_bytes: IntCounter,
    pub(crate) decoded_bytes: IntCounter,
    pub(crate) decode_seconds: Histogram,
}

/// Decoding takes microseconds for a device's payload and tens of milliseconds for a large body.
const DECODE_BUCKETS: [f64; 9] = [0.000_05, 0.000_2, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];

impl Metrics {
    /// Registers them.
    ///
    /// # Panics
    ///
    /// If `registry` has them already: two ingests of one process need two registries.
    pub(crate) fn new(registry: &Registry) -> Self {
        let by_protocol = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help));

        let requests = by_protocol(
            "millrace_ingest_requests_total",
            "Requests answered, by class of status",
            &["protocol", "status"],
        );
        let samples = by_protocol(
            "millrace_ingest_samples_total",
            "Samples acknowledged",
            &["protocol"],
        );
        let body_bytes = by_protocol(
            "millrace_ingest_body_bytes_total",
            "Bytes of request bodies as they came",
            &["protocol"],
        );
        let decoded_bytes = by_protocol(
            "millrace_ingest_decoded_bytes_total",
            "Bytes of request bodies once decompressed",
            &["protocol"],
        );
        let decode_seconds = register(
            registry,
            HistogramVec::new(
                HistogramOpts::new(
                    "millrace_ingest_decode_seconds",
                    "Time on a decode thread per request",
                )
                .buckets(DECODE_BUCKETS.to_vec()),
                &["protocol"],
            ),
        );
        let ignored = by_protocol(
            "millrace_ingest_ignored_total",
            "Parts of accepted requests that have no place in the store",
            &["kind"],
        );
        let of_protocol = |protocol: &str| ProtocolMetrics {
            requests: ["2xx", "4xx", "5xx"]
                .map(|class| requests.with_label_values(&[protocol, class])),
            samples: samples.with_label_values(&[protocol]),
            body_bytes: body_bytes.with_label_values(&[protocol]),
            decoded_bytes: decoded_bytes.with_label_values(&[protocol]),
            decode_seconds: decode_seconds.with_label_values(&[protocol]),
        };
        let protocols = Protocol::ALL.iter();
        let protocols = protocols.map(|protocol| of_protocol(protocol.as_str()));
        Self {
            protocols: protocols.collect(),
            scraped: of_protocol("scrape"),
            computed: of_protocol("rules"),
            rejected: by_protocol(
                "millrace_ingest_rejected_samples_total",
                "Samples refused (an item that could not be read counts as one)",
                &["reason"],
            ),
            refused: by_protocol(
                "millrace_ingest_refused_requests_total",
                "Requests refused as a whole",
                &["reason"],
            ),
            ignored_string_fields: ignored.with_label_values(&["string_field"]),
            ignored_exemplars: ignored.with_label_values(&["exemplar"]),
            relabel_dropped: counter(
                "millrace_ingest_relabel_dropped_samples_total",
                "Pushed samples of series that ingest.relabel_file drops",
            ),
            in_flight: gauge("millrace_ingest_in_flight_requests", "Requests in hand"),
            decode_memory: gauge(
                "millrace_ingest_decode_memory_bytes",
                "Bytes of bodies in hand, encoded and decoded",
            ),
            cache_hits: counter(
                "millrace_ingest_series_cache_hits_total",
                "Series found in the cache of known series",
            ),
            cache_misses: counter(
                "millrace_ingest_series_cache_misses_total",
                "Series that had to be parsed",
            ),
            cache_bytes: gauge(
                "millrace_ingest_series_cache_bytes",
                "Bytes of the cache of known series",
            ),
            cache_series: gauge(
                "millrace_ingest_series_cache_series",
                "Entries of the cache of known series",
            ),
            tracked_series: gauge(
                "millrace_ingest_active_series",
                "Series with samples in the last hour, of all tenants, in this process",
            ),
            tenants: gauge("millrace_ingest_tenants", "Tenants that are kept count of"),
            overrides: gauge(
                "millrace_ingest_limit_overrides",
                "Tenants with limits of their own",
            ),
        }
    }

    pub(crate) fn of(&self, protocol: Protocol) -> &ProtocolMetrics {
        &self.protocols[protocol as usize]
    }

    /// Counts what a report refused.
    pub(crate) fn count_rejected(&self, report: &Report) {
        for (reason, count) in report.by_reason() {
            self.rejected
                .with_label_values(&[reason.id()])
                .inc_by(count);
        }
    }

    /// Counts a whole request that was refused.
    pub(crate) fn count_refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }
}

impl ProtocolMetrics {
    /// Counts an answer.
    pub(crate) fn count_request(&self, status: http::StatusCode) {
        let class = match status.as_u16() {
            ..400 => 0,
            400..500 => 1,
            500.. => 2,
        };
        self.requests[class].inc();
    }
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let made = made.expect("names, help and buckets of the metrics are constants and legal");
    registry
        .register(Box::new(made.clone()))
        .expect("the registry already has these metrics: two ingests need two registries");
    made
}
