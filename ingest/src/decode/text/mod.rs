//! Text exposition formats, pushed: [`parser`] reads lines, [`labels`] takes series apart, and this
//! hands both to the collector.
//!
//! A series' key is the hash of name and labels as they stand in the line.

mod labels;
mod parser;

use millrace_model::{MetricType, Sample, TimestampMs};

use crate::IngestError;
use crate::decode::family::{self, Family};
use crate::metadata::MetadataFilter;
use crate::report::{Place, Rejection, excerpt};
use crate::series::{BadSeries, Collector, Entry, KeyHasher};
pub(crate) use labels::{help_text, series_labels};
pub(crate) use parser::{Dialect, Event, LineError, Parser, TextSample};

/// How the lines of a request are to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextOptions {
    pub(crate) dialect: Dialect,
    /// Of samples without a timestamp; the time of arrival where it is not given.
    pub(crate) timestamp: Option<TimestampMs>,
}

/// Buffers kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct TextScratch {
    /// Samples that wait to be looked up together, one each.
    entries: Vec<Entry>,
    samples: Vec<Sample>,
}

/// Enough for their cache misses to overlap; few enough for their bytes to be still near.
const TOGETHER: usize = 64;

/// Decodes a request body.
///
/// # Errors
///
/// Too many samples; OpenMetrics without its end. Bad lines are reported, and the others taken.
pub(crate) fn decode(
    body: &[u8],
    options: &TextOptions,
    hasher: &KeyHasher,
    metadata: &mut MetadataFilter<'_>,
    scratch: &mut TextScratch,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    scratch.entries.clear();
    scratch.samples.clear();
    let arrival = options.timestamp.unwrap_or(out.context().arrival);
    let mut parser = Parser::new(body, options.dialect);
    let mut series: Vec<&[u8]> = Vec::with_capacity(TOGETHER);
    let mut families = Families::default();
    let mut ended = false;
    while let Some(event) = parser.next() {
        let place = Place::Line(parser.line());
        if ended {
            return Err(not_whole("lines behind # EOF"));
        }
        match event {
            Ok(Event::Sample(sample)) => {
                if sample.exemplar {
                    out.ignore_exemplars(1);
                }
                let index = scratch.samples.len() as u32;
                scratch.entries.push(Entry {
                    key: hasher.hash(sample.series),
                    place,
                    samples: index..index + 1,
                });
                scratch.samples.push(Sample {
                    timestamp: sample.timestamp.unwrap_or(arrival),
                    value: sample.value,
                });
                series.push(sample.series);
                if series.len() == TOGETHER {
                    flush(scratch, &mut series, out)?;
                }
            }
            Ok(Event::Type(metric, kind)) => {
                families.at(metric, place, metadata, out)?.metric_type = kind;
            }
            Ok(Event::Help(metric, help)) => {
                families.at(metric, place, metadata, out)?.help = help;
            }
            Ok(Event::Unit(metric, unit)) => {
                families.at(metric, place, metadata, out)?.unit = unit;
            }
            Ok(Event::Eof) => ended = options.dialect == Dialect::OpenMetrics,
            Err(error) => {
                out.count_samples(1)?;
                refuse_line(&error, place, out);
            }
        }
    }
    if options.dialect == Dialect::OpenMetrics && !ended {
        return Err(not_whole("# EOF is missing, so something may be missing"));
    }
    families.flush(metadata, out);
    flush(scratch, &mut series, out)
}

fn flush(
    scratch: &mut TextScratch,
    series: &mut Vec<&[u8]>,
    out: &mut Collector<'_>,
) -> Result<(), IngestError> {
    out.add_all(&scratch.entries, &scratch.samples, |i, builder| {
        series_labels(series[i], |name, value| builder.label(name, value))
    })?;
    scratch.entries.clear();
    scratch.samples.clear();
    series.clear();
    Ok(())
}

#[cold]
fn not_whole(detail: &str) -> IngestError {
    IngestError::MalformedBody {
        reason: "malformed_text",
        detail: format!("not a whole OpenMetrics text: {detail}"),
    }
}

#[cold]
fn refuse_line(error: &LineError<'_>, place: Place, out: &mut Collector<'_>) {
    out.report().reject(error.reason, 0, || {
        let message = format!(
            "{} (byte {} of the line: {:?})",
            error.what,
            error.at + 1,
            excerpt(error.line)
        );
        Rejection::new(
            place,
            BadSeries::new(error.reason, message).value(error.line),
        )
    });
}

/// Gathers what the comment lines of one family say.
#[derive(Default)]
struct Families<'a> {
    current: Option<(Family<'a>, Place)>,
    count: u64,
}

impl<'a> Families<'a> {
    /// The family of that name, begun at `place` if it is not the one in hand.
    fn at(
        &mut self,
        metric: &'a [u8],
        place: Place,
        filter: &mut MetadataFilter<'_>,
        out: &mut Collector<'_>,
    ) -> Result<&mut Family<'a>, IngestError> {
        if self
            .current
            .is_none_or(|(family, _)| family.metric != metric)
        {
            self.flush(filter, out);
            self.count += 1;
            out.check_metadata_count(self.count)?;
        }
        let begun = || {
            let family = Family {
                metric,
                metric_type: MetricType::Unknown,
                help: b"",
                unit: b"",
            };
            (family, place)
        };
        Ok(&mut self.current.get_or_insert_with(begun).0)
    }

    fn flush(&mut self, filter: &mut MetadataFilter<'_>, out: &mut Collector<'_>) {
        if let Some((family, place)) = self.current.take() {
            let help = help_text(family.help);
            let family = Family {
                help: &help,
                ..family
            };
            family::add(&family, &family.message(), place, filter, out);
        }
    }
}

#[cfg(test)]
mod tests;
