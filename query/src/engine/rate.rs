//! `rate`, `increase`, `delta` and their relatives.
//!
//! Prometheus's extrapolation, exactly: the samples inside a left-open window seldom reach its
//! edges, so the change between the first and the last is scaled up, to an edge that is within 1.1
//! average distances of a sample, or else by half such a distance; a counter is never extrapolated
//! below zero. `anchored` and `smoothed` replace the extrapolation by values at the edges.

use super::ast::Edges;
use super::math;

/// What is computed from the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Falling values are resets.
    pub(super) counter: bool,
    /// Per second.
    pub(super) per_second: bool,
}

/// A window: its edges in ms, and the samples that belong to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'s> {
    pub(super) times: &'s [i64],
    pub(super) values: &'s [f64],
    /// Samples exactly here are outside, except with `anchored` and `smoothed`.
    pub(super) begin: i64,
    pub(super) end: i64,
}

impl Window<'_> {
    fn seconds(&self) -> f64 {
        (self.end - self.begin) as f64 / 1000.0
    }
}

/// The extrapolated change over a window. `lost` are the values before each reset inside it, in
/// order.
pub(super) fn extrapolated(
    window: &Window<'_>,
    change: Change,
    lost: impl Iterator<Item = f64>,
) -> Option<f64> {
    let (first, last) = (0, window.values.len().checked_sub(1)?);
    if last == 0 {
        return None;
    }
    let mut result = window.values[last] - window.values[first];
    for value in lost {
        result += value;
    }
    let (first_time, last_time) = (window.times[first], window.times[last]);
    let mut to_start = (first_time - window.begin) as f64 / 1000.0;
    let mut to_end = (window.end - last_time) as f64 / 1000.0;
    let sampled = (last_time - first_time) as f64 / 1000.0;
    let average = sampled / last as f64;
    let threshold = average * 1.1;
    if to_start >= threshold {
        to_start = average / 2.0;
    }
    if change.counter && result > 0.0 && window.values[first] >= 0.0 {
        let to_zero = sampled * (window.values[first] / result);
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if change.per_second {
        factor /= window.seconds();
    }
    Some(result * factor)
}

/// The values before every reset of a counter, as positions: `values[i] < values[i - 1]`.
pub(super) fn reset_positions(values: &[f64], out: &mut Vec<usize>) {
    out.clear();
    for (index, pair) in values.windows(2).enumerate() {
        if pair[1] < pair[0] {
            out.push(index + 1);
        }
    }
}

/// The value at `time` on the line between two samples. A counter that fell is taken to have begun
/// anew from zero.
fn interpolate(from: (i64, f64), to: (i64, f64), time: i64, counter: bool) -> f64 {
    let start = if counter && to.1 < from.1 {
        0.0
    } else {
        from.1
    };
    start + (to.1 - start) * (time - from.0) as f64 / (to.0 - from.0) as f64
}

/// The samples of a window whose edges have values of their own: positions of the first and last
/// that count, and the values at both edges.
struct Edged {
    first: usize,
    last: usize,
    left: f64,
    right: f64,
}

/// `window.times` reaches further than its edges. `None` if there is nothing to go by.
fn edged(window: &Window<'_>, edges: Edges, counter: bool) -> Option<Edged> {
    let (times, values) = (window.times, window.values);
    let mut last = times.len().checked_sub(1)?;
    let smoothed = edges == Edges::Smoothed;
    let first = times[..last]
        .partition_point(|t| *t <= window.begin)
        .saturating_sub(1);
    if smoothed {
        last = times[..last].partition_point(|t| *t < window.end);
    }
    if times[last] <= window.begin || times[first] > window.end {
        return None;
    }
    let at = |index: usize| (times[index], values[index]);
    let left = if smoothed && times[first] < window.begin {
        interpolate(at(first), at(first + 1), window.begin, counter)
    } else {
        values[first]
    };
    let right = if smoothed && last > 0 && times[last] > window.end {
        interpolate(at(last - 1), at(last), window.end, counter)
    } else {
        values[last]
    };
    Some(Edged {
        first,
        last,
        left,
        right,
    })
}

/// The change between values at the edges.
pub(super) fn extended(window: &Window<'_>, edges: Edges, change: Change) -> Option<f64> {
    let found = edged(window, edges, change.counter)?;
    let mut result = found.right - found.left;
    if change.counter {
        // Only samples inside can be resets: those at the edges are in the edges' values already.
        let from = found.first + usize::from(window.times[found.first] <= window.begin);
        let to = found.last + usize::from(window.times[found.last] < window.end);
        let inside = window.values.get(from..to).unwrap_or_default();
        let mut previous = found.left;
        for &value in inside.iter().chain([&found.right]) {
            if value < previous {
                result += previous;
            }
            previous = value;
        }
    }
    if change.per_second {
        result /= window.seconds();
    }
    Some(result)
}

/// The samples of an anchored or smoothed range vector that is itself the answer.
pub(super) fn extended_samples(window: &Window<'_>, edges: Edges) -> Vec<(i64, f64)> {
    let Some(found) = edged(window, edges, false) else {
        return Vec::new();
    };
    let from = found.first + usize::from(window.times[found.first] <= window.begin);
    let to = found.last + usize::from(window.times[found.last] < window.end);
    let mut out = vec![(window.begin, found.left)];
    for index in from..to {
        out.push((window.times[index], window.values[index]));
    }
    out.push((window.end, found.right));
    out
}

/// The samples that `changes` and `resets` of an anchored range compare: from the last one at or
/// before the left edge on.
pub(super) fn anchored_from(window: &Window<'_>) -> Option<usize> {
    let last = window.times.len().checked_sub(1)?;
    if window.times[last] <= window.begin {
        return None;
    }
    let after = window.times[..last].partition_point(|t| *t <= window.begin);
    Some(after.saturating_sub(1))
}

/// `irate` and `idelta`: from the last two samples.
pub(super) fn instant(window: &Window<'_>, rate: bool) -> Option<f64> {
    let [.., before, last] = window.values else {
        return None;
    };
    let [.., before_time, last_time] = window.times else {
        return None;
    };
    let mut result = *last;
    if !(rate && last < before) {
        result -= before;
    }
    if rate {
        result /= (last_time - before_time) as f64 / 1000.0;
    }
    Some(result)
}

/// What the deltas in a window come to: all that end in it, whole. Nothing is extrapolated, and
/// `anchored` and `smoothed` make no difference, since each says by itself what was added.
pub(super) fn of_deltas(window: &Window<'_>, per_second: bool) -> Option<f64> {
    let from = window.times.partition_point(|t| *t <= window.begin);
    let to = window.times.partition_point(|t| *t <= window.end);
    if from >= to {
        return None;
    }
    let sum = math::sum(&window.values[from..to]);
    Some(if per_second {
        sum / window.seconds()
    } else {
        sum
    })
}

/// `irate` of deltas: the last one over the time since the one before.
pub(super) fn of_last_delta(window: &Window<'_>) -> Option<f64> {
    let [.., before, last] = window.times else {
        return None;
    };
    let value = window.values.last()?;
    Some(value / ((last - before) as f64 / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Change = Change {
        counter: true,
        per_second: true,
    };
    const INCREASE: Change = Change {
        counter: true,
        per_second: false,
    };
    const DELTA: Change = Change {
        counter: false,
        per_second: false,
    };

    fn check(samples: &[(i64, f64)], window: (i64, i64), change: Change, expect: Option<f64>) {
        let times: Vec<i64> = samples.iter().map(|s| s.0).collect();
        let values: Vec<f64> = samples.iter().map(|s| s.1).collect();
        let mut positions = Vec::new();
        reset_positions(&values, &mut positions);
        let lost = if change.counter {
            positions
        } else {
            Vec::new()
        };
        let lost = lost.iter().map(|i| values[i - 1]);
        let window = Window {
            times: &times,
            values: &values,
            begin: window.0,
            end: window.1,
        };
        let got = extrapolated(&window, change, lost);
        match (got, expect) {
            (Some(got), Some(expect)) => assert!((got - expect).abs() < 1e-12, "{got} {expect}"),
            (got, expect) => assert_eq!(got, expect),
        }
    }

    #[test]
    fn one_sample_gives_nothing() {
        check(&[(10, 1.0)], (0, 60), RATE, None);
        check(&[], (0, 60), RATE, None);
    }

    #[test]
    fn a_window_that_is_full_is_extrapolated_to_both_edges() {
        // 10 per 10 s, seen from 5 s to 55 s of a window of 60 s.
        let samples: Vec<_> = (0..6)
            .map(|i| (5_000 + i * 10_000, 100.0 + 10.0 * i as f64))
            .collect();
        check(&samples, (0, 60_000), INCREASE, Some(60.0));
        check(&samples, (0, 60_000), RATE, Some(1.0));
        check(&samples, (0, 60_000), DELTA, Some(60.0));
    }

    #[test]
    fn a_far_edge_is_approached_by_half_a_distance() {
        // 11 s to the edge is at the threshold of 1.1 × 10 s: half a distance is added instead.
        check(
            &[(11_000, 100.0), (21_000, 110.0)],
            (0, 21_000),
            INCREASE,
            Some(15.0),
        );
        check(
            &[(10_999, 100.0), (20_999, 110.0)],
            (0, 20_999),
            INCREASE,
            Some(20.999),
        );
    }

    #[test]
    fn a_counter_is_not_extrapolated_below_zero() {
        check(
            &[(5_000, 1.0), (15_000, 11.0)],
            (0, 15_000),
            INCREASE,
            Some(11.0),
        );
        check(
            &[(5_000, 1.0), (15_000, 11.0)],
            (0, 15_000),
            DELTA,
            Some(15.0),
        );
    }

    #[test]
    fn resets_add_what_was_lost() {
        check(
            &[
                (10_000, 50.0),
                (20_000, 60.0),
                (30_000, 5.0),
                (40_000, 15.0),
            ],
            (10_000, 40_000),
            INCREASE,
            Some(25.0),
        );
    }

    #[test]
    fn irate_takes_the_last_two() {
        let times = [0, 10_000, 20_000];
        let of = |values: [f64; 3], rate| {
            instant(
                &Window {
                    times: &times,
                    values: &values,
                    begin: -1,
                    end: 20_000,
                },
                rate,
            )
        };
        assert_eq!(of([0.0, 5.0, 25.0], true), Some(2.0));
        assert_eq!(of([0.0, 50.0, 25.0], true), Some(2.5));
        assert_eq!(of([0.0, 50.0, 25.0], false), Some(-25.0));
    }
}
