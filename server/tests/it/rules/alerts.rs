//! Alerts: they fire, survive a restart, are resolved, and reach an Alertmanager as Prometheus's do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};

use super::{PATIENCE, Prometheus, programs, wait_for};
use crate::prometheus::{free_port, spawn};
use crate::scrape::target::{TEXT, Target, ok};
use crate::support::{Client, Millrace, eventually};

const RULES: &str = r#"
groups:
  - name: heat
    interval: 1s
    rules:
      - record: job:temperature:max
        expr: max by (job) (temperature)
      - alert: Hot
        expr: temperature > 30
        for: 2s
        labels:
          severity: '{{ if gt $value 50.0 }}critical{{ else }}warning{{ end }}'
          region: '{{ $externalLabels.region }}'
        annotations:
          summary: '{{ $labels.room | title }} of {{ $labels.job }}: {{ $value | humanize }} degrees'
          others: '{{ range query "job:temperature:max" }}{{ .Labels.job }}={{ .Value }}{{ end }}'
          broken: '{{ query "none" | first | value }}'
      - alert: LongHot
        expr: temperature > 30
        for: 8s
        keep_firing_for: 3s
"#;

/// The configuration of either; they differ in the label `source` and in what they are called.
fn configuration(dir: &Path, source: &str, target: &str, alertmanagers: &[String]) -> String {
    let rules = dir.join("rules.yml");
    let alertmanagers = alertmanagers.join("', '");
    format!(
        "global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  evaluation_interval: 1s\n  \
         external_labels: {{source: {source}, region: eu}}\n\
         rule_files: ['{}']\n\
         alerting:\n  alert_relabel_configs:\n    - {{action: labeldrop, regex: instance}}\n  \
         alertmanagers:\n    - static_configs: [{{targets: ['{alertmanagers}']}}]\n      timeout: 5s\n\
         scrape_configs:\n  - job_name: oven\n    static_configs: [{{targets: ['{target}']}}]\n",
        rules.display()
    )
}

const EXTERNAL_URL: &str = "http://rules.example:1234/prefix";

fn start(dir: &Path, config: &Path) -> Millrace {
    let set = [
        format!("scrape.config_file={}", config.display()),
        format!("rules.config_file={}", config.display()),
        format!("rules.external_url={EXTERNAL_URL}"),
        "rules.for_grace_period=1s".to_owned(),
        "rules.resend_delay=1s".to_owned(),
    ];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    Millrace::start(&dir.join("millrace"), &set)
}

/// The alerts of `/api/v1/alerts` by name.
fn active(client: &Client) -> BTreeMap<String, Value> {
    let answer = client.get("/api/v1/alerts").json();
    let alerts = answer["data"]["alerts"].as_array().unwrap().clone();
    let named = |alert: Value| {
        (
            alert["labels"]["alertname"].as_str().unwrap().to_owned(),
            alert,
        )
    };
    alerts.into_iter().map(named).collect()
}

fn wait_for_state(client: &Client, alert: &str, state: Option<&str>) -> Value {
    eventually(alert, PATIENCE, || {
        let all = active(client);
        let found = all.get(alert);
        match found.map(|alert| alert["state"].as_str().unwrap()) == state {
            true => Ok(found.cloned().unwrap_or_default()),
            false => Err(format!("{all:?}")),
        }
    })
}

/// What of an alert in the Alertmanager does not depend on who sent it, and when.
fn told(alertmanager: &Client, source: &str) -> BTreeMap<String, Value> {
    let path = format!("/api/v2/alerts?filter=source%3D%22{source}%22");
    let alerts = alertmanager.get(&path).json();
    let one = |alert: &Value| {
        let mut alert = alert.clone();
        alert["labels"].as_object_mut().unwrap().remove("source");
        for field in ["startsAt", "endsAt", "updatedAt", "fingerprint"] {
            let there = alert.as_object_mut().unwrap().remove(field);
            assert!(there.is_some(), "{field}: {alert}");
        }
        (
            alert["labels"]["alertname"].as_str().unwrap().to_owned(),
            alert,
        )
    };
    alerts.as_array().unwrap().iter().map(one).collect()
}

/// A group as `/api/v1/rules` shows it, without what is different each time.
fn without_moments(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for field in [
                "evaluationTime",
                "lastEvaluation",
                "activeAt",
                "keepFiringSince",
            ] {
                if let Some(moment) = fields.get_mut(field) {
                    *moment = json!("some time");
                }
            }
            fields.values_mut().for_each(without_moments);
        }
        Value::Array(items) => items.iter_mut().for_each(without_moments),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn groups(client: &Client) -> Value {
    let mut shown = client.get("/api/v1/rules").json()["data"]["groups"].clone();
    without_moments(&mut shown);
    shown
}

#[test]
fn alerts_fire_survive_a_restart_and_reach_an_alertmanager_as_those_of_prometheus() {
    let wanted: [&[&str]; 2] = [
        &["prometheus"],
        &["prometheus-alertmanager", "alertmanager"],
    ];
    let Some(found) = programs(&wanted) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let temperature = Arc::new(AtomicI64::new(40));
    let shown = temperature.clone();
    let oven = Target::start(move |_| {
        let value = shown.load(Ordering::SeqCst);
        ok(TEXT, format!("temperature{{room=\"kitchen\"}} {value}\n"))
    });
    let oven = oven.address.to_string();
    std::fs::write(dir.join("rules.yml"), RULES).unwrap();
    std::fs::write(
        dir.join("alertmanager.yml"),
        "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
    )
    .unwrap();
    let port = free_port();
    let _alertmanager = spawn(
        Command::new(&found[1])
            .arg(format!(
                "--config.file={}",
                dir.join("alertmanager.yml").display()
            ))
            .arg(format!(
                "--storage.path={}",
                dir.join("alertmanager").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address="),
        &dir.join("alertmanager.log"),
    );
    let alertmanager = format!("127.0.0.1:{port}");
    wait_for(&format!("http://{alertmanager}"), "/-/ready");
    let write = |source: &str| {
        let path = dir.join(format!("{source}.yml"));
        let managers = std::slice::from_ref(&alertmanager);
        std::fs::write(&path, configuration(dir, source, &oven, managers)).unwrap();
        path
    };
    let theirs = Prometheus::start(
        &found[0],
        dir,
        &write("prometheus"),
        &[
            &format!("--web.external-url={EXTERNAL_URL}"),
            "--web.route-prefix=/",
            "--rules.alert.for-grace-period=1s",
            "--rules.alert.resend-delay=1s",
        ],
    );
    let theirs = &theirs.client;
    let config = write("millrace");
    let millrace = start(dir, &config);
    let ours = millrace.client();
    let manager = Client::new(&format!("http://{alertmanager}"));

    for client in [theirs, &ours] {
        wait_for_state(client, "Hot", Some("firing"));
        wait_for_state(client, "LongHot", Some("firing"));
    }
    // Rules, alerts and what the Alertmanager has been told are the same.
    eventually("the same rules", PATIENCE, || {
        let (theirs, ours) = (groups(theirs), groups(&ours));
        let same = contains(&ours, &theirs);
        same.then_some(())
            .ok_or_else(|| format!("{theirs:#}\n{ours:#}"))
    });
    let sent = eventually("the same alerts", PATIENCE, || {
        let (theirs, ours) = (told(&manager, "prometheus"), told(&manager, "millrace"));
        let same = theirs.len() == 2 && theirs == ours;
        same.then_some(ours.clone())
            .ok_or_else(|| format!("{theirs:#?}\n{ours:#?}"))
    });
    let labels = &sent["Hot"]["labels"];
    let expected = json!({
        "alertname": "Hot", "job": "oven", "region": "eu", "room": "kitchen", "severity": "warning",
    });
    assert_eq!(labels, &expected);

    // The state outlives the process: active since the same second, without waiting again.
    let before = wait_for_state(&ours, "LongHot", Some("firing"));
    let since = |alert: &Value| alert["activeAt"].as_str().unwrap()[..19].to_owned();
    let (status, log) = millrace.terminate();
    assert!(status.success(), "{log}");
    let millrace = start(dir, &config);
    let ours = millrace.client();
    let after = wait_for_state(&ours, "LongHot", Some("firing"));
    assert_eq!(since(&before), since(&after), "{before} {after}");
    let series = ours.query("ALERTS_FOR_STATE{alertname=\"LongHot\"}", None);
    assert_eq!(series["result"].as_array().unwrap().len(), 1, "{series}");

    // It is over: one of them at once, the other a while later, and the Alertmanager hears of it.
    temperature.store(20, Ordering::SeqCst);
    for client in [theirs, &ours] {
        wait_for_state(client, "Hot", None);
        wait_for_state(client, "LongHot", None);
    }
    for source in ["prometheus", "millrace"] {
        eventually("the end of all alerts", PATIENCE, || {
            let left = told(&manager, source);
            left.is_empty()
                .then_some(())
                .ok_or_else(|| format!("{left:?}"))
        });
    }
    let ended = ours.query("ALERTS", None);
    assert_eq!(ended["result"], json!([]), "markers end the series");
    let metrics = ours.get("/metrics").text;
    let dropped = "millrace_rules_notifications_dropped_total 0";
    assert!(metrics.contains(dropped), "{metrics}");
}

/// Whether `all` has everything that `part` has: ours shows fields that an older Prometheus does not.
fn contains(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => part
            .iter()
            .all(|(name, value)| all.get(name).is_some_and(|own| contains(own, value))),
        (Value::Array(all), Value::Array(part)) => {
            all.len() == part.len() && all.iter().zip(part).all(|(a, p)| contains(a, p))
        }
        // Go writes whole numbers without a fraction.
        (Value::Number(all), Value::Number(part)) => all.as_f64() == part.as_f64(),
        (all, part) => all == part,
    }
}

#[test]
fn rules_with_an_error_are_refused_and_those_before_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.yml");
    let good =
        "groups: [{name: g, interval: 200ms, rules: [{record: 'one:vector', expr: vector(1)}]}]\n";
    let other = good.replace("one:", "two:");
    let bad = good.replace("vector(1)", "vector(");
    std::fs::write(&rules, good).unwrap();
    let set = format!("rules.files={}", dir.path().join("*.yml").display());
    let millrace = Millrace::start(&dir.path().join("data"), &[&set, "server.admin_api=true"]);
    let client = millrace.client();
    let there = |metric: &str| {
        eventually(metric, PATIENCE, || {
            let found = client.query(metric, None);
            let some = found["result"]
                .as_array()
                .is_some_and(|all| !all.is_empty());
            some.then_some(()).ok_or_else(|| found.to_string())
        });
    };
    there("one:vector");
    std::fs::write(&rules, bad).unwrap();
    let refused = client.post("/-/reload", &[], Vec::new());
    assert_eq!(refused.status, 500, "{refused:?}");
    for part in [
        "rules.yml",
        "group \"g\", rule 1, \"one:vector\"",
        "could not parse expression",
    ] {
        assert!(refused.text.contains(part), "{part}: {}", refused.text);
    }
    let shown = client.get("/api/v1/rules").json();
    assert_eq!(shown["data"]["groups"][0]["rules"][0]["name"], "one:vector");

    // A rule that goes leaves a marker behind, and its successor begins.
    std::fs::write(&rules, other).unwrap();
    assert_eq!(client.post("/-/reload", &[], Vec::new()).status, 200);
    there("two:vector");
    eventually("the end of the first rule", PATIENCE, || {
        let found = client.query("one:vector", None);
        (found["result"] == json!([]))
            .then_some(())
            .ok_or_else(|| found.to_string())
    });
}
