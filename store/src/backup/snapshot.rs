//! What is taken of a shard in one moment, by its own thread. Short: the bytes are copied or linked later,
//! while the shard goes on.

use std::sync::Arc;

use millrace_log::HeldSegment;
use millrace_log::planted::active;
use millrace_queue::QueueIdentity;

use super::SavedShard;
use crate::error::StoreError;
use crate::planted::{BACKUP_WAL_UNSYNCED, BACKUP_WITHOUT_WAL};
use crate::shard::{Shard, View};
use crate::views::Cover;

/// A store at one moment: each of its shards at one applied offset.
#[derive(Debug)]
pub struct StoreSnapshot {
    pub(crate) identity: QueueIdentity,
    /// In order of their partitions.
    pub(crate) shards: Vec<ShardSnapshot>,
}

impl StoreSnapshot {
    /// The shards.
    pub fn shards(&self) -> impl Iterator<Item = &SavedShard> {
        self.shards.iter().map(|shard| &shard.saved)
    }
}

/// A shard at one moment.
#[derive(Debug)]
pub(crate) struct ShardSnapshot {
    pub(crate) saved: SavedShard,
    /// Generation and bytes of a manifest that says just this.
    pub(crate) manifest: (u64, Vec<u8>),
    /// Keeps the blocks' files where they are.
    pub(crate) view: Arc<View>,
    pub(crate) wal: Vec<HeldSegment>,
    pub(crate) letters: Vec<HeldSegment>,
    /// What is derived of views. Keeps its files where they are.
    pub(crate) covers: Vec<Arc<Cover>>,
    /// The list of the views.
    pub(crate) view_list: Vec<u8>,
}

impl Shard {
    /// The shard as it stands. Without the WAL it stands where it is sealed: the queue has the rest.
    ///
    /// # Errors
    ///
    /// Of the WAL's sync: the shard has then stopped. A file that cannot be opened.
    pub(crate) fn snapshot(&mut self, with_wal: bool) -> Result<ShardSnapshot, StoreError> {
        if !active(BACKUP_WAL_UNSYNCED) {
            // IMPORTANT: the cut. What is applied and not synced is not in what can be held of the WAL.
            self.sync_wal()?;
        }
        let wal = if with_wal && !active(BACKUP_WITHOUT_WAL) {
            self.hold_wal()?
        } else {
            Vec::new()
        };
        let letters = self.dead_letters().hold()?;
        let state = self.manifest_state();
        let samples = state.blocks.values().map(|block| block.samples).sum();
        let records = wal.iter().map(|segment| segment.next.0 - segment.first.0);
        let saved = SavedShard {
            partition: self.partition(),
            queue: state.queue,
            applied: if with_wal {
                self.applied()
            } else {
                state.sealed
            },
            sealed: state.sealed,
            blocks: state.blocks.len() as u64,
            samples,
            wal_records: records.sum(),
        };
        Ok(ShardSnapshot {
            saved,
            manifest: self.manifest_image(),
            view: self.shared().view(),
            wal,
            letters,
            // Of blocks that the manifest has: this thread is the one that changes it.
            covers: self.shared().views.covers(),
            view_list: self.view_list(),
        })
    }
}
