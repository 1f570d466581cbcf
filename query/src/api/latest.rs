//! `latest`: the newest sample of every series, however old it is: the current state of a fleet.
//!
//! A series whose newest sample is a staleness marker has gone, and is left out. One that has been
//! silent for longer than `stale_after` is told as stale.
//!
//! With a `limit` the answer is a page: series in order of their labels, and a token with which the
//! next page begins behind the last of them. Without, they are in no special order, and nobody waits
//! for a sort of a million label sets. Either way the samples are read while the answer is written, so
//! that one of any length needs little memory beside the list of the series.

use std::sync::Arc;
use std::time::Duration;
use std::vec::IntoIter;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use millrace_model::{Labels, TimeRange, TimestampMs, is_stale};

use super::answer::PIECE_BYTES;
use super::body::Write;
use super::error::ApiError;
use super::params::Params;
use super::selector::matcher_sets;
use super::{Api, App, json, numbers};
use crate::{CancelFlag, QueryError, ReadContext, SampleColumns, Select, StoredSeries};

/// Series between two looks whether anybody still waits.
const SERIES_AT_ONCE: usize = 256;

/// Answers the request.
pub(super) async fn latest(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let limit = params.limit()?;
    let after = params.get("token").map(from_token).transpose()?;
    let stale_after_ms = stale_after_ms(&params, app.api.options.stale_after)?;
    let partial = params.partial()?;
    let Api {
        engine,
        source,
        clock,
        ..
    } = app.api.clone();
    let work = move |cancel: &CancelFlag, _| {
        let context = ReadContext::new(partial, cancel.clone(), None);
        let context = Arc::new(context.at(params.point.clone()));
        let sets = matcher_sets(engine.as_ref(), &params)
            .map_err(|error| ApiError::invalid("match[]", error))?;
        let mut series = Vec::new();
        for matchers in &sets {
            series.append(&mut source.newest(&Select {
                tenant: &params.scope.tenant,
                matchers,
                range: TimeRange::ALL,
                context: &context,
            })?);
        }
        if sets.len() > 1 {
            series.sort_unstable_by(|a, b| a.labels().cmp(b.labels()));
            series.dedup_by(|a, b| a.labels() == b.labels());
        }
        let next = page(&mut series, after.as_ref(), limit);
        Ok(Box::new(Newest {
            series: series.into_iter(),
            now: clock.now(),
            stale_after_ms,
            next,
            columns: SampleColumns::default(),
            context,
            part: Part::Head,
        }) as Box<dyn Write>)
    };
    app.stream(CancelFlag::default(), json::CONTENT_TYPE, work)
        .await
}

/// Leaves those of the page, and says where the next one begins, if there is one.
fn page(
    series: &mut Vec<Box<dyn StoredSeries>>,
    after: Option<&Labels>,
    limit: Option<usize>,
) -> Option<String> {
    if let Some(after) = after {
        series.retain(|series| series.labels() > after);
    }
    let limit = limit?;
    let more = series.len() > limit;
    if more {
        // A page of a million need not put the million in order.
        series.select_nth_unstable_by(limit, |a, b| a.labels().cmp(b.labels()));
        series.truncate(limit);
    }
    series.sort_unstable_by(|a, b| a.labels().cmp(b.labels()));
    let last = series.last().filter(|_| more)?;
    Some(to_token(last.labels()))
}

/// The canonical form of the labels behind which a page begins, in hexadecimal digits.
fn to_token(labels: &Labels) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|d| char::from(b"0123456789abcdef"[d as usize]));
    labels.canonical().iter().flat_map(digits).collect()
}

fn from_token(text: &str) -> Result<Labels, ApiError> {
    let refused = || ApiError::invalid("token", "it is not the `next` of an answer");
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    Labels::from_canonical(&bytes.ok_or_else(refused)?).map_err(|_| refused())
}

/// `stale_after` of the request, or what is set.
fn stale_after_ms(params: &Params, default: Duration) -> Result<i64, ApiError> {
    let Some(text) = params.get("stale_after") else {
        return Ok(i64::try_from(default.as_millis()).unwrap_or(i64::MAX));
    };
    let nanos =
        numbers::duration_ns(text).map_err(|error| ApiError::invalid("stale_after", error))?;
    if nanos < 0 {
        return Err(ApiError::invalid("stale_after", "it must not be negative"));
    }
    Ok(nanos / 1_000_000)
}

/// The answer, and how far it is written.
struct Newest {
    series: IntoIter<Box<dyn StoredSeries>>,
    now: TimestampMs,
    stale_after_ms: i64,
    next: Option<String>,
    columns: SampleColumns,
    context: Arc<ReadContext>,
    part: Part,
}

/// The part of the document that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    /// Whether a series was written before.
    Series(bool),
    Nothing,
}

impl Newest {
    /// Writes a series that has not gone. Whether it did.
    fn write_series(
        &mut self,
        series: &dyn StoredSeries,
        comma: bool,
        out: &mut Vec<u8>,
    ) -> Result<bool, ApiError> {
        self.columns.clear();
        series.read(&mut self.columns)?;
        let columns = &self.columns;
        let newest = columns.timestamps.last().zip(columns.values.last());
        let Some((&moment, &value)) = newest.filter(|(_, value)| !is_stale(**value)) else {
            return Ok(false);
        };
        let age = self.now.0.saturating_sub(moment);
        out.extend_from_slice(if comma {
            b",{\"metric\":"
        } else {
            b"{\"metric\":"
        });
        json::labels(out, series.labels());
        json::put(out, format_args!(",\"timestamp\":{moment},\"value\":\""));
        json::value(out, value);
        let stale = age > self.stale_after_ms;
        json::put(out, format_args!("\",\"age\":{age},\"stale\":{stale}}}"));
        Ok(true)
    }

    fn write_tail(&self, out: &mut Vec<u8>) {
        out.push(b']');
        if let Some(next) = &self.next {
            out.extend_from_slice(b",\"next\":");
            json::string(out, next);
        }
        out.push(b'}');
        let warnings = self.context.warnings();
        if !warnings.is_empty() {
            out.extend_from_slice(b",\"warnings\":");
            json::strings(out, warnings.iter().map(String::as_str));
        }
        out.push(b'}');
    }
}

impl Write for Newest {
    fn next_piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut out = Vec::new();
        let mut written = match self.part {
            Part::Nothing => return Ok(None),
            Part::Series(written) => written,
            Part::Head => {
                let (now, after) = (self.now.0, self.stale_after_ms);
                json::put(
                    &mut out,
                    format_args!(
                        "{{\"status\":\"success\",\"data\":{{\"now\":{now},\
                         \"staleAfter\":{after},\"series\":["
                    ),
                );
                false
            }
        };
        while out.len() < PIECE_BYTES {
            if self.context.cancel.is_cancelled() {
                let text = "reading the newest samples was canceled";
                return Err(QueryError::Canceled(text.to_owned()).into());
            }
            for _ in 0..SERIES_AT_ONCE {
                let Some(series) = self.series.next() else {
                    self.write_tail(&mut out);
                    self.part = Part::Nothing;
                    return Ok(Some(out.into()));
                };
                written |= self.write_series(&*series, written, &mut out)?;
            }
        }
        self.part = Part::Series(written);
        Ok(Some(out.into()))
    }

    fn is_done(&self) -> bool {
        self.part == Part::Nothing
    }
}
