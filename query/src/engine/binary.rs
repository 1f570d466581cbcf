//! Binary operators.

use crate::QueryError;

use super::ast::{Binary, BinaryOp, Expr, ExprKind};
use super::block::{ABSENT, Block, Grid, is_absent};
use super::eval::{Evaluator, Value};
use super::text::quote;

type Result<T> = std::result::Result<T, QueryError>;

/// The result of an operator, and whether a comparison holds.
#[inline]
pub(super) fn apply(op: BinaryOp, left: f64, right: f64) -> (f64, bool) {
    match op {
        BinaryOp::Add => (left + right, true),
        BinaryOp::Sub => (left - right, true),
        BinaryOp::Mul => (left * right, true),
        BinaryOp::Div => (left / right, true),
        BinaryOp::Mod => (left % right, true),
        BinaryOp::Pow => (left.powf(right), true),
        BinaryOp::Atan2 => (left.atan2(right), true),
        BinaryOp::Equal => (left, left == right),
        BinaryOp::NotEqual => (left, left != right),
        BinaryOp::Less => (left, left < right),
        BinaryOp::LessEqual => (left, left <= right),
        BinaryOp::Greater => (left, left > right),
        BinaryOp::GreaterEqual => (left, left >= right),
        // Trimming is for native histograms: of numbers nothing is left.
        BinaryOp::TrimUpper | BinaryOp::TrimLower => (ABSENT, false),
        BinaryOp::Or | BinaryOp::And | BinaryOp::Unless => {
            unreachable!("set operators look at labels, not at values")
        }
    }
}

fn truth(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

/// Whether the result is no longer what the left side's name says.
fn changes_meaning(binary: &Binary) -> bool {
    !binary.op.is_comparison() || binary.return_bool
}

impl Evaluator<'_> {
    /// A chain of left-associative operators, evaluated in a loop: chains are long, stacks are not.
    pub(super) fn binary_chain(&self, expr: &Expr, grid: Grid) -> Result<Value> {
        let mut nodes = Vec::new();
        let mut first = expr;
        while let ExprKind::Binary(binary) = &first.kind {
            nodes.push(binary);
            first = &binary.left;
        }
        let mut value = self.eval(first, grid)?;
        for binary in nodes.into_iter().rev() {
            self.budget.check()?;
            let right = self.eval(&binary.right, grid)?;
            value = self.combine(binary, value, right)?;
        }
        Ok(value)
    }

    fn combine(&self, binary: &Binary, left: Value, right: Value) -> Result<Value> {
        self.note_trimmed_floats(binary, &left, &right)?;
        match (left, right) {
            (Value::Scalar(left), Value::Scalar(right)) => {
                Ok(Value::Scalar(scalars(binary, &left, &right)))
            }
            (Value::Vector(block), Value::Scalar(right)) => {
                self.with_scalar(binary, block, &right, false)
            }
            (Value::Scalar(left), Value::Vector(block)) => {
                self.with_scalar(binary, block, &left, true)
            }
            (Value::Vector(left), Value::Vector(right)) => {
                let block = match binary.op.is_set() {
                    true => self.set_operation(binary, left, right)?,
                    false => self.match_vectors(binary, &left, &right)?,
                };
                Ok(Value::Vector(block))
            }
            (Value::String(_), _) | (_, Value::String(_)) => {
                Err(QueryError::Internal("an operator on a string".to_owned()))
            }
        }
    }

    /// Says why trimming numbers gives nothing.
    fn note_trimmed_floats(&self, binary: &Binary, left: &Value, right: &Value) -> Result<()> {
        if !matches!(binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower) {
            return Ok(());
        }
        let op = binary.op.as_str();
        let empty = |value: &Value| matches!(value, Value::Vector(block) if block.len() == 0);
        if matches!((left, right), (Value::Scalar(_), Value::Scalar(_))) {
            return Err(QueryError::Execution(format!(
                "operator {} not allowed for Scalar operations",
                quote(op)
            )));
        }
        if !empty(left) && !empty(right) {
            let message = format!(
                "incompatible sample types encountered for binary operator {}: float {op} float",
                quote(op)
            );
            self.notes.info(binary.left.pos, message);
        }
        Ok(())
    }

    fn with_scalar(
        &self,
        binary: &Binary,
        mut block: Block,
        scalar: &[f64],
        scalar_left: bool,
    ) -> Result<Value> {
        let (op, bool) = (binary.op, binary.return_bool);
        block.map(|step, value| {
            let (left, right) = match scalar_left {
                true => (scalar[step], value),
                false => (value, scalar[step]),
            };
            let (result, holds) = apply(op, left, right);
            if bool {
                truth(holds)
            } else if !op.is_comparison() {
                result
            } else if holds {
                // The vector's value, whichever side it is on.
                value
            } else {
                ABSENT
            }
        });
        block.compact();
        if changes_meaning(binary) {
            block.drop_names(self.options.delayed_name_removal)?;
        }
        Ok(Value::Vector(block))
    }
}

fn scalars(binary: &Binary, left: &[f64], right: &[f64]) -> Vec<f64> {
    let pairs = left.iter().zip(right);
    let results = pairs.map(|(left, right)| {
        let (result, holds) = apply(binary.op, *left, *right);
        if binary.op.is_comparison() {
            truth(holds)
        } else {
            result
        }
    });
    results.collect()
}

/// The value of a match, if there is one.
#[inline]
pub(super) fn element(binary: &Binary, left: f64, right: f64) -> Option<f64> {
    debug_assert!(!is_absent(left) && !is_absent(right));
    let (result, holds) = apply(binary.op, left, right);
    if binary.return_bool {
        return Some(truth(holds));
    }
    holds.then_some(result)
}
