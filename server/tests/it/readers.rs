//! Real Prometheus servers that read from us: one evaluates over our series by remote read, and
//! scrapes `/federate`.
//!
//! Runs where `prometheus` is on the path; with `CI` set it must be.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::prometheus::{Running, Series, compare, free_port, program, spawn};
use crate::support::{Client, Millrace, eventually, matrix, now_ms, vector};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ten minutes of a counter and of a gauge that jumps, from four devices, every 15 s.
fn push_fleet(client: &Client, end_ms: i64) {
    let mut lines = String::new();
    for device in 0..4 {
        for i in 0..=40 {
            let time = end_ms - (40 - i) * 15_000;
            let total = i * (device + 1) * 7;
            let level = if device == 3 && i == 20 {
                -1.5e300
            } else {
                (i * device) as f64 / 8.0
            };
            lines.push_str(&format!(
                "pump,job=plant,device=pump-{device},site=s{} total={total},level={level} {time}\n",
                device % 2
            ));
        }
    }
    let answer = client.post("/write?precision=ms", &[], lines);
    assert_eq!(answer.status, 204, "{answer:?}");
}

fn start_prometheus(dir: &Path, config: &str) -> Option<(Running, Client)> {
    let Some(prometheus) = program(&["prometheus"]) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "prometheus is not on the path"
        );
        println!("NOT RUN: prometheus is not on the path");
        return None;
    };
    let port = free_port();
    let file = dir.join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let log = dir.join("prometheus.log");
    let running = spawn(
        Command::new(prometheus)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
        &log,
    );
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    eventually("Prometheus to be ready", PATIENCE, || {
        let answer = client.send("GET", "/-/ready", &[], Vec::new());
        let answer = answer.map_err(|error| {
            format!(
                "{error}\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            )
        })?;
        (answer.status == 200).then_some(()).ok_or(answer.text)
    });
    Some((running, client))
}

fn answer(client: &Client, expression: &str, start: i64, end: i64) -> Series {
    matrix(&client.query_range(expression, &start.to_string(), &end.to_string(), "15"))
}

#[test]
fn a_prometheus_that_reads_from_us_answers_as_we_do() {
    let dir = tempfile::tempdir().unwrap();
    let millrace = Millrace::start(&dir.path().join("millrace"), &[]);
    let ours = millrace.client();
    let end_ms = now_ms() / 15_000 * 15_000;
    push_fleet(&ours, end_ms);
    let config = format!("remote_read:\n  - url: {}/api/v1/read\n", millrace.url);
    let Some((_prometheus, theirs)) = start_prometheus(dir.path(), &config) else {
        return;
    };
    let (start, end) = (end_ms / 1000 - 600, end_ms / 1000);
    eventually("the pushed samples", PATIENCE, || {
        let seen = ours.query("count(pump_total)", Some(&end.to_string()));
        (seen["result"][0]["value"][1] == "4")
            .then_some(())
            .ok_or_else(|| seen.to_string())
    });
    let mut points = 0;
    for expression in [
        "pump_total",
        "pump_level",
        "rate(pump_total[1m])",
        "sum by (site) (increase(pump_total{device=~\"pump-[0-2]\"}[2m]))",
        "max_over_time(pump_level{site!=\"s0\"}[5m]) - pump_level offset 1m",
        "topk(2, pump_total)",
        "count({__name__=~\"pump_.*\"})",
        "absent(nothing_of_that_name)",
    ] {
        let pair = (
            answer(&theirs, expression, start, end),
            answer(&ours, expression, start, end),
        );
        points += compare(expression, &pair).unwrap_or_else(|difference| panic!("{difference}"));
    }
    assert!(points > 800, "only {points} points were compared");
    // Label names and values go by remote read as well: a series without samples.
    let series = theirs.get(&format!(
        "/api/v1/series?match[]=pump_total&start={start}&end={end}"
    ));
    assert_eq!(
        series.json()["data"].as_array().unwrap().len(),
        4,
        "{}",
        series.text
    );
    println!("remote read: {points} points equal");
}

#[test]
fn a_prometheus_that_federates_from_us_has_our_newest_samples() {
    let dir = tempfile::tempdir().unwrap();
    let millrace = Millrace::start(&dir.path().join("millrace"), &[]);
    let ours = millrace.client();
    let end_ms = now_ms();
    push_fleet(&ours, end_ms);
    let address = millrace.url.strip_prefix("http://").unwrap();
    let config = format!(
        "scrape_configs:\n  - job_name: millrace\n    honor_labels: true\n    scrape_interval: 1s\n    \
         metrics_path: /federate\n    params:\n      'match[]': ['{{__name__=~\"pump_.*\"}}']\n    \
         static_configs:\n      - targets: ['{address}']\n"
    );
    let Some((_prometheus, theirs)) = start_prometheus(dir.path(), &config) else {
        return;
    };
    let compared = eventually("the first scrape", PATIENCE, || {
        let read = vector(&theirs.query("{__name__=~\"pump_.*\"}", None));
        let own = vector(&ours.query("{__name__=~\"pump_.*\"}", None));
        if read == own && read.len() == 8 {
            Ok(read.len())
        } else {
            let targets = theirs.get("/api/v1/targets").text;
            Err(format!("{read:?}\n{own:?}\n{targets}"))
        }
    });
    // The samples came with the timestamps that they were pushed with.
    let stamps = vector(&theirs.query("timestamp(pump_total)", None));
    for (series, seconds) in stamps {
        assert_eq!((seconds * 1000.0).round() as i64, end_ms, "{series}");
    }
    println!("federation: {compared} series equal");
}
