//! Which segments the embedded queue may remove.
//!
//! Pure: from what the partitions hold, the policy and the time to what goes. Invariants:
//! - only from the oldest segment of a partition on, and never its newest one;
//! - never a segment with a record at or above the partition's released offset.

use std::time::Duration;

use millrace_log::planted as log_planted;
use millrace_model::TimestampMs;

use crate::planted;

/// How long and how much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub age: Option<Duration>,
    pub bytes: Option<u64>,
}

/// One segment as retention sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Number behind its last record.
    pub next: u64,
    pub bytes: u64,
    /// When its last record was appended.
    pub last_time: TimestampMs,
}

/// What a partition holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holding {
    /// From the oldest on; the last one is being written.
    pub segments: Vec<Segment>,
    /// Everything below is safe in the store.
    pub released: u64,
}

/// What retention decided for a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Segments that lie wholly below go. 0: none.
    pub remove_below: u64,
    /// Bytes that the policy would remove and the store has not released.
    pub held_bytes: u64,
}

/// Decides for all partitions at once: the bound on bytes is one for the whole queue, and takes
/// the oldest segments first, wherever they are.
pub(crate) fn decide(holdings: &[Holding], policy: Policy, now: TimestampMs) -> Vec<Decision> {
    let expired = expired_counts(holdings, policy, now);
    let pair = holdings.iter().zip(expired);
    pair.map(|(holding, expired)| decide_one(holding, expired))
        .collect()
}

/// How many segments of each partition the policy alone would remove.
fn expired_counts(holdings: &[Holding], policy: Policy, now: TimestampMs) -> Vec<usize> {
    let oldest_kept = policy.age.map(|age| now.saturating_sub(age));
    let mut total: u64 = 0;
    let mut counts = vec![0; holdings.len()];
    for (holding, count) in holdings.iter().zip(&mut counts) {
        let old = |segment: &&Segment| oldest_kept.is_some_and(|kept| segment.last_time < kept);
        *count = removable(holding).iter().take_while(old).count();
        total += holding.segments[*count..]
            .iter()
            .map(|s| s.bytes)
            .sum::<u64>();
    }
    let Some(limit) = policy.bytes else {
        return counts;
    };
    while total > limit {
        let candidates = holdings.iter().zip(&mut counts).filter_map(|(holding, n)| {
            let segment = *removable(holding).get(*n)?;
            Some((segment, n))
        });
        let Some((segment, count)) = candidates.min_by_key(|(segment, _)| segment.last_time) else {
            break;
        };
        *count += 1;
        total -= segment.bytes;
    }
    counts
}

/// All but the segment that is being written.
fn removable(holding: &Holding) -> &[Segment] {
    holding.segments.split_last().map_or(&[], |(_, rest)| rest)
}

fn decide_one(holding: &Holding, expired: usize) -> Decision {
    let mut decision = Decision::default();
    for segment in &holding.segments[..expired] {
        let free = segment.next <= holding.released
            || log_planted::active(planted::RETENTION_PASSES_RELEASE);
        if free && decision.held_bytes == 0 {
            decision.remove_below = segment.next;
        } else {
            decision.held_bytes += segment.bytes;
        }
    }
    decision
}

/// Keeps a clock that leaps forward from emptying the queue.
///
/// The wall clock is believed as far as monotonic time confirms it, plus [`Self::SLACK`]. What is
/// beyond that is believed only after it has lasted for [`Self::CONFIRMED_AFTER`]. So a time
/// server's mistake, or an operator's, costs nothing but later removal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockGuard {
    /// The moment that is believed, and the monotonic time then.
    anchor: (TimestampMs, Duration),
    ahead_since: Option<Duration>,
}

impl ClockGuard {
    /// More than a leap second, a summer time or an ordinary correction.
    pub(crate) const SLACK: Duration = Duration::from_secs(3600);
    /// Someone has had a working day to see the warning.
    pub(crate) const CONFIRMED_AFTER: Duration = Duration::from_secs(24 * 3600);

    pub(crate) fn new(wall: TimestampMs, monotonic: Duration) -> Self {
        Self {
            anchor: (wall, monotonic),
            ahead_since: None,
        }
    }

    /// The time that retention may go by.
    pub(crate) fn trusted(&mut self, wall: TimestampMs, monotonic: Duration) -> TimestampMs {
        let elapsed = monotonic.saturating_sub(self.anchor.1);
        let latest = self.anchor.0.saturating_add(elapsed);
        if wall <= latest.saturating_add(Self::SLACK) {
            self.ahead_since = None;
            // The anchor moves back with the wall clock, but never forward, so that the slack
            // cannot add up.
            if wall < latest {
                self.anchor = (wall, monotonic);
            }
            return wall;
        }
        let since = *self.ahead_since.get_or_insert(monotonic);
        if monotonic.saturating_sub(since) >= Self::CONFIRMED_AFTER {
            tracing::info!(%wall, "the clock that leapt ahead is believed now");
            *self = Self::new(wall, monotonic);
            return wall;
        }
        if since == monotonic {
            tracing::warn!(
                %wall, believed = %latest,
                "the clock leapt ahead; retention by age waits until it is confirmed by a restart \
                 or has lasted a day"
            );
        }
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy {
        age: Some(Duration::from_millis(100)),
        bytes: None,
    };

    fn holding(segments: &[(u64, u64, i64)], released: u64) -> Holding {
        Holding {
            segments: segments
                .iter()
                .map(|&(next, bytes, last)| Segment {
                    next,
                    bytes,
                    last_time: TimestampMs(last),
                })
                .collect(),
            released,
        }
    }

    fn decision(remove_below: u64, held_bytes: u64) -> Decision {
        Decision {
            remove_below,
            held_bytes,
        }
    }

    #[test]
    fn old_segments_go_and_the_newest_stays() {
        let held = holding(&[(10, 5, 0), (20, 5, 50), (30, 5, 60)], 30);
        for (now, below) in [(100, 0), (101, 10), (151, 20), (10_000, 20)] {
            let got = decide(std::slice::from_ref(&held), POLICY, TimestampMs(now));
            assert_eq!(got, [decision(below, 0)], "at {now}");
        }
    }

    #[test]
    fn what_the_store_has_not_released_is_held_and_reported() {
        let held = holding(&[(10, 5, 0), (20, 6, 0), (30, 7, 0)], 19);
        assert_eq!(
            decide(&[held], POLICY, TimestampMs(1000)),
            [decision(10, 6)]
        );
    }

    #[test]
    fn the_byte_bound_takes_the_oldest_of_all_partitions() {
        let a = holding(&[(1, 10, 5), (2, 10, 30), (3, 10, 40)], 3);
        let b = holding(&[(7, 10, 10), (8, 10, 20), (9, 10, 50)], 9);
        let policy = |bytes| Policy {
            age: None,
            bytes: Some(bytes),
        };
        for (bytes, below_a, below_b) in [
            (60, 0, 0),
            (59, 1, 0),
            (40, 1, 7),
            (30, 1, 8),
            (20, 2, 8),
            (0, 2, 8),
        ] {
            let got = decide(&[a.clone(), b.clone()], policy(bytes), TimestampMs(0));
            assert_eq!(
                got,
                [decision(below_a, 0), decision(below_b, 0)],
                "{bytes} bytes"
            );
        }
    }

    #[test]
    fn an_idle_or_fresh_partition_is_left_alone() {
        let got = decide(
            &[Holding::default(), holding(&[(0, 40, i64::MIN)], 0)],
            POLICY,
            TimestampMs(1_000),
        );
        assert_eq!(got, [Decision::default(), Decision::default()]);
    }

    fn holdings() -> impl Strategy<Value = Vec<Holding>> {
        let segment = (1u64..20, 0u64..50, 0i64..100);
        let one =
            (proptest::collection::vec(segment, 0..8), 0u64..150).prop_map(|(steps, released)| {
                let (mut next, mut time) = (0, 0);
                let segments = steps
                    .into_iter()
                    .map(|(records, bytes, later)| {
                        next += records;
                        time += later;
                        Segment {
                            next,
                            bytes,
                            last_time: TimestampMs(time),
                        }
                    })
                    .collect();
                Holding { segments, released }
            });
        proptest::collection::vec(one, 1..4)
    }

    fn removal_never_passes_release(
        holdings: &[Holding],
        policy: Policy,
        now: i64,
    ) -> Result<(), TestCaseError> {
        for (holding, decision) in holdings
            .iter()
            .zip(decide(holdings, policy, TimestampMs(now)))
        {
            prop_assert!(decision.remove_below <= holding.released);
            if let Some(newest) = holding.segments.last() {
                prop_assert!(decision.remove_below < newest.next);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn retention_never_passes_what_was_released(
            holdings in holdings(),
            age in proptest::option::of(0u64..300),
            bytes in proptest::option::of(0u64..400),
            now in 0i64..1000,
        ) {
            let policy = Policy { age: age.map(Duration::from_millis), bytes };
            removal_never_passes_release(&holdings, policy, now)?;
        }

        /// Bytes that are left beyond the bound are either held back or newest segments.
        #[test]
        fn the_byte_bound_is_kept_as_far_as_may_be(
            holdings in holdings(),
            limit in 0u64..400,
        ) {
            let policy = Policy { age: None, bytes: Some(limit) };
            let decisions = decide(&holdings, policy, TimestampMs(0));
            let (mut left, mut newest, mut held) = (0, 0, 0);
            for (holding, decision) in holdings.iter().zip(decisions) {
                let kept = holding.segments.iter().filter(|s| s.next > decision.remove_below);
                left += kept.map(|s| s.bytes).sum::<u64>();
                newest += holding.segments.last().map_or(0, |s| s.bytes);
                held += decision.held_bytes;
            }
            prop_assert!(left <= limit.max(newest) + held);
        }
    }

    #[test]
    fn planted_retention_passes_release_is_noticed() {
        let held = [holding(&[(10, 5, 0), (20, 6, 0)], 9)];
        let check = || removal_never_passes_release(&held, POLICY, 1_000);
        assert!(check().is_ok());
        assert!(log_planted::with(planted::RETENTION_PASSES_RELEASE, check).is_err());
    }

    #[test]
    fn a_leaping_clock_is_believed_after_a_day() {
        let hour = ClockGuard::SLACK;
        let at = |hours: u32| TimestampMs(0).saturating_add(hour * hours);
        let mut guard = ClockGuard::new(at(0), Duration::ZERO);
        assert_eq!(guard.trusted(at(2), hour), at(2), "within the slack");
        // Twelve years ahead after two hours.
        let leap = at(100_000);
        assert_eq!(guard.trusted(leap, hour * 2), at(2));
        assert_eq!(guard.trusted(leap, hour * 25), at(25));
        assert_eq!(guard.trusted(leap, hour * 26), leap, "it has lasted a day");
        // Back again: the older time is believed at once.
        assert_eq!(guard.trusted(at(27), hour * 27), at(27));
        assert_eq!(guard.trusted(at(28), hour * 28), at(28));
    }
}
