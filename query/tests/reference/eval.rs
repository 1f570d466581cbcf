//! The naive evaluator: one expression, one moment, by definition.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::aggregate;
use crate::binary;
use crate::expr::{At, Expr, Selector, Shift};
use crate::functions;
use millrace_model::is_stale;
use regex::Regex;

/// A label set.
pub type Labels = BTreeMap<String, String>;

/// All there is: samples by label set, in order of time, staleness markers among them.
pub type Data = BTreeMap<Labels, Vec<(i64, f64)>>;

/// An instant vector, in order of its making.
pub type Vector = Vec<(Labels, f64)>;

/// A range vector of one moment.
#[derive(Clone, Debug)]
pub struct Window {
    pub series: Vec<(Labels, Vec<(i64, f64)>)>,
    /// The left end, outside.
    pub start: i64,
    /// The right end, inside.
    pub end: i64,
}

#[derive(Clone, Debug)]
pub enum Value {
    Scalar(f64),
    Text(String),
    Vector(Vector),
    Window(Window),
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub &'static str);

pub const SAME_LABELSET: Fault = Fault("vector cannot contain metrics with the same labelset");

/// A query's surroundings.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub data: &'a Data,
    /// Of the whole query.
    pub start: i64,
    pub end: i64,
    pub lookback_ms: i64,
    /// Of subqueries without one.
    pub default_step_ms: i64,
}

impl Context<'_> {
    /// The value of `expr` at the moment `t`.
    pub fn eval(&self, expr: &Expr, t: i64) -> Result<Value, Fault> {
        Ok(match expr {
            Expr::Number(value) => Value::Scalar(*value),
            Expr::Text(text) => Value::Text(text.clone()),
            Expr::Selector(selector) => {
                let found = self.newest(selector, t);
                Value::Vector(
                    found
                        .into_iter()
                        .map(|(labels, _, v)| (labels, v))
                        .collect(),
                )
            }
            Expr::Range(selector, range_ms) => {
                let end = self.moved(selector.shift, t);
                let start = end - range_ms;
                let series = self.matching(selector).filter_map(|(labels, samples)| {
                    let inside: Vec<_> = samples
                        .iter()
                        .copied()
                        .filter(|(at, v)| *at > start && *at <= end && !is_stale(*v))
                        .collect();
                    (!inside.is_empty()).then(|| (labels.clone(), inside))
                });
                Value::Window(Window {
                    series: series.collect(),
                    start,
                    end,
                })
            }
            Expr::Subquery {
                inner,
                range_ms,
                step_ms,
                shift,
            } => {
                let end = self.moved(*shift, t);
                let step = step_ms.unwrap_or(self.default_step_ms);
                Value::Window(self.subquery(inner, end - range_ms, end, step)?)
            }
            Expr::Call("timestamp", args) if matches!(args[0], Expr::Selector(_)) => {
                let Expr::Selector(selector) = &args[0] else {
                    unreachable!("just matched")
                };
                let found = self.newest(selector, t);
                let times = found
                    .into_iter()
                    .map(|(labels, at, _)| (nameless(labels), at as f64 / 1000.0));
                Value::Vector(unique(times.collect())?)
            }
            Expr::Call(name, args) => {
                let values: Vec<_> = args
                    .iter()
                    .map(|arg| self.eval(arg, t))
                    .collect::<Result<_, _>>()?;
                functions::call(name, args, values, t)?
            }
            Expr::Aggregate {
                op,
                grouping,
                param,
                inner,
            } => {
                let param = param
                    .as_ref()
                    .map(|param| self.eval(param, t))
                    .transpose()?;
                let vector = self.vector(inner, t)?;
                Value::Vector(aggregate::of(op, grouping.as_ref(), param, vector)?)
            }
            Expr::Binary {
                op,
                returns_bool,
                matching,
                left,
                right,
            } => {
                let (left, right) = (self.eval(left, t)?, self.eval(right, t)?);
                binary::of(op, *returns_bool, matching.as_ref(), left, right)?
            }
            Expr::Negate(inner) => match self.eval(inner, t)? {
                Value::Scalar(value) => Value::Scalar(-value),
                Value::Vector(vector) => {
                    let negated = vector.into_iter().map(|(l, v)| (nameless(l), -v));
                    Value::Vector(unique(negated.collect())?)
                }
                other => panic!("minus {other:?}"),
            },
        })
    }

    /// Whether the subqueries in `expr` can be evaluated for all moments from `start` to `end`. A
    /// range query asks them once for its whole range, and so at moments too that lie in none of
    /// its windows; what cannot be evaluated there fails the query.
    pub fn probe(&self, expr: &Expr, start: i64, end: i64) -> Result<(), Fault> {
        match expr {
            Expr::Number(_) | Expr::Text(_) | Expr::Selector(_) | Expr::Range(..) => Ok(()),
            Expr::Negate(inner) => self.probe(inner, start, end),
            Expr::Call(_, args) => args.iter().try_for_each(|arg| self.probe(arg, start, end)),
            Expr::Aggregate { param, inner, .. } => {
                let param = param.as_deref().map(|param| self.probe(param, start, end));
                param.unwrap_or(Ok(()))?;
                self.probe(inner, start, end)
            }
            Expr::Binary { left, right, .. } => {
                self.probe(left, start, end)?;
                self.probe(right, start, end)
            }
            Expr::Subquery {
                inner,
                range_ms,
                step_ms,
                shift,
            } => {
                let (start, end) = (
                    self.moved(*shift, start) - range_ms,
                    self.moved(*shift, end),
                );
                let step = step_ms.unwrap_or(self.default_step_ms);
                self.subquery(inner, start, end, step)?;
                let first = (start.div_euclid(step) + 1) * step;
                self.probe(inner, first, end.div_euclid(step) * step)
            }
        }
    }

    fn vector(&self, expr: &Expr, t: i64) -> Result<Vector, Fault> {
        match self.eval(expr, t)? {
            Value::Vector(vector) => Ok(vector),
            other => panic!("{expr} is no vector but {other:?}"),
        }
    }

    /// The moment that a selector at `t` means.
    fn moved(&self, shift: Shift, t: i64) -> i64 {
        let at = match shift.at {
            None => t,
            Some(At::Ms(ms)) => ms,
            Some(At::Start) => self.start,
            Some(At::End) => self.end,
        };
        at - shift.offset_ms
    }

    fn matching(&self, selector: &Selector) -> impl Iterator<Item = (&Labels, &Vec<(i64, f64)>)> {
        self.data
            .iter()
            .filter(move |(labels, _)| passes(selector, labels))
    }

    /// Of each series the newest sample within the lookback, unless it is a staleness marker.
    fn newest(&self, selector: &Selector, t: i64) -> Vec<(Labels, i64, f64)> {
        let t = self.moved(selector.shift, t);
        self.matching(selector)
            .filter_map(|(labels, samples)| {
                let (at, v) = samples.iter().copied().rfind(|(at, _)| *at <= t)?;
                let seen = at > t - self.lookback_ms && !is_stale(v);
                seen.then(|| (labels.clone(), at, v))
            })
            .collect()
    }

    /// `inner` at every multiple of `step` in `(start, end]`.
    fn subquery(&self, inner: &Expr, start: i64, end: i64, step: i64) -> Result<Window, Fault> {
        let mut series: BTreeMap<Labels, Vec<(i64, f64)>> = BTreeMap::new();
        let mut t = (start.div_euclid(step) + 1) * step;
        while t <= end {
            for (labels, value) in unique(self.vector(inner, t)?)? {
                series.entry(labels).or_default().push((t, value));
            }
            t += step;
        }
        Ok(Window {
            series: series.into_iter().collect(),
            start,
            end,
        })
    }
}

fn passes(selector: &Selector, labels: &Labels) -> bool {
    let get = |label: &str| labels.get(label).map(String::as_str).unwrap_or_default();
    let named = selector.name.is_none_or(|name| get("__name__") == name);
    named
        && selector.tests.iter().all(|(label, op, value)| match *op {
            "=" => get(label) == *value,
            "!=" => get(label) != *value,
            "=~" => matches(value, get(label)),
            "!~" => !matches(value, get(label)),
            other => panic!("operator {other}"),
        })
}

/// Whether a pattern matches all of a text. The few patterns there are stay compiled.
fn matches(pattern: &'static str, text: &str) -> bool {
    thread_local! {
        static COMPILED: RefCell<BTreeMap<&'static str, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        compiled
            .entry(pattern)
            .or_insert_with(|| Regex::new(&format!("^(?s:{pattern})$")).unwrap())
            .is_match(text)
    })
}

/// Without the metric's name.
pub fn nameless(mut labels: Labels) -> Labels {
    labels.remove("__name__");
    labels
}

/// The vector, if no two of its label sets are the same.
pub fn unique(vector: Vector) -> Result<Vector, Fault> {
    let distinct: BTreeSet<_> = vector.iter().map(|(labels, _)| labels).collect();
    if distinct.len() < vector.len() {
        return Err(SAME_LABELSET);
    }
    Ok(vector)
}
