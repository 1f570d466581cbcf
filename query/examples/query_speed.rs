//! How long the engine takes per sample, with the samples in memory.
//!
//! `cargo run --release -p millrace-query --example query_speed [threads]`

use std::sync::Arc;
use std::time::Instant;

use millrace_model::{Labels, Matcher, TenantId, TimestampMs};
use millrace_query::{
    CancelFlag, Engine, EngineOptions, QueryRequest, QueryTime, SampleColumns, Select,
    SeriesSource, SourceError, StoredSeries,
};

const SERIES: usize = 1_000;
const SAMPLES: usize = 10_000;
const INTERVAL_MS: i64 = 15_000;

#[derive(Debug)]
struct Table {
    series: Vec<Arc<Row>>,
}

#[derive(Debug)]
struct Row {
    labels: Labels,
    timestamps: Vec<i64>,
    values: Vec<f64>,
}

struct Selected {
    row: Arc<Row>,
    first: usize,
    last: usize,
}

impl StoredSeries for Selected {
    fn labels(&self) -> &Labels {
        &self.row.labels
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        let range = self.first..self.last;
        out.timestamps
            .extend_from_slice(&self.row.timestamps[range.clone()]);
        out.values.extend_from_slice(&self.row.values[range]);
        Ok(())
    }
}

impl SeriesSource for Table {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let passes = |row: &&Arc<Row>| {
            let mut matchers = request.matchers.iter();
            matchers.all(|m: &Matcher| m.matches_labels(&row.labels))
        };
        let (start, end) = (request.range.start.0, request.range.end.0);
        let selected = self.series.iter().filter(passes).map(|row| {
            let first = row.timestamps.partition_point(|t| *t < start);
            let last = row.timestamps.partition_point(|t| *t <= end);
            Box::new(Selected {
                row: Arc::clone(row),
                first,
                last,
            }) as Box<dyn StoredSeries>
        });
        Ok(selected.collect())
    }
}

fn table() -> Table {
    let series = (0..SERIES).map(|index| {
        let (x, id) = ((index % 10).to_string(), index.to_string());
        let labels = Labels::from_pairs([("__name__", "m_total"), ("x", &x), ("id", &id)]);
        Arc::new(Row {
            labels: labels.expect("names that differ"),
            timestamps: (0..SAMPLES as i64).map(|i| i * INTERVAL_MS).collect(),
            values: (0..SAMPLES).map(|i| (i * (index % 7 + 1)) as f64).collect(),
        })
    });
    Table {
        series: series.collect(),
    }
}

/// CPU time of all threads so far, in ns; `None` where the system does not tell (not Linux).
fn cpu_ns() -> Option<u64> {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        total += stat.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(total)
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|arg| arg.parse().ok());
    let mut options = EngineOptions::default();
    options.threads = threads.unwrap_or(options.threads);
    println!(
        "{SERIES} series x {SAMPLES} samples, {} threads, best of 5",
        options.threads
    );
    let engine = Engine::new(Arc::new(table()), options);
    let end = SAMPLES as i64 * INTERVAL_MS;
    for (text, step_ms) in [
        ("sum by (x) (rate(m_total[5m]))", 15_000),
        ("sum by (x) (rate(m_total[5m]))", 60_000),
        ("sum by (x) (m_total)", 15_000),
        ("max by (x) (max_over_time(m_total[1h]))", 3_600_000),
        ("sum(sum_over_time(m_total[5m]))", 60_000),
        ("avg by (x) (avg_over_time(m_total[1h]))", 3_600_000),
        ("topk(5, rate(m_total[5m]))", 60_000),
        ("quantile(0.9, rate(m_total[5m]))", 60_000),
        ("sum(rate(m_total[5m]) * 2)", 60_000),
    ] {
        let request = QueryRequest {
            tenant: TenantId::anonymous(),
            text: text.to_owned(),
            time: QueryTime::Range {
                start: TimestampMs(0),
                end: TimestampMs(end),
                step_ms,
            },
            lookback: None,
            timeout: None,
            cancel: CancelFlag::default(),
            partial: false,
            point: std::sync::Arc::default(),
        };
        let mut best = f64::INFINITY;
        let mut best_cpu = u64::MAX;
        let mut read = 0;
        for _ in 0..5 {
            let started = Instant::now();
            let cpu = cpu_ns();
            let outcome = engine.query(&request).expect("an answer");
            best = best.min(started.elapsed().as_secs_f64());
            if let (Some(before), Some(after)) = (cpu, cpu_ns()) {
                best_cpu = best_cpu.min(after - before);
            }
            read = outcome.stats.samples_read;
        }
        println!(
            "{:8.1} ms, {:6.2} CPU-ns per sample read, step {:>4} s: {text}",
            best * 1e3,
            best_cpu as f64 / read as f64,
            step_ms / 1_000
        );
    }
}
