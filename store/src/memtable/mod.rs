//! The memtable: a shard's samples that are not in a block yet.
//!
//! Per series an open Gorilla chunk takes samples in order of time, and a side buffer those that
//! are not newer than the newest. One thread writes, under one lock per record; readers copy the
//! compressed bits of a series under the lock and decode them outside.
//!
//! Cost sketch, per sample of a known series: 1/n of a lookup (n samples in a row), two cache
//! misses (the series, the end of its open chunk), no allocation but the doubling of that chunk.
//! Per series: see [`Memtable::heap_bytes`]; the figure at a million series is in the
//! `memtable_bytes` example.
//!
//! Invariants:
//! - A series has at least one sample, and its newest one is in the open chunk.
//! - A late sample came after the in-order sample of the same timestamp, if there is one, and
//!   after the late ones before it. So where they differ, it is right.
//! - A [`SeriesRef`] means one series for as long as the memtable lives.

mod pages;
mod read;
mod series;

use std::collections::BTreeSet;
use std::time::Duration;

use hashbrown::HashTable;
use millrace_model::{Labels, Sample, SeriesId, TenantId, TimeRange, TimestampMs};

use crate::decode::{Decoded, Target};
use crate::index::MemIndex;
use pages::Pages;
pub(crate) use read::SeriesSnapshot;
use series::{Pushed, Series};

/// A series of one memtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SeriesRef(pub(crate) u32);

impl SeriesRef {
    pub(crate) const FIRST: Self = Self(0);

    /// The series that was added behind this one. There may be none.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) samples: u64,
    /// Of these, the ones not newer than the newest of their series.
    pub(crate) late: u64,
    /// Of these, the ones equal to the newest of their series.
    pub(crate) duplicate: u64,
    pub(crate) new_series: u64,
}

/// One tenant's series.
#[derive(Debug)]
struct Tenant {
    name: TenantId,
    index: MemIndex,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Memtable {
    ids: Pages<SeriesId>,
    series: Pages<Series>,
    /// From the identity, which is a hash already, to the series' place.
    lookup: HashTable<u32>,
    tenants: Vec<Tenant>,
    /// Starts of the time windows that have samples.
    windows: BTreeSet<i64>,
    window_ms: i64,
    /// The window of the sample before, `[start, end]`; most samples are in the same.
    window: (i64, i64),
    time: Option<(i64, i64)>,
    samples: u64,
    /// Memory of labels, chunks and side buffers.
    series_bytes: usize,
    /// Monotonic time when the first sample came.
    first_at: Option<Duration>,
}

impl Memtable {
    /// An empty memtable whose samples will go to blocks of `window_ms`.
    pub(crate) fn new(window_ms: i64) -> Self {
        assert!(window_ms > 0, "a block window of {window_ms} ms");
        Self {
            ids: Pages::new(),
            series: Pages::new(),
            lookup: HashTable::new(),
            tenants: Vec::new(),
            windows: BTreeSet::new(),
            window_ms,
            // Holds no timestamp.
            window: (i64::MAX, i64::MIN),
            time: None,
            samples: 0,
            series_bytes: 0,
            first_at: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// Samples taken, late ones and their predecessors included.
    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// First and last timestamp.
    pub(crate) fn time_range(&self) -> Option<TimeRange> {
        self.time.map(|(first, last)| TimeRange::new(first, last))
    }

    pub(crate) fn windows(&self) -> &BTreeSet<i64> {
        &self.windows
    }

    pub(crate) fn first_at(&self) -> Option<Duration> {
        self.first_at
    }

    /// Memory, index included, by the capacities of everything that was reserved. The allocator's
    /// own overhead is not in it.
    pub(crate) fn heap_bytes(&self) -> usize {
        let index: usize = self.tenants.iter().map(|t| t.index.heap_bytes()).sum();
        // A control byte for each slot.
        let lookup = self.lookup.capacity() * 8 / 7 * (size_of::<u32>() + 1);
        // A B-tree keeps its nodes at least half full.
        let windows = self.windows.len() * 2 * size_of::<i64>();
        let pages = self.ids.heap_bytes() + self.series.heap_bytes();
        self.series_bytes + pages + lookup + windows + index
    }

    /// The series of identity `id`; `guess` is looked at first.
    #[inline]
    pub(crate) fn find(&self, id: SeriesId, guess: SeriesRef) -> Option<SeriesRef> {
        if self.ids.get(guess.index()) == Some(&id) {
            return Some(guess);
        }
        self.lookup
            .find(hash(id), |&at| self.ids.get(at as usize) == Some(&id))
            .map(|&at| SeriesRef(at))
    }

    /// The second phase: puts a decoded batch in. `now` is monotonic time.
    pub(crate) fn apply(&mut self, batch: &Decoded, now: Duration) -> Counts {
        let mut counts = Counts::default();
        let Some(tenant) = &batch.tenant else {
            return counts;
        };
        if batch.entries.is_empty() {
            return counts;
        }
        self.first_at.get_or_insert(now);
        let before = self.series.len();
        let tenant = self.tenant(tenant);
        let mut start = 0;
        for entry in &batch.entries {
            let samples = &batch.samples[start..entry.end];
            start = entry.end;
            let at = match entry.target {
                Target::Known(known) => known,
                Target::New(fresh) => {
                    let (id, labels) = &batch.fresh[fresh as usize];
                    self.find_or_add(*id, labels, tenant)
                }
            };
            self.push(at, samples, &mut counts);
        }
        counts.new_series = (self.series.len() - before) as u64;
        counts
    }

    fn push(&mut self, at: SeriesRef, samples: &[Sample], counts: &mut Counts) {
        for sample in samples {
            let timestamp = sample.timestamp.0;
            if timestamp < self.window.0 || timestamp > self.window.1 {
                self.enter_window(sample.timestamp);
            }
        }
        let series = self.series.get_mut(at.index());
        let series = series.expect("a reference into this memtable");
        let before = series.heap_bytes();
        for sample in samples {
            match series.push(sample.timestamp.0, sample.value) {
                Pushed::InOrder => {}
                Pushed::Late => counts.late += 1,
                Pushed::Duplicate => counts.duplicate += 1,
            }
        }
        self.series_bytes += series.heap_bytes();
        self.series_bytes -= before;
        counts.samples += samples.len() as u64;
        self.samples += samples.len() as u64;
    }

    /// Notes the window of a sample that is not in the one of the sample before.
    #[cold]
    fn enter_window(&mut self, moment: TimestampMs) {
        let start = moment.window_start(self.window_ms).0;
        self.windows.insert(start);
        self.window = (start, start.saturating_add(self.window_ms - 1));
        let (first, last) = self.time.unwrap_or(self.window);
        self.time = Some((first.min(self.window.0), last.max(self.window.1)));
    }

    fn tenant(&mut self, name: &TenantId) -> u32 {
        let known = self.tenants.iter().position(|t| t.name == *name);
        let at = known.unwrap_or_else(|| {
            self.tenants.push(Tenant {
                name: name.clone(),
                index: MemIndex::new(),
            });
            self.tenants.len() - 1
        });
        u32::try_from(at).expect("tenants of a memtable fit 32 bits")
    }

    /// A batch may name a new series several times.
    fn find_or_add(&mut self, id: SeriesId, labels: &Labels, tenant: u32) -> SeriesRef {
        // `len` is where the newest series will be.
        let newest = SeriesRef(self.series.len().saturating_sub(1) as u32);
        if let Some(known) = self.find(id, newest) {
            return known;
        }
        let at = u32::try_from(self.series.len()).expect("series of a memtable fit 32 bits");
        let series = Series::new(labels.clone(), tenant);
        self.series_bytes += series.heap_bytes();
        self.ids.push(id);
        self.series.push(series);
        let ids = &self.ids;
        let rehash = |&at: &u32| ids.get(at as usize).map_or(0, |&id| hash(id));
        self.lookup.insert_unique(hash(id), at, rehash);
        self.tenants[tenant as usize].index.insert(at, labels);
        SeriesRef(at)
    }

    fn index_of(&self, tenant: &TenantId) -> Option<&MemIndex> {
        let found = self.tenants.iter().find(|t| t.name == *tenant);
        found.map(|t| &t.index)
    }
}

/// The identity is a hash: its low half serves the table as it is.
fn hash(id: SeriesId) -> u64 {
    id.0 as u64
}

#[cfg(test)]
mod tests;
