use super::*;

fn tenants(limits: TenantLimits) -> Tenants {
    Tenants::new(limits, 1 << 20)
}

fn name(text: &str) -> TenantId {
    text.parse().unwrap()
}

fn labels(n: u64) -> (SeriesId, Vec<u8>) {
    let value = n.to_string();
    let pairs = [("__name__", "m"), ("n", &*value)];
    let labels = millrace_model::Labels::from_pairs(pairs).unwrap();
    let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (SeriesId(u128::from(hash)), labels.canonical().to_vec())
}

const NOW: Duration = Duration::from_secs(10_000);

#[test]
fn a_request_that_is_not_committed_leaves_nothing_counted() {
    let tenants = tenants(TenantLimits::default());
    let tenant = tenants.get(&name("a"), NOW).unwrap();
    let limits = tenant.limits();
    let mut new = Vec::new();
    for commit in [false, true] {
        let mut gate = Gate::open(&tenants, &tenant, &limits, NOW, &mut new);
        for n in 0..10 {
            let (id, labels) = labels(n);
            gate.ask(id, &labels).unwrap();
        }
        assert_eq!(tenant.active.series(), 10);
        if commit {
            gate.commit();
        }
    }
    assert_eq!(
        (tenant.active.series(), tenant.active.new_series()),
        (10, 10)
    );
}

#[test]
fn the_refusal_names_limit_and_offenders() {
    let tenants = tenants(TenantLimits {
        active_series: Some(5),
        ..TenantLimits::default()
    });
    let tenant = tenants.get(&name("a"), NOW).unwrap();
    let limits = tenant.limits();
    let mut new = Vec::new();
    let mut gate = Gate::open(&tenants, &tenant, &limits, NOW, &mut new);
    for n in 0..5 {
        let (id, labels) = labels(n);
        gate.ask(id, &labels).unwrap();
    }
    let (id, sixth) = labels(5);
    let full = gate.ask(id, &sixth).unwrap_err();
    let bad = gate.refusal(full).clone();
    assert_eq!(bad.reason, Reason::TooManyActiveSeries);
    assert_eq!((bad.value.as_deref(), bad.limit), (Some("5"), Some(5)));
    for words in ["the limit is 5", "most series: m 5", "n 5", "active_series"] {
        assert!(bad.message.contains(words), "{}", bad.message);
    }
}

#[test]
fn overrides_are_in_force_for_those_that_are_there_and_those_that_come() {
    let tenants = tenants(TenantLimits::default());
    let (early, other) = (name("early"), name("other"));
    let tenant = tenants.get(&early, NOW).unwrap();
    let small = TenantLimits {
        active_series: Some(1),
        ..TenantLimits::default()
    };
    let overrides = [early.clone(), name("late")].map(|id| (id, small.clone()));
    tenants.set_overrides(BTreeMap::from(overrides));
    let limit = |id: &TenantId| tenants.get(id, NOW).unwrap().limits().active_series;
    assert_eq!(tenant.limits().active_series, Some(1));
    assert_eq!(limit(&name("late")), Some(1));
    assert_eq!(limit(&other), TenantLimits::default().active_series);
    tenants.set_overrides(BTreeMap::new());
    assert_eq!(limit(&early), TenantLimits::default().active_series);
}

#[test]
fn tenants_are_bounded_and_idle_ones_make_room() {
    let tenants = tenants(TenantLimits::default());
    for n in 0..Tenants::MAX_TENANTS {
        let tenant = tenants.get(&name(&format!("t{n}")), NOW).unwrap();
        let limits = tenant.limits();
        let mut new = Vec::new();
        let mut gate = Gate::open(&tenants, &tenant, &limits, NOW, &mut new);
        let (id, labels) = labels(n as u64);
        gate.ask(id, &labels).unwrap();
        gate.commit();
    }
    assert!(tenants.several.load(Ordering::Relaxed));
    let more = tenants.get(&name("more"), NOW);
    assert!(matches!(more, Err(IngestError::Overloaded { .. })));
    tenants.get(&name("t7"), NOW).unwrap();
    let later = NOW + Duration::from_secs(2 * 3600);
    tenants.get(&name("more"), later).unwrap();
    assert_eq!((tenants.len(), tenants.tracked_series()), (1, 0));
}

#[test]
fn series_of_a_tenant_that_has_left_make_room_for_others() {
    let tenants = Tenants::new(
        TenantLimits {
            active_series: Some(10),
            ..TenantLimits::default()
        },
        8,
    );
    let push = |who: &str, series: std::ops::Range<u64>, now| {
        let tenant = tenants.get(&name(who), now).unwrap();
        let (limits, mut new) = (tenant.limits(), Vec::new());
        let mut gate = Gate::open(&tenants, &tenant, &limits, now, &mut new);
        let ask = |n| {
            let (id, labels) = labels(n);
            gate.ask(id, &labels)
        };
        let taken: Vec<_> = series.map(ask).collect();
        gate.commit();
        taken.into_iter().filter(Result::is_ok).count()
    };
    assert_eq!(push("left", 0..5, NOW), 5);
    assert_eq!(push("stays", 0..5, NOW), 3);
    let later = NOW + Duration::from_secs(2 * 3600);
    assert_eq!(push("stays", 0..5, later), 5);
    assert_eq!(tenants.tracked_series(), 5);
}

#[test]
fn limits_are_divided_among_processes() {
    let limits = TenantLimits {
        active_series: Some(10),
        samples_per_second: Some(1),
        processes: 4,
        ..TenantLimits::default()
    };
    assert_eq!(limits.per_process(limits.active_series), Some(2));
    assert_eq!(limits.per_process(limits.samples_per_second), Some(1));
    assert_eq!(limits.per_process(None), None);
}
