//! The values of one label in memory.
//!
//! New series come far more often than somebody asks for values in order, so order is made when it
//! is asked for, of what came since, and kept.

use std::borrow::Cow;

use hashbrown::HashTable;
use parking_lot::{RwLock, RwLockWriteGuard};
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64;

use super::Postings;
use super::memory::{BITMAP_BYTES, ENTRY_BYTES};

/// Most values of a label that tells series apart (an address, a path) belong to few series or to
/// one, for which a bitmap is a waste.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// The only one.
    One(u32),
    /// Two and more.
    Many(Box<RoaringBitmap>),
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Values {
    /// In the order in which they came.
    entries: Vec<(Box<str>, Value)>,
    /// Numbers of the entries.
    lookup: HashTable<u32>,
    /// Numbers of the first entries, as many as this is long, in order of their texts.
    sorted: RwLock<Vec<u32>>,
}

impl Clone for Values {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            lookup: self.lookup.clone(),
            sorted: RwLock::new(self.sorted.read().clone()),
        }
    }
}

impl Values {
    /// Adds a series. The bytes that it took.
    pub(super) fn insert(&mut self, at: u32, text: &str) -> usize {
        let before = self.reserved_bytes();
        let hash = xxh3_64(text.as_bytes());
        let entries = &mut self.entries;
        let found = self
            .lookup
            .find(hash, |&number| &*entries[number as usize].0 == text);
        let added = match found {
            Some(&number) => entries[number as usize].1.push(at),
            None => {
                // As many as there are series at the most, which have 32 bits.
                let number = entries.len() as u32;
                if entries.len() == entries.capacity() && entries.len() >= 64 {
                    // Doubling would leave half of a million values empty.
                    entries.reserve_exact(entries.len() / 4);
                }
                entries.push((text.into(), Value::One(at)));
                let rehash = |&number: &u32| xxh3_64(entries[number as usize].0.as_bytes());
                self.lookup.insert_unique(hash, number, rehash);
                text.len()
            }
        };
        added + self.reserved_bytes() - before
    }

    pub(super) fn get(&self, text: &str) -> Option<&Value> {
        let hash = xxh3_64(text.as_bytes());
        let is = |&number: &u32| &*self.entries[number as usize].0 == text;
        let number = self.lookup.find(hash, is)?;
        Some(&self.entries[*number as usize].1)
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// In no special order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(text, value)| (&**text, value))
    }

    /// Hands over all values in order of their texts.
    pub(super) fn in_order<'a, R>(
        &'a self,
        with: impl FnOnce(&mut dyn Iterator<Item = (&'a str, &'a Value)>) -> R,
    ) -> R {
        self.with_prefix("", with)
    }

    /// Hands over the values that begin with `prefix` in order of their texts.
    pub(super) fn with_prefix<'a, R>(
        &'a self,
        prefix: &str,
        with: impl FnOnce(&mut dyn Iterator<Item = (&'a str, &'a Value)>) -> R,
    ) -> R {
        let mut sorted = self.sorted.read();
        if sorted.len() < self.entries.len() {
            drop(sorted);
            let mut unsorted = self.sorted.write();
            self.sort(&mut unsorted);
            sorted = RwLockWriteGuard::downgrade(unsorted);
        }
        let text = |number: &u32| &*self.entries[*number as usize].0;
        let from = sorted.partition_point(|number| text(number) < prefix);
        let behind = &sorted[from..];
        let to = behind.partition_point(|number| text(number).starts_with(prefix));
        let entry = |number: &u32| {
            let (text, value) = &self.entries[*number as usize];
            (&**text, value)
        };
        with(&mut behind[..to].iter().map(entry))
    }

    /// Sorts what came since the last time, and puts it in its places.
    fn sort(&self, sorted: &mut Vec<u32>) {
        // As many as there are series at the most, which have 32 bits.
        let all = self.entries.len() as u32;
        let known = sorted.len() as u32;
        if known == all {
            return;
        }
        let text = |number: u32| &*self.entries[number as usize].0;
        let fresh = self.in_order_of_texts(known..all);
        let old = std::mem::take(sorted);
        sorted.reserve_exact(all as usize);
        let mut rest = &old[..];
        for number in fresh {
            // Most of those that are there lie between two newcomers and are only copied.
            let (before, behind) = rest.split_at(gallop(rest, |&n| text(n) < text(number)));
            sorted.extend_from_slice(before);
            sorted.push(number);
            rest = behind;
        }
        sorted.extend_from_slice(rest);
    }

    fn in_order_of_texts(&self, numbers: std::ops::Range<u32>) -> impl Iterator<Item = u32> {
        let text = |number: u32| self.entries[number as usize].0.as_bytes();
        // The first bytes in which they differ stand beside the number: few comparisons have to
        // fetch the texts.
        let first = text(numbers.start);
        let shared = numbers.clone().fold(first.len(), |shared, number| {
            let pairs = first[..shared].iter().zip(text(number));
            pairs.take_while(|(a, b)| a == b).count()
        });
        let key = |number: u32| {
            let mut key = [0; 8];
            let behind = &text(number)[shared..];
            let len = behind.len().min(key.len());
            key[..len].copy_from_slice(&behind[..len]);
            (u64::from_be_bytes(key), number)
        };
        let mut keys: Vec<(u64, u32)> = numbers.map(key).collect();
        keys.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| text(a.1).cmp(text(b.1))));
        keys.into_iter().map(|(_, number)| number)
    }

    /// What the tables have reserved: of the lookup an eighth stays free, and each slot has a byte
    /// more. The order is counted as if it were there.
    fn reserved_bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<(Box<str>, Value)>() + size_of::<u32>())
            + self.lookup.capacity() * 8 / 7 * (size_of::<u32>() + 1)
    }
}

/// As [`slice::partition_point`], in steps that grow: cheap where the point is near.
fn gallop<T>(slice: &[T], before: impl Fn(&T) -> bool) -> usize {
    let mut known = 0;
    let mut step = 1;
    while let Some(item) = slice.get(known + step - 1) {
        if !before(item) {
            break;
        }
        known += step;
        step *= 2;
    }
    let end = slice.len().min(known + step);
    known + slice[known..end].partition_point(before)
}

impl Value {
    /// The bytes that it took.
    fn push(&mut self, at: u32) -> usize {
        match self {
            Self::One(first) => {
                let series = RoaringBitmap::from([*first, at]);
                *self = Self::Many(Box::new(series));
                BITMAP_BYTES + 2 * ENTRY_BYTES
            }
            Self::Many(series) => {
                series.insert(at);
                ENTRY_BYTES
            }
        }
    }

    pub(super) fn postings(&self) -> Postings<'_> {
        match self {
            Self::One(at) => Cow::Owned(RoaringBitmap::from([*at])),
            Self::Many(series) => Cow::Borrowed(series),
        }
    }

    /// Whether one of its series is in `of`.
    pub(super) fn meets(&self, of: &RoaringBitmap) -> bool {
        match self {
            Self::One(at) => of.contains(*at),
            Self::Many(series) => !series.is_disjoint(of),
        }
    }

    pub(super) fn add_to(&self, found: &mut RoaringBitmap) {
        match self {
            Self::One(at) => {
                found.insert(*at);
            }
            Self::Many(series) => *found |= &**series,
        }
    }

    /// The number of its series.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Many(series) => series.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Values, gallop};

    proptest! {
        #[test]
        fn values_come_in_order_however_they_arrived(
            runs in proptest::collection::vec(
                proptest::collection::vec("(pod-)?[ab\0]{0,12}", 1..12), 1..6),
        ) {
            let mut values = Values::default();
            let mut expect = std::collections::BTreeSet::new();
            for run in runs {
                for text in run {
                    values.insert(expect.len() as u32, &text);
                    expect.insert(text);
                }
                let got: Vec<_> = values.in_order(|v| v.map(|(t, _)| t.to_owned()).collect());
                prop_assert_eq!(&got, &expect.iter().cloned().collect::<Vec<_>>());
            }
        }

        #[test]
        fn galloping_finds_the_point(len in 0usize..40, point in 0usize..40) {
            let numbers: Vec<usize> = (0..len).collect();
            prop_assert_eq!(gallop(&numbers, |n| *n < point), len.min(point));
        }
    }
}
