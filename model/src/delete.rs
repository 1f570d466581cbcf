//! Deletes: what a tenant asks to be forgotten, as it goes through the queue.
//!
//! A delete is a record of the queue like any other, so a replay meets it where it stood: it hides
//! the samples that were applied before it, and none that come behind it.

use std::fmt;
use std::str::FromStr;

use crate::{Labels, Matcher, TimeRange, TimestampMs};

/// The random identity of a delete, by which it can be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeleteId(pub u128);

impl fmt::Display for DeleteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for DeleteId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Series and time that are to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Its identity.
    pub id: DeleteId,
    /// When it was asked for.
    pub requested_at: TimestampMs,
    /// Up to this moment, by the queue's time, it can be revoked; nothing is removed for good
    /// before.
    pub undo_until: TimestampMs,
    /// The time of the samples, both ends inside.
    pub range: TimeRange,
    /// The series: those that pass all matchers of one of these sets. No set is empty.
    pub selectors: Vec<Vec<Matcher>>,
}

impl Delete {
    /// Whether a series with these labels is meant.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        let passes = |set: &Vec<Matcher>| set.iter().all(|matcher| matcher.matches_labels(labels));
        self.selectors.iter().any(passes)
    }
}

/// One entry of a section of deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteEntry {
    /// To forget.
    Delete(Delete),
    /// To take a delete back.
    Revoke {
        /// Which one.
        id: DeleteId,
        /// When it was asked for.
        requested_at: TimestampMs,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_meant_if_it_passes_all_matchers_of_one_set() {
        let delete = Delete {
            id: DeleteId(7),
            requested_at: TimestampMs(0),
            undo_until: TimestampMs(0),
            range: TimeRange::ALL,
            selectors: vec![
                vec![Matcher::equal("a", "1"), Matcher::equal("b", "1")],
                vec![Matcher::equal("c", "")],
            ],
        };
        let check = |pairs: &[(&str, &str)], expect| {
            let labels = Labels::from_pairs(pairs.iter().copied()).unwrap();
            assert_eq!(delete.selects(&labels), expect, "{labels}");
        };
        check(&[("a", "1"), ("b", "1"), ("c", "x")], true);
        check(&[("a", "1"), ("b", "2"), ("c", "x")], false);
        check(&[("a", "2")], true);
    }

    #[test]
    fn an_identity_survives_text() {
        let id = DeleteId(0xab_cdef);
        assert_eq!(id.to_string().parse::<DeleteId>(), Ok(id));
        assert!("zz".parse::<DeleteId>().is_err());
    }
}
