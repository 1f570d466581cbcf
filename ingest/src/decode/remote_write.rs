//! Prometheus remote write 1.0: the protobuf message `prometheus.WriteRequest`.
//!
//! ```text
//! WriteRequest    timeseries = 1, metadata = 3
//! TimeSeries      labels = 1 { name = 1, value = 2 }, samples = 2 { value = 1, timestamp = 2 },
//!                 exemplars = 3, histograms = 4
//! MetricMetadata  type = 1, metric_family_name = 2, help = 4, unit = 5
//! ```
//!
//! A series' key is the hash of its label messages as they stand in the body, which every encoder
//! writes in one run; where something stands between them, they are gathered first.

use millrace_model::{MetricMetadata, MetricType, Sample, TimestampMs};

use super::protobuf::{Fields, Malformed, Value};
use crate::IngestError;
use crate::metadata::MetadataFilter;
use crate::options::Limits;
use crate::report::{Place, Reason, Rejection};
use crate::series::{BadSeries, Collector, KeyHasher, SeriesBuilder, text};

/// Buffers kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct RemoteWriteScratch {
    samples: Vec<Sample>,
    gathered: Vec<u8>,
}

/// Decodes a request body, decompressed.
///
/// # Errors
///
/// [`IngestError::MalformedBody`] naming the byte if it is no such message; too many samples.
pub(crate) fn decode(
    body: &[u8],
    hasher: &KeyHasher,
    metadata: &mut MetadataFilter<'_>,
    scratch: &mut RemoteWriteScratch,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    let mut request = Fields::new(body, 0, body.len());
    let (mut series_index, mut metadata_index) = (0, 0);
    while let Some((number, value)) = request.next().map_err(malformed)? {
        match (number, value) {
            (1, Value::Bytes(start, end)) => {
                let place = Place::Series(series_index);
                series_index += 1;
                let series = walk_series(body, start, end, scratch).map_err(malformed)?;
                add_series(body, &series, place, hasher, scratch, out)?;
            }
            (3, Value::Bytes(start, end)) => {
                let place = Place::Metadata(metadata_index);
                metadata_index += 1;
                add_metadata(body, start, end, place, metadata, out)?;
            }
            (1 | 3, _) => {
                return Err(malformed(Malformed {
                    at: request.pos,
                    what: "wire type of a time series or metadata",
                }));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cold]
fn malformed(at: Malformed) -> IngestError {
    IngestError::MalformedBody {
        reason: "malformed_protobuf",
        detail: format!(
            "not a remote write request: bad {} at byte {} of the decompressed body",
            at.what, at.at
        ),
    }
}

/// One TimeSeries message, its samples being in the scratch.
struct Series {
    /// Where its label messages stand, or `None` where they had to be gathered.
    labels: Option<(usize, usize)>,
    histograms: usize,
    exemplars: u64,
}

#[inline]
fn walk_series(
    body: &[u8],
    start: usize,
    end: usize,
    scratch: &mut RemoteWriteScratch,
) -> Result<Series, Malformed> {
    let mut fields = Fields::new(body, start, end);
    let mut series = Series {
        labels: Some((start, start)),
        histograms: 0,
        exemplars: 0,
    };
    let mut labels_end = start;
    let mut in_one_run = true;
    let mut seen_label = false;
    scratch.samples.clear();
    loop {
        let field_at = fields.pos;
        let Some((number, value)) = fields.next()? else {
            break;
        };
        match (number, value) {
            (1, Value::Bytes(..)) => {
                if !seen_label {
                    series.labels = Some((field_at, fields.pos));
                    seen_label = true;
                } else {
                    in_one_run &= labels_end == field_at;
                }
                labels_end = fields.pos;
            }
            (2, Value::Bytes(start, end)) => scratch.samples.push(walk_sample(body, start, end)?),
            (3, Value::Bytes(..)) => series.exemplars += 1,
            (4, Value::Bytes(..)) => series.histograms += 1,
            (1..=4, _) => {
                return Err(Malformed {
                    at: field_at,
                    what: "wire type in a time series",
                });
            }
            _ => {}
        }
    }
    if in_one_run {
        series.labels = series
            .labels
            .map(|(first, _)| (first, labels_end.max(first)));
    } else {
        series.labels = None;
        gather_labels(body, start, end, &mut scratch.gathered)?;
    }
    Ok(series)
}

#[cold]
fn gather_labels(
    body: &[u8],
    start: usize,
    end: usize,
    gathered: &mut Vec<u8>,
) -> Result<(), Malformed> {
    gathered.clear();
    let mut fields = Fields::new(body, start, end);
    loop {
        let at = fields.pos;
        match fields.next()? {
            Some((1, _)) => gathered.extend_from_slice(&body[at..fields.pos]),
            Some(_) => {}
            None => return Ok(()),
        }
    }
}

#[inline(always)]
fn walk_sample(body: &[u8], start: usize, end: usize) -> Result<Sample, Malformed> {
    let mut fields = Fields::new(body, start, end);
    let (mut value, mut timestamp) = (0u64, 0u64);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Fixed64(bits)) => value = bits,
            (2, Value::Varint(ms)) => timestamp = ms,
            (1 | 2, _) => {
                return Err(Malformed {
                    at: start,
                    what: "wire type in a sample",
                });
            }
            _ => {}
        }
    }
    Ok(Sample {
        timestamp: TimestampMs(timestamp as i64),
        value: f64::from_bits(value),
    })
}

#[inline]
fn add_series(
    body: &[u8],
    series: &Series,
    place: Place,
    hasher: &KeyHasher,
    scratch: &RemoteWriteScratch,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    let raw = match series.labels {
        Some((start, end)) => &body[start..end],
        None => &scratch.gathered,
    };
    if series.exemplars > 0 {
        out.ignore_exemplars(series.exemplars);
    }
    if series.histograms > 0 {
        refuse_histograms(raw, series.histograms, place, out)?;
    }
    if scratch.samples.is_empty() {
        return Ok(());
    }
    out.add(hasher.hash(raw), &scratch.samples, place, |builder| {
        build_labels(raw, builder)
    })
}

fn build_labels(raw: &[u8], builder: &mut SeriesBuilder<'_>) -> Result<(), BadSeries> {
    for_each_label(raw, |name, value| {
        builder.label(text(name, "label name")?, text(value, "label value")?)
    })
}

fn for_each_label(
    raw: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), BadSeries>,
) -> Result<(), BadSeries> {
    let broken = |at: Malformed| {
        BadSeries::new(
            Reason::InvalidUtf8,
            format!("label message: bad {}", at.what),
        )
    };
    let mut labels = Fields::new(raw, 0, raw.len());
    while let Some((_, value)) = labels.next().map_err(broken)? {
        let Value::Bytes(start, end) = value else {
            continue;
        };
        let (mut name, mut text) = (&raw[..0], &raw[..0]);
        let mut label = Fields::new(raw, start, end);
        while let Some(field) = label.next().map_err(broken)? {
            match field {
                (1, Value::Bytes(start, end)) => name = &raw[start..end],
                (2, Value::Bytes(start, end)) => text = &raw[start..end],
                _ => {}
            }
        }
        each(name, text)?;
    }
    Ok(())
}

#[cold]
fn refuse_histograms(
    raw: &[u8],
    count: usize,
    place: Place,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    out.count_samples(count)?;
    let describe = || {
        let mut metric = None;
        let found = for_each_label(raw, |name, value| {
            if name == millrace_model::METRIC_NAME.as_bytes() {
                metric = Some(crate::report::excerpt(value));
            }
            Ok(())
        });
        Rejection {
            place,
            series: metric.filter(|_| found.is_ok()),
            field: None,
            reason: Reason::NativeHistogram,
            message: "native histograms are not stored; send classic ones".to_owned(),
        }
    };
    out.report()
        .reject(Reason::NativeHistogram, count, describe);
    Ok(())
}

fn add_metadata(
    body: &[u8],
    start: usize,
    end: usize,
    place: Place,
    filter: &mut MetadataFilter<'_>,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    let mut fields = Fields::new(body, start, end);
    let mut metric_type = MetricType::Unknown;
    let [mut metric, mut help, mut unit] = [&body[..0]; 3];
    while let Some(field) = fields.next().map_err(malformed)? {
        match field {
            // Enumerations are open: a number that is not known here is "unknown".
            (1, Value::Varint(code)) => {
                metric_type = MetricType::from_code(code).unwrap_or_default();
            }
            (2, Value::Bytes(start, end)) => metric = &body[start..end],
            (4, Value::Bytes(start, end)) => help = &body[start..end],
            (5, Value::Bytes(start, end)) => unit = &body[start..end],
            (1 | 2 | 4 | 5, _) => {
                return Err(malformed(Malformed {
                    at: start,
                    what: "wire type in metadata",
                }));
            }
            _ => {}
        }
    }
    let limits = out.context().limits;
    let checked = check_metadata([metric, help, unit], limits);
    match checked {
        Ok([metric, help, unit]) if filter.is_news(metric.as_bytes(), &body[start..end]) => {
            out.add_metadata(MetricMetadata {
                metric: metric.to_owned(),
                metric_type,
                help: help.to_owned(),
                unit: unit.to_owned(),
            })?;
        }
        Ok(_) => {}
        Err(bad) => out.report().reject(bad.reason, 0, || Rejection {
            place,
            series: Some(crate::report::excerpt(metric)),
            field: None,
            reason: bad.reason,
            message: bad.message,
        }),
    }
    Ok(())
}

fn check_metadata<'a>(
    [metric, help, unit]: [&'a [u8]; 3],
    limits: &Limits,
) -> Result<[&'a str; 3], BadSeries> {
    if metric.is_empty() {
        return Err(BadSeries::new(
            Reason::BadMetadata,
            "metadata without a metric name",
        ));
    }
    for (what, got, limit) in [
        ("metric name", metric.len(), limits.label_name_bytes),
        ("help", help.len(), limits.label_value_bytes),
        ("unit", unit.len(), limits.label_name_bytes),
    ] {
        if got > limit {
            return Err(BadSeries::new(
                Reason::BadMetadata,
                format!("{what} of the metadata has {got} bytes, the limit is {limit}"),
            ));
        }
    }
    Ok([
        text(metric, "metric name")?,
        text(help, "help")?,
        text(unit, "unit")?,
    ])
}

#[cfg(test)]
mod tests {}
