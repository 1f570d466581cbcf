//! Newtypes for the numbers that must never be mixed up.

use std::fmt;
use std::str::FromStr;

/// One lane of the queue, and the shard of the store that consumes it. Counts from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

impl PartitionId {
    /// The partition as an index into a per-partition vector.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record's position in one partition of the queue. The first record has offset 0.
///
/// As a watermark ("applied", "sealed", "synced") millrace always means the *next* offset:
/// everything below it is done, so a fresh partition stands at [`Offset::ZERO`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset of a partition's first record.
    pub const ZERO: Self = Self(0);

    /// The offset behind this one, or `None` when the 64 bits run out.
    #[must_use]
    pub fn checked_next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// The offset `count` records behind this one.
    ///
    /// # Panics
    ///
    /// If the 64 bits run out, which at a billion records a second takes 584 years.
    #[must_use]
    pub fn advanced(self, count: u64) -> Self {
        Self(
            self.0
                .checked_add(count)
                .expect("a queue offset outgrew 64 bits"),
        )
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The random identity that a queue is given when it is created. Positions of one queue mean
/// nothing in another, so every position that leaves the process carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u128);

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for QueueId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_id_survives_text() {
        let id = QueueId(0x00ab_cdef_0123);
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse::<QueueId>(), Ok(id));
        assert!("zz".parse::<QueueId>().is_err());
    }

    #[test]
    fn offset_ends_are_named() {
        assert_eq!(Offset(1).checked_next(), Some(Offset(2)));
        assert_eq!(Offset(u64::MAX).checked_next(), None);
    }
}
