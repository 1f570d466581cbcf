//! Pages of the blocks' indexes in memory: read, verified and taken apart once.
//!
//! A dashboard asks for the same few series again and again, and what it costs to find them is
//! mostly reading and checking the same pages. One cache serves all blocks of a store, so its bound
//! is the store's.
//!
//! Invariants:
//! - What is here was verified when it was read. Who looks for damage reads the file.
//! - A block's number is never given to another one, so nobody has to be told that a block is gone:
//!   its pages are forgotten like others that nobody asks for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use millrace_model::{Labels, SeriesHasher, SeriesId, TimeRange};
use parking_lot::Mutex;
use roaring::RoaringBitmap;

use super::series::{SeriesPage, Symbols};
use super::{ChunkEntry, RollupEntry};

/// Parts with a lock each, so that threads seldom wait for one another.
const PARTS: usize = 16;

/// About what an entry takes beside its content.
const ENTRY_BYTES: usize = 96;

/// A block's number and a place in its file.
type Key = (u64, u64);

/// The pages that all blocks of a store keep in memory.
#[derive(Debug)]
pub struct PageCache {
    parts: [Mutex<Part>; PARTS],
    /// Of one generation of one part.
    bytes_max: usize,
}

/// Two generations: who is asked for again lives on in the young one. When that is full it becomes
/// the old one, whose pages nobody has asked for meanwhile go.
#[derive(Debug, Default)]
struct Part {
    young: HashMap<Key, Page>,
    young_bytes: usize,
    old: HashMap<Key, Page>,
}

/// What was made of a page.
#[derive(Clone, Debug)]
pub(super) enum Page {
    /// Its bytes.
    Bytes(Arc<[u8]>),
    /// A bitmap of postings.
    Bitmap(Arc<RoaringBitmap>, usize),
    /// A page of series.
    Series(Arc<SeriesSet>),
}

impl Page {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Bytes(bytes) => bytes.len(),
                Self::Bitmap(_, bytes) => *bytes,
                Self::Series(set) => set.bytes_max,
            }
    }
}

impl PageCache {
    /// A cache of at most about `bytes_max`; one of 0 keeps nothing.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self {
            parts: Default::default(),
            bytes_max: bytes_max / PARTS / 2,
        }
    }

    /// A number for a block.
    pub(super) fn block_number() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    fn part(&self, key: Key) -> &Mutex<Part> {
        let mixed = (key.1 ^ key.0.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.parts[(mixed >> 60) as usize % PARTS]
    }

    pub(super) fn get(&self, key: Key) -> Option<Page> {
        if self.bytes_max == 0 {
            return None;
        }
        let mut part = self.part(key).lock();
        if let Some(page) = part.young.get(&key) {
            return Some(page.clone());
        }
        let page = part.old.remove(&key)?;
        part.put(key, page.clone(), self.bytes_max);
        Some(page)
    }

    pub(super) fn put(&self, key: Key, page: Page) {
        if self.bytes_max > 0 {
            self.part(key).lock().put(key, page, self.bytes_max);
        }
    }
}

impl Part {
    fn put(&mut self, key: Key, page: Page, bytes_max: usize) {
        let bytes = page.bytes();
        if self.young_bytes + bytes > bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if bytes > bytes_max {
            return;
        }
        self.young_bytes += bytes;
        if let Some(before) = self.young.insert(key, page) {
            self.young_bytes -= before.bytes();
        }
    }
}

/// The series of a page, taken apart. Identities and label sets are made for those that are asked
/// for.
#[derive(Debug)]
pub(super) struct SeriesSet {
    symbols: Symbols,
    series: Vec<SetEntry>,
    /// Numbers of label pairs, series by series.
    pairs: Vec<u32>,
    chunks: Vec<ChunkEntry>,
    /// Equally many of each series.
    rollups: Vec<RollupEntry>,
    /// With all label sets.
    bytes_max: usize,
}

#[derive(Debug)]
struct SetEntry {
    range: TimeRange,
    /// Where its pairs and chunks end; they begin where those of the one before end.
    pairs_end: usize,
    chunks_end: usize,
    id: OnceLock<SeriesId>,
    labels: OnceLock<Labels>,
}

impl SeriesSet {
    pub(super) fn new() -> Self {
        Self {
            symbols: Symbols::default(),
            series: Vec::new(),
            pairs: Vec::new(),
            chunks: Vec::new(),
            rollups: Vec::new(),
            bytes_max: 0,
        }
    }

    /// Adds the series that `page` was moved to.
    pub(super) fn push(&mut self, page: &SeriesPage<'_>) {
        if self.series.is_empty() {
            self.symbols = page.symbols().clone();
        }
        self.chunks.extend_from_slice(page.chunks());
        self.rollups.extend_from_slice(page.rollups());
        // Fewer than the bytes of a page.
        self.pairs.extend(page.pairs().iter().map(|&at| at as u32));
        self.series.push(SetEntry {
            range: page.range(),
            pairs_end: self.pairs.len(),
            chunks_end: self.chunks.len(),
            id: OnceLock::new(),
            labels: OnceLock::new(),
        });
    }

    /// Says that there are no more.
    pub(super) fn finish(mut self) -> Self {
        let label_bytes: usize = self
            .pairs
            .iter()
            .map(|&pair| self.symbols.get(pair as usize).len())
            .sum();
        self.bytes_max = size_of::<Self>()
            + self.symbols.heap_bytes()
            + self.series.capacity() * (size_of::<SetEntry>() + 2 * size_of::<usize>())
            + self.pairs.capacity() * size_of::<u32>()
            + self.chunks.capacity() * size_of::<ChunkEntry>()
            + self.rollups.capacity() * size_of::<RollupEntry>()
            + label_bytes;
        self
    }

    /// First and last timestamp of the series number `at` of the page.
    pub(super) fn range(&self, at: usize) -> TimeRange {
        self.series[at].range
    }

    /// Its chunks.
    pub(super) fn chunks(&self, at: usize) -> &[ChunkEntry] {
        let before = at.checked_sub(1).map(|before| &self.series[before]);
        let start = before.map_or(0, |before| before.chunks_end);
        &self.chunks[start..self.series[at].chunks_end]
    }

    /// Its rollups, one for each resolution of the block.
    pub(super) fn rollups(&self, at: usize) -> &[RollupEntry] {
        let each = self.rollups.len() / self.series.len();
        &self.rollups[at * each..(at + 1) * each]
    }

    /// Whether it may have samples, or had some, in `range`.
    pub(super) fn overlaps(&self, at: usize, range: TimeRange) -> bool {
        let chunks = self.chunks(at);
        if chunks.is_empty() {
            return self.range(at).overlaps(range);
        }
        let overlaps = |c: &ChunkEntry| TimeRange::new(c.first, c.last).overlaps(range);
        chunks.iter().any(overlaps)
    }

    /// Its identity; `canonical` is memory to work in.
    pub(super) fn id(&self, at: usize, hasher: SeriesHasher, canonical: &mut Vec<u8>) -> SeriesId {
        let make = || {
            self.canonical(at, canonical);
            hasher.id_of_canonical(canonical)
        };
        *self.series[at].id.get_or_init(make)
    }

    /// Its labels; `None` if they break the format.
    pub(super) fn labels(&self, at: usize, canonical: &mut Vec<u8>) -> Option<&Labels> {
        let place = &self.series[at].labels;
        if let Some(labels) = place.get() {
            return Some(labels);
        }
        self.canonical(at, canonical);
        let labels = Labels::from_canonical(canonical).ok()?;
        Some(place.get_or_init(|| labels))
    }

    fn canonical(&self, at: usize, out: &mut Vec<u8>) {
        out.clear();
        let before = at.checked_sub(1).map(|before| &self.series[before]);
        let start = before.map_or(0, |before| before.pairs_end);
        for &pair in &self.pairs[start..self.series[at].pairs_end] {
            out.extend_from_slice(self.symbols.get(pair as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Page {
        Page::Bytes(vec![0; len].into())
    }

    #[test]
    fn what_is_asked_for_again_stays_and_the_rest_goes() {
        let cache = PageCache::new(2 * PARTS as u64 * 10_000);
        let wanted = (1, 0);
        cache.put(wanted, bytes(1_000));
        for other in 1..10_000 {
            cache.put((1, other), bytes(1_000));
            assert!(cache.get(wanted).is_some(), "after {other}");
        }
        let held = (0..10_000).filter(|&at| cache.get((1, at)).is_some());
        let held = held.count();
        assert!((PARTS..=PARTS * 20).contains(&held), "{held} pages");
    }

    #[test]
    fn pages_of_two_blocks_at_one_place_are_two() {
        let cache = PageCache::new(1 << 20);
        cache.put((1, 7), bytes(1));
        cache.put((2, 7), bytes(2));
        let len = |block| match cache.get((block, 7)) {
            Some(Page::Bytes(bytes)) => bytes.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!((len(1), len(2)), (1, 2));
    }

    #[test]
    fn a_cache_of_nothing_and_a_page_over_the_bound_keep_nothing() {
        let none = PageCache::new(0);
        none.put((1, 1), bytes(1));
        assert!(none.get((1, 1)).is_none());
        let small = PageCache::new(2 * PARTS as u64 * 100);
        small.put((1, 1), bytes(101));
        assert!(small.get((1, 1)).is_none());
    }
}
