//! `/api/v1/export`: series as VictoriaMetrics exports them, streamed.
//!
//! Invariants:
//! - One series is in memory at a time, beside the label sets of those that were selected.
//! - What cannot be read breaks the connection: an answer that ends well is whole.

pub mod lines;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use millrace_model::{Matcher, TimeRange};
use millrace_query::{
    Engine, LabelRequest, ReadContext, ReadPoint, ReadScope, SampleColumns, ScopedSource, Select,
    SeriesSource, SourceError, StoredSeries,
};
use tokio::sync::mpsc;
use tracing::warn;

use self::lines::{Format, csv_header, csv_lines, json_line};
use crate::admin::{Refusal, find, pairs, time};

/// Samples of one line: what reads it again need not hold a long series at once.
pub const SAMPLES_PER_LINE: usize = 10_000;
/// The answer goes out in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;
/// So many of them may wait for a slow client.
const PIECES_WAITING: usize = 4;

/// What the endpoint needs.
pub struct Export {
    /// Where the samples are.
    pub source: Arc<dyn SeriesSource>,
    /// Reads selectors.
    pub engine: Arc<Engine>,
}

/// The route.
pub fn router(mut export: Export) -> Router {
    export.source = Arc::new(ScopedSource::new(export.source));
    Router::new()
        .route("/api/v1/export", get(answer).post(answer))
        .with_state(Arc::new(export))
}

/// What is asked for.
struct Wanted {
    selectors: Vec<Vec<Matcher>>,
    range: TimeRange,
    format: Format,
    per_line: usize,
}

impl Wanted {
    fn read(engine: &Engine, pairs: &[(String, String)]) -> Result<Self, Refusal> {
        let matches = pairs.iter().filter(|(name, _)| name == "match[]");
        let selectors = matches.map(|(_, text)| {
            engine.parse_selector(text).map_err(|error| {
                Refusal::bad_data(format!("invalid parameter \"match[]\": {error}"))
            })
        });
        let selectors = selectors.collect::<Result<Vec<_>, _>>()?;
        if selectors.is_empty() {
            return Err(Refusal::bad_data("no match[] parameter provided"));
        }
        let format = match find(pairs, "format") {
            None | Some("json") => Format::Json,
            Some("csv") => Format::Csv,
            Some(other) => {
                return Err(Refusal::bad_data(format!(
                    "invalid parameter \"format\": {other:?} is neither json nor csv"
                )));
            }
        };
        let per_line = match find(pairs, "max_rows_per_line").map(str::parse) {
            None => SAMPLES_PER_LINE,
            Some(Ok(0)) => usize::MAX,
            Some(Ok(rows)) => rows,
            Some(Err(_)) => {
                return Err(Refusal::bad_data(
                    "invalid parameter \"max_rows_per_line\": no number",
                ));
            }
        };
        Ok(Self {
            selectors,
            range: TimeRange {
                start: time(pairs, "start", TimeRange::ALL.start)?,
                end: time(pairs, "end", TimeRange::ALL.end)?,
            },
            format,
            per_line,
        })
    }
}

async fn answer(
    State(export): State<Arc<Export>>,
    scope: ReadScope,
    request: Request,
) -> Result<Response, Refusal> {
    let wanted = Wanted::read(&export.engine, &pairs(request).await?)?;
    let content_type = match wanted.format {
        Format::Json => "application/stream+json",
        Format::Csv => "text/csv; charset=utf-8",
    };
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES_WAITING);
    let series = {
        let export = export.clone();
        let selected = tokio::task::spawn_blocking(move || {
            let found = select(&*export.source, &scope, &wanted)?;
            Ok::<_, SourceError>((found, wanted))
        });
        selected
            .await
            .map_err(|error| Refusal::unavailable(format!("it was cut off: {error}")))?
            .map_err(|error| Refusal::unavailable(error.to_string()))?
    };
    // Ends when the client has gone: its pieces can then not be sent.
    drop(tokio::task::spawn_blocking(move || {
        let ((names, series), wanted) = series;
        let mut pieces = Pieces {
            sender,
            buffer: Vec::new(),
        };
        if let Err(error) = stream_all(&names, series, &wanted, &mut pieces) {
            warn!(%error, "an export was cut off");
            // It may have gone before.
            drop(pieces.sender.blocking_send(Err(error)));
        }
    }));
    let body = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

type Selected = (Vec<String>, Vec<Box<dyn StoredSeries>>);

/// The names of all labels, if they are needed, and the series in order of their labels, each once.
fn select(
    source: &dyn SeriesSource,
    scope: &ReadScope,
    wanted: &Wanted,
) -> Result<Selected, SourceError> {
    let point = ReadPoint::default().bound_to(scope.matchers());
    let context = Arc::new(ReadContext::default().at(Arc::new(point)));
    let names = match wanted.format {
        Format::Json => Vec::new(),
        Format::Csv => source.label_names(&LabelRequest {
            tenant: &scope.tenant,
            matcher_sets: &wanted.selectors,
            range: wanted.range,
            context: &context,
        })?,
    };
    let mut series = Vec::new();
    for matchers in &wanted.selectors {
        series.append(&mut source.select(&Select {
            tenant: &scope.tenant,
            matchers,
            range: wanted.range,
            context: &context,
        })?);
    }
    series.sort_by(|a, b| a.labels().cmp(b.labels()));
    series.dedup_by(|a, b| a.labels() == b.labels());
    Ok((names, series))
}

fn stream_all(
    names: &[String],
    series: Vec<Box<dyn StoredSeries>>,
    wanted: &Wanted,
    pieces: &mut Pieces,
) -> io::Result<()> {
    if wanted.format == Format::Csv {
        csv_header(names, &mut pieces.buffer);
    }
    let mut columns = SampleColumns::default();
    for series in series {
        columns.clear();
        series
            .read(&mut columns)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let of_lines = columns.timestamps.chunks(wanted.per_line);
        for (timestamps, values) in of_lines.zip(columns.values.chunks(wanted.per_line)) {
            let (labels, out) = (series.labels(), &mut pieces.buffer);
            match wanted.format {
                Format::Json => json_line(labels, timestamps, values, out),
                Format::Csv => csv_lines(names, labels, timestamps, values, out),
            }
            if pieces.buffer.len() >= PIECE_BYTES {
                pieces.send()?;
            }
        }
    }
    pieces.send()
}

struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        let sent = self.sender.blocking_send(Ok(piece));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone"))
    }
}
