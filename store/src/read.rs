//! Reading: which series there are, and their samples out of all places that hold some.
//!
//! Invariants:
//! - A [`StoreSeries`] keeps what it was selected from alive, whatever is sealed or removed since.
//! - Samples are decoded outside of all locks, and only when they are asked for.
//! - Sources are read layer by layer, in each in order of their sequence, and of two values of one
//!   timestamp the later is right.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use hashbrown::HashTable;
use millrace_log::planted::active;
use millrace_model::{Labels, Matcher, SeriesId, TenantId, TimeRange, TimestampMs};

use crate::block::{Found, Left};
use crate::error::StoreError;
use crate::layer::Layer;
use crate::memtable::{Memtable, SeriesRef, SeriesSnapshot};
use crate::merge::Merger;
use crate::planted::{DELETE_MISSES_MEMTABLE, OLDER_BLOCK_WINS};
use crate::shard::{LiveBlock, TableView, View};
use crate::sorted::add_sorted;
use crate::tombstone::{Hidden, Masks, Tombstone, TombstoneState};

thread_local! {
    /// Memory for the next series that is read.
    static SNAPSHOT: Cell<SeriesSnapshot> = Cell::default();
}

/// One selected series.
#[derive(Clone, Debug)]
pub struct StoreSeries {
    labels: Labels,
    pub(crate) range: TimeRange,
    /// Oldest first. Most series are in one place, or in two.
    pub(crate) sources: Vec<Source>,
}

/// A place that has samples of the series.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// Which of the block's series.
    Block(Arc<LiveBlock>, u32),
    Table(Arc<Memtable>, SeriesRef),
}

/// A place, and what deletes hide there.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) place: Place,
    pub(crate) hidden: Hidden,
}

impl StoreSeries {
    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Of the places where its samples are gone and only rollups are left: the moment of the last
    /// sample there was, and the finest resolution that is left, in ms, the coarsest of these.
    /// [`read`](Self::read) then tells the last sample of each bucket, or of deltas what they come to.
    #[must_use]
    pub fn thinned(&self) -> Option<(TimestampMs, i64)> {
        let thinned = self
            .sources
            .iter()
            .filter_map(|source| match &source.place {
                Place::Block(block, _) if block.reader.without_samples() => {
                    let finest = block.reader.resolutions().first()?;
                    Some((TimestampMs(block.entry.max_time), *finest))
                }
                Place::Block(..) | Place::Table(..) => None,
            });
        thinned.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
    }

    /// The same series in some of its sources, which keep their order.
    pub(crate) fn of_sources(&self, sources: Vec<Source>) -> Self {
        Self {
            labels: self.labels.clone(),
            range: self.range,
            sources,
        }
    }

    pub(crate) fn into_labels(self) -> Labels {
        self.labels
    }

    /// Appends its samples in the selected range to the columns: sorted by timestamp, each once,
    /// staleness markers among them, every value bit for bit as it was sent where it is not
    /// [thinned](Self::thinned). The bytes of blocks
    /// that were decoded for it.
    ///
    /// # Errors
    ///
    /// A block that is damaged or cannot be read. The columns are then of no use.
    pub fn read(
        &self,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<u64, StoreError> {
        let start = timestamps.len();
        let mut bytes = 0;
        for (at, source) in self.sources.iter().enumerate() {
            let before = timestamps.len();
            bytes += self.read_source(source, self.range, timestamps, values)?;
            // Most sources lie one behind the other: then their samples are where they belong.
            let overlaps = before > start
                && timestamps
                    .get(before)
                    .is_some_and(|&first| first <= timestamps[before - 1]);
            if overlaps {
                bytes += self.merge_from(at + 1, (start, before), timestamps, values)?;
                break;
            }
        }
        Ok(bytes)
    }

    /// Merges what was read behind `start`, of which the part behind `newer` is newer, and what
    /// the sources from number `at` on have.
    fn merge_from(
        &self,
        at: usize,
        (start, newer): (usize, usize),
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<u64, StoreError> {
        let mut bytes = 0;
        let mut merger = Merger::default();
        merger.push(&timestamps[start..newer], &values[start..newer]);
        merger.push(&timestamps[newer..], &values[newer..]);
        timestamps.truncate(start);
        values.truncate(start);
        let (mut run_timestamps, mut run_values) = (Vec::new(), Vec::new());
        for source in &self.sources[at..] {
            run_timestamps.clear();
            run_values.clear();
            bytes += self.read_source(source, self.range, &mut run_timestamps, &mut run_values)?;
            merger.push(&run_timestamps, &run_values);
        }
        merger.take(timestamps, values);
        Ok(bytes)
    }

    /// Appends what one source has in `range`. The bytes that were decoded for it.
    pub(crate) fn read_source(
        &self,
        source: &Source,
        range: TimeRange,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<u64, StoreError> {
        let from = timestamps.len();
        let bytes = match &source.place {
            Place::Block(block, number) => {
                let reader = &block.reader;
                let left = match self.labels.is_delta() {
                    true => Left::Sum,
                    false => Left::Last,
                };
                reader.read_number(*number, left, range, timestamps, values)?
            }
            Place::Table(table, at) => {
                let mut snapshot = SNAPSHOT.take();
                let range = (range.start.0, range.end.0);
                table.rows().snapshot(*at, range, &mut snapshot);
                let decoded = snapshot.decode(timestamps, values);
                // Its memory is kept, but no chunk alive.
                snapshot.clear();
                SNAPSHOT.set(snapshot);
                decoded.map_err(|source| StoreError::Chunk {
                    series: self.labels.to_string(),
                    source,
                })?;
                0
            }
        };
        source.hidden.remove(from, timestamps, values);
        Ok(bytes)
    }
}

impl View {
    /// Appends the series of one shard.
    pub(crate) fn select(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        found: &mut Vec<StoreSeries>,
    ) -> Result<(), StoreError> {
        let mut places = Places {
            first: found.len(),
            by_id: HashTable::new(),
            ids: Vec::new(),
            last: 0,
            range,
            found,
        };
        let mut blocks: Vec<_> = self.blocks_in(range).collect();
        if active(OLDER_BLOCK_WINS) {
            blocks.reverse();
        }
        for layer in Layer::ALL {
            for block in blocks.iter().filter(|b| b.entry.layer == layer) {
                let masks = self.masks(tenant, block.entry.sequences.1, range);
                let mut take = |mut series: Found<'_>| -> Result<(), StoreError> {
                    let mut hidden = Hidden::default();
                    if !masks.is_empty() {
                        hidden = masks.of(series.labels()?);
                        if hidden.covers(within(series.range, range)) {
                            return Ok(());
                        }
                    }
                    let place = Place::Block(Arc::clone(block), series.number);
                    let source = Source { place, hidden };
                    places.add(series.id, source, || series.labels().cloned())?;
                    Ok(())
                };
                block.reader.find(tenant, matchers, range, &mut take)?;
            }
            for of_view in self.tables_in(range) {
                let table = &of_view.table;
                if table.layer() != layer {
                    continue;
                }
                let masks = self.table_masks(of_view, tenant, range);
                let ends = (range.start.0, range.end.0);
                table.select(tenant, matchers, ends, |at, id, series, labels| {
                    let hidden = masks.of(labels);
                    if hidden.is_empty() || !hidden.covers(within(series.range(), range)) {
                        let place = Place::Table(Arc::clone(table), at);
                        let added: Result<(), Infallible> =
                            places.add(id, Source { place, hidden }, || Ok(labels.clone()));
                        let Ok(()) = added;
                    }
                });
            }
        }
        Ok(())
    }

    /// How many blocks and memtables have samples in `range`.
    pub(crate) fn places_in(&self, range: TimeRange) -> (u64, u64) {
        (
            self.blocks_in(range).count() as u64,
            self.tables_in(range).count() as u64,
        )
    }

    fn table_masks(&self, table: &TableView, tenant: &TenantId, range: TimeRange) -> Masks<'_> {
        if active(DELETE_MISSES_MEMTABLE) {
            return Masks::default();
        }
        self.masks(tenant, table.sequence, range)
    }

    fn blocks_in(&self, range: TimeRange) -> impl DoubleEndedIterator<Item = &Arc<LiveBlock>> {
        let overlaps = move |block: &&Arc<LiveBlock>| block.range().overlaps(range);
        self.blocks.iter().filter(overlaps)
    }

    fn tables_in(&self, range: TimeRange) -> impl Iterator<Item = &TableView> {
        self.tables.iter().filter(move |of_view| {
            let time = of_view.table.rows().time_range();
            time.is_some_and(|time| time.overlaps(range))
        })
    }
}

/// What two ranges that overlap have in common.
fn within(a: TimeRange, b: TimeRange) -> TimeRange {
    TimeRange {
        start: a.start.max(b.start),
        end: a.end.min(b.end),
    }
}

/// Puts the places of one series together.
struct Places<'a> {
    /// Where this shard's series begin: another shard has none of them.
    first: usize,
    /// Numbers of them, and the identity of each.
    by_id: HashTable<usize>,
    ids: Vec<SeriesId>,
    /// The one to which a place was added last.
    last: usize,
    range: TimeRange,
    found: &'a mut Vec<StoreSeries>,
}

/// The identity is a hash: its low half serves the table as it is.
fn hash(id: SeriesId) -> u64 {
    id.0 as u64
}

impl Places<'_> {
    /// `labels` are asked for of a series that is new.
    fn add<E>(
        &mut self,
        id: SeriesId,
        source: Source,
        labels: impl FnOnce() -> Result<Labels, E>,
    ) -> Result<(), E> {
        let found = &self.found[self.first..];
        let next = found.len();
        // Places have their series in much the same order: mostly it is the one behind the last.
        let guess = self.last + 1;
        let is = |at: &usize| self.ids[*at] == id;
        let known = if guess < next && is(&guess) {
            Some(guess)
        } else {
            self.by_id.find(hash(id), is).copied()
        };
        if let Some(at) = known {
            self.last = at;
            self.found[self.first + at].sources.push(source);
            return Ok(());
        }
        self.found.push(StoreSeries {
            labels: labels()?,
            range: self.range,
            sources: vec![source],
        });
        self.ids.push(id);
        let ids = &self.ids;
        self.by_id
            .insert_unique(hash(id), next, |&at| hash(ids[at]));
        self.last = next;
        Ok(())
    }
}

/// Collects names or values of labels over shards, from the indexes alone.
pub(crate) struct LabelSets<'a> {
    tenant: &'a TenantId,
    matcher_sets: &'a [Vec<Matcher>],
    range: TimeRange,
    /// Sorted, each once.
    texts: Vec<String>,
}

impl<'a> LabelSets<'a> {
    pub(crate) fn new(
        tenant: &'a TenantId,
        matcher_sets: &'a [Vec<Matcher>],
        range: TimeRange,
    ) -> Self {
        Self {
            tenant,
            matcher_sets,
            range,
            texts: Vec::new(),
        }
    }

    pub(crate) fn names(&mut self, view: &View) -> Result<(), StoreError> {
        if self.some_hidden(view) {
            return self.of_series(view, |labels, texts| {
                labels.iter().for_each(|(name, _)| add(texts, name));
            });
        }
        for block in view.blocks_in(self.range) {
            let names = block.reader.label_names(self.tenant, self.matcher_sets)?;
            add_sorted(&mut self.texts, names);
        }
        for of_view in view.tables_in(self.range) {
            let names = of_view.table.label_names(self.tenant, self.matcher_sets);
            add_sorted(&mut self.texts, names);
        }
        Ok(())
    }

    pub(crate) fn values(&mut self, view: &View, name: &str) -> Result<(), StoreError> {
        if self.some_hidden(view) {
            return self.of_series(view, |labels, texts| {
                labels.get(name).into_iter().for_each(|v| add(texts, v));
            });
        }
        for block in view.blocks_in(self.range) {
            let reader = &block.reader;
            let known = &self.texts;
            let values = reader.label_values(self.tenant, name, self.matcher_sets, known)?;
            add_sorted(&mut self.texts, values);
        }
        for of_view in view.tables_in(self.range) {
            let table = &of_view.table;
            let known = &self.texts;
            let values = table.label_values(self.tenant, name, self.matcher_sets, known);
            add_sorted(&mut self.texts, values);
        }
        Ok(())
    }

    /// Whether a delete hides something of what is asked for. The index knows nothing of that.
    fn some_hidden(&self, view: &View) -> bool {
        let hides = |t: &Arc<Tombstone>| {
            t.tenant == *self.tenant && t.state != TombstoneState::Cleaned && t.overlaps(self.range)
        };
        view.tombstones.iter().any(hides)
    }

    /// Collects from the label sets of the series themselves.
    fn of_series(
        &mut self,
        view: &View,
        collect: impl Fn(&Labels, &mut BTreeSet<String>),
    ) -> Result<(), StoreError> {
        let all = [Vec::new()];
        let sets = if self.matcher_sets.is_empty() {
            &all[..]
        } else {
            self.matcher_sets
        };
        for matchers in sets {
            let mut found = Vec::new();
            view.select(self.tenant, matchers, self.range, &mut found)?;
            let mut texts = BTreeSet::new();
            for series in found {
                collect(&series.labels, &mut texts);
            }
            add_sorted(&mut self.texts, texts.into_iter().collect());
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Vec<String> {
        self.texts
    }
}

/// Most texts are there already.
fn add(texts: &mut BTreeSet<String>, text: &str) {
    if !texts.contains(text) {
        texts.insert(text.to_owned());
    }
}
