use std::path::Path;

use millrace_model::{Clock, ManualClock, MatchOp};
use millrace_query::api::AlwaysFresh;
use millrace_query::{
    CancelFlag, Engine, EngineOptions, SampleColumns, Select, SeriesSource, SourceError,
    StoredSeries,
};
use prometheus::Registry;

use super::*;
use crate::metrics::Metrics;
use crate::notify::{Notifier, Post, Transport};
use crate::world::{Appended, RulesOptions, RulesWorld, Sink};
use crate::{Files, GlobalConfig, check_file};

/// Samples by series: what is read, and what is written.
#[derive(Clone, Debug, Default)]
struct Table(Arc<Mutex<BTreeMap<Labels, BTreeMap<i64, f64>>>>);

impl Table {
    fn put(&self, labels: &[(&str, &str)], moment: i64, value: f64) {
        let labels = Labels::from_pairs(labels.iter().copied()).unwrap();
        self.0
            .lock()
            .entry(labels)
            .or_default()
            .insert(moment, value);
    }

    /// The samples of a metric, markers as `-`.
    fn of(&self, metric: &str) -> Vec<String> {
        let shown = |(labels, samples): (&Labels, &BTreeMap<i64, f64>)| {
            let samples: Vec<_> = samples
                .iter()
                .map(|(moment, value)| match millrace_model::is_stale(*value) {
                    true => format!("-@{}", moment / 1000),
                    false => format!("{value}@{}", moment / 1000),
                })
                .collect();
            format!("{labels} {}", samples.join(" "))
        };
        let all = self.0.lock();
        let named = all
            .iter()
            .filter(|(labels, _)| labels.metric_name() == Some(metric));
        named.map(shown).collect()
    }
}

struct Stored(Labels, Vec<(i64, f64)>);

impl StoredSeries for Stored {
    fn labels(&self) -> &Labels {
        &self.0
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        self.1
            .iter()
            .for_each(|(moment, value)| out.push(*moment, *value));
        Ok(())
    }
}

impl SeriesSource for Table {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let all = self.0.lock();
        let passes = |labels: &Labels| {
            request.matchers.iter().all(|m| {
                assert!(m.op() == MatchOp::Equal || !m.name().is_empty());
                m.matches_labels(labels)
            })
        };
        let range = request.range.start.0..=request.range.end.0;
        let found = all.iter().filter(|(labels, _)| passes(labels));
        Ok(found
            .map(|(labels, samples)| {
                let samples = samples
                    .range(range.clone())
                    .map(|(m, v)| (*m, *v))
                    .collect();
                Box::new(Stored(labels.clone(), samples)) as Box<dyn StoredSeries>
            })
            .collect())
    }
}

impl Sink for Table {
    fn is_ready(&self) -> bool {
        true
    }

    fn append(&self, _: &TenantId, samples: Vec<(Labels, Sample)>) -> Result<Appended, String> {
        let mut all = self.0.lock();
        for (labels, sample) in samples {
            all.entry(labels)
                .or_default()
                .insert(sample.timestamp.0, sample.value);
        }
        Ok(Appended::default())
    }
}

#[derive(Debug)]
struct Nowhere;

impl Files for Nowhere {
    fn matching(&self, _: &Path) -> Result<Vec<(std::path::PathBuf, String)>, String> {
        Ok(Vec::new())
    }
}

impl Transport for Nowhere {
    fn post(&self, _: &Post<'_>) -> Result<u16, String> {
        Err("nobody is there".to_owned())
    }
}

struct Rig {
    table: Table,
    clock: Arc<ManualClock>,
    shared: Shared,
}

impl Rig {
    fn new(options: RulesOptions) -> Self {
        let table = Table::default();
        let clock = Arc::new(ManualClock::new(TimestampMs(0)));
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let engine = EngineOptions {
            threads: 1,
            ..EngineOptions::default()
        };
        let source: Arc<dyn SeriesSource> = Arc::new(table.clone());
        let shared = Shared {
            world: RulesWorld {
                engine: Arc::new(Engine::new(source.clone(), engine)),
                source,
                freshness: Arc::new(AlwaysFresh),
                sink: Arc::new(table.clone()),
                clock: clock.clone(),
            },
            notifier: Notifier::new(
                Arc::new(Nowhere),
                Arc::new(Nowhere),
                clock.clone(),
                metrics.clone(),
                options.notification_capacity,
            ),
            options,
            metrics,
            cancel: CancelFlag::default(),
        };
        Self {
            table,
            clock,
            shared,
        }
    }

    fn spec(&self, rules: &str) -> GroupSpec {
        let text = format!("groups:\n- name: g\n  interval: 10s\n  rules:\n{rules}");
        let global = GlobalConfig::default();
        let groups = check_file(
            Path::new("r.yml"),
            &text,
            &global,
            &self.shared.world.engine,
        );
        groups.unwrap().remove(0)
    }

    /// A group after the first load, or one that another follows.
    fn group(&self, rules: &str, before: Option<&Group>, restored: bool) -> Group {
        Group::new(self.spec(rules), Vec::new(), before, restored)
    }

    fn evaluate(&self, group: &Group, second: i64) {
        let moment = TimestampMs(second * 1000);
        let now = self.clock.now();
        let forward = u64::try_from(moment.0 - now.0).unwrap();
        self.clock.advance(Duration::from_millis(forward));
        group.evaluate(&self.shared, moment);
    }
}

fn without_correction() -> RulesOptions {
    RulesOptions {
        correct_window: Duration::ZERO,
        ..RulesOptions::default()
    }
}

#[test]
fn results_are_written_and_end_with_a_marker() {
    let rig = Rig::new(without_correction());
    let group = rig.group(
        "  - {record: 'a:sum', expr: 'sum by (x) (m > 1)', labels: {l: v}}\n",
        None,
        true,
    );
    rig.table.put(&[("__name__", "m"), ("x", "1")], 9_000, 5.0);
    rig.table.put(&[("__name__", "m"), ("x", "2")], 9_000, 7.0);
    rig.evaluate(&group, 10);
    rig.table.put(&[("__name__", "m"), ("x", "2")], 19_000, 1.0);
    rig.evaluate(&group, 20);
    rig.evaluate(&group, 30);
    assert_eq!(
        rig.table.of("a:sum"),
        [
            "a:sum{l=\"v\", x=\"1\"} 5@10 5@20 5@30",
            "a:sum{l=\"v\", x=\"2\"} 7@10 -@20",
        ]
    );
}

#[test]
fn a_rule_reads_what_the_one_before_it_has_made() {
    let rig = Rig::new(without_correction());
    let rules = "  - {record: b, expr: vector(2)}\n  - {record: c, expr: b * 3}\n  - {alert: A, expr: c > 5}\n  \
                 - {record: d, expr: 'count(ALERTS)'}\n";
    let group = rig.group(rules, None, true);
    rig.evaluate(&group, 10);
    assert_eq!(rig.table.of("c"), ["c 6@10"]);
    assert_eq!(rig.table.of("d"), ["d 1@10"]);
}

#[test]
fn a_rule_that_fails_ends_nothing_and_says_why() {
    let rig = Rig::new(without_correction());
    let rules = "  - {record: b, expr: 'm / on () n'}\n  - {record: c, expr: vector(1)}\n";
    let group = rig.group(rules, None, true);
    rig.table.put(&[("__name__", "m")], 9_000, 6.0);
    rig.table.put(&[("__name__", "n"), ("x", "1")], 9_000, 2.0);
    rig.evaluate(&group, 10);
    rig.table.put(&[("__name__", "n"), ("x", "2")], 19_000, 2.0);
    rig.evaluate(&group, 20);
    assert_eq!(rig.table.of("b"), ["b 3@10"]);
    assert_eq!(rig.table.of("c"), ["c 1@10 1@20"]);
    let state = group.rules[0].lock();
    assert_eq!(state.good, Some(false));
    assert!(
        state.last_error.contains("found duplicate series"),
        "{}",
        state.last_error
    );
}

#[test]
fn limits_and_equal_label_sets_are_errors() {
    let rig = Rig::new(without_correction());
    for x in ["1", "2"] {
        rig.table.put(&[("__name__", "m"), ("x", x)], 9_000, 5.0);
    }
    let error = |rules: &str, limit: u64| {
        let mut spec = rig.spec(rules);
        spec.limit = limit;
        let group = Group::new(spec, Vec::new(), None, true);
        group.evaluate(&rig.shared, TimestampMs(10_000));
        group.rules[0].lock().last_error.clone()
    };
    assert_eq!(error("  - {record: b, expr: m}\n", 2), "");
    assert_eq!(
        error("  - {record: b, expr: m}\n", 1),
        "exceeded limit of 1 with 2 series"
    );
    assert_eq!(
        error("  - {record: b, expr: m, labels: {x: same}}\n", 0),
        "vector contains metrics with the same labelset after applying rule labels"
    );
    assert_eq!(
        error("  - {alert: B, expr: m, labels: {x: same}}\n", 0),
        "vector contains metrics with the same labelset after applying alert labels"
    );
}

#[test]
fn a_changed_group_goes_on_with_its_alerts_and_ends_what_is_gone() {
    let rig = Rig::new(without_correction());
    let alert = "  - {alert: A, expr: vector(1), for: 20s}\n";
    let first = rig.group(
        &format!("{alert}  - {{record: old, expr: vector(1)}}\n"),
        None,
        true,
    );
    rig.evaluate(&first, 10);
    let second = rig.group(
        &format!("  - {{record: new, expr: vector(1)}}\n{alert}"),
        Some(&first),
        true,
    );
    rig.evaluate(&first, 20);
    rig.evaluate(&second, 20);
    rig.evaluate(&second, 30);
    assert_eq!(
        rig.table.of("old"),
        ["old 1@10 -@20"],
        "the one before writes no more"
    );
    assert_eq!(rig.table.of("new"), ["new 1@20 1@30"]);
    assert_eq!(
        rig.table.of("ALERTS"),
        [
            "ALERTS{alertname=\"A\", alertstate=\"firing\"} 1@30",
            "ALERTS{alertname=\"A\", alertstate=\"pending\"} 1@10 1@20 -@30",
        ]
    );
    assert_eq!(
        rig.table.of("ALERTS_FOR_STATE"),
        ["ALERTS_FOR_STATE{alertname=\"A\"} 10@10 10@20 10@30"]
    );
}

#[test]
fn after_a_restart_an_alert_has_waited_already() {
    let rig = Rig::new(RulesOptions {
        for_grace_period: Duration::from_secs(20),
        ..without_correction()
    });
    let rules = "  - {alert: A, expr: vector(1), for: 30s}\n";
    let first = rig.group(rules, None, true);
    for second in [10, 20, 30, 40] {
        rig.evaluate(&first, second);
    }
    let state = |group: &Group| {
        let state = group.rules[0].lock();
        let alert = state.alerts.shown().next().unwrap().clone();
        (format!("{:?}", alert.state), alert.active_at.0 / 1000)
    };
    assert_eq!(state(&first), ("Firing".to_owned(), 10));
    let second = rig.group(rules, None, false);
    rig.evaluate(&second, 60);
    assert_eq!(rig.table.of("ALERTS_FOR_STATE").len(), 1);
    assert!(
        rig.table.of("ALERTS_FOR_STATE")[0].ends_with("10@40"),
        "nothing is written before"
    );
    rig.evaluate(&second, 70);
    assert_eq!(
        state(&second),
        ("Pending".to_owned(), 10),
        "restored behind the second evaluation"
    );
    rig.evaluate(&second, 80);
    assert_eq!(state(&second), ("Firing".to_owned(), 10));
    assert!(rig.table.of("ALERTS_FOR_STATE")[0].ends_with("10@40 10@80"));
}

#[test]
fn late_data_correct_what_was_recorded() {
    let rig = Rig::new(RulesOptions {
        correct_window: Duration::from_secs(60),
        ..RulesOptions::default()
    });
    let group = rig.group(
        "  - {record: s, expr: 'sum by (x) (m > 0)'}\n  - {record: t, expr: s * 10}\n",
        None,
        true,
    );
    let put = |x: &str, second: i64, value: f64| {
        rig.table
            .put(&[("__name__", "m"), ("x", x)], second * 1000, value);
    };
    put("1", 5, 1.0);
    put("2", 5, 1.0);
    for second in [10, 20, 30] {
        rig.evaluate(&group, second);
    }
    assert_eq!(
        rig.table.of("s"),
        ["s{x=\"1\"} 1@10 1@20 1@30", "s{x=\"2\"} 1@10 1@20 1@30"]
    );
    // Late: a change, a series that was gone for a while, and one that nobody knew.
    put("1", 15, 4.0);
    put("2", 15, 0.0);
    put("2", 25, 1.0);
    put("3", 12, 7.0);
    put("3", 28, 0.0);
    rig.evaluate(&group, 40);
    let corrected = [
        "s{x=\"1\"} 1@10 4@20 4@30 4@40",
        "s{x=\"2\"} 1@10 -@20 1@30 1@40",
        "s{x=\"3\"} 7@20 -@30",
    ];
    assert_eq!(rig.table.of("s"), corrected);
    assert_eq!(
        rig.table.of("t"),
        [
            "t{x=\"1\"} 10@10 40@20 40@30 40@40",
            "t{x=\"2\"} 10@10 -@20 10@30 10@40",
            "t{x=\"3\"} 70@20 -@30"
        ]
    );
    let before = rig.shared.metrics.corrected.get();
    rig.evaluate(&group, 50);
    assert_eq!(
        rig.shared.metrics.corrected.get(),
        before,
        "what is right is not written again"
    );
    // Beyond the window nothing changes.
    put("1", 8, 100.0);
    rig.evaluate(&group, 120);
    assert!(rig.table.of("s")[0].starts_with("s{x=\"1\"} 1@10 4@20"));
}

#[test]
fn moments_are_those_of_prometheus() {
    let rig = Rig::new(without_correction());
    let mut spec = rig.spec("  - {record: b, expr: vector(1)}\n");
    spec.interval = Duration::from_secs(10);
    let group = Group::new(spec, Vec::new(), None, true);
    let now = 1_700_000_000_000_000_000;
    let slot = group.slot(now);
    assert!(slot <= now && now - slot < 10_000_000_000, "{slot}");
    assert_eq!(group.slot(slot), slot);
    assert_eq!(group.slot(slot + 9_999_999_999), slot);
    assert_eq!(group.slot(slot + 10_000_000_000), slot + 10_000_000_000);
    let bytes = b"file\xffr.yml\xffname\xffg\xff".to_vec();
    let offset = xxh64(&bytes, 0) % 10_000_000_000;
    assert_eq!(slot.rem_euclid(10_000_000_000).unsigned_abs(), offset);
}
