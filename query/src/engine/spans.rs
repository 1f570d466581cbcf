//! Sums, means and extremes of windows, quickly.
//!
//! A window alone is summed in several lanes, each compensated, so that additions need not wait for
//! each other. Windows that overlap much are differences of running sums, which are kept as pairs
//! of numbers (about 106 bits); extremes slide along a queue of candidates. All of them are as exact
//! as a compensated sum from left to right, up to the last bit or two; where they might not be
//! (overflow, values that are not finite, cancellation), the window is summed from left to right.

use std::collections::VecDeque;
use std::ops::Range;

use super::math;

/// Sums that do not wait for each other.
const LANES: usize = 8;

/// Below this a window is summed from left to right.
const SHORT: usize = 2 * LANES;

/// Running sums of a sample cost about as much as summing it so many times.
pub(super) const RUNNING_COST: usize = 12;

/// The compensated sum of all values, within rounding of [`math::sum`].
pub(super) fn sum(values: &[f64]) -> f64 {
    if values.len() < SHORT {
        return math::sum(values);
    }
    let (sum, compensation) = lanes(values);
    let total = sum + compensation;
    if total.is_finite() {
        total
    } else {
        math::sum(values)
    }
}

/// The mean of all values, within rounding of [`math::mean`].
pub(super) fn mean(values: &[f64]) -> f64 {
    if values.len() < SHORT {
        return math::mean(values);
    }
    let (sum, compensation) = lanes(values);
    let count = values.len() as f64;
    let mean = sum / count + compensation / count;
    if mean.is_finite() {
        mean
    } else {
        math::mean(values)
    }
}

/// What rounding loses in `sum + value`, beside the rounded sum.
#[inline]
fn two_sum(value: f64, sum: f64) -> (f64, f64) {
    let total = sum + value;
    let taken = total - sum;
    (total, (sum - (total - taken)) + (value - taken))
}

/// Sum and compensation. Not finite if a value or a sum is not.
fn lanes(values: &[f64]) -> (f64, f64) {
    let (mut sums, mut lost) = ([0.0; LANES], [0.0; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let (total, more) = two_sum(chunk[lane], sums[lane]);
            sums[lane] = total;
            lost[lane] += more;
        }
    }
    let (mut sum, mut compensation) = (0.0, 0.0);
    for value in sums.iter().chain(rest) {
        let (total, more) = two_sum(*value, sum);
        sum = total;
        compensation += more;
    }
    (sum, compensation + lost.iter().sum::<f64>())
}

/// Running sums of a series, for windows that overlap.
#[derive(Debug, Default)]
pub(super) struct RunningSums {
    /// The sum before each sample, and behind the last, as a pair.
    sums: Vec<(f64, f64)>,
    /// Below this a difference says too little.
    floor: f64,
    active: bool,
}

impl RunningSums {
    /// Prepares for windows of a series; `worth`, if they overlap so much that it pays.
    pub(super) fn prepare(&mut self, values: &[f64], worth: bool) {
        self.active = worth;
        if !worth {
            return;
        }
        self.sums.clear();
        self.sums.reserve(values.len() + 1);
        let (mut sum, mut lost, mut greatest) = (0.0f64, 0.0f64, 0.0f64);
        self.sums.push((0.0, 0.0));
        for value in values {
            let (total, more) = two_sum(*value, sum);
            (sum, lost) = (total, lost + more);
            greatest = greatest.max(total.abs()).max(lost.abs());
            self.sums.push((sum, lost));
        }
        // What the pairs may be off by, and a difference is trusted to twelve digits and more.
        self.floor = values.len() as f64 * greatest * f64::EPSILON * f64::EPSILON * 1e13;
        self.active = (sum + lost).is_finite() && self.floor.is_finite();
    }

    /// The sum of a window.
    #[inline]
    pub(super) fn sum(&self, values: &[f64], window: Range<usize>) -> f64 {
        match self.difference(window.clone()) {
            Some((sum, lost)) => sum + lost,
            None => sum(&values[window]),
        }
    }

    /// The mean of a window.
    #[inline]
    pub(super) fn mean(&self, values: &[f64], window: Range<usize>) -> f64 {
        let count = window.len() as f64;
        match self.difference(window.clone()) {
            Some((sum, lost)) => sum / count + lost / count,
            None => mean(&values[window]),
        }
    }

    #[inline]
    fn difference(&self, window: Range<usize>) -> Option<(f64, f64)> {
        if !self.active {
            return None;
        }
        let (before, behind) = (self.sums[window.start], self.sums[window.end]);
        let (sum, lost) = two_sum(-before.0, behind.0);
        let lost = lost + (behind.1 - before.1);
        ((sum + lost).abs() > self.floor).then_some((sum, lost))
    }
}

/// The least or greatest of windows whose edges only move on.
#[derive(Debug, Default)]
pub(super) struct Extremes {
    /// Positions of samples that may still become the extreme, the best one first.
    candidates: VecDeque<usize>,
    /// The first sample that was not looked at.
    next: usize,
}

impl Extremes {
    pub(super) fn clear(&mut self) {
        self.candidates.clear();
        self.next = 0;
    }

    /// The extreme of a window: the first of several equal ones; NaN only where there is no number.
    #[inline]
    pub(super) fn of(
        &mut self,
        values: &[f64],
        window: Range<usize>,
        better: impl Fn(f64, f64) -> bool,
    ) -> f64 {
        self.next = self.next.max(window.start);
        while self.next < window.end {
            let value = values[self.next];
            if !value.is_nan() {
                while self
                    .candidates
                    .pop_back_if(|last| better(value, values[*last]))
                    .is_some()
                {}
                self.candidates.push_back(self.next);
            }
            self.next += 1;
        }
        while self
            .candidates
            .pop_front_if(|first| *first < window.start)
            .is_some()
        {}
        match self.candidates.front() {
            Some(best) => values[*best],
            None => values[window.end - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            10 => -1e3..1e3f64,
            5 => (0..1000).prop_map(f64::from),
            2 => -1e12..1e12f64,
            1 => Just(0.0),
            1 => Just(-0.0),
        ]
    }

    fn any_number() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => number(),
            // Sums of these do not overflow, in whatever order.
            1 => any::<f64>().prop_map(|v| v.clamp(-1e305, 1e305)),
            1 => Just(f64::NAN),
            1 => Just(f64::INFINITY),
            1 => Just(1e300),
            1 => Just(-1e300),
        ]
    }

    fn close(a: f64, b: f64, scale: f64) -> bool {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 2e-13 * scale.min(f64::MAX)
    }

    fn windows(length: usize) -> Vec<Range<usize>> {
        let width = length / 2;
        (0..length - width).map(|at| at..at + width).collect()
    }

    proptest! {
        #[test]
        fn sums_are_those_from_left_to_right(values in prop::collection::vec(number(), 40..200)) {
            let mut running = RunningSums::default();
            running.prepare(&values, true);
            for window in windows(values.len()) {
                let part = &values[window.clone()];
                // Compensated sums are exact up to the rounding of the result.
                let scale = math::sum(part).abs().max(1e-10);
                let (sum, mean) = (math::sum(part), math::mean(part));
                prop_assert!(close(super::sum(part), sum, scale));
                prop_assert!(close(super::mean(part), mean, scale));
                prop_assert!(close(running.sum(&values, window.clone()), sum, scale));
                prop_assert!(close(running.mean(&values, window), mean, scale));
            }
        }

        #[test]
        fn what_is_not_finite_is_summed_as_ever(values in prop::collection::vec(any_number(), 40..80)) {
            let mut running = RunningSums::default();
            running.prepare(&values, true);
            for window in windows(values.len()) {
                let part = &values[window.clone()];
                let scale = part.iter().map(|v| v.abs()).fold(0.0, f64::max);
                let (sum, mean) = (math::sum(part), math::mean(part));
                prop_assert!(close(super::sum(part), sum, scale), "{} {sum}", super::sum(part));
                prop_assert!(close(super::mean(part), mean, scale));
                prop_assert!(close(running.sum(&values, window.clone()), sum, scale));
                prop_assert!(close(running.mean(&values, window), mean, scale));
            }
        }

        #[test]
        fn extremes_are_those_of_a_scan(
            values in prop::collection::vec(any_number(), 1..60),
            width in 1usize..20,
            step in 1usize..20,
        ) {
            let mut sliding = Extremes::default();
            for start in (0..values.len()).step_by(step) {
                let window = start..(start + width).min(values.len());
                let mut best = values[start];
                for value in &values[window.clone()] {
                    if *value < best || best.is_nan() {
                        best = *value;
                    }
                }
                let got = sliding.of(&values, window, |a, b| a < b);
                prop_assert!(got.to_bits() == best.to_bits() || (got.is_nan() && best.is_nan()));
            }
        }
    }

    #[test]
    fn a_large_value_that_is_gone_leaves_nothing_behind() {
        let mut values = vec![1e300, 1e280];
        values.extend((0..400).map(|i| 0.1 * f64::from(i)));
        let mut running = RunningSums::default();
        running.prepare(&values, true);
        for start in 2..200 {
            let window = start..start + 200;
            let expect = math::sum(&values[window.clone()]);
            let got = running.sum(&values, window);
            assert!((got - expect).abs() <= 1e-12 * expect, "{got} {expect}");
        }
    }
}
