//! What can be set, with its defaults.

use std::time::Duration;

use crate::block::BlockOptions;
use crate::block::rollup::{RESOLUTIONS_MAX, without_multiples};
use crate::compact::CompactionOptions;
use crate::retain::RetentionOptions;

/// When the WAL is synced. Acknowledged samples never depend on it: what the WAL loses is read
/// again from the queue. It decides how much is read again after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSync {
    /// Before the applied offset is published.
    Always,
    /// When this much time has passed since the last one.
    Interval(Duration),
    /// Only before a seal and at a clean stop.
    None,
}

/// Settings of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreOptions {
    /// When the WAL is synced.
    pub wal_sync: WalSync,
    /// Longest WAL segment, in bytes. Replay and removal work by segments.
    pub wal_segment_bytes: u64,
    /// A shard whose WAL outgrows this is sealed even if its memtable is small (a client that sends
    /// the same samples again and again fills the WAL, not the memtable), in bytes.
    pub wal_bytes_max: u64,
    /// Memory that the memtables of all shards may take together, those being sealed included, in
    /// bytes.
    pub memtable_bytes: u64,
    /// A memtable whose first sample came this long ago is sealed.
    pub memtable_max_age: Duration,
    /// Memory for pages of the blocks' indexes, in bytes: what was read and taken apart for one
    /// query need not be for the next.
    pub index_cache_bytes: u64,
    /// Width of a block's time window.
    pub block_window: Duration,
    /// Most blocks that one seal writes, at least 8. If its samples lie further apart, the oldest
    /// windows are made wider.
    pub blocks_per_seal_max: usize,
    /// Resolutions of the rollups that blocks are written with. At most
    /// [`RESOLUTIONS_MAX`](crate::block::rollup::RESOLUTIONS_MAX) of which none is a multiple of
    /// another; a multiple is folded from the finer one when it is read, and costs nothing.
    pub rollups: Vec<Duration>,
    /// About how many bytes of records one poll of the queue takes.
    pub poll_bytes: usize,
    /// Longest that a shard's thread waits for records before it looks at its other duties.
    pub poll_wait: Duration,
    /// A shard stops at the first record that cannot be applied after so many others of the last ten
    /// minutes.
    pub dead_letters_max: u64,
    /// Manifest edits are folded into a new generation when they take this many bytes.
    pub manifest_edit_bytes_max: u64,
    /// How blocks are merged.
    pub compaction: CompactionOptions,
    /// What is kept for how long.
    pub retention: RetentionOptions,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            wal_sync: WalSync::Interval(Duration::from_secs(1)),
            wal_segment_bytes: 64 << 20,
            wal_bytes_max: 512 << 20,
            // Half of it takes samples while the other half is sealed; a series with a few samples takes
            // some 450 bytes, so this is a million of them. It is taken only as it is needed.
            memtable_bytes: 1 << 30,
            memtable_max_age: Duration::from_secs(2 * 3600),
            index_cache_bytes: 64 << 20,
            block_window: Duration::from_secs(2 * 3600),
            // 5 days of 2-hour windows; beyond that, wider blocks serve as well.
            blocks_per_seal_max: 64,
            rollups: vec![Duration::from_secs(300), Duration::from_secs(3_600)],
            poll_bytes: 4 << 20,
            poll_wait: Duration::from_millis(100),
            dead_letters_max: 100,
            manifest_edit_bytes_max: 1 << 20,
            compaction: CompactionOptions::default(),
            retention: RetentionOptions::default(),
        }
    }
}

impl StoreOptions {
    /// How blocks with samples are written.
    #[must_use]
    pub fn block_options(&self) -> BlockOptions {
        BlockOptions {
            resolutions: self.rollups.iter().map(width_ms).collect(),
            without_samples: false,
        }
    }

    /// What is wrong with them, if anything is.
    #[must_use]
    pub fn check(&self) -> Option<String> {
        let widths: Vec<i64> = self.rollups.iter().map(width_ms).collect();
        let stored = without_multiples(&widths).len();
        if stored > RESOLUTIONS_MAX {
            return Some(format!(
                "rollups of {stored} widths of which none is a multiple of another, at most \
                 {RESOLUTIONS_MAX} can be stored"
            ));
        }
        let retention = self.retention.check(&self.rollups);
        self.compaction.check(self.block_window).or(retention)
    }

    /// The width of the widest rollups' buckets.
    pub(crate) fn coarsest_rollup_ms(&self) -> Option<i64> {
        self.rollups.iter().map(width_ms).max()
    }
}

fn width_ms(width: &Duration) -> i64 {
    i64::try_from(width.as_millis()).unwrap_or(i64::MAX).max(1)
}
