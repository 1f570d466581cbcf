//! Before retention lets samples go, what was derived from them is made to stay.

use std::sync::Arc;

use millrace_log::fs::Fs;
use millrace_log::planted::active;
use millrace_views::{Span, Spans, ViewDefinition};

use super::cover::{Cover, Segment};
use super::stale::knows;
use crate::compact::Keep;
use crate::error::StoreError;
use crate::planted::VIEW_NOT_FROZEN;
use crate::shard::{LiveBlock, Upkeep};
use crate::tombstone::Tombstone;

impl Upkeep {
    /// Whether nothing that is derived is older than a delete that has nothing left to hide.
    pub(crate) fn views_know(&self, tombstone: &Tombstone) -> bool {
        let definitions = self.context.views.to_derive();
        let mut of_tenant = definitions
            .iter()
            .filter(|of| of.tenant == tombstone.tenant);
        of_tenant.all(|of| knows(of, &self.shared.views.cover(of.id()), tombstone))
    }

    /// Derives the buckets of each view that has samples in `block`, and freezes them. With `keep`, only
    /// the views of which it keeps not all series.
    ///
    /// A sample that comes later than this is not in them. IMPORTANT: durable before the block goes.
    ///
    /// # Errors
    ///
    /// Damage; of the file system.
    pub(crate) fn freeze_views(
        &self,
        fs: &Arc<dyn Fs>,
        block: &LiveBlock,
        keep: Option<&dyn Keep>,
    ) -> Result<(), StoreError> {
        if block.reader.without_samples() || active(VIEW_NOT_FROZEN) {
            return Ok(());
        }
        let shelf = &self.shared.views;
        let turn = shelf.turn();
        for definition in self.context.views.to_derive() {
            let Some(span) = loses(&definition, block, keep)? else {
                continue;
            };
            self.derive_within(fs, &definition, span, &turn)?;
            let cover = shelf.cover(definition.id());
            let mut next = Cover::clone(&cover);
            next.segments = frozen(&cover, span);
            drop(cover);
            shelf.put(&**fs, next, &turn)?;
            tracing::info!(
                partition = self.shared.partition.0,
                view = definition.name,
                tenant = %definition.tenant,
                from_ms = span.from,
                to_ms = span.to,
                "buckets of a view frozen: their samples expire"
            );
        }
        Ok(())
    }
}

/// The buckets that lose samples.
fn loses(
    definition: &ViewDefinition,
    block: &LiveBlock,
    keep: Option<&dyn Keep>,
) -> Result<Option<Span>, StoreError> {
    let range = block.range();
    let found = block
        .reader
        .select(&definition.tenant, &definition.matchers, range)?;
    let goes = |labels| keep.is_none_or(|keep| !keep.keeps(&definition.tenant, labels));
    if !found.iter().any(|series| goes(&series.labels)) {
        return Ok(None);
    }
    let span = Span::new(range.start.0.saturating_sub(1), range.end.0);
    Ok(Some(definition.touched(span)))
}

/// The segments with those within `span` frozen.
fn frozen(cover: &Cover, span: Span) -> Vec<Segment> {
    let mut segments = Vec::new();
    for segment in &cover.segments {
        if segment.frozen {
            segments.push(segment.clone());
            continue;
        }
        let whole = Spans::of(segment.span);
        let inside = whole.and(&Spans::of(span));
        let pieces = whole.minus(&inside);
        for (spans, frozen) in [(pieces, false), (inside, true)] {
            segments.extend(spans.iter().map(|span| Segment {
                span,
                frozen,
                ..segment.clone()
            }));
        }
    }
    segments.sort_by_key(|segment| segment.span);
    segments
}
