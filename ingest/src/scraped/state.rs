//! What is known of one target's series, from scrape to scrape.
//!
//! Invariants:
//! - A *key* is what a series looks like in the exposition, a *slot* is the series that it becomes;
//!   several keys may share a slot. Slots are found by identity, so a series that is written in
//!   another way is still the same.
//! - A slot is *live* while the queue may have a sample of it without a marker behind it.
//! - What was not in the last good scrape is forgotten once its marker is written. Where no scrape is
//!   good, or none becomes durable, what is not live is forgotten when there is far more of it than the
//!   last good scrape had.

use std::collections::{BTreeMap, HashMap, HashSet};

use millrace_model::batch::EncodedSection;
use millrace_model::{
    Labels, LabelsBuilder, METRIC_NAME, MetricMetadata, PartitionId, Sample, SeriesHasher,
    SeriesId, TenantId, TimestampMs, stale_nan,
};
use millrace_queue::QueueIdentity;

use super::options::TargetOptions;
use super::outcome::ScrapeOutcome;
use super::writer::ScrapeWriter;
use crate::core::Core;
use crate::metadata::MetadataNews;
use crate::options::Limits;
use crate::report::{Reason, Report};
use crate::series::{KeyMap, Scratch};

/// What is known of one target's series. The scraper keeps one for each target.
#[derive(Debug)]
pub struct TargetSeries {
    pub(super) options: TargetOptions,
    /// Number of the scrape in hand; the first is 1.
    pub(super) number: u64,
    pub(super) keys: KeyMap<Known>,
    /// Keys of the scrape in hand.
    pub(super) keys_seen: usize,
    /// How much was known after the last good scrape.
    known_good: usize,
    by_id: HashMap<SeriesId, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    report: Vec<ReportSeries>,
    pub(super) metadata: BTreeMap<String, MetricMetadata>,
    pub(super) builder: LabelsBuilder,
    /// What its keys were found out under.
    bounds: Limits,
    last: Last,
}

/// What has to be done once the scrape in hand is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    #[default]
    Nothing,
    Failed,
    Good,
}

/// What a key has turned out to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The last scrape that had it.
    pub(super) seen: u64,
    pub(super) meaning: Meaning,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Meaning {
    /// The series of that slot.
    Series(u32),
    /// The rules drop it.
    Dropped,
    /// It is over a limit of this server.
    Refused(Reason),
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: SeriesId,
    pub(super) partition: PartitionId,
    pub(super) labels: Labels,
    /// The last scrape that had it.
    pub(super) seen: u64,
    /// The last scrape that had it without a timestamp of its own, or 0.
    pub(super) tracked: u64,
    /// The epoch in which its tenant's count was told of it; 0 for never.
    pub(super) told: u16,
    live: bool,
    /// It is live by the scrape in hand alone.
    begun: bool,
    /// A marker is on its way.
    ending: bool,
    used: bool,
}

#[derive(Debug)]
struct ReportSeries {
    id: SeriesId,
    partition: PartitionId,
    labels: Labels,
}

/// What a scrape wrote.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Number of the scrape.
    pub(super) number: u64,
    pub(super) sections: Vec<(PartitionId, EncodedSection)>,
    pub(super) outcome: ScrapeOutcome,
    pub(super) news: MetadataNews,
    pub(super) rejected: Report,
    pub(super) wire_bytes: u64,
    pub(super) decoded_bytes: u64,
    pub(super) hits: u64,
    pub(super) ignored_exemplars: u64,
}

/// Names of the report series; the further ones come last.
const REPORT: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

impl TargetSeries {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(options: TargetOptions) -> Self {
        Self {
            options,
            number: 0,
            keys: KeyMap::default(),
            keys_seen: 0,
            known_good: 0,
            by_id: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            report: Vec::new(),
            metadata: BTreeMap::new(),
            builder: LabelsBuilder::new(),
            bounds: Limits::default(),
            last: Last::Nothing,
        }
    }

    /// Goes on with other options. What the next scrape no longer has by them gets its marker
    /// then.
    pub fn reconfigure(&mut self, options: TargetOptions) {
        self.options = options;
        self.keys.clear();
        self.report.clear();
    }

    /// Goes on under these bounds of its tenant: under others, other series are refused.
    pub(super) fn bound_by(&mut self, bounds: &Limits) {
        if self.bounds != *bounds {
            self.bounds = bounds.clone();
            self.keys.clear();
        }
    }

    /// Has the tenant's count told of all series again that it was told of in the epoch `mark`: it has
    /// forgotten them.
    pub(super) fn untell(&mut self, mark: u16) {
        for slot in self.slots.iter_mut().filter(|slot| slot.told == mark) {
            slot.told = 0;
        }
    }

    /// Whose series they are.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.options.tenant
    }

    /// What the target has said of its metrics.
    #[must_use]
    pub fn metadata(&self) -> Vec<MetricMetadata> {
        self.metadata.values().cloned().collect()
    }

    /// The series that the target has now, those of the report among them.
    pub fn series(&self) -> impl Iterator<Item = SeriesId> {
        let own = self.slots.iter().filter(|slot| slot.used && slot.live);
        own.map(|slot| slot.id)
            .chain(self.report.iter().map(|series| series.id))
    }

    #[cfg(test)]
    pub(super) fn slots_len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slot(&mut self, index: u32) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// The slot of the series with these labels, and whether it is a new one.
    pub(super) fn slot_of(&mut self, labels: Labels, queue: &QueueIdentity) -> u32 {
        let id = SeriesHasher::new(&self.options.tenant).id(&labels);
        if let Some(&known) = self.by_id.get(&id) {
            return known;
        }
        let tenant = &self.options.tenant;
        let slot = Slot {
            id,
            partition: queue.shard_key.partition(tenant, &labels, queue.partitions),
            labels,
            seen: 0,
            tracked: 0,
            told: 0,
            live: false,
            begun: false,
            ending: false,
            used: true,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("a body bounds its series")
            }
        };
        self.by_id.insert(id, index);
        index
    }

    /// Begins a scrape.
    pub(super) fn begin(&mut self, core: &Core, writer: &mut ScrapeWriter) {
        if self.knows_too_much() {
            self.forget();
        }
        self.number += 1;
        self.keys_seen = 0;
        self.last = Last::Nothing;
        if self.report.is_empty() {
            self.make_report(core.queue());
        }
        writer.begin(core.queue().partitions, core.max_section_bytes());
    }

    /// Markers for what has gone; all of it, if the scrape has failed. Returns how many.
    pub(super) fn mark_stale(
        &mut self,
        good: bool,
        time: TimestampMs,
        writer: &mut ScrapeWriter,
    ) -> u64 {
        let marker = Sample {
            timestamp: time,
            value: stale_nan(),
        };
        let (number, mut markers) = (self.number, 0);
        for slot in self.slots.iter_mut().filter(|slot| slot.used) {
            let here = good && slot.tracked == number;
            slot.ending = slot.live && !here;
            slot.begun = here && !slot.live;
            slot.live |= here;
            if slot.ending {
                writer.push(slot.id, slot.partition, slot.labels.canonical(), marker);
                markers += 1;
            }
        }
        self.last = if good { Last::Good } else { Last::Failed };
        markers
    }

    /// Writes the report series.
    pub(super) fn write_report(
        &self,
        outcome: &ScrapeOutcome,
        body_bytes: f64,
        time: TimestampMs,
        writer: &mut ScrapeWriter,
    ) {
        let timeout = self.options.extras.map(|extras| extras.timeout);
        let values = [
            if outcome.error.is_none() { 1.0 } else { 0.0 },
            outcome.duration.as_secs_f64(),
            outcome.samples as f64,
            outcome.samples_kept as f64,
            outcome.series_new as f64,
            timeout.unwrap_or_default().as_secs_f64(),
            self.options.limits.samples as f64,
            body_bytes,
        ];
        // There are as many series as are wanted.
        for (series, value) in self.report.iter().zip(values) {
            let sample = Sample {
                timestamp: time,
                value,
            };
            writer.push(
                series.id,
                series.partition,
                series.labels.canonical(),
                sample,
            );
        }
    }

    fn make_report(&mut self, queue: &QueueIdentity) {
        let wanted = if self.options.extras.is_some() { 8 } else { 5 };
        let tenant = &self.options.tenant;
        self.report.clear();
        for name in &REPORT[..wanted] {
            self.builder.clear();
            for (label, value) in &self.options.labels {
                self.builder.push(label, value);
            }
            self.builder.set(METRIC_NAME, name);
            let labels = self.builder.build();
            let labels = labels.expect("labels of a target have names, each its own");
            self.report.push(ReportSeries {
                id: SeriesHasher::new(tenant).id(&labels),
                partition: queue.shard_key.partition(tenant, &labels, queue.partitions),
                labels,
            });
        }
    }

    /// Ends the target: markers for all that it has, but for what is `elsewhere` by now.
    pub(super) fn end(
        &mut self,
        core: &Core,
        time: TimestampMs,
        elsewhere: &HashSet<SeriesId>,
        scratch: &mut Scratch,
    ) -> Written {
        let writer = &mut scratch.scraped;
        let begun = self.number > 0;
        self.begin(core, writer);
        for slot in &mut self.slots {
            slot.live &= !elsewhere.contains(&slot.id);
        }
        let mut markers = self.mark_stale(false, time, writer);
        let marker = Sample {
            timestamp: time,
            value: stale_nan(),
        };
        let report = self.report.iter().filter(|_| begun);
        for series in report.filter(|series| !elsewhere.contains(&series.id)) {
            writer.push(
                series.id,
                series.partition,
                series.labels.canonical(),
                marker,
            );
            markers += 1;
        }
        Written {
            number: self.number,
            outcome: ScrapeOutcome {
                markers,
                stored: writer.count(),
                ..ScrapeOutcome::default()
            },
            sections: writer.finish(),
            ..Written::default()
        }
    }

    /// Notes that the queue has taken nothing of the scrape in hand.
    pub(super) fn not_submitted(&mut self) {
        for slot in &mut self.slots {
            slot.live &= !slot.begun;
        }
    }

    /// Notes that what the scrape of this number wrote is durable. Another one may have begun
    /// meanwhile, which has written all markers again.
    pub(super) fn written(&mut self, number: u64) {
        if number != self.number {
            return;
        }
        let last = std::mem::take(&mut self.last);
        if last == Last::Nothing {
            return;
        }
        for slot in &mut self.slots {
            slot.live &= !slot.ending;
            slot.ending = false;
        }
        let good = last == Last::Good;
        if good || self.knows_too_much() {
            self.forget();
        }
        if good {
            self.known_good = self.known();
        }
    }

    fn known(&self) -> usize {
        self.keys.len().max(self.by_id.len())
    }

    /// Whether what has gathered since the last good scrape is far more than that had. (The rule is
    /// Prometheus's.)
    fn knows_too_much(&self) -> bool {
        self.known() > 2 * self.known_good + 1000
    }

    /// Forgets what is not live and was not in the last scrape.
    fn forget(&mut self) {
        let number = self.number;
        for (slot, index) in self.slots.iter_mut().zip(0..) {
            if slot.used && !slot.live && slot.seen != number {
                slot.used = false;
                slot.labels = Labels::empty();
                self.by_id.remove(&slot.id);
                self.free.push(index);
            }
        }
        if self.keys_seen < self.keys.len() {
            self.keys.retain(|_, known| known.seen == number);
        }
    }
}
