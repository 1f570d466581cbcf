//! Times that several series share: written once, referred to by their place.
//!
//! Series that are sampled together have equal timestamps (less the first one), and their buckets
//! equal times. Whoever comes first has them beside its values; whoever comes later refers to
//! them. So sharing costs neither a section of its own nor memory for what nobody shares.
//!
//! Invariant: what is referred to stands before what refers to it, and has a checksum of its own in
//! the page of the series that refers to it.

use std::sync::Arc;

use hashbrown::HashMap;
use millrace_log::planted::active;
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::planted::{TIMES_CACHE_BY_PLACE, TIMES_OF_ANOTHER};

/// A reference takes up to ten bytes of its page; shorter columns (a regular grid takes five)
/// are rather written again.
pub(super) const WORTH_SHARING: usize = 12;

/// Columns that are remembered while a block is written: twice as many at the most. Targets whose
/// series are further apart than that share nothing.
const REMEMBERED: usize = 1 << 16;

/// Where times are, with their checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimesEntry {
    /// In the file.
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) crc: u32,
}

impl TimesEntry {
    pub(super) fn at(offset: u64, times: &[u8]) -> Self {
        Self {
            offset,
            bytes: u32::try_from(times.len()).expect("times are far below 4 GiB"),
            crc: crc32c::crc32c(times),
        }
    }
}

/// Finds equal times while a block is written.
#[derive(Debug, Default)]
pub(super) struct SharedTimes {
    young: HashMap<u128, TimesEntry>,
    old: HashMap<u128, TimesEntry>,
}

impl SharedTimes {
    /// Where `times` stand already. If nowhere, the next ones that are equal will be told that they
    /// stand at `offset`. `kind` tells apart what is read differently: how many timestamps they
    /// are, for one.
    pub(super) fn find_or_note(
        &mut self,
        times: &[u8],
        kind: u64,
        offset: u64,
    ) -> Option<TimesEntry> {
        // 128 bits of a good hash: as with the identity of series, two do not meet.
        let key = if active(TIMES_OF_ANOTHER) {
            times.len() as u128
        } else {
            xxh3_128_with_seed(times, kind)
        };
        let known = self.young.get(&key).copied();
        let known = known.or_else(|| self.old.remove(&key));
        let entry = known.unwrap_or_else(|| TimesEntry::at(offset, times));
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
        known
    }
}

/// Columns that an open block remembers, each in the slot of its place.
const SLOTS: usize = 32;

/// Timestamps, less the first one.
type Relative = Arc<[i64]>;

/// Decoded timestamps that were referred to lately: at most some 8 KiB for each of [`SLOTS`].
#[derive(Debug, Default)]
pub(super) struct TimesCache {
    slots: [Mutex<Option<(u64, Relative)>>; SLOTS],
}

impl TimesCache {
    fn slot(&self, offset: u64) -> &Mutex<Option<(u64, Relative)>> {
        let mixed = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.slots[(mixed >> 59) as usize % SLOTS]
    }

    pub(super) fn get(&self, offset: u64, count: usize) -> Option<Relative> {
        let slot = self.slot(offset).lock();
        let (_, relative) = slot.as_ref().filter(|(at, relative)| {
            *at == offset && (relative.len() == count || active(TIMES_CACHE_BY_PLACE))
        })?;
        Some(Arc::clone(relative))
    }

    pub(super) fn put(&self, offset: u64, relative: Relative) {
        *self.slot(offset).lock() = Some((offset, relative));
    }
}
