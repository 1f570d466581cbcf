//! Prometheus remote write 2.0: the protobuf message `io.prometheus.write.v2.Request`.
//!
//! ```text
//! Request     symbols = 4, timeseries = 5 (1 to 3 are reserved, so that no 1.0 body is misread)
//! TimeSeries  labels_refs = 1, samples = 2 { value = 1, timestamp = 2, start_timestamp = 3 },
//!             histograms = 3, exemplars = 4, metadata = 5 { type = 1, help_ref = 3, unit_ref = 4 }
//! ```
//!
//! References mean something in their request alone, so a series' key is made of the *symbols* that
//! its references name: each symbol is hashed once per request, and the key is a polynomial of
//! these hashes. It is as good as a hash of the texts: the hashes are keyed, and the polynomial's
//! factor is odd, so two sequences that differ in a symbol meet only if the hashes do.
//!
//! Start timestamps are read over.

mod symbols;

use millrace_model::{METRIC_NAME, MetricType, Sample, TimestampMs};

use crate::IngestError;
use crate::decode::family::{self, Family};
use crate::decode::protobuf::{Fields, Malformed, Value};
use crate::metadata::MetadataFilter;
use crate::report::{Place, Reason, Rejection, excerpt};
use crate::series::{BadSeries, Collector, Entry, KeyHasher, SeriesBuilder, text};
use symbols::Symbols;

/// Buffers kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct RemoteWrite2Scratch {
    symbols: Symbols,
    /// Series that wait to be looked up together.
    entries: Vec<Entry>,
    samples: Vec<Sample>,
    /// References of all of them, and of each where its own end.
    refs: Vec<u32>,
    refs_end: Vec<usize>,
}

impl RemoteWrite2Scratch {
    /// Enough for their cache misses to overlap; few enough for their bytes to be still near.
    const TOGETHER: usize = 32;

    fn clear(&mut self) {
        self.entries.clear();
        self.samples.clear();
        self.refs.clear();
        self.refs_end.clear();
    }

    /// Hands over the series that wait.
    fn flush(&mut self, body: &[u8], out: &mut Collector<'_>) -> Result<(), IngestError> {
        let Self {
            symbols,
            refs,
            refs_end,
            ..
        } = self;
        out.add_all(&self.entries, &self.samples, |i, builder| {
            let start = i.checked_sub(1).map_or(0, |before| refs_end[before]);
            build_labels(&refs[start..refs_end[i]], symbols, body, builder)
        })?;
        self.clear();
        Ok(())
    }
}

/// Decodes a request body, decompressed.
///
/// # Errors
///
/// [`IngestError::MalformedBody`] naming the byte if it is no such message; too many samples or
/// symbols. Bad series are reported, and the others taken.
pub(crate) fn decode(
    body: &[u8],
    hasher: &KeyHasher,
    metadata: &mut MetadataFilter<'_>,
    scratch: &mut RemoteWrite2Scratch,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    scratch.clear();
    let max_symbols = out.context().limits.series.saturating_mul(4);
    scratch.symbols.read(body, hasher, max_symbols)?;
    let mut request = Fields::new(body, 0, body.len());
    let mut index = 0;
    while let Some((number, value)) = request.next().map_err(malformed)? {
        if number != 5 {
            continue;
        }
        let Value::Bytes(start, end) = value else {
            return Err(malformed(Malformed {
                at: request.pos,
                what: "wire type of a time series",
            }));
        };
        let place = Place::Series(index);
        index += 1;
        add_series(body, (start, end), place, metadata, scratch, out)?;
        if scratch.entries.len() == RemoteWrite2Scratch::TOGETHER {
            scratch.flush(body, out)?;
        }
    }
    scratch.flush(body, out)
}

#[cold]
fn malformed(at: Malformed) -> IngestError {
    IngestError::MalformedBody {
        reason: "malformed_protobuf",
        detail: format!(
            "not a remote write 2.0 request: bad {} at byte {} of the decompressed body",
            at.what, at.at
        ),
    }
}

/// What a series holds beside references and samples.
#[derive(Default)]
struct Rest {
    histograms: usize,
    exemplars: u64,
    metadata: Option<(usize, usize)>,
}

fn add_series(
    body: &[u8],
    (start, end): (usize, usize),
    place: Place,
    metadata: &mut MetadataFilter<'_>,
    scratch: &mut RemoteWrite2Scratch,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    let limits = out.context().limits;
    let (first_ref, first_sample) = (scratch.refs.len(), scratch.samples.len());
    // One pair more than there may be is enough to see that there are too many.
    let max_refs = limits.labels.saturating_mul(2).saturating_add(2);
    let rest = walk_series(body, start, end, max_refs, limits.samples, scratch);
    let rest = rest.map_err(malformed)?;
    if scratch.samples.len() > limits.samples {
        // Reading has stopped there, and this says so.
        out.count_samples(scratch.samples.len())?;
    }
    out.ignore_exemplars(rest.exemplars);
    let refs = &scratch.refs[first_ref..];
    let samples = scratch.samples.len() - first_sample;
    let key = match check_refs(refs, &scratch.symbols, limits.labels) {
        Ok(key) if samples + rest.histograms > 0 => key,
        checked => {
            let bad = checked.err().unwrap_or_else(|| {
                let message = "the series has neither samples nor histograms";
                BadSeries::new(Reason::MissingValue, message)
            });
            let series = metric_name(refs, &scratch.symbols, body).map(excerpt);
            out.count_samples(samples + rest.histograms)?;
            out.report()
                .reject(bad.reason, samples + rest.histograms, || {
                    Rejection::new(place, bad).of_series(series)
                });
            scratch.refs.truncate(first_ref);
            scratch.samples.truncate(first_sample);
            return Ok(());
        }
    };
    if rest.histograms > 0 {
        refuse_histograms(refs, &scratch.symbols, body, rest.histograms, place, out)?;
    }
    if let Some(span) = rest.metadata {
        add_metadata(body, span, first_ref, place, metadata, scratch, out)?;
    }
    if samples == 0 {
        scratch.refs.truncate(first_ref);
        return Ok(());
    }
    scratch.entries.push(Entry {
        key,
        place,
        samples: first_sample as u32..scratch.samples.len() as u32,
    });
    scratch.refs_end.push(scratch.refs.len());
    Ok(())
}

/// Reads a series, adding its references and samples to the scratch. Stops where there are more
/// than may be, so that memory stays bounded.
#[inline]
fn walk_series(
    body: &[u8],
    start: usize,
    end: usize,
    max_refs: usize,
    max_samples: usize,
    scratch: &mut RemoteWrite2Scratch,
) -> Result<Rest, Malformed> {
    let mut rest = Rest::default();
    let first_ref = scratch.refs.len();
    let mut fields = Fields::new(body, start, end);
    while scratch.samples.len() <= max_samples {
        let at = fields.pos;
        let Some((number, value)) = fields.next()? else {
            break;
        };
        match (number, value) {
            (1, Value::Bytes(start, end)) => {
                let room = max_refs - (scratch.refs.len() - first_ref).min(max_refs);
                read_refs(body, (start, end), room, &mut scratch.refs)?;
            }
            // Every parser has to take repeated numbers unpacked too.
            (1, Value::Varint(symbol)) if scratch.refs.len() - first_ref < max_refs => {
                scratch.refs.push(clamp(symbol));
            }
            (1, Value::Varint(_)) => {}
            (2, Value::Bytes(start, end)) => scratch.samples.push(sample(body, start, end)?),
            (3, Value::Bytes(..)) => rest.histograms += 1,
            (4, Value::Bytes(..)) => rest.exemplars += 1,
            (5, Value::Bytes(start, end)) => rest.metadata = Some((start, end)),
            (1..=5, _) => {
                return Err(Malformed {
                    at,
                    what: "wire type in a time series",
                });
            }
            _ => {}
        }
    }
    Ok(rest)
}

/// Adds packed references, `room` of them at most.
#[inline]
fn read_refs(
    body: &[u8],
    (start, end): (usize, usize),
    mut room: usize,
    refs: &mut Vec<u32>,
) -> Result<(), Malformed> {
    // Through the stack, so that the vector's bounds are looked at once in a while only.
    let mut some = [0; 32];
    let mut packed = &body[start..end];
    while !packed.is_empty() && room > 0 {
        let mut count = 0;
        for symbol in some.iter_mut().take(room) {
            *symbol = match *packed {
                [] => break,
                [low @ ..0x80, ref rest @ ..] => {
                    packed = rest;
                    u32::from(low)
                }
                [low, high @ ..0x80, ref rest @ ..] => {
                    packed = rest;
                    u32::from(low & 0x7f) | u32::from(high) << 7
                }
                _ => {
                    let mut pos = 0;
                    let symbol = millrace_model::read_varint(packed, &mut pos);
                    let at = end - packed.len();
                    let symbol = symbol.ok_or(Malformed { at, what: "varint" })?;
                    packed = &packed[pos..];
                    clamp(symbol)
                }
            };
            count += 1;
        }
        refs.extend_from_slice(&some[..count]);
        room -= count;
    }
    Ok(())
}

/// A reference beyond 32 bits names no symbol; neither does the largest number of 32 bits.
fn clamp(symbol: u64) -> u32 {
    u32::try_from(symbol).unwrap_or(u32::MAX)
}

#[inline]
fn sample(body: &[u8], start: usize, end: usize) -> Result<Sample, Malformed> {
    // As every encoder writes it, value before timestamp and nothing behind.
    if let Some(&[0x09, ref value @ .., 0x10]) = body[..end].get(start..start + 10) {
        let mut pos = start + 10;
        if let Some(timestamp) = millrace_model::read_varint(&body[..end], &mut pos)
            && pos == end
        {
            let value: [u8; 8] = value.try_into().expect("ten bytes less two");
            return Ok(Sample {
                timestamp: TimestampMs(timestamp as i64),
                value: f64::from_le_bytes(value),
            });
        }
    }
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

/// The key of the series that has these references.
#[inline]
fn check_refs(refs: &[u32], symbols: &Symbols, max_labels: usize) -> Result<u128, BadSeries> {
    if !refs.len().is_multiple_of(2) {
        let message = format!("{} label references, which is an odd number", refs.len());
        return Err(BadSeries::new(Reason::BadSymbolReference, message));
    }
    if refs.len() / 2 > max_labels {
        let message = format!("more than {max_labels} labels");
        return Err(BadSeries::new(Reason::TooManyLabels, message).limit(max_labels));
    }
    symbols.key(refs).ok_or_else(|| {
        let outside = refs.iter().find(|symbol| !symbols.has(**symbol));
        let symbol = outside.copied().unwrap_or_default();
        let count = symbols.len();
        let message = format!("label reference {symbol}, but there are {count} symbols");
        let bad = BadSeries::new(Reason::BadSymbolReference, message);
        bad.value(symbol.to_string().as_bytes()).limit(count)
    })
}

fn build_labels(
    refs: &[u32],
    symbols: &Symbols,
    body: &[u8],
    builder: &mut SeriesBuilder<'_>,
) -> Result<(), BadSeries> {
    let mut last: Option<&[u8]> = None;
    for pair in refs.chunks_exact(2) {
        let (name, value) = (symbols.text(pair[0], body), symbols.text(pair[1], body));
        let name_text = text(name, "label name")?;
        // One name twice is told by the builder.
        if last.is_some_and(|last| last > name) {
            let message = format!("label {:?} stands behind a greater one", excerpt(name));
            return Err(BadSeries::new(Reason::UnsortedLabels, message).value(name));
        }
        last = Some(name);
        builder.label(name_text, text(value, "label value")?)?;
    }
    Ok(())
}

fn metric_name<'b>(refs: &[u32], symbols: &Symbols, body: &'b [u8]) -> Option<&'b [u8]> {
    let mut pairs = refs.chunks_exact(2);
    let is_name = |pair: &&[u32]| {
        symbols.has(pair[0]) && symbols.text(pair[0], body) == METRIC_NAME.as_bytes()
    };
    let pair = pairs.find(is_name)?;
    symbols.has(pair[1]).then(|| symbols.text(pair[1], body))
}

#[cold]
fn refuse_histograms(
    refs: &[u32],
    symbols: &Symbols,
    body: &[u8],
    count: usize,
    place: Place,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    out.count_samples(count)?;
    out.report().reject(Reason::NativeHistogram, count, || {
        let message = "native histograms are not stored; send classic ones";
        let bad = BadSeries::new(Reason::NativeHistogram, message);
        Rejection::new(place, bad).of_series(metric_name(refs, symbols, body).map(excerpt))
    });
    Ok(())
}

/// Metadata stand in every series; they are looked at once per metric and request.
fn add_metadata(
    body: &[u8],
    (start, end): (usize, usize),
    first_ref: usize,
    place: Place,
    filter: &mut MetadataFilter<'_>,
    scratch: &mut RemoteWrite2Scratch,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    // `__name__` sorts before all names in lower case.
    let refs = &scratch.refs[first_ref..];
    let &[name_ref, metric_ref, ..] = refs else {
        return Ok(());
    };
    let metric = if scratch.symbols.text(name_ref, body) == METRIC_NAME.as_bytes() {
        if !scratch
            .symbols
            .first_metadata(metric_ref, &body[start..end])
        {
            return Ok(());
        }
        Some(scratch.symbols.text(metric_ref, body))
    } else {
        metric_name(refs, &scratch.symbols, body)
    };
    let Some(metric) = metric else {
        return Ok(());
    };
    let mut fields = Fields::new(body, start, end);
    let mut metric_type = MetricType::Unknown;
    let (mut help_ref, mut unit_ref) = (0, 0);
    while let Some(field) = fields.next().map_err(malformed)? {
        match field {
            (1, Value::Varint(code)) => {
                metric_type = MetricType::from_code(code).unwrap_or_default();
            }
            (3, Value::Varint(symbol)) => help_ref = clamp(symbol),
            (4, Value::Varint(symbol)) => unit_ref = clamp(symbol),
            (1 | 3 | 4, _) => {
                return Err(malformed(Malformed {
                    at: start,
                    what: "wire type in metadata",
                }));
            }
            _ => {}
        }
    }
    if metric_type == MetricType::Unknown && help_ref == 0 && unit_ref == 0 {
        return Ok(());
    }
    for symbol in [help_ref, unit_ref] {
        if !scratch.symbols.has(symbol) {
            let bad = BadSeries::new(
                Reason::BadMetadata,
                format!("metadata reference {symbol}, but there is no such symbol"),
            );
            out.report().reject(bad.reason, 0, || {
                Rejection::new(place, bad).of_series(Some(excerpt(metric)))
            });
            return Ok(());
        }
    }
    let family = Family {
        metric: family_name(metric, metric_type),
        metric_type,
        help: scratch.symbols.text(help_ref, body),
        unit: scratch.symbols.text(unit_ref, body),
    };
    family::add(&family, &family.message(), place, filter, out);
    Ok(())
}

/// Metadata are kept by family: `h` for `h_bucket`, `h_sum` and `h_count`.
fn family_name(metric: &[u8], metric_type: MetricType) -> &[u8] {
    let suffixes: &[&[u8]] = match metric_type {
        MetricType::Histogram | MetricType::GaugeHistogram => &[b"_bucket", b"_sum", b"_count"],
        MetricType::Summary => &[b"_sum", b"_count"],
        MetricType::Unknown
        | MetricType::Counter
        | MetricType::Gauge
        | MetricType::Info
        | MetricType::StateSet => &[],
    };
    let stripped = suffixes.iter().find_map(|s| metric.strip_suffix(*s));
    stripped.filter(|name| !name.is_empty()).unwrap_or(metric)
}

#[cfg(test)]
mod tests;
