//! `/federate`: the newest sample of each selected series in the text format, for a Prometheus
//! that scrapes us.
//!
//! As in Prometheus: samples up to the engine's lookback old, with their own timestamps; series
//! that have gone stale are left out, and so are series without a name. Every series says its
//! `instance`, if need be an empty one, so that the scraper with `honor_labels` does not put its
//! own there.

use std::sync::Arc;
use std::time::Duration;
use std::vec::IntoIter;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use millrace_model::{Labels, METRIC_NAME, TimeRange, is_stale};

use super::answer::PIECE_BYTES;
use super::body::Write;
use super::error::ApiError;
use super::json::{integer, number_short, put};
use super::params::Params;
use super::selector::matcher_sets;
use super::{Api, App};
use crate::{CancelFlag, QueryError, ReadContext, SampleColumns, Select, StoredSeries};

const CLASSIC: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const UTF8: HeaderValue =
    HeaderValue::from_static("text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8");

/// How names that are no identifiers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// With `_` in place of every other character.
    Underscores,
    /// In quotes, inside the braces.
    Quoted,
}

impl Names {
    /// A client that knows quoted names says so.
    fn negotiate(headers: &HeaderMap) -> Self {
        let accepts = |value: &HeaderValue| {
            value
                .to_str()
                .is_ok_and(|text| text.contains("escaping=allow-utf-8"))
        };
        match headers.get_all(header::ACCEPT).iter().any(accepts) {
            true => Self::Quoted,
            false => Self::Underscores,
        }
    }
}

/// Answers the request.
pub(super) async fn federate(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let names = Names::negotiate(&headers);
    let content_type = match names {
        Names::Underscores => CLASSIC,
        Names::Quoted => UTF8,
    };
    let Api { engine, source, .. } = app.api.clone();
    let now = app.api.clock.now().0;
    let lookback = millis(app.api.options.lookback);
    let partial = params.partial()?;
    let work = move |cancel: &CancelFlag, _| {
        let context = ReadContext::new(partial, cancel.clone(), None);
        let context = Arc::new(context.at(params.point.clone()));
        let mut series = Vec::new();
        for matchers in matcher_sets(engine.as_ref(), &params)? {
            series.append(&mut source.select(&Select {
                tenant: &params.scope.tenant,
                matchers: &matchers,
                range: TimeRange::new(now.saturating_sub(lookback), now),
                context: &context,
            })?);
        }
        let name = |labels: &Labels| labels.metric_name().unwrap_or_default().to_owned();
        series.retain(|series| !name(series.labels()).is_empty());
        series.sort_by_cached_key(|series| (name(series.labels()), series.labels().clone()));
        series.dedup_by(|a, b| a.labels() == b.labels());
        Ok(Box::new(Exposition {
            series: series.into_iter(),
            family: String::new(),
            columns: SampleColumns::default(),
            names,
            context,
            done: false,
        }) as Box<dyn Write>)
    };
    app.stream(CancelFlag::default(), content_type, work).await
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The text, and how far it is.
struct Exposition {
    series: IntoIter<Box<dyn StoredSeries>>,
    /// The metric whose type was written last.
    family: String,
    columns: SampleColumns,
    names: Names,
    context: Arc<ReadContext>,
    done: bool,
}

impl Exposition {
    fn write_series(
        &mut self,
        series: &dyn StoredSeries,
        out: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        self.columns.clear();
        series.read(&mut self.columns)?;
        let newest = self
            .columns
            .timestamps
            .last()
            .zip(self.columns.values.last());
        let Some((&timestamp, &value)) = newest.filter(|(_, value)| !is_stale(**value)) else {
            return Ok(());
        };
        let labels = series.labels();
        let name = labels.metric_name().unwrap_or_default();
        if self.family != name {
            self.family.clear();
            self.family.push_str(name);
            out.extend_from_slice(b"# TYPE ");
            metric_name(out, name, self.names);
            out.extend_from_slice(b" untyped\n");
        }
        let quoted = self.names == Names::Quoted && !is_identifier(name, true);
        let mut separator = b'{';
        if quoted {
            out.push(separator);
            quoted_text(out, name);
            separator = b',';
        } else {
            metric_name(out, name, self.names);
        }
        let mut has_instance = false;
        for (label, value) in labels.iter().filter(|(label, _)| *label != METRIC_NAME) {
            has_instance |= label == "instance";
            self.label(out, separator, label, value);
            separator = b',';
        }
        if !has_instance {
            self.label(out, separator, "instance", "");
        }
        out.extend_from_slice(b"} ");
        number_short(out, value);
        out.push(b' ');
        if timestamp < 0 {
            out.push(b'-');
        }
        integer(out, timestamp.unsigned_abs());
        out.push(b'\n');
        Ok(())
    }

    fn label(&self, out: &mut Vec<u8>, separator: u8, name: &str, value: &str) {
        out.push(separator);
        match self.names {
            Names::Quoted if !is_identifier(name, false) => quoted_text(out, name),
            Names::Quoted => out.extend_from_slice(name.as_bytes()),
            Names::Underscores => underscored(out, name, false),
        }
        out.push(b'=');
        quoted_text(out, value);
    }
}

impl Write for Exposition {
    fn next_piece(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut out = Vec::new();
        while out.len() < PIECE_BYTES {
            if self.context.cancel.is_cancelled() {
                let text = "federation was canceled";
                return Err(QueryError::Canceled(text.to_owned()).into());
            }
            let Some(series) = self.series.next() else {
                self.done = true;
                break;
            };
            self.write_series(&*series, &mut out)?;
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }

    fn is_done(&self) -> bool {
        self.done
    }
}

fn metric_name(out: &mut Vec<u8>, name: &str, names: Names) {
    match names {
        Names::Quoted if !is_identifier(name, true) => quoted_text(out, name),
        Names::Quoted => out.extend_from_slice(name.as_bytes()),
        Names::Underscores => underscored(out, name, true),
    }
}

fn is_identifier(name: &str, colons: bool) -> bool {
    !name.is_empty() && name.char_indices().all(|(i, c)| fits(i, c, colons))
}

/// Whether `c` may stand at byte `at` of a name.
fn fits(at: usize, c: char, colons: bool) -> bool {
    c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit()) || (colons && c == ':')
}

fn underscored(out: &mut Vec<u8>, name: &str, colons: bool) {
    for (i, c) in name.char_indices() {
        put(
            out,
            format_args!("{}", if fits(i, c, colons) { c } else { '_' }),
        );
    }
}

/// In quotes, with the three escapes of the format.
fn quoted_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
    out.push(b'"');
}
