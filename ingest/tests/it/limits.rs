//! What tenants may push, and how they share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use millrace_ingest::{IngestOptions, Limits, RateLimitedStatus, TenantLimits};
use millrace_queue::AppenderOptions;

use crate::rig::{Answer, NOW, Rig};

fn rig(limits: TenantLimits) -> Rig {
    let options = IngestOptions {
        limits,
        ..IngestOptions::default()
    };
    Rig::with(options, AppenderOptions::default())
}

/// A line of each of these series.
fn lines(series: std::ops::Range<u32>) -> String {
    series.map(|n| format!("m,n={n} value={n}\n")).collect()
}

fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").parse().unwrap()
}

#[tokio::test]
async fn at_the_limit_known_series_go_on_and_new_ones_are_refused_by_name() {
    let rig = rig(TenantLimits {
        active_series: Some(100),
        ..TenantLimits::default()
    });
    assert_eq!(
        rig.post("/write", &[], lines(0..90)).await.status,
        StatusCode::NO_CONTENT
    );
    let answer = rig.post("/write?receipt=full", &[], lines(80..120)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let receipt = answer.json();
    assert_eq!(
        (&receipt["accepted"], &receipt["rejected"]),
        (&20.into(), &20.into())
    );
    assert_eq!(receipt["reasons"]["too_many_active_series"], 20);
    let first = &receipt["rejections"][0];
    assert_eq!(first["line"], 21);
    assert_eq!(first["series"], "m{n=\"100\"}");
    assert_eq!(
        (&first["value"], &first["limit"]),
        (&"100".into(), &100.into())
    );
    let message = first["message"].as_str().unwrap();
    assert!(message.contains("most series: m "), "{message}");
    assert!(message.contains("most label values: n "), "{message}");
    // Again and again, in a later epoch too, and when the cache has to be asked.
    for minutes in [0, 6, 30, 50] {
        rig.clock.advance(Duration::from_secs(minutes * 60));
        let answer = rig.post("/write", &[], lines(0..100)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
        let answer = rig.post("/write", &[], lines(100..101)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(rig.values().len(), 100);
    assert_eq!(rig.metric("millrace_ingest_active_series", &[]), 100.0);
    let refused = [("reason", "too_many_active_series")];
    let refused = rig.metric("millrace_ingest_rejected_samples_total", &refused);
    assert_eq!(refused, 24.0);
    // An hour after their last sample they make room.
    rig.clock.advance(Duration::from_secs(66 * 60));
    let answer = rig.post("/write", &[], lines(100..200)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    let report = rig.ingest.limits_report(None, 5);
    assert_eq!(report.tenants[0].active_series, 100);
    assert_eq!(report.tenants[0].active_series_limit, Some(100));
    assert_eq!(report.tenants[0].top_metrics[0].name, "m");
}

#[tokio::test]
async fn churn_is_bounded_by_the_hour() {
    let rig = rig(TenantLimits {
        active_series: None,
        new_series_per_hour: Some(50),
        ..TenantLimits::default()
    });
    assert_eq!(
        rig.post("/write", &[], lines(0..50)).await.status,
        StatusCode::NO_CONTENT
    );
    let answer = rig.post("/write?receipt=full", &[], lines(45..55)).await;
    assert_eq!(answer.json()["reasons"]["too_many_new_series"], 5);
    // Those that are active stay so; an hour later there may be as many new ones again.
    for _ in 0..13 {
        rig.clock.advance(Duration::from_secs(300));
        let answer = rig.post("/write", &[], lines(0..50)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    }
    let answer = rig.post("/write", &[], lines(50..100)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    let report = rig.ingest.limits_report(None, 5);
    assert_eq!(
        (
            report.tenants[0].active_series,
            report.tenants[0].new_series
        ),
        (100, 50)
    );
}

#[tokio::test]
async fn a_request_that_is_refused_as_a_whole_counts_nothing() {
    let rig = rig(TenantLimits {
        request: Limits {
            series: 10,
            ..Limits::default()
        },
        active_series: Some(10),
        ..TenantLimits::default()
    });
    let answer = rig.post("/write", &[], lines(0..11)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let path = "/api/v3/write_lp?db=d&accept_partial=false";
    let answer = rig
        .post(path, &[], format!("{}lonely\n", lines(20..25)))
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let report = rig.ingest.limits_report(None, 5);
    assert_eq!(
        (
            report.tenants[0].active_series,
            report.tenants[0].new_series
        ),
        (0, 0)
    );
    // What was parsed then is known, and has to be asked for all the same.
    assert_eq!(
        rig.post("/write", &[], lines(20..25)).await.status,
        StatusCode::NO_CONTENT
    );
    let report = rig.ingest.limits_report(None, 5);
    assert_eq!(report.tenants[0].active_series, 5);
}

#[tokio::test]
async fn beyond_the_rate_it_is_429_until_the_time_that_is_told() {
    let rig = rig(TenantLimits {
        samples_per_second: Some(100),
        samples_burst: Some(200),
        ..TenantLimits::default()
    });
    for _ in 0..2 {
        let answer = rig.post("/write", &[], lines(0..100)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    let answer = rig.post("/write", &[], lines(0..100)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        answer.text().contains("100 samples a second"),
        "{}",
        answer.text()
    );
    assert_eq!(
        rig.metric(
            "millrace_ingest_refused_requests_total",
            &[("reason", "rate_limited")]
        ),
        1.0
    );
    rig.clock.advance(Duration::from_secs(retry_after(&answer)));
    // One that is larger than the burst is taken too, and is waited for afterwards.
    let answer = rig.post("/write", &[], lines(0..1000)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let answer = rig.post("/write", &[], lines(0..1)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let wait = retry_after(&answer);
    assert!((8..=15).contains(&wait), "{wait}");
    rig.clock.advance(Duration::from_secs(wait));
    assert_eq!(
        rig.post("/write", &[], lines(0..1)).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(rig.values().values().flatten().count(), 1201);
}

#[tokio::test]
async fn a_request_that_the_queue_does_not_take_costs_its_tenant_nothing() {
    let options = IngestOptions {
        limits: TenantLimits {
            active_series: Some(2000),
            samples_per_second: Some(1),
            samples_burst: Some(1000),
            ..TenantLimits::default()
        },
        ..IngestOptions::default()
    };
    let appender = AppenderOptions {
        max_pending_bytes: 16 << 10,
        ..AppenderOptions::default()
    };
    let rig = Rig::with(options, appender);
    for _ in 0..3 {
        let answer = rig.post("/write", &[], lines(0..2000)).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
    let report = rig.ingest.limits_report(None, 5);
    let tenant = &report.tenants[0];
    assert_eq!((tenant.active_series, tenant.new_series), (0, 0));
    // Neither the rate nor the cache of known series has it that they were stored.
    let answer = rig.post("/write", &[], lines(0..100)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    let report = rig.ingest.limits_report(None, 5);
    assert_eq!(report.tenants[0].active_series, 100);
}

#[tokio::test]
async fn overrides_are_in_force_from_the_next_request_on() {
    let rig = rig(TenantLimits {
        active_series: Some(5),
        ..TenantLimits::default()
    });
    let status = async |tenant: &str, series| rig.post_as(tenant, lines(series)).await.status;
    assert_eq!(status("a", 0..6).await, StatusCode::BAD_REQUEST);
    let more = TenantLimits {
        active_series: Some(10),
        samples_per_second: Some(0),
        samples_burst: Some(20),
        rate_limited_status: RateLimitedStatus::Unavailable,
        ..TenantLimits::default()
    };
    let overrides = BTreeMap::from([("a".parse().unwrap(), more)]);
    rig.ingest.set_overrides(overrides);
    assert_eq!(rig.metric("millrace_ingest_limit_overrides", &[]), 1.0);
    assert_eq!(status("a", 0..10).await, StatusCode::NO_CONTENT);
    assert_eq!(
        status("a", 0..11).await,
        StatusCode::BAD_REQUEST,
        "and the burst is over"
    );
    assert_eq!(status("a", 0..1).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status("b", 0..6).await, StatusCode::BAD_REQUEST);
    rig.ingest.set_overrides(BTreeMap::new());
    assert_eq!(status("a", 0..10).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn other_bounds_of_a_series_hold_for_those_that_were_refused_before() {
    let rig = Rig::new();
    let line = format!("m,a={} value=1", "x".repeat(5000));
    let refused = rig.post_as("a", line.clone()).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let wide = TenantLimits {
        request: Limits {
            label_value_bytes: 6000,
            ..Limits::default()
        },
        max_age: Some(Duration::from_secs(60)),
        ..TenantLimits::default()
    };
    rig.ingest
        .set_overrides(BTreeMap::from([("a".parse().unwrap(), wide)]));
    let taken = rig.post_as("a", line.clone()).await;
    assert_eq!(taken.status, StatusCode::NO_CONTENT, "{}", taken.text());
    let old = format!("m value=1 {}000000", NOW - 61_000);
    let answer = rig.post_as("a", old.clone()).await;
    assert!(answer.text().contains("too old"), "{}", answer.text());
    assert_eq!(rig.post_as("b", old).await.status, StatusCode::NO_CONTENT);
    rig.ingest.set_overrides(BTreeMap::new());
    assert_eq!(rig.post_as("a", line).await.status, StatusCode::BAD_REQUEST);
}

/// One tenant sends as much as it can from many connections, another one now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_floods_does_not_keep_another_from_being_stored() {
    let options = IngestOptions {
        decode_threads: 1,
        decode_queue: 20,
        ..IngestOptions::default()
    };
    // An append is shared by all that wait for it, so it has to be a small one for turns to be seen.
    let appender = AppenderOptions {
        max_batch_bytes: 128 << 10,
        ..AppenderOptions::default()
    };
    let rig = Arc::new(Rig::with(options, appender));
    // Both are known, so that they have to share.
    for tenant in ["flood", "quiet"] {
        assert_eq!(
            rig.post_as(tenant, lines(0..1)).await.status,
            StatusCode::NO_CONTENT
        );
    }
    // More than a turn's worth, each.
    let body: bytes::Bytes = lines(0..20_000).into();
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood: Vec<_> = (0..60)
        .map(|_| {
            let (rig, body, over) = (rig.clone(), body.clone(), over.clone());
            tokio::spawn(async move {
                let (mut stored, mut refused) = (0u32, 0u32);
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let answer = rig.post_as("flood", body.clone()).await;
                    match answer.status {
                        StatusCode::NO_CONTENT => stored += 1,
                        StatusCode::SERVICE_UNAVAILABLE => {
                            assert!(retry_after(&answer) >= 1);
                            refused += 1;
                            // Sooner than it is told, but not so that the clients alone keep the
                            // machine busy.
                            #[expect(clippy::disallowed_methods, reason = "the pace of a flood")]
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        other => panic!("{other}: {}", answer.text()),
                    }
                }
                (stored, refused)
            })
        })
        .collect();
    let answered = || {
        let labels = [("protocol", "influx_v1"), ("status", "2xx")];
        rig.metric("millrace_ingest_requests_total", &labels)
    };
    let mut behind = Vec::new();
    for _ in 0..30 {
        let before = answered();
        let answer = rig.post_as("quiet", lines(0..10)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
        behind.push(answered() - before);
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut stored, mut refused) = (0, 0);
    for task in flood {
        let (more_stored, more_refused) = task.await.unwrap();
        stored += more_stored;
        refused += more_refused;
    }
    assert!(
        stored > 0 && refused > 0,
        "{stored} stored, {refused} refused: no flood"
    );
    // Sixty of the flood want to be next; in turns the other waits for those at hand, not for all of them.
    // (Counted in requests, so that a slow machine changes nothing; what is scheduled late is in the last
    // fifth.)
    behind.sort_by(f64::total_cmp);
    let most = behind[behind.len() * 8 / 10];
    assert!(
        most <= 20.0,
        "behind {most} requests of the flood: {behind:?}"
    );
}
