//! Where a collector's samples go: the sections of their partitions, the report of what is refused, and the
//! sections of what is refused and kept.

use std::collections::BTreeMap;

use millrace_model::batch::{EncodedSection, FloatSectionWriter, encode_metadata_section};
use millrace_model::{
    Labels, MetricMetadata, PartitionId, Sample, SeriesId, ShardKey, TenantId, TimestampMs,
};

use millrace_queue::QueueIdentity;

use super::builder::BadSeries;
use super::cache::Known;
use super::collector::Context;
use super::hasher::Key;
use crate::options::TimeWindow;
use crate::report::{Place, Reason, Rejection, Report};

/// The part of a collector that known series are written to.
#[derive(Debug)]
pub(super) struct Output<'a> {
    pub(super) writers: &'a mut Vec<FloatSectionWriter>,
    /// Of each run of samples of one series 64 bits that tell the series.
    pub(super) runs: &'a mut Vec<u64>,
    pub(super) in_window: &'a mut Vec<Sample>,
    /// Where refused samples go, if they are kept.
    pub(super) rejected: Option<&'a mut BTreeMap<PartitionId, FloatSectionWriter>>,
    pub(super) rejected_sections: Vec<(PartitionId, EncodedSection)>,
    pub(super) window: TimeWindow,
    /// A section is closed when it has grown so long.
    pub(super) section_bytes: usize,
    pub(super) sections: Vec<(PartitionId, EncodedSection)>,
    pub(super) metadata: Vec<MetricMetadata>,
    pub(super) accepted: u64,
    pub(super) dropped: u64,
    pub(super) report: Report,
    pub(super) refused_last: Option<(Place, Reason)>,
    pub(super) ignored_exemplars: u64,
    pub(super) ignored_string_fields: u64,
}

impl Output<'_> {
    /// A section is closed at about this size at most, so that the queue can spread sections over
    /// batches of its own bound.
    pub(super) const SECTION_BYTES: usize = 256 << 10;
    /// Most samples that are written in one go.
    const RUN_SAMPLES: usize = 4096;
    /// What a sample takes at most: one run cannot outgrow a section by far, however short the
    /// queue's records are.
    const SAMPLE_BYTES: usize = 19;

    #[inline]
    pub(super) fn put(&mut self, key: Key, known: Known<'_>, samples: &[Sample], place: Place) {
        match known {
            Known::Good {
                id,
                partition,
                labels,
            } => {
                self.runs.push(id.0 as u64);
                if samples.iter().all(|s| self.window.contains(s.timestamp)) {
                    self.write(id, partition, labels, samples);
                } else {
                    self.write_in_window(id, partition, labels, samples, place);
                }
            }
            Known::Dropped => {
                self.runs.push(key as u64);
                self.dropped += samples.len() as u64;
            }
            Known::Refused {
                reason,
                metric,
                message,
                value,
                limit,
            } => {
                self.runs.push(key as u64);
                if self.is_told(place, reason) {
                    return self.report.add_samples(reason, samples.len());
                }
                self.refused_last = Some((place, reason));
                self.report.reject(reason, samples.len(), || Rejection {
                    place,
                    series: (!metric.is_empty()).then(|| metric.to_owned()),
                    field: None,
                    reason,
                    value: value.map(str::to_owned),
                    limit,
                    message: message.to_owned(),
                    line: None,
                });
            }
        }
    }

    /// Whether a refusal was told already. Bad tags refuse every field of their line; that is one thing to
    /// tell, not ten. A data point counts once, whatever is wrong with the series that it makes.
    fn is_told(&self, place: Place, reason: Reason) -> bool {
        self.refused_last.is_some_and(|(last, why)| {
            last == place && (why == reason || matches!(place, Place::Point(_)))
        })
    }

    /// Refuses samples of a series that is beyond a limit of its tenant.
    #[cold]
    pub(super) fn put_full(
        &mut self,
        (id, labels): (SeriesId, &[u8]),
        bad: &BadSeries,
        samples: &[Sample],
        place: Place,
    ) {
        let samples = samples.len();
        self.runs.push(id.0 as u64);
        // A data point that makes several series is one thing to tell.
        let told = matches!(place, Place::Point(_))
            && self.refused_last.is_some_and(|(last, _)| last == place);
        if told {
            return self.report.add_samples(bad.reason, samples);
        }
        self.refused_last = Some((place, bad.reason));
        self.report.reject(bad.reason, samples, || {
            Rejection::new(place, bad.clone()).of_series(Some(describe(labels)))
        });
    }

    /// Writes refused samples apart, if they are kept.
    pub(super) fn put_rejected(
        &mut self,
        id: SeriesId,
        partition: PartitionId,
        labels: &[u8],
        samples: &[Sample],
    ) {
        let Some(rejected) = &mut self.rejected else {
            return;
        };
        let writer = rejected.entry(partition).or_default();
        let most = self.section_bytes / Self::SAMPLE_BYTES;
        for run in samples.chunks(most.clamp(1, Self::RUN_SAMPLES)) {
            writer.push(id, labels, run);
            if writer.bytes_len() >= self.section_bytes {
                self.rejected_sections
                    .extend(writer.finish().map(|section| (partition, section)));
            }
        }
    }

    #[inline]
    fn write(&mut self, id: SeriesId, partition: PartitionId, labels: &[u8], samples: &[Sample]) {
        self.accepted += samples.len() as u64;
        let most = self.section_bytes / Self::SAMPLE_BYTES;
        for run in samples.chunks(most.clamp(1, Self::RUN_SAMPLES)) {
            let writer = &mut self.writers[partition.index()];
            writer.push(id, labels, run);
            if writer.bytes_len() >= self.section_bytes {
                self.sections
                    .extend(writer.finish().map(|section| (partition, section)));
            }
        }
    }

    #[cold]
    fn write_in_window(
        &mut self,
        id: SeriesId,
        partition: PartitionId,
        labels: &[u8],
        samples: &[Sample],
        place: Place,
    ) {
        let mut good = std::mem::take(self.in_window);
        good.clear();
        for reason in [Reason::TooOld, Reason::TooFarAhead] {
            let outside = |s: &&Sample| match reason {
                Reason::TooOld => s.timestamp.0 < self.window.oldest,
                _ => s.timestamp.0 > self.window.newest,
            };
            let count = samples.iter().filter(outside).count();
            if let Some(first) = samples.iter().find(outside) {
                if self.is_told(place, reason) {
                    self.report.add_samples(reason, count);
                    continue;
                }
                self.refused_last = Some((place, reason));
                let window = self.window;
                self.report.reject(reason, count, || {
                    Rejection::new(place, out_of_window(first.timestamp, window))
                        .of_series(Some(describe(labels)))
                });
            }
        }
        if self.rejected.is_some() {
            good.extend(
                samples
                    .iter()
                    .filter(|s| !self.window.contains(s.timestamp)),
            );
            self.put_rejected(id, partition, labels, &good);
            good.clear();
        }
        good.extend(samples.iter().filter(|s| self.window.contains(s.timestamp)));
        self.write(id, partition, labels, &good);
        *self.in_window = good;
    }

    pub(super) fn distinct_series(&mut self, limit: usize) -> usize {
        if self.runs.len() > limit {
            self.runs.sort_unstable();
            self.runs.dedup();
        }
        self.runs.len()
    }

    pub(super) fn finish_sections(&mut self) {
        for (i, writer) in self.writers.iter_mut().enumerate() {
            let partition = PartitionId(i as u32);
            self.sections
                .extend(writer.finish().map(|section| (partition, section)));
        }
        for (partition, mut writer) in self.rejected.iter_mut().flat_map(|r| std::mem::take(*r)) {
            self.rejected_sections
                .extend(writer.finish().map(|section| (partition, section)));
        }
    }

    /// Metadata lives in the partition of its metric's name alone.
    pub(super) fn finish_metadata(&mut self, context: &Context<'_>) {
        let entries = std::mem::take(&mut self.metadata);
        let sections = metadata_sections(context.tenant, context.queue, entries);
        self.sections.extend(sections);
    }
}

/// Sections of metadata. Metadata lives in the partition of its metric's name alone.
pub(crate) fn metadata_sections(
    tenant: &TenantId,
    queue: &QueueIdentity,
    entries: Vec<MetricMetadata>,
) -> Vec<(PartitionId, EncodedSection)> {
    let by_name = ShardKey::new([]);
    let mut by_partition = BTreeMap::<PartitionId, Vec<_>>::new();
    for entry in entries {
        let name = Labels::from_pairs([(millrace_model::METRIC_NAME, entry.metric.as_str())])
            .expect("one label with a name");
        let partition = by_name.partition(tenant, &name, queue.partitions);
        by_partition.entry(partition).or_default().push(entry);
    }
    let mut sections = Vec::new();
    for (partition, entries) in by_partition {
        // Each entry is bounded by the label limits; so many of them stay well below a batch.
        for some in entries.chunks(32) {
            sections.extend(encode_metadata_section(some).map(|section| (partition, section)));
        }
    }
    sections
}

#[cold]
pub(super) fn out_of_window(timestamp: TimestampMs, window: TimeWindow) -> BadSeries {
    let mut bad = if timestamp.0 < window.oldest {
        BadSeries::new(
            Reason::TooOld,
            format!(
                "timestamp {timestamp} ms is too old, the oldest taken now is {} ms (ingest.max_age)",
                window.oldest
            ),
        )
    } else {
        BadSeries::new(
            Reason::TooFarAhead,
            format!(
                "timestamp {timestamp} ms is too far ahead, the newest taken now is {} ms \
                 (ingest.max_ahead)",
                window.newest
            ),
        )
    };
    bad.limit = Some(if bad.reason == Reason::TooOld {
        window.oldest
    } else {
        window.newest
    });
    bad.value(timestamp.to_string().as_bytes())
}

/// A series for people, cut to a readable length.
fn describe(labels: &[u8]) -> String {
    const MAX_CHARS: usize = 200;
    let labels = Labels::from_canonical(labels).expect("label bytes of the cache are canonical");
    let text = labels.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
