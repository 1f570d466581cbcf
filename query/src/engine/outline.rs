//! What an expression is and reads, without evaluating it: for rules, which are shown as Prometheus prints
//! them, and which must know whose samples they depend on.

use millrace_model::Matcher;

use super::ast::{Expr, ExprKind, Selector, TimeShift, ValueType};
use super::print;

/// An expression that was read and checked.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The expression on one line, as Prometheus prints it.
    pub line: String,
    /// Whether its value is an instant vector or a scalar, so that a rule can have it.
    pub is_rule: bool,
    /// The type of its value in Prometheus's words.
    pub value_type: &'static str,
    /// What it selects.
    pub selections: Vec<Selection>,
}

/// Series that an expression reads.
#[derive(Clone, Debug)]
pub struct Selection {
    /// What they pass.
    pub matchers: Vec<Matcher>,
    /// Which of their samples an evaluation at `t` may depend on: those after `t - far` up to `t - near`, in
    /// ms. `None` where the expression names the time itself (`@`), or computes it.
    pub window: Option<(i64, i64)>,
}

/// The outline of `expr`, which was read from `text` and resolved for an instant query.
pub(super) fn of(expr: &Expr, line: String, lookback_ms: i64) -> Outline {
    let value_type = expr.value_type();
    let mut walk = Walk {
        lookback_ms,
        found: Vec::new(),
    };
    walk.visit(expr, Some((0, 0)));
    Outline {
        line,
        is_rule: matches!(value_type, ValueType::Vector | ValueType::Scalar),
        value_type: value_type.as_str(),
        selections: walk.found,
    }
}

struct Walk {
    lookback_ms: i64,
    found: Vec<Selection>,
}

impl Walk {
    /// `outer` is what subqueries around it add to far and near end.
    fn visit(&mut self, expr: &Expr, outer: Option<(i64, i64)>) {
        match &expr.kind {
            ExprKind::Number(_) | ExprKind::String(_) => {}
            ExprKind::Vector(selector) => self.add(selector, self.lookback_ms, outer),
            ExprKind::Matrix(matrix) => {
                // Extrapolation at the edges may look back beyond the range.
                let reach = matrix.range_ms.saturating_add(self.lookback_ms);
                self.add(&matrix.selector, reach, outer);
            }
            ExprKind::Subquery(subquery) => {
                let outer = shifted(&subquery.time, subquery.range_ms, outer);
                self.visit(&subquery.expr, outer);
            }
            ExprKind::Call(call) => call.args.iter().for_each(|arg| self.visit(arg, outer)),
            ExprKind::Aggregate(aggregate) => {
                aggregate
                    .param
                    .iter()
                    .for_each(|param| self.visit(param, outer));
                self.visit(&aggregate.expr, outer);
            }
            ExprKind::Binary(_) => {
                let (first, nodes) = print::chain(expr);
                self.visit(first, outer);
                for node in nodes {
                    self.visit(&node.right, outer);
                }
            }
            ExprKind::Negate(inner) | ExprKind::Plus(inner) | ExprKind::Paren(inner) => {
                self.visit(inner, outer);
            }
        }
    }

    fn add(&mut self, selector: &Selector, reach: i64, outer: Option<(i64, i64)>) {
        self.found.push(Selection {
            matchers: selector.matchers.clone(),
            window: shifted(&selector.time, reach, outer),
        });
    }
}

fn shifted(time: &TimeShift, reach: i64, outer: Option<(i64, i64)>) -> Option<(i64, i64)> {
    let (far, near) = outer.filter(|_| time.at.is_none())?;
    let offset = time.offset_ms;
    Some((
        far.saturating_add(offset).saturating_add(reach),
        near.saturating_add(offset),
    ))
}
