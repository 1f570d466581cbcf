//! What is done to a shard beside its stream of records: merging blocks, and bringing deletes to their
//! end. Looks at what the shard shares, on any thread; what it decides is committed by the shard
//! itself ([`Shard::commit_change`](super::Shard)).

use std::sync::Arc;
use std::time::Duration;

use millrace_log::fs::Fs;
use millrace_log::planted::active;
use millrace_model::{DeleteId, TimeRange};

use super::{Change, LiveBlock, Shard, ShardContext, Shared, View, remove_obsolete};
use crate::block::{BlockOptions, BlockReader, RollupColumns, SeriesPlace};
use crate::compact::{CompactJob, Keep, Plan, PlanInput, plan};
use crate::error::StoreError;
use crate::layer::Layer;
use crate::manifest::BlockEntry;
use crate::paths::{BlockId, ShardDir};
use crate::planted::REMOVED_WHILE_PENDING;
use crate::tombstone::{Tombstone, TombstoneState};

/// How long a delete that is done is still listed. A delete is needed no longer than the queue may
/// deliver what it hides, which redelivery alone cannot: this is for whoever asks what became of it.
const DELETES_LISTED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// A shard as its upkeep sees it.
#[derive(Clone, Debug)]
pub(crate) struct Upkeep {
    pub(crate) context: ShardContext,
    pub(crate) dir: ShardDir,
    pub(crate) shared: Arc<Shared>,
}

/// The next step towards the end of a delete.
#[derive(Debug)]
pub(crate) enum CleanStep {
    /// A block that holds what is deleted is to be written again without it.
    Rewrite(Box<CompactJob>),
    /// Nothing but the manifest changes.
    Note(Change),
    /// There is nothing to do.
    Done,
}

impl Shard {
    /// Says that there are blocks that views do not know.
    pub(crate) fn wake_views(&self) {
        self.context.views.wake();
    }

    /// What upkeep needs to know of this shard.
    pub(crate) fn upkeep(&self) -> Upkeep {
        Upkeep {
            context: self.context.clone(),
            dir: self.dir.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Upkeep {
    /// The next merge of blocks, its files in `fs`; with `force`, all that can be merged is.
    pub(crate) fn next_merge(&self, fs: &Arc<dyn Fs>, force: bool) -> Option<CompactJob> {
        let view = self.shared.view();
        // The layers stay apart: a sample that was queued again must not come before an ordinary one.
        let mut layers = Layer::ALL.into_iter();
        layers.find_map(|layer| self.next_merge_of(layer, &view, fs, force))
    }

    fn next_merge_of(
        &self,
        layer: Layer,
        view: &View,
        fs: &Arc<dyn Fs>,
        force: bool,
    ) -> Option<CompactJob> {
        let of_layer = view.blocks.iter().filter(|b| b.entry.layer == layer);
        let blocks: Vec<BlockEntry> = of_layer.map(|b| b.entry.clone()).collect();
        // IMPORTANT: also those that are revoked, but not durably. What is merged as if they were not
        // there would be free of them when a crash brings them back.
        let kept = self.shared.kept_deletes();
        let pending = view.tombstones.iter().chain(&kept);
        let pending: Vec<_> = pending
            .filter(|t| is_pending(t))
            .map(|t| {
                let TimeRange { start, end } = t.delete.range;
                (t.before, start.0, end.0)
            })
            .collect();
        let bare = view.blocks.iter().filter(|b| b.reader.without_samples());
        let bare: Vec<BlockId> = bare.map(|b| b.entry.id).collect();
        let plan = plan(&PlanInput {
            blocks: &blocks,
            bare: &bare,
            pending: &pending,
            options: &self.context.options.compaction,
            block_window_ms: self.context.window_ms(),
            now: self.context.clock.now(),
            force,
        })?;
        let chosen = |b: &&Arc<LiveBlock>| plan.inputs.contains(&b.entry.id);
        let inputs = view.blocks.iter().filter(chosen).cloned().collect();
        let options = self.context.options.block_options();
        Some(self.job(fs, view, inputs, None, options, &plan))
    }

    /// A job that writes one block again, without what deletes hide for good and without the series
    /// that `keep` does not keep.
    pub(crate) fn rewrite(
        &self,
        fs: &Arc<dyn Fs>,
        block: &Arc<LiveBlock>,
        keep: Option<Arc<dyn Keep>>,
    ) -> CompactJob {
        let options = if block.reader.without_samples() {
            BlockOptions {
                resolutions: block.reader.resolutions().to_vec(),
                without_samples: true,
            }
        } else {
            self.context.options.block_options()
        };
        self.rewrite_as(fs, block, keep, options)
    }

    /// The same, in the way that `options` say.
    pub(crate) fn rewrite_as(
        &self,
        fs: &Arc<dyn Fs>,
        block: &Arc<LiveBlock>,
        keep: Option<Arc<dyn Keep>>,
        options: BlockOptions,
    ) -> CompactJob {
        let plan = Plan {
            inputs: vec![block.entry.id],
            width_ms: 0,
            level: block.entry.level,
            rewrites: block.entry.rewrites,
        };
        let inputs = vec![Arc::clone(block)];
        self.job(fs, &self.shared.view(), inputs, keep, options, &plan)
    }

    fn job(
        &self,
        fs: &Arc<dyn Fs>,
        view: &View,
        inputs: Vec<Arc<LiveBlock>>,
        keep: Option<Arc<dyn Keep>>,
        options: BlockOptions,
        plan: &Plan,
    ) -> CompactJob {
        let ended = |t: &&Arc<Tombstone>| t.state == TombstoneState::Final;
        CompactJob {
            fs: Arc::clone(fs),
            dir: self.dir.clone(),
            pages: Arc::clone(&self.context.pages),
            partition: self.shared.partition,
            now: self.context.clock.now(),
            inputs,
            deletes: view.tombstones.iter().filter(ended).cloned().collect(),
            keep,
            options,
            sequence: self.shared.take_sequence(),
            width_ms: plan.width_ms,
            level: plan.level,
            rewrites: plan.rewrites,
        }
    }

    /// The next step of the deletes whose time to be revoked is over.
    ///
    /// # Errors
    ///
    /// A block that is damaged or cannot be read.
    pub(crate) fn next_clean(&self, fs: &Arc<dyn Fs>) -> Result<CleanStep, StoreError> {
        let view = self.shared.view();
        let time = self.shared.queue_time();
        let in_memory = view.tables.iter().map(|t| t.sequence).min();
        let mut change = Change::default();
        for tombstone in view.tombstones.iter() {
            let id = tombstone.id();
            let over = time > tombstone.delete.undo_until || active(REMOVED_WHILE_PENDING);
            match tombstone.state {
                // Not before what it hides is in blocks, and it is in the manifest itself.
                TombstoneState::Pending
                    if over
                        && in_memory >= Some(tombstone.before)
                        && self.shared.keeps_delete(id) =>
                {
                    change.deletes.push((id, TombstoneState::Final));
                }
                TombstoneState::Pending => {}
                TombstoneState::Final => match find_hidden(&view, tombstone)? {
                    Some(block) => {
                        let job = self.rewrite(fs, block, None);
                        return Ok(CleanStep::Rewrite(Box::new(job)));
                    }
                    None => change.deletes.push((id, TombstoneState::Cleaned)),
                },
                TombstoneState::Cleaned => {
                    let listed_until = tombstone
                        .delete
                        .undo_until
                        .saturating_add(DELETES_LISTED_FOR);
                    // What is derived of views and older than it would look right without it.
                    if time > listed_until && self.views_know(tombstone) {
                        change.forgotten.push(id);
                    }
                }
            }
        }
        if change.deletes.is_empty() && change.forgotten.is_empty() {
            return Ok(CleanStep::Done);
        }
        Ok(CleanStep::Note(change))
    }

    /// Removes the files that nobody needs and nobody holds any more.
    ///
    /// # Errors
    ///
    /// Of the file system.
    pub(crate) fn remove_obsolete(&self) -> Result<usize, StoreError> {
        remove_obsolete(&*self.context.fs, &self.dir, &self.shared)
    }
}

fn is_pending(tombstone: &Tombstone) -> bool {
    tombstone.state == TombstoneState::Pending
}

/// Whether a series without samples has a bucket, of a stored resolution, whose samples were partly
/// in `range`; or, where it has no buckets at all, was there.
fn has_bucket(
    reader: &BlockReader,
    place: &SeriesPlace,
    range: TimeRange,
) -> Result<bool, StoreError> {
    let mut has_any = false;
    for &resolution in reader.resolutions() {
        let mut columns = RollupColumns::default();
        reader.read_rollup(place, resolution, TimeRange::ALL, &mut columns)?;
        has_any |= !columns.is_empty();
        let mut ends = columns.first_times.iter().zip(&columns.last_times);
        if ends.any(|(&first, &last)| TimeRange::new(first, last).overlaps(range)) {
            return Ok(true);
        }
    }
    Ok(!has_any && within_range(place.range(), range))
}

/// Whether all of `inner` is in `outer`.
fn within_range(inner: TimeRange, outer: TimeRange) -> bool {
    outer.contains(inner.start) && outer.contains(inner.end)
}

/// A block that has something that the tombstone hides.
fn find_hidden<'a>(
    view: &'a View,
    tombstone: &Tombstone,
) -> Result<Option<&'a Arc<LiveBlock>>, StoreError> {
    let range = tombstone.delete.range;
    let id: DeleteId = tombstone.id();
    for block in &view.blocks {
        let concerned = tombstone.hides_up_to(block.entry.sequences.1)
            && block.range().overlaps(range)
            && !block.unaffected.lock().contains(&id);
        if !concerned {
            continue;
        }
        for matchers in &tombstone.delete.selectors {
            let found = block.reader.select(&tombstone.tenant, matchers, range)?;
            let (mut timestamps, mut values) = (Vec::new(), Vec::new());
            for series in found {
                timestamps.clear();
                values.clear();
                // A chunk that overlaps need not have a sample in the range.
                let reader = &block.reader;
                if reader.without_samples() {
                    if has_bucket(reader, &series.place, range)? {
                        return Ok(Some(block));
                    }
                    continue;
                }
                reader.read(&series.place, range, &mut timestamps, &mut values)?;
                if !timestamps.is_empty() {
                    return Ok(Some(block));
                }
            }
        }
        block.unaffected.lock().insert(id);
    }
    Ok(None)
}
