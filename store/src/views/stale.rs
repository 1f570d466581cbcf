//! Which of a view's buckets do not hold for true any more, or never did.

use std::sync::Arc;

use millrace_log::planted::active;
use millrace_model::DeleteId;
use millrace_views::{Span, Spans, ViewDefinition};

use super::cover::{Cover, Segment};
use crate::planted::{VIEW_KEEPS_STALE, VIEW_MISSES_DELETE};
use crate::shard::View;
use crate::tombstone::Tombstone;

/// The shard without what has no samples: where retention has left rollups alone, nothing can be
/// derived. With `tables` also what is in memory.
pub(super) fn with_samples(view: &View, tables: bool) -> View {
    let mut of = view.clone();
    of.blocks.retain(|block| !block.reader.without_samples());
    if !tables {
        of.tables.clear();
    }
    of
}

/// The buckets to which blocks and memtables of `view` have something to say that `cover` does not
/// know. What is frozen is not among them.
pub(super) fn stale(view: &View, definition: &ViewDefinition, cover: &Cover) -> Spans {
    let frozen = cover.frozen();
    let mut stale = Vec::new();
    for block in &view.blocks {
        let range = block.range();
        let range = Span::new(range.start.0.saturating_sub(1), range.end.0);
        let touched = Spans::of(definition.touched(range));
        let knows = |segment: &&Segment| {
            segment.sequence >= block.entry.sequences.1 || active(VIEW_KEEPS_STALE)
        };
        let known: Spans = cover
            .segments
            .iter()
            .filter(knows)
            .map(|s| s.span)
            .collect();
        stale.extend(touched.minus(&known).iter());
    }
    for of_view in &view.tables {
        let rows = of_view.table.rows();
        stale.extend(rows.window_spans().map(|window| definition.touched(window)));
    }
    let minds_deletes = |s: &&Segment| !s.frozen && !active(VIEW_MISSES_DELETE);
    for segment in cover.segments.iter().filter(minds_deletes) {
        // One that is not there any more was revoked, or is long done: in doubt, the first.
        let gone = |id: &DeleteId| view.tombstone(*id).is_none();
        if segment.deletes.iter().any(gone) {
            stale.push(segment.span);
            continue;
        }
        for tombstone in deletes(view, definition) {
            if segment.deletes.binary_search(&tombstone.id()).is_err() {
                stale.push(reach(tombstone, definition).and(segment.span));
            }
        }
    }
    Spans::from_iter(stale).minus(&frozen)
}

/// Whether all that is derived of views was derived with `tombstone`, or behind it: only then may it be
/// forgotten.
pub(super) fn knows(view: &ViewDefinition, cover: &Cover, tombstone: &Tombstone) -> bool {
    let reach = reach(tombstone, view);
    let mut segments = cover.segments.iter().filter(|s| !s.frozen);
    segments.all(|segment| {
        segment.span.and(reach).is_empty() || segment.deletes.binary_search(&tombstone.id()).is_ok()
    })
}

/// The deletes of the view's tenant. Also those that have nothing left to hide: what was derived before
/// does not know of them.
fn deletes<'a>(
    view: &'a View,
    definition: &'a ViewDefinition,
) -> impl Iterator<Item = &'a Arc<Tombstone>> {
    let of_tenant = |t: &&Arc<Tombstone>| t.tenant == definition.tenant;
    view.tombstones.iter().filter(of_tenant)
}

fn reach(tombstone: &Tombstone, definition: &ViewDefinition) -> Span {
    let range = tombstone.delete.range;
    definition.touched(Span::new(range.start.0.saturating_sub(1), range.end.0))
}

/// Segments of `spans`, derived from all that `view` has.
pub(super) fn segments(view: &View, definition: &ViewDefinition, spans: &Spans) -> Vec<Segment> {
    let sequence = view.blocks.iter().map(|b| b.entry.sequences.1).max();
    let of = |span: Span| {
        let applied = deletes(view, definition);
        let applied = applied.filter(|t| !reach(t, definition).and(span).is_empty());
        let mut deletes: Vec<DeleteId> = applied.map(|t| t.id()).collect();
        deletes.sort_unstable();
        Segment {
            span,
            sequence: sequence.unwrap_or(0),
            deletes,
            frozen: false,
        }
    };
    spans.iter().map(of).collect()
}
