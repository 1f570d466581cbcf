//! Asks both, and compares.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_model::{TenantId, TimestampMs};
use millrace_query::{CancelFlag, QueryError, QueryOutcome, QueryRequest, QueryTime, QueryValue};

use crate::eval::{Context, Data, Fault, Labels, SAME_LABELSET, Value};
use crate::expr::Expr;

/// An answer, in the order of its labels.
pub type Answer = BTreeMap<Labels, Vec<(i64, f64)>>;

/// Where and how an expression is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub time: QueryTime,
    pub lookback_ms: Option<i64>,
}

/// Of the engine under test.
pub const DEFAULT_LOOKBACK_MS: i64 = 300_000;
pub const DEFAULT_STEP_MS: i64 = 60_000;

impl Question {
    pub fn request(&self, expr: &Expr) -> QueryRequest {
        let lookback = self.lookback_ms.map(|ms| Duration::from_millis(ms as u64));
        QueryRequest {
            tenant: TenantId::anonymous(),
            text: expr.to_string(),
            time: self.time,
            lookback,
            timeout: None,
            cancel: CancelFlag::default(),
            partial: false,
            point: std::sync::Arc::default(),
        }
    }

    /// What the definition says.
    pub fn expected(&self, expr: &Expr, data: &Data) -> Result<Answer, Fault> {
        let (start, end, step) = match self.time {
            QueryTime::Instant(t) => (t.0, t.0, 1),
            QueryTime::Range {
                start,
                end,
                step_ms,
            } => (start.0, end.0, step_ms),
        };
        let context = Context {
            data,
            start,
            end,
            lookback_ms: self.lookback_ms.unwrap_or(DEFAULT_LOOKBACK_MS),
            default_step_ms: DEFAULT_STEP_MS,
        };
        context.probe(expr, start, start + (end - start) / step * step)?;
        let mut answer = Answer::new();
        let mut t = start;
        while t <= end {
            match context.eval(expr, t)? {
                Value::Scalar(value) => answer.entry(Labels::new()).or_default().push((t, value)),
                Value::Vector(vector) => {
                    for (labels, value) in vector {
                        let points = answer.entry(labels).or_default();
                        if points.last().is_some_and(|(last, _)| *last == t) {
                            return Err(SAME_LABELSET);
                        }
                        points.push((t, value));
                    }
                }
                Value::Window(window) => answer.extend(window.series),
                Value::Text(text) => panic!("the answer {text:?}"),
            }
            t += step;
        }
        Ok(answer)
    }
}

/// The engine's answer in the same form.
pub fn given(outcome: QueryOutcome) -> Answer {
    let plain = |labels: &millrace_model::Labels| -> Labels {
        labels
            .iter()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect()
    };
    let mut answer = Answer::new();
    let mut put = |labels: Labels, points: Vec<(i64, f64)>| {
        let before = answer.insert(labels, points);
        assert!(before.is_none(), "two series with the same labels");
    };
    match outcome.value {
        QueryValue::Scalar { timestamp, value } => put(Labels::new(), vec![(timestamp.0, value)]),
        QueryValue::String { value, .. } => panic!("the answer {value:?}"),
        QueryValue::Vector(samples) => {
            for sample in samples {
                put(
                    plain(&sample.labels),
                    vec![(sample.timestamp.0, sample.value)],
                );
            }
        }
        QueryValue::Matrix(series) => {
            for series in series {
                assert_eq!(series.timestamps.len(), series.values.len());
                let points = series.timestamps.into_iter().zip(series.values);
                put(plain(&series.labels), points.collect());
            }
        }
    }
    answer
}

/// Whether the vector stands in the order that the expression asks for, NaN last.
pub fn is_sorted(expr: &Expr, outcome: &QueryOutcome) -> bool {
    let (Expr::Call(name @ ("sort" | "sort_desc"), _), QueryValue::Vector(samples)) =
        (expr, &outcome.value)
    else {
        return true;
    };
    samples.is_sorted_by(|a, b| match *name {
        _ if b.value.is_nan() => true,
        "sort" => a.value <= b.value,
        _ => a.value >= b.value,
    })
}

/// How two answers differ, in words; `None` where they do not.
pub fn difference(
    expr: &Expr,
    expected: &Result<Answer, Fault>,
    given: &Result<Answer, QueryError>,
) -> Option<String> {
    let (expected, given) = match (expected, given) {
        (Err(_), Err(QueryError::Execution(_))) => return None,
        (Ok(expected), Ok(given)) => (expected, given),
        (expected, given) => {
            return Some(format!(
                "expected {}, given {}",
                short(expected),
                short(given)
            ));
        }
    };
    let tolerance = tolerance(expr);
    if let Expr::Aggregate {
        op: "topk" | "bottomk",
        ..
    } = expr
    {
        return ranked_difference(expected, given, tolerance);
    }
    for (labels, points) in expected {
        let Some(theirs) = given.get(labels) else {
            return Some(format!("{labels:?} is missing; expected {points:?}"));
        };
        let same = points.len() == theirs.len()
            && points
                .iter()
                .zip(theirs)
                .all(|(a, b)| a.0 == b.0 && agree(a.1, b.1, tolerance));
        if !same {
            return Some(format!(
                "{labels:?}:\n  expected {points:?}\n  given    {theirs:?}"
            ));
        }
    }
    let extra = given
        .keys()
        .find(|labels| !expected.contains_key(*labels))?;
    Some(format!("{extra:?} is too much: {:?}", given[extra]))
}

fn short<E: std::fmt::Display>(result: &Result<Answer, E>) -> String {
    let mut text = match result {
        Ok(answer) => format!("{answer:?}"),
        Err(error) => format!("the error {error}"),
    };
    if text.len() > 600 {
        let cut = (0..=600)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap();
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// Of equal values either may have been taken, so only the values at each moment are compared.
fn ranked_difference(expected: &Answer, given: &Answer, tolerance: Tolerance) -> Option<String> {
    let values = |answer: &Answer| {
        let mut values: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for (t, value) in answer.values().flatten() {
            // One NaN for all, so that they sort alike.
            let value = if value.is_nan() { f64::NAN } else { *value };
            values.entry(*t).or_default().push(value);
        }
        values
            .values_mut()
            .for_each(|list| list.sort_by(f64::total_cmp));
        values
    };
    let (expected, given) = (values(expected), values(given));
    let same = expected.len() == given.len()
        && expected.iter().zip(&given).all(|(a, b)| {
            a.0 == b.0
                && a.1.len() == b.1.len()
                && a.1.iter().zip(b.1).all(|(a, b)| agree(*a, *b, tolerance))
        });
    (!same).then(|| format!("expected {expected:?}\n  given    {given:?}"))
}

/// What may differ.
#[derive(Clone, Copy, Debug)]
struct Tolerance {
    /// Of values; 0 where nothing was added up in an order of the evaluator's own choice.
    relative: f64,
    /// Whether 0 and -0 are the same: where the first of equal values is taken, and which is the
    /// first is nowhere defined.
    zeros: bool,
}

fn tolerance(expr: &Expr) -> Tolerance {
    let mut tolerance = Tolerance {
        relative: 0.0,
        zeros: false,
    };
    expr.walk(&mut |part| match part {
        Expr::Aggregate { op, .. } => match *op {
            "sum" | "avg" | "stddev" | "stdvar" => tolerance.relative = 1e-12,
            "min" | "max" | "quantile" | "topk" | "bottomk" => tolerance.zeros = true,
            _ => {}
        },
        Expr::Call("quantile_over_time", _) => tolerance.zeros = true,
        _ => {}
    });
    tolerance
}

/// Bit for bit, but that every NaN is as good as another: which one arithmetic makes is the
/// processor's business, and no client can see it.
fn agree(a: f64, b: f64, tolerance: Tolerance) -> bool {
    let same = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    let zeros = tolerance.zeros && a == b;
    let near = || (a - b).abs() <= tolerance.relative * a.abs().max(b.abs());
    same || zeros || tolerance.relative > 0.0 && a.is_finite() && b.is_finite() && near()
}

/// The moment in the API's type.
pub fn at(ms: i64) -> TimestampMs {
    TimestampMs(ms)
}
