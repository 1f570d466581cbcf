//! Which of two writes of one sample is right, where one of them was queued again.
//!
//! A sample that came with an ordinary record is never overridden by one of a record that was queued
//! again (a batch that carries its original position: a dead letter, a replay, a migration): at its
//! original place that record stood before, or it would have been applied then. Where no ordinary
//! record wrote the sample, the one that was queued again fills the gap; of several such, the one
//! later in the queue is right, since replays and migrations keep the order.
//!
//! To carry a position with each sample would cost more than the sample. So the two kinds live in
//! layers of their own: memtables and blocks are of one layer, a seal or compaction never mixes
//! them, and a read puts the ordinary layer over the other, whole.

/// A layer of samples; the later variant is read over the earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// Of records that were queued again.
    Requeued,
    /// Of all other records.
    Ordinary,
}

impl Layer {
    /// In the order in which they are read.
    pub(crate) const ALL: [Self; 2] = [Self::Requeued, Self::Ordinary];

    /// Its byte in the manifest.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ordinary => 0,
            Self::Requeued => 1,
        }
    }

    /// The layer of that byte.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.code() == code)
    }
}
