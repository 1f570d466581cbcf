//! Blocks against a sorted map.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::index::tests::{any_matchers, any_series};

/// Bits as sources send them, and as nobody does.
fn any_bits() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => (0i32..50).prop_map(|v| f64::from(v).to_bits()),
        2 => (-1e4f64..1e4).prop_map(f64::to_bits),
        1 => any::<u64>(),
        1 => Just(millrace_model::STALE_NAN_BITS),
    ]
}

fn any_samples() -> impl Strategy<Value = BTreeMap<i64, u64>> {
    let ends = prop_oneof![8 => -300i64..300, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
    proptest::collection::btree_map(ends, any_bits(), 1..20)
}

fn any_model() -> impl Strategy<Value = Model> {
    let tenant = proptest::sample::select(vec!["a", "b", "c"]);
    let series = (tenant, any_series()).prop_flat_map(|(tenant, series)| {
        let tenant: TenantId = tenant.parse().unwrap();
        let samples = proptest::collection::vec(any_samples(), series.len());
        samples.prop_map(move |samples| {
            let keys = series.iter().map(|l| (tenant.clone(), l.clone()));
            keys.zip(samples).collect::<Vec<_>>()
        })
    });
    let tenants = proptest::collection::vec(series, 1..4);
    tenants
        .prop_map(|all| all.into_iter().flatten().collect::<Model>())
        .prop_filter("a block has series", |model| !model.is_empty())
}

fn any_range() -> impl Strategy<Value = TimeRange> {
    prop_oneof![
        1 => Just(TimeRange::ALL),
        3 => (-310i64..310, 0i64..400).prop_map(|(start, len)| TimeRange::new(start, start + len)),
        1 => Just(TimeRange::new(5, -5)),
    ]
}

/// Resolutions of which two have to be stored.
fn small() -> BlockOptions {
    BlockOptions {
        resolutions: vec![100, 70, 50],
        without_samples: false,
    }
}

proptest! {
    #[test]
    fn a_block_answers_as_a_map_does(
        model in any_model(),
        questions in proptest::collection::vec((any_matchers(), any_range()), 1..6),
    ) {
        let stored = stored_resolutions(&small().resolutions);
        let fs = fs();
        let written = write_with(&fs, &model, TimeRange::ALL, &small());
        let block = BlockReader::open(&fs, Path::new(PATH)).unwrap();
        // Some of its pages fit.
        let pages = Arc::new(PageCache::new(100 << 10));
        let keeping = BlockReader::open(&fs, Path::new(PATH)).unwrap().with_pages(pages);
        prop_assert_eq!(block.summary(), written);
        let verified = block.verify().unwrap();
        let samples: usize = model.values().map(BTreeMap::len).sum();
        prop_assert_eq!((verified.series as usize, verified.samples as usize), (model.len(), samples));
        prop_assert_eq!(verified.bytes, written.section_bytes.iter().sum::<u64>());
        for tenant in ["a", "b", "c", "none"].map(|t| t.parse().unwrap()) {
            for (matchers, range) in &questions {
                let got = answer(&block, &tenant, matchers, *range).unwrap();
                let kept = answer(&keeping, &tenant, matchers, *range).unwrap();
                prop_assert_eq!(&got, &kept);
                prop_assert_eq!(got, expected(&model, &tenant, matchers, *range, &stored), "{:?}", matchers);
            }
            let all = expected(&model, &tenant, &[], TimeRange::ALL, &stored);
            prop_assert_eq!(block.label_names(&tenant, &[]).unwrap(), all.names);
            for (name, values) in all.values {
                let known: Vec<_> = values.iter().step_by(2).cloned().collect();
                let mut joined = block.label_values(&tenant, &name, &[], &known).unwrap();
                joined.extend(known);
                joined.sort();
                prop_assert_eq!(&joined, &values);
                prop_assert_eq!(block.label_values(&tenant, &name, &[], &[]).unwrap(), values);
            }
        }
        let listed: Vec<_> = block.iter().map(|s| s.unwrap()).collect();
        let keys: Vec<_> = listed.iter().map(|(t, s)| (t.clone(), s.labels.clone())).collect();
        prop_assert_eq!(keys, model.keys().cloned().collect::<Vec<_>>());
        for ((tenant, series), samples) in listed.iter().zip(model.values()) {
            prop_assert_eq!(series.id, millrace_model::SeriesHasher::new(tenant).id(&series.labels));
            prop_assert_eq!(series.place.samples() as usize, samples.len());
            let ends = (samples.keys().next().copied(), samples.keys().last().copied());
            let range = series.place.range();
            prop_assert_eq!((Some(range.start.0), Some(range.end.0)), ends);
        }
    }
}

/// Many pages of series, of values and of bitmaps, long series in several chunks, tenants that
/// share pages.
#[test]
fn a_block_of_many_pages_answers_as_a_map_does() {
    let mut model = Model::new();
    for tenant in ["blue", "green", "red"] {
        let tenant: TenantId = tenant.parse().unwrap();
        for host in 0..700 {
            let host_name = format!("host-with-a-rather-long-name-{host}");
            let zone = format!("z{}", host % 3);
            let labels = labels(&[("__name__", "cpu"), ("host", &host_name), ("zone", &zone)]);
            let samples = (0..1 + host % 4 * 900).map(|i| (i * 1_000 - 5_000, (i * host) as u64));
            model.insert((tenant.clone(), labels), samples.collect());
        }
    }
    let stored = [300_000];
    let fs = fs();
    let written = write(&fs, &model, TimeRange::new(-5_000, 10_000_000));
    let bytes: u64 = written.section_bytes.iter().sum();
    assert_eq!(bytes, written.bytes);
    let block = BlockReader::open(&fs, Path::new(PATH)).unwrap();
    assert_eq!(block.verify().unwrap().chunks, written.chunks);
    assert!(block.directory().unwrap().series_pages.len() > 30);
    let matcher = |name: &str, op, value: &str| Matcher::new(name, op, value).unwrap();
    use millrace_model::MatchOp::{NotEqual, NotRegex, Regex};
    let questions = [
        vec![],
        vec![matcher("__name__", NotEqual, "")],
        vec![Matcher::equal("zone", "z1")],
        vec![Matcher::equal("host", "host-with-a-rather-long-name-350")],
        vec![Matcher::equal("host", "host-with-a-rather-long-name-")],
        vec![Matcher::equal("host", "zzz")],
        vec![Matcher::equal("host", "a")],
        vec![
            matcher("host", Regex, "host-with-a-rather-long-name-12.*"),
            Matcher::equal("zone", "z2"),
        ],
        vec![
            matcher("host", Regex, ".*7"),
            matcher("zone", NotRegex, "z[01]"),
        ],
        vec![matcher("host", NotRegex, "host.*")],
    ];
    let ranges = [
        TimeRange::ALL,
        TimeRange::new(-10, 900_500),
        TimeRange::new(1_024_000, 1_024_000),
    ];
    for tenant in ["blue", "red"].map(|t| t.parse().unwrap()) {
        for matchers in &questions {
            for range in ranges {
                let got = answer(&block, &tenant, matchers, range).unwrap();
                let want = expected(&model, &tenant, matchers, range, &stored);
                assert!(got == want, "{matchers:?} in {range:?}");
            }
        }
    }
}

#[test]
fn windows_before_the_epoch_are_ordinary() {
    let key = (TenantId::anonymous(), labels(&[("__name__", "old")]));
    let samples = BTreeMap::from([(-7_200_000, 1), (-7_199_999, 2), (-1, 3)]);
    let model = Model::from([(key, samples)]);
    let fs = fs();
    let window = TimeRange::new(-7_200_000, -1);
    let written = write(&fs, &model, window);
    assert_eq!(
        (written.meta.window, written.samples_range),
        (window, window)
    );
    let block = BlockReader::open(&fs, Path::new(PATH)).unwrap();
    for range in [
        TimeRange::ALL,
        TimeRange::new(-7_199_999, -2),
        TimeRange::new(0, 5),
    ] {
        let tenant = TenantId::anonymous();
        assert_eq!(
            answer(&block, &tenant, &[], range).unwrap(),
            expected(&model, &tenant, &[], range, &[300_000])
        );
    }
}
