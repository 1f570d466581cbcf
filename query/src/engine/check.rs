//! Type rules, checked on the finished tree, children first, in Prometheus's words.

use millrace_model::{METRIC_NAME, Matcher};

use super::ast::{
    Aggregate, Binary, Call, Cardinality, Expr, ExprKind, Pos, Selector, Subquery, ValueType,
};
use super::lex::SyntaxError;
use super::text::quote;

type Result<T> = std::result::Result<T, SyntaxError>;

fn fail<T>(at: usize, message: impl Into<String>) -> Result<T> {
    Err(SyntaxError::new(at, message))
}

/// Checks a whole expression.
pub(super) fn tree(expr: &Expr) -> Result<()> {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => Ok(()),
        ExprKind::Vector(found) => selector(found, expr.pos, false),
        ExprKind::Matrix(matrix) => selector(&matrix.selector, matrix.selector_pos, false),
        ExprKind::Subquery(found) => subquery(found, expr.pos),
        ExprKind::Call(found) => call(found, expr.pos),
        ExprKind::Aggregate(found) => aggregate(found),
        ExprKind::Binary(_) => binary_chain(expr),
        ExprKind::Negate(inner) | ExprKind::Plus(inner) => unary(inner, expr.pos),
        ExprKind::Paren(inner) => tree(inner),
    }
}

fn expect_type(expr: &Expr, wanted: ValueType, context: &str) -> Result<()> {
    tree(expr)?;
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

fn unary(inner: &Expr, pos: Pos) -> Result<()> {
    tree(inner)?;
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

fn subquery(subquery: &Subquery, pos: Pos) -> Result<()> {
    tree(&subquery.expr)?;
    let found = match subquery.expr.value_type() {
        ValueType::Vector => return Ok(()),
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Matrix => "matrix",
    };
    let message = format!("subquery is only allowed on instant vector, got {found} instead");
    fail(pos.start, message)
}

fn aggregate(aggregate: &Aggregate) -> Result<()> {
    expect_type(&aggregate.expr, ValueType::Vector, "aggregation expression")?;
    if let (Some(param), Some(wanted)) = (&aggregate.param, aggregate.op.param_type()) {
        expect_type(param, wanted, "aggregation parameter")?;
    }
    Ok(())
}

/// A chain of left-associative operators is as long as it is deep: walked in a loop.
fn binary_chain(expr: &Expr) -> Result<()> {
    let mut nodes = Vec::new();
    let mut first = expr;
    while let ExprKind::Binary(node) = &first.kind {
        nodes.push((node, first.pos));
        first = &node.left;
    }
    tree(first)?;
    for (node, pos) in nodes.into_iter().rev() {
        tree(&node.right)?;
        binary(node, pos)?;
    }
    Ok(())
}

fn binary(binary: &Binary, pos: Pos) -> Result<()> {
    let (op, matching) = (binary.op, &binary.matching);
    let (left, right) = (binary.left.value_type(), binary.right.value_type());
    if binary.return_bool && !op.is_comparison() {
        let message = "bool modifier can only be used on comparison operators";
        return fail(binary.op_at, message);
    }
    let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
    if op.is_comparison() && !binary.return_bool && scalars {
        let message = "comparisons between scalars must use BOOL modifier";
        return fail(binary.op_at, message);
    }
    let twice = matching
        .labels
        .iter()
        .find(|l| matching.include.contains(l));
    if let (true, Some(label)) = (matching.on, twice) {
        let message = format!(
            "label {} must not occur in ON and GROUP clause at once",
            quote(label)
        );
        return fail(binary.op_at, message);
    }
    for side in [&binary.left, &binary.right] {
        if !matches!(side.value_type(), ValueType::Scalar | ValueType::Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            return fail(side.pos.start, message);
        }
    }
    let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
    let at = pos.start;
    if left != ValueType::Vector || right != ValueType::Vector {
        if !matching.labels.is_empty() {
            return fail(at, "vector matching only allowed between instant vectors");
        }
        if fills {
            let message = "filling in missing series only allowed between instant vectors";
            return fail(at, message);
        }
    } else if op.is_set() {
        if matching.cardinality != Cardinality::OneToOne {
            let message = format!("no grouping allowed for {} operation", quote(op.as_str()));
            return fail(at, message);
        }
        if fills {
            return fail(
                at,
                "filling in missing series not allowed for set operators",
            );
        }
    }
    if op.is_set() && (left == ValueType::Scalar || right == ValueType::Scalar) {
        let message = format!(
            "set operator {} not allowed in binary scalar expression",
            quote(op.as_str())
        );
        return fail(at, message);
    }
    Ok(())
}

fn call(call: &Call, pos: Pos) -> Result<()> {
    let function = call.function;
    let (types, got) = (function.args.len(), call.args.len());
    let name = quote(function.name);
    let wrong = match usize::try_from(function.variadic) {
        Ok(0) => (types != got).then(|| format!("{types} argument(s)")),
        _ if got + 1 < types => Some(format!("at least {} argument(s)", types - 1)),
        Ok(more) if got > types - 1 + more => {
            Some(format!("at most {} argument(s)", types - 1 + more))
        }
        _ => None,
    };
    if let Some(wanted) = wrong {
        let message = format!("expected {wanted} in call to {name}, got {got}");
        return fail(pos.start, message);
    }
    for (index, arg) in call.args.iter().enumerate() {
        if function.name == "info" && index == 1 {
            info_selector(arg, pos)?;
            continue;
        }
        let context = format!("call to function {name}");
        expect_type(arg, function.arg_type(index), &context)?;
    }
    Ok(())
}

/// The second argument of `info` is label matchers in braces; they may accept anything.
fn info_selector(arg: &Expr, pos: Pos) -> Result<()> {
    let found = arg.value_type();
    if found != ValueType::Vector {
        let message = format!(
            "expected type instant vector in call to function \"info\", got {}",
            found.as_str()
        );
        return fail(pos.start, message);
    }
    let ExprKind::Vector(found) = &arg.kind else {
        return fail(arg.pos.start, "expected label selectors only");
    };
    if found.name.is_some() {
        let message = "expected label selectors only, got vector selector instead";
        return fail(arg.pos.start, message);
    }
    selector(found, arg.pos, true)
}

/// Unless `any` is set, refuses a selector whose matchers all accept an absent label: it would
/// select everything.
fn selector(selector: &Selector, pos: Pos, any: bool) -> Result<()> {
    if let Some(name) = &selector.name {
        // The last one is the name itself.
        let named = selector
            .matchers
            .split_last()
            .map_or(&[][..], |(_, rest)| rest);
        if let Some(other) = named.iter().find(|m| m.name() == METRIC_NAME) {
            let message = format!(
                "metric name must not be set twice: {} or {}",
                quote(name),
                quote(other.value())
            );
            return fail(pos.start, message);
        }
        return Ok(());
    }
    if !any && selector.matchers.iter().all(Matcher::matches_empty) {
        let message = "vector selector must contain at least one non-empty matcher";
        return fail(pos.start, message);
    }
    Ok(())
}
