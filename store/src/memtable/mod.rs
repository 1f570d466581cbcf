//! The memtable: a shard's samples that are not in a block yet.
//!
//! Per series an open Gorilla chunk takes samples in order of time, and a side buffer those that
//! are not newer than the newest. One thread writes, under one lock per record; readers copy the
//! compressed bits of a series under the lock and decode them outside. The index has a lock of its
//! own, so that a costly selection stops new series at most, never the samples of known ones.
//!
//! Cost sketch, per sample of a known series: 1/n of a lookup (n samples in a row), two cache
//! misses (the series, the end of its open chunk; both are fetched for some series ahead), no
//! allocation but the growth of that chunk. Per series: see [`Rows::heap_bytes`]; the example
//! `ingest` measures both.
//!
//! Invariants:
//! - A series has at least one sample, and its newest one is in the open chunk.
//! - A late sample came after the in-order sample of the same timestamp, if there is one, and
//!   after the late ones before it. So where they differ, it is right.
//! - A [`SeriesRef`] means one series for as long as the memtable lives.
//! - The lock of the index is taken before that of the rows, or after it was released.

mod pages;
mod read;
mod series;

use std::collections::BTreeSet;
use std::time::Duration;

use hashbrown::HashTable;
use millrace_model::{Labels, Sample, SeriesId, TenantId, TimeRange, TimestampMs};
use millrace_views::Span;
use parking_lot::{RwLock, RwLockReadGuard};

use crate::decode::{Decoded, Entry, Target};
use crate::index::MemIndex;
use crate::layer::Layer;
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

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Memtable {
    layer: Layer,
    rows: RwLock<Rows>,
    /// By tenant, in the order of [`Rows::tenants`].
    indexes: RwLock<Vec<MemIndex>>,
}

/// The series and their samples.
#[derive(Debug)]
pub(crate) struct Rows {
    ids: Pages<SeriesId>,
    series: Pages<Series>,
    /// From the identity, which is a hash already, to the series' place.
    lookup: HashTable<u32>,
    tenants: Vec<TenantId>,
    /// Starts of the time windows that have samples.
    windows: BTreeSet<i64>,
    window_ms: i64,
    /// The window of the sample before, `[start, end]`; most samples are in the same.
    window: (i64, i64),
    /// First and last moment of the windows that have samples.
    time: Option<(i64, i64)>,
    samples: u64,
    /// Memory of labels, chunks and side buffers.
    series_bytes: usize,
    /// Memory of the indexes.
    index_bytes: usize,
    /// Monotonic time when the first sample came.
    first_at: Option<Duration>,
}

impl Memtable {
    /// An empty memtable whose samples will go to blocks of `window_ms`.
    pub(crate) fn new(layer: Layer, window_ms: i64) -> Self {
        Self {
            layer,
            rows: RwLock::new(Rows::new(window_ms)),
            indexes: RwLock::new(Vec::new()),
        }
    }

    /// Which samples it takes.
    pub(crate) fn layer(&self) -> Layer {
        self.layer
    }

    /// The series, for a short while: who holds this holds up the writer.
    pub(crate) fn rows(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read()
    }

    /// The second phase: puts a decoded batch in. `now` is monotonic time.
    pub(crate) fn apply(&self, batch: &Decoded, now: Duration) -> Counts {
        let Some(tenant) = &batch.tenant else {
            return Counts::default();
        };
        if batch.entries.is_empty() {
            return Counts::default();
        }
        // Both are released together: what the index says is there can be read.
        let mut indexes = (!batch.fresh.is_empty()).then(|| self.indexes.write());
        self.rows
            .write()
            .apply(batch, tenant, now, indexes.as_deref_mut())
    }
}

/// Entries whose memory is fetched before the first of them is written to.
const AHEAD: usize = 16;

impl Rows {
    fn new(window_ms: i64) -> Self {
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
            index_bytes: 0,
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

    /// A range that has all samples.
    pub(crate) fn time_range(&self) -> Option<TimeRange> {
        self.time.map(|(first, last)| TimeRange::new(first, last))
    }

    /// Starts of the windows that have samples.
    pub(crate) fn windows(&self) -> &BTreeSet<i64> {
        &self.windows
    }

    /// The windows that have samples.
    pub(crate) fn window_spans(&self) -> impl Iterator<Item = Span> + '_ {
        let width = self.window_ms - 1;
        let span =
            move |&start: &i64| Span::new(start.saturating_sub(1), start.saturating_add(width));
        self.windows.iter().map(span)
    }

    pub(crate) fn first_at(&self) -> Option<Duration> {
        self.first_at
    }

    /// Memory, index included, by the capacities of everything that was reserved. The allocator's
    /// own overhead is not in it.
    pub(crate) fn heap_bytes(&self) -> usize {
        // A control byte for each slot.
        let lookup = self.lookup.capacity() * 8 / 7 * (size_of::<u32>() + 1);
        // A B-tree keeps its nodes at least half full.
        let windows = self.windows.len() * 2 * size_of::<i64>();
        let pages = self.ids.heap_bytes() + self.series.heap_bytes();
        self.series_bytes + pages + lookup + windows + self.index_bytes
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

    fn apply(
        &mut self,
        batch: &Decoded,
        tenant: &TenantId,
        now: Duration,
        indexes: Option<&mut Vec<MemIndex>>,
    ) -> Counts {
        let before = self.series.len();
        self.first_at.get_or_insert(now);
        let places = indexes.map(|indexes| self.add_series(batch, tenant, indexes));
        let places = places.unwrap_or_default();
        let place = |entry: &Entry| match entry.target {
            Target::Known(known) => known,
            Target::New(fresh) => places[fresh as usize],
        };
        let mut counts = Counts::default();
        let mut start = 0;
        for entries in batch.entries.chunks(AHEAD) {
            // Loads that do not wait for one another, where the pushes below would.
            let touched = entries.iter().map(|entry| self.touch(place(entry)));
            std::hint::black_box(touched.fold(0, |a, b| a ^ b));
            for entry in entries {
                let samples = &batch.samples[start..entry.end];
                start = entry.end;
                self.push(place(entry), samples, &mut counts);
            }
        }
        counts.new_series = (self.series.len() - before) as u64;
        counts
    }

    fn touch(&self, at: SeriesRef) -> u8 {
        let series = self.series.get(at.index());
        series
            .and_then(|s| s.open().bytes().last().copied())
            .unwrap_or(0)
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

    /// Adds the new series of a batch, and says where each of them is.
    #[cold]
    fn add_series(
        &mut self,
        batch: &Decoded,
        name: &TenantId,
        indexes: &mut Vec<MemIndex>,
    ) -> Vec<SeriesRef> {
        let tenant = self.tenants.iter().position(|t| t == name);
        let tenant = tenant.unwrap_or_else(|| {
            self.tenants.push(name.clone());
            indexes.push(MemIndex::new());
            self.tenants.len() - 1
        });
        let index = &mut indexes[tenant];
        let tenant = u32::try_from(tenant).expect("tenants of a memtable fit 32 bits");
        let before = index.heap_bytes();
        let add = |(id, labels): &(SeriesId, Labels)| self.find_or_add(*id, labels, tenant, index);
        let places = batch.fresh.iter().map(add).collect();
        self.index_bytes += index.heap_bytes();
        self.index_bytes -= before;
        places
    }

    /// A batch may name a new series several times.
    fn find_or_add(
        &mut self,
        id: SeriesId,
        labels: &Labels,
        tenant: u32,
        index: &mut MemIndex,
    ) -> SeriesRef {
        let at = u32::try_from(self.series.len()).expect("series of a memtable fit 32 bits");
        if let Some(known) = self.find(id, SeriesRef(at.saturating_sub(1))) {
            return known;
        }
        let series = Series::new(labels.clone(), tenant);
        self.series_bytes += series.heap_bytes();
        self.ids.push(id);
        self.series.push(series);
        let ids = &self.ids;
        let rehash = |&at: &u32| ids.get(at as usize).map_or(0, |&id| hash(id));
        self.lookup.insert_unique(hash(id), at, rehash);
        index.insert(at, labels);
        SeriesRef(at)
    }
}

/// The identity is a hash: its low half serves the table as it is.
fn hash(id: SeriesId) -> u64 {
    id.0 as u64
}

#[cfg(test)]
mod tests;
