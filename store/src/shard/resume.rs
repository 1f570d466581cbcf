//! Where a shard goes on reading, and how that is changed by hand.

use millrace_log::planted::active;
use millrace_model::{Offset, QueueId};
use millrace_queue::ResumePoint;

use super::Shard;
use crate::error::StoreError;
use crate::manifest::{Gap, GapCause};
use crate::planted::COMMIT_BEFORE_SYNC;

impl Shard {
    /// Where the queue is to be read from, and what its last record looked like.
    #[must_use]
    pub fn resume_point(&self) -> ResumePoint {
        ResumePoint {
            queue: self.manifest.state().queue,
            next: self.applied,
            last: self.last,
        }
    }

    /// Everything below this offset is applied, and on this machine's disk.
    #[must_use]
    pub fn durable(&self) -> Offset {
        if self.wal.is_synced() || active(COMMIT_BEFORE_SYNC) {
            return self.applied;
        }
        self.synced
    }

    /// Whether nothing of any queue was ever applied.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.applied == Offset::ZERO && self.manifest.state().next_sequence == 1
    }

    /// Lets the shard go on at `to`, wherever that is: seals what it has, and writes the change into
    /// the manifest, where it stays on record.
    ///
    /// # Errors
    ///
    /// Of the seal, or of a write: the shard has then stopped, and stands where it stood.
    pub fn set_position(
        &mut self,
        to: (QueueId, Offset),
        cause: GapCause,
    ) -> Result<Gap, StoreError> {
        self.seal()?;
        let result = self.write_gap(to, cause);
        self.stop_on_error(result)
    }

    fn write_gap(&mut self, to: (QueueId, Offset), cause: GapCause) -> Result<Gap, StoreError> {
        // Also what was written and not applied ends here: its offsets are of the old position.
        let wal_lsn = self.wal.cut()?;
        let gap = Gap {
            from: (self.manifest.state().queue, self.applied),
            to,
            at: self.context.clock.now(),
            cause,
        };
        self.manifest.commit_gap(gap, wal_lsn)?;
        (self.applied, self.last, self.synced) = (to.1, None, to.1);
        self.active_from = gap.to.1;
        self.shared.set_gap(gap);
        self.wal.remove_below(wal_lsn)?;
        tracing::warn!(
            partition = self.partition().0,
            from_queue = %gap.from.0,
            from_offset = gap.from.1.0,
            to_queue = %gap.to.0,
            to_offset = gap.to.1.0,
            cause = cause.as_str(),
            "the shard goes on elsewhere in the queue than where it had stopped"
        );
        Ok(gap)
    }
}
