//! An expression as the JSON tree of Prometheus's `parse_query`.

use millrace_model::Matcher;
use serde_json::{Map, Value, json};

use super::ast::{
    At, Binary, Call, Cardinality, DurationExpr, Edges, Expr, ExprKind, Selector, TimeShift,
    ValueType,
};
use super::print::{chain, literal, literal_ms, matching, op_word};
use super::text::format_f;

/// The tree of `expr`, which is not resolved yet.
pub(super) fn of(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Number(value) => json!({ "type": "numberLiteral", "val": format_f(*value) }),
        ExprKind::String(value) => json!({ "type": "stringLiteral", "val": value.lossy() }),
        ExprKind::Vector(selector) => Value::Object(selected("vectorSelector", selector)),
        ExprKind::Matrix(matrix) => {
            let mut tree = selected("matrixSelector", &matrix.selector);
            put_duration(&mut tree, "range", Some(&matrix.range));
            Value::Object(tree)
        }
        ExprKind::Subquery(subquery) => {
            let mut tree = Map::new();
            tree.insert("type".to_owned(), json!("subquery"));
            tree.insert("expr".to_owned(), of(&subquery.expr));
            put_duration(&mut tree, "range", Some(&subquery.range));
            put_duration(&mut tree, "step", subquery.step.as_ref());
            put_shift(&mut tree, &subquery.time);
            Value::Object(tree)
        }
        ExprKind::Call(call) => called(call),
        ExprKind::Aggregate(aggregate) => json!({
            "type": "aggregation",
            "op": aggregate.op.as_str(),
            "expr": of(&aggregate.expr),
            "param": aggregate.param.as_ref().map(of),
            "grouping": aggregate.grouping.labels,
            "without": aggregate.grouping.without,
        }),
        ExprKind::Binary(_) => {
            // In a loop: a chain of operators is as long as it is deep.
            let (first, nodes) = chain(expr);
            nodes.into_iter().fold(of(first), operation)
        }
        ExprKind::Negate(inner) => json!({ "type": "unaryExpr", "op": "-", "expr": of(inner) }),
        ExprKind::Plus(inner) => json!({ "type": "unaryExpr", "op": "+", "expr": of(inner) }),
        ExprKind::Paren(inner) => json!({ "type": "parenExpr", "expr": of(inner) }),
    }
}

fn operation(left: Value, binary: &Binary) -> Value {
    json!({
        "type": "binaryExpr",
        "op": binary.op.as_str(),
        "lhs": left,
        "rhs": of(&binary.right),
        "matching": matched(binary),
        "bool": binary.return_bool,
    })
}

/// `null` where a side is no vector: there is nothing to match then.
fn matched(binary: &Binary) -> Value {
    let Some(matching) = matching(binary) else {
        return Value::Null;
    };
    let card = match matching.cardinality {
        Cardinality::OneToOne if binary.op.is_set() => "many-to-many",
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
    };
    json!({
        "card": card,
        "labels": matching.labels,
        "on": matching.on,
        "include": matching.include,
        "fillValues": { "lhs": matching.fill_left, "rhs": matching.fill_right },
    })
}

fn called(call: &Call) -> Value {
    let function = call.function;
    let arg_types: Vec<_> = function.args.iter().copied().map(type_word).collect();
    let args: Vec<_> = call.args.iter().map(of).collect();
    json!({
        "type": "call",
        "func": {
            "name": function.name,
            "argTypes": arg_types,
            "variadic": function.variadic,
            "returnType": type_word(function.returns),
        },
        "args": args,
    })
}

fn type_word(value: ValueType) -> &'static str {
    match value {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Vector => "vector",
        ValueType::Matrix => "matrix",
    }
}

fn selected(kind: &str, selector: &Selector) -> Map<String, Value> {
    let matchers: Vec<_> = selector.matchers.iter().map(test).collect();
    let mut tree = Map::new();
    tree.insert("type".to_owned(), json!(kind));
    let name = selector.name.as_deref().unwrap_or_default();
    tree.insert("name".to_owned(), json!(name));
    tree.insert("matchers".to_owned(), Value::Array(matchers));
    let edges = selector.edges;
    tree.insert("anchored".to_owned(), json!(edges == Edges::Anchored));
    tree.insert("smoothed".to_owned(), json!(edges == Edges::Smoothed));
    put_shift(&mut tree, &selector.time);
    tree
}

fn test(matcher: &Matcher) -> Value {
    json!({
        "name": matcher.name(),
        "value": matcher.value(),
        "type": matcher.op().as_str(),
    })
}

fn put_shift(tree: &mut Map<String, Value>, time: &TimeShift) {
    put_duration(tree, "offset", time.offset.as_ref());
    let (timestamp, word) = match time.at {
        None => (None, None),
        Some(At::Start) => (None, Some("start")),
        Some(At::End) => (None, Some("end")),
        Some(At::Time(ms)) => (Some(ms), None),
    };
    tree.insert("timestamp".to_owned(), json!(timestamp));
    tree.insert("startOrEnd".to_owned(), json!(word));
}

/// Milliseconds where they are written, else 0 and the expression beside it.
fn put_duration(tree: &mut Map<String, Value>, name: &str, duration: Option<&DurationExpr>) {
    let written = duration.and_then(literal);
    let ms = written.map_or(0, |(seconds, _)| literal_ms(seconds));
    let computed = match written {
        Some(_) => Value::Null,
        None => duration.map_or(Value::Null, |duration| computed(duration, false)),
    };
    tree.insert(name.to_owned(), json!(ms));
    tree.insert(format!("{name}Expr"), computed);
}

fn computed(duration: &DurationExpr, wrapped: bool) -> Value {
    if let Some((seconds, units)) = literal(duration) {
        return json!({ "type": "numberLiteral", "val": format_f(seconds), "duration": units });
    }
    let node = |op: &str, lhs: Value, rhs: Value| json!({ "type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": wrapped });
    match duration {
        DurationExpr::Number(_) | DurationExpr::Units(_) => Value::Null,
        DurationExpr::Paren(inner) => computed(inner, true),
        DurationExpr::Step => node("step", Value::Null, Value::Null),
        DurationExpr::Range => node("range", Value::Null, Value::Null),
        DurationExpr::Negate(inner) => node("-", Value::Null, computed(inner, false)),
        DurationExpr::Binary(op, left, right) => {
            node(op_word(*op), computed(left, false), computed(right, false))
        }
    }
}
