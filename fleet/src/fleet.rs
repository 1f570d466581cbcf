//! What is known of all stores, kept up to date by polls.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use futures::future::join_all;
use millrace_queue::QueueIdentity;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;

use crate::answer::Memory;
use crate::client::{Caller, StoreAccess};
use crate::directory::Directory;
use crate::metrics::FleetMetrics;
use crate::options::FleetOptions;
use crate::replicas::Replicas;
use crate::wire::messages::StoreStatus;

/// The stores of one queue, as a query process sees them.
#[derive(Debug)]
pub struct Fleet {
    pub(crate) options: FleetOptions,
    pub(crate) caller: Caller,
    pub(crate) metrics: FleetMetrics,
    pub(crate) memory: Arc<Memory>,
    pub(crate) replicas: Mutex<Replicas>,
    /// Requests run here; who asks blocks on it from a thread of its own.
    pub(crate) runtime: Handle,
    directory: Arc<dyn Directory>,
    /// Of the first store that told it, where the directory does not.
    identity: OnceLock<QueueIdentity>,
}

/// Why a fleet cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The HTTP client cannot be set up.
    #[error("the client for stores cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// Nor can TLS.
    #[error("TLS for stores cannot be set up: {0}")]
    Tls(String),
}

impl Fleet {
    /// Begins to look at the stores of `directory`, on `runtime`, until the last handle is dropped.
    /// Stores are spoken to as `access` says at the time.
    ///
    /// # Errors
    ///
    /// See [`FleetError`].
    pub fn start(
        directory: Arc<dyn Directory>,
        options: FleetOptions,
        access: StoreAccess,
        runtime: Handle,
        metrics: FleetMetrics,
    ) -> Result<Arc<Self>, FleetError> {
        let fleet = Arc::new(Self {
            caller: Caller::new(options, access)?,
            memory: Memory::new(options.max_buffer_bytes, metrics.buffer_bytes.clone()),
            options,
            metrics,
            replicas: Mutex::new(Replicas::default()),
            directory,
            identity: OnceLock::new(),
            runtime: runtime.clone(),
        });
        runtime.spawn(watch(Arc::downgrade(&fleet), options.poll_interval));
        Ok(fleet)
    }

    /// The queue that the stores read; `None` as long as neither the directory nor a store has told.
    #[must_use]
    pub fn identity(&self) -> Option<QueueIdentity> {
        // What the directory says may change: a topic that was made again was adopted.
        let told = self.directory.identity();
        told.or_else(|| self.identity.get().cloned())
    }

    /// Looks at every store now.
    pub(crate) async fn poll(&self) {
        let addresses = self.directory.stores();
        let gone = self.replicas.lock().set_addresses(&addresses);
        for store in gone {
            tracing::info!(store, "a store is no longer announced");
            self.metrics.forget(&store);
        }
        join_all(addresses.iter().map(|store| self.poll_one(store))).await;
        let replicas = self.replicas.lock();
        for (store, replica) in replicas.iter() {
            let behind = replicas.behind(replica);
            self.metrics.polled(store, replica.is_good(), behind);
        }
    }

    async fn poll_one(&self, store: &str) {
        let begun = Instant::now();
        match self.caller.status(store).await {
            Ok(status) => self.told(store, status, begun),
            Err(error) => self.replicas.lock().failed(store, error.to_string()),
        }
    }

    /// A store has told its status.
    pub(crate) fn told(&self, store: &str, status: StoreStatus, begun: Instant) {
        let known = self.identity().or_else(|| {
            let first = status.queue.identity()?;
            Some(self.identity.get_or_init(|| first).clone())
        });
        let mut replicas = self.replicas.lock();
        match known {
            Some(identity) => replicas.told(store, status, &identity, begun.elapsed()),
            None => replicas.failed(store, format!("its queue {:?} is none", status.queue.id)),
        }
    }
}

async fn watch(fleet: Weak<Fleet>, interval: std::time::Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(fleet) = fleet.upgrade() else {
            return;
        };
        fleet.poll().await;
    }
}
