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

/// The same as [`math::sum`].
pub(super) fn sum(values: &[f64]) -> f64 {
    let (sum, compensation) = compensated(0.0, values);
    let total = sum + compensation;
    if total.is_finite() {
        total
    } else {
        math::sum(values)
    }
}

/// The same as [`math::mean`].
pub(super) fn mean(values: &[f64]) -> f64 {
    let Some((first, rest)) = values.split_first() else {
        return math::mean(values);
    };
    let (sum, compensation) = compensated(*first, rest);
    // Finite, so no sum before was not, and the mean was never taken by steps.
    if sum.is_finite() && compensation.is_finite() {
        let count = values.len() as f64;
        sum / count + compensation / count
    } else {
        math::mean(values)
    }
}

/// Sum and compensation. Once one of them is not finite, they never are again.
fn compensated(first: f64, values: &[f64]) -> (f64, f64) {
    let (mut sum, mut compensation) = (first, 0.0);
    for value in values {
        let total = sum + value;
        let taken = total - sum;
        compensation += (sum - (total - taken)) + (value - taken);
        sum = total;
    }
    (sum, compensation)
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
            for values in [finite, any] {
                prop_assert!(same(super::sum(&values), math::sum(&values)));
                prop_assert!(same(super::mean(&values), math::mean(&values)));
            }
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
