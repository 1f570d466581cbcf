//! What can be set about ingest. Plain values: the server maps its configuration onto them.

use std::time::Duration;

use millrace_model::TimestampMs;

/// Settings of [`Ingest`](crate::Ingest). [`Default`] gives what `docs/ingest.md` states.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// What each tenant may push, unless there is an override.
    pub limits: TenantLimits,
    /// As many active series are kept count of, those of all tenants together.
    pub tracked_series: u64,
    /// What becomes of string fields of line protocol.
    pub influx_string_fields: StringFields,
    /// Stands between measurement and field in a metric's name.
    pub influx_separator: String,
    /// The label that takes the `db` (or `bucket`) of a line protocol request; none by default.
    pub influx_database_label: Option<String>,
    /// How OTLP metrics become series.
    pub otlp: OtlpOptions,
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
            limits: TenantLimits::default(),
            tracked_series: 8_000_000,
            influx_string_fields: StringFields::default(),
            influx_separator: "_".to_owned(),
            influx_database_label: None,
            otlp: OtlpOptions::default(),
            decode_threads: std::thread::available_parallelism().map_or(2, usize::from),
            decode_queue: 256,
            decode_memory_bytes: 256 << 20,
            series_cache_bytes: 256 << 20,
        }
    }
}

/// What one tenant may push.
#[derive(Clone, Debug)]
pub struct TenantLimits {
    /// What a request and a series may bring.
    pub request: Limits,
    /// How old a timestamp may be on arrival. `None` takes any past.
    pub max_age: Option<Duration>,
    /// How far ahead of this machine's clock a timestamp may be. `None` takes any future.
    pub max_ahead: Option<Duration>,
    /// Series with samples in the last hour. `None` is no limit.
    pub active_series: Option<u64>,
    /// Series that were not active before, in the last hour. `None` is no limit.
    pub new_series_per_hour: Option<u64>,
    /// Samples a second. `None` is no limit.
    pub samples_per_second: Option<u64>,
    /// Samples that may come at once; [`BURST_SECONDS`](Self::BURST_SECONDS) of the rate by default.
    pub samples_burst: Option<u64>,
    /// What a request beyond the rate is answered.
    pub rate_limited_status: RateLimitedStatus,
    /// Processes that ingest, among which the counts above are divided: each knows only its own.
    pub processes: u64,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            request: Limits::default(),
            max_age: Some(Duration::from_secs(30 * 24 * 3600)),
            max_ahead: Some(Duration::from_secs(10 * 60)),
            active_series: Some(5_000_000),
            new_series_per_hour: Some(20_000_000),
            samples_per_second: None,
            samples_burst: None,
            rate_limited_status: RateLimitedStatus::default(),
            processes: 1,
        }
    }
}

impl TenantLimits {
    /// A burst is so many seconds of the rate, if nothing else is said.
    pub const BURST_SECONDS: u64 = 10;

    /// This process's part of a limit: at least 1, unless it is 0.
    #[must_use]
    pub fn per_process(&self, limit: Option<u64>) -> Option<u64> {
        limit.map(|limit| (limit / self.processes.max(1)).max(limit.min(1)))
    }
}

/// What a request beyond its tenant's rate is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateLimitedStatus {
    /// 429: it is the tenant's own doing. Prometheus drops the samples, unless `retry_on_http_429` is set.
    #[default]
    TooManyRequests,
    /// 503, for senders that try again only then.
    Unavailable,
}

/// Bounds of one request. Sizes are in bytes; a value equal to its limit passes.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Limits {
    /// The bounds of a series as text. What is known of a series, refusals among it, holds only under
    /// the bounds that it was found out under.
    pub(crate) fn series_scope(&self) -> String {
        let own = [
            self.labels,
            self.label_name_bytes,
            self.label_value_bytes,
            self.labels_bytes,
        ];
        format!("{own:?}")
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

/// How OTLP metrics become series: what Prometheus' `otlp:` block sets, with its defaults.
#[derive(Clone, Debug, Default)]
pub struct OtlpOptions {
    /// How names of metrics and attributes become names of metrics and labels.
    pub translation: TranslationStrategy,
    /// Resource attributes that become labels of every series.
    pub promote_resource_attributes: Vec<String>,
    /// Whether all resource attributes do, but for those in `ignore_resource_attributes`.
    pub promote_all_resource_attributes: bool,
    /// Exceptions from `promote_all_resource_attributes`.
    pub ignore_resource_attributes: Vec<String>,
    /// Whether `service.name`, `service.namespace` and `service.instance.id` stay in `target_info`
    /// beside `job` and `instance`.
    pub keep_identifying_resource_attributes: bool,
    /// Whether name, version, schema and attributes of the scope become labels.
    pub promote_scope_metadata: bool,
    /// What becomes of sums and histograms with delta temporality.
    pub delta: DeltaTemporality,
}

/// How names of OTLP become names of Prometheus; the words are Prometheus'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TranslationStrategy {
    /// Other characters than `[A-Za-z0-9_:]` become `_`, unit and type a suffix.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// Other characters become `_`; no suffixes.
    UnderscoreEscapingWithoutSuffixes,
    /// Names stay, unit and type become a suffix.
    NoUtf8EscapingWithSuffixes,
    /// Names stay as they are.
    NoTranslation,
}

impl TranslationStrategy {
    /// Whether names may be any UTF-8.
    #[must_use]
    pub fn keeps_utf8(self) -> bool {
        match self {
            Self::NoUtf8EscapingWithSuffixes | Self::NoTranslation => true,
            Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes => false,
        }
    }

    /// Whether unit and type become a suffix.
    #[must_use]
    pub fn adds_suffixes(self) -> bool {
        match self {
            Self::UnderscoreEscapingWithSuffixes | Self::NoUtf8EscapingWithSuffixes => true,
            Self::UnderscoreEscapingWithoutSuffixes | Self::NoTranslation => false,
        }
    }
}

/// What becomes of data points that say how much was added since the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeltaTemporality {
    /// One sample per delta, in a series that says so with the label
    /// [`TEMPORALITY`](millrace_model::TEMPORALITY), so that queries add them up (`rate`, `increase`,
    /// `irate`). Their identity is series and time, so that a delta that is sent again counts once.
    #[default]
    Accumulate,
    /// The same without the label: for `sum_over_time`, not for `rate`.
    Store,
    /// They are refused and named.
    Refuse,
}

/// The timestamps that are taken at one moment, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeWindow {
    pub(crate) oldest: i64,
    pub(crate) newest: i64,
}

impl TimeWindow {
    pub(crate) fn at(now: TimestampMs, limits: &TenantLimits) -> Self {
        Self {
            oldest: limits
                .max_age
                .map_or(i64::MIN, |age| now.saturating_sub(age).0),
            newest: limits
                .max_ahead
                .map_or(i64::MAX, |ahead| now.saturating_add(ahead).0),
        }
    }

    #[inline]
    pub(crate) fn contains(self, timestamp: TimestampMs) -> bool {
        self.oldest <= timestamp.0 && timestamp.0 <= self.newest
    }
}
