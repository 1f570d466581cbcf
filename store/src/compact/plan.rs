//! What to merge next: a pure function of what the manifest says.

use std::collections::BTreeMap;

use millrace_log::planted::active;
use millrace_model::TimestampMs;

use super::{CompactionOptions, REWRITES_MAX};
use crate::manifest::BlockEntry;
use crate::paths::BlockId;
use crate::planted::{COMPACTION_INTERLEAVES, COMPACTION_JOINS_OVER_DELETE};

/// Inputs of one job at the most: each keeps a page of series in memory.
const INPUTS_MAX: usize = 64;

/// What a plan is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanInput<'a> {
    /// All live blocks.
    pub(crate) blocks: &'a [BlockEntry],
    /// Those of them that have only rollups. They are not merged, and nothing is merged over them.
    pub(crate) bare: &'a [BlockId],
    /// Deletes that can still be revoked: the first seal behind, first and last moment.
    pub(crate) pending: &'a [(u64, i64, i64)],
    pub(crate) options: &'a CompactionOptions,
    pub(crate) block_window_ms: i64,
    pub(crate) now: TimestampMs,
    /// Merge all that can be, whatever it costs and however young it is.
    pub(crate) force: bool,
}

/// Blocks that become one for each window of `width_ms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) inputs: Vec<BlockId>,
    pub(crate) width_ms: i64,
    pub(crate) level: u8,
    pub(crate) rewrites: u8,
}

/// The next merge, if there is one that is worth it.
pub(crate) fn plan(input: &PlanInput<'_>) -> Option<Plan> {
    let widths = input.options.widths_ms(input.block_window_ms);
    for (level, &width_ms) in (0u8..).zip(&widths) {
        let top = usize::from(level) + 1 == widths.len();
        for (start, of_window) in by_window(input.blocks, width_ms) {
            let closed = start
                .saturating_add(width_ms - 1)
                .saturating_add(millis(input.options.delay))
                < input.now.0;
            let chosen = choose(input, &of_window, level, top, closed);
            let Some(plan) = chosen.and_then(|c| complete(input, c, level, top, width_ms, 2))
            else {
                continue;
            };
            return Some(plan);
        }
    }
    wide(input, &widths)
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The blocks that lie wholly in one window, by its start.
fn by_window(blocks: &[BlockEntry], width_ms: i64) -> BTreeMap<i64, Vec<&BlockEntry>> {
    let mut windows: BTreeMap<i64, Vec<&BlockEntry>> = BTreeMap::new();
    for block in blocks {
        let start = |moment| TimestampMs(moment).window_start(width_ms).0;
        let window = start(block.min_time);
        if window == start(block.max_time) {
            windows.entry(window).or_default().push(block);
        }
    }
    windows
}

/// How often the inputs of a merge to `level` may have been written again before.
fn rewrites_before(level: u8, top: bool) -> u8 {
    if top { REWRITES_MAX - 1 } else { level }
}

/// Which blocks of a window to merge.
fn choose<'a>(
    input: &PlanInput<'_>,
    of_window: &[&'a BlockEntry],
    level: u8,
    top: bool,
    closed: bool,
) -> Option<Vec<&'a BlockEntry>> {
    let all: Vec<_> = of_window
        .iter()
        .copied()
        .filter(|b| b.level <= level && !input.bare.contains(&b.id))
        .collect();
    if all.len() < 2 {
        return None;
    }
    if input.force {
        return Some(all);
    }
    let allowed = |b: &&BlockEntry| b.rewrites <= rewrites_before(level, top);
    let many = input.options.overlap_max.max(2);
    if level == 0 {
        let fresh: Vec<_> = all.into_iter().filter(allowed).collect();
        return (fresh.len() >= many).then_some(fresh);
    }
    if !closed {
        return None;
    }
    let (fresh, merged): (Vec<_>, Vec<_>) = all.into_iter().partition(|b| b.level < level);
    if merged.is_empty() {
        return fresh.iter().all(allowed).then_some(fresh);
    }
    // Late arrivals: worth it when they are many, or much.
    let bytes = |of: &[&BlockEntry]| of.iter().map(|b| b.bytes).sum::<u64>();
    let due = fresh.len() >= many || bytes(&fresh) * 4 >= bytes(&merged);
    if fresh.is_empty() || !due {
        return None;
    }
    let both: Vec<_> = fresh.iter().chain(&merged).copied().collect();
    if both.iter().all(allowed) {
        return Some(both);
    }
    let fresh: Vec<_> = fresh.into_iter().filter(allowed).collect();
    (fresh.len() >= many).then_some(fresh)
}

/// Takes along what lies between the chosen blocks, or gives up.
fn complete(
    input: &PlanInput<'_>,
    mut chosen: Vec<&BlockEntry>,
    level: u8,
    top: bool,
    width_ms: i64,
    least: usize,
) -> Option<Plan> {
    // The oldest first, and no more than a job takes; those that are left come with the next.
    chosen.sort_by_key(|b| (b.sequences, b.id));
    chosen.truncate(INPUTS_MAX);
    let mut inputs: Vec<BlockEntry> = chosen.into_iter().cloned().collect();
    while let Some(between) = find_between(&inputs, input.blocks) {
        if active(COMPACTION_INTERLEAVES) {
            break;
        }
        let allowed = input.force || between.rewrites <= rewrites_before(level, top);
        if !allowed || inputs.len() >= 2 * INPUTS_MAX {
            return None;
        }
        inputs.push(between.clone());
    }
    let bare = |block: &BlockEntry| input.bare.contains(&block.id);
    if inputs.len() < least || inputs.iter().any(bare) || crosses_pending(&inputs, input.pending) {
        return None;
    }
    let rewrites = inputs.iter().map(|b| b.rewrites).max().unwrap_or(0);
    let wider = inputs.iter().map(|b| b.level).max().unwrap_or(0);
    Some(Plan {
        inputs: inputs.iter().map(|b| b.id).collect(),
        width_ms,
        level: level.max(wider),
        rewrites: rewrites.saturating_add(1),
    })
}

/// The time that the blocks span.
fn hull(blocks: &[BlockEntry]) -> (i64, i64) {
    let min = blocks.iter().map(|b| b.min_time).min().unwrap_or(i64::MAX);
    let max = blocks.iter().map(|b| b.max_time).max().unwrap_or(i64::MIN);
    (min, max)
}

/// A block that overlaps the inputs in time, and whose seals are neither all before nor all behind
/// theirs: without it the merged block would be neither older nor newer than it.
fn find_between<'a>(inputs: &[BlockEntry], all: &'a [BlockEntry]) -> Option<&'a BlockEntry> {
    let (start, end) = hull(inputs);
    let first = inputs.iter().map(|b| b.sequences.0).min()?;
    let last = inputs.iter().map(|b| b.sequences.1).max()?;
    all.iter().find(|b| {
        let overlaps = b.min_time <= end && start <= b.max_time;
        let between = b.sequences.0 <= last && first <= b.sequences.1;
        overlaps && between && inputs.iter().all(|i| i.id != b.id)
    })
}

/// Whether a delete that can still be revoked stands between the inputs: what is behind it would come
/// under it, or what is before it would be free of it.
fn crosses_pending(inputs: &[BlockEntry], pending: &[(u64, i64, i64)]) -> bool {
    if active(COMPACTION_JOINS_OVER_DELETE) {
        return false;
    }
    let (start, end) = hull(inputs);
    pending.iter().any(|&(before, from, to)| {
        let hidden = |b: &BlockEntry| b.sequences.1 < before;
        let concerned = from <= end && start <= to;
        concerned && inputs.iter().any(hidden) && !inputs.iter().all(hidden)
    })
}

/// Blocks that lie in no window (their samples are far apart) are merged when they have become many;
/// that cuts them at the windows' ends. By force, each of them is, with all that it overlaps.
fn wide(input: &PlanInput<'_>, widths: &[i64]) -> Option<Plan> {
    let top_width = *widths.last()?;
    let level = u8::try_from(widths.len() - 1).unwrap_or(u8::MAX);
    let start = |moment| TimestampMs(moment).window_start(top_width).0;
    // Those that cannot be cut any further come out of a merge as wide as they went in.
    let is_wide = |b: &&BlockEntry| {
        let wide = start(b.min_time) != start(b.max_time) && b.level < level;
        wide && !input.bare.contains(&b.id)
    };
    let mut chosen = input.blocks.iter().filter(is_wide);
    if input.force {
        let first = chosen.next()?;
        let overlaps =
            |b: &&BlockEntry| b.min_time <= first.max_time && first.min_time <= b.max_time;
        let with = input.blocks.iter().filter(overlaps).collect();
        return complete(input, with, level, true, top_width, 1);
    }
    let chosen: Vec<_> = chosen.filter(|b| b.rewrites < REWRITES_MAX).collect();
    if chosen.len() < input.options.overlap_max.max(2) {
        return None;
    }
    complete(input, chosen, level, true, top_width, 2)
}
