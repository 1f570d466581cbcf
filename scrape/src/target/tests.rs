use super::*;
use crate::config::Config;
use millrace_log::fs::{OsFs, publish};
use std::sync::Arc;

fn job(yaml: &str) -> Arc<Job> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scrape.yml");
    let text = format!("scrape_configs:\n- job_name: j\n{yaml}");
    publish(&OsFs, &path, text.as_bytes()).unwrap();
    Config::read(&OsFs, &path).unwrap().jobs[0].clone()
}

fn found(pairs: &[(&str, &str)]) -> LabelSet {
    pairs.iter().copied().collect()
}

fn target(yaml: &str, pairs: &[(&str, &str)]) -> Result<Target, String> {
    match populate(&found(pairs), &job(yaml))? {
        Populated::Target(target) => Ok(*target),
        Populated::Dropped(labels) => Err(format!("dropped {labels:?}")),
    }
}

#[test]
fn a_target_has_job_and_instance_and_nothing_that_begins_with_two_underscores() {
    let target = target(
        "",
        &[("__address__", "a:1"), ("__meta_x", "y"), ("env", "prod")],
    )
    .unwrap();
    let labels: Vec<_> = target.labels.iter().collect();
    assert_eq!(labels, [("env", "prod"), ("instance", "a:1"), ("job", "j")]);
    assert_eq!(target.url.as_str(), "http://a:1/metrics");
    assert_eq!(target.interval, Duration::from_secs(60));
    assert_eq!(target.timeout, Duration::from_secs(10));
    assert_eq!(target.discovered.get("__meta_x"), "y");
    assert_eq!(target.discovered.get("__scheme__"), "http");
}

#[test]
fn relabelling_decides_where_and_how_a_target_is_asked() {
    let yaml = "  scheme: https\n  metrics_path: /probe\n  params: {module: [http], n: ['1', '2'], target: [nobody]}\n  \
        relabel_configs:\n  \
        - {source_labels: [__address__], target_label: __param_target}\n  \
        - {source_labels: [__param_target], target_label: instance}\n  \
        - {target_label: __address__, replacement: 'prober:9115'}\n  \
        - {target_label: __scrape_interval__, replacement: 5s}\n  \
        - {target_label: __scrape_timeout__, replacement: 2s}\n";
    let target = target(yaml, &[("__address__", "example.org")]).unwrap();
    assert_eq!(
        target.url.as_str(),
        "https://prober:9115/probe?module=http&n=1&n=2&target=example.org"
    );
    assert_eq!(target.labels.get("instance"), "example.org");
    assert_eq!(
        (target.interval.as_secs(), target.timeout.as_secs()),
        (5, 2)
    );
}

#[test]
fn what_cannot_be_asked_says_why() {
    let relabel = |rule: &str| format!("  relabel_configs:\n  - {rule}\n");
    for (yaml, address, says) in [
        (String::new(), "", "no address"),
        (String::new(), "http://a", "not a valid hostname"),
        (
            relabel("{target_label: __scheme__, replacement: ftp}"),
            "a",
            "invalid scheme",
        ),
        (
            relabel("{target_label: __scrape_interval__, replacement: x}"),
            "a",
            "scrape interval",
        ),
        (
            relabel("{target_label: __scrape_timeout__, replacement: 2m}"),
            "a",
            "greater than",
        ),
        (
            relabel("{source_labels: [__address__], regex: a, action: drop}"),
            "a",
            "dropped",
        ),
    ] {
        let error = target(&yaml, &[("__address__", address)]).unwrap_err();
        assert!(error.contains(says), "{yaml}: {error}");
    }
}

#[test]
fn moments_are_spread_and_do_not_depend_on_the_start() {
    let interval_ms = 60_000;
    let phase = |target: &Target, now: i64| {
        let first = target.first_after(now, 7);
        assert!(first <= target.interval, "{first:?}");
        (now + first.as_millis() as i64).rem_euclid(interval_ms)
    };
    let mut phases = Vec::new();
    for i in 0..50 {
        let target = target("", &[("__address__", &format!("host-{i}:9100"))]).unwrap();
        let at = phase(&target, 1_700_000_000_123);
        let again = phase(&target, 1_700_000_047_001);
        assert!((at - again).abs() <= 1, "{at} and {again}");
        phases.push(at / (interval_ms / 5));
    }
    for fifth in 0..5 {
        let here = phases.iter().filter(|phase| **phase == fifth).count();
        assert!(
            (2..=20).contains(&here),
            "{here} of 50 in a fifth of the interval"
        );
    }
}

#[test]
fn other_labels_or_another_url_make_another_target() {
    let key = |pairs: &[(&str, &str)]| target("", pairs).unwrap().key;
    let base = key(&[("__address__", "a:1")]);
    assert_eq!(base, key(&[("__address__", "a:1")]));
    assert_ne!(base, key(&[("__address__", "a:1"), ("env", "x")]));
    assert_ne!(
        base,
        key(&[("__address__", "a:1"), ("__metrics_path__", "/m")])
    );
}
