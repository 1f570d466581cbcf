//! What can be set about ingest. Plain values: the server maps its configuration onto them.

use std::time::Duration;

use millrace_model::TimestampMs;

/// Settings of [`Ingest`](crate::Ingest). [`Default`] gives what `docs/ingest.md` states.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// How old a timestamp may be on arrival. `None` takes any past.
    pub max_age: Option<Duration>,
    /// How far ahead of this machine's clock a timestamp may be. `None` takes any future.
    pub max_ahead: Option<Duration>,
    /// What a request and a series may bring.
    pub limits: Limits,
    /// What becomes of string fields of line protocol.
    pub influx_string_fields: StringFields,
    /// Stands between measurement and field in a metric's name.
    pub influx_separator: String,
    /// The label that takes the `db` (or `bucket`) of a line protocol request; none by default.
    pub influx_database_label: Option<String>,
    /// Threads that decode; the number of cores by default.
    pub decode_threads: usize,
    /// Requests that may wait for a decode thread; more are answered 503.
    pub decode_queue: usize,
    /// Bytes that the bodies of all requests in hand, encoded and decoded, may take together;
    /// beyond, requests are answered 503.
    pub decode_memory_bytes: usize,
    /// Bytes that the cache of known series may take.
    pub series_cache_bytes: usize,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            max_age: Some(Duration::from_secs(30 * 24 * 3600)),
            max_ahead: Some(Duration::from_secs(10 * 60)),
            limits: Limits::default(),
            influx_string_fields: StringFields::default(),
            influx_separator: "_".to_owned(),
            influx_database_label: None,
            decode_threads: std::thread::available_parallelism().map_or(2, usize::from),
            decode_queue: 256,
            decode_memory_bytes: 256 << 20,
            series_cache_bytes: 256 << 20,
        }
    }
}

/// Bounds of one request. Sizes are in bytes; a value equal to its limit passes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The body as it comes over the wire.
    pub body_bytes: usize,
    /// The body once it is decompressed. Also bounds one that came uncompressed.
    pub decoded_bytes: usize,
    /// Samples of one request.
    pub samples: usize,
    /// Distinct series of one request, and as many metadata entries.
    pub series: usize,
    /// Labels of one series, its metric name included.
    pub labels: usize,
    /// A label's name, or a metric's.
    pub label_name_bytes: usize,
    /// A label's value.
    pub label_value_bytes: usize,
    /// All names and values of one series together.
    pub labels_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            decoded_bytes: 32 << 20,
            samples: 200_000,
            series: 50_000,
            labels: 40,
            label_name_bytes: 256,
            label_value_bytes: 4 << 10,
            labels_bytes: 16 << 10,
        }
    }
}

/// What becomes of a string field of line protocol: there are no string samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StringFields {
    /// It is passed over and counted; the other fields of its line are stored.
    #[default]
    Skip,
    /// It is refused and named; the other fields of its line are stored.
    Reject,
}

/// The timestamps that are taken at one moment, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeWindow {
    pub(crate) oldest: i64,
    pub(crate) newest: i64,
}

impl TimeWindow {
    pub(crate) fn at(now: TimestampMs, options: &IngestOptions) -> Self {
        Self {
            oldest: options
                .max_age
                .map_or(i64::MIN, |age| now.saturating_sub(age).0),
            newest: options
                .max_ahead
                .map_or(i64::MAX, |ahead| now.saturating_add(ahead).0),
        }
    }

    #[inline]
    pub(crate) fn contains(self, timestamp: TimestampMs) -> bool {
        self.oldest <= timestamp.0 && timestamp.0 <= self.newest
    }
}
