//! Reading a view over shards: what is derived from its files, the rest from samples.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_model::{Labels, Matcher, TimeRange};
use millrace_views::{Partial, Span, Spans, ViewDefinition, bucket_end};

use super::derive::cell_of;
use super::fold::{Task, fold};
use super::sheet::{self, Rows, SheetOf};
use super::stale::{stale, with_samples};
use crate::error::StoreError;
use crate::part::StorePart;
use crate::shard::Shared;

/// Buckets of groups in one read: beyond this it is no answer for a person.
const ROWS_MAX: usize = 20 << 20;

/// What is read of a view.
#[derive(Clone, Copy, Debug)]
pub struct ViewRead<'a> {
    /// Which view.
    pub view: &'a ViewDefinition,
    /// Buckets whose ends are in it, both ends inside.
    pub range: TimeRange,
    /// What the labels of a group must pass.
    pub groups: &'a [Matcher],
    /// What time it is, in milliseconds since the epoch: buckets that have had their time are not told.
    pub now_ms: i64,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewSeries {
    /// The labels that tell it from others.
    pub labels: Labels,
    /// In order of time.
    pub buckets: Vec<ViewBucket>,
}

/// One bucket of a group, of all shards together.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewBucket {
    /// The bucket's last moment, at which its values stand.
    pub end: i64,
    /// What was in it.
    pub partial: Partial,
}

/// What a read took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ViewReadCost {
    /// Samples that were folded on the fly.
    pub(crate) samples: u64,
    /// Bytes of sheets and blocks that were read.
    pub(crate) bytes: u64,
}

impl StorePart {
    /// The groups of a view that have buckets, in order of their labels; and the bytes that were read
    /// for it.
    ///
    /// # Errors
    ///
    /// A block or a sheet that is damaged or cannot be read; [`StoreError::ViewRows`].
    pub fn view(&self, read: &ViewRead<'_>) -> Result<(Vec<ViewSeries>, u64), StoreError> {
        let (found, cost) = self.view_with_cost(read)?;
        Ok((found, cost.bytes))
    }

    pub(crate) fn view_with_cost(
        &self,
        read: &ViewRead<'_>,
    ) -> Result<(Vec<ViewSeries>, ViewReadCost), StoreError> {
        let mut cost = ViewReadCost::default();
        let mut merged: BTreeMap<Labels, BTreeMap<i64, Partial>> = BTreeMap::new();
        let mut left = ROWS_MAX;
        // In the order of the partitions: the order of a sum.
        for shared in self.shards() {
            let rows = shared.view_rows(read, left, &mut cost)?;
            for (labels, buckets) in rows {
                left = left
                    .checked_sub(buckets.len())
                    .ok_or_else(|| too_many(read))?;
                let of = merged.entry(labels).or_default();
                for (end, partial) in buckets {
                    of.entry(end).or_default().merge(&partial);
                }
            }
        }
        let series = merged.into_iter().map(|(labels, buckets)| ViewSeries {
            labels,
            buckets: buckets
                .into_iter()
                .map(|(end, partial)| ViewBucket { end, partial })
                .collect(),
        });
        Ok((series.collect(), cost))
    }
}

fn too_many(read: &ViewRead<'_>) -> StoreError {
    StoreError::ViewRows {
        view: read.view.name.clone(),
        limit: ROWS_MAX,
    }
}

impl Shared {
    fn view_rows(
        self: &Arc<Self>,
        read: &ViewRead<'_>,
        rows_max: usize,
        cost: &mut ViewReadCost,
    ) -> Result<Rows, StoreError> {
        let definition = read.view;
        let mut rows = Rows::new();
        let Some(asked) = asked(read) else {
            return Ok(rows);
        };
        // In this order: see `Shelf::cover`.
        let view = with_samples(&self.view(), true);
        let cover = self.views.cover(definition.id());
        let fresh = cover.spans().minus(&stale(&view, definition, &cover));
        let ready = fresh.and(&Spans::of(asked));
        let takes = |labels: &Labels| read.groups.iter().all(|m| m.matches_labels(labels));
        let cells = cover.sheets.iter().filter(|(cell, _)| {
            let cell = cell_of(**cell + 1, definition.cell_ms());
            !ready.and(&Spans::of(cell)).is_empty()
        });
        for (&cell, entry) in cells {
            let path = self.views.sheet(cover.view, cell, entry.generation);
            let of = SheetOf {
                view: cover.view,
                cell,
                parts: definition.parts(),
            };
            cost.bytes += sheet::read(&*self.views.fs, &path, of, &ready, &takes, &mut rows)?;
        }
        // A group's label is a series' label, where all series of a group have the same.
        let of_series = read
            .groups
            .iter()
            .filter(|m| definition.grouping.keeps(m.name()));
        let matchers = definition.matchers.iter().chain(of_series).cloned();
        let matchers: Vec<Matcher> = matchers.collect();
        for span in Spans::of(asked).minus(&ready).iter() {
            let task = Task {
                view: definition,
                wanted: Spans::of(span),
                matchers: matchers.clone(),
            };
            let folded = fold(&view, &definition.tenant, &[task], rows_max)?;
            let folded = folded.ok_or_else(|| too_many(read))?;
            cost.samples += folded.samples;
            cost.bytes += folded.bytes;
            for (labels, buckets) in folded.rows.into_iter().flatten() {
                if takes(&labels) {
                    rows.entry(labels).or_default().extend(buckets);
                }
            }
        }
        Ok(rows)
    }
}

/// Whole buckets that end in the range and have not had their time.
fn asked(read: &ViewRead<'_>) -> Option<Span> {
    let width = read.view.width_ms;
    let expired = read.view.expired_until(read.now_ms).saturating_add(1);
    let first = bucket_end(read.range.start.0.max(expired), width);
    // The last end that is not behind the range.
    let after = bucket_end(read.range.end.0.saturating_add(1), width);
    let span = Span::new(first - width, after - width);
    (!span.is_empty()).then_some(span)
}
