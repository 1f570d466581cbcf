//! Reading a memtable: by label from its index, and a series' samples as a snapshot that is decoded
//! outside the lock.

use millrace_log::planted::active;
use millrace_model::{Labels, Matcher, SeriesId, TenantId};

use super::series::{ClosedChunk, Series, sort_keep_last};
use super::{Memtable, SeriesRef};
use crate::chunk::{ChunkError, decode_chunk};
use crate::merge::Merger;
use crate::planted::{SEAL_KEEPS_FIRST, SEAL_LOSES_LATE};

impl Memtable {
    /// Appends the series of `tenant` that pass all matchers and may have samples in
    /// `[start, end]`.
    pub(crate) fn select(
        &self,
        tenant: &TenantId,
        matchers: &[Matcher],
        (start, end): (i64, i64),
        mut found: impl FnMut(SeriesRef, SeriesId, &Labels),
    ) {
        let Some(index) = self.index_of(tenant) else {
            return;
        };
        for at in index.select(matchers) {
            let (series, id) = (self.series_at(SeriesRef(at)), self.id_at(SeriesRef(at)));
            if series.may_overlap(start, end) {
                found(SeriesRef(at), id, series.labels());
            }
        }
    }

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
        let tenant = &self.tenants[series.tenant() as usize].name;
        (tenant, series.labels())
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
    timestamps: Vec<i64>,
    values: Vec<f64>,
    merger: Merger,
}

impl SeriesSnapshot {
    fn clear(&mut self) {
        self.closed.clear();
        self.open.clear();
        self.late.clear();
    }

    /// The chunks at the ends reach over the range.
    fn cut_to_range(&mut self) {
        let (start, end) = self.range;
        let behind = self.timestamps.partition_point(|&t| t <= end);
        self.timestamps.truncate(behind);
        self.values.truncate(behind);
        let before = self.timestamps.partition_point(|&t| t < start);
        self.timestamps.drain(..before);
        self.values.drain(..before);
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
        self.timestamps.clear();
        self.values.clear();
        let closed = self.closed.iter().map(|c| (&c.bytes[..], c.samples));
        let open = (!self.open.is_empty()).then_some((&self.open[..], self.open_samples));
        for (bytes, count) in closed.chain(open) {
            decode_chunk(bytes, count, &mut self.timestamps, &mut self.values)?;
        }
        self.cut_to_range();
        if self.late.is_empty() || active(SEAL_LOSES_LATE) {
            timestamps.append(&mut self.timestamps);
            values.append(&mut self.values);
            return Ok(());
        }
        sort_keep_last(&mut self.late);
        let late: (Vec<_>, Vec<_>) = self
            .late
            .iter()
            .map(|&(timestamp, bits)| (timestamp, f64::from_bits(bits)))
            .unzip();
        self.merger.clear();
        if active(SEAL_KEEPS_FIRST) {
            self.merger.push(&late.0, &late.1);
            self.merger.push(&self.timestamps, &self.values);
        } else {
            self.merger.push(&self.timestamps, &self.values);
            self.merger.push(&late.0, &late.1);
        }
        self.merger.take(timestamps, values);
        Ok(())
    }
}
