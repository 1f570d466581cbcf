//! How fast sealed samples are read through the store's read interface, on one thread:
//! `cargo run --release -p millrace-store --example scan -- 4000 24 7` (series, hours,
//! repeats, of which the fastest counts).
//!
//! Integers that walk every 10 s, as the Time Series Benchmark Suite makes them, two decimals that
//! walk at jittered moments, and constants; sealed into blocks of two hours and read by
//! `Store::select` and `StoreSeries::read`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_log::SystemClock;
use millrace_log::fs::OsFs;
use millrace_model::batch::{FloatSectionWriter, encode_batch};
use millrace_model::{
    Labels, Matcher, Offset, PartitionId, QueueId, Sample, SeriesHasher, ShardKey, TenantId,
    TimeRange, TimestampMs,
};
use millrace_queue::{QueueIdentity, Record};
use millrace_store::block::PageCache;
use millrace_store::shard::{Shard, ShardContext};
use millrace_store::{Store, StoreMetrics, StoreOptions, Views, WalSync};

const START_MS: i64 = 1_795_233_600_000;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let series: usize = arguments.next().map_or(Ok(4_000), |a| a.parse())?;
    let hours: i64 = arguments.next().map_or(Ok(24), |a| a.parse())?;
    let repeats: usize = arguments.next().map_or(Ok(7), |a| a.parse())?;
    let dir = tempfile::tempdir()?;
    let samples = fill(dir.path(), series, hours)?;
    let store = Store::open(
        Arc::new(OsFs),
        Arc::new(SystemClock),
        dir.path(),
        options(),
        &identity(),
        &prometheus::Registry::new(),
    )?;
    let status = &store.status()[0];
    println!(
        "{samples} samples in {} blocks, {:.3} bytes a sample",
        status.blocks,
        status.block_bytes as f64 / samples as f64
    );
    println!("| metric | samples | select, ns a sample | read, ns a sample | M samples/s, both |");
    println!("|---|--:|--:|--:|--:|");
    for metric in ["integers", "decimals", "constants"] {
        scan(&store, metric, repeats)?;
    }
    Ok(())
}

/// Reads all series of a metric some times, and tells the fastest.
fn scan(store: &Store, metric: &str, repeats: usize) -> Result<()> {
    let tenant = TenantId::anonymous();
    let matchers = [Matcher::equal("__name__", metric)];
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    let mut best: Option<(Duration, Duration, usize)> = None;
    for _ in 0..repeats {
        let started = Instant::now();
        let selected = store.select(&tenant, &matchers, TimeRange::ALL)?;
        let select = started.elapsed();
        let mut samples = 0;
        for series in &selected {
            timestamps.clear();
            values.clear();
            series.read(&mut timestamps, &mut values)?;
            samples += timestamps.len();
        }
        let all = started.elapsed();
        if best.is_none_or(|(_, fastest, _)| all < fastest) {
            best = Some((select, all, samples));
        }
    }
    let (select, all, samples) = best.ok_or("no repeats")?;
    let read = all.saturating_sub(select);
    let each = |time: Duration| time.as_nanos() as f64 / samples as f64;
    println!(
        "| {metric} | {samples} | {:.2} | {:.2} | {:.0} |",
        each(select),
        each(read),
        1e3 / (each(select) + each(read)),
    );
    Ok(())
}

fn identity() -> QueueIdentity {
    QueueIdentity {
        id: QueueId(1),
        partitions: 1,
        shard_key: ShardKey::default(),
    }
}

fn options() -> StoreOptions {
    StoreOptions {
        wal_sync: WalSync::None,
        wal_bytes_max: u64::MAX,
        memtable_bytes: u64::MAX,
        ..StoreOptions::default()
    }
}

/// A small generator with a fixed seed (xorshift64*).
fn random(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
    (bits >> 11) as f64 / (1u64 << 53) as f64 - 0.5
}

/// Fills a store and seals it; returns the samples.
fn fill(dir: &Path, series: usize, hours: i64) -> Result<u64> {
    let views = Arc::new(Views::open(Arc::new(OsFs), dir)?);
    let context = ShardContext {
        fs: Arc::new(OsFs),
        clock: Arc::new(SystemClock),
        options: options(),
        identity: identity(),
        metrics: StoreMetrics::register(&prometheus::Registry::new())?,
        pages: Arc::new(PageCache::new(64 << 20)),
        views,
    };
    let mut shard = Shard::open(context, dir, PartitionId(0))?;
    let tenant = TenantId::anonymous();
    let hasher = SeriesHasher::new(&tenant);
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let (mut writer, mut offset, mut count) = (FloatSectionWriter::new(), 0, 0);
    for (at, metric) in ["integers", "decimals", "constants"]
        .into_iter()
        .enumerate()
    {
        for host in 0..series {
            let (name, zone) = (format!("host_{host}"), format!("z{}", host % 3));
            let labels =
                Labels::from_pairs([("__name__", metric), ("hostname", &name), ("zone", &zone)])?;
            let mut value = 50.0;
            let samples = (0..hours * 360).map(|i| {
                value = (value + 3.0 * random(&mut state)).clamp(0.0, 100.0);
                let jitter = (i * i * (host as i64 % 40 + 1)) % 5 * i64::from(at == 1);
                let value = [value.trunc(), (value * 100.0).round() / 100.0, 4.0][at];
                Sample::new(START_MS + i * 10_000 + jitter, value)
            });
            let samples: Vec<_> = samples.collect();
            count += samples.len() as u64;
            writer.push(hasher.id(&labels), labels.canonical(), &samples);
            if host % 20 == 19 || host + 1 == series {
                let record = Record {
                    offset: Offset(offset),
                    appended_at: TimestampMs(START_MS),
                    payload: Bytes::from(encode_batch(&tenant, None, &writer.finish())),
                };
                offset += 1;
                shard.apply(std::slice::from_ref(&record))?;
            }
        }
    }
    shard.seal()?;
    shard.close()?;
    Ok(count)
}
