//! Scraping, without a Prometheus to compare with.

use super::target::{TEXT, Target, ok};
use super::{PATIENCE, series, values};
use crate::support::{Millrace, eventually};
use rustix::process::Signal;

fn until<T>(what: &str, mut ask: impl FnMut() -> T, good: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
{
    eventually(what, PATIENCE, || {
        let got = ask();
        good(&got).then_some(()).ok_or_else(|| format!("{got:?}"))?;
        Ok(got)
    })
}

#[test]
fn a_reload_with_an_error_keeps_what_runs_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start(|_| ok(TEXT, "a 1\n"));
    let path = dir.path().join("scrape.yml");
    let config = |job: &str| {
        format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: {job}\n  \
             static_configs: [{{targets: ['{}']}}]\n",
            target.address
        )
    };
    std::fs::write(&path, config("first")).unwrap();
    let setting = format!("scrape.config_file={}", path.display());
    let millrace = Millrace::start(
        &dir.path().join("data"),
        &[&setting, "server.admin_api=true"],
    );
    let client = millrace.client();
    until(
        "a scrape",
        || series(&client, "a"),
        |found| found.len() == 1,
    );

    std::fs::write(&path, config("second") + "  scrape_intervall: 2s\n").unwrap();
    let refused = client.post("/-/reload", &[], "");
    assert_eq!(refused.status, 500);
    let says = "scrape.yml: line 5, column 3: field scrape_intervall not found";
    assert!(refused.text.contains(says), "{}", refused.text);
    let metrics = client.get("/metrics").text;
    assert!(
        metrics.contains("millrace_scrape_config_last_reload_successful 0"),
        "{metrics}"
    );
    let pools = client.get("/api/v1/scrape_pools").json();
    assert_eq!(pools["data"]["scrapePools"], serde_json::json!(["first"]));

    // By a signal this time; the target is the same, its job is another.
    std::fs::write(&path, config("second")).unwrap();
    millrace.signal(Signal::HUP);
    until(
        "the other job",
        || series(&client, "a"),
        |found| found.len() == 1 && found.iter().all(|labels| labels.contains("second")),
    );
    let metrics = client.get("/metrics").text;
    assert!(
        metrics.contains("millrace_scrape_config_last_reload_successful 1"),
        "{metrics}"
    );
    let shown = client
        .get("/api/v1/scrape_pools/config?scrapePool=second")
        .json();
    assert!(
        shown["data"]["yaml"]
            .as_str()
            .unwrap()
            .contains("job_name: second"),
        "{shown}"
    );
    let (status, log) = millrace.terminate();
    assert!(status.success(), "{log}");
    assert!(log.contains("a configuration file has an error"), "{log}");
}

#[test]
fn a_configuration_with_an_error_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scrape.yml");
    std::fs::write(
        &path,
        "scrape_configs:\n- job_name: k\n  kubernetes_sd_configs: []\n",
    )
    .unwrap();
    let setting = format!("scrape.config_file={}", path.display());
    let millrace = Millrace::spawn(&dir.path().join("data"), &[&setting]);
    let (status, log) = millrace.wait();
    assert_eq!(status.code(), Some(78), "{log}");
    assert!(
        log.contains("kubernetes_sd_configs is not supported yet"),
        "{log}"
    );
}

#[test]
fn pushed_series_are_relabelled_and_the_rules_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relabel.yml");
    std::fs::write(
        &path,
        "- {source_labels: [__name__], regex: 'debug_.*', action: drop}\n\
         - {source_labels: [site], target_label: place}\n- {regex: site, action: labeldrop}\n",
    )
    .unwrap();
    let setting = format!("ingest.relabel_file={}", path.display());
    let millrace = Millrace::start(
        &dir.path().join("data"),
        &[&setting, "server.admin_api=true"],
    );
    let client = millrace.client();
    let push = |text: &str| client.post("/write", &[], text);
    let body = "debug,device=a x=1\npump,device=a,site=north flow=2\n";
    assert_eq!(push(body).status, 204);
    let both = "{device=\"a\"}";
    let found = until(
        "the pushed sample",
        || values(&client, both),
        |found| !found.is_empty(),
    );
    let labels: Vec<_> = found.keys().collect();
    assert_eq!(
        labels,
        [r#"{"__name__":"pump_flow","device":"a","place":"north"}"#]
    );
    let metrics = client.get("/metrics").text;
    assert!(
        metrics.contains("millrace_ingest_relabel_dropped_samples_total 1"),
        "{metrics}"
    );
    // The device's own protocol says what was dropped.
    let json = r#"{"device": "b", "fields": {"debug_y": 1, "fine": 2}}"#;
    let answer = client.post("/api/v1/push", &[], json).json();
    let expect = serde_json::json!({"accepted": 1, "dropped": 1, "rejected": 0});
    assert_eq!(answer, expect);

    // Known series are looked at again by new rules.
    std::fs::write(&path, "- {target_label: rule, replacement: second}\n").unwrap();
    assert_eq!(client.post("/-/reload", &[], "").status, 200);
    assert_eq!(push(body).status, 204);
    let second = "{device=\"a\",rule=\"second\"}";
    until(
        "the new rules",
        || series(&client, second),
        |found| found.len() == 2,
    );
    // An error keeps them.
    std::fs::write(&path, "- {action: hashmod}\n").unwrap();
    let refused = client.post("/-/reload", &[], "");
    assert!(
        refused.text.contains("rule 1: target_label"),
        "{}",
        refused.text
    );
}

#[test]
fn what_a_tenants_limits_leave_out_of_a_scrape_is_told_with_its_target() {
    let dir = tempfile::tempdir().unwrap();
    let target = Target::start(|_| ok(TEXT, "a 1\nb 1\nc 1\n"));
    let (path, limits) = (
        dir.path().join("scrape.yml"),
        dir.path().join("limits.toml"),
    );
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: j\n  \
         static_configs: [{{targets: ['{}']}}]\n",
        target.address
    );
    std::fs::write(&path, config).unwrap();
    std::fs::write(&limits, "[tenant.anonymous]\nactive_series = 2\n").unwrap();
    let (file, overrides) = (path.display(), limits.display());
    let millrace = Millrace::start(
        &dir.path().join("data"),
        &[
            &format!("scrape.config_file={file}"),
            &format!("ingest.tenants.overrides_file={overrides}"),
        ],
    );
    let client = millrace.client();
    let told = || client.get("/api/v1/targets").json()["data"]["activeTargets"][0].clone();
    let says = |text: &'static str| {
        move |target: &serde_json::Value| {
            target["lastError"]
                .as_str()
                .is_some_and(|e| e.contains(text))
        }
    };
    let target = until("the refusal", told, says("(too_many_active_series)"));
    assert_eq!(target["health"], "up", "{target}");
    assert!(
        says("1 samples are not stored; line 3, c: ")(&target),
        "{target}"
    );
    let metrics = client.get("/metrics").text;
    let counted = "millrace_ingest_rejected_samples_total{reason=\"too_many_active_series\"}";
    assert!(metrics.contains(counted), "{metrics}");

    // A rate is about the scrape as a whole.
    std::fs::write(
        &limits,
        "[tenant.anonymous]\nsamples_per_second = 1\nsamples_burst = 1\n",
    )
    .unwrap();
    let target = until("the rate", told, says("samples a second"));
    assert_eq!(target["health"], "down", "{target}");
    let metrics = client.get("/metrics").text;
    let counted = "millrace_scrape_exceeded_limit_total{limit=\"samples_per_second\"}";
    assert!(metrics.contains(counted), "{metrics}");

    std::fs::write(&limits, "[tenant.anonymous]\nactive_series = 100\n").unwrap();
    until("all is well", told, |target| {
        target["lastError"] == "" && target["health"] == "up"
    });
    assert_eq!(series(&client, "c").len(), 1);
}
