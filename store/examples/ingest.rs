//! What a sample and a series cost: `cargo run --release -p millrace-store --example ingest -- 100000 120`
//! (series, samples of each).
//!
//! Records of 1,000 series with one sample each, as a host agent sends them, go through WAL, decoding
//! and memtable of one shard on a real disk; encoding them is not counted.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_log::SystemClock;
use millrace_log::fs::{Fs, OsFs};
use millrace_model::batch::{FloatSectionWriter, encode_batch};
use millrace_model::{
    Labels, Offset, PartitionId, QueueId, Sample, SeriesHasher, SeriesId, ShardKey, TenantId,
    TimestampMs,
};
use millrace_queue::{QueueIdentity, Record};
use millrace_store::block::PageCache;
use millrace_store::shard::{Shard, ShardContext};
use millrace_store::{StoreMetrics, StoreOptions, Views, WalSync};

const SERIES_PER_RECORD: usize = 1_000;
/// Metrics of a host in the `cpu-only` set of TSBS.
const METRICS_PER_HOST: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let series: usize = arguments.next().map_or(Ok(100_000), |a| a.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(120), |a| a.parse())?;
    let tenant = TenantId::anonymous();
    let all = make_series(&tenant, series);
    let label_bytes: usize = all.iter().map(|(_, l)| l.canonical().len()).sum();
    println!("{series} series, {} label bytes each", label_bytes / series);

    let dir = tempfile::tempdir()?;
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let views = Arc::new(Views::open(Arc::clone(&fs), dir.path())?);
    let context = ShardContext {
        fs,
        clock: Arc::new(SystemClock),
        options: StoreOptions {
            wal_sync: WalSync::Interval(Duration::from_secs(1)),
            wal_bytes_max: u64::MAX,
            memtable_bytes: u64::MAX,
            ..StoreOptions::default()
        },
        identity: QueueIdentity {
            id: QueueId(1),
            partitions: 1,
            shard_key: ShardKey::default(),
        },
        metrics: StoreMetrics::register(&prometheus::Registry::new())?,
        pages: Arc::new(PageCache::new(64 << 20)),
        views,
    };
    let rss_before = rss_bytes()?;
    let mut shard = Shard::open(context, dir.path(), PartitionId(0))?;
    let mut offset = 0;
    let (mut spent, mut cpu_spent) = (Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        let records = encode_round(&tenant, &all, round, &mut offset);
        let (started, cpu_started) = (Instant::now(), cpu_time()?);
        for record in &records {
            shard.apply(std::slice::from_ref(record))?;
            shard.maybe_sync_wal()?;
        }
        let took = started.elapsed();
        let cpu_took = cpu_time()?.saturating_sub(cpu_started);
        let per_sample = took.as_nanos() as f64 / series as f64;
        if round == 0 {
            println!("new series: {per_sample:.0} ns each");
        } else {
            spent += took;
            cpu_spent += cpu_took;
        }
        if matches!(round, 0 | 1 | 29 | 59 | 119 | 239) {
            let accounted = shard.status().memtable_bytes as f64 / series as f64;
            let rss = (rss_bytes()?.saturating_sub(rss_before)) as f64 / series as f64;
            let samples = round + 1;
            println!(
                "{samples:>4} samples each: {per_sample:.0} ns a sample, memtable {accounted:.0} B a \
                 series, process {rss:.0} B a series"
            );
        }
    }
    let samples = (series * rounds.saturating_sub(1)).max(1);
    println!(
        "known series: {:.1} ns a sample, {:.1} ns of CPU, over {samples} samples",
        spent.as_nanos() as f64 / samples as f64,
        cpu_spent.as_nanos() as f64 / samples as f64
    );
    let started = Instant::now();
    shard.seal()?;
    let took = started.elapsed();
    let status = shard.status();
    println!(
        "seal: {took:.2?}, {} blocks, {:.2} B a sample, {:.1} M samples/s",
        status.blocks,
        status.block_bytes as f64 / (series * rounds) as f64,
        (series * rounds) as f64 / took.as_secs_f64() / 1e6
    );
    shard.close()?;
    Ok(())
}

fn make_series(tenant: &TenantId, count: usize) -> Vec<(SeriesId, Labels)> {
    let hasher = SeriesHasher::new(tenant);
    let make = |i: usize| {
        let (host, metric) = (i / METRICS_PER_HOST, i % METRICS_PER_HOST);
        let pairs = [
            ("__name__", format!("cpu_usage_{metric}")),
            ("arch", ["x64", "x86"][host % 2].to_owned()),
            ("datacenter", format!("eu-central-1{}", host % 3)),
            ("hostname", format!("host_{host}")),
            ("os", "Ubuntu16.04LTS".to_owned()),
            ("rack", format!("{}", host % 100)),
            ("region", "eu-central-1".to_owned()),
            ("service", format!("{}", host % 20)),
            ("service_environment", "production".to_owned()),
            ("service_version", format!("{}", host % 2)),
            ("team", ["SF", "NYC", "LON", "CHI"][host % 4].to_owned()),
        ];
        let pairs = pairs.iter().map(|(n, v)| (*n, v.as_str()));
        let labels = Labels::from_pairs(pairs).expect("names are distinct");
        (hasher.id(&labels), labels)
    };
    (0..count).map(make).collect()
}

/// One sample of every series, in records of a thousand.
fn encode_round(
    tenant: &TenantId,
    series: &[(SeriesId, Labels)],
    round: usize,
    offset: &mut u64,
) -> Vec<Record> {
    let timestamp = 1_795_233_600_000 + round as i64 * 10_000;
    let mut writer = FloatSectionWriter::new();
    let mut records = Vec::new();
    for group in series.chunks(SERIES_PER_RECORD) {
        for (i, (id, labels)) in group.iter().enumerate() {
            // A walk over whole percents, as TSBS makes it.
            let value =
                ((id.0 as usize ^ round.wrapping_mul(0x9e37_79b9)).wrapping_add(i) % 101) as f64;
            writer.push(*id, labels.canonical(), &[Sample::new(timestamp, value)]);
        }
        let section = writer.finish();
        records.push(Record {
            offset: Offset(*offset),
            appended_at: TimestampMs(timestamp),
            payload: Bytes::from(encode_batch(tenant, None, &section)),
        });
        *offset += 1;
    }
    records
}

/// What the calling thread has used, the kernel's work for it included.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().next().ok_or("an empty schedstat")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

/// Memory of this process that is in use.
fn rss_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1));
    Ok(kib.ok_or("no VmRSS in /proc/self/status")?.parse::<u64>()? * 1024)
}
