//! Side by side with a real Prometheus that scrapes a real node_exporter and remote-writes to us.
//!
//! Runs where `prometheus` and `prometheus-node-exporter` (or `node_exporter`) are on the path;
//! with `CI` set they must be.

mod answers;
mod corpus;
mod observed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Client, Millrace, eventually, matrix, now_ms};
use answers::{TOLERANCE, When, ask, difference};
use corpus::{Query, Sameness};
use observed::Metric;

/// How long Prometheus scrapes before the two are compared.
const OBSERVED: Duration = Duration::from_secs(125);

/// Fewest queries that must be compared, with something in their answers.
const QUERIES: usize = 500;

/// Seconds of data that the generated queries are about.
const ASKED: i64 = 100;

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
    fn range(&self, expression: &str, start: &str, end: &str) -> (Series, Series) {
        let ask = |client: &Client| matrix(&client.query_range(expression, start, end, "1"));
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
    let jobs = [
        ("node", format!("127.0.0.1:{exporter_port}")),
        // They have histograms.
        ("prometheus", format!("127.0.0.1:{prometheus_port}")),
        ("millrace", millrace.url.replace("http://", "")),
    ];
    let jobs: String = jobs
        .iter()
        .map(|(job, target)| {
            format!("  - job_name: {job}\n    static_configs:\n      - targets: ['{target}']\n")
        })
        .collect();
    std::fs::write(
        &config,
        format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n{jobs}\
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

    // Prometheus before 3.0 counts a sample exactly at the left edge of a window: none is there.
    let phase = free_phase(&scrape_times(&pair.theirs, end));
    let second = |seconds: i64| format!("{seconds}.{phase:03}");
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
            compare(
                expression,
                &pair.range(expression, &second(start), &second(end - 1)),
            )
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
    generated_queries(&pair, end);
}

/// Hundreds of queries made out of what was scraped, at fixed moments of which all data are there.
fn generated_queries(pair: &Pair, end_seconds: i64) {
    let times = scrape_times(&pair.theirs, end_seconds);
    let phase = free_phase(&times);
    // Prometheus before 3.0 counts a sample exactly at the left edge of a window. Outside of
    // subqueries no sample is there, since all edges are at this phase of a second.
    let edge = times.iter().any(|t| t.rem_euclid(1000) == 0);
    let second = |seconds: i64| format!("{seconds}.{phase:03}");
    // Some windows reach 4 s beyond it, and are complete as well once it is.
    let at = second(end_seconds - 8);
    let instant = When::Instant { at: at.clone() };
    let range = When::Range {
        start: second(end_seconds - 48),
        end: at.clone(),
        step: "4".to_owned(),
    };
    let window = format!("{ASKED}s");
    let metrics = observed::metrics(&pair.theirs, &at, &window, ASKED as usize * 7 / 10);
    for metric in &metrics {
        complete(pair, metric, &second(end_seconds - 2));
    }
    let mut tally = Tally::default();
    for query in corpus::corpus(&metrics, &second(end_seconds - 20)) {
        if edge && query.ours.contains("s:") {
            tally.skip("a sample was scraped exactly at the edge of a subquery's windows");
            continue;
        }
        for when in [&instant, &range] {
            tally.compare(pair, &query, when);
        }
    }
    for text in corpus::REFUSED {
        tally.refused(pair, text, &range);
    }
    tally.print(&metrics);
    assert!(
        tally.wrong.is_empty(),
        "{} answers differ",
        tally.wrong.len()
    );
    assert!(tally.queries >= QUERIES, "only {} queries", tally.queries);
}

/// Waits until millrace has every sample of the metric.
fn complete(pair: &Pair, metric: &Metric, at: &str) {
    let name = metric.stored_name();
    let query = format!("sum(count_over_time({name}[{}s]))", 2 * ASKED);
    eventually("remote write to catch up", Duration::from_secs(60), || {
        let [theirs, ours] = [&pair.theirs, &pair.ours]
            .map(|client| client.query(&query, Some(at))["result"][0]["value"][1].clone());
        let same = theirs == ours;
        same.then_some(())
            .ok_or(format!("{query}: {theirs}, {ours}"))
    });
}

/// The moments of all scrapes, in ms.
fn scrape_times(client: &Client, end_seconds: i64) -> Vec<i64> {
    let data = client.query("up[10m]", Some(&end_seconds.to_string()));
    let series = matrix(&data);
    series.values().flatten().map(|(time, _)| *time).collect()
}

/// Milliseconds of a second at which nothing was scraped.
fn free_phase(times: &[i64]) -> i64 {
    let taken: BTreeSet<i64> = times.iter().map(|t| t.rem_euclid(1000)).collect();
    (137..1000)
        .chain(1..137)
        .find(|phase| !taken.contains(phase))
        .expect("some hundred scrapes do not fill a thousand milliseconds")
}

/// What came of the queries.
#[derive(Default)]
struct Tally {
    /// Queries whose instant answers are equal and have a value.
    queries: usize,
    /// The same for ranges.
    ranges: usize,
    /// Equal, but empty.
    empty: usize,
    refused: usize,
    skipped: BTreeMap<&'static str, usize>,
    notes: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Tally {
    fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    fn compare(&mut self, pair: &Pair, query: &Query, when: &When) {
        let theirs = ask(&pair.theirs, &query.theirs, when);
        let ours = ask(&pair.ours, &query.ours, when);
        if let (Some(reason), 400) = (query.newer, theirs.status) {
            // Asked of ours all the same.
            if ours.status != 200 {
                self.wrong(query, when, ours.error());
            }
            return self.skip(reason);
        }
        if let Some(text) = difference(query, when, &theirs, &ours) {
            return self.wrong(query, when, &text);
        }
        for note in ours.notes() {
            if !is_sane(&note, &query.ours) {
                self.wrong(query, when, &note);
            }
            let kind = note.split([',', '"']).next().unwrap_or_default();
            *self.notes.entry(kind.to_owned()).or_default() += 1;
        }
        let count = match when {
            _ if !ours.has_values() => &mut self.empty,
            When::Instant { .. } => &mut self.queries,
            When::Range { .. } => &mut self.ranges,
        };
        *count += 1;
    }

    /// Both must refuse it, and for the same kind of reason.
    fn refused(&mut self, pair: &Pair, text: &str, when: &When) {
        let query = Query::plain(text, Sameness::Series);
        let theirs = ask(&pair.theirs, text, when);
        let ours = ask(&pair.ours, text, when);
        if let Some(text) = difference(&query, when, &theirs, &ours) {
            self.wrong(&query, when, &text);
        } else if ours.status == 200 {
            self.wrong(&query, when, "not refused");
        } else {
            self.refused += 1;
        }
    }

    fn wrong(&mut self, query: &Query, when: &When, what: &str) {
        let text = &query.ours;
        self.wrong.push(format!("{text} {when:?}: {what}"));
    }

    fn print(&self, metrics: &[Metric]) {
        let series: usize = metrics.iter().map(|m| m.series).sum();
        println!(
            "generated from {} metrics of {series} series: {} instant and {} range queries equal, \
             {} equal and empty, {} refused by both",
            metrics.len(),
            self.queries,
            self.ranges,
            self.empty,
            self.refused
        );
        for (reason, count) in &self.skipped {
            println!("  not compared, {count}: {reason}");
        }
        for (note, count) in &self.notes {
            println!("  noted by millrace alone, {count}: {note}");
        }
        for wrong in &self.wrong {
            println!("  WRONG {wrong}");
        }
    }
}

/// Prometheus 2.42 has no annotations. Ours must be such as fit the query.
fn is_sane(note: &str, query: &str) -> bool {
    let fits = [
        (
            "metric might not be a counter",
            ["rate(", "increase("].as_slice(),
        ),
        ("bucket label \"le\" is missing", &["histogram_quantile("]),
        (
            "input to histogram_quantile needed to be fixed",
            &["histogram_quantile("],
        ),
        ("sort is ineffective for range queries", &["sort"]),
    ];
    fits.iter().any(|(text, functions)| {
        note.contains(text) && functions.iter().any(|function| query.contains(function))
    })
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
