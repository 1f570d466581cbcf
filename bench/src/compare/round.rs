//! One server, from an empty directory to recovery after a crash.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::compacted;
use super::server::Server;
use crate::client::{Client, percent_encode};
use crate::load::{Check, Plan, Report, now_ms, push};
use crate::process;
use crate::wire;

/// How often the time from acknowledgement to visibility is taken.
const VISIBILITY_TRIALS: usize = 10;
/// Longest wait for a sample to be seen.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks for a sample.
const POLL: Duration = Duration::from_millis(1);
/// Under load the next look is after this part of what was waited already: closer looks would say little more, and
/// take processor time that counts as the server's.
const NEXT_LOOK: u32 = 20;
/// Between two markers under load.
const MARKER_PAUSE: Duration = Duration::from_millis(200);
/// The metric of the samples that are written one by one when the server is at rest.
const MARKER: &str = "millrace_bench_marker";
/// The metric of those that are written while the load runs.
const LOAD_MARKER: &str = "millrace_bench_load_marker";
/// A server is at rest when it takes less CPU time than this...
const REST_CPU_SECONDS: f64 = 0.03;
/// ...for this long.
const REST_WINDOW: Duration = Duration::from_secs(2);
/// Longest wait for that.
const REST_TIMEOUT: Duration = Duration::from_secs(30);

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// As the load generator saw it.
    pub load: Report,
    /// From the start of the load until everything of it could be queried.
    pub visible_all_seconds: f64,
    /// CPU time of the server from the start of the load until it was at rest.
    pub cpu_seconds: f64,
    /// Of that what it took until the last acknowledgement.
    pub cpu_seconds_of_load: f64,
    /// Acknowledged samples by CPU seconds, rest included.
    pub samples_per_cpu_second: f64,
    /// Peak resident memory.
    pub peak_memory_bytes: u64,
    /// On disk at the last acknowledgement.
    pub disk_bytes_after_load: u64,
    /// On disk when it was at rest.
    pub disk_bytes_at_rest: u64,
    /// From the acknowledgement of the first sample of a series to its appearance in a query.
    pub visible_new_ms: f64,
    /// The same for further samples of it, in order of size.
    pub visible_ms: Vec<f64>,
    /// The same while the load is running, in order of size.
    pub visible_under_load_ms: Vec<f64>,
    /// On disk after everything that a server does with time: see [`compacted::bytes`].
    pub disk_bytes_compacted: u64,
    /// From kill -9 to the first answer to a query by the restarted server.
    pub recovery_seconds: f64,
    /// Of the acknowledged samples that were seen one by one before it, those that were gone after.
    pub lost_by_kill: usize,
}

impl Round {
    /// One line while it runs.
    pub fn summary(&self) -> String {
        format!(
            "{:.0} samples/s, {:.0} per CPU second, p99 {:.1} ms, {:.0} MB, recovery {:.2} s",
            self.load.samples_per_second,
            self.samples_per_cpu_second,
            self.load.p99_ms,
            self.peak_memory_bytes as f64 / 1e6,
            self.recovery_seconds
        )
    }
}

/// Measures `server`, which was just started with `args` on an empty directory, and stops it.
pub fn run(mut server: Server, plan: &Plan, deadline: Duration, args: &[String]) -> Result<Round> {
    let url = server.url();
    let cpu_before = process::cpu_seconds(server.pid())?;
    let started = Instant::now();
    let loaded = AtomicBool::new(false);
    let (load, cpu_loaded, disk_bytes_after_load, visible_under_load_ms) =
        std::thread::scope(|scope| -> Result<_> {
            let probe = scope.spawn(|| see_while(&url, &loaded));
            let load = push(plan, &url, plan.protocol.path(), deadline);
            // Before the last marker is waited for, which may take seconds.
            let cpu = process::cpu_seconds(server.pid());
            let disk = process::disk_bytes(&server.data_dir());
            loaded.store(true, Ordering::Relaxed);
            let seen = probe.join().expect("looking does not panic");
            Ok((load?, cpu?, disk, seen?))
        })?;
    if load.refused > 0 || load.unsent > 0 {
        bail!(
            "{} requests were refused, {} not sent: {}",
            load.refused,
            load.unsent,
            load.first_problem.as_deref().unwrap_or("time was up")
        );
    }
    let mut probe = Probe::new(&url)?;
    probe.wait_for_load(&mut server, &plan.check, plan.end_ms)?;
    let visible_all_seconds = started.elapsed().as_secs_f64();
    let cpu_at_rest = wait_for_rest(server.pid())?;
    let peak_memory_bytes = process::peak_memory_bytes(server.pid())?;
    let disk_bytes_at_rest = process::disk_bytes(&server.data_dir());

    let mut marker = Marker::first(MARKER);
    let visible_new_ms = probe.time_to_see(&mut server, marker)?;
    let mut visible_ms = Vec::new();
    for _ in 0..VISIBILITY_TRIALS {
        marker = marker.next();
        visible_ms.push(probe.time_to_see(&mut server, marker)?);
    }
    visible_ms.sort_by(f64::total_cmp);

    let killed = Instant::now();
    server.kill_and_restart()?;
    // A new connection: the old one went with the process.
    let mut probe = Probe::new(&url)?;
    let survived = probe.count_survivors(&mut server, marker)?;
    let recovery_seconds = killed.elapsed().as_secs_f64();
    probe.wait_for_load(&mut server, &plan.check, plan.end_ms)?;

    let disk_bytes_compacted = compacted::bytes(&mut server, args)?;

    let cpu_seconds = cpu_at_rest - cpu_before;
    Ok(Round {
        samples_per_cpu_second: load.samples as f64 / cpu_seconds,
        cpu_seconds,
        cpu_seconds_of_load: cpu_loaded - cpu_before,
        visible_all_seconds,
        peak_memory_bytes,
        disk_bytes_after_load,
        disk_bytes_at_rest,
        visible_new_ms,
        visible_ms,
        visible_under_load_ms,
        disk_bytes_compacted,
        recovery_seconds,
        lost_by_kill: (VISIBILITY_TRIALS + 1).saturating_sub(survived),
        load,
    })
}

/// Writes markers while `loaded` is not set, and measures how long each takes to be seen, in ms, in order of size.
fn see_while(url: &str, loaded: &AtomicBool) -> Result<Vec<f64>> {
    let mut probe = Probe::new(url)?;
    let mut marker = Marker::first(LOAD_MARKER);
    let mut seen = Vec::new();
    while !loaded.load(Ordering::Relaxed) {
        let acknowledged = probe.push(marker)?;
        let path = query_path(marker.metric, marker.at_ms);
        while probe.value(&path)? != Some(marker.value) {
            let waited = acknowledged.elapsed();
            ensure!(
                waited < VISIBLE_TIMEOUT,
                "a marker is not seen after {waited:?}"
            );
            std::thread::sleep((waited / NEXT_LOOK).max(POLL));
        }
        seen.push(acknowledged.elapsed().as_secs_f64() * 1e3);
        marker = marker.next();
        std::thread::sleep(MARKER_PAUSE);
    }
    seen.sort_by(f64::total_cmp);
    Ok(seen)
}

/// The CPU time when the server was at rest.
pub fn wait_for_rest(pid: u32) -> Result<f64> {
    let deadline = Instant::now() + REST_TIMEOUT;
    let mut before = process::cpu_seconds(pid)?;
    loop {
        std::thread::sleep(REST_WINDOW);
        let now = process::cpu_seconds(pid)?;
        if now - before < REST_CPU_SECONDS || Instant::now() >= deadline {
            return Ok(now);
        }
        before = now;
    }
}

/// A sample that stands for the newest one. All markers are samples of one series.
#[derive(Clone, Copy, Debug)]
struct Marker {
    metric: &'static str,
    value: f64,
    at_ms: i64,
}

impl Marker {
    fn first(metric: &'static str) -> Self {
        Self {
            metric,
            value: 1.0,
            at_ms: now_ms(),
        }
    }

    fn next(self) -> Self {
        Self {
            metric: self.metric,
            value: self.value + 1.0,
            // The one before may be of this very millisecond.
            at_ms: now_ms().max(self.at_ms + 1),
        }
    }
}

/// Asks a server.
pub struct Probe {
    client: Client,
}

impl Probe {
    /// Of the server at this address.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self {
            client: Client::new(url)?,
        })
    }

    /// Writes a marker; when it was acknowledged.
    fn push(&mut self, marker: Marker) -> Result<Instant> {
        let protocol = crate::encode::Protocol::RemoteWrite;
        let labels = wire::labels(&[("__name__", marker.metric)]);
        let mut plain = Vec::new();
        wire::time_series(&mut plain, &labels, marker.value, marker.at_ms);
        let body = wire::snappy(&plain);
        let answer = self
            .client
            .post(protocol.path(), protocol.headers(), &body)?;
        ensure!(
            (200..300).contains(&answer.status),
            "a marker was answered {}: {}",
            answer.status,
            answer.excerpt()
        );
        Ok(Instant::now())
    }

    /// Milliseconds from the acknowledgement of a marker to its appearance in a query.
    fn time_to_see(&mut self, server: &mut Server, marker: Marker) -> Result<f64> {
        let acknowledged = self.push(marker)?;
        self.wait(server, marker.metric, marker.at_ms, marker.value)?;
        Ok(acknowledged.elapsed().as_secs_f64() * 1e3)
    }

    /// Waits until a restarted server answers, and counts the markers that it has.
    fn count_survivors(&mut self, server: &mut Server, newest: Marker) -> Result<usize> {
        let query = format!("count_over_time({MARKER}[1h])");
        let path = query_path(&query, newest.at_ms);
        let deadline = Instant::now() + VISIBLE_TIMEOUT;
        loop {
            server.check_alive()?;
            match self.value(&path) {
                Ok(found) => return Ok(found.unwrap_or(0.0) as usize),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context("it does not answer after a restart"));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    /// Waits until every sample of the load is counted.
    pub fn wait_for_load(&mut self, server: &mut Server, check: &Check, end_ms: i64) -> Result<()> {
        let Check {
            metric,
            samples,
            window_seconds,
            ..
        } = check;
        let query = format!("sum(count_over_time({metric}[{window_seconds}s]))");
        // The window is an interval longer than the load, so its ends do not matter.
        self.wait(server, &query, end_ms + 999, *samples as f64)
    }

    fn wait(&mut self, server: &mut Server, query: &str, at_ms: i64, expected: f64) -> Result<()> {
        let deadline = Instant::now() + VISIBLE_TIMEOUT;
        let path = query_path(query, at_ms);
        loop {
            server.check_alive()?;
            let found = self.value(&path);
            if matches!(found, Ok(Some(value)) if value == expected) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{query} is {found:?} after {VISIBLE_TIMEOUT:?}, not {expected}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// The value of the only series of an answer, if there is one.
    fn value(&mut self, path: &str) -> Result<Option<f64>> {
        let answer = self.client.get(path)?;
        ensure!(
            answer.status == 200,
            "{} {}",
            answer.status,
            answer.excerpt()
        );
        let json: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let value = &json["data"]["result"][0]["value"][1];
        let Some(text) = value.as_str() else {
            return Ok(None);
        };
        Ok(Some(text.parse().with_context(|| format!("{text:?}"))?))
    }
}

/// Of an instant query.
fn query_path(query: &str, at_ms: i64) -> String {
    format!(
        "/api/v1/query?query={}&time={}.{:03}&nocache=1",
        percent_encode(query),
        at_ms.div_euclid(1000),
        at_ms.rem_euclid(1000)
    )
}
