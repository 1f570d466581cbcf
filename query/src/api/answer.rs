//! An answer that is being written, piece by piece.
//!
//! **Invariant:** the pieces together are one JSON document, with `resultType` before `result`
//! (Grafana reads it as a stream), lists never `null`, and `warnings` and `infos` only where there
//! are some. A series is dropped as soon as it is written.

use std::iter::Peekable;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use bytes::Bytes;
use millrace_model::{Labels, MetricMetadata};

use super::body::Write;
use super::error::ApiError;
use super::explain::{Explain, Stats};
use super::json;
use crate::{MatrixSeries, QueryOutcome, QueryStats, QueryValue, VectorSample};

/// Bytes of a piece, about: enough to amortise a write, little enough to hold a few.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Room for the element with which a piece passes [`PIECE_BYTES`].
const PIECE_SLACK_BYTES: usize = 4 << 10;

/// Points of a series between two looks at the piece's length.
const POINTS_AT_ONCE: usize = 128;

/// Prometheus's warning where `limit` cut something off.
const TRUNCATED: &str = "results truncated due to limit";

/// An answer, and how far it is written.
#[derive(Debug)]
pub(super) struct Answer {
    data: Data,
    /// Asked for by `stats`.
    stats: Option<Stats>,
    /// Asked for by `explain`.
    explain: Option<Explain>,
    warnings: Vec<String>,
    infos: Vec<String>,
    next: Part,
    /// Whether the next element of the list is its first.
    first: bool,
}

/// The part of the document that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    Elements,
    Tail,
    Nothing,
}

/// What is not written yet.
#[derive(Debug)]
enum Data {
    Document(Vec<u8>),
    Scalar(i64, f64),
    String(i64, String),
    Vector(IntoIter<VectorSample>),
    Matrix {
        series: IntoIter<MatrixSeries>,
        /// The series that is being written, and its first point that is not.
        open: Option<(MatrixSeries, usize)>,
    },
    Strings(IntoIter<String>),
    Series(IntoIter<Labels>),
    Metadata(Peekable<IntoIter<MetricMetadata>>),
}

impl Answer {
    fn new(data: Data) -> Self {
        Self {
            data,
            stats: None,
            explain: None,
            warnings: Vec::new(),
            infos: Vec::new(),
            next: Part::Head,
            first: true,
        }
    }

    /// `json` is all of `data`.
    pub(super) fn document(json: Vec<u8>) -> Self {
        Self::new(Data::Document(json))
    }

    /// A list of strings, at most `limit` of them.
    pub(super) fn strings(mut texts: Vec<String>, limit: Option<usize>) -> Self {
        let cut = truncate(&mut texts, limit);
        Self::new(Data::Strings(texts.into_iter())).warn_if(cut)
    }

    /// A list of label sets, at most `limit` of them.
    pub(super) fn series(mut series: Vec<Labels>, limit: Option<usize>) -> Self {
        let cut = truncate(&mut series, limit);
        Self::new(Data::Series(series.into_iter())).warn_if(cut)
    }

    /// An object from metric to metadata. They come in order of the metrics' names; entries of one
    /// metric follow each other.
    pub(super) fn metadata(entries: Vec<MetricMetadata>) -> Self {
        Self::new(Data::Metadata(entries.into_iter().peekable()))
    }

    /// With warnings of the source.
    pub(super) fn warn(mut self, warnings: Vec<String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// A query's value, at most `limit` series of it.
    pub(super) fn query(outcome: QueryOutcome, limit: Option<usize>) -> Self {
        let mut cut = false;
        let data = match outcome.value {
            QueryValue::Scalar { timestamp, value } => Data::Scalar(timestamp.0, value),
            QueryValue::String { timestamp, value } => Data::String(timestamp.0, value),
            QueryValue::Vector(mut samples) => {
                cut = truncate(&mut samples, limit);
                Data::Vector(samples.into_iter())
            }
            QueryValue::Matrix(mut series) => {
                cut = truncate(&mut series, limit);
                Data::Matrix {
                    series: series.into_iter(),
                    open: None,
                }
            }
        };
        Self {
            warnings: outcome.warnings,
            infos: outcome.infos,
            ..Self::new(data)
        }
        .warn_if(cut)
    }

    /// With `data.stats`.
    pub(super) fn with_stats(mut self, waited: Duration, engine: QueryStats) -> Self {
        self.stats = Some(Stats { waited, engine });
        self
    }

    /// With `explain`.
    pub(super) fn with_explain(mut self, explain: Explain) -> Self {
        self.explain = Some(explain);
        self
    }

    fn warn_if(mut self, cut: bool) -> Self {
        if cut {
            self.warnings.push(TRUNCATED.to_owned());
        }
        self
    }

    fn write_tail(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.data.closing());
        if self.data.is_query() {
            if let Some(stats) = &self.stats {
                stats.write(out);
            }
            out.push(b'}');
        }
        if let Some(explain) = &self.explain {
            explain.write(out);
        }
        for (name, texts) in [("warnings", &self.warnings), ("infos", &self.infos)] {
            if !texts.is_empty() {
                json::put(out, format_args!(",\"{name}\":"));
                json::strings(out, texts.iter().map(String::as_str));
            }
        }
        out.push(b'}');
    }
}

impl Write for Answer {
    fn is_done(&self) -> bool {
        self.next == Part::Nothing
    }

    fn next_piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        if self.is_done() {
            return Ok(None);
        }
        let begun = Instant::now();
        let mut out = Vec::with_capacity(match self.data {
            Data::Document(ref json) => json.len() + 256,
            Data::Scalar(..) | Data::String(..) => 256,
            _ => PIECE_BYTES + PIECE_SLACK_BYTES,
        });
        if self.next == Part::Head {
            out.extend_from_slice(b"{\"status\":\"success\",\"data\":");
            out.extend_from_slice(self.data.opening());
            self.next = Part::Elements;
        }
        while self.next == Part::Elements && out.len() < PIECE_BYTES {
            if !self.data.write_some(&mut out, &mut self.first) {
                self.next = Part::Tail;
            }
        }
        if let Some(explain) = &mut self.explain {
            explain.encoding(begun.elapsed());
        }
        if self.next == Part::Tail {
            self.write_tail(&mut out);
            self.next = Part::Nothing;
            // Most answers are one short piece.
            out.shrink_to_fit();
        }
        Ok(Some(Bytes::from(out)))
    }
}

fn truncate<T>(list: &mut Vec<T>, limit: Option<usize>) -> bool {
    let cut = limit.is_some_and(|limit| list.len() > limit);
    if let Some(limit) = limit {
        list.truncate(limit);
    }
    cut
}

impl Data {
    fn is_query(&self) -> bool {
        match self {
            Self::Scalar(..) | Self::String(..) | Self::Vector(_) | Self::Matrix { .. } => true,
            Self::Document(_) | Self::Strings(_) | Self::Series(_) | Self::Metadata(_) => false,
        }
    }

    fn opening(&self) -> &'static [u8] {
        match self {
            Self::Document(_) => b"",
            Self::Scalar(..) => b"{\"resultType\":\"scalar\",\"result\":",
            Self::String(..) => b"{\"resultType\":\"string\",\"result\":",
            Self::Vector(_) => b"{\"resultType\":\"vector\",\"result\":[",
            Self::Matrix { .. } => b"{\"resultType\":\"matrix\",\"result\":[",
            Self::Strings(_) | Self::Series(_) => b"[",
            Self::Metadata(_) => b"{",
        }
    }

    fn closing(&self) -> &'static [u8] {
        match self {
            Self::Document(_) | Self::Scalar(..) | Self::String(..) => b"",
            Self::Vector(_) | Self::Matrix { .. } | Self::Strings(_) | Self::Series(_) => b"]",
            Self::Metadata(_) => b"}",
        }
    }

    /// Writes an element, or a part of a large one; `false` when there was none left.
    fn write_some(&mut self, out: &mut Vec<u8>, first: &mut bool) -> bool {
        match self {
            Self::Document(json) => {
                out.append(json);
                false
            }
            Self::Scalar(timestamp, value) => {
                json::scalar(out, *timestamp, *value);
                false
            }
            Self::String(timestamp, text) => {
                out.push(b'[');
                json::seconds(out, *timestamp);
                out.push(b',');
                json::string(out, text);
                out.push(b']');
                false
            }
            Self::Vector(samples) => match samples.next() {
                Some(sample) => {
                    comma(out, first);
                    out.extend_from_slice(b"{\"metric\":");
                    json::labels(out, &sample.labels);
                    out.extend_from_slice(b",\"value\":");
                    json::point(out, sample.timestamp.0, sample.value);
                    out.push(b'}');
                    true
                }
                None => false,
            },
            Self::Matrix { series, open } => write_points(series, open, out, first),
            Self::Strings(texts) => match texts.next() {
                Some(text) => {
                    comma(out, first);
                    json::string(out, &text);
                    true
                }
                None => false,
            },
            Self::Series(series) => match series.next() {
                Some(labels) => {
                    comma(out, first);
                    json::labels(out, &labels);
                    true
                }
                None => false,
            },
            Self::Metadata(entries) => write_metric(entries, out, first),
        }
    }
}

fn comma(out: &mut Vec<u8>, first: &mut bool) {
    if !*first {
        out.push(b',');
    }
    *first = false;
}

fn write_points(
    series: &mut IntoIter<MatrixSeries>,
    open: &mut Option<(MatrixSeries, usize)>,
    out: &mut Vec<u8>,
    first: &mut bool,
) -> bool {
    let (current, from) = match open.take() {
        Some(open) => open,
        None => match series.next() {
            Some(next) => {
                comma(out, first);
                out.extend_from_slice(b"{\"metric\":");
                json::labels(out, &next.labels);
                out.extend_from_slice(b",\"values\":[");
                (next, 0)
            }
            None => return false,
        },
    };
    let to = current.timestamps.len().min(from + POINTS_AT_ONCE);
    let points = current.timestamps[from..to]
        .iter()
        .zip(&current.values[from..to]);
    for (i, (&timestamp, &value)) in points.enumerate() {
        if from + i > 0 {
            out.push(b',');
        }
        json::point(out, timestamp, value);
    }
    if to < current.timestamps.len() {
        *open = Some((current, to));
    } else {
        out.extend_from_slice(b"]}");
    }
    true
}

fn write_metric(
    entries: &mut Peekable<IntoIter<MetricMetadata>>,
    out: &mut Vec<u8>,
    first: &mut bool,
) -> bool {
    let Some(entry) = entries.next() else {
        return false;
    };
    comma(out, first);
    json::string(out, &entry.metric);
    out.extend_from_slice(b":[");
    write_metadata(out, &entry);
    while let Some(more) = entries.next_if(|next| next.metric == entry.metric) {
        out.push(b',');
        write_metadata(out, &more);
    }
    out.push(b']');
    true
}

fn write_metadata(out: &mut Vec<u8>, entry: &MetricMetadata) {
    out.extend_from_slice(b"{\"type\":");
    json::string(out, entry.metric_type.as_str());
    out.extend_from_slice(b",\"help\":");
    json::string(out, &entry.help);
    out.extend_from_slice(b",\"unit\":");
    json::string(out, &entry.unit);
    out.push(b'}');
}
