//! What a decoder hands its samples to: looks up or makes the series, and writes the sections.
//!
//! Invariants:
//! - Samples of one series go out in the order in which they came, so "the later one wins" holds
//!   inside a request too. A new series is therefore made on the spot, not afterwards.
//! - Nothing leaves before [`Collector::finish`], so a request that turns out to be over a limit
//!   leaves no trace.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use millrace_model::batch::{EncodedSection, FloatSectionWriter};
use millrace_model::{
    Labels, LabelsBuilder, MetricMetadata, PartitionId, Sample, SeriesHasher, TenantId, TimestampMs,
};
use millrace_queue::QueueIdentity;
use millrace_relabel::{LabelSet, Rules};

use super::builder::{BadSeries, SeriesBuilder};
use super::cache::{CacheReader, Found, Fresh, KeyMap, Known, SeriesCache};
use super::hasher::Key;
use super::output::{Output, out_of_window};
use crate::IngestError;
use crate::options::{Limits, TimeWindow};
use crate::report::{Place, Report};
use crate::tenants::Gate;

/// What collecting needs to know of a request's surroundings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) queue: &'a QueueIdentity,
    pub(crate) limits: &'a Limits,
    pub(crate) window: TimeWindow,
    pub(crate) arrival: TimestampMs,
    pub(crate) cache: &'a SeriesCache,
    /// Longest section that the queue takes.
    pub(crate) max_section_bytes: usize,
    /// Labels that every series gets, whatever its own say.
    pub(crate) forced: &'a [(String, String)],
    /// As many refused items are described.
    pub(crate) details: usize,
    /// What becomes of each series.
    pub(crate) relabel: &'a Rules,
    /// Whether one refused item refuses all.
    pub(crate) all_or_nothing: bool,
    /// Whether samples beyond a limit that may be raised are written apart.
    pub(crate) keep_rejected: bool,
}

/// The buffers of a collector.
#[derive(Debug, Default)]
pub(crate) struct CollectScratch {
    writers: Vec<FloatSectionWriter>,
    fresh: KeyMap<Fresh>,
    used: Vec<Key>,
    told: Vec<Key>,
    found: Vec<Option<Found>>,
    runs: Vec<u64>,
    labels: LabelsBuilder,
    in_window: Vec<Sample>,
    rejected: BTreeMap<PartitionId, FloatSectionWriter>,
}

impl CollectScratch {
    /// A request of many new series leaves a large map behind; the next ones do not need it.
    const KEEP_FRESH: usize = 16 << 10;

    pub(crate) fn trim(&mut self) {
        if self.fresh.capacity() > Self::KEEP_FRESH {
            self.fresh = KeyMap::default();
        }
    }
}

/// A run of samples of one series.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// Where it stands in the request.
    pub(crate) place: Place,
    /// Which of the samples that come with it.
    pub(crate) samples: Range<u32>,
}

/// Collects one request.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    context: Context<'a>,
    fresh: &'a mut KeyMap<Fresh>,
    used: &'a mut Vec<Key>,
    /// Series whose tenant's count was told of them.
    told: &'a mut Vec<Key>,
    gate: Gate<'a>,
    found: &'a mut Vec<Option<Found>>,
    labels: &'a mut LabelsBuilder,
    out: Output<'a>,
    hits: u64,
    misses: u64,
    samples: usize,
    points: u64,
    new_label_bytes: usize,
}

/// Takes the sections of a request, in an order that keeps each series' samples in theirs, and the
/// number of samples in them. Whether they are on their way now; if not, nothing of the request counts.
pub(crate) type Submit<'s> = dyn FnMut(Vec<(PartitionId, EncodedSection)>, u64) -> bool + 's;

/// What a request comes to.
#[derive(Debug)]
pub(crate) struct Collected {
    /// Samples that were submitted.
    pub(crate) accepted: u64,
    /// What was refused and is to be kept.
    pub(crate) rejected: Vec<(PartitionId, EncodedSection)>,
    pub(crate) report: Report,
    /// Samples that the rules drop.
    pub(crate) dropped: u64,
    /// Data points of OTLP, refused ones included.
    pub(crate) points: u64,
    pub(crate) ignored_exemplars: u64,
    pub(crate) ignored_string_fields: u64,
    pub(crate) cache_hits: u64,
    pub(crate) cache_misses: u64,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(
        context: Context<'a>,
        gate: Gate<'a>,
        scratch: &'a mut CollectScratch,
    ) -> Self {
        let CollectScratch {
            writers,
            fresh,
            used,
            told,
            found,
            runs,
            labels,
            in_window,
            rejected,
        } = scratch;
        rejected.clear();
        // A request that was refused half-way has left its own behind.
        writers.truncate(context.queue.partitions as usize);
        for writer in writers.iter_mut() {
            drop(writer.finish());
        }
        writers.resize_with(context.queue.partitions as usize, FloatSectionWriter::new);
        fresh.clear();
        used.clear();
        told.clear();
        runs.clear();
        Self {
            context,
            gate,
            fresh,
            used,
            told,
            found,
            labels,
            out: Output {
                writers,
                runs,
                in_window,
                rejected: context.keep_rejected.then_some(rejected),
                rejected_sections: Vec::new(),
                window: context.window,
                section_bytes: Output::SECTION_BYTES.min(context.max_section_bytes / 2),
                sections: Vec::new(),
                metadata: Vec::new(),
                accepted: 0,
                dropped: 0,
                report: Report::keeping(context.details),
                refused_last: None,
                ignored_exemplars: 0,
                ignored_string_fields: 0,
            },
            hits: 0,
            misses: 0,
            samples: 0,
            points: 0,
            new_label_bytes: 0,
        }
    }

    pub(crate) fn context(&self) -> &Context<'a> {
        &self.context
    }

    /// Adds runs of samples, each of one series. `build` puts the labels of the i-th together if
    /// its series is not known. Best called with a few dozen: they share the lock, and their cache
    /// misses overlap.
    ///
    /// # Errors
    ///
    /// [`IngestError::TooLarge`] when the request has too many samples or labels.
    #[inline]
    pub(crate) fn add_all(
        &mut self,
        entries: &[Entry],
        samples: &[Sample],
        mut build: impl FnMut(usize, &mut SeriesBuilder<'_>) -> Result<(), BadSeries>,
    ) -> Result<(), IngestError> {
        self.count_samples(samples.len())?;
        let reader = self.context.cache.read();
        // Look-ups do not depend on each other, so that the processor does them at the same time
        // as long as nothing else comes between.
        self.found.clear();
        let find = |entry: &Entry| reader.find(entry.key);
        self.found.extend(entries.iter().map(find));
        reader.touch(self.found);
        let mark = self.gate.mark();
        for (i, entry) in entries.iter().enumerate() {
            let samples = &samples[entry.samples.start as usize..entry.samples.end as usize];
            match self.found[i] {
                Some(found) => {
                    self.hits += 1;
                    if found.only_previous() {
                        self.used.push(entry.key);
                    }
                    if found.told() != mark && !self.tell(&reader, found, entry, samples) {
                        continue;
                    }
                    let known = reader.known(found);
                    self.out.put(entry.key, known, samples, entry.place);
                }
                None => self.add_unknown(entry, samples, |builder| build(i, builder))?,
            }
        }
        Ok(())
    }

    /// Tells the tenant's count of active series of one that was not told of in this epoch. Whether its
    /// samples may be taken; if not, they are refused.
    #[cold]
    fn tell(
        &mut self,
        reader: &CacheReader<'_>,
        found: Found,
        entry: &Entry,
        samples: &[Sample],
    ) -> bool {
        let Known::Good {
            id,
            partition,
            labels,
        } = reader.known(found)
        else {
            return true;
        };
        match self.gate.ask(id, labels) {
            Ok(()) => {
                self.told.push(entry.key);
                true
            }
            Err(full) => {
                let bad = self.gate.refusal(full);
                self.out.put_full((id, labels), bad, samples, entry.place);
                self.out.put_rejected(id, partition, labels, samples);
                false
            }
        }
    }

    fn add_unknown(
        &mut self,
        entry: &Entry,
        samples: &[Sample],
        build: impl FnOnce(&mut SeriesBuilder<'_>) -> Result<(), BadSeries>,
    ) -> Result<(), IngestError> {
        self.misses += 1;
        let fresh = match self.fresh.entry(entry.key) {
            hashbrown::hash_map::Entry::Occupied(known) => known.into_mut(),
            hashbrown::hash_map::Entry::Vacant(place) => {
                let mut fresh = make_series(&self.context, self.labels, build);
                self.new_label_bytes += fresh.bytes();
                check_new_labels(self.new_label_bytes, self.context.limits)?;
                if let Fresh::Good {
                    id, labels, full, ..
                } = &mut fresh
                {
                    *full = self.gate.ask(*id, labels.canonical()).err();
                }
                place.insert(fresh)
            }
        };
        if let Fresh::Good {
            id,
            partition,
            labels,
            full: Some(full),
        } = fresh
        {
            let bad = self.gate.refusal(*full);
            let labels = labels.canonical();
            self.out.put_full((*id, labels), bad, samples, entry.place);
            self.out.put_rejected(*id, *partition, labels, samples);
            return Ok(());
        }
        self.out.put(entry.key, fresh.known(), samples, entry.place);
        Ok(())
    }

    /// Counts samples that are refused before they get to [`add`](Self::add) too: reading them is
    /// work.
    ///
    /// # Errors
    ///
    /// [`IngestError::TooLarge`] when the request has too many samples.
    #[inline]
    pub(crate) fn count_samples(&mut self, count: usize) -> Result<(), IngestError> {
        self.samples += count;
        if self.samples > self.context.limits.samples {
            return Err(too_many(
                "samples of the request (ingest.limits.samples)",
                "too_many_samples",
                None,
                self.context.limits.samples,
            ));
        }
        Ok(())
    }

    /// Whether a timestamp is taken; if not, reason and message. Where refused samples are kept every one
    /// passes here, and is refused once it is known which series it is of.
    #[inline]
    pub(crate) fn check_time(&self, timestamp: TimestampMs) -> Result<(), BadSeries> {
        if self.context.window.contains(timestamp) || self.context.keep_rejected {
            return Ok(());
        }
        Err(out_of_window(timestamp, self.context.window))
    }

    pub(crate) fn report(&mut self) -> &mut Report {
        &mut self.out.report
    }

    /// Counts a data point of OTLP, and gives it its place.
    pub(crate) fn next_point(&mut self) -> Place {
        self.points += 1;
        Place::Point(self.points - 1)
    }

    /// Data points so far.
    pub(crate) fn points(&self) -> u64 {
        self.points
    }

    pub(crate) fn ignore_exemplars(&mut self, count: u64) {
        self.out.ignored_exemplars += count;
    }

    pub(crate) fn ignore_string_fields(&mut self, count: u64) {
        self.out.ignored_string_fields += count;
    }

    /// Adds the metadata of a metric.
    pub(crate) fn add_metadata(&mut self, entry: MetricMetadata) {
        self.out.metadata.push(entry);
    }

    /// Bounds the metadata entries of the request.
    ///
    /// # Errors
    ///
    /// [`IngestError::TooLarge`] if `count` of them are too many.
    pub(crate) fn check_metadata_count(&self, count: u64) -> Result<(), IngestError> {
        let limit = self.context.limits.series;
        if count <= limit as u64 {
            return Ok(());
        }
        Err(too_many(
            "metadata entries of the request (ingest.limits.series)",
            "too_many_series",
            None,
            limit,
        ))
    }

    /// Ends the request: its sections are submitted, and its new series known from now on. They count
    /// for their tenant only if `submit` has taken them.
    ///
    /// # Errors
    ///
    /// [`IngestError::TooLarge`] when the request has too many series.
    pub(crate) fn finish(mut self, submit: &mut Submit<'_>) -> Result<Collected, IngestError> {
        let series = self.out.distinct_series(self.context.limits.series);
        if series > self.context.limits.series {
            return Err(too_many(
                "series of the request (ingest.limits.series)",
                "too_many_series",
                Some(series),
                self.context.limits.series,
            ));
        }
        self.out.finish_sections();
        self.out.finish_metadata(&self.context);
        let nothing = self.context.all_or_nothing && !self.out.report.is_empty();
        if nothing {
            self.out.accepted = 0;
            // All of it comes again.
            self.out.rejected_sections.clear();
        }
        let told = if !nothing && submit(self.out.sections, self.out.accepted) {
            let mark = self.gate.mark();
            self.gate.commit();
            mark
        } else {
            drop(self.gate);
            0
        };
        self.context.cache.update(self.fresh, self.used, told);
        if told != 0 {
            self.context.cache.note_told(self.told, told);
        }
        // Decoders that look series up together refuse some a little earlier than others.
        self.out.report.sort();
        Ok(Collected {
            accepted: self.out.accepted,
            dropped: self.out.dropped,
            rejected: self.out.rejected_sections,
            report: self.out.report,
            points: self.points,
            ignored_exemplars: self.out.ignored_exemplars,
            ignored_string_fields: self.out.ignored_string_fields,
            cache_hits: self.hits,
            cache_misses: self.misses,
        })
    }
}

/// A line of few bytes may name many series that share its tags, each with labels of its own; so
/// what new series take is bounded beside what the body takes.
fn check_new_labels(bytes: usize, limits: &Limits) -> Result<(), IngestError> {
    if bytes <= limits.decoded_bytes {
        return Ok(());
    }
    Err(IngestError::TooLarge {
        what: "labels of the request's new series together (ingest.limits.decoded_bytes)",
        reason: "too_many_series",
        got: None,
        limit: limits.decoded_bytes as u64,
        unit: " bytes",
    })
}

#[cold]
fn too_many(
    what: &'static str,
    reason: &'static str,
    got: Option<usize>,
    limit: usize,
) -> IngestError {
    IngestError::TooLarge {
        what,
        reason,
        got: got.map(|n| n as u64),
        limit: limit as u64,
        unit: "",
    }
}

fn make_series(
    context: &Context<'_>,
    labels: &mut LabelsBuilder,
    build: impl FnOnce(&mut SeriesBuilder<'_>) -> Result<(), BadSeries>,
) -> Fresh {
    let mut builder = SeriesBuilder::new(labels, context.limits, context.forced);
    let result = build(&mut builder).and_then(|()| builder.finish());
    let result = match result {
        Ok(labels) if !context.relabel.is_empty() => {
            match relabelled(&labels, context, &mut builder) {
                Ok(None) => return Fresh::Dropped,
                Ok(Some(labels)) => Ok(labels),
                Err(bad) => Err(bad),
            }
        }
        result => result,
    };
    match result {
        Ok(labels) => Fresh::Good {
            id: SeriesHasher::new(context.tenant).id(&labels),
            partition: context.queue.shard_key.partition(
                context.tenant,
                &labels,
                context.queue.partitions,
            ),
            labels,
            full: None,
        },
        Err(bad) => Fresh::Refused {
            metric: builder.metric().unwrap_or_default().to_owned(),
            bad,
        },
    }
}

/// What the rules make of a series; `None` if they drop it. Forced labels stand whatever they say.
fn relabelled(
    labels: &Labels,
    context: &Context<'_>,
    builder: &mut SeriesBuilder<'_>,
) -> Result<Option<Labels>, BadSeries> {
    let mut labels: LabelSet = labels.iter().collect();
    if !context.relabel.apply(&mut labels) || labels.is_empty() {
        return Ok(None);
    }
    builder.restart();
    for (name, value) in labels.iter() {
        builder.label(name, value)?;
    }
    builder.finish().map(Some)
}

impl fmt::Display for BadSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.reason)
    }
}
