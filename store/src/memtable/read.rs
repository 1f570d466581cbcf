//! Reading a memtable: by label from its index, and a series' samples as a snapshot that is decoded
//! outside the lock.

use std::collections::BTreeSet;

use millrace_log::planted::active;
use millrace_model::{Labels, Matcher, SeriesId, TenantId, TimeRange};
use roaring::RoaringBitmap;

use super::series::{ClosedChunk, Series, sort_keep_last};
use super::{Memtable, Rows, SeriesRef};
use crate::chunk::{ChunkError, decode_chunk};
use crate::index::{IndexCounts, MemIndex};
use crate::merge::Merger;
use crate::planted::{SEAL_KEEPS_FIRST, SEAL_LOSES_LATE};
use crate::sorted::Fresh;

/// Series that are looked at under one lock.
const SERIES_PER_LOCK: usize = 512;

impl Memtable {
    /// Calls `found` for the series of `tenant` that pass all matchers and may have samples in
    /// `[start, end]`.
    pub(crate) fn select(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        (start, end): (i64, i64),
        mut found: impl FnMut(SeriesRef, SeriesId, &Series, &Labels),
    ) {
        let Some(at) = self.tenant(tenant) else {
            return;
        };
        let passing = self.indexes.read()[at].select(matchers);
        let mut passing = passing.iter().map(SeriesRef).peekable();
        while passing.peek().is_some() {
            let rows = self.rows.read();
            for at in passing.by_ref().take(SERIES_PER_LOCK) {
                let series = rows.series_at(at);
                if series.may_overlap(start, end) {
                    found(at, rows.id_at(at), series, series.labels());
                }
            }
        }
    }

    /// The tenants that have series.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        self.rows.read().tenants.clone()
    }

    /// The label names of the series that pass all matchers of one of the sets, or of all series
    /// if there is no set; sorted.
    pub(crate) fn label_names(
        &self,
        tenant: &TenantId,
        matcher_sets: &[Vec<Matcher>],
    ) -> Vec<String> {
        let Some(at) = self.tenant(tenant) else {
            return Vec::new();
        };
        let index = &self.indexes.read()[at];
        let passing = passing_any(index, matcher_sets);
        let names = index.label_names(passing.as_ref());
        names.into_iter().map(str::to_owned).collect()
    }

    /// The same, for the values of one label. Those among `known`, which is sorted, may be left out.
    pub(crate) fn label_values(
        &self,
        tenant: &TenantId,
        name: &str,
        matcher_sets: &[Vec<Matcher>],
        known: &[String],
    ) -> Vec<String> {
        let Some(at) = self.tenant(tenant) else {
            return Vec::new();
        };
        let indexes = self.indexes.read();
        let index = &indexes[at];
        let passing = passing_any(index, matcher_sets);
        match passing {
            // Few series among many values: the series are asked, not the values.
            Some(of) if of.len() < index.value_count(name) as u64 / 4 => {
                drop(indexes);
                self.values_of(name, &of)
            }
            passing => {
                let values = index.label_values(name, passing.as_ref());
                let mut beside = Fresh::beside(known);
                let fresh = values.into_iter().filter(|value| beside.is_new(value));
                fresh.map(str::to_owned).collect()
            }
        }
    }

    /// The values that some series have, sorted.
    fn values_of(&self, name: &str, of: &RoaringBitmap) -> Vec<String> {
        let mut values = BTreeSet::new();
        let mut left = of.iter().map(SeriesRef).peekable();
        while left.peek().is_some() {
            let rows = self.rows.read();
            for at in left.by_ref().take(SERIES_PER_LOCK) {
                let value = rows.series_at(at).labels().get(name);
                if let Some(value) = value.filter(|value| !values.contains(*value)) {
                    values.insert(value.to_owned());
                }
            }
        }
        values.into_iter().collect()
    }

    /// Adds what the tenant's index counts.
    pub(crate) fn count(&self, tenant: &TenantId, counts: &mut IndexCounts) {
        if let Some(at) = self.tenant(tenant) {
            self.indexes.read()[at].count(counts);
        }
    }

    fn tenant(&self, name: &TenantId) -> Option<usize> {
        self.rows.read().tenants.iter().position(|t| t == name)
    }
}

/// `None` stands for all series.
fn passing_any(index: &MemIndex, matcher_sets: &[Vec<Matcher>]) -> Option<RoaringBitmap> {
    let passing = matcher_sets.iter().map(|matchers| index.select(matchers));
    passing.reduce(|a, b| a | b)
}

impl Rows {
    /// All series, in the order in which they came.
    pub(crate) fn all(&self) -> impl Iterator<Item = SeriesRef> + use<> {
        // Fewer than 2^32: see `find_or_add`.
        (0..self.series.len() as u32).map(SeriesRef)
    }

    fn series_at(&self, at: SeriesRef) -> &Series {
        let series = self.series.get(at.index());
        series.expect("a reference into this memtable")
    }

    fn id_at(&self, at: SeriesRef) -> SeriesId {
        let id = self.ids.get(at.index());
        *id.expect("a reference into this memtable")
    }

    /// Tenant and labels of a series.
    pub(crate) fn describe(&self, at: SeriesRef) -> (&TenantId, &Labels) {
        let series = self.series_at(at);
        let tenant = &self.tenants[series.tenant() as usize];
        (tenant, series.labels())
    }

    /// First and last timestamp of a series.
    pub(crate) fn range_of(&self, at: SeriesRef) -> TimeRange {
        self.series_at(at).range()
    }

    /// The newest sample of a series.
    pub(crate) fn newest(&self, at: SeriesRef) -> (i64, f64) {
        self.series_at(at).newest()
    }

    /// Copies what the series has in `[start, end]`, compressed, into `out`.
    pub(crate) fn snapshot(
        &self,
        at: SeriesRef,
        (start, end): (i64, i64),
        out: &mut SeriesSnapshot,
    ) {
        out.clear();
        let series = self.series_at(at);
        if !series.may_overlap(start, end) {
            return;
        }
        out.range = (start, end);
        out.closed.extend_from_slice(series.closed(start, end));
        let open = series.open();
        if open.first_timestamp() <= end {
            out.open.extend_from_slice(open.bytes());
            out.open_samples = open.len() as u32;
        }
        let late = series.late().iter().copied();
        out.late.extend(late.filter(|s| start <= s.0 && s.0 <= end));
    }
}

/// A copy of what a series holds, compressed. Reusable.
#[derive(Debug, Default)]
pub(crate) struct SeriesSnapshot {
    range: (i64, i64),
    closed: Vec<ClosedChunk>,
    open: Vec<u8>,
    open_samples: u32,
    late: Vec<(i64, u64)>,
}

impl SeriesSnapshot {
    pub(crate) fn clear(&mut self) {
        /// Late samples whose memory is kept for the next series.
        const KEPT: usize = 4_096;
        self.closed.clear();
        self.open.clear();
        self.late.clear();
        self.late.shrink_to(KEPT);
    }

    /// Decodes the snapshot: appends its samples to the columns, sorted, each timestamp once, the
    /// latest write of each.
    ///
    /// # Errors
    ///
    /// A chunk that does not decode, which is a bug or bad memory.
    pub(crate) fn decode(
        &mut self,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<(), ChunkError> {
        if self.late.is_empty() || active(SEAL_LOSES_LATE) {
            return self.decode_in_order(timestamps, values);
        }
        let (mut in_order, mut bits) = (Vec::new(), Vec::new());
        self.decode_in_order(&mut in_order, &mut bits)?;
        sort_keep_last(&mut self.late);
        let late = self.late.iter().map(|&(t, bits)| (t, f64::from_bits(bits)));
        let late: (Vec<_>, Vec<_>) = late.unzip();
        let mut merger = Merger::default();
        let mut runs = [(&in_order, &bits), (&late.0, &late.1)];
        if active(SEAL_KEEPS_FIRST) {
            runs.reverse();
        }
        for (run_timestamps, run_values) in runs {
            merger.push(run_timestamps, run_values);
        }
        merger.take(timestamps, values);
        Ok(())
    }

    /// Appends what came in order of time.
    fn decode_in_order(
        &self,
        timestamps: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<(), ChunkError> {
        let first = timestamps.len();
        let closed = self.closed.iter().map(|c| (&c.bytes[..], c.samples));
        let open = (!self.open.is_empty()).then_some((&self.open[..], self.open_samples));
        for (bytes, count) in closed.chain(open) {
            decode_chunk(bytes, count, timestamps, values)?;
        }
        // The chunks at the ends reach over the range.
        let (start, end) = self.range;
        let behind = first + timestamps[first..].partition_point(|&t| t <= end);
        timestamps.truncate(behind);
        values.truncate(behind);
        let before = first + timestamps[first..].partition_point(|&t| t < start);
        timestamps.drain(first..before);
        values.drain(first..before);
        Ok(())
    }
}
