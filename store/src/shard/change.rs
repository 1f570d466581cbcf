//! Changes to a shard's blocks and tombstones that come from outside its stream of records:
//! compaction, retention, the end of a delete. Each is one edit of the manifest.
//!
//! Invariant: a file is removed only when the edit that makes it obsolete is durable and no reader
//! holds it. What a crash leaves over is an orphan, which the next open removes.

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_log::fs::Fs;
use millrace_log::planted::active;
use millrace_model::{DeleteId, TimestampMs};

use super::{LiveBlock, Shard, Shared};
use crate::error::{IoContext, StoreError};
use crate::manifest::Edit;
use crate::paths::{BlockId, ShardDir};
use crate::planted::{HIGH_WATER_LOST, OBSOLETE_REMOVED_EARLY};
use crate::tombstone::TombstoneState;

/// One atomic change.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Blocks that cease to live.
    pub(crate) removed: Vec<BlockId>,
    /// Blocks that begin to: durable, under their names.
    pub(crate) added: Vec<LiveBlock>,
    /// Deletes that come further. One that was revoked meanwhile stays revoked.
    pub(crate) deletes: Vec<(DeleteId, TombstoneState)>,
    /// Deletes that are done and old.
    pub(crate) forgotten: Vec<DeleteId>,
    /// The time that was believed.
    pub(crate) high_water: Option<TimestampMs>,
}

impl Shard {
    /// Makes a change durable, then visible. The files of what it removes are left to
    /// [`remove_obsolete`].
    ///
    /// # Errors
    ///
    /// Of a write or a sync: the shard has then stopped, and lost nothing.
    pub(crate) fn commit_change(&mut self, change: Change) -> Result<(), StoreError> {
        self.shared.check_running()?;
        let result = self.commit_now(change);
        self.stop_on_error(result)
    }

    fn commit_now(&mut self, change: Change) -> Result<(), StoreError> {
        if active(OBSOLETE_REMOVED_EARLY) {
            for id in &change.removed {
                let path = self.dir.block(*id);
                self.context.fs.unlink(&path).context("remove", &path)?;
            }
        }
        let edit = self.edit_of(&change);
        let high_water = if active(HIGH_WATER_LOST) {
            edit.high_water
        } else {
            let believed = change.high_water.map_or(i64::MIN, |moment| moment.0);
            edit.high_water.max(believed)
        };
        let changed = edit.tombstones.clone();
        self.manifest.commit(Edit { high_water, ..edit })?;
        let removed: BTreeSet<_> = change.removed.into_iter().collect();
        let mut retired = Vec::new();
        self.shared.change_view(|view| {
            view.blocks.retain(|block| {
                let goes = removed.contains(&block.entry.id);
                if goes {
                    retired.push(Arc::clone(block));
                }
                !goes
            });
            view.add_blocks(change.added.into_iter().map(Arc::new));
            for tombstone in changed {
                view.put_tombstone(tombstone);
            }
            for id in change.forgotten {
                view.drop_tombstone(id);
            }
        });
        self.shared.retire_blocks(retired);
        Ok(())
    }

    fn edit_of(&self, change: &Change) -> Edit {
        let (state, view) = (self.manifest.state(), self.shared.view());
        let tombstones = change.deletes.iter().filter_map(|(id, to)| {
            // One that the manifest does not have yet is not final, and one that was revoked is
            // not there any more.
            let known = state.tombstones.contains_key(id);
            let tombstone = view.tombstone(*id).filter(|_| known)?;
            Some(tombstone.with_state(*to))
        });
        Edit {
            next_sequence: self.shared.next_sequence(),
            removed: change.removed.clone(),
            added: change.added.iter().map(|b| b.entry.clone()).collect(),
            tombstones: tombstones.collect(),
            forgotten: change.forgotten.clone(),
            ..state.edit()
        }
    }
}

/// Removes the files of blocks that live no more, as far as no reader holds them; on any thread.
/// Returns how many.
///
/// # Errors
///
/// Of the file system. What is left over is an orphan, which the next open removes.
pub(crate) fn remove_obsolete(
    fs: &dyn Fs,
    dir: &ShardDir,
    shared: &Shared,
) -> Result<usize, StoreError> {
    let free = shared.take_obsolete();
    for block in &free {
        let path = dir.block(block.entry.id);
        fs.unlink(&path).context("remove", &path)?;
    }
    Ok(free.len())
}
