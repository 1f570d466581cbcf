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

use millrace_model::{MetricType, Sample, TimestampMs};

use crate::IngestError;
use crate::decode::family::{self, Family};
use crate::decode::protobuf::{Fields, Malformed, Value};
use crate::metadata::MetadataFilter;
use crate::report::{Place, Reason, Rejection};
use crate::series::{BadSeries, Collector, Entry, KeyHasher, SeriesBuilder, text};

/// Buffers kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct RemoteWriteScratch {
    /// Series that wait to be looked up together.
    entries: Vec<Entry>,
    /// Of each of them the raw label bytes.
    labels: Vec<Labels>,
    samples: Vec<Sample>,
    gathered: Vec<u8>,
}

/// Where the label messages of a series stand.
#[derive(Clone, Copy, Debug)]
enum Labels {
    InBody(usize, usize),
    /// In the scratch, because they do not stand in one run in the body.
    Gathered(usize, usize),
}

impl RemoteWriteScratch {
    /// Enough for their cache misses to overlap; few enough for their bytes to be still near.
    const TOGETHER: usize = 32;

    fn raw<'a>(&'a self, body: &'a [u8], labels: Labels) -> &'a [u8] {
        match labels {
            Labels::InBody(start, end) => &body[start..end],
            Labels::Gathered(start, end) => &self.gathered[start..end],
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.labels.clear();
        self.samples.clear();
        self.gathered.clear();
    }

    /// Hands over the series that wait.
    fn flush(&mut self, body: &[u8], out: &mut Collector<'_>) -> Result<(), IngestError> {
        out.add_all(&self.entries, &self.samples, |i, builder| {
            build_labels(self.raw(body, self.labels[i]), builder)
        })?;
        self.clear();
        Ok(())
    }
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
    let max_samples = out.context().limits.samples;
    scratch.clear();
    while let Some((number, value)) = request.next().map_err(malformed)? {
        match (number, value) {
            (1, Value::Bytes(start, end)) => {
                let place = Place::Series(series_index);
                series_index += 1;
                let first_sample = scratch.samples.len() as u32;
                let series = walk_series(body, start, end, max_samples, scratch);
                let series = series.map_err(malformed)?;
                if scratch.samples.len() > max_samples {
                    // Reading has stopped there, and this says so.
                    out.count_samples(scratch.samples.len())?;
                }
                if series.exemplars > 0 {
                    out.ignore_exemplars(series.exemplars);
                }
                if series.histograms > 0 {
                    let raw = scratch.raw(body, series.labels);
                    refuse_histograms(raw, series.histograms, place, out)?;
                }
                let samples = first_sample..scratch.samples.len() as u32;
                if samples.is_empty() {
                    continue;
                }
                scratch.entries.push(Entry {
                    key: hasher.hash(scratch.raw(body, series.labels)),
                    place,
                    samples,
                });
                scratch.labels.push(series.labels);
                if scratch.entries.len() == RemoteWriteScratch::TOGETHER {
                    scratch.flush(body, out)?;
                }
            }
            (3, Value::Bytes(start, end)) => {
                let place = Place::Metadata(metadata_index);
                metadata_index += 1;
                out.check_metadata_count(metadata_index)?;
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
    scratch.flush(body, out)
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
    labels: Labels,
    histograms: usize,
    exemplars: u64,
}

/// Reads a series, adding its samples to the scratch. Stops when there are more than
/// `max_samples`, so that memory stays bounded.
#[inline]
fn walk_series(
    body: &[u8],
    start: usize,
    end: usize,
    max_samples: usize,
    scratch: &mut RemoteWriteScratch,
) -> Result<Series, Malformed> {
    let first_sample = scratch.samples.len();
    let labels_end = skip_labels(&body[..end], start);
    if take_samples(&body[..end], labels_end, max_samples, &mut scratch.samples) {
        return Ok(Series {
            labels: Labels::InBody(start, labels_end),
            histograms: 0,
            exemplars: 0,
        });
    }
    scratch.samples.truncate(first_sample);
    walk_odd_series(body, start, end, max_samples, scratch)
}

/// The end of the label messages at `pos`, as far as their lengths take one byte.
#[inline]
fn skip_labels(series: &[u8], mut pos: usize) -> usize {
    while let Some(&[tag, len]) = series.get(pos..pos + 2)
        && tag == 0x0a
        && len < 0x80
    {
        let next = pos + 2 + usize::from(len);
        if next > series.len() {
            break;
        }
        pos = next;
    }
    pos
}

/// Reads samples written as every encoder does, value before timestamp; whether nothing else was
/// there.
#[inline]
fn take_samples(
    series: &[u8],
    mut pos: usize,
    max_samples: usize,
    samples: &mut Vec<Sample>,
) -> bool {
    while pos < series.len() && samples.len() <= max_samples {
        let Some(&[0x12, len, 0x09, ref value @ .., 0x10]) = series.get(pos..pos + 12) else {
            return false;
        };
        let end = pos + 2 + usize::from(len);
        if len >= 0x80 || end > series.len() {
            return false;
        }
        pos += 12;
        let Some(timestamp) = millrace_model::read_varint(&series[..end], &mut pos) else {
            return false;
        };
        if pos != end {
            return false;
        }
        let value: [u8; 8] = value.try_into().expect("twelve bytes less four");
        samples.push(Sample {
            timestamp: TimestampMs(timestamp as i64),
            value: f64::from_le_bytes(value),
        });
    }
    true
}

/// [`walk_series`] for anything that the format allows.
#[inline(never)]
fn walk_odd_series(
    body: &[u8],
    start: usize,
    end: usize,
    max_samples: usize,
    scratch: &mut RemoteWriteScratch,
) -> Result<Series, Malformed> {
    let mut fields = Fields::new(body, start, end);
    let mut run: Option<(usize, usize)> = None;
    let mut in_one_run = true;
    let (mut histograms, mut exemplars) = (0, 0);
    while scratch.samples.len() <= max_samples {
        let at = fields.pos;
        let Some((number, value)) = fields.next()? else {
            break;
        };
        match (number, value) {
            (1, Value::Bytes(..)) => {
                let (first, last) = run.unwrap_or((at, at));
                in_one_run &= last == at;
                run = Some((first, fields.pos));
            }
            (2, Value::Bytes(start, end)) => scratch.samples.push(walk_sample(body, start, end)?),
            (3, Value::Bytes(..)) => exemplars += 1,
            (4, Value::Bytes(..)) => histograms += 1,
            (1..=4, _) => {
                return Err(Malformed {
                    at,
                    what: "wire type in a time series",
                });
            }
            _ => {}
        }
    }
    let labels = if in_one_run {
        let (first, last) = run.unwrap_or((start, start));
        Labels::InBody(first, last)
    } else {
        gather_labels(body, start, end, &mut scratch.gathered)?
    };
    Ok(Series {
        labels,
        histograms,
        exemplars,
    })
}

fn gather_labels(
    body: &[u8],
    start: usize,
    end: usize,
    gathered: &mut Vec<u8>,
) -> Result<Labels, Malformed> {
    let first = gathered.len();
    let mut fields = Fields::new(body, start, end);
    loop {
        let at = fields.pos;
        match fields.next()? {
            Some((1, _)) => gathered.extend_from_slice(&body[at..fields.pos]),
            Some(_) => {}
            None => return Ok(Labels::Gathered(first, gathered.len())),
        }
    }
}

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
        let message = "native histograms are not stored; send classic ones";
        Rejection::new(place, BadSeries::new(Reason::NativeHistogram, message))
            .of_series(metric.filter(|_| found.is_ok()))
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
    let family = Family {
        metric,
        metric_type,
        help,
        unit,
    };
    family::add(&family, &body[start..end], place, filter, out);
    Ok(())
}

#[cfg(test)]
mod tests;
