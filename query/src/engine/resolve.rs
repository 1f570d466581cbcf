//! What depends on the query's own times: `@ start()`, `step()` in durations, and so on.

use super::ast::{At, DurationExpr, DurationOp, Expr, ExprKind, TimeShift};
use super::lex::SyntaxError;

/// Times of a query, in ms.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryTimes {
    pub(super) start: i64,
    pub(super) end: i64,
    /// Zero for an instant query.
    pub(super) step: i64,
}

/// Fills in the milliseconds of every selector and subquery.
pub(super) fn resolve(expr: &mut Expr, times: &QueryTimes) -> Result<(), SyntaxError> {
    let at = expr.pos.start;
    match &mut expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => Ok(()),
        ExprKind::Vector(selector) => shift(&mut selector.time, times, at),
        ExprKind::Matrix(matrix) => {
            matrix.range_ms = positive(&matrix.range, times, at)?;
            shift(&mut matrix.selector.time, times, at)
        }
        ExprKind::Subquery(subquery) => {
            subquery.range_ms = positive(&subquery.range, times, at)?;
            if let Some(step) = &subquery.step {
                subquery.step_ms = positive(step, times, at)?;
            }
            shift(&mut subquery.time, times, at)?;
            resolve(&mut subquery.expr, times)
        }
        ExprKind::Call(call) => call.args.iter_mut().try_for_each(|arg| resolve(arg, times)),
        ExprKind::Aggregate(aggregate) => {
            if let Some(param) = &mut aggregate.param {
                resolve(param, times)?;
            }
            resolve(&mut aggregate.expr, times)
        }
        ExprKind::Binary(binary) => {
            resolve(&mut binary.right, times)?;
            resolve(&mut binary.left, times)
        }
        ExprKind::Negate(inner) | ExprKind::Plus(inner) | ExprKind::Paren(inner) => {
            resolve(inner, times)
        }
    }
}

fn shift(time: &mut TimeShift, times: &QueryTimes, at: usize) -> Result<(), SyntaxError> {
    if let Some(offset) = &time.offset {
        time.offset_ms = milliseconds(offset, times, at)?;
    }
    time.at_ms = time.at.map(|at| match at {
        At::Time(ms) => ms,
        At::Start => times.start,
        At::End => times.end,
    });
    Ok(())
}

fn positive(duration: &DurationExpr, times: &QueryTimes, at: usize) -> Result<i64, SyntaxError> {
    let ms = milliseconds(duration, times, at)?;
    if ms <= 0 {
        return Err(SyntaxError::new(at, "duration must be greater than 0"));
    }
    Ok(ms)
}

/// The longest duration, in ms: that of Go, so that sums of a few stay inside an i64.
const MAX_MS: f64 = (i64::MAX / 1_000_000) as f64;

fn milliseconds(
    duration: &DurationExpr,
    times: &QueryTimes,
    at: usize,
) -> Result<i64, SyntaxError> {
    let seconds = evaluate(duration, Some(times)).map_err(|m| SyntaxError::new(at, m))?;
    let ms = seconds * 1000.0;
    if ms.is_nan() || ms.abs() > MAX_MS {
        return Err(SyntaxError::new(at, "duration is out of range"));
    }
    // Truncated as Go does; 1.1 s is 1100 ms because the product is rounded to it.
    Ok(ms as i64)
}

/// The value in seconds, if it does not depend on the query.
pub(super) fn constant(duration: &DurationExpr) -> Option<f64> {
    evaluate(duration, None).ok()
}

fn evaluate(duration: &DurationExpr, times: Option<&QueryTimes>) -> Result<f64, &'static str> {
    const UNKNOWN: &str = "not known yet";
    Ok(match duration {
        DurationExpr::Number(seconds) | DurationExpr::Units(seconds) => *seconds,
        DurationExpr::Paren(inner) => evaluate(inner, times)?,
        DurationExpr::Step => times.ok_or(UNKNOWN)?.step as f64 / 1000.0,
        DurationExpr::Range => {
            let times = times.ok_or(UNKNOWN)?;
            (times.end - times.start) as f64 / 1000.0
        }
        DurationExpr::Negate(inner) => -evaluate(inner, times)?,
        DurationExpr::Binary(op, left, right) => {
            let (left, right) = (evaluate(left, times)?, evaluate(right, times)?);
            match op {
                DurationOp::Add => left + right,
                DurationOp::Sub => left - right,
                DurationOp::Mul => left * right,
                DurationOp::Div if right == 0.0 => return Err("division by zero"),
                DurationOp::Div => left / right,
                DurationOp::Mod if right == 0.0 => return Err("modulo by zero"),
                DurationOp::Mod => left % right,
                DurationOp::Pow => left.powf(right),
                DurationOp::Min => left.min(right),
                DurationOp::Max => left.max(right),
            }
        }
    })
}
