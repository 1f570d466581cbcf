//! `match[]` parameters.

use millrace_model::Matcher;

use super::Evaluate;
use super::error::ApiError;
use super::params::Params;

/// The label tests of every `match[]`.
pub(super) fn matcher_sets(
    engine: &dyn Evaluate,
    params: &Params,
) -> Result<Vec<Vec<Matcher>>, ApiError> {
    params
        .all("match[]")
        .map(|text| {
            let matchers = engine.selector(text)?;
            if matchers.iter().all(Matcher::matches_empty) {
                return Err(ApiError::bad_data(
                    "match[] must contain at least one non-empty matcher",
                ));
            }
            Ok(matchers)
        })
        .collect()
}
