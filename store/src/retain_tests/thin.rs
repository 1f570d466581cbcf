//! Samples that go before their rollups.

use std::collections::BTreeMap;

use millrace_model::TimeRange;

use super::*;
use crate::shard::Upkeep;

const MINUTE: i64 = 60_000;

/// Two series, a sample every minute for two hours of each of three days. One block a day.
fn three_days() -> (SimFs, VecQueue, Shard) {
    let fs = SimFs::new();
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    let mut queue = VecQueue::default();
    for day in 0..3 {
        let minutes = (0..120).map(|minute| day * DAY + minute * MINUTE + 7);
        let row = |at: i64, name: &str| (name.to_owned(), at, ((at % 97) as f64).to_bits());
        let rows = minutes.flat_map(|at| [row(at, "a"), row(at, "b")]);
        queue.push_rows("t", rows.collect());
        shard.apply(queue.from(shard.applied())).unwrap();
        shard.seal().unwrap();
    }
    (fs, queue, shard)
}

fn thinning() -> RetentionOptions {
    RetentionOptions {
        age: Some(hours(10 * 24)),
        samples_age: Some(hours(24)),
        fine_rollups_age: Some(hours(2 * 24)),
        ..RetentionOptions::default()
    }
}

/// Of the samples of a model, the last of each bucket of the first `days` days; the others all.
fn lasts(model: &Model, widths: &[(i64, i64)]) -> Model {
    let mut kept = BTreeMap::new();
    for (key, bits) in model {
        let width = widths.iter().find(|(day, _)| key.2 / DAY == *day);
        // In order of time: the last one stays.
        let bucket = width.map_or(key.2, |(_, width)| key.2.div_euclid(*width) * width);
        kept.insert((key.0.clone(), key.1.clone(), bucket), (key.clone(), *bits));
    }
    kept.into_values().collect()
}

fn summaries(shard: &Shard) -> Vec<(bool, i64)> {
    let view = shard.shared().view();
    let of = |b: &Arc<LiveBlock>| (b.reader.without_samples(), b.reader.resolutions()[0]);
    view.blocks.iter().map(of).collect()
}

fn parts(what: &[RetentionItem]) -> Vec<(i64, RetentionPart)> {
    what.iter().map(|i| (i.range.0.0 / DAY, i.what)).collect()
}

#[test]
fn samples_go_and_the_last_of_each_bucket_stays() {
    let (fs, queue, mut shard) = three_days();
    let all = queue.fold(queue.end());
    // A day after the last sample of the first day.
    let now = DAY + 3 * HOUR;
    let items = decided(&shard, &thinning(), now);
    assert_eq!(parts(&items), [(0, RetentionPart::Samples)]);
    assert_eq!((items[0].series, items[0].samples), (2, 240));
    let before: u64 = shard.shared().view().blocks[0].entry.bytes;
    assert!(items[0].bytes > 0 && items[0].bytes < before);
    retain(&mut shard, &thinning(), now).unwrap();
    let expect = lasts(&all, &[(0, 5 * MINUTE)]);
    assert!(expect.len() < all.len() && expect.len() > 480);
    assert_eq!(dump(&shard, &["t"]).unwrap(), expect);
    assert_eq!(
        decided(&shard, &thinning(), now),
        [],
        "nothing is done twice"
    );
    assert_eq!(
        summaries(&shard),
        [(true, 300_000), (false, 300_000), (false, 300_000)]
    );
    // It is told which part of an answer that is.
    let mut found = Vec::new();
    let view = shard.shared().view();
    view.select(&tenant("t"), &[], TimeRange::new(0, DAY - 1), &mut found)
        .unwrap();
    let told: Vec<_> = found.iter().map(|s| s.thinned()).collect();
    assert_eq!(told, [Some((TimestampMs(119 * MINUTE + 7), 300_000)); 2]);
    found.clear();
    view.select(&tenant("t"), &[], TimeRange::new(DAY, 3 * DAY), &mut found)
        .unwrap();
    assert!(found.iter().all(|series| series.thinned().is_none()));
    drop((found, view, shard));
    fs.kill();
    let shard = open(Arc::new(fs), options()).unwrap();
    assert_eq!(dump(&shard, &["t"]).unwrap(), expect, "behind a restart");
}

#[test]
fn deltas_whose_samples_went_leave_what_they_come_to() {
    let (mut queue, fs) = (VecQueue::default(), SimFs::new());
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    let minutes = || (0..120).map(|minute| minute * MINUTE + 7);
    let rows =
        minutes().flat_map(|at| ["delta", "total"].map(|s| (s.to_owned(), at, 2f64.to_bits())));
    queue.push_rows("t", rows.collect());
    // Sent again in part, after a while.
    let again = minutes()
        .skip(3)
        .take(9)
        .map(|at| ("delta".to_owned(), at, 2f64.to_bits()));
    queue.push_rows("t", again.collect());
    queue.push_rows("t", vec![("total".to_owned(), 2 * DAY, 0)]);
    shard.apply(queue.from(shard.applied())).unwrap();
    shard.seal().unwrap();
    retain(&mut shard, &thinning(), DAY + 3 * HOUR).unwrap();
    let left = dump_range(&shard, &["t"], TimeRange::new(0, DAY)).unwrap();
    let of = |series: &str| -> Vec<(i64, f64)> {
        let of = left.iter().filter(|(key, _)| key.1 == series);
        of.map(|(key, bits)| (key.2, f64::from_bits(*bits)))
            .collect()
    };
    // Buckets of five minutes, each at the time of its last sample.
    let ends = (0..24).map(|bucket| (bucket * 5 + 4) * MINUTE + 7);
    assert_eq!(
        of("delta"),
        ends.clone().map(|at| (at, 10.0)).collect::<Vec<_>>()
    );
    assert_eq!(of("total"), ends.map(|at| (at, 2.0)).collect::<Vec<_>>());
}

#[test]
fn fine_rollups_go_later_and_everything_last() {
    let (_, queue, mut shard) = three_days();
    let all = queue.fold(queue.end());
    for (now, parts, expect) in [
        (2 * DAY + 3 * HOUR, vec![(0, HOUR), (1, 5 * MINUTE)], 2),
        (
            3 * DAY + 3 * HOUR,
            vec![(0, HOUR), (1, HOUR), (2, 5 * MINUTE)],
            2,
        ),
    ] {
        let items = decided(&shard, &thinning(), now);
        assert_eq!(items.len(), expect, "{items:?}");
        retain(&mut shard, &thinning(), now).unwrap();
        assert_eq!(dump(&shard, &["t"]).unwrap(), lasts(&all, &parts), "{now}");
        assert_eq!(decided(&shard, &thinning(), now), []);
    }
    let view = shard.shared().view();
    let first = &view.blocks[0].reader;
    assert_eq!(
        (first.resolutions(), first.summary().samples),
        (&[HOUR][..], 240)
    );
    drop(view);
    retain(&mut shard, &thinning(), 20 * DAY).unwrap();
    assert_eq!(dump(&shard, &["t"]).unwrap(), Model::new());
}

#[test]
fn late_samples_are_read_beside_what_is_left_and_are_not_merged_with_it() {
    let (_, mut queue, mut shard) = three_days();
    retain(&mut shard, &thinning(), DAY + 3 * HOUR).unwrap();
    let expect = dump(&shard, &["t"]).unwrap();
    let (late, again) = (30 * MINUTE + 100, 34 * MINUTE + 7);
    let rows = vec![("a".to_owned(), late, 1), ("a".to_owned(), again, 2)];
    queue.push_rows("t", rows);
    shard.apply(queue.from(shard.applied())).unwrap();
    shard.seal().unwrap();
    let mut expect = expect;
    for (at, bits) in [(late, 1), (again, 2)] {
        expect.insert((tenant("t").to_string(), "a".to_owned(), at), bits);
    }
    assert_eq!(dump(&shard, &["t"]).unwrap(), expect);
    upkeep(&mut shard).unwrap();
    assert_eq!(dump(&shard, &["t"]).unwrap(), expect);
    let bare = summaries(&shard).iter().filter(|s| s.0).count();
    assert_eq!(bare, 1, "{:?}", summaries(&shard));
}

#[test]
fn a_delete_takes_each_bucket_that_it_touches() {
    let (_, mut queue, mut shard) = three_days();
    retain(&mut shard, &thinning(), DAY + 3 * HOUR).unwrap();
    // From the middle of the bucket of 10 to that of 20 minutes; all of b.
    queue.push_delete("t", delete(1, "a", (12 * MINUTE, 22 * MINUTE), 0));
    queue.push_delete("t", delete(2, "b", (i64::MIN, DAY), 0));
    shard.apply(queue.from(shard.applied())).unwrap();
    shard.seal().unwrap();
    queue.push_rows("t", vec![("a".to_owned(), 3 * DAY, 1)]);
    shard.apply(queue.from(shard.applied())).unwrap();
    upkeep(&mut shard).unwrap();
    let left = dump_range(&shard, &["t"], TimeRange::new(0, DAY)).unwrap();
    let minutes: Vec<_> = left.keys().map(|k| (k.1.as_str(), k.2 / MINUTE)).collect();
    assert_eq!(minutes[..3], [("a", 4), ("a", 9), ("a", 29)]);
    assert_eq!(minutes.len(), 21, "{minutes:?}");
    let view = shard.shared().view();
    assert_eq!(view.blocks[0].reader.summary().series, 1);
    assert!(
        view.tombstones
            .iter()
            .all(|t| t.state == crate::tombstone::TombstoneState::Cleaned)
    );
}

#[test]
fn rules_take_series_out_of_what_is_left() {
    let (_, _, mut shard) = three_days();
    retain(&mut shard, &thinning(), DAY + 3 * HOUR).unwrap();
    let options = RetentionOptions {
        rules: vec![RetentionRule {
            tenant: None,
            matchers: vec![Matcher::equal("series", "b")],
            age: Some(hours(25)),
        }],
        ..thinning()
    };
    let items = decided(&shard, &options, DAY + 4 * HOUR);
    assert_eq!(parts(&items), [(0, RetentionPart::Series)]);
    retain(&mut shard, &options, DAY + 4 * HOUR).unwrap();
    let left = dump_range(&shard, &["t"], TimeRange::new(0, DAY)).unwrap();
    assert_eq!(left.len(), 24);
    assert!(left.keys().all(|k| k.1 == "a"));
    assert!(summaries(&shard)[0].0, "its samples do not come back");
}

#[test]
fn ages_in_the_wrong_order_are_refused() {
    let rollups = [hours(1)];
    assert_eq!(thinning().check(&rollups), None);
    let mut wrong = thinning();
    wrong.fine_rollups_age = Some(hours(1));
    let says = wrong.check(&rollups).unwrap();
    assert!(
        says.contains("fine rollups") && says.contains("samples"),
        "{says}"
    );
    assert!(thinning().check(&[]).unwrap().contains("no rollups"));
    wrong = thinning();
    wrong.age = Some(hours(30));
    assert!(wrong.check(&rollups).unwrap().contains("everything"));
}

#[test]
fn a_crash_while_samples_go_leaves_the_samples_or_the_rollups() {
    let (fs, queue, shard) = three_days();
    let all = queue.fold(queue.end());
    let thin = lasts(&all, &[(0, 5 * MINUTE)]);
    let live = Arc::clone(&shard.shared().view().blocks[0]);
    let upkeep: Upkeep = shard.upkeep();
    let decisions = {
        let views = [(shard.partition(), shard.shared().view())];
        decide(&thinning(), &views, TimestampMs(DAY + 3 * HOUR), Some(HOUR)).unwrap()
    };
    let thinner = decisions[0].thinner.clone().unwrap();
    let job = upkeep.rewrite_as(&upkeep.context.fs, &live, None, thinner);
    let change = job.run().unwrap().into_change();
    drop((job, live, upkeep, decisions));
    // Written, and not in the manifest.
    let before = fs.power_cut();
    let mut shard = shard;
    shard.commit_change(change).unwrap();
    drop(shard);
    for (fs, expect) in [(before, &all), (fs.power_cut(), &thin)] {
        let shard = open(Arc::new(fs), options()).unwrap();
        assert_eq!(dump(&shard, &["t"]).unwrap(), *expect);
    }
}
