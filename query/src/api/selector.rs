//! `match[]` parameters.

use millrace_model::Matcher;

use super::Evaluate;
use super::error::ApiError;
use super::params::Params;
use crate::QueryError;

/// A selector that every series passes, as it is refused here and in an expression.
const EMPTY: &str = "match[] must contain at least one non-empty matcher";
const EMPTY_IN_EXPRESSION: &str = "vector selector must contain at least one non-empty matcher";

/// The label tests of every `match[]`.
pub(super) fn matcher_sets(
    engine: &dyn Evaluate,
    params: &Params,
) -> Result<Vec<Vec<Matcher>>, ApiError> {
    params
        .all("match[]")
        .map(|text| {
            let matchers = engine.selector(text).map_err(|error| match error {
                QueryError::BadData(reason) if reason.ends_with(EMPTY_IN_EXPRESSION) => {
                    ApiError::bad_data(EMPTY)
                }
                error => error.into(),
            })?;
            if matchers.iter().all(Matcher::matches_empty) {
                return Err(ApiError::bad_data(EMPTY));
            }
            Ok(matchers)
        })
        .collect()
}
