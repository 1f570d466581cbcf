//! `match[]` parameters.

use millrace_model::{METRIC_NAME, MatchOp, Matcher};
use promql_parser::label::MatchOp as ParsedOp;
use promql_parser::parser::Expr;

use super::Evaluate;
use super::error::ApiError;
use super::params::Params;
use crate::QueryError;

/// A selector of everything, as Prometheus refuses it here and in an expression.
const EMPTY: &str = "match[] must contain at least one non-empty matcher";
const EMPTY_IN_EXPRESSION: &str = "vector selector must contain at least one non-empty matcher";

/// The label tests of every `match[]`, in Prometheus's words where one cannot be taken.
pub(super) fn matcher_sets(
    engine: &dyn Evaluate,
    params: &Params,
) -> Result<Vec<Vec<Matcher>>, ApiError> {
    params
        .all("match[]")
        .map(|text| matchers(engine, text))
        .collect()
}

fn matchers(engine: &dyn Evaluate, text: &str) -> Result<Vec<Matcher>, ApiError> {
    let expr = engine.parse(text).map_err(|error| match error {
        // The same fault in an expression has other words.
        QueryError::BadData(reason) if reason.ends_with(EMPTY_IN_EXPRESSION) => {
            ApiError::bad_data(EMPTY)
        }
        error => error.into(),
    })?;
    let selector = match expr {
        Expr::VectorSelector(selector) => selector,
        other => {
            return Err(ApiError::bad_data(format!(
                "{text:?} is no series selector but of type {}",
                other.value_type()
            )));
        }
    };
    if selector.offset.is_some() || selector.at.is_some() {
        return Err(ApiError::bad_data(format!(
            "{text:?}: a series selector takes neither offset nor @"
        )));
    }
    if !selector.matchers.or_matchers.is_empty() {
        return Err(ApiError::bad_data(format!(
            "{text:?}: \"or\" between label matchers is not PromQL"
        )));
    }
    let mut matchers: Vec<Matcher> = selector
        .name
        .iter()
        .map(|name| Matcher::equal(METRIC_NAME, name))
        .collect();
    for parsed in selector.matchers.matchers {
        let op = match parsed.op {
            ParsedOp::Equal => MatchOp::Equal,
            ParsedOp::NotEqual => MatchOp::NotEqual,
            ParsedOp::Re(_) => MatchOp::Regex,
            ParsedOp::NotRe(_) => MatchOp::NotRegex,
        };
        let matcher = Matcher::new(parsed.name, op, parsed.value)
            .map_err(|error| ApiError::bad_data(error.to_string()))?;
        matchers.push(matcher);
    }
    if matchers.iter().all(Matcher::matches_empty) {
        return Err(ApiError::bad_data(EMPTY));
    }
    Ok(matchers)
}
