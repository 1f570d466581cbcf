//! One series' samples, bucket by bucket.

use std::ops::Range;

use crate::definition::{EDGE_MS, INCREASE_LOOKBACK_MS, bucket_end};
use crate::partial::Sum;
use crate::span::Spans;

/// What a series has in one bucket: computed once, and added to every view of that width.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The bucket's end.
    pub end: i64,
    /// Which of the series' samples.
    pub samples: Range<usize>,
    pub(crate) count: u64,
    pub(crate) sum: Sum,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) first: (i64, u64),
    pub(crate) last: (i64, u64),
    pub(crate) increase: Option<f64>,
}

/// Appends the buckets of `width_ms` whose moments are wanted. The samples are in order of time, with no
/// staleness markers; those right before what is wanted say from where counters grew, if `grows`.
pub fn runs(
    times: &[i64],
    values: &[f64],
    width_ms: i64,
    wanted: &Spans,
    grows: bool,
    out: &mut Vec<Run>,
) {
    // What is further from the epoch than any bucket is not in the one at the edge.
    let mut at = times.partition_point(|&t| t <= -EDGE_MS);
    let times = &times[..times.partition_point(|&t| t <= EDGE_MS)];
    while at < times.len() {
        let end = bucket_end(times[at], width_ms);
        let len = times[at..].partition_point(|&t| t <= end);
        let samples = at..at + len;
        at = samples.end;
        if !wanted.contains(end) {
            continue;
        }
        let anchor = samples.start.checked_sub(1).filter(|&before| {
            grows && times[before] > (end - width_ms).saturating_sub(INCREASE_LOOKBACK_MS)
        });
        out.push(run(
            times,
            values,
            end,
            samples,
            anchor.map(|at| values[at]),
            grows,
        ));
    }
}

fn run(
    times: &[i64],
    values: &[f64],
    end: i64,
    samples: Range<usize>,
    anchor: Option<f64>,
    grows: bool,
) -> Run {
    let (first, last) = (samples.start, samples.end - 1);
    let of = &values[samples.clone()];
    let mut sum = Sum::default();
    let (mut min, mut max) = (of[0], of[0]);
    for &value in of {
        sum.add(value);
        if value < min || min.is_nan() {
            min = value;
        }
        if value > max || max.is_nan() {
            max = value;
        }
    }
    Run {
        end,
        count: of.len() as u64,
        sum,
        min,
        max,
        first: (times[first], values[first].to_bits()),
        last: (times[last], values[last].to_bits()),
        increase: grows.then(|| increase(anchor.unwrap_or(of[0]), of)),
        samples,
    }
}

/// By how much a counter grew since `before`, in the order of operations that `increase(.. anchored)` has.
fn increase(before: f64, values: &[f64]) -> f64 {
    let mut grown = values[values.len() - 1] - before;
    let mut previous = before;
    for &value in values {
        if value < previous {
            grown += previous;
        }
        previous = value;
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Span;

    fn check(samples: &[(i64, f64)], expect: &[(i64, u64, f64)]) {
        let times: Vec<i64> = samples.iter().map(|s| s.0).collect();
        let values: Vec<f64> = samples.iter().map(|s| s.1).collect();
        let mut found = Vec::new();
        let wanted = Spans::of(Span::new(0, 1_000_000));
        runs(&times, &values, 100, &wanted, true, &mut found);
        let got: Vec<_> = found
            .iter()
            .map(|run| (run.end, run.count, run.increase.unwrap()))
            .collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn a_counter_grows_from_the_sample_before_the_bucket() {
        check(
            &[(-5, 7.0), (50, 9.0), (100, 10.0), (101, 3.0)],
            &[(100, 2, 3.0), (200, 1, 3.0)],
        );
    }

    #[test]
    fn what_is_too_far_before_the_bucket_does_not_count() {
        check(&[(-300_000, 1.0), (50, 9.0)], &[(100, 1, 0.0)]);
        check(&[(-299_999, 1.0), (50, 9.0)], &[(100, 1, 8.0)]);
    }

    #[test]
    fn moments_beyond_all_buckets_are_passed_over() {
        check(
            &[(i64::MIN, 1.0), (60, 2.0), (i64::MAX, 3.0)],
            &[(100, 1, 0.0)],
        );
    }
}
