//! What the newest samples of some of many series cost to find, in the memtable and in blocks:
//! `cargo run --release -p millrace-store --example latest -- 1000000` (series).

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_log::SystemClock;
use millrace_log::fs::OsFs;
use millrace_model::batch::{FloatSectionWriter, encode_batch};
use millrace_model::{
    Labels, Matcher, Offset, PartitionId, QueueId, Sample, SeriesHasher, SeriesId, ShardKey,
    TenantId, TimeRange, TimestampMs,
};
use millrace_queue::{QueueIdentity, Record};
use millrace_store::block::PageCache;
use millrace_store::shard::{Shard, ShardContext};
use millrace_store::{Store, StoreMetrics, StoreOptions, Views, WalSync};
use prometheus::Registry;

type Failure = Box<dyn Error>;

const METRICS: usize = 100;
const SERIES_PER_RECORD: usize = 1_000;
const DAY_MS: i64 = 86_400_000;
const SCRAPE_MS: i64 = 15_000;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let series: usize = arguments.next().map_or(Ok(1_000_000), |a| a.parse())?;
    newest_of_many(series)
}

fn newest_of_many(count: usize) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let tenant = TenantId::anonymous();
    let hosts = count.div_ceil(METRICS);
    let mut shard = Shard::open(context(dir.path())?, dir.path(), PartitionId(0))?;
    let mut offset = Offset::ZERO;
    for first in (0..hosts).step_by(SERIES_PER_RECORD / METRICS) {
        let of = first..(first + SERIES_PER_RECORD / METRICS).min(hosts);
        let all: Vec<_> = of
            .flat_map(|host| (0..METRICS).map(move |metric| (metric, host)))
            .map(|(metric, host)| labelled(&tenant, metric, host))
            .collect::<Result<_, _>>()?;
        let samples = [sample(DAY_MS), sample(DAY_MS + SCRAPE_MS)];
        shard.apply(&[record(&tenant, &all, &samples, &mut offset)])?;
    }
    shard.close()?;
    println!("{} series of {METRICS} metrics", hosts * METRICS);
    for place in ["memtable", "blocks"] {
        if place == "blocks" {
            let mut shard = Shard::open(context(dir.path())?, dir.path(), PartitionId(0))?;
            shard.seal()?;
            shard.close()?;
        }
        let store = open(dir.path())?;
        for (what, matcher) in [
            ("one host", Matcher::equal("host", "host-77")),
            ("one metric", Matcher::equal("__name__", "metric_42")),
        ] {
            let mut took = Vec::new();
            let mut found = 0;
            for _ in 0..5 {
                let begun = Instant::now();
                let range = TimeRange::ALL;
                let series = store.select(&tenant, std::slice::from_ref(&matcher), range)?;
                found = 0;
                for series in &series {
                    found += usize::from(series.newest()?.is_some());
                }
                took.push(begun.elapsed());
            }
            let least = took.iter().min().copied().unwrap_or_default();
            println!(
                "{place}: {what}, {found} series: {:?} at first, {least:?} later",
                took[0]
            );
        }
        store.close()?;
    }
    Ok(())
}

fn sample(time: i64) -> Sample {
    Sample {
        timestamp: TimestampMs(time),
        value: ((time / SCRAPE_MS).wrapping_mul(7_919) % 1_000) as f64 / 10.0,
    }
}

fn labelled(tenant: &TenantId, metric: usize, host: usize) -> Result<(SeriesId, Labels), Failure> {
    let (metric, host) = (format!("metric_{metric}"), format!("host-{host}"));
    let labels = Labels::from_pairs([
        ("__name__", metric.as_str()),
        ("host", host.as_str()),
        ("region", "eu-central-1"),
    ])?;
    Ok((SeriesHasher::new(tenant).id(&labels), labels))
}

fn record(
    tenant: &TenantId,
    series: &[(SeriesId, Labels)],
    samples: &[Sample],
    offset: &mut Offset,
) -> Record {
    let mut writer = FloatSectionWriter::new();
    for (id, labels) in series {
        writer.push(*id, labels.canonical(), samples);
    }
    let sections: Vec<_> = writer.finish().into_iter().collect();
    let record = Record {
        offset: *offset,
        appended_at: TimestampMs(0),
        payload: encode_batch(tenant, None, &sections).into(),
    };
    *offset = offset.advanced(1);
    record
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
        wal_sync: WalSync::Interval(Duration::from_secs(1)),
        wal_bytes_max: u64::MAX,
        memtable_bytes: 8 << 30,
        ..StoreOptions::default()
    }
}

fn context(dir: &Path) -> Result<ShardContext, Failure> {
    Ok(ShardContext {
        fs: Arc::new(OsFs),
        clock: Arc::new(SystemClock),
        options: options(),
        identity: identity(),
        metrics: StoreMetrics::register(&Registry::new())?,
        pages: Arc::new(PageCache::new(256 << 20)),
        views: Arc::new(Views::open(Arc::new(OsFs), dir)?),
    })
}

fn open(dir: &Path) -> Result<Store, Failure> {
    let (fs, clock) = (Arc::new(OsFs), Arc::new(SystemClock));
    let registry = Registry::new();
    Ok(Store::open(
        fs,
        clock,
        dir,
        options(),
        &identity(),
        &registry,
    )?)
}
