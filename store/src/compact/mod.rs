//! Compaction: small and overlapping blocks of a shard become larger ones.
//!
//! ```text
//! plan (pure, over the manifest's entries) → job (reads, writes, syncs; any thread) → one manifest edit
//! ```
//!
//! Invariants:
//! - Of two values of one sample the one of the later seal is kept. Blocks that overlap in time never
//!   have seals that interleave: the plan takes whatever lies between along, or does nothing.
//! - Equal samples give equal sections, byte for byte, whatever the order in which they came: windows
//!   are aligned to the epoch, series are in their order, and what differs (offsets, time of
//!   writing) stands in the footer alone.
//! - A byte is written again at most [`REWRITES_MAX`] times by merges that start by themselves. What an
//!   operator asks for (a merge at once, a delete, a retention rule that takes part of a block) comes
//!   on top, and is counted by the same metrics.
//! - Memory: one series at a time, and the index of the block that is being written.

mod job;
mod pace;
mod plan;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use job::{CompactJob, Keep};
pub(crate) use pace::{Pace, PacedFs};
pub(crate) use plan::{Plan, PlanInput, plan};

/// How often a byte is written again at most.
pub(crate) const REWRITES_MAX: u8 = 4;

/// How blocks are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionOptions {
    /// Whether blocks are merged without being asked for.
    pub enabled: bool,
    /// Widths of the windows that blocks are merged to, rising, each a multiple of the one before and
    /// of the width of a sealed block; at most three.
    pub windows: Vec<Duration>,
    /// A window is merged when it ended this long ago: what comes later is late.
    pub delay: Duration,
    /// Blocks of one sealed window beyond which they are merged at once, because a reader looks into
    /// each of them; late blocks beyond which they join a merged one.
    pub overlap_max: usize,
    /// Bytes that a compaction writes in a second at the most; 0 stands for no bound.
    pub bytes_per_second: u64,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            windows: vec![
                Duration::from_secs(8 * 3600),
                Duration::from_secs(24 * 3600),
            ],
            // A shard with little to do seals as late as that.
            delay: Duration::from_secs(2 * 3600 + 600),
            overlap_max: 8,
            // A tenth of what a small disk takes.
            bytes_per_second: 32 << 20,
        }
    }
}

impl CompactionOptions {
    /// Widths in milliseconds, that of a sealed block first.
    pub(crate) fn widths_ms(&self, block_window_ms: i64) -> Vec<i64> {
        let ms = |width: &Duration| i64::try_from(width.as_millis()).unwrap_or(i64::MAX).max(1);
        std::iter::once(block_window_ms)
            .chain(self.windows.iter().map(ms))
            .collect()
    }

    /// What is wrong with the windows, if anything is.
    #[must_use]
    pub fn check(&self, block_window: Duration) -> Option<String> {
        if self.windows.len() > usize::from(REWRITES_MAX) - 1 {
            return Some(format!(
                "{} windows, at most {} keep a byte from being written too often",
                self.windows.len(),
                REWRITES_MAX - 1
            ));
        }
        let block = i64::try_from(block_window.as_millis()).unwrap_or(i64::MAX);
        let widths = self.widths_ms(block.max(1));
        let wrong = widths
            .windows(2)
            .find(|w| w[1] <= w[0] || w[1] % w[0] != 0)?;
        Some(format!(
            "a window of {} ms is no multiple of the one of {} ms before it",
            wrong[1], wrong[0]
        ))
    }
}
