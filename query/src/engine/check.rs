//! Type rules, in Prometheus's words.

use millrace_model::METRIC_NAME;

use super::ast::{
    Aggregate, Binary, Call, Cardinality, DurationExpr, Edges, Expr, ExprKind, Pos, Selector,
    ValueType,
};
use super::lex::SyntaxError;
use super::parser::name_matcher;
use super::resolve;
use super::text::quote;

type Result<T> = std::result::Result<T, SyntaxError>;

fn fail<T>(at: usize, message: impl Into<String>) -> Result<T> {
    Err(SyntaxError::new(at, message))
}

fn expect_type(expr: &Expr, wanted: ValueType, context: &str) -> Result<()> {
    let found = expr.value_type();
    if found == wanted {
        return Ok(());
    }
    let message = format!(
        "expected type {} in {context}, got {}",
        wanted.as_str(),
        found.as_str()
    );
    fail(expr.pos.start, message)
}

pub(super) fn unary(inner: &Expr, pos: Pos) -> Result<()> {
    let found = inner.value_type();
    if matches!(found, ValueType::Scalar | ValueType::Vector) {
        return Ok(());
    }
    let message = format!(
        "unary expression only allowed on expressions of type scalar or instant vector, got {}",
        quote(found.as_str())
    );
    fail(pos.start, message)
}

pub(super) fn aggregate(aggregate: &Aggregate) -> Result<()> {
    const CONTEXT: &str = "aggregation expression";
    expect_type(&aggregate.expr, ValueType::Vector, CONTEXT)?;
    if let (Some(param), Some(wanted)) = (&aggregate.param, aggregate.op.param_type()) {
        let context = match wanted {
            ValueType::String => "aggregation parameter",
            _ => "aggregation parameter",
        };
        expect_type(param, wanted, context)?;
    }
    Ok(())
}

pub(super) fn binary(binary: &Binary) -> Result<()> {
    let at = binary.left.pos.start;
    let (op, matching) = (binary.op, &binary.matching);
    let (left, right) = (binary.left.value_type(), binary.right.value_type());
    if binary.return_bool && !op.is_comparison() {
        return fail(at, "bool modifier can only be used on comparison operators");
    }
    let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
    if op.is_comparison() && !binary.return_bool && scalars {
        return fail(at, "comparisons between scalars must use BOOL modifier");
    }
    if op.is_set() && (left == ValueType::Scalar || right == ValueType::Scalar) {
        let message = format!(
            "set operator {} not allowed in binary scalar expression",
            quote(op.as_str())
        );
        return fail(at, message);
    }
    for side in [&binary.left, &binary.right] {
        if !matches!(side.value_type(), ValueType::Scalar | ValueType::Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            return fail(side.pos.start, message);
        }
    }
    if matching.on
        && let Some(label) = matching
            .labels
            .iter()
            .find(|l| matching.include.contains(*l))
    {
        let message = format!(
            "label {} must not occur in ON and GROUP clause at once",
            quote(label)
        );
        return fail(at, message);
    }
    let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
    if left == ValueType::Vector && right == ValueType::Vector {
        if op.is_set() && matching.cardinality != Cardinality::OneToOne {
            let message = format!("no grouping allowed for {} operation", quote(op.as_str()));
            return fail(at, message);
        }
        if op.is_set() && fills {
            return fail(
                at,
                "filling in missing series not allowed for set operators",
            );
        }
    } else {
        if !matching.labels.is_empty() {
            return fail(at, "vector matching only allowed between instant vectors");
        }
        if fills {
            return fail(
                at,
                "filling in missing series only allowed between instant vectors",
            );
        }
    }
    Ok(())
}

pub(super) fn call(call: &Call, pos: Pos) -> Result<()> {
    let function = call.function;
    let (types, got) = (function.args.len(), call.args.len());
    let name = quote(function.name);
    if function.variadic == 0 {
        if types != got {
            return fail(
                pos.start,
                format!("expected {types} argument(s) in call to {name}, got {got}"),
            );
        }
    } else {
        let least = types - 1;
        if got < least {
            return fail(
                pos.start,
                format!("expected at least {least} argument(s) in call to {name}, got {got}"),
            );
        }
        let most = usize::try_from(function.variadic).map(|n| least + n);
        if let Ok(most) = most
            && got > most
        {
            return fail(
                pos.start,
                format!("expected at most {most} argument(s) in call to {name}, got {got}"),
            );
        }
    }
    for (index, arg) in call.args.iter().enumerate() {
        if function.name == "info" && index == 1 {
            info_selector(arg)?;
            continue;
        }
        let context = format!("call to function {name}");
        expect_type(arg, function.arg_type(index), &context)?;
        edges(function.name, arg)?;
    }
    Ok(())
}

/// The second argument of `info` is label matchers in braces.
fn info_selector(arg: &Expr) -> Result<()> {
    let ExprKind::Vector(selector) = &arg.kind else {
        return fail(
            arg.pos.start,
            "expected label selectors as the second argument to \"info\" function, got other expression",
        );
    };
    let shifted = selector.time.offset.is_some() || selector.time.at.is_some();
    if selector.name.is_some() || shifted {
        return fail(
            arg.pos.start,
            "expected label selectors only in the second argument to \"info\" function",
        );
    }
    Ok(())
}

fn edges(function: &str, arg: &Expr) -> Result<()> {
    let ExprKind::Matrix(matrix) = &arg.bare().kind else {
        return Ok(());
    };
    let (modifier, allowed): (&str, &[&str]) = match matrix.selector.edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => (
            "anchored",
            &["changes", "delta", "increase", "rate", "resets"],
        ),
        Edges::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if allowed.contains(&function) {
        return Ok(());
    }
    let message = format!(
        "{modifier} modifier can only be used with: {} - not with {function}",
        allowed.join(", ")
    );
    fail(arg.pos.start, message)
}

/// Completes a selector's matchers and refuses one that would select everything.
pub(super) fn selector(selector: &mut Selector, pos: Pos) -> Result<()> {
    if let Some(name) = &selector.name {
        if let Some(other) = selector.matchers.iter().find(|m| m.name() == METRIC_NAME) {
            let message = format!(
                "metric name must not be set twice: {} or {}",
                quote(name),
                quote(other.value())
            );
            return fail(pos.start, message);
        }
        let matcher = name_matcher(name);
        selector.matchers.push(matcher);
    }
    Ok(())
}

/// Refuses a selector whose matchers all accept an absent label. Not for the second argument of
/// `info`, so it runs over the finished tree.
pub(super) fn selective(selector: &Selector, pos: Pos) -> Result<()> {
    if selector
        .matchers
        .iter()
        .all(millrace_model::Matcher::matches_empty)
    {
        let message = "vector selector must contain at least one non-empty matcher";
        return fail(pos.start, message);
    }
    Ok(())
}

/// Refuses a range or step that is not positive, where that is known already.
pub(super) fn positive(duration: &DurationExpr, at: usize) -> Result<()> {
    if let Some(seconds) = resolve::constant(duration)
        && seconds <= 0.0
    {
        return fail(at, "duration must be greater than 0");
    }
    Ok(())
}
