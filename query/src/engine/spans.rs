//! Sums, means and extremes of windows, quickly and to the same bit.
//!
//! A compensated sum waits for one addition per sample only, if nothing else stands in its way: what
//! rounding loses is added up beside it, and whether something was not finite is asked once, at the
//! end; then the window is summed again, the careful way. (Several sums at once, or differences of
//! running sums, are quicker still, but change the last bit, which `count_values` and `==` show.)
//! Extremes slide along a queue of candidates.

use std::collections::VecDeque;
use std::ops::Range;

use super::math;

/// Windows that are summed at once. Each sum waits for its own additions only, so several of them
/// take hardly longer than one.
pub(super) const AT_ONCE: usize = 4;

/// The same as [`math::sum`] of each window.
pub(super) fn sums(windows: [&[f64]; AT_ONCE]) -> [f64; AT_ONCE] {
    let sums = compensated([0.0; AT_ONCE], windows);
    std::array::from_fn(|at| {
        let (sum, compensation) = sums[at];
        let total = sum + compensation;
        if total.is_finite() {
            total
        } else {
            math::sum(windows[at])
        }
    })
}

/// The same as [`math::mean`] of each window.
pub(super) fn means(windows: [&[f64]; AT_ONCE]) -> [f64; AT_ONCE] {
    let rests = windows.map(|window| window.get(1..).unwrap_or_default());
    let firsts = windows.map(|window| window.first().copied().unwrap_or_default());
    let sums = compensated(firsts, rests);
    std::array::from_fn(|at| {
        let (sum, compensation) = sums[at];
        // Finite, so no sum before was not, and the mean was never taken by steps.
        if sum.is_finite() && compensation.is_finite() && !windows[at].is_empty() {
            let count = windows[at].len() as f64;
            sum / count + compensation / count
        } else {
            math::mean(windows[at])
        }
    })
}

/// Sums and compensations. Once one of them is not finite, it never is again.
fn compensated(firsts: [f64; AT_ONCE], windows: [&[f64]; AT_ONCE]) -> [(f64, f64); AT_ONCE] {
    let mut sums = firsts.map(|first| (first, 0.0));
    let common = windows.iter().map(|w| w.len()).min().unwrap_or(0);
    let heads = windows.map(|window| &window[..common]);
    for at in 0..common {
        for (sum, head) in sums.iter_mut().zip(heads) {
            *sum = add(*sum, head[at]);
        }
    }
    for (sum, window) in sums.iter_mut().zip(windows) {
        *sum = window[common..].iter().fold(*sum, |sum, v| add(sum, *v));
    }
    sums
}

#[inline]
fn add((sum, compensation): (f64, f64), value: f64) -> (f64, f64) {
    let total = sum + value;
    let taken = total - sum;
    let lost = (sum - (total - taken)) + (value - taken);
    (total, compensation + lost)
}

/// The first position from `from` on whose time is behind `moment`.
#[inline]
pub(super) fn behind(times: &[i64], from: usize, moment: i64) -> usize {
    let mut known = from;
    let mut step = 1;
    // Mostly it is near; where windows are long, it is not.
    while let Some(time) = times.get(known + step - 1) {
        if *time > moment {
            break;
        }
        known += step;
        step *= 2;
    }
    let end = times.len().min(known + step);
    known + times[known..end].partition_point(|time| *time <= moment)
}

/// The least or greatest of windows whose edges only move on.
#[derive(Debug, Default)]
pub(super) struct Extremes {
    /// Positions of samples that may still become the extreme, the best one first.
    candidates: VecDeque<usize>,
    /// The first sample that was not looked at.
    next: usize,
    /// Where the window before ended.
    before: usize,
}

/// Windows of which at least this part is not in the window before are scanned: several samples at
/// once, which the queue cannot.
const SCANNED_PART: usize = 6;

/// Samples that are compared at once.
const LANES: usize = 8;

/// The extreme of all values, as [`Extremes::of`] has it.
fn scan(values: &[f64], better: impl Fn(f64, f64) -> bool) -> f64 {
    let worst = if better(1.0, 0.0) {
        f64::NEG_INFINITY
    } else {
        f64::INFINITY
    };
    let keep = |best: f64, value: f64| if better(value, best) { value } else { best };
    let mut lanes = [worst; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (best, value) in lanes.iter_mut().zip(chunk) {
            *best = keep(*best, *value);
        }
    }
    let best = lanes.iter().chain(rest).copied().fold(worst, keep);
    if best == worst || best == 0.0 {
        // There may be no number at all; and of the two zeros the first one counts.
        let found = values.iter().find(|value| **value == best);
        return found.or(values.last()).copied().unwrap_or(best);
    }
    best
}

impl Extremes {
    pub(super) fn clear(&mut self) {
        self.candidates.clear();
        self.next = 0;
        self.before = 0;
    }

    /// The extreme of a window: the first of several equal ones; NaN only where there is no number.
    #[inline]
    pub(super) fn of(
        &mut self,
        values: &[f64],
        window: Range<usize>,
        better: impl Fn(f64, f64) -> bool,
    ) -> f64 {
        let fresh = window.end - self.before.max(window.start);
        self.before = window.end;
        if fresh * SCANNED_PART >= window.len() {
            return scan(&values[window], better);
        }
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

    fn any_number() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e3..1e3f64,
            4 => (0..1000).prop_map(f64::from),
            2 => -1e12..1e12f64,
            1 => any::<f64>(),
            1 => Just(0.0),
            1 => Just(-0.0),
            1 => Just(1e300),
            1 => Just(f64::MAX),
        ]
    }

    fn with_holes() -> impl Strategy<Value = f64> {
        prop_oneof![
            16 => any_number(),
            1 => Just(f64::NAN),
            1 => Just(f64::INFINITY),
            1 => Just(f64::NEG_INFINITY),
            1 => Just(-0.0),
            1 => Just(0.0),
        ]
    }

    fn same(a: f64, b: f64) -> bool {
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    }

    proptest! {
        #[test]
        fn sums_are_the_careful_ones_to_the_bit(
            finite in prop::collection::vec(any_number(), 1..60),
            any in prop::collection::vec(with_holes(), 1..60),
        ) {
            let windows = [&finite[..], &any, &[], &finite[..finite.len() / 2]];
            for (sum, values) in super::sums(windows).into_iter().zip(windows) {
                prop_assert!(same(sum, math::sum(values)));
            }
            for (mean, values) in super::means(windows).into_iter().zip(windows) {
                prop_assert!(same(mean, math::mean(values)));
            }
        }

        #[test]
        fn the_first_position_behind_a_moment_is_found(
            gaps in prop::collection::vec(1i64..4, 0..60),
            from in 0usize..60,
            moment in 0i64..150,
        ) {
            let times: Vec<i64> = gaps
                .iter()
                .scan(0, |time, gap| { *time += gap; Some(*time) })
                .collect();
            let from = from.min(times.partition_point(|time| *time <= moment));
            let right = times.partition_point(|time| *time <= moment);
            prop_assert_eq!(super::behind(&times, from, moment), right);
        }

        #[test]
        fn extremes_are_those_of_a_scan(
            values in prop::collection::vec(with_holes(), 1..60),
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
                prop_assert!(same(got, best), "{got} {best}");
            }
        }
    }
}
