//! Views of a shard: what is read of one equals what is computed from its samples anew, whatever was
//! done to it.

use millrace_model::{MatchOp, Matcher, TimeRange};
use millrace_views::{Aggregate, Origin, ViewDefinition, ViewSpec, bucket_end};

use super::*;
use crate::part::StorePart;
use crate::views::{ViewRead, ViewSeries};

const HOUR: i64 = 3_600_000;

/// Views of all kinds, of one tenant.
pub(super) fn definition(number: usize) -> ViewDefinition {
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let mut spec = ViewSpec {
        name: format!("v{number}"),
        selector: ".*".to_owned(),
        width: ["1m", "1s", "1h", "7d", "90m", "5m", "2s", "1d"][number % 8].to_owned(),
        aggregates: words(&["count", "sum", "min", "max"]),
        by: Some(words(&["series"])),
        ..ViewSpec::default()
    };
    match number % 4 {
        0 => spec.aggregates = words(&["avg", "first", "last", "increase", "rate"]),
        1 => spec.by = None,
        2 => {
            spec.aggregates = words(&["quantile", "distinct", "last"]);
            (spec.quantiles, spec.distinct) = (vec![0.5], Some("series".to_owned()));
            (spec.by, spec.without) = (None, Some(words(&["series"])));
        }
        _ => {
            spec.filter = Some("> 1e-320".to_owned());
            spec.selector = "a|run".to_owned();
        }
    }
    let parse = |text: &str| {
        let series = Matcher::new("series", MatchOp::Regex, text).unwrap();
        Ok(vec![Matcher::equal("__name__", "m"), series])
    };
    spec.check(tenant("one"), Origin::Api, parse).unwrap()
}

/// Defines a view, or drops it if it is defined.
pub(super) fn try_redefine(shard: &Shard, number: usize) -> Result<(), StoreError> {
    let (views, view) = (&shard.context.views, definition(number));
    match views.get(&view.tenant, &view.name) {
        Some(_) => views.remove(&view.tenant, &view.name),
        None => views.put(view).map(|_| ()),
    }
}

pub(super) fn redefine(shard: &Shard, number: usize) {
    try_redefine(shard, number).unwrap();
}

/// A turn of the thread that derives. Whether there was something to do.
pub(super) fn try_derive(shard: &Shard) -> Result<bool, StoreError> {
    let upkeep = shard.upkeep();
    upkeep.derive_views(&upkeep.context.fs)
}

pub(super) fn derive_once(shard: &Shard) -> bool {
    try_derive(shard).unwrap()
}

pub(super) fn derive_all(shard: &Shard) {
    let mut turns = 0;
    while derive_once(shard) {
        turns += 1;
        assert!(turns < 10_000, "views are never derived");
    }
}

fn read(shard: &Shard, view: &ViewDefinition, range: TimeRange) -> (Vec<ViewSeries>, u64) {
    let part = StorePart::new(vec![Arc::clone(shard.shared())]);
    let read = ViewRead {
        view,
        range,
        groups: &[],
        now_ms: shard.now().0,
    };
    let (series, cost) = part.view_with_cost(&read).unwrap();
    (series, cost.samples)
}

/// What is read, to the bit; of buckets that begin behind `settled` alone.
fn image(
    series: Vec<ViewSeries>,
    view: &ViewDefinition,
    settled: Option<i64>,
) -> Vec<(String, i64, Vec<u8>)> {
    let mut rows = Vec::new();
    for of in series {
        for bucket in of.buckets {
            if settled.is_none_or(|at| bucket.end - view.width_ms > at) {
                let mut bytes = Vec::new();
                bucket.partial.encode(&mut bytes, view.parts());
                rows.push((of.labels.to_string(), bucket.end, bytes));
            }
        }
    }
    rows
}

/// Compares each view with one that is computed from the stored samples alone. Where retention was free
/// to take samples, before `settled`, it is not asked.
pub(super) fn expect_recomputed(shard: &Shard, settled: Option<i64>) -> Result<(), String> {
    for view in shard.context.views.all().iter() {
        let settled =
            settled.map(|at| bucket_end(at.saturating_add(view.lookback_ms()), view.width_ms));
        let got = image(read(shard, view, TimeRange::ALL).0, view, settled);
        let cover = shard.shared.views.hide(view.id());
        let scratch = image(read(shard, view, TimeRange::ALL).0, view, settled);
        shard.shared.views.show(cover);
        if got != scratch {
            let wrong = got.iter().find(|row| !scratch.contains(row));
            let missing = scratch.iter().find(|row| !got.contains(row));
            return Err(format!(
                "view {}: {wrong:?} instead of {missing:?}",
                view.name
            ));
        }
    }
    Ok(())
}

fn value(series: &[ViewSeries], group: &str, end: i64, aggregate: Aggregate) -> Option<f64> {
    let of = series
        .iter()
        .find(|s| s.labels.get("series").unwrap_or("") == group)?;
    let bucket = of.buckets.iter().find(|b| b.end == end)?;
    bucket.partial.value(aggregate, 1_000, 0.5)
}

fn put(shard: &Shard, numbers: std::ops::Range<usize>) {
    numbers.for_each(|number| redefine(shard, number));
}

#[test]
fn a_view_tells_what_plain_loops_over_the_samples_tell() {
    let mut queue = VecQueue::default();
    for i in 0..500i64 {
        let time = (i * 7_919) % 100_000;
        queue.push_rows(
            "one",
            rows(&[("a", time, (i as f64).to_bits()), ("b", -time, 5)]),
        );
    }
    let mut shard = open(sim(), options()).unwrap();
    put(&shard, 1..2);
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    derive_all(&shard);
    let view = definition(1);
    let (series, folded) = read(&shard, &view, TimeRange::ALL);
    assert_eq!(folded, 0, "all is derived");
    let mut expect = std::collections::BTreeMap::new();
    for ((_, _, time), bits) in queue.fold(queue.end()) {
        let end = (time + 999).div_euclid(1_000) * 1_000;
        let (count, max) = expect.entry(end).or_insert((0.0, f64::MIN));
        (*count, *max) = (*count + 1.0, f64::from_bits(bits).max(*max));
    }
    assert!(expect.len() > 150);
    for (end, (count, max)) in expect {
        assert_eq!(
            value(&series, "", end, Aggregate::Count),
            Some(count),
            "{end}"
        );
        assert_eq!(value(&series, "", end, Aggregate::Max), Some(max), "{end}");
    }
}

/// A day of samples, some counters, with conflicts; the rows of a day in order.
fn day() -> Vec<Rows> {
    let series = ["a", "b", "c", "run"];
    (0..1_440i64)
        .map(|minute| {
            let value = |at: usize| ((minute % 300) as f64 * 0.1 * (at + 1) as f64).to_bits();
            let of = series.iter().enumerate();
            of.map(|(at, name)| ((*name).to_owned(), minute * 60_000 + at as i64, value(at)))
                .collect()
        })
        .collect()
}

#[test]
fn a_day_sorted_and_the_same_day_shuffled_give_identical_views() {
    let sorted = day();
    let mut shuffled: Vec<Rows> = (0..sorted.len())
        .map(|at| sorted[(at * 1_009) % sorted.len()].clone())
        .collect();
    shuffled.iter_mut().for_each(|rows| rows.reverse());
    let images: Vec<_> = [(sorted, 400), (shuffled, 173)]
        .into_iter()
        .map(|(batches, seal_every)| {
            let mut queue = VecQueue::default();
            let mut shard = open(sim(), options()).unwrap();
            put(&shard, 0..8);
            for (at, rows) in batches.into_iter().enumerate() {
                queue.push_rows("one", rows);
                if at % seal_every == 0 {
                    feed(&mut shard, &queue);
                    shard.seal().unwrap();
                    derive_once(&shard);
                }
            }
            feed(&mut shard, &queue);
            expect_recomputed(&shard, None).unwrap();
            shard.seal().unwrap();
            upkeep(&mut shard).unwrap();
            derive_all(&shard);
            let views = (0..8).map(definition);
            let all: Vec<_> = views
                .map(|view| {
                    let (series, folded) = read(&shard, &view, TimeRange::ALL);
                    assert_eq!(folded, 0, "all of {} is derived", view.name);
                    image(series, &view, None)
                })
                .collect();
            all
        })
        .collect();
    assert_eq!(images[0], images[1]);
    let buckets: usize = images[0].iter().map(Vec::len).sum();
    assert!(buckets > 10_000, "{buckets}");
}

#[test]
fn what_is_derived_is_read_from_files_after_a_restart_and_late_samples_are_in_it() {
    let fs = sim();
    let mut queue = VecQueue::default();
    day()
        .into_iter()
        .for_each(|rows| queue.push_rows("one", rows));
    let mut shard = open(Arc::clone(&fs), options()).unwrap();
    put(&shard, 0..4);
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    derive_all(&shard);
    shard.close().unwrap();
    let mut shard = open(fs, options()).unwrap();
    let view = definition(2);
    let (series, folded) = read(&shard, &view, TimeRange::ALL);
    assert_eq!((folded, series.len()), (0, 1));
    // Three hours of the day are computed, the others are read.
    queue.push_rows("one", rows(&[("b", 10 * HOUR + 5, 7)]));
    feed(&mut shard, &queue);
    let (_, folded) = read(&shard, &view, TimeRange::ALL);
    assert!((1..=800).contains(&folded), "{folded}");
    expect_recomputed(&shard, None).unwrap();
    shard.seal().unwrap();
    expect_recomputed(&shard, None).unwrap();
    derive_all(&shard);
    assert_eq!(read(&shard, &view, TimeRange::ALL).1, 0);
    expect_recomputed(&shard, None).unwrap();
}

#[test]
fn buckets_stay_when_their_samples_expire_and_late_samples_do_not_change_them() {
    expect_frozen();
}

pub(super) fn expect_frozen() {
    let mut queue = VecQueue::default();
    day()
        .into_iter()
        .for_each(|rows| queue.push_rows("one", rows));
    let mut shard = open(sim(), options()).unwrap();
    put(&shard, 0..4);
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    let view = definition(0);
    let before = image(read(&shard, &view, TimeRange::ALL).0, &view, None);
    let age = crate::retain::RetentionOptions {
        age: Some(Duration::ZERO),
        ..Default::default()
    };
    let gone = retain(&mut shard, &age, 12 * HOUR).unwrap();
    assert!(!gone.is_empty());
    assert_eq!(
        image(read(&shard, &view, TimeRange::ALL).0, &view, None),
        before
    );
    queue.push_rows("one", rows(&[("a", HOUR, 7)]));
    feed(&mut shard, &queue);
    assert_eq!(
        image(read(&shard, &view, TimeRange::ALL).0, &view, None),
        before
    );
    shard.seal().unwrap();
    derive_all(&shard);
    assert_eq!(
        image(read(&shard, &view, TimeRange::ALL).0, &view, None),
        before
    );
    let cover = shard.shared.views.cover(view.id());
    assert!(cover.frozen().contains(HOUR) && !cover.frozen().contains(13 * HOUR));
    // A view that is defined now has what is left.
    put(&shard, 4..5);
    derive_all(&shard);
    let late = definition(4);
    let from = |s: &[ViewSeries]| s.iter().flat_map(|s| &s.buckets).map(|b| b.end).min();
    assert_eq!(
        from(&read(&shard, &late, TimeRange::ALL).0),
        Some(90 * 60_000)
    );
    let alone = read(&shard, &late, TimeRange::new(2 * HOUR, 11 * HOUR)).0;
    assert_eq!(alone, [], "samples of that time have expired");
}

#[test]
fn a_dropped_view_leaves_no_file_and_one_with_a_retention_lets_go() {
    let fs = SimFs::new();
    let mut queue = VecQueue::default();
    for days in 0..4 {
        queue.push_rows("one", rows(&[("a", days * 24 * HOUR + 1, 7)]));
    }
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    let mut view = definition(0);
    // The clock of the tests stands much later: two of the days are older than this.
    let now = shard.now().0;
    view.retention_ms = Some(now - 2 * 24 * HOUR);
    shard.context.views.put(view.clone()).unwrap();
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    derive_all(&shard);
    let ends: Vec<_> = read(&shard, &view, TimeRange::ALL).0[0]
        .buckets
        .iter()
        .map(|bucket| bucket.end / HOUR)
        .collect();
    assert_eq!(ends, [48, 72]);
    let files = || {
        let files = fs.files();
        let names = files.iter().map(|(path, _)| path.to_string_lossy());
        names.filter(|name| name.contains("/views/")).count()
    };
    assert!(files() >= 2);
    shard
        .context
        .views
        .remove(&view.tenant, &view.name)
        .unwrap();
    derive_all(&shard);
    assert_eq!(files(), 0);
}

#[test]
fn a_damaged_cover_is_derived_again_and_a_damaged_sheet_is_an_error_that_names_it() {
    let fs = SimFs::new();
    let mut queue = VecQueue::default();
    day()
        .into_iter()
        .for_each(|rows| queue.push_rows("one", rows));
    let mut shard = open(Arc::new(fs.clone()), options()).unwrap();
    put(&shard, 1..2);
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    derive_all(&shard);
    let view = definition(1);
    let files = || fs.files().into_iter();
    let (sheet, bytes) = files()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "sheet"))
        .unwrap();
    let part = StorePart::new(vec![Arc::clone(shard.shared())]);
    let whole = ViewRead {
        view: &view,
        range: TimeRange::ALL,
        groups: &[],
        now_ms: 0,
    };
    let expect = part.view(&whole).unwrap().0;
    for at in (0..bytes.len()).step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        fs.damage(&sheet, &flipped).unwrap();
        let error = part.view(&whole).unwrap_err().to_string();
        assert!(error.contains(".sheet"), "byte {at}: {error}");
    }
    fs.damage(&sheet, &bytes).unwrap();
    assert_eq!(part.view(&whole).unwrap().0, expect);
    drop((part, shard));
    let (cover, bytes) = files()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "cover"))
        .unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        assert!(crate::views::decode_cover(&flipped).is_err(), "byte {at}");
    }
    let mut flipped = bytes;
    flipped[20] ^= 4;
    fs.damage(&cover, &flipped).unwrap();
    let shard = open(Arc::new(fs.clone()), options()).unwrap();
    expect_recomputed(&shard, None).unwrap();
    derive_all(&shard);
    assert_eq!(read(&shard, &view, TimeRange::ALL), (expect, 0));
}

#[test]
fn a_delete_reaches_what_was_derived_before_it_also_when_nothing_is_left_of_it() {
    expect_deleted();
}

pub(super) fn expect_deleted() {
    let mut queue = VecQueue::default();
    queue.push_rows("one", rows(&[("a", 6_000_000, 1), ("b", 6_000_000, 2)]));
    let mut shard = open(sim(), options()).unwrap();
    put(&shard, 0..2);
    feed(&mut shard, &queue);
    shard.seal().unwrap();
    derive_all(&shard);
    let undo_until = queue.now() - 1;
    queue.push_delete("one", delete(1, "a", (0, 6_000_000), undo_until));
    queue.push_rows("one", rows(&[("c", 100 * HOUR, 1)]));
    feed(&mut shard, &queue);
    expect_recomputed(&shard, None).unwrap();
    shard.seal().unwrap();
    // Nothing is derived until the delete has been brought to its end.
    upkeep(&mut shard).unwrap();
    expect_recomputed(&shard, None).unwrap();
    derive_all(&shard);
    expect_recomputed(&shard, None).unwrap();
    let groups = read(&shard, &definition(0), TimeRange::ALL).0.len();
    assert_eq!(groups, 2, "b and c are left");
}
