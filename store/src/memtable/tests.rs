use std::collections::BTreeMap;

use millrace_model::{SeriesHasher, stale_nan};
use proptest::prelude::*;

use super::*;
use crate::testing::{batch, labels, tenant};

const HOUR: i64 = 3_600_000;

fn put(table: &Memtable, tenant: &str, rows: &[(String, i64, u64)]) -> Counts {
    let mut decoded = Decoded::default();
    let earlier = crate::decode::Earlier {
        queue: millrace_model::QueueId(7),
        tombstones: &[],
    };
    let payload = batch(tenant, rows);
    decoded.decode(&payload, &table.rows(), &earlier).unwrap();
    table.apply(&decoded, Duration::ZERO)
}

fn row(series: &str, timestamp: i64, value: f64) -> (String, i64, u64) {
    (series.to_owned(), timestamp, value.to_bits())
}

fn read(table: &Memtable, at: SeriesRef, range: (i64, i64)) -> Vec<(i64, u64)> {
    let mut snapshot = SeriesSnapshot::default();
    table.rows().snapshot(at, range, &mut snapshot);
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    snapshot.decode(&mut timestamps, &mut values).unwrap();
    timestamps
        .into_iter()
        .zip(values.into_iter().map(f64::to_bits))
        .collect()
}

const ALL: (i64, i64) = (i64::MIN, i64::MAX);

#[test]
fn late_and_duplicate_samples_are_counted() {
    let table = Memtable::new(crate::layer::Layer::Ordinary, HOUR);
    let counts = put(
        &table,
        "t",
        &[row("a", 10, 1.0), row("a", 10, 1.0), row("a", 5, 2.0)],
    );
    let expect = Counts {
        samples: 3,
        late: 1,
        duplicate: 1,
        new_series: 1,
    };
    assert_eq!(counts, expect);
    let counts = put(&table, "t", &[row("a", 11, stale_nan()), row("b", 1, 0.0)]);
    assert_eq!((counts.late, counts.new_series), (0, 1));
    let got = read(&table, SeriesRef(0), ALL);
    let expect = [(5, 2.0), (10, 1.0), (11, stale_nan())];
    assert_eq!(got, expect.map(|(t, v)| (t, v.to_bits())));
}

/// Few series among many values are asked themselves, and many among few are not.
#[test]
fn values_of_some_series_are_theirs_alone() {
    let table = Memtable::new(crate::layer::Layer::Ordinary, HOUR);
    let names: Vec<String> = (10..50).map(|n| format!("s{n}")).collect();
    let rows: Vec<_> = names.iter().map(|name| row(name, 10, 1.0)).collect();
    put(&table, "t", &rows);
    let values = |pattern: &str| {
        let op = millrace_model::MatchOp::Regex;
        let matcher = millrace_model::Matcher::new("series", op, pattern).unwrap();
        table.label_values(&tenant("t"), "series", &[vec![matcher]], &[])
    };
    assert_eq!(values("s17|s11|none"), ["s11", "s17"]);
    assert_eq!(values("s.*"), names);
    assert!(values("none").is_empty());
}

/// A late sample of the newest timestamp stands between two equal ones: the last is no duplicate.
#[test]
fn back_to_an_older_value_is_a_change() {
    let table = Memtable::new(crate::layer::Layer::Ordinary, HOUR);
    for value in [1.0, 2.0, 1.0] {
        put(&table, "t", &[row("a", 10, value)]);
    }
    assert_eq!(read(&table, SeriesRef(0), ALL), [(10, 1f64.to_bits())]);
}

#[test]
fn chunks_close_and_ranges_cut_them() {
    let table = Memtable::new(crate::layer::Layer::Ordinary, HOUR);
    let rows: Vec<_> = (0..1_000).map(|i| row("a", i * 10, i as f64)).collect();
    put(&table, "t", &rows);
    for (start, end) in [
        (0, 0),
        (1, 9),
        (1_195, 1_205),
        (2_405, 7_777),
        (9_990, 20_000),
    ] {
        let expect: Vec<_> = (0..1_000i64)
            .map(|i| (i * 10, (i as f64).to_bits()))
            .filter(|(t, _)| start <= *t && *t <= end)
            .collect();
        assert_eq!(
            read(&table, SeriesRef(0), (start, end)),
            expect,
            "{start}..={end}"
        );
    }
}

#[test]
fn windows_are_noted_before_the_epoch_too() {
    let table = Memtable::new(crate::layer::Layer::Ordinary, HOUR);
    put(
        &table,
        "t",
        &[
            row("a", -1, 0.0),
            row("a", HOUR, 0.0),
            row("a", HOUR + 5, 0.0),
        ],
    );
    let windows: Vec<_> = table.rows().windows().iter().copied().collect();
    assert_eq!(windows, [-HOUR, HOUR]);
    let range = table.rows().time_range().unwrap();
    assert_eq!((range.start.0, range.end.0), (-HOUR, 2 * HOUR - 1));
}

#[test]
fn known_series_are_found_by_guess_and_by_lookup() {
    let table = Memtable::new(crate::layer::Layer::Ordinary, HOUR);
    let rows: Vec<_> = (0..100).map(|i| row(&format!("s{i}"), 1, 0.0)).collect();
    put(&table, "t", &rows);
    let hasher = SeriesHasher::new(&tenant("t"));
    for i in 0..100 {
        let id = hasher.id(&labels(&format!("s{i}")));
        for guess in [0, 7, i, 99, 100, u32::MAX] {
            assert_eq!(table.rows().find(id, SeriesRef(guess)), Some(SeriesRef(i)));
        }
    }
    let unknown = hasher.id(&labels("unknown"));
    assert_eq!(table.rows().find(unknown, SeriesRef(0)), None);
}

#[test]
fn memory_grows_with_what_is_kept_and_not_with_what_is_repeated() {
    let table = Memtable::new(crate::layer::Layer::Ordinary, HOUR);
    let bytes = || table.rows().heap_bytes();
    let empty = bytes();
    put(&table, "t", &[row("a", 1_000, 0.0)]);
    let one = bytes();
    assert!(one > empty);
    // The same late samples, again and again.
    let late: Vec<_> = (0..10).map(|i| row("a", i, 1.0)).collect();
    for _ in 0..1_000 {
        put(&table, "t", &late);
    }
    assert!(bytes() < one + 2_000, "{} of {one}", bytes());
    assert_eq!(read(&table, SeriesRef(0), ALL).len(), 11);
}

/// At a million series each byte is a megabyte.
#[test]
fn a_series_is_small() {
    assert!(size_of::<Series>() <= 80, "{} bytes", size_of::<Series>());
}

proptest! {
    #[test]
    fn equals_a_map(
        batches in proptest::collection::vec(
            proptest::collection::vec((0u8..3, 0i64..400, 0u64..4), 1..80), 1..12),
        range in (0i64..400, 0i64..400),
    ) {
        let table = Memtable::new(crate::layer::Layer::Ordinary, 100);
        let mut model: BTreeMap<(u8, i64), u64> = BTreeMap::new();
        let mut order = Vec::new();
        for rows in &batches {
            let named: Vec<_> = rows.iter().map(|&(s, t, v)| (format!("s{s}"), t, v)).collect();
            put(&table, "t", &named);
            for &(series, timestamp, bits) in rows {
                model.insert((series, timestamp), bits);
                if !order.contains(&series) {
                    order.push(series);
                }
            }
        }
        let range = (range.0.min(range.1), range.0.max(range.1));
        for (at, series) in order.iter().enumerate() {
            let expect: Vec<_> = model
                .iter()
                .filter(|((s, t), _)| s == series && range.0 <= *t && *t <= range.1)
                .map(|((_, t), bits)| (*t, *bits))
                .collect();
            prop_assert_eq!(read(&table, SeriesRef(at as u32), range), expect);
        }
    }
}
