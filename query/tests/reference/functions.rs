//! Functions, by definition.

use regex::Regex;

use crate::eval::{Fault, Labels, Value, Vector, Window, nameless, unique};
use crate::expr::{Expr, Selector};

/// The value of a function. `args` are the expressions, `values` what they are at the moment `t`.
pub fn call(name: &str, args: &[Expr], values: Vec<Value>, t: i64) -> Result<Value, Fault> {
    let mut values = values.into_iter();
    let mut next = || values.next();
    Ok(match name {
        "time" => Value::Scalar(t as f64 / 1000.0),
        "pi" => Value::Scalar(std::f64::consts::PI),
        "vector" => Value::Vector(vec![(Labels::new(), scalar(next()))]),
        "scalar" => match vector(next()).as_slice() {
            [(_, value)] => Value::Scalar(*value),
            _ => Value::Scalar(f64::NAN),
        },
        "absent" => Value::Vector(match vector(next()).is_empty() {
            true => vec![(labels_of_absent(&args[0]), 1.0)],
            false => Vec::new(),
        }),
        "absent_over_time" => Value::Vector(match window(next()).series.is_empty() {
            true => vec![(labels_of_absent(&args[0]), 1.0)],
            false => Vec::new(),
        }),
        "label_replace" => {
            let vector = vector(next());
            let mut texts = [text(next()), text(next()), text(next()), text(next())].into_iter();
            let mut text = || texts.next().unwrap();
            label_replace(vector, &text(), &text(), &text(), &text())?
        }
        "sort" | "sort_desc" => Value::Vector(vector(next())),
        "quantile_over_time" => {
            let q = scalar(next());
            over_time(window(next()), false, |samples, _| {
                Some(quantile(q, values_of(samples)))
            })?
        }
        "predict_linear" => {
            let window = window(next());
            let after = scalar(next());
            over_time(window, false, |samples, _| {
                let (slope, intercept) = regression(samples, t)?;
                Some(slope * after + intercept)
            })?
        }
        "clamp" => clamp(vector(next()), scalar(next()), scalar(next()))?,
        "clamp_min" => clamp(vector(next()), scalar(next()), f64::INFINITY)?,
        "clamp_max" => clamp(vector(next()), f64::NEG_INFINITY, scalar(next()))?,
        "round" => {
            let vector = vector(next());
            let nearest = next().map_or(1.0, |value| scalar(Some(value)));
            let inverse = 1.0 / nearest;
            map(vector, |v| (v * inverse + 0.5).floor() / inverse)?
        }
        "timestamp" => map(vector(next()), |_| t as f64 / 1000.0)?,
        "abs" => map(vector(next()), f64::abs)?,
        "ceil" => map(vector(next()), f64::ceil)?,
        "floor" => map(vector(next()), f64::floor)?,
        "sqrt" => map(vector(next()), f64::sqrt)?,
        "ln" => map(vector(next()), f64::ln)?,
        "exp" => map(vector(next()), f64::exp)?,
        "sgn" => map(vector(next()), |v| match v {
            v if v < 0.0 => -1.0,
            v if v > 0.0 => 1.0,
            v => v,
        })?,
        "last_over_time" | "first_over_time" => {
            let last = name == "last_over_time";
            over_time(window(next()), true, |samples, _| {
                let sample = if last {
                    samples.last()
                } else {
                    samples.first()
                };
                sample.map(|(_, v)| *v)
            })?
        }
        _ => {
            let of = range_function(name);
            over_time(window(next()), false, of)?
        }
    })
}

fn scalar(value: Option<Value>) -> f64 {
    match value {
        Some(Value::Scalar(value)) => value,
        other => panic!("no scalar: {other:?}"),
    }
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::Text(text)) => text,
        other => panic!("no string: {other:?}"),
    }
}

fn vector(value: Option<Value>) -> Vector {
    match value {
        Some(Value::Vector(vector)) => vector,
        other => panic!("no vector: {other:?}"),
    }
}

fn window(value: Option<Value>) -> Window {
    match value {
        Some(Value::Window(window)) => window,
        other => panic!("no range vector: {other:?}"),
    }
}

fn map(vector: Vector, f: impl Fn(f64) -> f64) -> Result<Value, Fault> {
    let mapped = vector.into_iter().map(|(l, v)| (nameless(l), f(v)));
    Ok(Value::Vector(unique(mapped.collect())?))
}

/// Bounds that are the wrong way round leave nothing. NaN stays NaN.
fn clamp(vector: Vector, low: f64, high: f64) -> Result<Value, Fault> {
    if high < low {
        return Ok(Value::Vector(Vec::new()));
    }
    map(vector, |v| max(low, min(high, v)))
}

/// NaN if one of them is; `-0` is less than `0`.
fn min(a: f64, b: f64) -> f64 {
    if a.is_infinite() && a < 0.0 || b.is_infinite() && b < 0.0 {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { a } else { b }
    } else if a < b {
        a
    } else {
        b
    }
}

fn max(a: f64, b: f64) -> f64 {
    -min(-a, -b)
}

type Samples<'a> = &'a [(i64, f64)];

/// The start and end of the range.
type Bounds = (i64, i64);

fn over_time(
    window: Window,
    keeps_name: bool,
    f: impl Fn(Samples<'_>, Bounds) -> Option<f64>,
) -> Result<Value, Fault> {
    let bounds = (window.start, window.end);
    let results = window.series.into_iter().filter_map(|(labels, samples)| {
        let labels = if keeps_name { labels } else { nameless(labels) };
        f(&samples, bounds).map(|value| (labels, value))
    });
    Ok(Value::Vector(unique(results.collect())?))
}

fn range_function(name: &str) -> fn(Samples<'_>, Bounds) -> Option<f64> {
    match name {
        "rate" => |s, b| extrapolated(s, b, true, true),
        "increase" => |s, b| extrapolated(s, b, true, false),
        "delta" => |s, b| extrapolated(s, b, false, false),
        "irate" => |s, _| last_two(s, true),
        "idelta" => |s, _| last_two(s, false),
        "deriv" => |s, _| regression(s, s[0].0).map(|(slope, _)| slope),
        "changes" => |s, _| {
            let same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
            Some(s.windows(2).filter(|w| !same(w[0].1, w[1].1)).count() as f64)
        },
        "resets" => |s, _| Some(s.windows(2).filter(|w| w[1].1 < w[0].1).count() as f64),
        "count_over_time" => |s, _| Some(s.len() as f64),
        "present_over_time" => |_, _| Some(1.0),
        "sum_over_time" => |s, _| Some(sum(values_of(s))),
        "avg_over_time" => |s, _| Some(mean(&values_of(s))),
        "min_over_time" => |s, _| Some(extreme(s, |new, old| new < old)),
        "max_over_time" => |s, _| Some(extreme(s, |new, old| new > old)),
        "stdvar_over_time" => |s, _| Some(variance(s)),
        "stddev_over_time" => |s, _| Some(variance(s).sqrt()),
        "mad_over_time" => |s, _| {
            let median = quantile(0.5, values_of(s));
            Some(quantile(
                0.5,
                s.iter().map(|(_, v)| (v - median).abs()).collect(),
            ))
        },
        other => panic!("function {other}"),
    }
}

fn values_of(samples: Samples<'_>) -> Vec<f64> {
    samples.iter().map(|(_, v)| *v).collect()
}

/// The growth over the whole range, or per second of it, guessed from the samples in it: as far as
/// half a distance between samples beyond the first and last, or up to the ends if they are near,
/// and never back beyond the point where a counter would have been zero.
fn extrapolated(
    samples: Samples<'_>,
    (start, end): Bounds,
    counter: bool,
    per_second: bool,
) -> Option<f64> {
    let (first, last) = (samples.first()?, samples.last()?);
    if samples.len() < 2 {
        return None;
    }
    let mut growth = last.1 - first.1;
    if counter {
        for pair in samples.windows(2) {
            if pair[1].1 < pair[0].1 {
                growth += pair[0].1;
            }
        }
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let sampled = seconds(last.0 - first.0);
    let between = sampled / (samples.len() - 1) as f64;
    let near = between * 1.1;
    let mut before = seconds(first.0 - start);
    if before >= near {
        before = between / 2.0;
    }
    if counter && growth > 0.0 && first.1 >= 0.0 {
        let to_zero = sampled * (first.1 / growth);
        if to_zero < before {
            before = to_zero;
        }
    }
    let mut after = seconds(end - last.0);
    if after >= near {
        after = between / 2.0;
    }
    let mut factor = (sampled + before + after) / sampled;
    if per_second {
        factor /= seconds(end - start);
    }
    Some(growth * factor)
}

fn last_two(samples: Samples<'_>, counter: bool) -> Option<f64> {
    let [.., old, new] = samples else {
        return None;
    };
    if !counter {
        return Some(new.1 - old.1);
    }
    let growth = if new.1 < old.1 { new.1 } else { new.1 - old.1 };
    Some(growth / ((new.0 - old.0) as f64 / 1000.0))
}

fn extreme(samples: Samples<'_>, better: fn(f64, f64) -> bool) -> f64 {
    let mut best = samples[0].1;
    for (_, value) in samples {
        if better(*value, best) || best.is_nan() {
            best = *value;
        }
    }
    best
}

/// Neumaier's sum: the running sum, and what rounding has taken from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compensated {
    pub sum: f64,
    pub lost: f64,
}

impl Compensated {
    pub fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        if sum.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - sum) + value;
        } else {
            self.lost += (value - sum) + self.sum;
        }
        self.sum = sum;
    }

    pub fn total(self) -> f64 {
        if self.sum.is_infinite() {
            self.sum
        } else {
            self.sum + self.lost
        }
    }
}

pub fn sum(values: Vec<f64>) -> f64 {
    let mut sum = Compensated::default();
    values.into_iter().for_each(|value| sum.add(value));
    sum.total()
}

/// The sum by the count; from the value on with which the sum would overflow, a running mean.
pub fn mean(values: &[f64]) -> f64 {
    let mut sum = Compensated {
        sum: values[0],
        lost: 0.0,
    };
    let mut running = false;
    let mut count = 1.0;
    for value in &values[1..] {
        count += 1.0;
        if !running {
            let mut next = sum;
            next.add(*value);
            if !next.sum.is_infinite() {
                sum = next;
                continue;
            }
            running = true;
            sum.sum /= count - 1.0;
            sum.lost /= count - 1.0;
        }
        let share = (count - 1.0) / count;
        sum.sum *= share;
        sum.lost *= share;
        sum.add(value / count);
    }
    if running {
        sum.sum + sum.lost
    } else {
        sum.sum / count + sum.lost / count
    }
}

/// Welford's, with compensated sums.
fn variance(samples: Samples<'_>) -> f64 {
    let mut count = 0.0;
    let mut mean = Compensated::default();
    let mut squares = Compensated::default();
    for (_, value) in samples {
        count += 1.0;
        let delta = value - (mean.sum + mean.lost);
        mean.add(delta / count);
        squares.add(delta * (value - (mean.sum + mean.lost)));
    }
    (squares.sum + squares.lost) / count
}

/// NaN counts as less than everything.
pub fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.partial_cmp(b).unwrap(),
    });
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = rank.floor().max(0.0) as usize;
    let upper = last.min(lower + 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// Slope per second, and the line's value at `at`, by least squares with compensated sums.
fn regression(samples: Samples<'_>, at: i64) -> Option<(f64, f64)> {
    if samples.len() < 2 {
        return None;
    }
    let first = samples[0].1;
    // The loop that this defines looks at each value after the first; NaN differs from all.
    if samples[1..].iter().all(|(_, v)| *v == first) {
        if first.is_infinite() {
            return Some((f64::NAN, f64::NAN));
        }
        return Some((0.0, first));
    }
    let n = samples.len() as f64;
    let [mut x, mut y, mut xy, mut xx] = [Compensated::default(); 4];
    for (t, value) in samples {
        let seconds = (t - at) as f64 / 1e3;
        x.add(seconds);
        y.add(*value);
        xy.add(seconds * value);
        xx.add(seconds * seconds);
    }
    let total = |c: Compensated| c.sum + c.lost;
    let (x, y, xy, xx) = (total(x), total(y), total(xy), total(xx));
    let slope = (xy - x * y / n) / (xx - x * x / n);
    Some((slope, y / n - slope * x / n))
}

/// What is certain of a series that is not there: its labels tested for equality, each once.
fn labels_of_absent(arg: &Expr) -> Labels {
    let (Expr::Selector(Selector { tests, .. }) | Expr::Range(Selector { tests, .. }, _)) = arg
    else {
        return Labels::new();
    };
    let mut labels = Labels::new();
    let mut seen = Vec::new();
    for (label, op, value) in tests {
        if *op == "=" && !seen.contains(label) {
            seen.push(*label);
            labels.insert((*label).to_owned(), (*value).to_owned());
        } else {
            labels.remove(*label);
        }
    }
    labels.retain(|_, value| !value.is_empty());
    labels
}

fn label_replace(
    vector: Vector,
    target: &str,
    replacement: &str,
    source: &str,
    pattern: &str,
) -> Result<Value, Fault> {
    let regex = Regex::new(&format!("^(?s:{pattern})$")).unwrap();
    let replaced = vector.into_iter().map(|(mut labels, value)| {
        let text = labels.get(source).cloned().unwrap_or_default();
        if let Some(found) = regex.captures(&text) {
            let mut new = String::new();
            found.expand(replacement, &mut new);
            labels.remove(target);
            if !new.is_empty() {
                labels.insert(target.to_owned(), new);
            }
        }
        (labels, value)
    });
    Ok(Value::Vector(unique(replaced.collect())?))
}
