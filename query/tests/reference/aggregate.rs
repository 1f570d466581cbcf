//! Aggregations, by definition.

use std::collections::BTreeMap;

use crate::eval::{Fault, Labels, Value, Vector, nameless};
use crate::functions::{Compensated, mean, quantile};

/// One group after the other, in order of their first members; within a group in the vector's order.
pub fn of(
    op: &str,
    grouping: Option<&(bool, Vec<&'static str>)>,
    param: Option<Value>,
    vector: Vector,
) -> Result<Vector, Fault> {
    let mut groups: Vec<(Labels, Vector)> = Vec::new();
    let mut places: BTreeMap<Labels, usize> = BTreeMap::new();
    for (labels, value) in vector {
        let mut key = key_of(grouping, &labels);
        if let (Some(Value::Text(label)), "count_values") = (&param, op) {
            key.insert(label.clone(), formatted(value));
        }
        let place = *places.entry(key.clone()).or_insert(groups.len());
        if place == groups.len() {
            groups.push((key, Vector::new()));
        }
        groups[place].1.push((labels, value));
    }
    if let "topk" | "bottomk" = op {
        return best(op == "topk", &param, groups);
    }
    let q = match param {
        Some(Value::Scalar(q)) => q,
        _ => f64::NAN,
    };
    let results = groups.into_iter().map(|(key, members)| {
        let values: Vec<f64> = members.into_iter().map(|(_, v)| v).collect();
        (key, one(op, q, &values))
    });
    Ok(results.collect())
}

fn key_of(grouping: Option<&(bool, Vec<&'static str>)>, labels: &Labels) -> Labels {
    let mut key = labels.clone();
    match grouping {
        None => key.clear(),
        Some((false, by)) => key.retain(|label, _| by.contains(&label.as_str())),
        Some((true, without)) => {
            key = nameless(key);
            key.retain(|label, _| !without.contains(&label.as_str()));
        }
    }
    key
}

fn one(op: &str, q: f64, values: &[f64]) -> f64 {
    match op {
        "sum" => {
            let mut sum = Compensated {
                sum: values[0],
                lost: 0.0,
            };
            values[1..].iter().for_each(|v| sum.add(*v));
            sum.sum + sum.lost
        }
        "avg" => mean(values),
        "count" | "count_values" => values.len() as f64,
        "group" => 1.0,
        "min" => extreme(values, |new, old| new < old),
        "max" => extreme(values, |new, old| new > old),
        "quantile" => quantile(q, values.to_vec()),
        "stdvar" => variance(values),
        "stddev" => variance(values).sqrt(),
        other => panic!("aggregation {other}"),
    }
}

fn extreme(values: &[f64], better: fn(f64, f64) -> bool) -> f64 {
    let mut best = values[0];
    for value in &values[1..] {
        if better(*value, best) || best.is_nan() {
            best = *value;
        }
    }
    best
}

/// The mean of the squared distances from the mean.
fn variance(values: &[f64]) -> f64 {
    if !values[0].is_finite() {
        return f64::NAN;
    }
    let mut mean = values[0];
    let mut squares = 0.0;
    for (i, value) in values.iter().enumerate().skip(1) {
        let delta = value - mean;
        mean += delta / (i + 1) as f64;
        squares += delta * (value - mean);
    }
    squares / values.len() as f64
}

/// The `k` greatest or least of each group; NaN is worse than everything.
fn best(
    greatest: bool,
    param: &Option<Value>,
    groups: Vec<(Labels, Vector)>,
) -> Result<Vector, Fault> {
    let Some(Value::Scalar(k)) = param else {
        panic!("no number of elements: {param:?}");
    };
    if k.is_nan() && !groups.is_empty() {
        return Err(Fault("Parameter value is NaN"));
    }
    let k = if *k < 1.0 { 0 } else { *k as usize };
    let mut kept = Vector::new();
    for (_, mut members) in groups {
        members.sort_by(|(_, a), (_, b)| match (a.is_nan(), b.is_nan()) {
            (true, true) => std::cmp::Ordering::Equal,
            (true, false) => std::cmp::Ordering::Greater,
            (false, true) => std::cmp::Ordering::Less,
            (false, false) if greatest => b.partial_cmp(a).unwrap(),
            (false, false) => a.partial_cmp(b).unwrap(),
        });
        members.truncate(k);
        kept.append(&mut members);
    }
    Ok(kept)
}

/// A value as a label, in Go's notation.
fn formatted(value: f64) -> String {
    if value.is_infinite() {
        let sign = if value > 0.0 { "+" } else { "-" };
        return format!("{sign}Inf");
    }
    format!("{value}")
}
