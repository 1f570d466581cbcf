//! Stores over tables in memory, with faults that can be switched on.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use http::{StatusCode, header};
use millrace_fleet::wire::VERSION;
use millrace_fleet::{
    Fleet, FleetMetrics, FleetOptions, FleetSource, LocalShards, PartitionStatus, QueueInfo,
    ServeMetrics, ServeOptions, SharedToken, StaticDirectory, StoreAccess, StoreStatus,
};
use millrace_model::{
    Labels, Matcher, Offset, PartitionId, QueueId, ShardKey, TenantId, TimeRange,
};
use millrace_query::api::FreshnessError;
use millrace_query::{ReadContext, SampleColumns, Select, SeriesSource, SourceError};
use millrace_queue::{Position, QueueIdentity};
use parking_lot::{Condvar, Mutex};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};

use crate::table::Table;

pub const PARTITIONS: u32 = 4;

pub fn runtime() -> Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| Runtime::new().unwrap())
        .handle()
        .clone()
}

pub fn identity() -> QueueIdentity {
    QueueIdentity {
        id: QueueId(0xbeef),
        partitions: PARTITIONS,
        shard_key: ShardKey::default(),
    }
}

/// A client of plain HTTP.
pub fn http() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    builder.no_proxy().build().unwrap()
}

/// Waits, for as long as a loaded machine may take.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// What is wrong with a store's reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// The request is never answered.
    Hang,
    /// A page of something that stands in between.
    Page,
    /// The connection breaks after so many bytes of the answer.
    Cut(usize),
    /// The answer ends in order after so many bytes.
    End(usize),
    /// Nothing comes any more after so many bytes.
    HangAfter(usize),
    /// One bit is another one.
    Flip(usize),
    /// Bytes of something else.
    Garbage,
    /// Every piece takes its time.
    Slow,
}

#[derive(Debug)]
pub struct Shards {
    pub identity: QueueIdentity,
    name: String,
    tables: BTreeMap<PartitionId, Table>,
    applied: Mutex<BTreeMap<PartitionId, Offset>>,
    changed: Condvar,
    pub fault: Mutex<Fault>,
    /// Stands for the tables.
    pub source: Mutex<Option<Arc<dyn SeriesSource>>>,
    pub reads: Mutex<u32>,
    /// What `Authorization` must say, if anything.
    pub wants: Mutex<Option<String>>,
}

impl Shards {
    pub fn advance(&self, partition: u32, applied: u64) {
        self.applied
            .lock()
            .insert(PartitionId(partition), Offset(applied));
        self.changed.notify_all();
    }
}

impl LocalShards for Shards {
    fn identity(&self) -> QueueIdentity {
        self.identity.clone()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn status(&self) -> StoreStatus {
        let applied = self.applied.lock();
        let entry = |(partition, applied): (&PartitionId, &Offset)| PartitionStatus {
            partition: partition.0,
            state: "running".into(),
            applied: applied.0,
            end: None,
        };
        StoreStatus {
            protocol: VERSION,
            store: self.name.clone(),
            ordinal: 0,
            nodes: 1,
            queue: QueueInfo::from(&self.identity),
            partitions: applied.iter().map(entry).collect(),
        }
    }

    fn applied(&self, partition: PartitionId) -> Option<Offset> {
        self.applied.lock().get(&partition).copied()
    }

    fn source(&self, partitions: &[PartitionId]) -> Option<Arc<dyn SeriesSource>> {
        if let Some(source) = &*self.source.lock() {
            return Some(source.clone());
        }
        let mut merged = Table::default();
        for partition in partitions {
            let table = self.tables.get(partition)?;
            let series = table.series.iter().map(|(l, s)| (l.clone(), s.clone()));
            merged.series.extend(series);
            merged.metadata.extend(table.metadata.iter().cloned());
        }
        Some(Arc::new(merged))
    }

    fn wait(&self, position: &Position, timeout: Duration) -> Result<(), FreshnessError> {
        let deadline = Instant::now() + timeout;
        let mut applied = self.applied.lock();
        while position.next.iter().any(|(p, wanted)| applied[p] < *wanted) {
            if self.changed.wait_until(&mut applied, deadline).timed_out() {
                return Err(FreshnessError::NotReached {
                    waited: timeout,
                    reason: "behind".into(),
                });
            }
        }
        Ok(())
    }
}

/// So that small tables take several.
fn small_frames() -> ServeOptions {
    ServeOptions {
        frame_bytes: 8 << 10,
        ..ServeOptions::default()
    }
}

/// A store that listens.
pub struct Store {
    pub shards: Arc<Shards>,
    pub address: String,
    runtime: Mutex<Option<Runtime>>,
}

impl Store {
    /// A store of these partitions of the table, all applied up to 100.
    pub fn start(name: &str, data: &Table, partitions: &[u32]) -> Self {
        Self::of(name, data, partitions, identity(), small_frames())
    }

    pub fn of(
        name: &str,
        data: &Table,
        partitions: &[u32],
        identity: QueueIdentity,
        options: ServeOptions,
    ) -> Self {
        let partitions = partitions.iter().copied().map(PartitionId);
        let tables: BTreeMap<_, _> = partitions.map(|p| (p, part(data, p))).collect();
        let applied = tables.keys().map(|p| (*p, Offset(100))).collect();
        let shards = Arc::new(Shards {
            identity,
            name: name.into(),
            tables,
            applied: Mutex::new(applied),
            changed: Condvar::new(),
            fault: Mutex::new(Fault::None),
            source: Mutex::new(None),
            reads: Mutex::new(0),
            wants: Mutex::new(None),
        });
        let metrics = ServeMetrics::register(&Registry::new()).unwrap();
        let router = millrace_fleet::router(shards.clone(), options, metrics)
            .layer(middleware::from_fn_with_state(shards.clone(), faulty));
        // Its own, so that its connections end with it, as those of a process do.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        runtime.spawn(async { axum::serve(listener, router).await.unwrap() });
        Self {
            shards,
            address,
            runtime: Mutex::new(Some(runtime)),
        }
    }

    pub fn fail(&self, fault: Fault) -> &Self {
        *self.shards.fault.lock() = fault;
        self
    }

    /// Stops listening, and cuts what is going on.
    pub fn kill(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }

    pub fn reads(&self) -> u32 {
        *self.shards.reads.lock()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

async fn faulty(State(shards): State<Arc<Shards>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.to_str().ok());
    if let Some(wanted) = &*shards.wants.lock()
        && shown != Some(wanted)
    {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if !request.uri().path().ends_with("/read") {
        return next.run(request).await;
    }
    *shards.reads.lock() += 1;
    let fault = *shards.fault.lock();
    let limit = match fault {
        Fault::None => return next.run(request).await,
        Fault::Hang => return std::future::pending().await,
        Fault::Page => return Response::new(Body::from("<html>a page</html>")),
        Fault::Garbage => return Response::new(Body::from(vec![7u8; 10_000])),
        Fault::Cut(n) | Fault::End(n) | Fault::HangAfter(n) | Fault::Flip(n) => n,
        Fault::Slow => 0,
    };
    let response = next.run(request).await;
    let (parts, body) = response.into_parts();
    let mut seen = 0;
    let pieces = body.into_data_stream().flat_map(move |piece| {
        let piece = piece.unwrap();
        let at = limit.checked_sub(seen).filter(|at| *at < piece.len());
        seen += piece.len();
        let mut out = Vec::new();
        match (fault, at) {
            (Fault::Flip(_), Some(at)) => {
                let mut bytes = piece.to_vec();
                bytes[at] ^= 0x10;
                out.push(Ok(bytes.into()));
            }
            (Fault::Flip(_), None) | (Fault::Slow, _) => out.push(Ok(piece)),
            (_, Some(at)) => {
                out.push(Ok(piece.slice(..at)));
                out.push(Err(std::io::Error::other("the fault")));
            }
            (_, None) if seen <= limit => out.push(Ok(piece)),
            (_, None) => {}
        }
        futures::stream::iter(out)
    });
    let body = match fault {
        // An error of the body breaks the connection.
        Fault::Cut(_) => Body::from_stream(pieces),
        Fault::End(_) => Body::from_stream(pieces.take_while(|p| std::future::ready(p.is_ok()))),
        Fault::HangAfter(_) => Body::from_stream(
            pieces
                .take_while(|p| std::future::ready(p.is_ok()))
                .chain(futures::stream::pending()),
        ),
        Fault::Slow => Body::from_stream(pieces.then(|piece| async {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            ticks.tick().await;
            ticks.tick().await;
            piece
        })),
        _ => Body::from_stream(pieces),
    };
    Response::from_parts(parts, body)
}

/// The series of one partition.
fn part(data: &Table, partition: PartitionId) -> Table {
    let key = ShardKey::default();
    let tenant = TenantId::anonymous();
    let ours = |labels: &Labels| key.partition(&tenant, labels, PARTITIONS) == partition;
    let series = data.series.iter().filter(|(labels, _)| ours(labels));
    Table {
        series: series.map(|(l, s)| (l.clone(), s.clone())).collect(),
        metadata: data.metadata.clone(),
    }
}

/// Series of many instances, so that all partitions have some.
pub fn table(series: usize, samples: i64) -> Table {
    let mut table = Table::default();
    for n in 0..series {
        let instance = format!("host-{n}");
        let samples: Vec<_> = (0..samples)
            .map(|i| {
                (
                    i * 1000 + (i * 7 + n as i64) % 5,
                    ((i * i * 31 + n as i64) % 7919) as f64 / 10.0,
                )
            })
            .collect();
        table = table.with(&[("__name__", "m"), ("instance", &instance)], &samples);
    }
    table
}

pub fn options() -> FleetOptions {
    FleetOptions {
        poll_interval: Duration::from_millis(50),
        poll_timeout: Duration::from_secs(20),
        first_byte_timeout: Duration::from_secs(20),
        ..FleetOptions::default()
    }
}

pub fn fleet(stores: &[&Store], options: FleetOptions) -> Arc<Fleet> {
    fleet_with(stores, options, SharedToken::default())
}

pub fn fleet_with(stores: &[&Store], options: FleetOptions, token: SharedToken) -> Arc<Fleet> {
    let addresses = stores.iter().map(|store| store.address.clone());
    let directory = StaticDirectory::new(addresses, Some(identity()));
    let metrics = FleetMetrics::register(&Registry::new()).unwrap();
    let access = StoreAccess { token, tls: None };
    Fleet::start(Arc::new(directory), options, access, runtime(), metrics).unwrap()
}

pub fn source(stores: &[&Store]) -> FleetSource {
    FleetSource::new(fleet(stores, options()))
}

pub fn context() -> Arc<ReadContext> {
    Arc::new(ReadContext::default())
}

pub fn partial() -> Arc<ReadContext> {
    Arc::new(ReadContext::new(true, Default::default(), None))
}

pub type Columns = Vec<(i64, u64)>;

/// Everything that passes, by labels, with values by their bits.
pub fn read(
    source: &dyn SeriesSource,
    matchers: &[Matcher],
    range: TimeRange,
    context: &Arc<ReadContext>,
) -> Result<BTreeMap<Labels, Columns>, SourceError> {
    let tenant = TenantId::anonymous();
    let found = source.select(&Select {
        tenant: &tenant,
        matchers,
        range,
        context,
    })?;
    let mut all = BTreeMap::new();
    for series in found {
        let mut columns = SampleColumns::default();
        series.read(&mut columns)?;
        let values = columns.values.iter().map(|v| v.to_bits());
        let samples = columns.timestamps.iter().copied().zip(values).collect();
        let twice = all.insert(series.labels().clone(), samples);
        assert!(twice.is_none(), "{} came twice", series.labels());
    }
    Ok(all)
}

pub fn read_all(
    source: &dyn SeriesSource,
    context: &Arc<ReadContext>,
) -> Result<BTreeMap<Labels, Columns>, SourceError> {
    read(source, &[], TimeRange::ALL, context)
}
