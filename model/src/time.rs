//! Time: milliseconds since the epoch for samples, a trait for "now".

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A moment in milliseconds since 1970-01-01T00:00:00Z. Negative before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(pub i64);

impl TimestampMs {
    /// The moment `duration` later, or the last representable one.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// The moment `duration` earlier, or the first representable one.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// The start of the window of `width_ms` that holds this moment; windows tile the time line
    /// from the epoch, before it too (`-1` is in the window that starts at `-width_ms`).
    ///
    /// # Panics
    ///
    /// If `width_ms` is not positive.
    #[must_use]
    pub fn window_start(self, width_ms: i64) -> Self {
        assert!(width_ms > 0, "a window of {width_ms} ms");
        Self(self.0.div_euclid(width_ms).saturating_mul(width_ms))
    }
}

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An interval of time with both ends included, as the Prometheus API speaks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// First moment inside.
    pub start: TimestampMs,
    /// Last moment inside.
    pub end: TimestampMs,
}

impl TimeRange {
    /// The whole time line.
    pub const ALL: Self = Self {
        start: TimestampMs(i64::MIN),
        end: TimestampMs(i64::MAX),
    };

    /// The interval from `start_ms` to `end_ms`, both inside.
    #[must_use]
    pub fn new(start_ms: i64, end_ms: i64) -> Self {
        Self {
            start: TimestampMs(start_ms),
            end: TimestampMs(end_ms),
        }
    }

    /// Whether `moment` is inside.
    #[must_use]
    pub fn contains(self, moment: TimestampMs) -> bool {
        self.start <= moment && moment <= self.end
    }

    /// Whether the two intervals share a moment.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// Where "now" comes from. Everything that needs the time takes a clock, so that tests hold it.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall-clock time. May jump.
    fn now(&self) -> TimestampMs;

    /// Time since some fixed moment of this process. Never goes backwards; for timeouts and ages.
    fn monotonic(&self) -> Duration;
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: TimestampMs) -> Self {
        Self {
            now_ms: AtomicI64::new(now.0),
            monotonic_ms: AtomicU64::new(0),
        }
    }

    /// Moves wall clock and monotonic time forward together.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
        self.now_ms
            .fetch_add(i64::try_from(ms).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Lets the wall clock jump, as a time server might, without monotonic time passing.
    pub fn jump_to(&self, now: TimestampMs) {
        self.now_ms.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(self.now_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_tile_the_line_on_both_sides_of_the_epoch() {
        for (moment, start) in [
            (0, 0),
            (99, 0),
            (100, 100),
            (-1, -100),
            (-100, -100),
            (-101, -200),
        ] {
            assert_eq!(
                TimestampMs(moment).window_start(100),
                TimestampMs(start),
                "{moment}"
            );
        }
    }

    #[test]
    fn a_jump_moves_the_wall_and_not_the_monotonic_clock() {
        let clock = ManualClock::new(TimestampMs(1_000));
        clock.advance(Duration::from_millis(5));
        clock.jump_to(TimestampMs(0));
        assert_eq!(
            (clock.now(), clock.monotonic()),
            (TimestampMs(0), Duration::from_millis(5))
        );
    }
}
