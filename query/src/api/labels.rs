//! `series`, `labels`, `label/{name}/values` and `metadata`: what Grafana's builders and variables
//! ask before they ask for samples.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use millrace_model::MetricMetadata;

use super::answer::Answer;
use super::error::ApiError;
use super::params::Params;
use super::selector::matcher_sets;
use super::{Api, App};
use crate::{CancelFlag, LabelRequest, ReadContext, Select};

/// The label sets of series that pass one of the selectors.
pub(super) async fn series(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let range = params.range()?;
    let Api { engine, source, .. } = app.api.clone();
    let partial = params.partial()?;
    app.answer(move |cancel, _| {
        let context = reading(cancel, partial, &params);
        let sets = matcher_sets(engine.as_ref(), &params)
            .map_err(|error| ApiError::invalid("match[]", error))?;
        let mut series = Vec::new();
        for matchers in &sets {
            let request = Select {
                tenant: &params.scope.tenant,
                matchers,
                range,
                context: &context,
            };
            series.append(&mut source.series(&request)?);
        }
        if sets.len() > 1 {
            series.sort_unstable();
            series.dedup();
        }
        Ok(Answer::series(series, limit).warn(context.warnings()))
    })
    .await
}

/// The names of labels.
pub(super) async fn names(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let range = params.range()?;
    let Api { engine, source, .. } = app.api.clone();
    let partial = params.partial()?;
    app.answer(move |cancel, _| {
        let context = reading(cancel, partial, &params);
        let sets = matcher_sets(engine.as_ref(), &params)?;
        let request = LabelRequest {
            tenant: &params.scope.tenant,
            matcher_sets: &sets,
            range,
            context: &context,
        };
        let names = source.label_names(&request)?;
        Ok(Answer::strings(names, limit).warn(context.warnings()))
    })
    .await
}

/// The values of one label.
pub(super) async fn values(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
    params: Params,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|error| ApiError::bad_data(error.body_text()))?;
    let name = unescape_name(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data(format!("invalid label name: {name:?}")));
    }
    let limit = params.limit()?;
    let range = params.range()?;
    let Api { engine, source, .. } = app.api.clone();
    let partial = params.partial()?;
    app.answer(move |cancel, _| {
        let context = reading(cancel, partial, &params);
        let sets = matcher_sets(engine.as_ref(), &params)?;
        let request = LabelRequest {
            tenant: &params.scope.tenant,
            matcher_sets: &sets,
            range,
            context: &context,
        };
        let values = source.label_values(&name, &request)?;
        Ok(Answer::strings(values, limit).warn(context.warnings()))
    })
    .await
}

/// What one request allows its reads.
fn reading(cancel: &CancelFlag, partial: bool, params: &Params) -> Arc<ReadContext> {
    let context = ReadContext::new(partial, cancel.clone(), None);
    Arc::new(context.at(params.point.clone()))
}

/// Types, help texts and units of metrics.
pub(super) async fn metadata(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = count(&params, "limit")?;
    let per_metric = count(&params, "limit_per_metric")?.filter(|&limit| limit > 0);
    let metric = params.get("metric").map(str::to_owned);
    let source = app.api.source.clone();
    let partial = params.partial()?;
    app.answer(move |cancel, _| {
        let context = reading(cancel, partial, &params);
        let entries = source.metadata(&params.scope.tenant, metric.as_deref(), &context)?;
        Ok(Answer::metadata(limited(entries, limit, per_metric)).warn(context.warnings()))
    })
    .await
}

/// A number of metrics; a negative one is no limit, as in Prometheus, and 0 is none at all.
fn count(params: &Params, name: &str) -> Result<Option<usize>, ApiError> {
    let Some(text) = params.get(name) else {
        return Ok(None);
    };
    let number: i64 = text
        .parse()
        .map_err(|_| ApiError::bad_data(format!("{name} must be a number")))?;
    Ok(usize::try_from(number).ok())
}

/// The entries of the first `limit` metrics, `per_metric` of each.
fn limited(
    mut entries: Vec<MetricMetadata>,
    limit: Option<usize>,
    per_metric: Option<usize>,
) -> Vec<MetricMetadata> {
    let mut metrics = 0;
    let mut of_metric = 0;
    let mut previous: Option<String> = None;
    entries.retain(|entry| {
        if previous.as_deref() != Some(&entry.metric) {
            previous = Some(entry.metric.clone());
            metrics += 1;
            of_metric = 0;
        }
        of_metric += 1;
        limit.is_none_or(|limit| metrics <= limit)
            && per_metric.is_none_or(|limit| of_metric <= limit)
    });
    entries
}

/// Takes back the escaping by which clients bring any label name into a path: after `U__`, `__`
/// stands for `_` and `_2e_` for the character of that code. A name that is not escaped so is
/// meant as it is.
fn unescape_name(name: &str) -> String {
    name.strip_prefix("U__")
        .and_then(unescape_rest)
        .unwrap_or_else(|| name.to_owned())
}

fn unescape_rest(escaped: &str) -> Option<String> {
    /// Digits of the greatest character code.
    const MAX_DIGITS: usize = 6;
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find('_')?;
        let code = &rest[..end];
        rest = &rest[end + 1..];
        if code.is_empty() {
            out.push('_');
            continue;
        }
        let hex = code.bytes().all(|b| b.is_ascii_hexdigit());
        if code.len() > MAX_DIGITS || !hex {
            return None;
        }
        out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_label_names_are_taken_back() {
        let cases = [
            ("instance", "instance"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U___fc_", "ü"),
            ("U__x_1F600_y", "x😀y"),
            // Not escaped by these rules: meant as it is.
            ("U__a_zz_", "U__a_zz_"),
            ("U__a_b", "U__a_b"),
            ("U__a_d800_", "U__a_d800_"),
            ("U__a_1234567_", "U__a_1234567_"),
            ("U_a_2e_", "U_a_2e_"),
        ];
        for (escaped, name) in cases {
            assert_eq!(unescape_name(escaped), name, "{escaped}");
        }
    }
}
