//! What this process knows of the series that it has seen.
//!
//! Invariants:
//! - An entry is derived from its key alone (raw bytes, the bounds of a series, the queue's identity),
//!   so losing or repeating one changes nothing but time. The epoch in which a series was last told to
//!   its tenant's count of active ones stands beside it; lost, it is told once more.
//! - Bytes are bounded by two generations: when the current one holds half the bound, it becomes
//!   the previous one, whose entries move over as they are used and are otherwise forgotten.
//! - Writers hold the lock for insertions only; nothing is parsed under it.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU16, Ordering};

use hashbrown::HashMap;
use millrace_model::{Labels, PartitionId, SeriesId, TenantId};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use prometheus::IntGauge;

use super::builder::BadSeries;
use super::hasher::{Key, KeyHasher, random_seed};
use crate::report::Reason;
use crate::tenants::Full;

/// What is known of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// It may be written.
    Good {
        id: SeriesId,
        partition: PartitionId,
        /// Canonical label bytes.
        labels: &'a [u8],
    },
    /// The rules drop it.
    Dropped,
    /// It is refused, whatever its samples are.
    Refused {
        reason: Reason,
        metric: &'a str,
        message: &'a str,
        value: Option<&'a str>,
        limit: Option<i64>,
    },
}

/// An owned [`Known`], made when a series is seen for the first time.
#[derive(Clone, Debug)]
pub(crate) enum Fresh {
    Good {
        id: SeriesId,
        partition: PartitionId,
        labels: Labels,
        /// The limit that it is beyond, so that it is not kept.
        full: Option<Full>,
    },
    Dropped,
    Refused {
        bad: BadSeries,
        metric: String,
    },
}

impl Fresh {
    /// Bytes of its labels or messages.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Good { labels, .. } => labels.canonical().len(),
            Self::Dropped => 0,
            Self::Refused { bad, metric } => {
                metric.len() + bad.message.len() + bad.value.as_ref().map_or(0, String::len)
            }
        }
    }

    /// Whether it is beyond a limit of its tenant.
    fn is_full(&self) -> bool {
        matches!(self, Self::Good { full: Some(_), .. })
    }

    pub(crate) fn known(&self) -> Known<'_> {
        match self {
            Self::Good {
                id,
                partition,
                labels,
                full: _,
            } => Known::Good {
                id: *id,
                partition: *partition,
                labels: labels.canonical(),
            },
            Self::Dropped => Known::Dropped,
            Self::Refused { bad, metric } => Known::Refused {
                reason: bad.reason,
                metric,
                message: &bad.message,
                value: bad.value.as_deref(),
                limit: bad.limit,
            },
        }
    }
}

/// The keys are uniform hashes already.
#[derive(Default)]
pub(crate) struct KeyIsHash(u64);

impl Hasher for KeyIsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

pub(crate) type KeyMap<V> = HashMap<Key, V, BuildHasherDefault<KeyIsHash>>;

/// The cache, shared by all decode threads.
#[derive(Debug)]
pub(crate) struct SeriesCache {
    seed: u64,
    max_bytes: usize,
    generations: RwLock<Generations>,
    bytes_gauge: IntGauge,
    series_gauge: IntGauge,
}

#[derive(Debug, Default)]
struct Generations {
    current: Generation,
    previous: Generation,
}

impl SeriesCache {
    /// Waiting readers get their turn after so many insertions, some 50 µs.
    const INSERTS_PER_LOCK: usize = 256;

    pub(crate) fn new(max_bytes: usize, bytes_gauge: IntGauge, series_gauge: IntGauge) -> Self {
        Self {
            seed: random_seed(),
            max_bytes,
            generations: RwLock::default(),
            bytes_gauge,
            series_gauge,
        }
    }

    /// A hasher for raw bytes of `tenant`, as written in `scope` (protocol, and whatever else
    /// decides what series the bytes mean).
    pub(crate) fn hasher(&self, tenant: &TenantId, scope: &[&str]) -> KeyHasher {
        KeyHasher::new(self.seed, tenant, scope)
    }

    pub(crate) fn read(&self) -> CacheReader<'_> {
        CacheReader {
            guard: self.generations.read(),
        }
    }

    /// Adds what a request found out, as told in the epoch `told` (0 for never), and keeps what it used
    /// of the previous generation. Both are empty afterwards.
    pub(crate) fn update(&self, fresh: &mut KeyMap<Fresh>, used: &mut Vec<Key>, told: u16) {
        if fresh.is_empty() && used.is_empty() {
            return;
        }
        let mut generations = self.generations.write();
        for (i, (key, entry)) in fresh.drain().enumerate() {
            if i % Self::INSERTS_PER_LOCK == Self::INSERTS_PER_LOCK - 1 {
                RwLockWriteGuard::bump(&mut generations);
            }
            if entry.is_full() {
                continue;
            }
            generations.make_room(self.max_bytes / 2);
            generations.current.insert(key, entry.known(), told);
        }
        for (i, key) in used.drain(..).enumerate() {
            if i % Self::INSERTS_PER_LOCK == Self::INSERTS_PER_LOCK - 1 {
                RwLockWriteGuard::bump(&mut generations);
            }
            generations.make_room(self.max_bytes / 2);
            let Generations { current, previous } = &mut *generations;
            // It may be gone, if making room has turned the generations over meanwhile.
            if let Some((known, told)) = previous.get(key) {
                current.insert(key, known, told);
            }
        }
        let bytes = generations.current.bytes() + generations.previous.bytes();
        let series = generations.current.slots.len() + generations.previous.slots.len();
        drop(generations);
        self.bytes_gauge
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.series_gauge
            .set(i64::try_from(series).unwrap_or(i64::MAX));
    }

    /// Notes that these series were told in the epoch `told`.
    pub(crate) fn note_told(&self, keys: &[Key], told: u16) {
        // Few at a time, so that whoever wants to write gets its turn.
        for some in keys.chunks(Self::INSERTS_PER_LOCK) {
            let generations = self.generations.read();
            for key in some {
                if let Some(slot) = generations.current.slots.get(key) {
                    slot.told.store(told, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Generations {
    fn make_room(&mut self, max_bytes: usize) {
        if self.current.bytes_after_insert() > max_bytes && !self.current.slots.is_empty() {
            self.previous = std::mem::take(&mut self.current);
        }
    }
}

/// A view of the cache, under the read lock. Kept over a few dozen series, not over a request: who
/// waits to write holds up those who want to read.
#[derive(Debug)]
pub(crate) struct CacheReader<'a> {
    guard: RwLockReadGuard<'a, Generations>,
}

/// An entry that was found. Good for the reader that found it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    id: SeriesId,
    at: ArenaAt,
    partition: u16,
    told: u16,
    only_previous: bool,
}

impl Found {
    #[inline]
    fn new(slot: &Slot, only_previous: bool) -> Self {
        Self {
            id: slot.id,
            at: slot.at,
            partition: slot.partition,
            told: slot.told.load(Ordering::Relaxed),
            only_previous,
        }
    }

    /// The epoch in which it was last told; 0 for never.
    #[inline]
    pub(crate) fn told(self) -> u16 {
        self.told
    }

    /// Whether it has to be moved to the current generation to stay.
    #[inline]
    pub(crate) fn only_previous(self) -> bool {
        self.only_previous
    }
}

impl CacheReader<'_> {
    #[inline]
    pub(crate) fn find(&self, key: Key) -> Option<Found> {
        let Generations { current, previous } = &*self.guard;
        if let Some(slot) = current.slots.get(&key) {
            return Some(Found::new(slot, false));
        }
        let slot = previous.slots.get(&key)?;
        Some(Found::new(slot, true))
    }

    /// Has the processor fetch the bytes of all that was found.
    #[inline]
    pub(crate) fn touch(&self, found: &[Option<Found>]) {
        const CACHE_LINE: usize = 64;
        let mut any = 0;
        for found in found.iter().flatten() {
            let bytes = self.bytes(*found);
            for line in bytes.chunks(CACHE_LINE) {
                any ^= line[line.len() - 1];
            }
        }
        std::hint::black_box(any);
    }

    /// What was found.
    #[inline]
    pub(crate) fn known(&self, found: Found) -> Known<'_> {
        known(found.id, found.partition, self.bytes(found))
    }

    #[inline]
    fn bytes(&self, found: Found) -> &[u8] {
        let generation = if found.only_previous {
            &self.guard.previous
        } else {
            &self.guard.current
        };
        generation.arena.get(found.at)
    }
}

#[derive(Debug, Default)]
struct Generation {
    slots: KeyMap<Slot>,
    arena: Arena,
}

/// 48 bytes with its key, next to the bytes in the arena.
#[derive(Debug)]
struct Slot {
    id: SeriesId,
    at: ArenaAt,
    /// [`Slot::REFUSED`], [`Slot::DROPPED`], or the partition.
    partition: u16,
    told: AtomicU16,
}

impl Slot {
    /// In place of a partition. One of that number, or above, is not kept in the cache.
    const REFUSED: u16 = u16::MAX;
    const DROPPED: u16 = u16::MAX - 1;
}

#[inline]
fn known(id: SeriesId, partition: u16, bytes: &[u8]) -> Known<'_> {
    if partition == Slot::REFUSED {
        return read_refusal(bytes);
    }
    if partition == Slot::DROPPED {
        return Known::Dropped;
    }
    Known::Good {
        id,
        partition: PartitionId(u32::from(partition)),
        labels: bytes,
    }
}

impl Generation {
    /// What is known, and the epoch in which it was told.
    fn get(&self, key: Key) -> Option<(Known<'_>, u16)> {
        let slot = self.slots.get(&key)?;
        let known = known(slot.id, slot.partition, self.arena.get(slot.at));
        Some((known, slot.told.load(Ordering::Relaxed)))
    }

    fn insert(&mut self, key: Key, known: Known<'_>, told: u16) {
        let slot = match known {
            Known::Good {
                id,
                partition,
                labels,
            } => {
                let partition = u16::try_from(partition.0).unwrap_or(Slot::REFUSED);
                if partition >= Slot::DROPPED {
                    return;
                }
                Slot {
                    id,
                    at: self.arena.push(&[labels]),
                    partition,
                    told: AtomicU16::new(told),
                }
            }
            Known::Dropped => Slot {
                id: SeriesId(0),
                at: self.arena.push(&[]),
                partition: Slot::DROPPED,
                told: AtomicU16::new(told),
            },
            Known::Refused {
                reason,
                metric,
                message,
                value,
                limit,
            } => {
                let len = |text: &str| {
                    let len = u32::try_from(text.len()).expect("names and excerpts are bounded");
                    len.to_le_bytes()
                };
                let flags = u8::from(value.is_some()) | u8::from(limit.is_some()) << 1;
                let value = value.unwrap_or_default();
                Slot {
                    id: SeriesId(0),
                    at: self.arena.push(&[
                        &[reason.index() as u8, flags],
                        &limit.unwrap_or_default().to_le_bytes(),
                        &len(metric),
                        &len(value),
                        metric.as_bytes(),
                        value.as_bytes(),
                        message.as_bytes(),
                    ]),
                    partition: Slot::REFUSED,
                    told: AtomicU16::new(told),
                }
            }
        };
        self.slots.insert(key, slot);
    }

    fn bytes(&self) -> usize {
        Self::slot_bytes(self.slots.capacity()) + self.arena.bytes
    }

    fn bytes_after_insert(&self) -> usize {
        let mut capacity = self.slots.capacity();
        if capacity == self.slots.len() {
            capacity *= 2;
        }
        Self::slot_bytes(capacity) + self.arena.bytes
    }

    fn slot_bytes(capacity: usize) -> usize {
        // One control byte a slot, and an eighth of the slots stays free.
        capacity * (size_of::<(Key, Slot)>() + 1) / 7 * 8
    }
}

fn read_refusal(bytes: &[u8]) -> Known<'_> {
    const IN: &str = "it went in so";
    let (&[reason, flags], rest) = bytes.split_first_chunk().expect(IN);
    let (&limit, rest) = rest.split_first_chunk().expect(IN);
    let (&metric_len, rest) = rest.split_first_chunk().expect(IN);
    let (&value_len, rest) = rest.split_first_chunk().expect(IN);
    let (metric, rest) = rest.split_at(u32::from_le_bytes(metric_len) as usize);
    let (value, message) = rest.split_at(u32::from_le_bytes(value_len) as usize);
    let text = |bytes| std::str::from_utf8(bytes).expect("it went in as a string");
    Known::Refused {
        reason: Reason::ALL[usize::from(reason)],
        metric: text(metric),
        message: text(message),
        value: (flags & 1 != 0).then(|| text(value)),
        limit: (flags & 2 != 0).then(|| i64::from_le_bytes(limit)),
    }
}

/// Bytes that are only ever added, in chunks, so that growing copies nothing under the lock.
#[derive(Debug, Default)]
struct Arena {
    chunks: Vec<Vec<u8>>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct ArenaAt {
    chunk: u32,
    start: u32,
    len: u32,
}

impl Arena {
    const CHUNK_BYTES: usize = 256 << 10;

    fn push(&mut self, parts: &[&[u8]]) -> ArenaAt {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let fits = |chunk: &Vec<u8>| chunk.capacity() - chunk.len() >= len;
        if !self.chunks.last().is_some_and(fits) {
            let capacity = len.max(Self::CHUNK_BYTES);
            self.chunks.push(Vec::with_capacity(capacity));
            self.bytes += capacity;
        }
        let index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[index];
        let at = ArenaAt {
            chunk: u32::try_from(index).expect("fewer than 2^32 chunks fit any memory"),
            start: u32::try_from(chunk.len()).expect("chunks are shorter than 4 GiB"),
            len: u32::try_from(len).expect("labels are bounded far below 4 GiB"),
        };
        for part in parts {
            chunk.extend_from_slice(part);
        }
        at
    }

    #[inline]
    fn get(&self, at: ArenaAt) -> &[u8] {
        let start = at.start as usize;
        &self.chunks[at.chunk as usize][start..start + at.len as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(max_bytes: usize) -> SeriesCache {
        let gauge = || IntGauge::new("g", "g").unwrap();
        SeriesCache::new(max_bytes, gauge(), gauge())
    }

    fn good(n: u32) -> Fresh {
        Fresh::Good {
            id: SeriesId(u128::from(n)),
            partition: PartitionId(n % 7),
            labels: Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())]).unwrap(),
            full: None,
        }
    }

    fn key(n: u32) -> Key {
        u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn insert(cache: &SeriesCache, entries: impl IntoIterator<Item = (Key, Fresh)>) {
        cache.update(&mut entries.into_iter().collect(), &mut Vec::new(), 7);
    }

    #[test]
    fn what_went_in_comes_out() {
        let cache = cache(64 << 20);
        let refused = Fresh::Refused {
            bad: BadSeries::new(Reason::TooManyLabels, "far too many")
                .value(b"x")
                .limit(3),
            metric: "m".to_owned(),
        };
        insert(&cache, (0..10_000).map(|n| (key(n), good(n))));
        insert(&cache, [(key(10_000), refused.clone())]);
        let reader = cache.read();
        let get = |n| reader.find(key(n)).map(|found| reader.known(found));
        for n in 0..10_000 {
            assert_eq!(get(n), Some(good(n).known()));
        }
        assert_eq!(get(10_000), Some(refused.known()));
        assert_eq!(get(10_001), None);
    }

    #[test]
    fn a_series_beyond_a_limit_is_not_kept_and_others_know_when_they_were_told() {
        let cache = cache(64 << 20);
        let full = match good(1) {
            Fresh::Good {
                id,
                partition,
                labels,
                ..
            } => Fresh::Good {
                id,
                partition,
                labels,
                full: Some(Full::Active),
            },
            Fresh::Dropped | Fresh::Refused { .. } => unreachable!(),
        };
        insert(&cache, [(key(0), good(0)), (key(1), full)]);
        assert!(cache.read().find(key(1)).is_none());
        let told = || cache.read().find(key(0)).map(Found::told);
        assert_eq!(told(), Some(7));
        cache.note_told(&[key(0), key(1)], 8);
        assert_eq!(told(), Some(8));
    }

    #[test]
    fn bytes_stay_bounded_and_what_is_used_stays() {
        let max_bytes = 4 << 20;
        let cache = cache(max_bytes);
        insert(&cache, [(key(0), good(0))]);
        for round in 0..2_000u32 {
            let first = 1 + round * 100;
            insert(&cache, (first..first + 100).map(|n| (key(n), good(n))));
            let found = cache.read().find(key(0)).expect("used each round");
            let mut promote = if found.only_previous() {
                vec![key(0)]
            } else {
                vec![]
            };
            cache.update(&mut KeyMap::default(), &mut promote, 9);
            let told = cache.read().find(key(0)).map(Found::told);
            assert_eq!(told, Some(7), "moving it tells nobody");
            let bytes = usize::try_from(cache.bytes_gauge.get()).unwrap();
            // Half a generation's growth and one arena chunk on top at most.
            assert!(bytes <= max_bytes + (512 << 10), "round {round}: {bytes}");
        }
        assert!(
            cache.read().find(key(1)).is_none(),
            "the oldest is forgotten"
        );
        assert!(cache.series_gauge.get() > 5_000);
    }
}
