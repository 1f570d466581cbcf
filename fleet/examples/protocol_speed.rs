//! What reading over the protocol costs beside reading the store in the same process:
//! `cargo run --release -p millrace-fleet --example protocol_speed -- 20000 720 3`
//! (series, samples of each, rounds).
//!
//! One shard with sealed blocks on a real disk. Local: select, and each series read. Over the
//! protocol: the same question by a `FleetSource` over loopback, with store and query side in this
//! one process, so that the processor time is that of both. Beside it what zstd would save.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_fleet::wire::VERSION;
use millrace_fleet::wire::frame::{FrameKind, FrameReader};
use millrace_fleet::{
    Fleet, FleetMetrics, FleetOptions, FleetSource, LocalShards, PartitionStatus, QueueInfo,
    ServeMetrics, ServeOptions, StaticDirectory, StoreStatus,
};
use millrace_log::SystemClock;
use millrace_log::fs::OsFs;
use millrace_model::batch::{FloatSectionWriter, encode_batch};
use millrace_model::{
    Labels, MetricMetadata, Offset, PartitionId, QueueId, Sample, SeriesHasher, SeriesId, ShardKey,
    TenantId, TimeRange, TimestampMs,
};
use millrace_query::api::FreshnessError;
use millrace_query::{
    LabelRequest, ReadContext, SampleColumns, Select, SeriesSource, SourceError, StoredSeries,
};
use millrace_queue::{Position, QueueIdentity, Record};
use millrace_store::shard::{Shard, ShardContext};
use millrace_store::{Store, StoreMetrics, StoreOptions, StoreSeries, WalSync};
use prometheus::Registry;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let series: usize = arguments.next().map_or(Ok(20_000), |a| a.parse())?;
    let samples: usize = arguments.next().map_or(Ok(720), |a| a.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(3), |a| a.parse())?;
    let dir = tempfile::tempdir()?;
    fill(dir.path(), series, samples)?;
    let store = Store::open(
        Arc::new(OsFs),
        Arc::new(SystemClock),
        dir.path(),
        StoreOptions::default(),
        &identity(),
        &Registry::new(),
    )?;
    let local = Local(Arc::new(store));

    let runtime = tokio::runtime::Runtime::new()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?.to_string();
    let metrics = ServeMetrics::register(&Registry::new())?;
    let shards: Arc<dyn LocalShards> = Arc::new(local.clone());
    let router = millrace_fleet::router(shards, ServeOptions::default(), metrics);
    let _serving = runtime.spawn(async { axum::serve(listener, router).await });
    let directory = StaticDirectory::new([address.clone()], Some(identity()));
    let fleet = Fleet::start(
        Arc::new(directory),
        FleetOptions::default(),
        runtime.handle().clone(),
        FleetMetrics::register(&Registry::new())?,
    )?;
    let remote = FleetSource::new(fleet);

    println!("{series} series of {samples} samples");
    for round in 0..rounds {
        measure(&format!("round {round}, local"), &local)?;
        measure(&format!("round {round}, protocol"), &remote)?;
    }
    runtime.block_on(compression(&address, series * samples))
}

fn measure(what: &str, source: &dyn SeriesSource) -> Result<(), Box<dyn Error>> {
    let tenant = TenantId::anonymous();
    let context = Arc::new(ReadContext::default());
    let (begun, cpu_begun) = (Instant::now(), cpu_time()?);
    let found = source.select(&Select {
        tenant: &tenant,
        matchers: &[],
        range: TimeRange::ALL,
        context: &context,
    })?;
    let mut columns = SampleColumns::default();
    let (mut samples, mut sum) = (0, 0.0);
    for series in found {
        columns.clear();
        series.read(&mut columns)?;
        samples += columns.len();
        sum += columns.values.iter().sum::<f64>();
    }
    let (took, cpu) = (begun.elapsed(), cpu_time()?.saturating_sub(cpu_begun));
    println!(
        "{what}: {samples} samples (sum {sum}), {:.1} M samples/s, {:.1} M samples per CPU-second",
        samples as f64 / took.as_secs_f64() / 1e6,
        samples as f64 / cpu.as_secs_f64() / 1e6
    );
    Ok(())
}

/// Bytes of the answer, and what zstd would make of its frames.
async fn compression(address: &str, samples: usize) -> Result<(), Box<dyn Error>> {
    let request = format!(
        r#"{{"queue":"{}","partitions":[0],"tenant":"anonymous","timeout_ms":60000,
        "ask":{{"select":{{"matchers":[],"start":{},"end":{}}}}}}}"#,
        identity().id,
        i64::MIN,
        i64::MAX
    );
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{address}/internal/v1/read");
    let mut response = http.post(url).body(request).send().await?;
    let mut reader = FrameReader::default();
    let (mut plain, mut packed, mut spent) = (0, 0, Duration::ZERO);
    while let Some(chunk) = response.chunk().await? {
        reader.push(&chunk);
        while let Some(frame) = reader.next_frame()? {
            if frame.kind == FrameKind::Series {
                let begun = thread_cpu_time()?;
                packed += zstd::bulk::compress(&frame.body, 1)?.len();
                spent += thread_cpu_time()?.saturating_sub(begun);
                plain += frame.body.len();
            }
        }
    }
    println!(
        "{:.2} bytes a sample; zstd -1 would make it {:.2}, for {:.1} ns of CPU a sample to compress",
        plain as f64 / samples as f64,
        packed as f64 / samples as f64,
        spent.as_nanos() as f64 / samples as f64
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

/// Fills a shard and seals it.
fn fill(dir: &std::path::Path, series: usize, samples: usize) -> Result<(), Box<dyn Error>> {
    let context = ShardContext {
        fs: Arc::new(OsFs),
        clock: Arc::new(SystemClock),
        options: StoreOptions {
            wal_sync: WalSync::Interval(Duration::from_secs(10)),
            wal_bytes_max: u64::MAX,
            memtable_bytes: u64::MAX,
            ..StoreOptions::default()
        },
        identity: identity(),
        metrics: StoreMetrics::register(&Registry::new())?,
    };
    let mut shard = Shard::open(context, dir, PartitionId(0))?;
    let tenant = TenantId::anonymous();
    let hasher = SeriesHasher::new(&tenant);
    let all: Vec<(SeriesId, Labels)> = (0..series)
        .map(|n| {
            let (host, metric) = (n / 10, n % 10);
            let (metric, host) = (format!("cpu_usage_{metric}"), format!("host_{host}"));
            let pairs = [
                ("__name__", &*metric),
                ("datacenter", "eu-central-1a"),
                ("hostname", &*host),
                ("region", "eu-central-1"),
                ("service_environment", "production"),
            ];
            let labels = Labels::from_pairs(pairs).expect("names are distinct");
            (hasher.id(&labels), labels)
        })
        .collect();
    let mut offset = 0;
    let mut writer = FloatSectionWriter::new();
    for round in 0..samples {
        for group in all.chunks(1_000) {
            for (n, (id, labels)) in group.iter().enumerate() {
                // Off the grid by milliseconds, as scrapes are; a walk over tenths.
                let jitter = ((n / 10) * 31 + round * 17) % 9;
                let timestamp = 1_795_233_600_000 + round as i64 * 10_000 + jitter as i64;
                let walk = (round * (7 + n % 13) + n * 31) % 1_000;
                let sample = Sample::new(timestamp, walk as f64 / 10.0);
                writer.push(*id, labels.canonical(), &[sample]);
            }
            let payload = Bytes::from(encode_batch(&tenant, None, &writer.finish()));
            let record = Record {
                offset: Offset(offset),
                appended_at: TimestampMs(1_795_233_600_000),
                payload,
            };
            shard.apply(&[record])?;
            offset += 1;
        }
    }
    shard.seal()?;
    shard.close()?;
    Ok(())
}

/// What this process has used, all its threads and the kernel's work for them, in hundredths of a
/// second.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(')').ok_or("no stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// What this thread has used.
fn thread_cpu_time() -> Result<Duration, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().next().ok_or("an empty schedstat")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

/// The store of this process, read directly, and as a store of a fleet.
#[derive(Clone)]
struct Local(Arc<Store>);

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local")
    }
}

struct Stored(StoreSeries);

impl StoredSeries for Stored {
    fn labels(&self) -> &Labels {
        self.0.labels()
    }

    fn read(&self, out: &mut SampleColumns) -> Result<(), SourceError> {
        let read = self.0.read(&mut out.timestamps, &mut out.values);
        read.map_err(|error| SourceError::DataUnavailable {
            reason: error.to_string(),
        })
    }
}

fn elsewhere<T>() -> Result<T, SourceError> {
    Err(SourceError::NotReady {
        reason: "only samples are measured".to_owned(),
    })
}

impl SeriesSource for Local {
    fn select(&self, request: &Select<'_>) -> Result<Vec<Box<dyn StoredSeries>>, SourceError> {
        let found = self
            .0
            .select(request.tenant, request.matchers, request.range);
        let found = found.map_err(|error| SourceError::DataUnavailable {
            reason: error.to_string(),
        })?;
        let boxed = found
            .into_iter()
            .map(|s| Box::new(Stored(s)) as Box<dyn StoredSeries>);
        Ok(boxed.collect())
    }

    fn series(&self, _: &Select<'_>) -> Result<Vec<Labels>, SourceError> {
        elsewhere()
    }

    fn label_names(&self, _: &LabelRequest<'_>) -> Result<Vec<String>, SourceError> {
        elsewhere()
    }

    fn label_values(&self, _: &str, _: &LabelRequest<'_>) -> Result<Vec<String>, SourceError> {
        elsewhere()
    }

    fn metadata(
        &self,
        _: &TenantId,
        _: Option<&str>,
        _: &Arc<ReadContext>,
    ) -> Result<Vec<MetricMetadata>, SourceError> {
        elsewhere()
    }
}

impl LocalShards for Local {
    fn identity(&self) -> QueueIdentity {
        identity()
    }

    fn name(&self) -> String {
        "local".to_owned()
    }

    fn status(&self) -> StoreStatus {
        let applied = self.0.applied().next.into_iter();
        let entries = applied.map(|(partition, applied)| PartitionStatus {
            partition: partition.0,
            state: "running".to_owned(),
            applied: applied.0,
            end: None,
        });
        StoreStatus {
            protocol: VERSION,
            store: self.name(),
            ordinal: 0,
            nodes: 1,
            queue: QueueInfo::from(&identity()),
            partitions: entries.collect(),
        }
    }

    fn applied(&self, partition: PartitionId) -> Option<Offset> {
        self.0.applied().next.get(&partition).copied()
    }

    fn source(&self, _: &[PartitionId]) -> Option<Arc<dyn SeriesSource>> {
        Some(Arc::new(self.clone()))
    }

    fn wait(&self, position: &Position, timeout: Duration) -> Result<(), FreshnessError> {
        let waited = self.0.wait_applied(position, timeout);
        waited.map_err(|error| FreshnessError::NotReady {
            reason: error.to_string(),
        })
    }
}
