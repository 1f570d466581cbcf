//! Remote read: what a second Prometheus, Thanos and others ask for when they evaluate over our
//! series themselves (<https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/>).
//!
//! The request is a protobuf message in a snappy block. The answer is either such a message with
//! all samples, or a stream of frames with chunks in Prometheus's own encoding; the first type in
//! the client's list that is known here is taken, and no list means samples.

mod proto;
mod stream;
mod xor;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use millrace_model::{MatchOp, Matcher, TenantId, TimeRange};
use prost::Message as _;

use super::error::ApiError;
use super::params::read_body;
use super::{App, body};
use crate::{
    CancelFlag, ReadContext, ReadPoint, ReadScope, SampleColumns, Select, SeriesSource,
    StoredSeries,
};
use proto::{Query, ReadRequest, Sample, TimeSeries};
use stream::{Frames, check};

/// [`ReadRequest::accepted_response_types`].
const SAMPLES: i32 = 0;
const STREAMED_XOR_CHUNKS: i32 = 1;

const SAMPLES_TYPE: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const STREAM_TYPE: HeaderValue = HeaderValue::from_static(
    "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse",
);

/// Longest request after decompression, as in Prometheus. It is compressed at least 1:1, and the
/// bound on forms holds for what is sent.
const REQUEST_BYTES_MAX: usize = 32 << 20;

/// `POST /api/v1/read`.
pub(super) async fn read(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let tenant = ReadScope::of(&parts.extensions).tenant;
    let point: Arc<ReadPoint> = parts.extensions.get().cloned().unwrap_or_default();
    let body = read_body(body, app.api.options.max_form_bytes).await?;
    let request = decode(&body)?;
    let kind = negotiate(&request.accepted_response_types)?;
    let queries = request
        .queries
        .iter()
        .map(|query| Wanted::new(&tenant, query))
        .collect::<Result<Vec<_>, _>>()?;
    let source = app.api.source.clone();
    let options = &app.api.options;
    let (frame_bytes, max_samples) = (options.remote_read_frame_bytes, options.remote_read_samples);
    let context = move |cancel: &CancelFlag| {
        let context = ReadContext::new(false, cancel.clone(), None);
        Arc::new(context.at(point))
    };
    match kind {
        Kind::Chunks => {
            let work = move |cancel: &CancelFlag, _| {
                let frames = Frames::new(source, context(cancel), queries, frame_bytes);
                Ok(Box::new(frames) as Box<dyn body::Write>)
            };
            app.stream(CancelFlag::default(), STREAM_TYPE, work).await
        }
        Kind::Samples => {
            let work = move |cancel: &CancelFlag, _| {
                let answer = samples(&*source, &context(cancel), &queries, max_samples)?;
                Ok(Box::new(Whole(Some(answer))) as Box<dyn body::Write>)
            };
            let mut response = app
                .stream(CancelFlag::default(), SAMPLES_TYPE, work)
                .await?;
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("snappy"));
            Ok(response)
        }
    }
}

enum Kind {
    Samples,
    Chunks,
}

fn negotiate(accepted: &[i32]) -> Result<Kind, ApiError> {
    if accepted.is_empty() {
        return Ok(Kind::Samples);
    }
    let known = |kind: &i32| match *kind {
        SAMPLES => Some(Kind::Samples),
        STREAMED_XOR_CHUNKS => Some(Kind::Chunks),
        _ => None,
    };
    accepted.iter().find_map(known).ok_or_else(|| {
        ApiError::bad_data(format!(
            "server does not support any of the requested response types: {accepted:?}; \
             supported: SAMPLES (0), STREAMED_XOR_CHUNKS (1)"
        ))
    })
}

fn decode(body: &[u8]) -> Result<ReadRequest, ApiError> {
    let bad = |reason: &dyn std::fmt::Display| {
        ApiError::bad_data(format!("error decoding the remote read request: {reason}"))
    };
    let length = snap::raw::decompress_len(body).map_err(|error| bad(&error))?;
    if length > REQUEST_BYTES_MAX {
        return Err(ApiError::too_large(format!(
            "remote read request larger than the limit of {REQUEST_BYTES_MAX} bytes"
        )));
    }
    let message = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|error| bad(&error))?;
    ReadRequest::decode(&message[..]).map_err(|error| bad(&error))
}

/// What one query of the request selects.
struct Wanted {
    tenant: TenantId,
    matchers: Vec<Matcher>,
    range: TimeRange,
    /// Label sets are all that is wanted.
    no_samples: bool,
}

impl Wanted {
    fn new(tenant: &TenantId, query: &Query) -> Result<Self, ApiError> {
        let matchers = query
            .matchers
            .iter()
            .map(|matcher| {
                let op = match matcher.op {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    other => {
                        return Err(ApiError::bad_data(format!("unknown matcher type {other}")));
                    }
                };
                Matcher::new(matcher.name.clone(), op, matcher.value.clone())
                    .map_err(|error| ApiError::bad_data(error.to_string()))
            })
            .collect::<Result<_, _>>()?;
        let (mut start, mut end) = (query.start_ms, query.end_ms);
        if let Some(hints) = &query.hints {
            // What the reader will look at; never more than it asked for.
            start = start.max(hints.start_ms);
            end = end.min(hints.end_ms);
        }
        Ok(Self {
            tenant: tenant.clone(),
            matchers,
            range: TimeRange::new(start, end),
            no_samples: query.hints.as_ref().is_some_and(|h| h.func == "series"),
        })
    }

    /// The series, sorted by their labels.
    fn select(
        &self,
        source: &dyn SeriesSource,
        context: &Arc<ReadContext>,
    ) -> Result<Vec<Box<dyn StoredSeries>>, ApiError> {
        if self.range.start > self.range.end {
            return Ok(Vec::new());
        }
        let mut series = source.select(&Select {
            tenant: &self.tenant,
            matchers: &self.matchers,
            range: self.range,
            context,
        })?;
        series.sort_by(|a, b| a.labels().cmp(b.labels()));
        Ok(series)
    }
}

/// `ReadResponse.results` and `QueryResult.timeseries`: field 1, length-delimited.
const FIELD_1: u8 = 1 << 3 | 2;

fn samples(
    source: &dyn SeriesSource,
    context: &Arc<ReadContext>,
    queries: &[Wanted],
    max_samples: u64,
) -> Result<Bytes, ApiError> {
    let mut answer = Vec::new();
    let mut left = max_samples;
    let mut columns = SampleColumns::default();
    for wanted in queries {
        let mut result = Vec::new();
        for series in wanted.select(source, context)? {
            check(context)?;
            columns.clear();
            if !wanted.no_samples {
                series.read(&mut columns)?;
                if columns.is_empty() {
                    continue;
                }
            }
            left = left.checked_sub(columns.len() as u64).ok_or_else(|| {
                ApiError::bad_data(format!(
                    "exceeded sample limit ({max_samples}); ask for STREAMED_XOR_CHUNKS, which \
                     has none"
                ))
            })?;
            let message = TimeSeries {
                labels: proto::labels(series.labels()),
                samples: columns
                    .timestamps
                    .iter()
                    .zip(&columns.values)
                    .map(|(&timestamp_ms, &value)| Sample {
                        value,
                        timestamp_ms,
                    })
                    .collect(),
            };
            result.push(FIELD_1);
            message
                .encode_length_delimited(&mut result)
                .expect("a vector takes every write");
        }
        answer.push(FIELD_1);
        prost::encoding::encode_varint(result.len() as u64, &mut answer);
        answer.append(&mut result);
    }
    snap::raw::Encoder::new()
        .compress_vec(&answer)
        .map(Bytes::from)
        .map_err(|error| ApiError::execution(format!("the answer cannot be compressed: {error}")))
}

/// An answer that is one piece.
struct Whole(Option<Bytes>);

impl body::Write for Whole {
    fn next_piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        Ok(self.0.take())
    }

    fn is_done(&self) -> bool {
        self.0.is_none()
    }
}
