//! Binary operators, by definition.

use std::collections::{BTreeMap, BTreeSet};

use crate::eval::{Fault, Labels, Value, Vector, nameless, unique};
use crate::expr::{COMPARISONS, Matching, SETS};

pub const UNIQUE_MATCHES: &str = "grouping labels must ensure unique matches";

/// The value of `left op right`.
pub fn of(
    op: &str,
    returns_bool: bool,
    matching: Option<&Matching>,
    left: Value,
    right: Value,
) -> Result<Value, Fault> {
    let everything = Matching {
        on: false,
        labels: Vec::new(),
        group: None,
    };
    let matching = matching.unwrap_or(&everything);
    Ok(match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            let (value, holds) = apply(op, left, right);
            Value::Scalar(if COMPARISONS.contains(&op) {
                f64::from(holds)
            } else {
                value
            })
        }
        (Value::Vector(left), Value::Scalar(right)) => {
            Value::Vector(with_scalar(op, returns_bool, left, |v| (v, right))?)
        }
        (Value::Scalar(left), Value::Vector(right)) => {
            Value::Vector(with_scalar(op, returns_bool, right, |v| (left, v))?)
        }
        (Value::Vector(left), Value::Vector(right)) if SETS.contains(&op) => {
            Value::Vector(set(op, matching, left, right))
        }
        (Value::Vector(left), Value::Vector(right)) => {
            Value::Vector(matched(op, returns_bool, matching, left, right)?)
        }
        other => panic!("{op} of {other:?}"),
    })
}

/// The result, and whether a comparison holds.
fn apply(op: &str, a: f64, b: f64) -> (f64, bool) {
    match op {
        "+" => (a + b, true),
        "-" => (a - b, true),
        "*" => (a * b, true),
        "/" => (a / b, true),
        "%" => (a % b, true),
        "^" => (a.powf(b), true),
        "atan2" => (a.atan2(b), true),
        "==" => (a, a == b),
        "!=" => (a, a != b),
        "<" => (a, a < b),
        "<=" => (a, a <= b),
        ">" => (a, a > b),
        ">=" => (a, a >= b),
        other => panic!("operator {other}"),
    }
}

fn with_scalar(
    op: &str,
    returns_bool: bool,
    vector: Vector,
    sides: impl Fn(f64) -> (f64, f64),
) -> Result<Vector, Fault> {
    let compares = COMPARISONS.contains(&op);
    let results = vector.into_iter().filter_map(|(labels, value)| {
        let (a, b) = sides(value);
        let (result, holds) = apply(op, a, b);
        match (compares, returns_bool) {
            (false, _) => Some((nameless(labels), result)),
            (true, true) => Some((nameless(labels), f64::from(holds))),
            // The vector's value is kept, on whichever side it stands.
            (true, false) => holds.then_some((labels, value)),
        }
    });
    unique(results.collect())
}

fn signature(matching: &Matching, labels: &Labels) -> Labels {
    let mut signature = labels.clone();
    let listed = |label: &String| matching.labels.contains(&label.as_str());
    if matching.on {
        signature.retain(|label, _| listed(label));
    } else {
        signature = nameless(signature);
        signature.retain(|label, _| !listed(label));
    }
    signature
}

fn set(op: &str, matching: &Matching, left: Vector, right: Vector) -> Vector {
    let signatures = |vector: &Vector| -> BTreeSet<Labels> {
        vector.iter().map(|(l, _)| signature(matching, l)).collect()
    };
    let (in_left, in_right) = (signatures(&left), signatures(&right));
    let meets = |labels: &Labels| in_right.contains(&signature(matching, labels));
    match op {
        "and" => left.into_iter().filter(|(l, _)| meets(l)).collect(),
        "unless" => left.into_iter().filter(|(l, _)| !meets(l)).collect(),
        "or" => {
            let new = |(l, _): &(Labels, f64)| !in_left.contains(&signature(matching, l));
            left.into_iter()
                .chain(right.into_iter().filter(new))
                .collect()
        }
        other => panic!("set operator {other}"),
    }
}

fn matched(
    op: &str,
    returns_bool: bool,
    matching: &Matching,
    left: Vector,
    right: Vector,
) -> Result<Vector, Fault> {
    if left.is_empty() || right.is_empty() {
        return Ok(Vec::new());
    }
    let one_is_left = matching.group.as_ref().is_some_and(|group| !group.left);
    let (many, one) = if one_is_left {
        (right, left)
    } else {
        (left, right)
    };
    let mut ones: BTreeMap<Labels, (Labels, f64)> = BTreeMap::new();
    for (labels, value) in one {
        let previous = ones.insert(signature(matching, &labels), (labels, value));
        if previous.is_some() {
            return Err(Fault("found duplicate series for the match group"));
        }
    }
    let mut met: BTreeMap<Labels, BTreeSet<Labels>> = BTreeMap::new();
    let mut results = Vector::new();
    for (labels, value) in many {
        let signature = signature(matching, &labels);
        let Some((one_labels, one_value)) = ones.get(&signature) else {
            continue;
        };
        let (a, b) = if one_is_left {
            (*one_value, value)
        } else {
            (value, *one_value)
        };
        let (mut result, holds) = apply(op, a, b);
        // Whether they may meet does not depend on whether the comparison then holds.
        let labels = result_labels(op, returns_bool, matching, labels, one_labels);
        let first = !met.contains_key(&signature);
        let new = met.entry(signature).or_default().insert(labels.clone());
        if matching.group.is_none() && !first {
            return Err(Fault("many-to-one matching must be explicit"));
        }
        if !new {
            return Err(Fault(UNIQUE_MATCHES));
        }
        if returns_bool {
            result = f64::from(holds);
        } else if !holds {
            continue;
        }
        results.push((labels, result));
    }
    unique(results)
}

fn result_labels(
    op: &str,
    returns_bool: bool,
    matching: &Matching,
    many: Labels,
    one: &Labels,
) -> Labels {
    let mut labels = many;
    if returns_bool || !COMPARISONS.contains(&op) {
        labels = nameless(labels);
    }
    match &matching.group {
        None => {
            let listed = |label: &String| matching.labels.contains(&label.as_str());
            labels.retain(|label, _| listed(label) == matching.on);
        }
        Some(group) => {
            for label in &group.include {
                labels.remove(*label);
                if let Some(value) = one.get(*label) {
                    labels.insert((*label).to_owned(), value.clone());
                }
            }
        }
    }
    labels
}
