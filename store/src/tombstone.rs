//! Tombstones: deletes that were applied, until nothing is left for them to hide.
//!
//! Invariants:
//! - A tombstone hides what was applied **before** it: the samples of memtables that were closed by
//!   then, and of their blocks. Every memtable takes a number when it is closed, and a tombstone
//!   says which number comes next. Where one would stand inside a memtable that has something it
//!   hides, the memtable is closed first (see [`crate::shard`]), so every place is wholly before or
//!   wholly behind it. Offsets would not do: a queue that was replaced may count from 0 again.
//! - While it is [`TombstoneState::Pending`] it only masks, and can be revoked. Nothing that it
//!   hides is removed, and no compaction joins blocks from before with blocks from behind it.
//! - [`TombstoneState::Final`] is durable before the first sample is removed for it.

use std::sync::Arc;

use millrace_log::planted::active;
use millrace_model::{Delete, DeleteId, Labels, Offset, TenantId, TimeRange, TimestampMs};

use crate::planted::{DELETE_HIDES_LATER, MASK_IGNORES_RANGE};

/// How far a delete has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TombstoneState {
    /// It hides, and can be revoked.
    Pending,
    /// It hides, and what it hides is being removed. Too late to revoke.
    Final,
    /// Nothing is left that it would hide.
    Cleaned,
}

impl TombstoneState {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Final => 1,
            Self::Cleaned => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Pending, Self::Final, Self::Cleaned]
            .into_iter()
            .find(|state| state.code() == code)
    }

    /// Its word in answers and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Final => "final",
            Self::Cleaned => "cleaned",
        }
    }
}

/// A delete of one tenant as one shard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Whose.
    pub tenant: TenantId,
    /// Where its record stands in the queue.
    pub offset: Offset,
    /// It hides what seals below this number hold, and nothing else.
    pub before: u64,
    /// How far it has come.
    pub state: TombstoneState,
    /// What was asked for.
    pub delete: Delete,
}

impl Tombstone {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> DeleteId {
        self.delete.id
    }

    /// Whether it may hide something of a place with samples of seals up to `last`.
    pub(crate) fn hides_up_to(&self, last: u64) -> bool {
        let before = last < self.before || active(DELETE_HIDES_LATER);
        before && self.state != TombstoneState::Cleaned
    }

    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        self.delete.range.overlaps(range)
    }

    /// Whether it can be revoked by a record that the queue took at `moment`.
    pub(crate) fn revocable_at(&self, moment: TimestampMs) -> bool {
        self.state == TombstoneState::Pending && moment <= self.delete.undo_until
    }

    pub(crate) fn with_state(&self, state: TombstoneState) -> Arc<Self> {
        Arc::new(Self {
            state,
            ..self.clone()
        })
    }
}

/// The tombstones that may hide something of one tenant in one place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masks<'a> {
    tombstones: Vec<&'a Arc<Tombstone>>,
}

impl<'a> Masks<'a> {
    /// Of `tenant`, in a place with samples of seals up to `last`, in `range`.
    pub(crate) fn new(
        all: &'a [Arc<Tombstone>],
        tenant: &TenantId,
        last: u64,
        range: TimeRange,
    ) -> Self {
        let hides =
            |t: &&Arc<Tombstone>| t.tenant == *tenant && t.hides_up_to(last) && t.overlaps(range);
        Self {
            tombstones: all.iter().filter(hides).collect(),
        }
    }

    /// Of `tenant`, for a batch that is queued again and stood at `first` in this queue; `None`: in
    /// another queue, before this one. Also those that have nothing left to hide in blocks.
    pub(crate) fn behind(
        all: &'a [Arc<Tombstone>],
        tenant: &TenantId,
        first: Option<Offset>,
    ) -> Self {
        let behind = |t: &Tombstone| first.is_none_or(|first| first < t.offset);
        let hides = |t: &&Arc<Tombstone>| t.tenant == *tenant && behind(t);
        Self {
            tombstones: all.iter().filter(hides).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tombstones.is_empty()
    }

    /// What is hidden of the series with these labels.
    pub(crate) fn of(&self, labels: &Labels) -> Hidden {
        if self.tombstones.is_empty() {
            return Hidden::default();
        }
        let meant = self
            .tombstones
            .iter()
            .filter(|t| t.delete.selects(labels))
            .map(|t| (t.delete.range.start.0, t.delete.range.end.0));
        Hidden::new(meant.collect())
    }
}

/// The time in which samples of one series are hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hidden {
    /// Both ends inside; disjoint, in order, with a gap between two.
    ranges: Box<[(i64, i64)]>,
}

impl Hidden {
    fn new(mut ranges: Vec<(i64, i64)>) -> Self {
        if active(MASK_IGNORES_RANGE) {
            ranges.fill((i64::MIN, i64::MAX));
        }
        ranges.retain(|(start, end)| start <= end);
        ranges.sort_unstable();
        ranges.dedup_by(|next, last| {
            let joined = next.0 <= last.1.saturating_add(1);
            if joined {
                last.1 = last.1.max(next.1);
            }
            joined
        });
        Self {
            ranges: ranges.into(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether nothing in `range` is left.
    pub(crate) fn covers(&self, range: TimeRange) -> bool {
        let (start, end) = (range.start.0, range.end.0);
        self.ranges.iter().any(|r| r.0 <= start && end <= r.1)
    }

    /// Whether something in `range` is hidden.
    pub(crate) fn overlaps(&self, range: TimeRange) -> bool {
        let (start, end) = (range.start.0, range.end.0);
        self.ranges.iter().any(|r| r.0 <= end && start <= r.1)
    }

    /// Whether the sample of `moment` is hidden.
    pub(crate) fn hides(&self, moment: i64) -> bool {
        self.ranges.iter().any(|r| r.0 <= moment && moment <= r.1)
    }

    /// Takes the hidden samples out of the columns from `from` on, which are in order of time.
    pub(crate) fn remove(&self, from: usize, timestamps: &mut Vec<i64>, values: &mut Vec<f64>) {
        // From the back, so that what is found in front of it stays where it is.
        for &(start, end) in self.ranges.iter().rev() {
            let first = from + timestamps[from..].partition_point(|&t| t < start);
            let behind = from + timestamps[from..].partition_point(|&t| t <= end);
            timestamps.drain(first..behind);
            values.drain(first..behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_time_is_joined_and_taken_out() {
        let hidden = Hidden::new(vec![(10, 20), (5, 3), (21, 30), (-5, -5), (15, 18)]);
        assert_eq!(&*hidden.ranges, [(-5, -5), (10, 30)]);
        assert!(hidden.covers(TimeRange::new(10, 30)));
        assert!(!hidden.covers(TimeRange::new(9, 30)));
        let mut timestamps = vec![12, -6, -5, 9, 10, 30, 31];
        let mut values: Vec<f64> = timestamps.iter().map(|&t| t as f64).collect();
        hidden.remove(1, &mut timestamps, &mut values);
        assert_eq!(timestamps, [12, -6, 9, 31], "the first is not of the run");
        assert_eq!(values, [12.0, -6.0, 9.0, 31.0]);
    }

    #[test]
    fn the_whole_time_line_is_one_range() {
        let hidden = Hidden::new(vec![(i64::MIN, i64::MAX), (0, 1)]);
        assert!(hidden.covers(TimeRange::ALL));
    }
}
