//! Retention against stores with blocks of several ages, tenants and jobs.

use millrace_log::fs::sim::SimFs;
use millrace_log::planted::{Bug, with};
use millrace_model::{MatchOp, Offset};

use super::*;
use crate::planted::HIGH_WATER_LOST;
use crate::shard::Shard;
use crate::testing::*;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

fn by_age(age: Duration) -> RetentionOptions {
    RetentionOptions {
        age: Some(age),
        ..RetentionOptions::default()
    }
}

/// One block for each day, of two series and two tenants.
fn ten_days() -> (SimFs, Shard) {
    let fs = SimFs::new();
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    let mut queue = VecQueue::default();
    for day in 0..10 {
        let row = |series: &str, hour: i64| (series.to_owned(), day * DAY + hour * HOUR, 1);
        queue.push_rows("one", vec![row("a", 0), row("a", 1), row("b", 0)]);
        queue.push_rows("two", vec![row("a", 0)]);
        shard.apply(queue.from(shard.applied())).unwrap();
        shard.seal().unwrap();
    }
    (fs, shard)
}

fn decided(shard: &Shard, options: &RetentionOptions, now: i64) -> Vec<RetentionItem> {
    let views = [(shard.partition(), shard.shared().view())];
    let found = decide(options, &views, TimestampMs(now), Some(HOUR)).unwrap();
    found.into_iter().map(|d| d.item).collect()
}

fn old_blocks_go_by_their_last_sample_check() {
    let (_, mut shard) = ten_days();
    // The last sample of day 4 is at its first hour.
    let now = 9 * DAY + HOUR;
    let items = decided(&shard, &by_age(hours(5 * 24)), now);
    assert_eq!(items.len(), 4, "{items:?}");
    assert!(
        items
            .iter()
            .all(|i| i.what == RetentionPart::Block && i.samples == 4 && i.bytes > 0)
    );
    retain(&mut shard, &by_age(hours(5 * 24)), now).unwrap();
    let left = dump(&shard, &["one", "two"]).unwrap();
    assert_eq!(left.keys().map(|k| k.2).min(), Some(4 * DAY));
}

#[test]
fn old_blocks_go_by_their_last_sample() {
    old_blocks_go_by_their_last_sample_check();
}

#[test]
fn rules_by_tenant_and_label_take_their_part_of_a_block() {
    let (_, mut shard) = ten_days();
    let rule = |tenant: Option<&str>, series: &str, age| RetentionRule {
        tenant: tenant.map(|t| t.parse().unwrap()),
        matchers: vec![Matcher::new("series", MatchOp::Regex, series).unwrap()],
        age,
    };
    let options = RetentionOptions {
        age: Some(hours(8 * 24)),
        rules: vec![
            rule(Some("two"), ".*", None),
            rule(None, "b", Some(hours(2 * 24))),
        ],
        ..RetentionOptions::default()
    };
    let now = 9 * DAY + HOUR;
    let items = decided(&shard, &options, now);
    assert!(
        items.iter().all(|i| i.what != RetentionPart::Block),
        "tenant two keeps all: {items:?}"
    );
    for _ in 0..2 {
        retain(&mut shard, &options, now).unwrap();
        let one = dump(&shard, &["one"]).unwrap();
        let first = |series: &str| {
            let of = one.keys().filter(|k| k.1 == series);
            of.map(|k| k.2 / DAY).min()
        };
        assert_eq!((first("a"), first("b")), (Some(1), Some(7)));
        assert_eq!(dump(&shard, &["two"]).unwrap().len(), 10);
    }
    assert_eq!(decided(&shard, &options, now), [], "nothing is done twice");
}

#[test]
fn beyond_the_bytes_the_oldest_go() {
    let (_, shard) = ten_days();
    let view = shard.shared().view();
    let all: u64 = view.blocks.iter().map(|b| b.entry.bytes).sum();
    let options = |bytes| RetentionOptions {
        bytes: Some(bytes),
        ..RetentionOptions::default()
    };
    assert_eq!(decided(&shard, &options(all), 0), []);
    let items = decided(&shard, &options(all - 1), 0);
    assert_eq!(items.len(), 1);
    assert_eq!(
        (items[0].range.0, items[0].reason),
        (TimestampMs(0), RetentionReason::Bytes)
    );
    assert_eq!(decided(&shard, &options(0), 0).len(), 10);
}

#[test]
fn one_sample_of_the_far_future_makes_nothing_old() {
    let (_, mut shard) = ten_days();
    let mut queue = VecQueue::default();
    queue.push_payload(batch("one", &[("a".into(), 2_145_916_800_000, 1)]), 20);
    shard.apply(queue.from(Offset(0))).unwrap();
    let views = [(shard.partition(), shard.shared().view())];
    let believed = TimestampMs(9 * DAY + 2 * HOUR);
    assert_eq!(retention_time(believed, &views), Some(believed));
}

#[test]
fn a_clock_of_the_far_future_is_held_back_by_the_newest_sample() {
    let (_, shard) = ten_days();
    let views = [(shard.partition(), shard.shared().view())];
    let time = retention_time(TimestampMs(2_145_916_800_000), &views).unwrap();
    assert!(time.0 < 10 * DAY, "{time}");
}

fn a_clock_that_jumps_is_not_believed_check() {
    let options = RetentionOptions::default();
    let mut clock = RetentionClock::new(None, hours(0));
    let t = |hour: i64| TimestampMs(hour * HOUR);
    assert_eq!(clock.observe(t(1_000), hours(0), &options), t(1_000));
    assert_eq!(clock.observe(t(1_002), hours(2), &options), t(1_002));
    // Twelve years ahead, then back.
    assert_eq!(clock.observe(t(100_000), hours(3), &options), t(1_003));
    assert!(clock.is_frozen());
    assert_eq!(clock.observe(t(1_004), hours(4), &options), t(1_004));
    assert!(!clock.is_frozen());
    // Backwards, the last time stays.
    assert_eq!(clock.observe(t(5), hours(5), &options), t(1_004));
    // Ahead for a day: then it is right after all.
    assert_eq!(clock.observe(t(2_000), hours(10), &options), t(1_009));
    assert_eq!(clock.observe(t(2_023), hours(33), &options), t(1_032));
    assert_eq!(clock.observe(t(2_024), hours(34), &options), t(2_024));
    // Or somebody says so.
    assert_eq!(clock.observe(t(9_000), hours(35), &options), t(2_025));
    clock.confirm(t(9_000), hours(35));
    assert_eq!(clock.observe(t(9_000), hours(35), &options), t(9_000));
}

#[test]
fn a_clock_that_jumps_is_not_believed_until_it_stays_or_is_confirmed() {
    a_clock_that_jumps_is_not_believed_check();
}

fn the_time_that_was_believed_survives_check() {
    let (fs, mut shard) = ten_days();
    retain(&mut shard, &by_age(hours(24)), 9 * DAY).unwrap();
    drop(shard);
    fs.kill();
    let shard = open(Arc::new(fs), options()).unwrap();
    assert_eq!(shard.high_water(), Some(TimestampMs(9 * DAY)));
}

#[test]
fn the_time_that_was_believed_survives_a_restart() {
    the_time_that_was_believed_survives_check();
}

fn killed(bug: Bug, check: fn()) {
    let outcome = with(bug, || std::panic::catch_unwind(check));
    assert!(outcome.is_err(), "{bug:?} survived");
}

#[test]
fn retention_by_the_first_sample_is_killed() {
    killed(
        crate::planted::RETENTION_BY_FIRST,
        old_blocks_go_by_their_last_sample_check,
    );
}

#[test]
fn a_clock_that_is_always_believed_is_killed() {
    killed(
        crate::planted::CLOCK_JUMP_BELIEVED,
        a_clock_that_jumps_is_not_believed_check,
    );
}

#[test]
fn a_high_water_mark_that_is_not_kept_is_killed() {
    killed(HIGH_WATER_LOST, the_time_that_was_believed_survives_check);
}

#[path = "retain_tests/thin.rs"]
mod thin;
