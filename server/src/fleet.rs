//! This process as one of a fleet: its store for query processes, and the stores of others for its
//! own queries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use millrace_auth::AuthError;
use millrace_fleet::wire::VERSION;
use millrace_fleet::{
    Directory, Fleet, FleetError, FleetFreshness, FleetMetrics, FleetOptions, FleetSource,
    LocalShards, PartitionStatus, QueueInfo, ServeMetrics, ServeOptions, StaticDirectory,
    StoreStatus, status_router,
};
use millrace_log::fs::Fs;
use millrace_model::{Offset, PartitionId};
use millrace_query::SeriesSource;
use millrace_query::api::{Freshness, FreshnessError};
use millrace_queue::{Position, QueueIdentity};
use millrace_store::Store;
use millrace_store::shard::ShardStatus;
use prometheus::Registry;
use tokio::runtime::Handle;

use crate::app::App;
use crate::config::Config;
use crate::edge::StoreEdge;
use crate::failure::Failure;
use crate::source::{PartSource, wait_applied};

/// The store of this process, as query processes see it.
struct StoreShards {
    store: Arc<Store>,
    name: String,
    ordinal: u32,
    nodes: u32,
}

impl fmt::Debug for StoreShards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreShards")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl LocalShards for StoreShards {
    fn identity(&self) -> QueueIdentity {
        self.store.identity().clone()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn status(&self) -> StoreStatus {
        let applied = self.store.applied();
        // A shard that stands in another queue, or nowhere, has nothing to say here.
        let entry = |shard: ShardStatus| {
            let applied = applied.next.get(&shard.partition)?;
            Some(PartitionStatus {
                partition: shard.partition.0,
                state: shard.state.to_string(),
                applied: applied.0,
                end: Some(applied.0.saturating_add(shard.lag_records)),
            })
        };
        StoreStatus {
            protocol: VERSION,
            store: self.name.clone(),
            ordinal: self.ordinal,
            nodes: self.nodes,
            queue: QueueInfo::from(self.store.identity()),
            partitions: self.store.status().into_iter().filter_map(entry).collect(),
        }
    }

    fn applied(&self, partition: PartitionId) -> Option<Offset> {
        self.store.applied().next.get(&partition).copied()
    }

    fn source(&self, partitions: &[PartitionId]) -> Option<Arc<dyn SeriesSource>> {
        let part = self.store.part(partitions)?;
        Some(Arc::new(PartSource(part)))
    }

    fn wait(&self, position: &Position, timeout: Duration) -> Result<(), FreshnessError> {
        wait_applied(&self.store, position, timeout)
    }
}

/// The routes by which query processes read this process's store.
///
/// # Errors
///
/// Metrics that are registered already.
pub fn serve(
    store: &Arc<Store>,
    config: &Config,
    registry: &Registry,
) -> Result<Router, prometheus::Error> {
    let cluster = &config.cluster;
    let shards = StoreShards {
        store: store.clone(),
        name: replica_name(config),
        ordinal: cluster.ordinal,
        nodes: cluster.nodes,
    };
    let metrics = ServeMetrics::register(registry)?;
    Ok(millrace_fleet::router(
        Arc::new(shards),
        ServeOptions::default(),
        metrics,
    ))
}

/// The name of this store: the configured one, or by which it is reached.
#[must_use]
pub fn replica_name(config: &Config) -> String {
    let replica = config.cluster.replica.clone();
    replica.unwrap_or_else(|| config.top.listen.to_string())
}

/// What queries over stores of other processes are made of.
pub struct Remote {
    /// Where series are read.
    pub source: Arc<dyn SeriesSource>,
    /// How far they are.
    pub freshness: Arc<dyn Freshness>,
    /// Tells about the stores.
    pub router: Router,
}

/// The stores of the configuration, or those that announce themselves. `identity` is the queue of
/// this process, if it has one.
///
/// # Errors
///
/// A control topic that cannot be used. Brokers that are away are waited for.
pub fn directory(
    app: &App,
    fs: &dyn Fs,
    config: &Config,
    identity: Option<&QueueIdentity>,
) -> Result<Arc<dyn Directory>, Failure> {
    let stores = config.fleet.stores.iter().cloned();
    if stores.len() > 0 {
        return Ok(Arc::new(StaticDirectory::new(stores, identity.cloned())));
    }
    announced(app, fs, config)
}

#[cfg(feature = "kafka")]
fn announced(app: &App, fs: &dyn Fs, config: &Config) -> Result<Arc<dyn Directory>, Failure> {
    let follower = crate::queue::kafka::follow(app, fs, config)?;
    Ok(Arc::new(AnnouncedStores(follower)))
}

#[cfg(not(feature = "kafka"))]
fn announced(_: &App, _: &dyn Fs, _: &Config) -> Result<Arc<dyn Directory>, Failure> {
    let reason = "this millrace was built without Kafka: queries need fleet.stores";
    Err(Failure::Refused(reason.to_owned()))
}

/// Stores that have announced themselves.
#[cfg(feature = "kafka")]
#[derive(Debug)]
struct AnnouncedStores(millrace_queue::kafka::ControlFollower);

#[cfg(feature = "kafka")]
impl Directory for AnnouncedStores {
    fn stores(&self) -> std::collections::BTreeSet<String> {
        let announced = self.0.announced().into_iter();
        announced.map(|store| store.address).collect()
    }

    fn identity(&self) -> Option<QueueIdentity> {
        self.0.identity()
    }
}

/// Begins to look at the stores of a directory.
///
/// # Errors
///
/// See [`FleetError`]; metrics that are registered already.
pub fn remote(
    config: &Config,
    directory: Arc<dyn Directory>,
    registry: &Registry,
    runtime: Handle,
    stores: &StoreEdge,
) -> Result<Remote, RemoteError> {
    let metrics = FleetMetrics::register(registry)?;
    let access = stores.access()?;
    let fleet = Fleet::start(directory, options(config), access, runtime, metrics)?;
    Ok(Remote {
        source: Arc::new(FleetSource::new(fleet.clone())),
        freshness: Arc::new(FleetFreshness::new(fleet.clone())),
        router: status_router(fleet),
    })
}

fn options(config: &Config) -> FleetOptions {
    let fleet = &config.fleet;
    FleetOptions {
        poll_interval: fleet.poll_interval,
        first_byte_timeout: fleet.first_byte_timeout,
        stall_timeout: fleet.stall_timeout,
        switch_records: fleet.switch_records,
        max_read_bytes: fleet.max_read_bytes.0,
        max_buffer_bytes: fleet.max_buffer_bytes.0,
        ..FleetOptions::default()
    }
}

/// Why stores of other processes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Of the client.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// Of TLS.
    #[error(transparent)]
    Tls(#[from] AuthError),
    /// Of the metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}
