//! How fast series and labels are found among many, in memory and in blocks:
//! `cargo run --release -p millrace-store --example cardinality -- 1000000`.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_log::SystemClock;
use millrace_log::fs::OsFs;
use millrace_model::batch::{FloatSectionWriter, encode_batch};
use millrace_model::{
    Labels, MatchOp, Matcher, Offset, PartitionId, QueueId, Sample, SeriesHasher, ShardKey,
    TenantId, TimeRange, TimestampMs,
};
use millrace_queue::{QueueIdentity, Record};
use millrace_store::block::PageCache;
use millrace_store::shard::{Shard, ShardContext};
use millrace_store::{Store, StoreMetrics, StoreOptions, Views, WalSync};

const METRICS_PER_HOST: usize = 10;
const SERIES_PER_RECORD: usize = 1_000;
const REPEATS: usize = 5;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let series: usize = std::env::args()
        .nth(1)
        .map_or(Ok(1_000_000), |a| a.parse())?;
    let dir = tempfile::tempdir()?;
    let options = StoreOptions {
        wal_sync: WalSync::None,
        wal_bytes_max: u64::MAX,
        memtable_bytes: u64::MAX,
        ..StoreOptions::default()
    };
    let identity = QueueIdentity {
        id: QueueId(1),
        partitions: 1,
        shard_key: ShardKey::default(),
    };
    let views = Arc::new(Views::open(Arc::new(OsFs), dir.path())?);
    let context = ShardContext {
        fs: Arc::new(OsFs),
        clock: Arc::new(SystemClock),
        options: options.clone(),
        identity: identity.clone(),
        metrics: StoreMetrics::register(&prometheus::Registry::new())?,
        pages: Arc::new(PageCache::new(64 << 20)),
        views,
    };
    let mut shard = Shard::open(context.clone(), dir.path(), PartitionId(0))?;
    for record in records(series)? {
        shard.apply(std::slice::from_ref(&record))?;
    }
    shard.close()?;
    let open = || {
        Store::open(
            Arc::new(OsFs),
            Arc::new(SystemClock),
            dir.path(),
            options.clone(),
            &identity,
            &prometheus::Registry::new(),
        )
    };
    println!("| {series} series: question | where | answers | first, ms | best, ms |");
    println!("|---|---|--:|--:|--:|");
    ask(&open()?, "memory")?;
    let mut shard = Shard::open(context, dir.path(), PartitionId(0))?;
    shard.seal()?;
    shard.close()?;
    ask(&open()?, "block")?;
    Ok(())
}

/// Series as a host agent names them; `unique` has another value in each.
fn records(series: usize) -> Result<Vec<Record>> {
    let tenant = TenantId::anonymous();
    let hasher = SeriesHasher::new(&tenant);
    let mut writer = FloatSectionWriter::new();
    let mut records = Vec::new();
    for at in 0..series {
        let host = at / METRICS_PER_HOST;
        let labels = Labels::from_pairs([
            (
                "__name__",
                format!("cpu_usage_{}", at % METRICS_PER_HOST).as_str(),
            ),
            ("hostname", &format!("host_{host}")),
            ("region", ["eu", "us", "ap"][host % 3]),
            ("rack", &format!("{}", host % 100)),
            ("unique", &format!("{at:08x}")),
        ])?;
        let sample = Sample::new(1_795_233_600_000, at as f64);
        writer.push(hasher.id(&labels), labels.canonical(), &[sample]);
        if at % SERIES_PER_RECORD == SERIES_PER_RECORD - 1 || at + 1 == series {
            records.push(Record {
                offset: Offset(records.len() as u64),
                appended_at: TimestampMs(0),
                payload: Bytes::from(encode_batch(&tenant, None, &writer.finish())),
            });
        }
    }
    Ok(records)
}

fn ask(store: &Store, place: &str) -> Result<()> {
    let tenant = TenantId::anonymous();
    let matcher = Matcher::new;
    let selections = [
        (
            "one host of many, by name",
            vec![Matcher::equal("hostname", "host_4242")],
        ),
        (
            "by metric and prefix",
            vec![
                Matcher::equal("__name__", "cpu_usage_3"),
                matcher("hostname", MatchOp::Regex, "host_4242.*")?,
            ],
        ),
        (
            "broad and narrow",
            vec![
                matcher("__name__", MatchOp::NotEqual, "")?,
                matcher("__name__", MatchOp::Regex, "cpu_.+")?,
                Matcher::equal("hostname", "host_77"),
            ],
        ),
    ];
    for (what, matchers) in selections {
        told(what, place, || {
            Ok(store.select(&tenant, &matchers, TimeRange::ALL)?.len())
        })?;
    }
    for name in ["__name__", "hostname", "unique"] {
        let what = format!("values of {name}");
        told(&what, place, || {
            Ok(store
                .label_values(&tenant, name, &[], TimeRange::ALL)?
                .len())
        })?;
    }
    let broad = [vec![matcher("__name__", MatchOp::NotEqual, "")?]];
    told("values of hostname, of all with a name", place, || {
        Ok(store
            .label_values(&tenant, "hostname", &broad, TimeRange::ALL)?
            .len())
    })?;
    told("label names", place, || {
        Ok(store.label_names(&tenant, &[], TimeRange::ALL)?.len())
    })?;
    told("statistics", place, || {
        Ok(store.statistics(&tenant, 10).label_pairs as usize)
    })
}

fn told(what: &str, place: &str, run: impl Fn() -> Result<usize>) -> Result<()> {
    let (mut first, mut best, mut answers) = (None, Duration::MAX, 0);
    for _ in 0..REPEATS {
        let started = Instant::now();
        answers = run()?;
        let took = started.elapsed();
        first.get_or_insert(took);
        best = best.min(took);
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "| {what} | {place} | {answers} | {:.2} | {:.2} |",
        ms(first.unwrap_or_default()),
        ms(best)
    );
    Ok(())
}
