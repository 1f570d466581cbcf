use super::*;
use crate::IngestOptions;
use crate::core::Core;
use crate::memory::{DECODING, MemoryBudget};
use crate::metrics::Metrics;
use crate::testing::{NOW, stored};
use millrace_model::{Clock, ManualClock, QueueId, ShardKey, TenantId, is_stale};
use millrace_queue::QueueIdentity;
use millrace_relabel::{RuleConfig, Rules};
use prometheus::{IntGauge, Registry};
use std::io::Write as _;

/// One target, and what has been stored of it.
struct Rig {
    core: Core,
    memory: MemoryBudget,
    clock: ManualClock,
    scratch: Scratch,
    target: TargetSeries,
    fate: Fate,
}

/// What becomes of what is written.
enum Fate {
    Durable,
    /// It is submitted, and then nobody knows.
    Unknown,
    Refused,
}

fn options() -> TargetOptions {
    TargetOptions {
        tenant: TenantId::anonymous(),
        labels: vec![("instance".into(), "i".into()), ("job".into(), "j".into())],
        honor_labels: false,
        honor_timestamps: true,
        track_timestamps_staleness: false,
        metric_relabel: Arc::new(Rules::default()),
        limits: ScrapeLimits::default(),
        extras: None,
    }
}

fn rules(yaml: &[RuleConfig]) -> Arc<Rules> {
    Arc::new(Rules::new(yaml).unwrap())
}

impl Rig {
    fn new(options: TargetOptions) -> Self {
        let metrics = Metrics::new(&Registry::new());
        let queue = QueueIdentity {
            id: QueueId(1),
            partitions: 4,
            shard_key: ShardKey::default(),
        };
        Self {
            core: Core::new(IngestOptions::default(), queue, 8 << 20, &metrics),
            memory: MemoryBudget::new(1 << 20, Arc::default(), DECODING, None),
            clock: ManualClock::new(TimestampMs(NOW)),
            scratch: Scratch::default(),
            target: TargetSeries::new(options),
            fate: Fate::Durable,
        }
    }

    /// Puts other limits of the tenant in force.
    fn limit(&self, limits: crate::TenantLimits) {
        let overrides = [(TenantId::anonymous(), limits)].into();
        self.core.tenants().set_overrides(overrides);
    }

    /// Scrapes, and returns what was stored (own series first, report series under their names) and
    /// what came of it.
    fn scrape(&mut self, body: Result<&str, &str>) -> (Vec<String>, ScrapeOutcome) {
        self.scrape_as(ScrapeFormat::Text, body)
    }

    fn scrape_as(
        &mut self,
        format: ScrapeFormat,
        body: Result<&str, &str>,
    ) -> (Vec<String>, ScrapeOutcome) {
        self.clock.advance(Duration::from_secs(1));
        let body = body.map(|text| ScrapeBody {
            bytes: text.as_bytes().to_vec(),
            memory: self.memory.reserve_none(&Arc::default()),
            limit: 1 << 20,
            encoding: Encoding::Identity,
            format,
        });
        let scrape = Scrape {
            body: body.map_err(|error| ScrapeFailure::Fetch(error.to_owned())),
            time: self.clock.now(),
            began: self.clock.monotonic(),
        };
        let written = self
            .target
            .scrape(&self.core, &self.clock, scrape, &mut self.scratch);
        let written = written.unwrap();
        let (series, count) = stored(&written.sections);
        assert_eq!(count, written.outcome.stored);
        match self.fate {
            Fate::Durable => self.target.written(written.number),
            Fate::Unknown => {}
            Fate::Refused => self.target.not_submitted(),
        }
        (self.shown(&series), written.outcome)
    }

    /// Own series as `labels value`, with `@ms` where the time is not that of the scrape.
    fn shown(&self, series: &crate::testing::Stored) -> Vec<String> {
        let mut shown = Vec::new();
        for (labels, samples) in series {
            for (ms, bits) in samples {
                let value = f64::from_bits(*bits);
                let value = match is_stale(value) {
                    true => "stale".to_owned(),
                    false => value.to_string(),
                };
                let at = match ms - self.clock.now().0 {
                    0 => String::new(),
                    offset => format!("@{offset}"),
                };
                let labels = labels.replace("{instance=\"i\", job=\"j\"}", "");
                shown.push(format!("{labels} {value}{at}"));
            }
        }
        shown
    }

    /// The same without the report series.
    fn own(&mut self, body: Result<&str, &str>) -> Vec<String> {
        let (mut shown, _) = self.scrape(body);
        shown.retain(|line| !line.starts_with("up ") && !line.starts_with("scrape_"));
        shown
    }
}

#[test]
fn a_scrape_is_its_samples_and_its_report() {
    let mut rig = Rig::new(options());
    let (shown, outcome) = rig.scrape(Ok("# TYPE a counter\na 1\nb{x=\"y\"} 2.5\n"));
    assert_eq!(
        shown,
        [
            "a 1",
            "b{instance=\"i\", job=\"j\", x=\"y\"} 2.5",
            "scrape_duration_seconds 0",
            "scrape_samples_post_metric_relabeling 2",
            "scrape_samples_scraped 2",
            "scrape_series_added 2",
            "up 1",
        ]
    );
    assert_eq!((outcome.error, outcome.markers), (None, 0));
    let (shown, _) = rig.scrape(Ok("a 1\nb{x=\"y\"} 2.5\n"));
    assert!(
        shown.contains(&"scrape_series_added 0".to_owned()),
        "{shown:?}"
    );
    assert_eq!(rig.target.metadata()[0].metric, "a");
}

#[test]
fn what_is_gone_is_marked_once_and_comes_back() {
    let mut rig = Rig::new(options());
    assert_eq!(rig.own(Ok("a 1\nb 1\n")), ["a 1", "b 1"]);
    assert_eq!(rig.own(Ok("a 2\n")), ["a 2", "b stale"]);
    assert_eq!(rig.own(Ok("a 3\n")), ["a 3"]);
    assert_eq!(rig.own(Ok("a 4\nb 4\n")), ["a 4", "b 4"]);
}

#[test]
fn a_failed_scrape_marks_everything_and_says_down() {
    let mut rig = Rig::new(options());
    rig.own(Ok("a 1\nb 1\n"));
    let (shown, outcome) = rig.scrape(Err("connection refused"));
    assert_eq!(shown[..2], ["a stale", "b stale"]);
    assert!(shown.contains(&"up 0".to_owned()), "{shown:?}");
    assert_eq!(outcome.error.as_deref(), Some("connection refused"));
    assert_eq!(rig.own(Err("still")), Vec::<String>::new());
    let (shown, outcome) = rig.scrape(Ok("a 2\nb 2\n"));
    assert_eq!(shown[..2], ["a 2", "b 2"]);
    // As in Prometheus: they were known all the time.
    assert_eq!(outcome.series_new, 0);
}

#[test]
fn a_body_that_breaks_off_half_way_stores_nothing_but_markers() {
    let mut rig = Rig::new(options());
    rig.own(Ok("a 1\nb 1\n"));
    let (shown, outcome) = rig.scrape(Ok("a 2\nc 2\nthis is nothing\n"));
    assert_eq!(shown[..2], ["a stale", "b stale"]);
    assert!(
        !shown.iter().any(|line| line.starts_with("c ")),
        "{shown:?}"
    );
    assert!(
        shown.contains(&"scrape_samples_scraped 2".to_owned()),
        "{shown:?}"
    );
    assert!(outcome.error.unwrap().starts_with("line 3, byte "));
    // What was never stored needs no marker.
    assert_eq!(rig.own(Ok("a 3\n")), ["a 3"]);
}

#[test]
fn markers_that_did_not_become_durable_are_written_again() {
    let mut rig = Rig::new(options());
    rig.own(Ok("a 1\nb 1\n"));
    rig.fate = Fate::Unknown;
    assert_eq!(rig.own(Ok("a 2\n")), ["a 2", "b stale"]);
    assert_eq!(rig.own(Ok("a 3\n")), ["a 3", "b stale"]);
    rig.fate = Fate::Durable;
    assert_eq!(rig.own(Ok("a 4\n")), ["a 4", "b stale"]);
    assert_eq!(rig.own(Ok("a 5\n")), ["a 5"]);
}

#[test]
fn timestamps_of_the_exposition_are_taken_or_not() {
    let at = NOW - 5000;
    let body = format!("a 1 {at}\n");
    let mut rig = Rig::new(options());
    assert_eq!(rig.own(Ok(&body)), ["a 1@-6000"]);
    // Series with times of their own get no markers…
    assert_eq!(rig.own(Ok("")), Vec::<String>::new());
    // …unless that is asked for.
    let mut rig = Rig::new(TargetOptions {
        track_timestamps_staleness: true,
        ..options()
    });
    rig.own(Ok(&body));
    assert_eq!(rig.own(Ok("")), ["a stale"]);
    let mut rig = Rig::new(TargetOptions {
        honor_timestamps: false,
        ..options()
    });
    assert_eq!(rig.own(Ok(&body)), ["a 1"]);
    assert_eq!(rig.own(Ok("")), ["a stale"]);
}

#[test]
fn labels_in_conflict_are_moved_or_honoured() {
    let body = "a{instance=\"x\",exported_instance=\"y\"} 1\nb{instance=\"\"} 2\n";
    let mut rig = Rig::new(options());
    assert_eq!(
        rig.own(Ok(body)),
        [
            "a{exported_exported_instance=\"x\", exported_instance=\"y\", instance=\"i\", job=\"j\"} 1",
            "b 2",
        ]
    );
    let mut rig = Rig::new(TargetOptions {
        honor_labels: true,
        ..options()
    });
    assert_eq!(
        rig.own(Ok(body)),
        [
            "a{exported_instance=\"y\", instance=\"x\", job=\"j\"} 1",
            "b{job=\"j\"} 2"
        ]
    );
}

#[test]
fn rules_drop_and_rename_and_are_counted() {
    let drop_go = RuleConfig {
        source_labels: vec!["__name__".into()],
        regex: "go_.*".into(),
        action: millrace_relabel::Action::Drop,
        ..RuleConfig::default()
    };
    let rename = RuleConfig {
        source_labels: vec!["__name__".into()],
        regex: "old_(.*)".into(),
        target_label: "__name__".into(),
        replacement: "new_$1".into(),
        ..RuleConfig::default()
    };
    let mut rig = Rig::new(TargetOptions {
        metric_relabel: rules(&[drop_go, rename]),
        ..options()
    });
    for series_new in [2, 0] {
        let (shown, outcome) = rig.scrape(Ok("go_gc 1\nold_a 2\nb 3\n"));
        assert_eq!(shown[..2], ["b 3", "new_a 2"]);
        assert_eq!((outcome.samples, outcome.samples_kept), (3, 2));
        assert_eq!(outcome.series_new, series_new);
    }
    assert_eq!(rig.own(Ok("go_gc 1\nb 3\n")), ["b 3", "new_a stale"]);
}

#[test]
fn a_breach_of_a_limit_fails_the_whole_scrape() {
    let none = ScrapeLimits::default();
    for (limits, body, says) in [
        (
            ScrapeLimits { samples: 2, ..none },
            "a 1\nb 2\nc 3\n",
            "sample limit exceeded",
        ),
        (
            ScrapeLimits { labels: 3, ..none },
            "a{x=\"y\"} 1\n",
            "label_limit exceeded",
        ),
        (
            ScrapeLimits {
                label_name_length: 8,
                ..none
            },
            "a{much_too_long=\"y\"} 1\n",
            "label_name_length_limit exceeded",
        ),
        (
            ScrapeLimits {
                label_value_length: 4,
                ..none
            },
            "a{x=\"much too long\"} 1\n",
            "label_value_length_limit exceeded",
        ),
        (
            ScrapeLimits {
                body_size: 4,
                ..none
            },
            "a 1\nb 2\n",
            "body size limit exceeded",
        ),
    ] {
        let mut rig = Rig::new(with_limits(limits));
        let (shown, outcome) = rig.scrape(Ok(body));
        let error = outcome.error.unwrap();
        assert!(error.starts_with(says), "{error}");
        assert!(shown.contains(&"up 0".to_owned()), "{shown:?}");
        assert_eq!(shown.len(), 5, "{shown:?}");
    }
    let mut rig = Rig::new(with_limits(ScrapeLimits { samples: 2, ..none }));
    assert_eq!(rig.own(Ok("a 1\nb 2\n")).len(), 2);
}

fn with_limits(limits: ScrapeLimits) -> TargetOptions {
    TargetOptions {
        limits,
        ..options()
    }
}

#[test]
fn the_first_of_two_samples_of_one_moment_stands() {
    let mut rig = Rig::new(options());
    let (shown, outcome) = rig.scrape(Ok("a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2\n"));
    assert!(shown[0].ends_with(" 1"), "{shown:?}");
    assert_eq!((outcome.duplicates, outcome.samples_kept), (1, 2));
    // Written in another order it is the same series: no marker.
    assert_eq!(rig.own(Ok("a{y=\"2\",x=\"1\"} 3\n")).len(), 1);
}

#[test]
fn bounds_of_buckets_are_the_same_series_however_they_are_written() {
    let mut rig = Rig::new(options());
    let bucket = |le: &str| format!("# TYPE h histogram\nh_bucket{{le=\"{le}\"}} 1\n");
    let stored = ["h_bucket{instance=\"i\", job=\"j\", le=\"1.0\"} 1"];
    for le in ["1", "1.0", "1e0"] {
        assert_eq!(rig.own(Ok(&bucket(le))), stored, "{le}");
    }
    let gauge = "# TYPE g gauge\ng{le=\"1\"} 1\n";
    let shown = rig.own(Ok(gauge)).concat();
    assert!(
        shown.starts_with("g{instance=\"i\", job=\"j\", le=\"1\"} 1"),
        "{shown}"
    );
}

#[test]
fn open_metrics_must_end() {
    let mut rig = Rig::new(options());
    let (_, outcome) = rig.scrape_as(ScrapeFormat::OpenMetrics, Ok("a 1\n"));
    assert_eq!(
        outcome.error.as_deref(),
        Some("data does not end with # EOF")
    );
    let (shown, outcome) = rig.scrape_as(ScrapeFormat::OpenMetrics, Ok("a 1\n# EOF\n"));
    assert_eq!((shown[0].as_str(), outcome.error), ("a 1", None));
}

#[test]
fn further_report_series_say_timeout_limit_and_size() {
    let mut rig = Rig::new(TargetOptions {
        extras: Some(ReportExtras {
            timeout: Duration::from_millis(1500),
        }),
        limits: ScrapeLimits {
            body_size: 6,
            ..ScrapeLimits::default()
        },
        ..options()
    });
    let (shown, _) = rig.scrape(Ok("a 1\n"));
    for line in [
        "scrape_timeout_seconds 1.5",
        "scrape_sample_limit 0",
        "scrape_body_size_bytes 4",
    ] {
        assert!(shown.contains(&line.to_owned()), "{line}: {shown:?}");
    }
    let (shown, _) = rig.scrape(Ok("a 1\nb 2\n"));
    assert!(
        shown.contains(&"scrape_body_size_bytes -1".to_owned()),
        "{shown:?}"
    );
}

#[test]
fn the_end_of_a_target_marks_all_that_nobody_else_has() {
    let mut rig = Rig::new(options());
    rig.own(Ok("a 1\nb 1\n"));
    let ids: Vec<_> = rig.target.series().collect();
    assert_eq!(ids.len(), 7);
    let elsewhere = HashSet::from([ids[0]]);
    let (core, scratch) = (&rig.core, &mut rig.scratch);
    let written = rig.target.end(core, rig.clock.now(), &elsewhere, scratch);
    let (series, _) = stored(&written.sections);
    let shown = rig.shown(&series);
    assert_eq!(shown.len(), 6, "{shown:?}");
    assert!(
        shown.iter().all(|line| line.ends_with(" stale")),
        "{shown:?}"
    );
    assert!(shown.contains(&"up stale".to_owned()), "{shown:?}");
}

#[test]
fn other_rules_mark_what_they_no_longer_make() {
    let mut rig = Rig::new(options());
    rig.own(Ok("a 1\nb 1\n"));
    let drop_a = RuleConfig {
        source_labels: vec!["__name__".into()],
        regex: "a".into(),
        action: millrace_relabel::Action::Drop,
        ..RuleConfig::default()
    };
    rig.target.reconfigure(TargetOptions {
        metric_relabel: rules(&[drop_a]),
        ..options()
    });
    assert_eq!(rig.own(Ok("a 2\nb 2\n")), ["a stale", "b 2"]);
}

#[test]
fn memory_does_not_grow_with_series_that_are_gone() {
    let mut rig = Rig::new(options());
    for round in 0..50 {
        let body: String = (0..20)
            .map(|i| format!("m{{i=\"{round}-{i}\"}} 1\n"))
            .collect();
        rig.own(Ok(&body));
    }
    assert!(
        rig.target.slots_len() <= 60,
        "{} slots",
        rig.target.slots_len()
    );
    assert_eq!(rig.target.keys.len(), 20);
}

/// Scrapes a hundred times what has a hundred new series each time.
fn churn(rig: &mut Rig) {
    for round in 0..100 {
        let body: String = (0..100)
            .map(|i| format!("m{{i=\"{round}-{i}\"}} 1\n"))
            .collect();
        rig.own(Ok(&body));
        let known = rig.target.keys.len().max(rig.target.slots_len());
        assert!(known <= 1400, "{known} are known in round {round}");
    }
}

#[test]
fn memory_does_not_grow_while_scrapes_fail() {
    let mut rig = Rig::new(with_limits(ScrapeLimits {
        samples: 50,
        ..ScrapeLimits::default()
    }));
    rig.own(Ok("a 1\nb 1\n"));
    churn(&mut rig);
    assert_eq!(rig.own(Ok("a 2\n")), ["a 2"]);
}

#[test]
fn memory_does_not_grow_while_the_queue_takes_nothing() {
    let mut rig = Rig::new(options());
    rig.own(Ok("a 1\nb 1\n"));
    rig.fate = Fate::Refused;
    churn(&mut rig);
    rig.fate = Fate::Durable;
    // Markers for what the queue has a sample of, and for nothing else.
    assert_eq!(rig.own(Ok("a 2\n")), ["a 2", "b stale"]);
    assert_eq!(rig.own(Ok("a 3\n")), ["a 3"]);
}

#[test]
fn markers_of_another_scrape_are_not_noted_as_durable() {
    let mut rig = Rig::new(options());
    rig.own(Ok("a 1\nb 1\n"));
    let before = rig.target.number;
    rig.fate = Fate::Unknown;
    assert_eq!(rig.own(Ok("a 2\n")), ["a 2", "b stale"]);
    // The loop before a reload hears that its scrape is durable; this one never is.
    rig.target.written(before);
    assert_eq!(rig.own(Ok("a 3\n")), ["a 3", "b stale"]);
}

/// A clock that notes how much is reserved whenever it is looked at.
#[derive(Debug)]
struct Watching<'a> {
    clock: &'a ManualClock,
    reserved: IntGauge,
    seen: Mutex<Vec<i64>>,
}

impl Clock for Watching<'_> {
    fn now(&self) -> TimestampMs {
        self.clock.now()
    }

    fn monotonic(&self) -> Duration {
        self.seen.lock().push(self.reserved.get());
        self.clock.monotonic()
    }
}

#[test]
fn decompressed_bytes_count_as_long_as_they_are_there() {
    let mut rig = Rig::new(options());
    let reserved = IntGauge::new("reserved", "bytes").unwrap();
    let memory = MemoryBudget::new(1 << 20, Arc::default(), DECODING, Some(reserved.clone()));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"a 1\n").unwrap();
    let scrape = Scrape {
        body: Ok(ScrapeBody {
            bytes: packed.finish().unwrap(),
            memory: memory.reserve_none(&Arc::default()),
            limit: 1 << 20,
            encoding: Encoding::Gzip,
            format: ScrapeFormat::Text,
        }),
        time: rig.clock.now(),
        began: rig.clock.monotonic(),
    };
    let clock = Watching {
        clock: &rig.clock,
        reserved: reserved.clone(),
        seen: Mutex::default(),
    };
    let (core, scratch) = (&rig.core, &mut rig.scratch);
    let written = rig.target.scrape(core, &clock, scrape, scratch).unwrap();
    assert_eq!((written.outcome.error, written.outcome.samples), (None, 1));
    // Its last look is behind the parsing.
    let last = *clock.seen.lock().last().unwrap();
    assert!(last > 0, "{:?}", clock.seen);
    assert_eq!(reserved.get(), 0);
}

#[test]
fn series_beyond_the_limit_of_the_tenant_are_named_and_the_others_go_on() {
    let mut rig = Rig::new(options());
    let at_most = |active_series| crate::TenantLimits {
        active_series: Some(active_series),
        ..crate::TenantLimits::default()
    };
    rig.limit(at_most(2));
    assert_eq!(rig.own(Ok("a 1\nb 1\n")), ["a 1", "b 1"]);
    let (shown, outcome) = rig.scrape(Ok("a 2\nb 2\nc 2\nd 2\n"));
    assert!(shown.contains(&"a 2".to_owned()) && shown.contains(&"up 1".to_owned()));
    assert!(
        !shown.iter().any(|line| line.starts_with("c ")),
        "{shown:?}"
    );
    assert_eq!((outcome.error, outcome.refused), (None, 2));
    let refusal = outcome.refusal.unwrap();
    assert!(refusal.starts_with("line 3, c: "), "{refusal}");
    assert!(refusal.contains("the limit is 2") && refusal.ends_with("(too_many_active_series)"));
    // What never was stored gets no marker, and is asked for again each time.
    assert_eq!(
        rig.own(Ok("a 3\nc 3\n")),
        ["a 3", "b NaN"].map(|s| s.replace("NaN", "stale"))
    );
    rig.limit(at_most(3));
    assert_eq!(rig.own(Ok("a 4\nc 4\nd 4\n")), ["a 4", "c 4"]);
    // Five minutes later they are told of anew, and still known.
    rig.clock.advance(Duration::from_secs(400));
    let (_, outcome) = rig.scrape(Ok("a 5\nc 5\nd 5\n"));
    assert_eq!(outcome.refused, 1);
    assert_eq!(rig.own(Ok("a 6\nc 6\n")), ["a 6", "c 6"]);
}

#[test]
fn a_scrape_that_fails_counts_no_series_of_its_tenant() {
    let mut rig = Rig::new(TargetOptions {
        limits: ScrapeLimits {
            samples: 2,
            ..ScrapeLimits::default()
        },
        ..options()
    });
    rig.limit(crate::TenantLimits {
        active_series: Some(2),
        ..crate::TenantLimits::default()
    });
    let (_, outcome) = rig.scrape(Ok("x 1\ny 1\nz 1\n"));
    assert_eq!(outcome.error.as_deref(), Some("sample limit exceeded"));
    assert_eq!(outcome.exceeded, Some("sample_limit"));
    let (_, outcome) = rig.scrape(Ok("a 1\nb 1\n"));
    assert_eq!((outcome.error, outcome.refused), (None, 0));
    // They are counted, though the scrape before told of `x` and `y` in the same five minutes.
    let (_, outcome) = rig.scrape(Ok("x 1\ny 1\n"));
    assert_eq!(outcome.refused, 2);
}

#[test]
fn a_scrape_over_the_rate_of_its_tenant_fails_whole_and_says_so() {
    let mut rig = Rig::new(options());
    rig.limit(crate::TenantLimits {
        samples_per_second: Some(1),
        samples_burst: Some(3),
        ..crate::TenantLimits::default()
    });
    // Takes the burst of 3, and leaves a debt.
    assert_eq!(rig.own(Ok("a 1\nb 1\nc 1\nd 1\ne 1\n")).len(), 5);
    let (shown, outcome) = rig.scrape(Ok("a 2\nb 2\n"));
    assert_eq!(outcome.exceeded, Some("samples_per_second"));
    let error = outcome.error.unwrap();
    assert!(error.contains("1 samples a second"), "{error}");
    assert_eq!(outcome.markers, 5);
    assert!(shown.contains(&"up 0".to_owned()) && shown.contains(&"a stale".to_owned()));
    rig.clock.advance(Duration::from_secs(3));
    assert_eq!(rig.own(Ok("a 3\n")), ["a 3"]);
}

#[test]
fn bounds_of_series_and_times_are_those_of_the_tenant_and_may_change() {
    let mut rig = Rig::new(options());
    let bounded = |label_value_bytes| {
        let mut limits = crate::TenantLimits::default();
        limits.request.label_value_bytes = label_value_bytes;
        limits.max_age = Some(Duration::from_secs(60));
        limits
    };
    rig.limit(bounded(3));
    let old = NOW - 120_000;
    let body = format!("a{{x=\"1234\"}} 1\nb 1\nc 1 {old}\n");
    let (_, outcome) = rig.scrape(Ok(&body));
    assert_eq!(outcome.refused, 2);
    assert!(outcome.refusal.unwrap().ends_with("(label_value_too_long)"));
    rig.limit(bounded(4));
    let (shown, outcome) = rig.scrape(Ok(&body));
    assert_eq!(outcome.refused, 1);
    assert!(outcome.refusal.unwrap().ends_with("(too_old)"));
    assert!(shown.iter().any(|line| line.contains("1234")), "{shown:?}");
}
