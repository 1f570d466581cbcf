//! `format_query` and `parse_query` against what the real Prometheus answers to the same
//! expressions; `prometheus/README.md` says where the answers come from.

use std::sync::Arc;

use millrace_query::{Engine, EngineOptions};
use serde_json::Value;

use crate::client::Fixture;
use crate::table::Table;

const GOLDEN: &str = include_str!("prometheus/ast.jsonl");

/// What is answered otherwise, and why.
const DIFFERENT: &[(&str, &str)] = &[(
    r#""\xff""#,
    "an answer is JSON, and so UTF-8: other bytes are replaced",
)];

fn cases() -> impl Iterator<Item = Value> {
    let lines = GOLDEN.lines();
    let all = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|case| {
        let known = DIFFERENT.iter().any(|(text, _)| case["q"] == *text);
        !known
    })
}

fn engine() -> Engine {
    Engine::new(Arc::new(Table::default()), EngineOptions::default())
}

#[test]
fn expressions_are_laid_out_as_prometheus_does() {
    let engine = engine();
    let (mut laid_out, mut refused) = (0, 0);
    for case in cases() {
        let text = case["q"].as_str().unwrap();
        match case["format"].as_str() {
            Some(layout) => {
                let ours = engine
                    .format(text)
                    .unwrap_or_else(|e| panic!("{text}: {e}"));
                assert_eq!(ours, layout, "{text}");
                let again = engine.format(&ours).unwrap();
                // `+Inf ^ 3` is read as `+(Inf ^ 3)`, and gets one more sign each time.
                if !ours.contains("+Inf") {
                    assert_eq!(again, ours, "{text}: laid out twice");
                }
                laid_out += 1;
            }
            None => {
                assert!(engine.format(text).is_err(), "{text}: {}", case["err"]);
                refused += 1;
            }
        }
    }
    assert!(laid_out > 400 && refused > 10, "{laid_out}, {refused}");
}

#[test]
fn trees_are_those_of_prometheus() {
    let engine = engine();
    let mut compared = 0;
    for case in cases().filter(|case| !case["tree"].is_null()) {
        let text = case["q"].as_str().unwrap();
        let mut expect = case["tree"].clone();
        let mut ours = engine.describe(text).unwrap();
        whole_numbers(&mut expect);
        whole_numbers(&mut ours);
        assert_eq!(ours, expect, "{text}");
        compared += 1;
    }
    assert!(compared > 400, "{compared}");
}

/// Go writes the float 1 as `1`, serde_json as `1.0`: the same number to every reader.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number
                .as_f64()
                .filter(|f| f.fract() == 0.0 && f.abs() < 1e15)
            {
                *value = (whole as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The longest chain that the bounds allow, on a query thread's stack.
#[tokio::test]
async fn a_chain_of_a_thousand_operators_is_shown() {
    let f = Fixture::new();
    let text = format!("1{}", "%2B1".repeat(900));
    let reply = f.post("format_query", &format!("query={text}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.text.matches('+').count(), 900);
    let reply = f.post("parse_query", &format!("query={text}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.text.matches("binaryExpr").count(), 900);
}
