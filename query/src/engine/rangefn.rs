//! Functions of range vectors.
//!
//! Samples of a series stand in two columns; the windows of successive steps slide over them with
//! two indices. A window is left-open: `(t - range, t]`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::QueryError;

use super::ast::Edges;
use super::block::{ABSENT, is_absent};
use super::budget::Meter;
use super::leaf::{Buffers, View};
use super::math;
use super::rate::{self, Change, Window};
use super::spans::{self, Extremes};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Changes,
    Resets,
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Last,
    First,
    Present,
    Stddev,
    Stdvar,
    Mad,
    TsOfFirst,
    TsOfLast,
    TsOfMin,
    TsOfMax,
    Quantile,
    Deriv,
    PredictLinear,
    DoubleExponentialSmoothing,
    Integral,
}

impl Op {
    /// `absent_over_time` is the caller's business.
    pub(super) fn from_function(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => Self::Rate,
            "increase" => Self::Increase,
            "delta" => Self::Delta,
            "irate" => Self::Irate,
            "idelta" => Self::Idelta,
            "changes" => Self::Changes,
            "resets" => Self::Resets,
            "sum_over_time" => Self::Sum,
            "avg_over_time" => Self::Avg,
            "count_over_time" => Self::Count,
            "min_over_time" => Self::Min,
            "max_over_time" => Self::Max,
            "last_over_time" => Self::Last,
            "first_over_time" => Self::First,
            "present_over_time" | "absent_over_time" => Self::Present,
            "stddev_over_time" => Self::Stddev,
            "stdvar_over_time" => Self::Stdvar,
            "mad_over_time" => Self::Mad,
            "ts_of_first_over_time" => Self::TsOfFirst,
            "ts_of_last_over_time" => Self::TsOfLast,
            "ts_of_min_over_time" => Self::TsOfMin,
            "ts_of_max_over_time" => Self::TsOfMax,
            "quantile_over_time" => Self::Quantile,
            "deriv" => Self::Deriv,
            "predict_linear" => Self::PredictLinear,
            "double_exponential_smoothing" => Self::DoubleExponentialSmoothing,
            "integral" => Self::Integral,
            _ => return None,
        })
    }

    /// Whether the result is still what the metric's name says.
    pub(super) fn keeps_name(self) -> bool {
        matches!(self, Self::Last | Self::First)
    }
}

/// A function and its other arguments, each with a value per step.
#[derive(Debug)]
pub(super) struct RangeFn {
    pub(super) op: Op,
    pub(super) params: Vec<Vec<f64>>,
    /// Steps at which there was a window, for annotations; of `quantile_over_time` only.
    pub(super) seen: Vec<AtomicBool>,
}

/// Buffers for windows.
#[derive(Debug, Default)]
pub(super) struct Windows {
    scratch: Vec<f64>,
    positions: Vec<usize>,
    extremes: Extremes,
    ranges: Vec<std::ops::Range<usize>>,
}

/// How the integral of a step function is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Left,
    Right,
    Trapezoid,
}

impl RangeFn {
    pub(super) fn new(op: Op, params: Vec<Vec<f64>>, steps: usize) -> Self {
        let watched = if op == Op::Quantile { steps } else { 0 };
        Self {
            op,
            params,
            seen: (0..watched).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    fn param(&self, index: usize, step: usize) -> f64 {
        self.params[index][step]
    }

    /// Computes the row of a series whose samples are in the buffers. Where these are deltas, what a
    /// counter grows by is their sum.
    pub(super) fn run(
        &self,
        view: &View,
        deltas: bool,
        buffers: &mut Buffers,
        row: &mut [f64],
        meter: &mut Meter<'_>,
    ) -> Result<(), QueryError> {
        let Buffers { columns, windows } = buffers;
        let slide = Slide {
            view,
            times: &columns.timestamps,
            values: &columns.values,
        };
        let Windows {
            scratch,
            positions,
            extremes,
            ranges,
        } = windows;
        match self.op {
            Op::Rate if deltas => slide.each(row, meter, |_, w| Ok(rate::of_deltas(&w, true))),
            Op::Increase if deltas => slide.each(row, meter, |_, w| Ok(rate::of_deltas(&w, false))),
            Op::Irate if deltas => slide.each(row, meter, |_, w| Ok(rate::of_last_delta(&w))),
            Op::Rate => slide.change(row, meter, positions, true, true),
            Op::Increase => slide.change(row, meter, positions, true, false),
            Op::Delta => slide.change(row, meter, positions, false, false),
            Op::Irate => slide.each(row, meter, |_, w| Ok(rate::instant(&w, true))),
            Op::Idelta => slide.each(row, meter, |_, w| Ok(rate::instant(&w, false))),
            Op::Changes => slide.pairs(row, meter, |a, b| a != b && !(a.is_nan() && b.is_nan())),
            Op::Resets => slide.pairs(row, meter, |a, b| b < a),
            Op::Sum => slide.sums(row, meter, ranges, spans::sums),
            Op::Avg => slide.sums(row, meter, ranges, spans::means),
            Op::Count => slide.slid(row, meter, |_, window| window.len() as f64),
            Op::Min => {
                extremes.clear();
                slide.slid(row, meter, |all, window| {
                    extremes.of(all, window, |a, b| a < b)
                })
            }
            Op::Max => {
                extremes.clear();
                slide.slid(row, meter, |all, window| {
                    extremes.of(all, window, |a, b| a > b)
                })
            }
            Op::TsOfMin => slide.times(row, meter, |v| extreme(v, |a, b| a <= b).0),
            Op::TsOfMax => slide.times(row, meter, |v| extreme(v, |a, b| a >= b).0),
            Op::TsOfFirst => slide.times(row, meter, |_| 0),
            Op::TsOfLast => slide.times(row, meter, |v| v.len() - 1),
            Op::Last => slide.values(row, meter, |_, v| v[v.len() - 1]),
            Op::First => slide.values(row, meter, |_, v| v[0]),
            Op::Present => slide.values(row, meter, |_, _| 1.0),
            Op::Stddev => slide.values(row, meter, |_, v| math::variance(v).sqrt()),
            Op::Stdvar => slide.values(row, meter, |_, v| math::variance(v)),
            Op::Mad => slide.values(row, meter, |_, v| {
                scratch.clear();
                scratch.extend_from_slice(v);
                math::median_absolute_deviation(scratch)
            }),
            Op::Quantile => slide.values(row, meter, |step, v| {
                scratch.clear();
                scratch.extend_from_slice(v);
                self.seen[step].store(true, Ordering::Relaxed);
                math::quantile(self.param(0, step), scratch)
            }),
            Op::Deriv => slide.each(row, meter, |_, w| {
                Ok((w.values.len() > 1)
                    .then(|| math::linear_regression(w.times, w.values, w.times[0]).0))
            }),
            Op::PredictLinear => slide.each(row, meter, |step, w| {
                Ok((w.values.len() > 1).then(|| {
                    let now = view.grid.time(step);
                    let (slope, here) = math::linear_regression(w.times, w.values, now);
                    slope * self.param(0, step) + here
                }))
            }),
            Op::DoubleExponentialSmoothing => slide.each(row, meter, |step, w| {
                smooth(w.values, self.param(0, step), self.param(1, step))
            }),
            Op::Integral => slide.each(row, meter, |step, w| {
                let rule = match self.params.first() {
                    None => Rule::Trapezoid,
                    Some(param) => rule(param[step])?,
                };
                Ok(integral(&w, rule))
            }),
        }
    }
}

struct Slide<'s> {
    view: &'s View,
    times: &'s [i64],
    values: &'s [f64],
}

impl<'s> Slide<'s> {
    /// Calls `f` with the positions of each step's window that has a sample. With `anchored` and
    /// `smoothed`, windows reach further than their edges.
    fn bounds(
        &self,
        row: &mut [f64],
        meter: &mut Meter<'_>,
        mut f: impl FnMut(usize, std::ops::Range<usize>, i64, i64) -> Result<Option<f64>, QueryError>,
    ) -> Result<(), QueryError> {
        let view = self.view;
        let (before, after) = match view.edges {
            Edges::Plain => (0, 0),
            Edges::Anchored => (view.lookback, 0),
            Edges::Smoothed => (view.lookback, view.lookback),
        };
        let (mut low, mut high) = (0, 0);
        for (step, out) in row.iter_mut().enumerate() {
            let end = view.moment(step);
            let begin = end.saturating_sub(view.range);
            let (from, to) = (begin.saturating_sub(before), end.saturating_add(after));
            high = spans::behind(self.times, high, to);
            low = spans::behind(&self.times[..high], low, from);
            *out = ABSENT;
            if low < high {
                meter.add(high - low)?;
                if let Some(value) = f(step, low..high, begin, end)? {
                    *out = value;
                }
            }
        }
        Ok(())
    }

    fn each(
        &self,
        row: &mut [f64],
        meter: &mut Meter<'_>,
        mut f: impl FnMut(usize, Window<'s>) -> Result<Option<f64>, QueryError>,
    ) -> Result<(), QueryError> {
        self.bounds(row, meter, |step, range, begin, end| {
            let window = Window {
                times: &self.times[range.clone()],
                values: &self.values[range],
                begin,
                end,
            };
            f(step, window)
        })
    }

    fn values(
        &self,
        row: &mut [f64],
        meter: &mut Meter<'_>,
        mut f: impl FnMut(usize, &[f64]) -> f64,
    ) -> Result<(), QueryError> {
        self.each(row, meter, |step, w| Ok(Some(f(step, w.values))))
    }

    /// Calls `f` with several windows at once, empty ones among them where there are not so many.
    fn sums(
        &self,
        row: &mut [f64],
        meter: &mut Meter<'_>,
        ranges: &mut Vec<std::ops::Range<usize>>,
        f: impl Fn([&[f64]; spans::AT_ONCE]) -> [f64; spans::AT_ONCE],
    ) -> Result<(), QueryError> {
        ranges.clear();
        self.bounds(row, meter, |_, range, _, _| {
            ranges.push(range);
            Ok(Some(0.0))
        })?;
        let mut places = row.iter_mut().filter(|value| !is_absent(**value));
        for some in ranges.chunks(spans::AT_ONCE) {
            let windows = std::array::from_fn(|at| match some.get(at) {
                Some(range) => &self.values[range.clone()],
                None => &[],
            });
            for (place, sum) in places.by_ref().take(some.len()).zip(f(windows)) {
                *place = sum;
            }
        }
        Ok(())
    }

    /// Calls `f` with all values and each window's positions.
    fn slid(
        &self,
        row: &mut [f64],
        meter: &mut Meter<'_>,
        mut f: impl FnMut(&[f64], std::ops::Range<usize>) -> f64,
    ) -> Result<(), QueryError> {
        self.bounds(row, meter, |_, range, _, _| Ok(Some(f(self.values, range))))
    }

    /// The time, in seconds, of the sample that `pick` points at.
    fn times(
        &self,
        row: &mut [f64],
        meter: &mut Meter<'_>,
        pick: impl Fn(&[f64]) -> usize,
    ) -> Result<(), QueryError> {
        self.each(row, meter, |_, w| {
            Ok(Some(w.times[pick(w.values)] as f64 / 1000.0))
        })
    }

    /// Counts successive pairs of which `f` holds.
    fn pairs(
        &self,
        row: &mut [f64],
        meter: &mut Meter<'_>,
        f: impl Fn(f64, f64) -> bool,
    ) -> Result<(), QueryError> {
        let anchored = self.view.edges == Edges::Anchored;
        self.each(row, meter, |_, w| {
            let from = match anchored {
                true => rate::anchored_from(&w),
                false => Some(0),
            };
            Ok(from.map(|from| {
                let pairs = w.values[from..].windows(2);
                pairs.filter(|pair| f(pair[0], pair[1])).count() as f64
            }))
        })
    }

    fn change(
        &self,
        row: &mut [f64],
        meter: &mut Meter<'_>,
        positions: &mut Vec<usize>,
        counter: bool,
        per_second: bool,
    ) -> Result<(), QueryError> {
        let change = Change {
            counter,
            per_second,
        };
        if self.view.edges != Edges::Plain {
            return self.each(row, meter, |_, w| {
                Ok(rate::extended(&w, self.view.edges, change))
            });
        }
        // Resets are rare: found once, then only those inside a window are added up, in order, as
        // a scan of the window would.
        positions.clear();
        if counter {
            rate::reset_positions(self.values, positions);
        }
        let (mut first, mut last) = (0, 0);
        self.bounds(row, meter, |_, range, begin, end| {
            while last < positions.len() && positions[last] < range.end {
                last += 1;
            }
            while first < last && positions[first] <= range.start {
                first += 1;
            }
            let window = Window {
                times: &self.times[range.clone()],
                values: &self.values[range],
                begin,
                end,
            };
            let lost = positions[first..last].iter().map(|i| self.values[i - 1]);
            Ok(rate::extrapolated(&window, change, lost))
        })
    }
}

/// Position and value of the extreme; NaN gives way to any number.
fn extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> (usize, f64) {
    let mut best = (0, values[0]);
    for (index, value) in values.iter().enumerate() {
        if better(*value, best.1) || best.1.is_nan() {
            best = (index, *value);
        }
    }
    best
}

fn smooth(values: &[f64], level: f64, trend: f64) -> Result<Option<f64>, QueryError> {
    for (name, factor) in [("smoothing", level), ("trend", trend)] {
        if factor <= 0.0 || factor >= 1.0 {
            let sign = match name {
                "smoothing" => "sf",
                _ => "tf",
            };
            return Err(QueryError::Execution(format!(
                "invalid {name} factor. Expected: 0 < {sign} < 1, got: {factor:.6}"
            )));
        }
    }
    let [first, second, ..] = values else {
        return Ok(None);
    };
    let (mut before, mut now, mut slope) = (0.0, *first, second - first);
    for (index, value) in values.iter().enumerate().skip(1) {
        if index > 1 {
            slope = trend * (now - before) + (1.0 - trend) * slope;
        }
        let next = level * value + (1.0 - level) * (now + slope);
        (before, now) = (now, next);
    }
    Ok(Some(now))
}

fn rule(strategy: f64) -> Result<Rule, QueryError> {
    match strategy {
        0.0 => Ok(Rule::Left),
        1.0 => Ok(Rule::Right),
        2.0 => Ok(Rule::Trapezoid),
        _ => Err(QueryError::Execution(format!(
            "invalid integral strategy. Expected: 0 (left), 1 (right) or 2 (trapezoid), got: {strategy}"
        ))),
    }
}

/// The area under the samples, in value times seconds.
fn integral(window: &Window<'_>, rule: Rule) -> Option<f64> {
    if window.values.len() < 2 {
        return None;
    }
    let (mut sum, mut compensation) = (0.0, 0.0);
    for (times, values) in window.times.windows(2).zip(window.values.windows(2)) {
        let seconds = (times[1] - times[0]) as f64 / 1000.0;
        let height = match rule {
            Rule::Left => values[0],
            Rule::Right => values[1],
            Rule::Trapezoid => (values[0] + values[1]) / 2.0,
        };
        (sum, compensation) = math::kahan_add(height * seconds, sum, compensation);
    }
    Some(sum + compensation)
}
