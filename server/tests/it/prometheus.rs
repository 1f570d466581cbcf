//! Side by side with a real Prometheus that scrapes a real node_exporter and remote-writes to us.
//!
//! Runs where `prometheus` and `prometheus-node-exporter` (or `node_exporter`) are on the path;
//! with `CI` set they must be.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Client, Millrace, eventually, matrix, now_ms};

/// How long Prometheus scrapes before the two are compared.
const OBSERVED: Duration = Duration::from_secs(125);

/// How far a value of ours may be from Prometheus's, relative to it.
const TOLERANCE: f64 = 1e-9;

/// Stopped when dropped.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error says that it has ended by itself.
        let _ended = self.0.kill();
        let _waited = self.0.wait();
    }
}

pub fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let candidates: Vec<PathBuf> = std::env::split_paths(&path)
        .flat_map(|dir| names.iter().map(move |name| dir.join(name)))
        .collect();
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// A port that was free a moment ago. Neither program can be asked which one it took.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub fn spawn(command: &mut Command, log: &Path) -> Running {
    let log = std::fs::File::create(log).unwrap();
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    Running(child.expect("the program is there"))
}

struct Pair {
    ours: Client,
    theirs: Client,
}

impl Pair {
    fn range(&self, expression: &str, start: i64, end: i64) -> (Series, Series) {
        let (start, end) = (start.to_string(), end.to_string());
        let ask = |client: &Client| matrix(&client.query_range(expression, &start, &end, "1"));
        (ask(&self.theirs), ask(&self.ours))
    }
}

pub type Series = BTreeMap<String, Vec<(i64, f64)>>;

/// Whether the two say the same within [`TOLERANCE`]; the number of points.
pub fn compare(expression: &str, (theirs, ours): &(Series, Series)) -> Result<usize, String> {
    if theirs.keys().ne(ours.keys()) {
        return Err(format!(
            "{expression}: other series: {:?} and {:?}",
            theirs.keys(),
            ours.keys()
        ));
    }
    let mut points = 0;
    for (series, theirs) in theirs {
        let ours = &ours[series];
        if theirs.len() != ours.len() {
            return Err(format!(
                "{expression} {series}: {} points and {}",
                theirs.len(),
                ours.len()
            ));
        }
        for ((t, theirs), (u, ours)) in theirs.iter().zip(ours) {
            let close = (theirs - ours).abs() <= TOLERANCE * theirs.abs().max(1.0);
            let same = close || (theirs.is_nan() && ours.is_nan()) || theirs == ours;
            if t != u || !same {
                return Err(format!(
                    "{expression} {series}: {theirs} at {t} and {ours} at {u}"
                ));
            }
            points += 1;
        }
    }
    Ok(points)
}

#[test]
fn answers_equal_those_of_the_prometheus_that_feeds_us() {
    let found = (
        program(&["prometheus"]),
        program(&["prometheus-node-exporter", "node_exporter"]),
    );
    let (Some(prometheus), Some(exporter)) = found else {
        let text = format!("prometheus or node_exporter is not on the path: {found:?}");
        assert!(std::env::var_os("CI").is_none(), "{text}");
        println!("NOT RUN: {text}");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let millrace = Millrace::start(&dir.path().join("millrace"), &[]);
    let (exporter_port, prometheus_port) = (free_port(), free_port());
    let _exporter = spawn(
        Command::new(exporter).arg(format!("--web.listen-address=127.0.0.1:{exporter_port}")),
        &dir.path().join("exporter.log"),
    );
    let config = dir.path().join("prometheus.yml");
    std::fs::write(
        &config,
        format!(
            "global:\n  scrape_interval: 1s\n\
             scrape_configs:\n  - job_name: node\n    static_configs:\n      \
             - targets: ['127.0.0.1:{exporter_port}']\n\
             remote_write:\n  - url: {}/api/v1/write\n    \
             queue_config:\n      batch_send_deadline: 500ms\n",
            millrace.url
        ),
    )
    .unwrap();
    let log = dir.path().join("prometheus.log");
    let _prometheus = spawn(
        Command::new(prometheus)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{prometheus_port}")),
        &log,
    );
    let pair = Pair {
        ours: millrace.client(),
        theirs: Client::new(&format!("http://127.0.0.1:{prometheus_port}")),
    };
    let begun = first_scrape(&pair, &log);

    // Two minutes of both programs at work are what is compared.
    let until = Instant::now() + OBSERVED;
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    // Behind the end nothing that remote write may still hold can change an answer.
    let end = now_ms() / 1000 - 2;
    let start = begun + 3;
    let span = end - start;
    assert!(span >= 115, "{span} s of data");

    let mut lines = Vec::new();
    for expression in [
        "count({job=\"node\"})",
        "sum by (mode) (rate(node_cpu_seconds_total[1m]))",
        "up",
        "node_memory_MemAvailable_bytes",
        "topk(3, sum by (cpu, mode) (irate(node_cpu_seconds_total[30s])))",
        "avg_over_time(node_load1[30s]) - on (instance) group_left node_load1",
    ] {
        // Remote write is behind by its batches: asked until it has caught up, and no longer.
        let points = eventually("remote write to catch up", Duration::from_secs(60), || {
            compare(expression, &pair.range(expression, start, end))
        });
        assert!(points >= 100, "{expression}: only {points} points");
        lines.push(format!("{expression}: {points} points equal"));
    }
    println!(
        "prometheus: {span} s side by side\n  {}",
        lines.join("\n  ")
    );
    let metadata = pair
        .ours
        .get("/api/v1/metadata?metric=node_cpu_seconds_total")
        .json();
    assert_eq!(
        metadata["data"]["node_cpu_seconds_total"][0]["type"], "counter",
        "{metadata}"
    );
}

/// Waits for the first scrape; its moment in seconds.
fn first_scrape(pair: &Pair, log: &Path) -> i64 {
    eventually("a first scrape", Duration::from_secs(60), || {
        let query = "/api/v1/query?query=min(timestamp(up))";
        let answer = pair
            .theirs
            .send("GET", query, &[], Vec::new())
            .map_err(|error| {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                format!("{error}\n{log}")
            })?;
        if answer.status != 200 {
            return Err(answer.text);
        }
        let first = answer.json()["data"]["result"][0]["value"][1].clone();
        let seconds = first.as_str().and_then(|text| text.parse::<f64>().ok());
        seconds.map(|s| s as i64).ok_or(answer.text)
    })
}
