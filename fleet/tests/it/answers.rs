//! What several stores answer together is what one would answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_model::{
    Labels, MatchOp, Matcher, MetricMetadata, MetricType, PartitionId, TenantId, TimeRange,
    stale_nan,
};
use millrace_query::{LabelRequest, SampleColumns, Select, SeriesSource, StoredSeries};
use proptest::prelude::*;

use crate::support::{Store, context, read, source, table};
use crate::table::Table;

fn assert_same(fleet: &dyn SeriesSource, one: &Table, matchers: &[Matcher], range: TimeRange) {
    let tenant = TenantId::anonymous();
    let context = context();
    assert_eq!(
        read(fleet, matchers, range, &context).unwrap(),
        read(one, matchers, range, &context).unwrap()
    );
    let select = Select {
        tenant: &tenant,
        matchers,
        range,
        context: &context,
    };
    assert_eq!(fleet.series(&select).unwrap(), one.series(&select).unwrap());
    assert_eq!(newest(fleet, &select), newest(one, &select));
    let sets = [matchers.to_vec()];
    for matcher_sets in [&sets[..], &[]] {
        let request = LabelRequest {
            tenant: &tenant,
            matcher_sets,
            range,
            context: &context,
        };
        assert_eq!(
            fleet.label_names(&request).unwrap(),
            one.label_names(&request).unwrap()
        );
        assert_eq!(
            fleet.label_values("instance", &request).unwrap(),
            one.label_values("instance", &request).unwrap()
        );
    }
    for metric in [None, Some("m")] {
        assert_eq!(
            fleet.metadata(&tenant, metric, &context).unwrap(),
            one.metadata(&tenant, metric, &context).unwrap()
        );
    }
}

/// The last sample of each series that `newest` finds.
fn newest(source: &dyn SeriesSource, select: &Select<'_>) -> BTreeMap<Labels, (i64, u64)> {
    let found = source.newest(select).unwrap();
    let last = |series: &dyn StoredSeries| {
        let mut columns = SampleColumns::default();
        series.read(&mut columns).unwrap();
        let value = columns.values.last().unwrap().to_bits();
        (*columns.timestamps.last().unwrap(), value)
    };
    let last = found.iter().map(|s| (s.labels().clone(), last(&**s)));
    last.collect()
}

fn any_table() -> impl Strategy<Value = Table> {
    let value = prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        any::<i16>().prop_map(f64::from),
        Just(stale_nan()),
        Just(-0.0),
    ];
    let samples = proptest::collection::btree_map(any::<i32>(), value, 1..40);
    let series = (0..20u8, 0..3u8, samples);
    proptest::collection::vec(series, 0..30).prop_map(|all| {
        let mut table = Table::default();
        for (instance, metric, samples) in all {
            let instance = format!("i{instance}");
            let metric = format!("m{metric}");
            let samples: Vec<_> = samples
                .into_iter()
                .map(|(t, v)| (i64::from(t), v))
                .collect();
            table = table.with(&[("__name__", &metric), ("instance", &instance)], &samples);
        }
        for metric in ["m", "m1"] {
            table.metadata.push(MetricMetadata {
                metric: metric.into(),
                metric_type: MetricType::Counter,
                help: "help".into(),
                unit: String::new(),
            });
        }
        table
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn stores_together_answer_like_one(
        table in any_table(),
        split in proptest::sample::select(vec![
            vec![vec![0u32, 1, 2, 3]],
            vec![vec![0, 2], vec![1, 3]],
            vec![vec![0], vec![1], vec![2], vec![3]],
            vec![vec![0, 1, 2, 3], vec![0, 1, 2, 3]],
            vec![vec![0, 1], vec![1, 2, 3], vec![0, 1]],
        ]),
        (start, end) in (any::<i32>(), any::<i32>()),
        pattern in proptest::sample::select(vec!["m.*", "m1|m2", ""]),
    ) {
        let stores: Vec<_> = split
            .iter()
            .enumerate()
            .map(|(n, partitions)| Store::start(&format!("s{n}"), &table, partitions))
            .collect();
        let fleet = source(&stores.iter().collect::<Vec<_>>());
        let matcher = Matcher::new("__name__", MatchOp::Regex, pattern).unwrap();
        let range = TimeRange::new(i64::from(start.min(end)), i64::from(start.max(end)));
        assert_same(&fleet, &table, &[matcher], range);
        assert_same(&fleet, &table, &[], TimeRange::ALL);
    }
}

#[test]
fn long_series_come_whole_over_many_frames() {
    let table = table(3, 120_000);
    let stores = [
        Store::start("a", &table, &[0, 1]),
        Store::start("b", &table, &[2, 3]),
    ];
    let fleet = source(&[&stores[0], &stores[1]]);
    assert_same(&fleet, &table, &[], TimeRange::ALL);
}

#[test]
fn no_partition_is_asked_of_two_stores_and_it_is_counted_what_was_asked() {
    let table = table(20, 10);
    let all = [0, 1, 2, 3];
    let stores = [
        Store::start("a", &table, &all),
        Store::start("b", &table, &all),
    ];
    let fleet = source(&[&stores[0], &stores[1]]);
    let context = context();
    let found = read(&fleet, &[], TimeRange::ALL, &context).unwrap();
    assert_eq!(found.len(), 20);
    assert_eq!(stores[0].reads() + stores[1].reads(), 1);
    let calls = &context.stats.remote_calls;
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);
    let included = context.point.included();
    assert_eq!(included.len(), 4);
    assert_eq!(included[&PartitionId(3)].0, 100);
}

#[test]
fn labels_of_any_text_arrive_as_they_are() {
    let odd = "ä\"\\\n\u{0}{}=,🦀";
    let table = Table::default().with(&[("__name__", odd), ("instance", odd)], &[(1, 2.0)]);
    let store = Store::start("a", &table, &[0, 1, 2, 3]);
    let fleet = source(&[&store]);
    let matcher = Matcher::equal("instance", odd);
    assert_same(&fleet, &table, &[matcher], TimeRange::ALL);
    drop(Arc::new(store));
}
