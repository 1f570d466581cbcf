//! OTLP metrics: `ExportMetricsServiceRequest`, in protobuf and JSON.
//!
//! ```text
//! Request          resource_metrics = 1
//! ResourceMetrics  resource = 1 { attributes = 1 }, scope_metrics = 2, schema_url = 3
//! ScopeMetrics     scope = 1 { name = 1, version = 2, attributes = 3 }, metrics = 2, schema_url = 3
//! Metric           name = 1, description = 2, unit = 3, gauge = 5, sum = 7, histogram = 9,
//!                  exponential_histogram = 10, summary = 11
//! ```
//!
//! JSON is written as protobuf first ([`from_json`]), so that there is one meaning, not two.
//!
//! A series' key is made of the hashes of its resource, its scope where that makes labels, its
//! metric's name, unit and kind, and its point's attributes, each as it stands in the body. Only
//! where a series is not known are these taken apart ([`labels`]) and their names translated
//! ([`names`]).
//!
//! Invariants: every data point has a place of its own; it is stored whole or refused whole, once;
//! so the number of refused items is the number of refused data points.

mod attributes;
mod json;
mod labels;
mod names;
mod points;

use millrace_model::{MetricMetadata, MetricType, Sample, TimestampMs};

use crate::IngestError;
use crate::decode::protobuf::{Fields, Malformed, Value};
use crate::metadata::MetadataFilter;
use crate::options::{DeltaTemporality, OtlpOptions};
use crate::report::{Place, Reason, Rejection, excerpt};
use crate::series::{BadSeries, Collector, Entry, Key, KeyHasher, combine};
pub(crate) use json::from_json;
use labels::{LabelCache, MetricRef, Role, SeriesRef};
use names::NameKind;

/// Part of the body: `[start, end)`.
pub(super) type Span = (usize, usize);

/// Buffers kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct OtlpScratch {
    /// Series that wait to be looked up together, one sample each.
    entries: Vec<Entry>,
    samples: Vec<Sample>,
    series: Vec<SeriesRef>,
    /// The metrics that these are of.
    metrics: Vec<MetricRef>,
    /// Attributes that do not stand in one run in the body.
    gathered: Vec<u8>,
    /// Bucket counts and bounds of the histogram in hand.
    counts: Vec<u64>,
    bounds: Vec<f64>,
}

impl OtlpScratch {
    /// Enough for their cache misses to overlap; few enough for their bytes to be still near.
    const TOGETHER: usize = 64;

    fn clear(&mut self) {
        self.entries.clear();
        self.samples.clear();
        self.series.clear();
        self.metrics.clear();
        self.gathered.clear();
    }
}

/// Decodes a request body in protobuf, decompressed.
///
/// # Errors
///
/// [`IngestError::MalformedBody`] naming the byte if it is no such message; too many samples. Bad
/// points are reported, and the others taken.
pub(crate) fn decode(
    body: &[u8],
    options: &OtlpOptions,
    hasher: &KeyHasher,
    metadata: &mut MetadataFilter<'_>,
    scratch: &mut OtlpScratch,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    scratch.clear();
    let mut decoder = Decoder {
        body,
        options,
        hasher,
        metadata,
        scratch,
        out,
        labels: LabelCache::default(),
        current: None,
        times: None,
    };
    let mut request = Fields::new(body, 0, body.len());
    while let Some((number, value)) = request.next().map_err(malformed)? {
        if number == 1 {
            decoder.resource_metrics(span(value, request.pos)?)?;
        }
    }
    decoder.flush()
}

#[cold]
fn malformed(at: Malformed) -> IngestError {
    IngestError::MalformedBody {
        reason: "malformed_protobuf",
        detail: format!(
            "not an OTLP metrics request: bad {} at byte {} of the decompressed body",
            at.what, at.at
        ),
    }
}

/// A message or text.
#[inline]
fn span(value: Value, at: usize) -> Result<Span, IngestError> {
    match value {
        Value::Bytes(start, end) => Ok((start, end)),
        Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32 => Err(malformed(Malformed {
            at,
            what: "wire type of a message",
        })),
    }
}

struct Decoder<'d, 'm, 'c> {
    body: &'d [u8],
    options: &'d OtlpOptions,
    hasher: &'d KeyHasher,
    metadata: &'d mut MetadataFilter<'m>,
    scratch: &'d mut OtlpScratch,
    out: &'d mut Collector<'c>,
    labels: LabelCache,
    /// The metric in hand, and its place in the scratch once it has series there.
    current: Option<(MetricRef, Option<u32>)>,
    /// First and last moment of the points of the resource in hand.
    times: Option<(i64, i64)>,
}

/// What decides what a metric's points mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    Gauge,
    Sum,
    Histogram,
    ExponentialHistogram,
    Summary,
}

impl Decoder<'_, '_, '_> {
    fn resource_metrics(&mut self, (start, end): Span) -> Result<(), IngestError> {
        let body = self.body;
        let mut resource = (start, start);
        let mut fields = Fields::new(body, start, end);
        while let Some((number, value)) = fields.next().map_err(malformed)? {
            if number == 1 {
                resource = span(value, fields.pos)?;
            }
        }
        let resource_key = self.hasher.hash(&body[resource.0..resource.1]);
        self.times = None;
        let mut fields = Fields::new(body, start, end);
        while let Some((number, value)) = fields.next().map_err(malformed)? {
            if number == 2 {
                self.scope_metrics(span(value, fields.pos)?, resource, resource_key)?;
            }
        }
        if let Some(times) = self.times {
            self.target_info(resource, resource_key, times)?;
        }
        Ok(())
    }

    fn scope_metrics(
        &mut self,
        (start, end): Span,
        resource: Span,
        resource_key: Key,
    ) -> Result<(), IngestError> {
        let body = self.body;
        let (mut scope, mut schema) = ((start, start), (start, start));
        let mut key = resource_key;
        if self.options.promote_scope_metadata {
            let mut fields = Fields::new(body, start, end);
            while let Some((number, value)) = fields.next().map_err(malformed)? {
                match number {
                    1 => scope = span(value, fields.pos)?,
                    3 => schema = span(value, fields.pos)?,
                    _ => {}
                }
            }
            key = combine(key, self.hasher.hash(&body[scope.0..scope.1]));
            key = combine(key, self.hasher.hash(&body[schema.0..schema.1]));
        }
        let mut fields = Fields::new(body, start, end);
        while let Some((number, value)) = fields.next().map_err(malformed)? {
            if number == 2 {
                let metric = MetricRef {
                    resource,
                    scope,
                    schema,
                    ..MetricRef::default()
                };
                self.metric(span(value, fields.pos)?, metric, key)?;
            }
        }
        Ok(())
    }

    fn metric(
        &mut self,
        (start, end): Span,
        mut metric: MetricRef,
        outer: Key,
    ) -> Result<(), IngestError> {
        let body = self.body;
        let mut data = None;
        let mut description = (start, start);
        // Where name, description and unit end, if they stand before the data.
        let mut head = None;
        (metric.name, metric.unit) = ((start, start), (start, start));
        let mut fields = Fields::new(body, start, end);
        loop {
            let at = fields.pos;
            let Some((number, value)) = fields.next().map_err(malformed)? else {
                break;
            };
            let kind = match number {
                1 => {
                    metric.name = span(value, fields.pos)?;
                    continue;
                }
                2 => {
                    description = span(value, fields.pos)?;
                    continue;
                }
                3 => {
                    metric.unit = span(value, fields.pos)?;
                    continue;
                }
                5 => Data::Gauge,
                7 => Data::Sum,
                9 => Data::Histogram,
                10 => Data::ExponentialHistogram,
                11 => Data::Summary,
                _ => continue,
            };
            head = Some(at);
            data = Some((kind, span(value, fields.pos)?));
        }
        let Some((kind, data)) = data else {
            return Ok(());
        };
        let (temporality, monotonic) = self.temporality(kind, data)?;
        let delta = temporality != 2;
        (metric.kind, metric.metric_type) = match kind {
            Data::Gauge => (NameKind::Gauge, MetricType::Gauge),
            Data::Sum if monotonic => (NameKind::Counter, MetricType::Counter),
            Data::Sum => (NameKind::Other, MetricType::Gauge),
            Data::Histogram | Data::ExponentialHistogram => {
                (NameKind::Other, MetricType::Histogram)
            }
            Data::Summary => (NameKind::Other, MetricType::Summary),
        };
        let refused = match kind {
            Data::ExponentialHistogram => Some((
                Reason::ExponentialHistogram,
                "exponential histograms are not stored; let the sender aggregate to explicit buckets",
            )),
            Data::Sum | Data::Histogram if temporality == 1 => match self.options.delta {
                DeltaTemporality::Refuse => Some((
                    Reason::DeltaTemporality,
                    "delta temporality is not taken (ingest.otlp.delta); \
                     let the sender use cumulative temporality",
                )),
                DeltaTemporality::Store => {
                    metric.metric_type = MetricType::Unknown;
                    None
                }
                DeltaTemporality::Accumulate => {
                    metric.is_delta = true;
                    None
                }
            },
            Data::Sum | Data::Histogram if delta => Some((
                Reason::DeltaTemporality,
                "the temporality is neither cumulative nor delta",
            )),
            Data::Gauge | Data::Sum | Data::Histogram | Data::Summary => None,
        };
        if refused.is_none() {
            self.describe(&metric, (start, head.unwrap_or(start)), description);
        }
        let tells =
            u128::from(kind as u8) << 8 | u128::from(metric.is_delta) << 1 | u128::from(monotonic);
        let text = |span: Span| self.hasher.hash(&body[span.0..span.1]);
        let name = combine(text(metric.name), text(metric.unit));
        metric.name_key = combine(name, tells);
        // The outer part has a power of its own, as if the three had followed one by one.
        let key = combine(combine(combine(outer, 0), 0), metric.name_key);
        self.current = Some((metric, None));
        let mut points = Fields::new(body, data.0, data.1);
        while let Some((number, value)) = points.next().map_err(malformed)? {
            if number != 1 {
                continue;
            }
            let point = span(value, points.pos)?;
            let place = self.out.next_point();
            let outcome = match refused {
                Some((reason, message)) => Err(BadSeries::new(reason, message)),
                None => match kind {
                    Data::Gauge | Data::Sum => self.number(point, key, place)?,
                    Data::Histogram => self.histogram(point, key, place)?,
                    Data::Summary => self.summary(point, key, place)?,
                    Data::ExponentialHistogram => Ok(()),
                },
            };
            if let Err(bad) = outcome {
                self.refuse(bad, metric.name, place)?;
            }
            if self.scratch.entries.len() >= OtlpScratch::TOGETHER {
                self.flush()?;
            }
        }
        self.current = None;
        Ok(())
    }

    /// Temporality and whether it is monotonic, where the data have such.
    fn temporality(&self, kind: Data, data: Span) -> Result<(u64, bool), IngestError> {
        if matches!(kind, Data::Gauge | Data::Summary) {
            return Ok((2, false));
        }
        let (mut temporality, mut monotonic) = (0, false);
        let mut fields = Fields::new(self.body, data.0, data.1);
        while let Some(field) = fields.next().map_err(malformed)? {
            match field {
                (2, Value::Varint(n)) => temporality = n,
                (3, Value::Varint(n)) => monotonic = kind == Data::Sum && n != 0,
                _ => {}
            }
        }
        Ok((temporality, monotonic))
    }

    #[cold]
    fn refuse(&mut self, bad: BadSeries, name: Span, place: Place) -> Result<(), IngestError> {
        self.out.count_samples(1)?;
        let name = &self.body[name.0..name.1];
        let series = (!name.is_empty()).then(|| excerpt(name));
        self.out.report().reject(bad.reason, 1, || {
            Rejection::new(place, bad).of_series(series)
        });
        Ok(())
    }

    /// Adds one sample to those that wait.
    #[inline]
    fn push(
        &mut self,
        key: Key,
        place: Place,
        attributes: labels::Raw,
        role: Role,
        sample: Sample,
    ) {
        let metrics = &mut self.scratch.metrics;
        let metric = match &mut self.current {
            Some((_, Some(index))) => *index,
            Some((metric, index)) => {
                metrics.push(*metric);
                *index.insert(metrics.len() as u32 - 1)
            }
            None => {
                debug_assert!(false, "samples belong to a metric");
                return;
            }
        };
        let index = self.scratch.samples.len() as u32;
        self.scratch.entries.push(Entry {
            key,
            place,
            samples: index..index + 1,
        });
        self.scratch.samples.push(sample);
        self.scratch.series.push(SeriesRef {
            metric,
            attributes,
            role,
        });
    }

    /// Hands over the series that wait.
    fn flush(&mut self) -> Result<(), IngestError> {
        let OtlpScratch {
            entries,
            samples,
            series,
            metrics,
            gathered,
            ..
        } = &*self.scratch;
        let (body, options, cache) = (self.body, self.options, &mut self.labels);
        self.out.add_all(entries, samples, |i, builder| {
            let series = series[i];
            let metric = &metrics[series.metric as usize];
            labels::build(body, gathered, options, metric, &series, cache, builder)
        })?;
        self.scratch.clear();
        if let Some((_, index)) = &mut self.current {
            *index = None;
        }
        Ok(())
    }

    /// Adds the metadata of a metric, if they are not known yet.
    fn describe(&mut self, metric: &MetricRef, head: Span, description: Span) {
        let body = self.body;
        let whole = [metric.name, metric.unit, description];
        let mut message;
        // As every encoder writes it, they stand together in front of the data.
        let message = if whole.iter().all(|(_, end)| *end <= head.1) {
            &body[head.0..head.1]
        } else {
            message = vec![metric.metric_type.code()];
            for (start, end) in whole {
                message.extend_from_slice(&(end - start).to_le_bytes());
                message.extend_from_slice(&body[start..end]);
            }
            &message[..]
        };
        let (start, end) = metric.name;
        // With its field's head, so that it is not taken for a name of another protocol.
        let name = &body[start.saturating_sub(2)..end];
        if end == start || !self.metadata.is_news(name, message) {
            return;
        }
        let limits = self.out.context().limits;
        let text = |(start, end): Span, limit: usize| {
            let text = String::from_utf8_lossy(&body[start..end]).into_owned();
            let cut = text.floor_char_boundary(limit);
            text[..cut].to_owned()
        };
        let name = text(metric.name, usize::MAX);
        let unit = text(metric.unit, limits.label_name_bytes);
        // A metric without a usable name is refused with its points.
        let translated = names::metric_name(&name, &unit, metric.kind, self.options.translation);
        if let Ok(translated) = translated
            && translated.len() <= limits.label_name_bytes
        {
            self.out.add_metadata(MetricMetadata {
                metric: translated.into_owned(),
                metric_type: metric.metric_type,
                help: text(description, limits.label_value_bytes),
                unit,
            });
        }
    }

    /// `target_info` of a resource over the time span of its points.
    fn target_info(
        &mut self,
        resource: Span,
        resource_key: Key,
        (first, last): (i64, i64),
    ) -> Result<(), IngestError> {
        const HALF_LOOKBACK_MS: i64 = 150_000;
        const MOST: i64 = 1000;
        let body = self.body;
        if !labels::wants_target_info(body, resource).map_err(malformed)? {
            return Ok(());
        }
        if self.metadata.is_news(b"target_info", b"otlp") {
            self.out.add_metadata(MetricMetadata {
                metric: "target_info".to_owned(),
                metric_type: MetricType::Gauge,
                help: "Target metadata".to_owned(),
                unit: String::new(),
            });
        }
        let metric = MetricRef {
            resource,
            ..MetricRef::default()
        };
        self.current = Some((metric, None));
        let place = Place::Point(self.out.points().saturating_sub(1));
        let key = combine(resource_key, 5 << 64);
        let step = HALF_LOOKBACK_MS.max(last.saturating_sub(first) / MOST);
        let mut at = first;
        while at < last {
            self.push_info(key, place, at);
            at = at.saturating_add(step);
        }
        self.push_info(key, place, last);
        self.current = None;
        if self.scratch.entries.len() >= OtlpScratch::TOGETHER {
            self.flush()?;
        }
        Ok(())
    }

    fn push_info(&mut self, key: Key, place: Place, at: i64) {
        let sample = Sample {
            timestamp: TimestampMs(at),
            value: 1.0,
        };
        self.push(key, place, labels::Raw::NONE, Role::TargetInfo, sample);
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
