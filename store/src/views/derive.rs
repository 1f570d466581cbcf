//! Deriving what a view does not cover yet, or no more: one cell of time in a turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_log::fs::Fs;
use millrace_views::{Span, Spans, ViewDefinition};
use parking_lot::MutexGuard;

use super::Shelf;
use super::cover::Cover;
use super::fold::{Task, fold};
use super::sheet::{self, Rows, SheetOf};
use super::stale::{segments, stale, with_samples};
use crate::error::StoreError;
use crate::shard::{Upkeep, View};

/// Buckets of groups that one piece of work holds in memory: some hundred MiB.
const ROWS_MAX: usize = 1 << 20;

/// One view's share of a turn.
struct Due {
    definition: Arc<ViewDefinition>,
    cover: Arc<Cover>,
    /// All that does not hold.
    stale: Spans,
    /// What of that is derived now.
    wanted: Spans,
}

impl Upkeep {
    /// Brings the views further: forgets those that nobody defines, lets go what has had its time, and derives
    /// the newest day that some view lacks. Where nothing is found, the next turn takes a longer piece: a
    /// block may reach over decades of which it has two days. Whether there was something to derive.
    ///
    /// # Errors
    ///
    /// Damage; of the file system. Nothing is lost then.
    pub(crate) fn derive_views(&self, fs: &Arc<dyn Fs>) -> Result<bool, StoreError> {
        let shelf = &self.shared.views;
        let turn = shelf.turn();
        let definitions = self.context.views.to_derive();
        for cover in shelf.covers() {
            if definitions.iter().all(|of| of.id() != cover.view) {
                shelf.remove(&**fs, cover.view, &turn)?;
            }
        }
        shelf.remove_replaced(&**fs)?;
        let view = with_samples(&self.shared.view(), false);
        for definition in &definitions {
            self.expire(fs, definition, &turn)?;
        }
        let mut due = self.due(&view, definitions, &Spans::of(ALL));
        let newest = due
            .iter()
            .filter_map(|of| of.stale.last())
            .max_by_key(|s| s.to);
        let Some(newest) = newest else {
            return Ok(false);
        };
        let lead = due.iter().find(|of| of.stale.last() == Some(newest));
        let Some((cell_ms, tenant)) =
            lead.map(|of| (of.definition.cell_ms(), of.definition.tenant.clone()))
        else {
            return Ok(false);
        };
        let piece = shelf.piece(cell_of(newest.to, cell_ms));
        due.retain_mut(|of| {
            of.wanted = of.stale.and(&Spans::of(piece));
            let same = of.definition.cell_ms() == cell_ms && of.definition.tenant == tenant;
            same && !of.wanted.is_empty()
        });
        let found = self.derive_due(fs, &view, due, &turn)?;
        shelf.note_piece(found);
        Ok(true)
    }

    /// Derives all that some views lack within `span`.
    pub(super) fn derive_within(
        &self,
        fs: &Arc<dyn Fs>,
        definition: &Arc<ViewDefinition>,
        span: Span,
        turn: &MutexGuard<'_, ()>,
    ) -> Result<(), StoreError> {
        let view = with_samples(&self.shared.view(), false);
        loop {
            let within = Spans::of(span);
            let mut due = self.due(&view, vec![Arc::clone(definition)], &within);
            let Some(newest) = due.first().and_then(|of| of.stale.and(&within).last()) else {
                return Ok(());
            };
            let cell = Spans::of(cell_of(newest.to, definition.cell_ms()));
            for of in &mut due {
                of.wanted = of.stale.and(&cell).and(&within);
            }
            self.derive_due(fs, &view, due, turn)?;
        }
    }

    /// The views that lack something within `span`.
    fn due(&self, view: &View, definitions: Vec<Arc<ViewDefinition>>, span: &Spans) -> Vec<Due> {
        let now = self.context.clock.now().0;
        let mut due = Vec::new();
        for definition in definitions {
            let cover = self.shared.views.cover(definition.id());
            let kept = expiry(&definition, now);
            let stale = stale(view, &definition, &cover);
            let stale = stale.minus(&Spans::of(Span::new(i64::MIN, kept)));
            if !stale.and(span).is_empty() {
                due.push(Due {
                    definition,
                    cover,
                    stale,
                    wanted: Spans::default(),
                });
            }
        }
        due
    }

    /// Derives what is wanted; in smaller pieces where that would take too much memory. Whether there was
    /// anything.
    fn derive_due(
        &self,
        fs: &Arc<dyn Fs>,
        view: &View,
        due: Vec<Due>,
        turn: &MutexGuard<'_, ()>,
    ) -> Result<bool, StoreError> {
        let Some(tenant) = due.first().map(|of| of.definition.tenant.clone()) else {
            return Ok(false);
        };
        let tasks: Vec<_> = due
            .iter()
            .map(|of| Task {
                view: &of.definition,
                wanted: of.wanted.clone(),
                matchers: of.definition.matchers.clone(),
            })
            .collect();
        if let Some(folded) = fold(view, &tenant, &tasks, ROWS_MAX)? {
            drop(tasks);
            self.shared.views.note_samples(folded.samples);
            self.shared.metrics.view_samples.inc_by(folded.samples);
            let found = folded.rows.iter().any(|rows| !rows.is_empty());
            for (of, rows) in due.into_iter().zip(folded.rows) {
                self.store_rows(fs, view, of, rows, turn)?;
            }
            return Ok(found);
        }
        drop(tasks);
        // Each alone; and one alone in halves. What is left is for the next turn.
        let several = due.len() > 1;
        for mut of in due {
            if !several {
                of.wanted = newer_half(&of.wanted, of.definition.width_ms).ok_or_else(|| {
                    StoreError::ViewGroups {
                        view: of.definition.name.clone(),
                        limit: ROWS_MAX,
                    }
                })?;
            }
            self.derive_due(fs, view, vec![of], turn)?;
        }
        Ok(true)
    }

    /// Writes the sheets of the cells concerned, and then the cover. What did not hold and was not derived is not covered
    /// any more: no later change can make old rows look right.
    fn store_rows(
        &self,
        fs: &Arc<dyn Fs>,
        view: &View,
        due: Due,
        new: Rows,
        turn: &MutexGuard<'_, ()>,
    ) -> Result<(), StoreError> {
        let Due {
            definition,
            cover,
            stale,
            wanted,
        } = due;
        let shelf = &self.shared.views;
        let mut next = Cover::clone(&cover);
        let frozen = cover.frozen();
        let holds = cover.spans().minus(&stale).minus(&frozen);
        let derived = holds.or(&wanted);
        next.segments.retain(|segment| segment.frozen);
        next.segments.extend(segments(view, &definition, &derived));
        next.segments.sort_by_key(|segment| segment.span);
        let stay = holds.or(&frozen).minus(&wanted);
        let mut cells = by_cell(new, definition.cell_ms());
        for &cell in cover.sheets.keys() {
            let span = Spans::of(cell_of(cell + 1, definition.cell_ms()));
            if !span.and(&wanted).is_empty() {
                cells.entry(cell).or_default();
            }
        }
        for (cell, new) in cells {
            let mut rows = shelf.rows(&cover, &definition, cell, &stay)?;
            for (labels, buckets) in new {
                let of = rows.entry(labels).or_default();
                of.extend(buckets);
                of.sort_by_key(|bucket| bucket.0);
            }
            if rows.is_empty() {
                next.sheets.remove(&cell);
                continue;
            }
            let generation = next.next_generation;
            next.next_generation += 1;
            let path = shelf.sheet(cover.view, cell, generation);
            let of = SheetOf {
                view: cover.view,
                cell,
                parts: definition.parts(),
            };
            let entry = sheet::write(&**fs, &path, generation, of, &rows)?;
            next.sheets.insert(cell, entry);
        }
        drop(cover);
        shelf.put(&**fs, next, turn)
    }

    /// Lets go the cells whose buckets have all had their time.
    fn expire(
        &self,
        fs: &Arc<dyn Fs>,
        definition: &ViewDefinition,
        turn: &MutexGuard<'_, ()>,
    ) -> Result<(), StoreError> {
        let until = expiry(definition, self.context.clock.now().0);
        let shelf = &self.shared.views;
        let cover = shelf.cover(definition.id());
        let old_sheet = cover.sheets.keys().any(|&cell| cell < until);
        if !old_sheet && cover.segments.iter().all(|s| s.span.from >= until) {
            return Ok(());
        }
        let mut next = Cover::clone(&cover);
        next.sheets.retain(|&cell, _| cell >= until);
        next.segments.retain_mut(|segment| {
            segment.span.from = segment.span.from.max(until);
            !segment.span.is_empty()
        });
        drop(cover);
        shelf.put(&**fs, next, turn)
    }
}

const ALL: Span = Span {
    from: i64::MIN,
    to: i64::MAX,
};

impl Shelf {
    /// The rows of one cell in the buckets of `wanted`.
    pub(super) fn rows(
        &self,
        cover: &Cover,
        definition: &ViewDefinition,
        cell: i64,
        wanted: &Spans,
    ) -> Result<Rows, StoreError> {
        let mut rows = Rows::new();
        let Some(entry) = cover.sheets.get(&cell).filter(|_| !wanted.is_empty()) else {
            return Ok(rows);
        };
        let path = self.sheet(cover.view, cell, entry.generation);
        let of = SheetOf {
            view: cover.view,
            cell,
            parts: definition.parts(),
        };
        sheet::read(&*self.fs, &path, of, wanted, &|_| true, &mut rows)?;
        Ok(rows)
    }
}

/// The end of the last cell that a view has let go.
fn expiry(definition: &ViewDefinition, now: i64) -> i64 {
    match definition.expired_until(now) {
        i64::MIN => i64::MIN,
        until => until.div_euclid(definition.cell_ms()) * definition.cell_ms(),
    }
}

/// The cell that holds a moment.
pub(super) fn cell_of(moment: i64, cell_ms: i64) -> Span {
    let from = (moment - 1).div_euclid(cell_ms) * cell_ms;
    Span::new(from, from + cell_ms)
}

/// Rows by the starts of the cells that their buckets are in.
fn by_cell(rows: Rows, cell_ms: i64) -> BTreeMap<i64, Rows> {
    let mut cells: BTreeMap<i64, Rows> = BTreeMap::new();
    for (labels, buckets) in rows {
        for bucket in buckets {
            let cell = cells.entry(cell_of(bucket.0, cell_ms).from).or_default();
            cell.entry(labels.clone()).or_default().push(bucket);
        }
    }
    cells
}

/// The newer half of some buckets; `None` if that is all.
fn newer_half(wanted: &Spans, width_ms: i64) -> Option<Spans> {
    let (first, last) = (wanted.first()?, wanted.last()?);
    let buckets = (last.to - first.from) / width_ms;
    let middle = last.to - buckets / 2 * width_ms;
    let half = wanted.and(&Spans::of(Span::new(middle, last.to)));
    (!half.is_empty() && half != *wanted).then_some(half)
}
