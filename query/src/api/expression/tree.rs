//! An expression as the tree that Prometheus's `parse_query` answers.

use std::time::{Duration, SystemTime};

use promql_parser::label::{Labels, MatchOp};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{
    AtModifier, BinModifier, BinaryExpr, Call, Expr, LabelModifier, Offset, VectorMatchCardinality,
    VectorSelector,
};
use serde_json::{Map, Value, json};

use crate::api::json::number;

/// The tree of `expr`. Recurses with its depth, which the parser's bounds keep small.
pub(super) fn of(expr: &Expr) -> Value {
    match expr {
        Expr::Aggregate(aggregate) => {
            let (without, grouping) = match &aggregate.modifier {
                None => (false, Vec::new()),
                Some(LabelModifier::Include(labels)) => (false, names(labels)),
                Some(LabelModifier::Exclude(labels)) => (true, names(labels)),
            };
            json!({
                "type": "aggregation",
                "op": aggregate.op.to_string(),
                "expr": of(&aggregate.expr),
                "param": aggregate.param.as_deref().map(of),
                "grouping": grouping,
                "without": without,
            })
        }
        Expr::Unary(unary) => json!({ "type": "unaryExpr", "op": "-", "expr": of(&unary.expr) }),
        Expr::Binary(binary) => json!({
            "type": "binaryExpr",
            "op": binary.op.to_string(),
            "lhs": of(&binary.lhs),
            "rhs": of(&binary.rhs),
            "matching": matching(binary),
            "bool": binary.return_bool(),
        }),
        Expr::Paren(paren) => json!({ "type": "parenExpr", "expr": of(&paren.expr) }),
        Expr::Subquery(subquery) => {
            let mut tree = Map::new();
            tree.insert("type".to_owned(), json!("subquery"));
            tree.insert("expr".to_owned(), of(&subquery.expr));
            tree.insert("range".to_owned(), json!(ms(subquery.range)));
            tree.insert("step".to_owned(), json!(subquery.step.map_or(0, ms)));
            put_shift(&mut tree, subquery.offset.as_ref(), subquery.at.as_ref());
            Value::Object(tree)
        }
        Expr::NumberLiteral(literal) => {
            let mut text = Vec::new();
            number(&mut text, literal.val);
            json!({ "type": "numberLiteral", "val": String::from_utf8_lossy(&text) })
        }
        Expr::StringLiteral(literal) => json!({ "type": "stringLiteral", "val": literal.val }),
        Expr::VectorSelector(selector) => Value::Object(selected("vectorSelector", selector)),
        Expr::MatrixSelector(matrix) => {
            let mut tree = selected("matrixSelector", &matrix.vs);
            tree.insert("range".to_owned(), json!(ms(matrix.range)));
            Value::Object(tree)
        }
        Expr::Call(call) => called(call),
        Expr::Extension(_) => unreachable!("the parser makes no extensions"),
    }
}

fn called(call: &Call) -> Value {
    let arg_types: Vec<_> = call
        .func
        .arg_types
        .iter()
        .map(ValueType::to_string)
        .collect();
    let args: Vec<_> = call.args.args.iter().map(|arg| of(arg)).collect();
    json!({
        "type": "call",
        "func": {
            "name": call.func.name,
            "argTypes": arg_types,
            "variadic": call.func.variadic,
            "returnType": call.func.return_type.to_string(),
        },
        "args": args,
    })
}

fn selected(kind: &str, selector: &VectorSelector) -> Map<String, Value> {
    let mut matchers: Vec<_> = selector
        .matchers
        .matchers
        .iter()
        .map(|matcher| {
            let op = match matcher.op {
                MatchOp::Equal => "=",
                MatchOp::NotEqual => "!=",
                MatchOp::Re(_) => "=~",
                MatchOp::NotRe(_) => "!~",
            };
            json!({ "name": matcher.name, "value": matcher.value, "type": op })
        })
        .collect();
    if let Some(name) = &selector.name {
        // Prometheus lists the metric's name as a test like the others, after them.
        matchers.push(json!({ "name": "__name__", "value": name, "type": "=" }));
    }
    let mut tree = Map::new();
    tree.insert("type".to_owned(), json!(kind));
    tree.insert(
        "name".to_owned(),
        json!(selector.name.as_deref().unwrap_or_default()),
    );
    tree.insert("matchers".to_owned(), Value::Array(matchers));
    put_shift(&mut tree, selector.offset.as_ref(), selector.at.as_ref());
    tree
}

fn put_shift(tree: &mut Map<String, Value>, offset: Option<&Offset>, at: Option<&AtModifier>) {
    let offset = match offset {
        None => 0,
        Some(Offset::Pos(duration)) => ms(*duration),
        Some(Offset::Neg(duration)) => -ms(*duration),
    };
    let (timestamp, word) = match at {
        None => (None, None),
        Some(AtModifier::Start) => (None, Some("start")),
        Some(AtModifier::End) => (None, Some("end")),
        Some(AtModifier::At(time)) => (Some(epoch_ms(*time)), None),
    };
    tree.insert("offset".to_owned(), json!(offset));
    tree.insert("timestamp".to_owned(), json!(timestamp));
    tree.insert("startOrEnd".to_owned(), json!(word));
}

/// `null` where a side is no vector: there is nothing to match then.
fn matching(binary: &BinaryExpr) -> Value {
    let vectors = [&binary.lhs, &binary.rhs]
        .into_iter()
        .all(|side| side.value_type() == ValueType::Vector);
    if !vectors {
        return Value::Null;
    }
    let default = BinModifier::default();
    let modifier = binary.modifier.as_ref().unwrap_or(&default);
    let none = (VectorMatchCardinality::ManyToMany, &None);
    let (card, labels) = if binary.op.is_set_operator() && binary.modifier.is_none() {
        none
    } else {
        (modifier.card.clone(), &modifier.matching)
    };
    let (card, include) = match card {
        VectorMatchCardinality::OneToOne => ("one-to-one", Vec::new()),
        VectorMatchCardinality::ManyToOne(labels) => ("many-to-one", names(&labels)),
        VectorMatchCardinality::OneToMany(labels) => ("one-to-many", names(&labels)),
        VectorMatchCardinality::ManyToMany => ("many-to-many", Vec::new()),
    };
    let (on, labels) = match labels {
        None => (false, Vec::new()),
        Some(LabelModifier::Include(labels)) => (true, names(labels)),
        Some(LabelModifier::Exclude(labels)) => (false, names(labels)),
    };
    json!({ "card": card, "labels": labels, "on": on, "include": include })
}

fn names(labels: &Labels) -> Vec<String> {
    labels.labels.clone()
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn epoch_ms(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => ms(after),
        Err(before) => -ms(before.duration()),
    }
}
