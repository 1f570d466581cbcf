use super::*;

fn labels(name: &str) -> Labels {
    Labels::from_pairs([(ALERT_NAME, "A"), ("instance", name)]).unwrap()
}

fn found(name: &str) -> FoundAlert {
    FoundAlert {
        labels: labels(name),
        annotations: Vec::new(),
        value: 1.0,
    }
}

fn holds(hold: u64, keep: u64) -> Holds {
    Holds {
        hold: Duration::from_secs(hold),
        keep_firing: Duration::from_secs(keep),
        limit: 0,
    }
}

/// Evaluations every ten seconds, whether the condition held; the states after each.
fn states(holds: Holds, held: &[bool]) -> Vec<&'static str> {
    let mut alerts = Alerts::default();
    let mut states = Vec::new();
    for (held, number) in held.iter().zip(0..) {
        let now = if *held { vec![found("a")] } else { Vec::new() };
        let ts = TimestampMs(number * 10_000);
        alerts.update(now, ts, holds).unwrap();
        states.push(
            alerts
                .active
                .values()
                .next()
                .map_or("-", |alert| alert.state.as_str()),
        );
    }
    states
}

#[test]
fn an_alert_is_pending_fires_and_is_resolved() {
    assert_eq!(
        states(holds(20, 0), &[true, true, true, true, false, true]),
        [
            "pending", "pending", "firing", "firing", "inactive", "pending"
        ]
    );
    assert_eq!(states(holds(0, 0), &[true, false]), ["firing", "inactive"]);
    assert_eq!(
        states(holds(20, 0), &[true, false, true]),
        ["pending", "-", "pending"]
    );
}

#[test]
fn an_alert_keeps_firing_for_a_while() {
    assert_eq!(
        states(holds(0, 20), &[true, false, false, false, false]),
        ["firing", "firing", "firing", "inactive", "inactive"]
    );
    assert_eq!(
        states(holds(0, 20), &[true, false, true, false, false, false]),
        ["firing", "firing", "firing", "firing", "firing", "inactive"]
    );
}

#[test]
fn a_resolved_alert_is_told_of_for_a_quarter_of_an_hour() {
    let mut alerts = Alerts::default();
    let at = |seconds: i64| TimestampMs(seconds * 1000);
    let (delay, interval) = (Duration::from_secs(60), Duration::from_secs(10));
    alerts.update(vec![found("a")], at(0), holds(0, 0)).unwrap();
    let sent = alerts.take_unsent(at(0), delay, interval);
    assert_eq!((sent.len(), sent[0].valid_until), (1, Some(at(240))));
    alerts
        .update(vec![found("a")], at(60), holds(0, 0))
        .unwrap();
    assert!(
        alerts.take_unsent(at(60), delay, interval).is_empty(),
        "not before the delay is over"
    );
    alerts.update(Vec::new(), at(70), holds(0, 0)).unwrap();
    let sent = alerts.take_unsent(at(70), delay, interval);
    assert_eq!(sent[0].resolved_at, Some(at(70)), "at once");
    for seconds in (80..=970).step_by(10) {
        alerts.update(Vec::new(), at(seconds), holds(0, 0)).unwrap();
    }
    assert_eq!(alerts.take_unsent(at(970), delay, interval).len(), 1);
    alerts.update(Vec::new(), at(980), holds(0, 0)).unwrap();
    assert!(alerts.active.is_empty());
}

#[test]
fn series_tell_the_state_and_since_when() {
    let mut alerts = Alerts::default();
    alerts
        .update(vec![found("a")], TimestampMs(1_500), holds(10, 0))
        .unwrap();
    let own = BTreeMap::from([("severity".to_owned(), "page".to_owned())]);
    let samples = alerts.samples("A", &own, TimestampMs(1_500)).unwrap();
    let shown: Vec<_> = samples
        .iter()
        .map(|(labels, sample)| format!("{labels} {}", sample.value))
        .collect();
    assert_eq!(
        shown,
        [
            r#"ALERTS{alertname="A", alertstate="pending", instance="a", severity="page"} 1"#,
            r#"ALERTS_FOR_STATE{alertname="A", instance="a", severity="page"} 1"#,
        ]
    );
}

#[test]
fn beyond_the_limit_all_are_forgotten() {
    let mut alerts = Alerts::default();
    let limited = Holds {
        limit: 1,
        ..holds(0, 0)
    };
    alerts
        .update(vec![found("a")], TimestampMs(0), limited)
        .unwrap();
    let error = alerts.update(vec![found("a"), found("b")], TimestampMs(1), limited);
    assert_eq!(error.unwrap_err(), "exceeded limit of 1 with 2 alerts");
    assert!(alerts.active.is_empty());
}

#[test]
fn a_restart_does_not_begin_to_wait_again() {
    let restored = |hold: u64, grace: u64, down: i64, since: f64, now: i64| {
        let mut alerts = Alerts::default();
        let now = TimestampMs(now * 1000);
        alerts
            .update(vec![found("a")], now, holds(hold, 0))
            .unwrap();
        let known = BTreeMap::from([(labels("a"), (TimestampMs(down * 1000), since))]);
        alerts.restore(
            now,
            Duration::from_secs(hold),
            Duration::from_secs(grace),
            &known,
        );
        alerts.active[&labels("a")].active_at.0 / 1000
    };
    // It fired when the server went down: since then it is active.
    assert_eq!(restored(600, 60, 2000, 1000.0, 2100), 1000);
    // Long to wait still: the time without a server does not count.
    assert_eq!(restored(600, 60, 1100, 1000.0, 1500), 1400);
    // Little to wait still: at least the grace.
    assert_eq!(restored(600, 60, 1590, 1000.0, 1700), 1700 + 60 - 600);
}
