use millrace_model::{Labels, MatchOp, Matcher};
use proptest::prelude::*;

use super::*;

fn fleet() -> Vec<Labels> {
    let pairs: [&[(&str, &str)]; 5] = [
        &[("__name__", "up"), ("job", "node"), ("zone", "a")],
        &[("__name__", "up"), ("job", "db")],
        &[("__name__", "load"), ("job", "node"), ("zone", "b")],
        &[("__name__", "load"), ("zone", "ab")],
        &[],
    ];
    let labels = pairs
        .iter()
        .map(|p| Labels::from_pairs(p.iter().copied()).unwrap());
    labels.collect()
}

fn index_of(series: &[Labels]) -> MemIndex {
    let mut index = MemIndex::new();
    for (at, labels) in series.iter().enumerate() {
        index.insert(at as u32, labels);
    }
    index
}

fn matcher(name: &str, op: MatchOp, value: &str) -> Matcher {
    Matcher::new(name, op, value).unwrap()
}

/// What [`select`] must find, by looking at every label set.
pub(crate) fn scan(series: &[Labels], matchers: &[Matcher]) -> Vec<u32> {
    let passes = |labels: &Labels| matchers.iter().all(|m| m.matches_labels(labels));
    let passing = series
        .iter()
        .enumerate()
        .filter(|(_, labels)| passes(labels));
    passing.map(|(at, _)| at as u32).collect()
}

/// Matchers over a few names and values, of every kind.
pub(crate) fn any_matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let name = proptest::sample::select(vec!["__name__", "job", "zone", "none"]);
    let op = proptest::sample::select(vec![
        MatchOp::Equal,
        MatchOp::NotEqual,
        MatchOp::Regex,
        MatchOp::NotRegex,
    ]);
    let value = proptest::sample::select(vec![
        "", "a", "b", "ab", "up", "load", "a|b", "(a|ab)", "a.*", ".*", ".+", "a?", "a|", "|b",
        "[ab]+", "(?i)A.*", "u.", "aa*", "lo.d", ".", "x\\|y", "a\\.b",
    ]);
    let one = (name, op, value).prop_filter_map("no pattern", |(name, op, value)| {
        Matcher::new(name, op, value).ok()
    });
    proptest::collection::vec(one, 0..4)
}

/// Label sets over the same names and values.
pub(crate) fn any_series() -> impl Strategy<Value = Vec<Labels>> {
    let value = || {
        proptest::sample::select(vec![
            "", "a", "b", "ab", "aab", "up", "load", "A", "x|y", "a.b", "a\nb",
        ])
    };
    let labels = (value(), value(), value()).prop_map(|(metric, job, zone)| {
        Labels::from_pairs([("__name__", metric), ("job", job), ("zone", zone)]).unwrap()
    });
    proptest::collection::vec(labels, 0..40)
}

#[track_caller]
fn check(matchers: &[Matcher], expect: &[u32]) {
    let series = fleet();
    assert_eq!(scan(&series, matchers), expect);
    let found = index_of(&series).select(matchers);
    assert_eq!(found.iter().collect::<Vec<_>>(), expect, "{matchers:?}");
}

#[test]
fn selections_are_found() {
    use MatchOp::{Equal, NotEqual, NotRegex, Regex};
    check(&[], &[0, 1, 2, 3, 4]);
    check(&[matcher("__name__", NotEqual, "")], &[0, 1, 2, 3]);
    check(&[matcher("job", Equal, "node")], &[0, 2]);
    check(&[matcher("job", Equal, "")], &[3, 4]);
    check(&[matcher("job", NotEqual, "node")], &[1, 3, 4]);
    check(&[matcher("zone", Regex, "a.*")], &[0, 3]);
    check(&[matcher("zone", NotRegex, "a.*")], &[1, 2, 4]);
    check(&[matcher("zone", Regex, "a|b")], &[0, 2]);
    check(&[matcher("none", Equal, "x")], &[]);
    check(&[matcher("none", NotEqual, "x")], &[0, 1, 2, 3, 4]);
    check(
        &[
            matcher("__name__", Equal, "load"),
            matcher("job", NotRegex, "n.*|db"),
        ],
        &[3],
    );
    check(&[matcher("job", Regex, "|db")], &[1, 3, 4]);
}

#[test]
fn names_and_values_are_sorted_and_can_be_narrowed() {
    let index = index_of(&fleet());
    assert_eq!(index.label_names(None), ["__name__", "job", "zone"]);
    assert_eq!(index.label_values("zone", None), ["a", "ab", "b"]);
    let load = index.select(&[Matcher::equal("__name__", "load")]);
    assert_eq!(index.label_values("zone", Some(&load)), ["ab", "b"]);
    let db = index.select(&[Matcher::equal("job", "db")]);
    assert_eq!(index.label_names(Some(&db)), ["__name__", "job"]);
    assert!(index.label_values("none", None).is_empty());
}

#[test]
#[should_panic(expected = "series 3 is added behind Some(3)")]
fn a_series_cannot_be_added_twice() {
    let mut index = MemIndex::new();
    index.insert(3, &Labels::empty());
    index.insert(3, &Labels::empty());
}

#[test]
fn memory_grows_with_the_series() {
    let mut index = MemIndex::new();
    let mut before = index.heap_bytes();
    for at in 0..10_000 {
        let value = format!("host-{at}");
        index.insert(
            at,
            &Labels::from_pairs([("__name__", "up"), ("host", &value)]).unwrap(),
        );
        assert!(index.heap_bytes() > before);
        before = index.heap_bytes();
    }
    let each = before / 10_000;
    assert!((40..160).contains(&each), "{each} bytes a series");
}

proptest! {
    #[test]
    fn finds_what_a_scan_finds(series in any_series(), matchers in any_matchers()) {
        let found = index_of(&series).select(&matchers);
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), scan(&series, &matchers), "{:?}", matchers);
    }
}
