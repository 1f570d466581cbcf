//! `query` and `query_range`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;

use super::answer::Answer;
use super::error::ApiError;
use super::explain::Explain;
use super::json::CONTENT_TYPE;
use super::numbers::duration_ns;
use super::params::Params;
use super::running::{Begin, Listed};
use super::{Api, App, body};
use crate::{CancelFlag, QueryError, QueryRequest, QueryTime, QueryWatch, StatsLevel};

const NS_PER_MS: i64 = 1_000_000;

/// An expression at one moment.
pub(super) async fn instant(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let time = match params.get("time") {
        None => app.api.clock.now(),
        // Prometheus names the parameter twice here, and clients compare texts.
        Some(_) => params
            .time("time")
            .map_err(|error| {
                let reason = error.to_string();
                let reason = reason
                    .strip_prefix("invalid parameter \"time\": ")
                    .unwrap_or(&reason);
                ApiError::invalid(
                    "time",
                    format_args!("Invalid time value for 'time': {reason}"),
                )
            })?
            .unwrap_or_else(|| app.api.clock.now()),
    };
    evaluate(&app, &params, "query", QueryTime::Instant(time), limit).await
}

/// An expression at many moments.
pub(super) async fn range(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.limit()?;
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    if end < start {
        return Err(ApiError::invalid(
            "end",
            "end timestamp must not be before start time",
        ));
    }
    let step = params.get("step").unwrap_or_default();
    let step_ns = duration_ns(step).map_err(|error| ApiError::invalid("step", error))?;
    // The engine's steps are whole milliseconds; less than one would not get anywhere.
    let step_ms = step_ns / NS_PER_MS;
    if step_ms <= 0 {
        return Err(ApiError::invalid(
            "step",
            "zero or negative query resolution step widths are not accepted. Try a positive \
             integer",
        ));
    }
    let steps = end.0.checked_sub(start.0).map(|span| span / step_ms);
    if steps.is_none_or(|steps| steps > app.api.options.max_steps) {
        return Err(ApiError::bad_data(format!(
            "exceeded maximum resolution of {} points per timeseries. Try decreasing the query \
             resolution (?step=XX)",
            thousands(app.api.options.max_steps)
        )));
    }
    let time = QueryTime::Range {
        start,
        end,
        step_ms,
    };
    evaluate(&app, &params, "query_range", time, limit).await
}

async fn evaluate(
    app: &Arc<App>,
    params: &Params,
    endpoint: &'static str,
    time: QueryTime,
    limit: Option<usize>,
) -> Result<Response, ApiError> {
    let timeout =
        duration(params, "timeout").map_err(|error| ApiError::invalid("timeout", error))?;
    let lookback = duration(params, "lookback_delta").map_err(|error| {
        ApiError::bad_data(format!("error parsing lookback delta duration: {error}"))
    })?;
    let partial = params.partial()?;
    let level = match params.get("stats") {
        None => StatsLevel::None,
        Some("all") => StatsLevel::PerStep,
        Some(_) => StatsLevel::Totals,
    };
    let want_explain = params.flag("explain")?;
    let text = params.get("query").unwrap_or_default().to_owned();
    let listed = Listed::new(
        app,
        Begin {
            scope: &params.scope,
            endpoint,
            text: &text,
            time,
            headers: &params.headers,
            watch: QueryWatch::new(level),
        },
    );
    let entry = listed.entry.clone();
    let tenant = params.scope.tenant.clone();
    let point = params.point.clone();
    let Api {
        engine, freshness, ..
    } = app.api.clone();
    let work = move |cancel: &CancelFlag, waited| {
        entry.begin();
        let partitions = freshness.partitions();
        let request = QueryRequest {
            tenant,
            text,
            time,
            // Not positive means the engine's own, as in Prometheus.
            lookback: lookback.filter(|lookback| !lookback.is_zero()),
            timeout,
            cancel: cancel.clone(),
            partial,
            point,
        };
        let outcome = engine
            .query(&request, &entry.watch)
            .map_err(ApiError::of_query)?;
        let stats = outcome.stats.clone();
        let mut answer = Answer::query(outcome, limit);
        if level != StatsLevel::None {
            answer = answer.with_stats(waited, stats.clone());
        }
        if want_explain {
            let explain = Explain::new(waited, stats, entry.watch.reads(), partitions);
            answer = answer.with_explain(explain);
        }
        Ok(Box::new(answer) as Box<dyn body::Write>)
    };
    let cancel = listed.entry.cancel.clone();
    let answered = tokio::select! {
        answered = app.stream(cancel, CONTENT_TYPE, work) => answered,
        () = listed.entry.stopped_waiting() => {
            let text = "query was canceled while it waited for its turn";
            Err(QueryError::Canceled(text.to_owned()).into())
        }
    };
    listed.ended(answered.as_ref().map(drop));
    answered
}

/// A duration, if it is given; a negative one counts as none at all.
fn duration(
    params: &Params,
    name: &str,
) -> Result<Option<Duration>, super::numbers::DurationError> {
    let text = params.get(name);
    let ns = text.map(duration_ns).transpose()?;
    Ok(ns.map(|ns| Duration::from_nanos(u64::try_from(ns).unwrap_or(0))))
}

/// `11,000`
fn thousands(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
