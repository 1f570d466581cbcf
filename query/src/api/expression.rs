//! `format_query`, `parse_query` and `query_exemplars`: expressions that are read and not
//! evaluated.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::answer::Answer;
use super::error::ApiError;
use super::json;
use super::params::Params;
use super::{App, Evaluate};
use crate::QueryError;

/// The expression in its usual layout.
pub(super) async fn format(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    read(&app, &params, |engine, text| {
        let mut out = Vec::new();
        json::string(&mut out, &engine.format(text)?);
        Ok(out)
    })
    .await
}

/// The expression as a tree.
pub(super) async fn parse(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    read(&app, &params, |engine, text| {
        Ok(engine.describe(text)?.to_string().into_bytes())
    })
    .await
}

/// Exemplars are not stored yet, so there are none of any series. The parameters are checked all
/// the same; Grafana probes with times in milliseconds, in the far future when read as seconds.
pub(super) async fn exemplars(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let range = params.range()?;
    if range.end < range.start {
        return Err(ApiError::bad_data(
            "end timestamp must not be before start timestamp",
        ));
    }
    let text = params.get("query").unwrap_or_default().to_owned();
    let engine = app.api.engine.clone();
    app.answer(move |_, _| {
        engine.check(&text)?;
        Ok(Answer::document(b"[]".to_vec()))
    })
    .await
}

/// Reads the parameter `query` and answers what `write` makes of it.
async fn read(
    app: &Arc<App>,
    params: &Params,
    write: fn(&dyn Evaluate, &str) -> Result<Vec<u8>, QueryError>,
) -> Result<Response, ApiError> {
    let text = params.get("query").unwrap_or_default().to_owned();
    let engine = app.api.engine.clone();
    // On a query thread: reading and writing recurse with the expression's depth, and the threads
    // of the runtime have small stacks.
    app.answer(move |_, _| {
        let written = write(&*engine, &text).map_err(ApiError::of_query)?;
        Ok(Answer::document(written))
    })
    .await
}
