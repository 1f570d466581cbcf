//! Data points as samples.
//!
//! A point is read whole before any of its samples is handed on.

use millrace_model::{Sample, TimestampMs};

use super::labels::{Raw, Role};
use super::{Decoder, Span, malformed, span};
use crate::IngestError;
use crate::decode::protobuf::{Fields, Malformed, Value};
use crate::report::{Place, Reason};
use crate::series::{BadSeries, Key, combine};

/// Prometheus' mark for "there is nothing any more".
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);
const NO_RECORDED_VALUE: u64 = 1;

/// What all kinds of points have.
#[derive(Default)]
struct Common {
    time_nanos: u64,
    flags: u64,
    /// First and last byte of the attribute messages.
    run: Option<Span>,
    /// Whether something stands between them.
    scattered: bool,
}

impl Common {
    #[inline]
    fn attribute(&mut self, at: usize, end: usize) {
        let (first, last) = self.run.unwrap_or((at, at));
        self.scattered |= last != at;
        self.run = Some((first, end));
    }

    fn is_stale(&self) -> bool {
        self.flags & NO_RECORDED_VALUE != 0
    }
}

fn wrong_type(at: usize) -> IngestError {
    malformed(Malformed {
        at,
        what: "wire type in a data point",
    })
}

impl Decoder<'_, '_, '_> {
    /// NumberDataPoint: time = 3, as_double = 4, as_int = 6, attributes = 7, flags = 8.
    #[inline]
    pub(super) fn number(
        &mut self,
        (start, end): Span,
        metric: Key,
        place: Place,
    ) -> Result<Result<(), BadSeries>, IngestError> {
        let mut common = Common::default();
        let mut value = None;
        let mut exemplars = 0;
        let mut fields = Fields::new(self.body, start, end);
        loop {
            let at = fields.pos;
            match fields.next().map_err(malformed)? {
                Some((3, Value::Fixed64(nanos))) => common.time_nanos = nanos,
                Some((4, Value::Fixed64(bits))) => value = Some(f64::from_bits(bits)),
                Some((6, Value::Fixed64(int))) => value = Some(int as i64 as f64),
                Some((7, Value::Bytes(..))) => common.attribute(at, fields.pos),
                Some((8, Value::Varint(flags))) => common.flags = flags,
                Some((5, Value::Bytes(..))) => exemplars += 1,
                Some((3..=8, _)) => return Err(wrong_type(at)),
                Some(_) => {}
                None => break,
            }
        }
        self.out.ignore_exemplars(exemplars);
        if common.is_stale() {
            value = Some(STALE);
        }
        let Some(value) = value else {
            let message = "the data point has no value";
            return Ok(Err(BadSeries::new(Reason::MissingValue, message)));
        };
        let timestamp = match self.time(&common) {
            Ok(timestamp) => timestamp,
            Err(bad) => return Ok(Err(bad)),
        };
        let (attributes, key) = self.attributes(&common, (start, end), 7, metric)?;
        let sample = Sample { timestamp, value };
        self.push(key, place, attributes, Role::Value, sample);
        Ok(Ok(()))
    }

    /// HistogramDataPoint: time = 3, count = 4, sum = 5, bucket_counts = 6, explicit_bounds = 7,
    /// attributes = 9, flags = 10.
    pub(super) fn histogram(
        &mut self,
        (start, end): Span,
        metric: Key,
        place: Place,
    ) -> Result<Result<(), BadSeries>, IngestError> {
        let mut common = Common::default();
        let (mut count, mut sum) = (0, None);
        let mut exemplars = 0;
        self.scratch.counts.clear();
        self.scratch.bounds.clear();
        let most = self.out.context().limits.samples;
        let body = self.body;
        let mut fields = Fields::new(body, start, end);
        loop {
            let at = fields.pos;
            match fields.next().map_err(malformed)? {
                Some((3, Value::Fixed64(nanos))) => common.time_nanos = nanos,
                Some((4, Value::Fixed64(n))) => count = n,
                Some((5, Value::Fixed64(bits))) => sum = Some(f64::from_bits(bits)),
                Some((6, Value::Fixed64(n))) => self.scratch.counts.push(n),
                Some((6, Value::Bytes(start, end))) => {
                    let words = eights(&body[start..end], at)?;
                    self.scratch.counts.extend(words);
                }
                Some((7, Value::Fixed64(bits))) => {
                    self.scratch.bounds.push(f64::from_bits(bits));
                }
                Some((7, Value::Bytes(start, end))) => {
                    let words = eights(&body[start..end], at)?;
                    self.scratch.bounds.extend(words.map(f64::from_bits));
                }
                Some((8, Value::Bytes(..))) => exemplars += 1,
                Some((9, Value::Bytes(..))) => common.attribute(at, fields.pos),
                Some((10, Value::Varint(flags))) => common.flags = flags,
                Some((3..=10, _)) => return Err(wrong_type(at)),
                Some(_) => {}
                None => break,
            }
            if self.scratch.bounds.len() > most {
                // There is a sample for each, and this says that they are too many.
                self.out.count_samples(self.scratch.bounds.len())?;
            }
        }
        self.out.ignore_exemplars(exemplars);
        let (counts, bounds) = (&self.scratch.counts, &self.scratch.bounds);
        let counted = counts.len() == bounds.len() + 1;
        let empty = counts.is_empty() && bounds.is_empty();
        if !counted && !empty {
            let message = format!(
                "{} bucket counts do not fit {} bounds: there is one more of them",
                counts.len(),
                bounds.len()
            );
            return Ok(Err(BadSeries::new(Reason::BadHistogram, message)));
        }
        // Written so that NaN among them is found too.
        if !bounds.windows(2).all(|pair| pair[0] < pair[1]) || bounds.iter().any(|b| b.is_nan()) {
            let message = "the bounds do not grow from each to the next";
            return Ok(Err(BadSeries::new(Reason::BadHistogram, message)));
        }
        let timestamp = match self.time(&common) {
            Ok(timestamp) => timestamp,
            Err(bad) => return Ok(Err(bad)),
        };
        let (attributes, key) = self.attributes(&common, (start, end), 9, metric)?;
        let stale = common.is_stale();
        let push = |this: &mut Self, role: Role, value: f64| {
            let value = if stale { STALE } else { value };
            let sample = Sample { timestamp, value };
            this.push(combine(key, role.key()), place, attributes, role, sample);
        };
        if let Some(sum) = sum {
            push(self, Role::Sum, sum);
        }
        push(self, Role::Count, count as f64);
        let mut below = 0u64;
        for i in 0..self.scratch.bounds.len() {
            // Counts that pass 64 bits together are no counts; they must not panic.
            below = below.wrapping_add(self.scratch.counts[i]);
            let bound = self.scratch.bounds[i];
            if bound < f64::INFINITY {
                push(self, Role::Bucket(bound), below as f64);
            }
        }
        push(self, Role::Bucket(f64::INFINITY), count as f64);
        Ok(Ok(()))
    }

    /// SummaryDataPoint: time = 3, count = 4, sum = 5, quantile_values = 6 { quantile = 1, value = 2 },
    /// attributes = 7, flags = 8.
    pub(super) fn summary(
        &mut self,
        (start, end): Span,
        metric: Key,
        place: Place,
    ) -> Result<Result<(), BadSeries>, IngestError> {
        let mut common = Common::default();
        let (mut count, mut sum) = (0, 0.0);
        let mut quantiles: Vec<(f64, f64)> = Vec::new();
        let most = self.out.context().limits.samples;
        let mut fields = Fields::new(self.body, start, end);
        loop {
            let at = fields.pos;
            match fields.next().map_err(malformed)? {
                Some((3, Value::Fixed64(nanos))) => common.time_nanos = nanos,
                Some((4, Value::Fixed64(n))) => count = n,
                Some((5, Value::Fixed64(bits))) => sum = f64::from_bits(bits),
                Some((6, value)) => quantiles.push(self.quantile(span(value, at)?)?),
                Some((7, Value::Bytes(..))) => common.attribute(at, fields.pos),
                Some((8, Value::Varint(flags))) => common.flags = flags,
                Some((3..=8, _)) => return Err(wrong_type(at)),
                Some(_) => {}
                None => break,
            }
            if quantiles.len() > most {
                self.out.count_samples(quantiles.len())?;
            }
        }
        let timestamp = match self.time(&common) {
            Ok(timestamp) => timestamp,
            Err(bad) => return Ok(Err(bad)),
        };
        let (attributes, key) = self.attributes(&common, (start, end), 7, metric)?;
        let stale = common.is_stale();
        let roles = [(Role::Sum, sum), (Role::Count, count as f64)];
        let quantiles = quantiles.iter().map(|(q, v)| (Role::Quantile(*q), *v));
        for (role, value) in roles.into_iter().chain(quantiles) {
            let value = if stale { STALE } else { value };
            let sample = Sample { timestamp, value };
            self.push(combine(key, role.key()), place, attributes, role, sample);
        }
        Ok(Ok(()))
    }

    fn quantile(&self, (start, end): Span) -> Result<(f64, f64), IngestError> {
        let (mut quantile, mut value) = (0.0, 0.0);
        let mut fields = Fields::new(self.body, start, end);
        while let Some(field) = fields.next().map_err(malformed)? {
            match field {
                (1, Value::Fixed64(bits)) => quantile = f64::from_bits(bits),
                (2, Value::Fixed64(bits)) => value = f64::from_bits(bits),
                (1 | 2, _) => return Err(wrong_type(start)),
                _ => {}
            }
        }
        Ok((quantile, value))
    }

    /// A point's moment, if it is taken.
    #[inline]
    fn time(&mut self, common: &Common) -> Result<TimestampMs, BadSeries> {
        if common.time_nanos == 0 {
            let message = "the data point has no time";
            return Err(BadSeries::new(Reason::BadTimestamp, message));
        }
        // 64 bits of nanoseconds are far fewer milliseconds.
        let timestamp = TimestampMs((common.time_nanos / 1_000_000) as i64);
        self.out.check_time(timestamp)?;
        if self.out.context().window.contains(timestamp) {
            let (first, last) = self.times.unwrap_or((timestamp.0, timestamp.0));
            self.times = Some((first.min(timestamp.0), last.max(timestamp.0)));
        }
        Ok(timestamp)
    }

    /// Where a point's attributes stand, and the key of its series.
    #[inline]
    fn attributes(
        &mut self,
        common: &Common,
        point: Span,
        number: u32,
        metric: Key,
    ) -> Result<(Raw, Key), IngestError> {
        let body = self.body;
        let Some((start, end)) = common.run else {
            return Ok((Raw::NONE, combine(metric, 0)));
        };
        if !common.scattered {
            let key = combine(metric, self.hasher.hash(&body[start..end]));
            return Ok((Raw::body((start, end), number), key));
        }
        let gathered = &mut self.scratch.gathered;
        let first = gathered.len();
        let mut fields = Fields::new(body, point.0, point.1);
        loop {
            let at = fields.pos;
            match fields.next().map_err(malformed)? {
                Some((n, _)) if n == number => gathered.extend_from_slice(&body[at..fields.pos]),
                Some(_) => {}
                None => break,
            }
        }
        let key = combine(metric, self.hasher.hash(&gathered[first..]));
        Ok((Raw::gathered((first, gathered.len()), number), key))
    }
}

/// Packed fixed-size numbers.
fn eights(bytes: &[u8], at: usize) -> Result<impl Iterator<Item = u64> + '_, IngestError> {
    let (words, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(malformed(Malformed {
            at,
            what: "length of packed numbers",
        }));
    }
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)))
}
