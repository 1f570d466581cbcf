//! The rule files of node_exporter's mixin, evaluated by Prometheus and by us at the same moments over the
//! same data: what it scrapes of a real node_exporter, and remote-writes to us.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use xxhash_rust::xxh64::xxh64;

use super::{PATIENCE, Prometheus, programs, wait_for};
use crate::prometheus::{Series, compare, free_port, spawn};
use crate::support::{Client, Millrace, eventually, matrix, vector};

const ALERTS: &str = include_str!("../../data/node-mixin/node_alerts.yml");
const RULES: &str = include_str!("../../data/node-mixin/node_rules.yml");
const GROUPS: [&str; 2] = ["node-exporter", "node-exporter.rules"];

/// Time between two scrapes, and between two evaluations.
const INTERVAL_MS: i64 = 2000;

/// An evaluation must be so long after a scrape, so that remote write has brought it.
const AFTER_MS: i64 = 900;
/// And so long before the next one.
const BEFORE_MS: i64 = 300;

/// Evaluations that are compared.
const EVALUATIONS: usize = 6;

/// The phase of a group's moments, as Prometheus computes it.
fn phase(file: &Path, group: &str) -> i64 {
    let mut bytes = Vec::new();
    for part in ["file", &file.to_string_lossy(), "name", group] {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0xff);
    }
    let interval = INTERVAL_MS as u64 * 1_000_000;
    (xxh64(&bytes, 0) % interval / 1_000_000) as i64
}

/// Names for the rule files with which all groups are evaluated well between two scrapes.
fn names(dir: &Path, scraped: i64) -> [std::path::PathBuf; 2] {
    let good = |file: &Path, group: &str| {
        let behind = (phase(file, group) - scraped).rem_euclid(INTERVAL_MS);
        behind > AFTER_MS && behind < INTERVAL_MS - BEFORE_MS
    };
    let find = |kind: &str, group: &str| {
        let mut files = (0..1000).map(|n| dir.join(format!("mixin-{kind}-{n}.yml")));
        files
            .find(|file| good(file, group))
            .expect("one of a thousand")
    };
    [find("alerts", GROUPS[0]), find("rules", GROUPS[1])]
}

/// Everything that the rules have made in a while, by series.
fn made(client: &Client, end: i64) -> Series {
    let window = EVALUATIONS as i64 * INTERVAL_MS / 1000;
    let mut all = Series::new();
    for selector in ["{__name__=~\"instance:.+\"}", "{__name__=\"ALERTS\"}"] {
        let end = format!("{}.{:03}", end / 1000, end % 1000);
        let found = client.query(&format!("{selector}[{window}s]"), Some(&end));
        all.extend(matrix(&found));
    }
    all
}

/// Go writes whole numbers without a fraction, and leaves empty labels out.
fn plain(value: &Value) -> Value {
    if *value == json!({}) {
        return Value::Null;
    }
    value
        .as_f64()
        .map_or_else(|| value.clone(), |number| json!(number))
}

/// What of the groups is the same each time.
fn definitions(client: &Client) -> BTreeMap<String, Value> {
    let groups = client.get("/api/v1/rules").json()["data"]["groups"].clone();
    let rule = |rule: &Value| {
        let fields = [
            "name",
            "query",
            "labels",
            "health",
            "type",
            "duration",
            "annotations",
            "state",
        ];
        let kept = fields
            .iter()
            .map(|field| ((*field).to_owned(), plain(&rule[*field])));
        Value::Object(kept.collect())
    };
    let group = |group: &Value| {
        let rules: Vec<_> = group["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(rule)
            .collect();
        let shown =
            json!({ "file": group["file"], "interval": plain(&group["interval"]), "rules": rules });
        (group["name"].as_str().unwrap().to_owned(), shown)
    };
    groups.as_array().unwrap().iter().map(group).collect()
}

#[test]
fn the_rules_of_a_mixin_give_what_they_give_in_prometheus() {
    let wanted: [&[&str]; 2] = [
        &["prometheus"],
        &["prometheus-node-exporter", "node_exporter"],
    ];
    let Some(found) = programs(&wanted) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let pattern = dir.join("mixin-*.yml");
    let set = [
        format!("rules.files={}", pattern.display()),
        format!("rules.evaluation_interval={INTERVAL_MS}ms"),
        "server.admin_api=true".to_owned(),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let millrace = Millrace::start(&dir.join("millrace"), &set);
    let port = free_port();
    let exporter = format!("127.0.0.1:{port}");
    let _exporter = spawn(
        Command::new(&found[1]).arg(format!("--web.listen-address={exporter}")),
        &dir.join("exporter.log"),
    );
    wait_for(&format!("http://{exporter}"), "/metrics");
    let config = dir.join("prometheus.yml");
    // What it records itself stays there: it would be taken for what we record.
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: {INTERVAL_MS}ms, scrape_timeout: {INTERVAL_MS}ms, \
             evaluation_interval: {INTERVAL_MS}ms}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n  - job_name: node\n    static_configs: [{{targets: ['{exporter}']}}]\n\
             remote_write:\n  - url: {}/api/v1/write\n    queue_config: {{batch_send_deadline: 50ms}}\n    \
             write_relabel_configs:\n      - {{source_labels: [__name__], regex: 'instance:.*|ALERTS.*', action: drop}}\n",
            pattern.display(),
            millrace.url
        ),
    )
    .unwrap();
    let theirs = Prometheus::start(&found[0], dir, &config, &[]);
    let (theirs, ours) = (&theirs.client, millrace.client());
    let scraped = eventually("the first scrape", PATIENCE, || {
        let found = vector(&theirs.query("timestamp(up)", None));
        found
            .values()
            .next()
            .copied()
            .ok_or_else(|| "none".to_owned())
    });
    let [alerts, rules] = names(dir, (scraped * 1000.0) as i64);
    std::fs::write(alerts, ALERTS).unwrap();
    std::fs::write(rules, RULES).unwrap();
    for client in [theirs, &ours] {
        let answer = client.post("/-/reload", &[], Vec::new());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let evaluated = |client: &Client| {
        let last = client.query(
            "max(timestamp({__name__=\"instance:node_load1_per_cpu:ratio\"}))",
            None,
        );
        vector(&last)
            .values()
            .next()
            .map(|seconds| (seconds * 1000.0) as i64)
    };
    let first = eventually("the first evaluation", PATIENCE, || {
        let both = evaluated(theirs).zip(evaluated(&ours));
        both.map(|(a, b)| a.max(b)).ok_or_else(|| "none".to_owned())
    });
    let end = first + EVALUATIONS as i64 * INTERVAL_MS + INTERVAL_MS / 2;
    eventually("some evaluations", PATIENCE, || {
        let both = evaluated(theirs).zip(evaluated(&ours));
        let last = both.map_or(0, |(a, b)| a.min(b));
        (last > end)
            .then_some(())
            .ok_or_else(|| format!("{last} of {end}"))
    });
    std::thread::sleep(Duration::from_millis(INTERVAL_MS as u64));
    let (their_made, our_made) = (made(theirs, end), made(&ours, end));
    let (series, points) = (
        their_made.len(),
        their_made.values().map(Vec::len).sum::<usize>(),
    );
    compare("what the rules have made", &(their_made, our_made)).unwrap();
    assert!(
        series >= 10 && points >= series * EVALUATIONS,
        "{series} series, {points} points"
    );
    let (their_groups, our_groups) = (definitions(theirs), definitions(&ours));
    assert_eq!(our_groups.len(), 2);
    assert_eq!(their_groups, our_groups);
    println!("mixin: {series} series of {points} points equal; 2 groups of rules shown alike");
}
