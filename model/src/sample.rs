//! One measurement.

use crate::TimestampMs;

/// The NaN bit pattern by which Prometheus marks the end of a series
/// (`model/value/value.go` in prometheus/prometheus). Compared by bits, never as a number.
#[doc(alias = "StaleNaN")]
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The staleness marker as a float.
#[must_use]
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// Whether `value` is the staleness marker, and not merely some NaN.
#[must_use]
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One (timestamp, value) of one series.
///
/// Deliberately without `PartialEq`: values compare by [`f64::to_bits`], see [`Sample::same`].
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was measured.
    pub timestamp: TimestampMs,
    /// What was measured. Every bit pattern is legal and survives.
    pub value: f64,
}

impl Sample {
    /// A sample at `timestamp_ms` milliseconds since the epoch.
    #[must_use]
    pub fn new(timestamp_ms: i64, value: f64) -> Self {
        Self {
            timestamp: TimestampMs(timestamp_ms),
            value,
        }
    }

    /// Whether both are equal bit for bit.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.timestamp == other.timestamp && self.value.to_bits() == other.value.to_bits()
    }
}
