//! What a store is asked to do beside consuming and answering: merging, retention, deletes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::bounded;
use millrace_model::{DeleteId, TenantId};

use super::{Stage, Store};
use crate::backup::StoreSnapshot;
use crate::error::StoreError;
use crate::maintain::{Request, Wish};
use crate::retain::{RetentionReport, decide, retention_time};
use crate::tombstone::Tombstone;

impl Store {
    /// Halts merging of blocks after at most 256 KiB more, until it is resumed.
    pub fn pause_compaction(&self) {
        self.pace.set_paused(true);
    }

    /// Lets merging of blocks go on.
    pub fn resume_compaction(&self) {
        self.pace.set_paused(false);
    }

    /// Whether merging of blocks is halted.
    #[must_use]
    pub fn compaction_is_paused(&self) -> bool {
        self.pace.is_paused()
    }

    /// Merges all blocks that can be merged, those of open windows too, and waits for it.
    ///
    /// # Errors
    ///
    /// A store that was not started or is closed; damage in a block; of the file system.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.wish(Wish::Compact)
    }

    /// Removes what deletes hide for good, and waits for it. A delete that can still be revoked is
    /// left alone.
    ///
    /// # Errors
    ///
    /// As [`compact`](Self::compact).
    pub fn clean_tombstones(&self) -> Result<(), StoreError> {
        self.wish(Wish::Clean)
    }

    /// Lets go what has had its time by [`RetentionOptions`](crate::RetentionOptions), however much it is, and
    /// waits for it. The store does so by itself every minute, up to
    /// [`hourly_percent`](crate::RetentionOptions::hourly_percent).
    ///
    /// # Errors
    ///
    /// As [`compact`](Self::compact).
    pub fn retain(&self) -> Result<(), StoreError> {
        self.wish(Wish::Retain { confirmed: true })
    }

    /// What the store does by itself every minute.
    #[cfg(test)]
    pub(crate) fn retain_within_bound(&self) -> Result<(), StoreError> {
        self.wish(Wish::Retain { confirmed: false })
    }

    /// What retention would let go now. Changes nothing.
    ///
    /// # Errors
    ///
    /// A block that is damaged or cannot be read.
    pub fn retention_dry_run(&self) -> Result<RetentionReport, StoreError> {
        let options = &self.options.retention;
        let coarsest = self.options.coarsest_rollup_ms();
        // A copy: that somebody asks must not change what is believed.
        let mut clock = *self.retention_clock.lock();
        let believed = clock.observe(self.clock.now(), self.clock.monotonic(), options);
        let views: Vec<_> = self
            .shared
            .iter()
            .map(|s| (s.partition, s.view()))
            .collect();
        let now = retention_time(believed, &views);
        let decisions = match now {
            Some(now) => decide(options, &views, now, coarsest)?,
            None => Vec::new(),
        };
        Ok(RetentionReport {
            now,
            clock_frozen: clock.is_frozen(),
            items: decisions.into_iter().map(|d| d.item).collect(),
        })
    }

    /// Lets retention believe the wall clock, although it jumped.
    pub fn confirm_clock(&self) {
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        self.retention_clock.lock().confirm(now, monotonic);
    }

    /// The shards as they stand, whether the store was started or not: each at one applied offset, or
    /// without the WAL at the offset up to which it is sealed. What is taken stays readable while the store
    /// goes on; [`backup::write`](crate::backup::write()) puts it into files.
    ///
    /// # Errors
    ///
    /// A store that is closed, a shard that has stopped or does not come to it; of the file system.
    pub fn snapshot(&self, with_wal: bool) -> Result<StoreSnapshot, StoreError> {
        let shards = match &mut *self.runtime.lock() {
            Stage::Running(runtime) => runtime.snapshot(with_wal)?,
            Stage::Open(shards) => {
                let shards = shards.iter_mut();
                let taken = shards.map(|shard| shard.snapshot(with_wal));
                taken.collect::<Result<_, _>>()?
            }
            Stage::Closed => return Err(StoreError::NotRunning),
        };
        Ok(StoreSnapshot {
            identity: self.identity.clone(),
            shards,
        })
    }

    fn wish(&self, wish: Wish) -> Result<(), StoreError> {
        let wishes = match &*self.runtime.lock() {
            Stage::Running(runtime) => runtime.wishes(),
            Stage::Open(_) | Stage::Closed => None,
        };
        let (done, fulfilled) = bounded(1);
        let asked = wishes.map(|wishes| wishes.send(Request { wish, done }));
        match asked {
            Some(Ok(())) => fulfilled.recv().unwrap_or(Err(StoreError::NotRunning)),
            Some(Err(_)) | None => Err(StoreError::NotRunning),
        }
    }

    /// The deletes of `tenant` that are known, by their identities, each as the partition that has
    /// got least far with it knows it.
    #[must_use]
    pub fn deletes(&self, tenant: &TenantId) -> Vec<Arc<Tombstone>> {
        let mut all: BTreeMap<DeleteId, Arc<Tombstone>> = BTreeMap::new();
        for shared in &self.shared {
            let view = shared.view();
            for tombstone in view.tombstones.iter().filter(|t| t.tenant == *tenant) {
                let known = all
                    .entry(tombstone.id())
                    .or_insert_with(|| Arc::clone(tombstone));
                if tombstone.state.code() < known.state.code() {
                    *known = Arc::clone(tombstone);
                }
            }
        }
        all.into_values().collect()
    }
}
