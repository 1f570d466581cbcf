//! Arithmetic where the exact way matters.

/// A compensated sum: `(sum, compensation)` after adding `value`. The total is the sum of both.
///
/// Neumaier's sum to the bit, but without his branch: what rounding lost is an exact number, and
/// Knuth's six operations find it whichever summand is larger.
#[inline]
pub(super) fn kahan_add(value: f64, sum: f64, compensation: f64) -> (f64, f64) {
    let total = sum + value;
    let taken = total - sum;
    let lost = (sum - (total - taken)) + (value - taken);
    let kept = compensation + lost;
    (total, if total.is_infinite() { 0.0 } else { kept })
}

/// A running mean that is exact where it can be: sum and count, until the sum overflows; from then
/// on the mean itself, incrementally.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    /// The sum; the mean, once `incremental`.
    total: f64,
    compensation: f64,
    pub(super) count: f64,
    incremental: bool,
}

impl Mean {
    #[inline]
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.total = value;
            return;
        }
        if !self.incremental {
            let (sum, compensation) = kahan_add(value, self.total, self.compensation);
            if !sum.is_infinite() {
                (self.total, self.compensation) = (sum, compensation);
                return;
            }
            self.incremental = true;
            self.total /= self.count - 1.0;
            self.compensation /= self.count - 1.0;
        }
        let share = (self.count - 1.0) / self.count;
        (self.total, self.compensation) = kahan_add(
            value / self.count,
            share * self.total,
            share * self.compensation,
        );
    }

    /// Adds what another one has seen.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.count == 0.0 {
            return;
        }
        if self.count == 0.0 {
            *self = *other;
            return;
        }
        let count = self.count + other.count;
        if !self.incremental && !other.incremental {
            let (sum, compensation) = kahan_add(other.total, self.total, self.compensation);
            if !sum.is_infinite() {
                self.total = sum;
                self.compensation = compensation + other.compensation;
                self.count = count;
                return;
            }
        }
        let (ours, theirs) = (self.count / count, other.count / count);
        self.total = self.mean() * ours + other.mean() * theirs;
        self.compensation = 0.0;
        self.count = count;
        self.incremental = true;
    }

    pub(super) fn mean(&self) -> f64 {
        if self.incremental {
            self.total + self.compensation
        } else {
            self.total / self.count + self.compensation / self.count
        }
    }
}

/// The compensated sum of all values.
pub(super) fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut compensation) = (0.0, 0.0);
    for value in values {
        (sum, compensation) = kahan_add(*value, sum, compensation);
    }
    if sum.is_infinite() {
        return sum;
    }
    sum + compensation
}

pub(super) fn mean(values: &[f64]) -> f64 {
    let mut mean = Mean::default();
    for value in values {
        mean.add(*value);
    }
    mean.mean()
}

/// The population variance.
pub(super) fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut mean_c, mut aux, mut aux_c) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - (mean + mean_c);
        (mean, mean_c) = kahan_add(delta / count, mean, mean_c);
        (aux, aux_c) = kahan_add(delta * (value - (mean + mean_c)), aux, aux_c);
    }
    (aux + aux_c) / count
}

/// Numbers in order, NaN before all of them.
pub(super) fn nan_first(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.partial_cmp(&b).expect("neither is NaN"),
    }
}

/// The `q`-quantile; changes the order of `values`.
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let last = (values.len() - 1) as f64;
    let rank = q * last;
    let place = rank.floor().max(0.0) as usize;
    let weight = rank - rank.floor();
    let order = |a: &f64, b: &f64| nan_first(*a, *b);
    let (_, lower, behind) = values.select_nth_unstable_by(place, order);
    let lower = *lower;
    let upper = behind.iter().copied().min_by(order).unwrap_or(lower);
    lower * (1.0 - weight) + upper * weight
}

/// The median of the distances from the median.
pub(super) fn median_absolute_deviation(values: &mut [f64]) -> f64 {
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let median = quantile(0.5, values);
    for value in values.iter_mut() {
        *value = (*value - median).abs();
    }
    quantile(0.5, values)
}

/// Go's `math.Min`: NaN if either is, unless the other is -Inf; -0 is below 0.
pub(super) fn min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    if a.is_nan() || b.is_nan() {
        return f64::NAN;
    }
    if a == 0.0 && b == 0.0 {
        return if a.is_sign_negative() { a } else { b };
    }
    a.min(b)
}

/// Go's `math.Max`: NaN if either is, unless the other is +Inf; 0 is above -0.
pub(super) fn max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        return f64::INFINITY;
    }
    if a.is_nan() || b.is_nan() {
        return f64::NAN;
    }
    if a == 0.0 && b == 0.0 {
        return if a.is_sign_negative() { b } else { a };
    }
    a.max(b)
}

/// Slope and intercept at `origin_ms` of the least-squares line.
pub(super) fn linear_regression(times: &[i64], values: &[f64], origin_ms: i64) -> (f64, f64) {
    let first = values[0];
    if values.iter().skip(1).all(|v| *v == first) {
        if first.is_infinite() {
            return (f64::NAN, f64::NAN);
        }
        return (0.0, first);
    }
    let count = values.len() as f64;
    let (mut x_sum, mut x_c, mut y_sum, mut y_c) = (0.0, 0.0, 0.0, 0.0);
    let (mut xy_sum, mut xy_c, mut xx_sum, mut xx_c) = (0.0, 0.0, 0.0, 0.0);
    for (time, y) in times.iter().zip(values) {
        let x = time.wrapping_sub(origin_ms) as f64 / 1e3;
        (x_sum, x_c) = kahan_add(x, x_sum, x_c);
        (y_sum, y_c) = kahan_add(*y, y_sum, y_c);
        (xy_sum, xy_c) = kahan_add(x * y, xy_sum, xy_c);
        (xx_sum, xx_c) = kahan_add(x * x, xx_sum, xx_c);
    }
    let (x, y, xy, xx) = (x_sum + x_c, y_sum + y_c, xy_sum + xy_c, xx_sum + xx_c);
    let slope = (xy - x * y / count) / (xx - x * x / count);
    (slope, y / count - slope * x / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_lost_is_what_neumaier_finds(value: f64, sum: f64) {
            let total = sum + value;
            let lost = if total.is_infinite() {
                0.0
            } else if sum.abs() >= value.abs() {
                (sum - total) + value
            } else {
                (value - total) + sum
            };
            let got = kahan_add(value, sum, 0.0);
            prop_assert_eq!((got.0 - total).to_bits(), (total - total).to_bits());
            prop_assert!(got.1 == lost || (got.1.is_nan() && lost.is_nan()), "{} {lost}", got.1);
        }
    }

    #[test]
    fn sums_are_compensated() {
        assert_eq!(sum(&[1.0, 1e100, 1.0, -1e100]), 2.0);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    }

    #[test]
    fn means_survive_overflow_and_merge() {
        let big = f64::MAX / 1.8;
        assert_eq!(mean(&[big, big, big]), big);
        let (mut a, mut b) = (Mean::default(), Mean::default());
        for v in [1.0, 2.0, 3.0] {
            a.add(v);
        }
        for v in [4.0, 5.0] {
            b.add(v);
        }
        a.merge(&b);
        assert_eq!(a.mean(), 3.0);
        let mut empty = Mean::default();
        empty.merge(&a);
        assert_eq!(empty.mean(), 3.0);
    }

    #[test]
    fn quantiles_interpolate_and_put_nan_first() {
        assert_eq!(quantile(0.8, &mut [0.0, 1.0, 4.0]), 2.8000000000000003);
        assert_eq!(quantile(0.5, &mut [f64::NAN, 1.0, 2.0]), 1.0);
        assert_eq!(quantile(-1.0, &mut [1.0]), f64::NEG_INFINITY);
        assert!(quantile(0.5, &mut []).is_nan());
    }
}
