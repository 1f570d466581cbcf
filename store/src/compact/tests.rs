//! The planner on its own, by simulation.

use std::time::Duration;

use millrace_model::{Offset, TimestampMs};
use proptest::prelude::*;

use super::*;
use crate::manifest::BlockEntry;
use crate::paths::BlockId;

const HOUR: i64 = 3_600_000;

fn entry(sequence: u64, ordinal: u32, min_time: i64, max_time: i64) -> BlockEntry {
    BlockEntry {
        layer: crate::layer::Layer::Ordinary,
        id: BlockId { sequence, ordinal },
        bytes: 1_000,
        footer_crc: 0,
        min_time,
        max_time,
        offsets: (Offset(sequence), Offset(sequence + 1)),
        series: 1,
        samples: 10,
        sequences: (sequence, sequence),
        level: 0,
        rewrites: 0,
    }
}

fn next(blocks: &[BlockEntry], pending: &[(u64, i64, i64)], now: i64, force: bool) -> Option<Plan> {
    plan(&PlanInput {
        blocks,
        bare: &[],
        pending,
        options: &CompactionOptions::default(),
        block_window_ms: 2 * HOUR,
        now: TimestampMs(now),
        force,
    })
}

/// Does to the entries what a job would.
fn merge(blocks: &mut Vec<BlockEntry>, plan: &Plan, sequence: u64) {
    let goes = |b: &BlockEntry| plan.inputs.contains(&b.id);
    let inputs: Vec<_> = blocks.iter().filter(|b| goes(b)).cloned().collect();
    blocks.retain(|b| !goes(b));
    let start = |t: i64| TimestampMs(t).window_start(plan.width_ms).0;
    let mut windows: Vec<i64> = inputs
        .iter()
        .flat_map(|b| [start(b.min_time), start(b.max_time)])
        .collect();
    windows.sort_unstable();
    windows.dedup();
    for (ordinal, window) in (0..).zip(windows) {
        let end = window + plan.width_ms - 1;
        let of = || {
            inputs
                .iter()
                .filter(|b| b.min_time <= end && window <= b.max_time)
        };
        blocks.push(BlockEntry {
            min_time: of().map(|b| b.min_time.max(window)).min().unwrap(),
            max_time: of().map(|b| b.max_time.min(end)).max().unwrap(),
            bytes: of().map(|b| b.bytes).sum(),
            sequences: (
                inputs.iter().map(|b| b.sequences.0).min().unwrap(),
                inputs.iter().map(|b| b.sequences.1).max().unwrap(),
            ),
            offsets: (
                inputs.iter().map(|b| b.offsets.0).min().unwrap(),
                inputs.iter().map(|b| b.offsets.1).max().unwrap(),
            ),
            level: plan.level,
            rewrites: plan.rewrites,
            ..entry(sequence, ordinal, 0, 0)
        });
    }
}

fn never_interleave(blocks: &[BlockEntry]) -> Result<(), String> {
    for (i, a) in blocks.iter().enumerate() {
        for b in &blocks[i + 1..] {
            let overlap = a.min_time <= b.max_time && b.min_time <= a.max_time;
            let apart = a.sequences.1 < b.sequences.0 || b.sequences.1 < a.sequences.0;
            if overlap && !apart {
                return Err(format!("{a:?} and {b:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn a_day_in_order_is_written_twice_again() {
    let mut blocks: Vec<_> = (0..12)
        .map(|i| entry(i + 1, 0, i as i64 * 2 * HOUR, (i as i64 + 1) * 2 * HOUR - 1))
        .collect();
    let mut sequence = 100;
    while let Some(plan) = next(&blocks, &[], 30 * HOUR, false) {
        merge(&mut blocks, &plan, sequence);
        sequence += 1;
    }
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    assert_eq!((blocks[0].level, blocks[0].rewrites), (2, 2));
}

#[test]
fn an_open_window_is_left_alone() {
    let blocks = [entry(1, 0, 0, HOUR), entry(2, 0, 2 * HOUR, 3 * HOUR)];
    assert_eq!(next(&blocks, &[], 8 * HOUR, false), None);
    assert!(next(&blocks, &[], 11 * HOUR, false).is_some());
    assert!(next(&blocks, &[], 0, true).is_some());
}

#[test]
fn a_little_that_comes_late_does_not_rewrite_a_day() {
    let day = BlockEntry {
        level: 2,
        rewrites: 2,
        bytes: 100_000,
        ..entry(12, 0, 0, 24 * HOUR - 1)
    };
    let mut blocks = vec![day];
    for i in 0..7 {
        blocks.push(entry(20 + i, 0, 3 * HOUR, 4 * HOUR));
        let next = next(&blocks, &[], 300 * HOUR, false);
        let inputs = next.map_or(0, |p| p.inputs.len());
        assert!(inputs == 0 || !next_has_day(&blocks), "{blocks:?}");
        if let Some(plan) = self::next(&blocks, &[], 300 * HOUR, false) {
            assert!(!plan.inputs.contains(&blocks[0].id), "{plan:?}");
        }
    }
}

fn next_has_day(blocks: &[BlockEntry]) -> bool {
    next(blocks, &[], 300 * HOUR, false).is_some_and(|p| p.inputs.contains(&blocks[0].id))
}

#[test]
fn what_lies_between_comes_along() {
    // The wide block is younger than the first and older than the third.
    let blocks = [
        entry(1, 0, 0, HOUR),
        entry(2, 0, -50 * HOUR, 50 * HOUR),
        entry(3, 0, 2 * HOUR, 3 * HOUR),
    ];
    let plan = next(&blocks, &[], 100 * HOUR, false).unwrap();
    assert_eq!(plan.inputs.len(), 3, "{plan:?}");
}

#[test]
fn passing_over_what_lies_between_is_killed() {
    use millrace_log::planted::with;
    let outcome = with(crate::planted::COMPACTION_INTERLEAVES, || {
        std::panic::catch_unwind(what_lies_between_comes_along)
    });
    assert!(outcome.is_err(), "it survived");
}

#[test]
fn nothing_is_joined_over_a_delete_that_can_be_revoked() {
    let blocks = [entry(1, 0, 0, HOUR), entry(3, 0, 2 * HOUR, 3 * HOUR)];
    for (pending, expect) in [
        ((2, 0, 4 * HOUR), false),
        // It hides both, none, or what is not there.
        ((9, 0, 4 * HOUR), true),
        ((1, 0, 4 * HOUR), true),
        ((2, 5 * HOUR, 6 * HOUR), true),
    ] {
        let found = next(&blocks, &[pending], 100 * HOUR, true).is_some();
        assert_eq!(found, expect, "{pending:?}");
    }
}

#[test]
fn windows_that_do_not_fit_are_refused_with_both_named() {
    let of = |hours: &[u64]| CompactionOptions {
        windows: hours
            .iter()
            .map(|h| Duration::from_secs(h * 3600))
            .collect(),
        ..CompactionOptions::default()
    };
    let block = Duration::from_secs(2 * 3600);
    assert_eq!(of(&[8, 24]).check(block), None);
    assert_eq!(of(&[]).check(block), None);
    for bad in [&[3][..], &[8, 12], &[8, 8], &[1], &[4, 8, 16, 32]] {
        assert!(of(bad).check(block).is_some(), "{bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Seals come with blocks anywhere, merges run when they are due, and at the end by force: seals
    /// never interleave, no byte is written again too often by itself, and by force one block is left
    /// in each day.
    #[test]
    fn merging_ends_and_keeps_its_promises(
        seals in proptest::collection::vec(
            (proptest::collection::btree_set(0i64..36, 1..5), 0i64..6, any::<bool>()), 1..60),
    ) {
        let (mut blocks, mut sequence, mut now) = (Vec::new(), 1u64, 0);
        for (windows, hours, wide) in seals {
            now += hours * HOUR;
            if wide && windows.len() > 1 {
                let (first, last) = (windows.first().unwrap(), windows.last().unwrap());
                blocks.push(entry(sequence, 0, first * 2 * HOUR, last * 2 * HOUR + 5));
            } else {
                for (ordinal, window) in (0..).zip(&windows) {
                    blocks.push(entry(sequence, ordinal, window * 2 * HOUR, window * 2 * HOUR + HOUR));
                }
            }
            sequence += 1;
            let mut steps = 0;
            while let Some(plan) = next(&blocks, &[], now, false) {
                merge(&mut blocks, &plan, sequence);
                sequence += 1;
                steps += 1;
                prop_assert!(steps < 100, "no end: {plan:?}");
                prop_assert_eq!(never_interleave(&blocks), Ok(()));
            }
            prop_assert!(blocks.iter().all(|b| b.rewrites <= REWRITES_MAX));
        }
        let mut steps = 0;
        while let Some(plan) = next(&blocks, &[], now, true) {
            merge(&mut blocks, &plan, sequence);
            sequence += 1;
            steps += 1;
            prop_assert!(steps < 100, "no end: {plan:?}");
            prop_assert_eq!(never_interleave(&blocks), Ok(()));
        }
        let mut days: Vec<_> = blocks.iter().map(|b| b.min_time.div_euclid(24 * HOUR)).collect();
        days.sort_unstable();
        let all = days.len();
        days.dedup();
        prop_assert_eq!(all, days.len(), "{:?}", blocks);
    }
}
