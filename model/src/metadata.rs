//! What a metric means: type, help text, unit.

use std::fmt;

/// The type of a metric family, numbered as in Prometheus remote write
/// (`prompb/types.proto`, `MetricMetadata.MetricType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricType {
    /// Not declared.
    #[default]
    Unknown,
    /// Only grows, or starts again from zero.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets.
    Histogram,
    /// A histogram whose buckets are not cumulative over time.
    GaugeHistogram,
    /// Precomputed quantiles.
    Summary,
    /// Constant labels, value 1.
    Info,
    /// One series per state, one of them 1.
    StateSet,
}

impl MetricType {
    const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Counter,
        Self::Gauge,
        Self::Histogram,
        Self::GaugeHistogram,
        Self::Summary,
        Self::Info,
        Self::StateSet,
    ];

    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The type of a number on the wire.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// The word that the Prometheus API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Type, help and unit of one metric family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricMetadata {
    /// The metric's name.
    pub metric: String,
    /// Its type.
    pub metric_type: MetricType,
    /// What it measures, in words.
    pub help: String,
    /// Its unit, or empty.
    pub unit: String,
}
