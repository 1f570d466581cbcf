//! The thread that derives: for all shards, one day at a time.
//!
//! It reads what the shards share and writes files of its own, no faster than the pace of compaction,
//! and halts while that is paused. A failure here stops no shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use millrace_log::fs::Fs;

use super::Views;
use crate::compact::{Pace, PacedFs};
use crate::error::StoreError;
use crate::shard::Upkeep;

/// How often it is looked whether there is something to do, if nobody says so: compaction and retention
/// do not.
const TICK: Duration = Duration::from_secs(1);
/// Pause of a shard behind a failure.
const BACKOFF: Duration = Duration::from_secs(10);

/// See the [module](self).
pub(crate) struct Tender {
    pub(crate) views: Arc<Views>,
    pub(crate) shards: Vec<Upkeep>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Tender {
    /// Until the store stops.
    pub(crate) fn run(self) {
        let mut not_before: Vec<Option<Instant>> = vec![None; self.shards.len()];
        loop {
            match self.views.woken().recv_timeout(TICK) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Shards take turns, so that none waits for another's backfill.
            let mut busy = true;
            while busy {
                busy = false;
                for (shard, not_before) in self.shards.iter().zip(&mut not_before) {
                    if self.stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let waits = not_before.is_some_and(|then| Instant::now() < then);
                    if waits || self.pace.is_paused() {
                        continue;
                    }
                    match self.turn(shard) {
                        Ok(more) => {
                            busy |= more;
                            *not_before = None;
                        }
                        Err(error) => *not_before = self.failed(shard, &error),
                    }
                }
            }
        }
    }

    fn turn(&self, shard: &Upkeep) -> Result<bool, StoreError> {
        let fs = Arc::clone(&shard.context.fs);
        let fs: Arc<dyn Fs> = Arc::new(PacedFs::new(fs, Arc::clone(&self.pace)));
        let more = shard.derive_views(&fs)?;
        *shard.shared.views.failure.lock() = None;
        Ok(more)
    }

    fn failed(&self, shard: &Upkeep, error: &StoreError) -> Option<Instant> {
        if !self.pace.is_stopped() {
            let partition = shard.shared.partition.0;
            tracing::error!(partition, %error, wait = ?BACKOFF, "views not derived; it is tried again");
            *shard.shared.views.failure.lock() = Some(error.to_string());
        }
        Instant::now().checked_add(BACKOFF)
    }
}
