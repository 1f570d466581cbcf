//! This process as one of a fleet: its store for query processes, and the stores of others for its
//! own queries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use millrace_fleet::wire::VERSION;
use millrace_fleet::{
    Directory, Fleet, FleetError, FleetFreshness, FleetMetrics, FleetOptions, FleetSource,
    LocalShards, PartitionStatus, QueueInfo, ServeMetrics, ServeOptions, StaticDirectory,
    StoreStatus, status_router,
};
use millrace_model::{Offset, PartitionId};
use millrace_query::SeriesSource;
use millrace_query::api::{Freshness, FreshnessError};
use millrace_queue::{Position, QueueIdentity};
use millrace_store::Store;
use millrace_store::shard::ShardStatus;
use prometheus::Registry;
use tokio::runtime::Handle;

use crate::config::Config;
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

/// Begins to look at the stores of the configuration.
///
/// # Errors
///
/// See [`FleetError`]; metrics that are registered already.
pub fn remote(
    config: &Config,
    identity: &QueueIdentity,
    registry: &Registry,
    runtime: Handle,
) -> Result<Remote, RemoteError> {
    let stores = config.fleet.stores.iter().cloned();
    let directory: Arc<dyn Directory> =
        Arc::new(StaticDirectory::new(stores, Some(identity.clone())));
    let metrics = FleetMetrics::register(registry)?;
    let fleet = Fleet::start(directory, options(config), runtime, metrics)?;
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
    /// Of the metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}
